"""Cookies: what a responder under load asks for before it keeps anything.

Spec: section 4.5.
"""

import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.errors import DropReason, Refused
from kaudp.wire import codec
from kaudp.wire.grammar import COOKIE_BYTES, TAG_BYTES

NO_COOKIE: Final = bytes(COOKIE_BYTES)
_LABEL: Final = b"kaudp/1 cookie"
_ZERO_NONCE: Final = bytes(12)


def address_cookie(secret: bytes, address: bytes, key_id: bytes) -> bytes:
    """Give the cookie of a source, by the canonical bytes of its address. Spec: KA-4.5-3."""
    return hmac.digest(secret, address + key_id, "sha256")[:COOKIE_BYTES]


def seal_cookie(psk: bytes, init: bytes, session_id: bytes, nonce: bytes, cookie: bytes) -> bytes:
    """Give the COOKIE frame that answers an INIT. Spec: KA-4.5-4."""
    header = codec.build_cookie_header(session_id, nonce)
    return header + _aead(psk, init, nonce).encrypt(_ZERO_NONCE, cookie, header)


def open_cookie(psk: bytes, init: bytes, data: bytes) -> bytes:
    """Give the cookie in a COOKIE frame that answers an INIT, or raise `Refused`. KA-4.5-5."""
    frame = codec.parse_cookie(data)
    header = data[: codec.COOKIE_HEADER_BYTES]
    try:
        cookie = _aead(psk, init, frame.nonce).decrypt(_ZERO_NONCE, frame.sealed_cookie, header)
    except InvalidTag:
        raise Refused(DropReason.BAD_TAG) from None
    if cookie == NO_COOKIE:
        raise Refused(DropReason.MALFORMED, "a cookie of zeros", consumed=True)
    return cookie


def _aead(psk: bytes, init: bytes, nonce: bytes) -> AESGCM:
    """HKDF-SHA256 of the key, salted with the INIT's tag and the frame's nonce."""
    pseudorandom = hmac.digest(init[-TAG_BYTES:] + nonce, psk, hashlib.sha256)
    return AESGCM(hmac.digest(pseudorandom, _LABEL + b"\x01", hashlib.sha256))
