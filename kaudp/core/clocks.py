"""What a reply tells of the peer's clock and of the delay of each direction. Times in ns.

Spec: section 10.3.
"""

from typing import Final, NamedTuple

from kaudp.units import MICROSECOND

CLOCK_DRIFT_PPM: Final = 200


class Exchange(NamedTuple):
    """One round trip: sent and arrived by the own clock, received and sent by the peer's."""

    sent: int
    peer_received: int
    peer_sent: int
    arrived: int


class ClockOffset:
    """How far the peer's clock is ahead of ours: an interval cut ever smaller. KA-10.3-1."""

    __slots__ = ("_at", "_high", "_low")

    def __init__(self) -> None:
        self._low = 0
        self._high = 0
        self._at: int | None = None

    def sample(self, exchange: Exchange) -> None:
        """Learn from one round trip."""
        low = exchange.peer_sent - exchange.arrived - MICROSECOND
        high = exchange.peer_received - exchange.sent + MICROSECOND
        if self._at is not None:
            widened = -(-(exchange.arrived - self._at) * CLOCK_DRIFT_PPM // 1_000_000)
            cut_low, cut_high = max(low, self._low - widened), min(high, self._high + widened)
            if cut_low <= cut_high:
                low, high = cut_low, cut_high
        self._low, self._high, self._at = low, high, exchange.arrived

    @property
    def offset(self) -> int | None:
        """The middle, None without a sample."""
        return None if self._at is None else (self._low + self._high) // 2

    @property
    def error(self) -> int | None:
        """Half of the width, rounded up: the truth is no further from the middle."""
        return None if self._at is None else (self._high - self._low + 1) // 2


class DelayVariation:
    """How much a one-way delay varies from one frame to the next. Spec: KA-10.3-3."""

    __slots__ = ("_last", "mean")

    def __init__(self) -> None:
        self._last: int | None = None
        self.mean: int | None = None

    def sample(self, transit: int) -> None:
        """Learn a delay that is off by a constant, the clocks' difference."""
        if self._last is not None:
            mean = self.mean or 0
            self.mean = mean + (abs(transit - self._last) - mean) // 16
        self._last = transit
