"""Holds every key that the endpoints tell, reads what they send, and checks the phases of the keys.

A second reading of sections 3.6 and 4.4, so that the invariants can go by what a frame says.
"""

import hmac
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.config import Config
from kaudp.core.paths import Address
from kaudp.units import SECOND, milliseconds
from kaudp.wire import codec
from kaudp.wire.codec import Body, TransportHeader
from kaudp.wire.grammar import FrameType

TRANSPORT: Final = {FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE}
PHASE_LASTS: Final = 30 * SECOND


class Frame(NamedTuple):
    """A transport frame, opened."""

    header: TransportHeader
    body: Body


class Sent(NamedTuple):
    """A datagram that a side sends; `frame` is None in a handshake."""

    data: bytes
    address: Address
    frame: Frame | None

    @property
    def type(self) -> FrameType:
        return FrameType(self.data[1])


class Flow:
    """One direction of one handshake's keys: the phases that were sealed in, and that came in."""

    def __init__(self, secret: bytes, *, from_initiator: bool) -> None:
        self.from_initiator = from_initiator
        self.back = self
        self.came_in: dict[int, int] = {}
        self.phase = 0
        self._secrets = [secret]
        self._keys: dict[int, AESGCM] = {}
        self._began: int | None = None
        self._sealed = 0

    def open(self, data: bytes) -> tuple[int, bytes] | None:
        """Give the phase and the plaintext of a frame, None if it is under other keys."""
        newest = max({*self.came_in, self.phase})  # a liar may be ahead of who should send here
        for phase in range(newest + 1, -1, -1):
            if phase & 1 == data[3] & 1:
                try:
                    nonce = data[12:20].rjust(12, b"\0")
                    return phase, self._key(phase).decrypt(nonce, data[20:], data[:20])
                except InvalidTag:
                    continue
        return None

    def note_sealed(self, phase: int, config: Config, now: int) -> None:
        """Check that a frame may be, and must be, sealed in this phase. KA-4.4-6, KA-4.4-7."""
        lasted = 0 if self._began is None else now - self._began
        if self.from_initiator:
            worn = self._sealed >= config.key_update_frames
            old = lasted >= milliseconds(config.key_update_interval_ms)
            heard = self.back.came_in.get(self.phase)
            due = (worn or old) and heard is not None and now - heard >= PHASE_LASTS
            said = f"{self._sealed} frames, {lasted} ns, heard: {heard}"
            assert phase == self.phase + due, f"KA-4.4-6: from {self.phase} to {phase} after {said}"
        else:
            due = self.phase + 1 in self.back.came_in
            assert phase == self.phase + due, f"KA-4.4-7: from {self.phase} to {phase}, due: {due}"
        if phase != self.phase or self._began is None:
            self.phase, self._began, self._sealed = phase, now, 0
        self._sealed += 1

    def _key(self, phase: int) -> AESGCM:
        while len(self._secrets) <= phase:
            self._secrets.append(_expand(self._secrets[-1], b"kaudp/1 next"))
        if phase not in self._keys:
            self._keys[phase] = AESGCM(_expand(self._secrets[phase], b"kaudp/1 key"))
        return self._keys[phase]


class Listener:
    """All flows that the endpoints of a pair have told."""

    def __init__(self, *, in_clear: bool) -> None:
        self.in_clear = in_clear
        self._flows: dict[bytes, list[Flow]] = {}
        self._secrets: set[tuple[bytes, bytes]] = set()
        self._outward: tuple[bytes, bytes] | None = None
        self._read: dict[bytes, tuple[Flow | None, int, bytes]] = {}

    def learn(self, receiver_session_id: bytes, secret: bytes) -> None:
        """Learn what an endpoint tells of a handshake: first the direction from the initiator."""
        if self._outward is None:
            self._outward = receiver_session_id, secret
            return
        told, self._outward = self._outward, None
        if told in self._secrets:
            return
        self._secrets.add(told)
        outward, homeward = Flow(told[1], from_initiator=True), Flow(secret, from_initiator=False)
        outward.back, homeward.back = homeward, outward
        self._flows.setdefault(told[0], []).append(outward)
        self._flows.setdefault(receiver_session_id, []).append(homeward)

    def sent(self, data: bytes, address: Address, config: Config, now: int) -> Sent:
        """Read a datagram of an endpoint."""
        if data[1] not in TRANSPORT:
            return Sent(data, address, None)
        opened = self._open(data)
        assert opened is not None, "KA-4.4-1: sent what its keys do not open"
        flow, phase, plaintext = opened
        if flow is not None:
            flow.note_sealed(phase, config, now)
        return Sent(data, address, _frame(data, plaintext))

    def came_in(self, data: bytes, now: int, *, accepted: bool) -> Frame | None:
        """Take note of a datagram that was consumed; give a transport frame that was accepted."""
        opened = self._open(data) if data[1] in TRANSPORT else None
        if opened is None:
            return None
        flow, phase, plaintext = opened
        if flow is not None:
            flow.came_in.setdefault(phase, now)
        return _frame(data, plaintext) if accepted else None

    def _open(self, data: bytes) -> tuple[Flow | None, int, bytes] | None:
        """Give the flow, the phase and the plaintext, None under keys that nobody has told."""
        if self.in_clear:
            return None, 0, data[20:]
        if data not in self._read:
            flows = reversed(self._flows.get(data[4:12], ()))
            found = next(((flow, opened) for flow in flows if (opened := flow.open(data))), None)
            if found is None:
                return None
            self._read[data] = found[0], *found[1]
        return self._read[data]


def _frame(data: bytes, plaintext: bytes) -> Frame:
    return Frame(codec.parse_transport_header(data), codec.parse_body(data[1], plaintext))


def _expand(secret: bytes, label: bytes) -> bytes:
    return hmac.digest(secret, label + b"\x01", "sha256")
