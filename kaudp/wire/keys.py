"""Pre-shared keys and where they come from.

Spec: section 4.1.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from kaudp.errors import KeyFormatError
from kaudp.units import MAX_UINT32, SECOND
from kaudp.wire.grammar import KEY_ID_BYTES

KEY_BYTES: Final = 32
_KEY_ID_LABEL: Final = b"kaudp/1 key id"
_CLIENT_KEY_LABEL: Final = b"kaudp/1 client key"


class PresharedKey:
    """A pre-shared key of exactly 32 random bytes and its public key id of 16 bytes.

    Never a password: message 1 of the handshake lets an attacker test guesses offline.
    Raises `KeyFormatError`. Spec: KA-4.1-1, KA-4.1-5, KA-5.2-1.
    """

    __slots__ = ("key_id", "secret")

    # What a session asks of whatever stands for its key: see `suites.Carried`.
    validates_path: Final = False
    repeats: Final = False
    longest_response: Final = MAX_UINT32 * SECOND
    answer_delay: Final = 0
    silence: Final = ""

    def __init__(self, secret: bytes, *, key_id: bytes | None = None) -> None:
        self.secret = _checked_bytes("a pre-shared key", secret, KEY_BYTES)
        if key_id is None:
            key_id = hashlib.sha256(_KEY_ID_LABEL + self.secret).digest()[:KEY_ID_BYTES]
        self.key_id = _checked_bytes("a key id", key_id, KEY_ID_BYTES)

    @classmethod
    def generate(cls) -> "PresharedKey":
        """Draw a new key from the operating system's entropy."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> "PresharedKey":
        """Read the form that `to_text` writes: base64url of the 32 bytes, 43 characters."""
        stripped = text.strip()
        try:
            secret = base64.b64decode(
                stripped + "=" * (-len(stripped) % 4), altchars=b"-_", validate=True
            )
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) != KEY_BYTES:
            raise KeyFormatError(
                "expected a key of 43 base64url characters (32 bytes) as `kaudp keygen` prints, "
                f"got {len(stripped)} characters"
            )
        return cls(secret)

    def to_text(self) -> str:
        """Give the secret as 43 base64url characters."""
        return base64.urlsafe_b64encode(self.secret).rstrip(b"=").decode()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PresharedKey)
            and self.key_id == other.key_id
            and hmac.compare_digest(self.secret, other.secret)
        )

    def __hash__(self) -> int:
        return hash(self.key_id)

    def __repr__(self) -> str:
        return f"PresharedKey(key_id={self.key_id.hex()})"


class MasterKey:
    """A secret of 32 random bytes from which each client's key is derived by its key id.

    A server that holds one needs no table of clients. Raises `KeyFormatError`.
    Spec: KA-4.1-4, KA-4.1-6.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = _checked_bytes("a master secret", secret, KEY_BYTES)

    def __call__(self, key_id: bytes) -> PresharedKey:
        """Derive the key of the client with this 16-byte key id."""
        key_id = _checked_bytes("a key id", key_id, KEY_ID_BYTES)
        pseudorandom = hmac.digest(bytes(32), self._secret, "sha256")
        derived = hmac.digest(pseudorandom, _CLIENT_KEY_LABEL + key_id + b"\x01", "sha256")
        return PresharedKey(derived, key_id=key_id)

    def __repr__(self) -> str:
        return "MasterKey(hidden)"


KeyLookup = Callable[[bytes], PresharedKey | None]
KeySource = PresharedKey | Mapping[bytes, PresharedKey] | KeyLookup


def key_lookup(source: KeySource) -> KeyLookup:
    """Make one look-up, key id to key or None, of any key source. Spec: KA-4.1-2."""
    if isinstance(source, PresharedKey):
        return {source.key_id: source}.get
    if isinstance(source, Mapping):
        return source.get
    if callable(source):
        return source
    raise KeyFormatError(
        "expected keys as a PresharedKey, a mapping of key id to PresharedKey, a callable or a "
        f"MasterKey, got {type(source).__name__}"
    )


def _checked_bytes(what: str, value: bytes, size: int) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise KeyFormatError(
            f"expected {what} of {size} bytes, got a {type(value).__name__}; "
            "PresharedKey.from_text reads what `kaudp keygen` prints"
        )
    if len(value) != size:
        raise KeyFormatError(f"expected {what} of {size} bytes, got {len(value)} bytes")
    return bytes(value)
