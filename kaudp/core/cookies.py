"""The secret behind a responder's cookies: drawn at first use, replaced as it grows old.

Spec: KA-4.5-3.
"""

import hmac
from typing import Final

from kaudp.core.paths import Address, canonical_or_other
from kaudp.units import SECOND
from kaudp.wire.cookies import address_cookie
from kaudp.wire.suites import Entropy

COOKIE_SECRET_LIFETIME: Final = 120 * SECOND
_SECRET_BYTES: Final = 32


class CookieJar:
    """Makes and checks cookies; keeps nothing of those who were given one."""

    __slots__ = ("_drawn_at", "_entropy", "_previous", "_previous_drawn_at", "_secret")

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._drawn_at = 0
        self._secret = b""
        self._previous_drawn_at = 0
        self._previous = b""

    def cookie(self, address: Address, key_id: bytes, now: int) -> bytes:
        """Give the cookie of a source."""
        self._refresh(now)
        return address_cookie(self._secret, canonical_or_other(address), key_id)

    def is_right(self, cookie: bytes, address: Address, key_id: bytes, now: int) -> bool:
        """Tell whether a cookie was given to this source lately."""
        self._refresh(now)
        source = canonical_or_other(address)
        secrets = [secret for secret in (self._secret, self._previous) if secret]
        # Both are compared, so that the time tells nothing.
        right = [
            hmac.compare_digest(cookie, address_cookie(secret, source, key_id))
            for secret in secrets
        ]
        return any(right)

    def _refresh(self, now: int) -> None:
        if not self._secret or now - self._drawn_at > COOKIE_SECRET_LIFETIME:
            self._previous, self._previous_drawn_at = self._secret, self._drawn_at
            self._secret, self._drawn_at = self._entropy(_SECRET_BYTES), now
        if now - self._previous_drawn_at > 2 * COOKIE_SECRET_LIFETIME:
            self._previous = b""
