"""Session keys, their phases, and the tag of transport frames.

Spec: sections 4.4 and 5.
"""

import hmac
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.errors import DropReason, Refused
from kaudp.units import MAX_UINT32, SECOND
from kaudp.wire.codec import STEADY_FRAME_BYTES, TRANSPORT_HEADER_BYTES, TransportHeader
from kaudp.wire.grammar import KEY_PHASE
from kaudp.wire.noise import Secrets

PHASE_LINGER: Final = 30 * SECOND
_KEY_LABEL: Final = b"kaudp/1 key"
_NEXT_LABEL: Final = b"kaudp/1 next"


class PhaseLimits(NamedTuple):
    """When an initiator begins the next phase: after so many ns, or so many frames. KA-4.4-6."""

    age: int
    frames: int


NO_LIMITS: Final = PhaseLimits(MAX_UINT32 * SECOND, MAX_UINT32)


class FrameKeys(Protocol):
    """What protects the transport frames of one handshake; see `suites`."""

    @property
    def steady_frame_bytes(self) -> int:
        """The length of a frame without options."""

    @property
    def flags_known(self) -> int:
        """The bits of `flags` that mean something."""

    @property
    def phase(self) -> int:
        """The phase that frames are sealed in now."""

    def flags(self, now: int, limits: PhaseLimits) -> int:
        """Give the flags of the frame that `seal` is called for next."""

    def seal(self, header: bytes, packet_number: int, body: bytes) -> bytes:
        """Give a whole transport frame."""

    def unseal(self, header: TransportHeader, data: bytes, now: int) -> bytes:
        """Give the body of a transport frame, or raise `Refused`."""


class OneKey:
    """One traffic key of which no secret is known, as it is given to a decoder."""

    flags_known: Final = KEY_PHASE
    steady_frame_bytes: Final = STEADY_FRAME_BYTES
    phase: Final = 0

    def __init__(self, aead: AESGCM) -> None:
        self._aead = aead

    def flags(self, now: int, limits: PhaseLimits) -> int:
        """Give the flags of phase 0."""
        return 0

    def seal(self, header: bytes, packet_number: int, body: bytes) -> bytes:
        """Give a whole transport frame. Spec: KA-4.4-1."""
        return seal(self._aead, header, packet_number, body)

    def unseal(self, header: TransportHeader, data: bytes, now: int) -> bytes:
        """Give the body of a transport frame of any phase, or raise `Refused`."""
        return unseal(self._aead, header.packet_number, data)


class Phase:
    """One phase of one direction: the secret it came from and the key in use."""

    __slots__ = ("_secret", "aead", "number")

    def __init__(self, secret: bytes, number: int = 0) -> None:
        self.number = number
        self.aead = AESGCM(traffic_key(secret))
        self._secret = secret

    def following(self) -> "Phase":
        """Give the phase after this one. Spec: section 4.4."""
        return Phase(next_secret(self._secret), self.number + 1)


class SessionKeys:
    """The traffic keys of both directions, phase after phase, as seen from one side."""

    __slots__ = (
        "_came_in_at",
        "_first_number",
        "_following",
        "_initiator",
        "_previous",
        "_receiving",
        "_sealed",
        "_sending",
        "_sending_since",
    )

    flags_known: Final = KEY_PHASE
    steady_frame_bytes: Final = STEADY_FRAME_BYTES

    def __init__(self, sending: bytes, receiving: bytes, *, initiator: bool) -> None:
        self._initiator = initiator
        self._sending = Phase(sending)
        self._receiving = Phase(receiving)
        self._previous: Phase | None = None
        self._following: Phase | None = None
        self._first_number: int | None = None
        self._came_in_at = 0
        self._sealed = 0
        self._sending_since: int | None = None

    @property
    def phase(self) -> int:
        """The phase that frames are sealed in now."""
        return self._sending.number

    def flags(self, now: int, limits: PhaseLimits) -> int:
        """Go over to the next phase if that is due, and give its bit. KA-4.4-5, -6, -7."""
        if self._sending_since is None:
            self._sending_since = now
        if self._previous is not None and now - self._came_in_at >= PHASE_LINGER:
            self._previous = None  # So that what was sent before stays closed.
        behind = self._receiving.number > self._sending.number
        if behind if not self._initiator else self._update_due(now, self._sending_since, limits):
            self._sending = self._sending.following()
            self._sending_since = now
            self._sealed = 0
        return self._sending.number & KEY_PHASE

    def seal(self, header: bytes, packet_number: int, body: bytes) -> bytes:
        """Give a whole transport frame. Spec: KA-4.4-1."""
        self._sealed += 1
        return seal(self._sending.aead, header, packet_number, body)

    def unseal(self, header: TransportHeader, data: bytes, now: int) -> bytes:
        """Give the body of a transport frame, or raise `Refused`. Spec: KA-2-3, KA-4.4-8."""
        number = header.packet_number
        if header.flags & KEY_PHASE == self._receiving.number & KEY_PHASE:
            body = unseal(self._receiving.aead, number, data)
            if self._first_number is None:
                self._came_in_at = now
                self._first_number = number
            elif number < self._first_number:
                self._first_number = number
            return body
        if (
            self._previous is not None
            and self._first_number is not None
            and number < self._first_number
            and now - self._came_in_at < PHASE_LINGER
        ):
            return unseal(self._previous.aead, number, data)
        if self._initiator and self._sending.number == self._receiving.number:
            raise Refused(DropReason.BAD_TAG, "a phase that was not begun")
        return self._unseal_next(number, data, now)

    def _unseal_next(self, number: int, data: bytes, now: int) -> bytes:
        if self._following is None:
            self._following = self._receiving.following()
        body = unseal(self._following.aead, number, data)
        self._previous, self._receiving = self._receiving, self._following
        self._following = None
        self._first_number = number
        self._came_in_at = now
        return body

    def _update_due(self, now: int, begun: int, limits: PhaseLimits) -> bool:
        return (
            (now - begun >= limits.age or self._sealed >= limits.frames)
            and self._receiving.number == self._sending.number
            and self._first_number is not None
            and now - self._came_in_at >= PHASE_LINGER
        )


def session_keys(secrets: Secrets, *, initiator: bool) -> SessionKeys:
    """Derive a side's traffic keys. Spec: section 4.4."""
    outward, homeward = secrets
    if initiator:
        return SessionKeys(outward, homeward, initiator=True)
    return SessionKeys(homeward, outward, initiator=False)


def traffic_key(secret: bytes) -> bytes:
    """HKDF-Expand-SHA256 to one block: the traffic key of a phase, 32 bytes. KA-4.4-4."""
    return hmac.digest(secret, _KEY_LABEL + b"\x01", "sha256")


def next_secret(secret: bytes) -> bytes:
    """HKDF-Expand-SHA256 to one block: the secret of the next phase. Spec: section 4.4."""
    return hmac.digest(secret, _NEXT_LABEL + b"\x01", "sha256")


def seal(aead: AESGCM, header: bytes, packet_number: int, plaintext: bytes) -> bytes:
    """Give a whole transport frame. Spec: KA-4.4-1."""
    return header + aead.encrypt(packet_number.to_bytes(12, "big"), plaintext, header)


def unseal(aead: AESGCM, packet_number: int, data: bytes) -> bytes:
    """Give the plaintext of a transport frame, or raise `Refused`. Spec: KA-2-3."""
    header = data[:TRANSPORT_HEADER_BYTES]
    sealed = data[TRANSPORT_HEADER_BYTES:]
    try:
        return aead.decrypt(packet_number.to_bytes(12, "big"), sealed, header)
    except InvalidTag:
        raise Refused(DropReason.BAD_TAG) from None
