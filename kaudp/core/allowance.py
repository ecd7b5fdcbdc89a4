"""A rolling allowance of time: how much was granted in the last window.

Used for own stalls and for the peer's pauses. Spec: KA-7.7-3, KA-8.6-3.
"""

from collections import deque


class Allowance:
    """Grants that within any `window` ns never sum to more than the limit."""

    __slots__ = ("_grants", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._grants: deque[tuple[int, int]] = deque()

    def left(self, limit: int, now: int) -> int:
        """Tell what may still be granted, in ns."""
        while self._grants and self._grants[0][0] <= now - self._window:
            self._grants.popleft()
        return max(0, limit - sum(amount for _, amount in self._grants))

    def grant(self, amount: int, limit: int, now: int) -> int:
        """Grant as much of `amount` as is left, and take note of it."""
        granted = min(amount, self.left(limit, now))
        if granted:
            self._grants.append((now, granted))
        return granted
