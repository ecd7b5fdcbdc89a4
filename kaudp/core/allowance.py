"""A rolling allowance of time: how much was granted in the last window.

Used for own stalls and for the peer's pauses. Spec: KA-7.7-3, KA-8.7-2.
"""

from collections import deque
from typing import Final

BUCKETS: Final = 64


class Allowance:
    """Grants that within any `window` ns never sum to more than the limit."""

    __slots__ = ("_grants", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._grants: deque[tuple[int, int, int]] = deque()

    def left(self, limit: int, now: int) -> int:
        """Tell what may still be granted, in ns."""
        while self._grants and self._grants[0][1] <= now - self._window:
            self._grants.popleft()
        return max(0, limit - sum(amount for _, _, amount in self._grants))

    def grant(self, amount: int, limit: int, now: int) -> int:
        """Grant as much of `amount` as is left, and take note of it."""
        granted = min(amount, self.left(limit, now))
        if granted:
            self._keep(granted, now)
        return granted

    def _keep(self, granted: int, now: int) -> None:
        """Put grants of one 64th of the window together, dated at the last: memory is bounded."""
        if self._grants and now - self._grants[-1][0] < self._window // BUCKETS:
            opened, _, before = self._grants.pop()
            self._grants.append((opened, now, before + granted))
        else:
            self._grants.append((now, now, granted))
