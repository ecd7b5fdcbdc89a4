"""Push-back: a peer that probes far more often than agreed is asked to slow down.

Times in ns. Spec: section 8.9.
"""

from typing import Final

from kaudp.core.bucket import Bucket
from kaudp.units import SECOND

SLOW_DOWN_BURST: Final = 128
SLOW_DOWN_REFILL: Final = 4
SLOW_DOWN_SPACING: Final = 60 * SECOND


class PushBack:
    """Counts steady probes against a bucket that no legal schedule empties. Spec: KA-8.9-2."""

    __slots__ = ("_asked_at", "_bucket")

    def __init__(self, now: int) -> None:
        self._bucket = Bucket(SLOW_DOWN_BURST, now)
        self._asked_at: int | None = None

    def probed(self, interval: int, now: int) -> bool:
        """Take note of a steady probe; tell whether to ask for fewer now."""
        if self._bucket.take(min(interval, SECOND) // SLOW_DOWN_REFILL, now):
            return False
        if self._asked_at is not None and now - self._asked_at < SLOW_DOWN_SPACING:
            return False
        self._asked_at = now
        return True
