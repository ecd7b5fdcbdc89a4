"""Session keys and the tag of transport frames.

Spec: sections 4.4 and 5.
"""

import hmac
from typing import Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.errors import DropReason, Refused
from kaudp.wire.codec import STEADY_FRAME_BYTES, TRANSPORT_HEADER_BYTES
from kaudp.wire.noise import Secrets

_KEY_LABEL: Final = b"kaudp/1 key"


class FrameKeys(Protocol):
    """What protects the transport frames of one handshake; see `suites`."""

    @property
    def steady_frame_bytes(self) -> int:
        """The length of a frame without options."""

    def seal(self, header: bytes, packet_number: int, body: bytes) -> bytes:
        """Give a whole transport frame."""

    def unseal(self, packet_number: int, data: bytes) -> bytes:
        """Give the body of a transport frame, or raise `Refused`."""


class SessionKeys(NamedTuple):
    """The two AEADs of a session, as seen from one side."""

    sending: AESGCM
    receiving: AESGCM

    @property
    def steady_frame_bytes(self) -> int:
        """The length of a frame without options, tag included."""
        return STEADY_FRAME_BYTES

    def seal(self, header: bytes, packet_number: int, body: bytes) -> bytes:
        """Give a whole transport frame. Spec: KA-4.4-1."""
        return seal(self.sending, header, packet_number, body)

    def unseal(self, packet_number: int, data: bytes) -> bytes:
        """Give the body of a transport frame, or raise `Refused`. Spec: KA-2-3."""
        return unseal(self.receiving, packet_number, data)


def session_keys(secrets: Secrets, *, initiator: bool) -> SessionKeys:
    """Derive a side's traffic keys of phase 0. Spec: section 4.4."""
    outward = AESGCM(traffic_key(secrets.initiator_to_responder))
    homeward = AESGCM(traffic_key(secrets.responder_to_initiator))
    return SessionKeys(outward, homeward) if initiator else SessionKeys(homeward, outward)


def traffic_key(secret: bytes) -> bytes:
    """HKDF-Expand-SHA256 to one block: the traffic key of one direction, 32 bytes. KA-4.4-4."""
    return hmac.digest(secret, _KEY_LABEL + b"\x01", "sha256")


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
