"""Noise_NNpsk0_25519_AESGCM_SHA256, the one handshake of kaudp/1.

Bytes in, bytes out; no frames, no sessions. The caller gives the ephemeral private key.
Spec: section 4, KA-4.2-6; the Noise Protocol Framework, revision 34.
"""

import hashlib
import hmac
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.errors import DropReason, Refused

PROTOCOL_NAME: Final = b"Noise_NNpsk0_25519_AESGCM_SHA256"
_ZERO_NONCE: Final = bytes(12)


class Secrets(NamedTuple):
    """The secret of each direction, from Noise's Split."""

    initiator_to_responder: bytes
    responder_to_initiator: bytes

    def __repr__(self) -> str:
        """Hide the secrets. Spec: KA-5.2-1."""
        return "Secrets(hidden)"


class Initiator:
    """The initiator's side: writes message 1, reads message 2."""

    __slots__ = ("_ephemeral", "_symmetric")

    def __init__(self, psk: bytes, prologue: bytes, ephemeral_private: bytes) -> None:
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_private)
        self._symmetric = _SymmetricState(psk, prologue)

    def write_message_1(self, payload: bytes) -> bytes:
        """Give ephemeral || sealed payload."""
        public = self._ephemeral.public_key().public_bytes_raw()
        self._symmetric.mix_ephemeral(public)
        return public + self._symmetric.encrypt_and_hash(payload)

    def read_message_2(self, ephemeral: bytes, sealed: bytes) -> tuple[bytes, Secrets]:
        """Open message 2, or raise `Refused`; a failure leaves the state as it was.

        Spec: KA-4.3-6, KA-4.3-7.
        """
        symmetric = self._symmetric.copy()
        symmetric.mix_ephemeral(ephemeral)
        try:
            symmetric.mix_key(_exchange(self._ephemeral, ephemeral))
        except ValueError:
            raise Refused(DropReason.BAD_TAG, "low-order ephemeral key") from None
        return symmetric.decrypt_and_hash(sealed), symmetric.split()


class Responder:
    """The responder's side: reads message 1, writes message 2."""

    __slots__ = ("_peer_ephemeral", "_symmetric")

    def __init__(self, psk: bytes, prologue: bytes) -> None:
        self._symmetric = _SymmetricState(psk, prologue)
        self._peer_ephemeral = b""

    def read_message_1(self, ephemeral: bytes, sealed: bytes) -> bytes:
        """Open message 1 by hashing alone, or raise `Refused`. Spec: KA-4.2-4."""
        self._symmetric.mix_ephemeral(ephemeral)
        self._peer_ephemeral = ephemeral
        return self._symmetric.decrypt_and_hash(sealed)

    def write_message_2(self, ephemeral_private: bytes, payload: bytes) -> tuple[bytes, bytes]:
        """Give (ephemeral, sealed payload), or raise `Refused`. Spec: KA-4.3-7."""
        own = X25519PrivateKey.from_private_bytes(ephemeral_private)
        public = own.public_key().public_bytes_raw()
        self._symmetric.mix_ephemeral(public)
        try:
            self._symmetric.mix_key(_exchange(own, self._peer_ephemeral))
        except ValueError:
            raise Refused(DropReason.MALFORMED, "low-order ephemeral key", consumed=True) from None
        return public, self._symmetric.encrypt_and_hash(payload)

    def split(self) -> Secrets:
        """Give the secrets, after message 2 was written."""
        return self._symmetric.split()


class _SymmetricState:
    """Noise's SymmetricState, with the psk token and the prologue already mixed in.

    Each key made here seals one payload only, so the nonce is always zero.
    """

    __slots__ = ("chaining_key", "handshake_hash", "key")

    def __init__(self, psk: bytes, prologue: bytes) -> None:
        self.handshake_hash = PROTOCOL_NAME
        self.mix_hash(prologue)
        self.chaining_key, mixed, self.key = _hkdf(PROTOCOL_NAME, psk, 3)
        self.mix_hash(mixed)

    def copy(self) -> "_SymmetricState":
        twin = object.__new__(_SymmetricState)
        twin.chaining_key = self.chaining_key
        twin.handshake_hash = self.handshake_hash
        twin.key = self.key
        return twin

    def mix_hash(self, data: bytes) -> None:
        self.handshake_hash = hashlib.sha256(self.handshake_hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.chaining_key, self.key = _hkdf(self.chaining_key, material, 2)

    def mix_ephemeral(self, public: bytes) -> None:
        self.mix_hash(public)
        self.mix_key(public)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = AESGCM(self.key).encrypt(_ZERO_NONCE, plaintext, self.handshake_hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        try:
            plaintext = AESGCM(self.key).decrypt(_ZERO_NONCE, sealed, self.handshake_hash)
        except InvalidTag:
            raise Refused(DropReason.BAD_TAG) from None
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> Secrets:
        return Secrets(*_hkdf(self.chaining_key, b"", 2))


def _exchange(own: X25519PrivateKey, peer: bytes) -> bytes:
    """Do X25519; `cryptography` raises ValueError for an all-zero result."""
    return own.exchange(X25519PublicKey.from_public_bytes(peer))


def _hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Noise's HKDF: `outputs` blocks of 32 bytes."""
    temporary = hmac.digest(chaining_key, material, "sha256")
    blocks = [b""]
    for number in range(1, outputs + 1):
        blocks.append(hmac.digest(temporary, blocks[-1] + bytes([number]), "sha256"))
    return blocks[1:]
