"""What a reply tells of the peer's clock and of the delay of each direction. Times in ns.

Spec: section 10.3.
"""

from typing import Final, NamedTuple

from kaudp.units import MICROSECOND

CLOCK_DRIFT_PPM: Final = 200
# What rounds to whole microseconds: both times of a frame, and the instants that CLOCK tells.
ROUNDING: Final = 2 * MICROSECOND


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
        sent, peer_received, peer_sent, arrived = exchange
        low = peer_sent - arrived - ROUNDING
        # The upper bound is from before the peer held our frame: its clock went on meanwhile.
        high = peer_received - sent + ROUNDING + _drift(arrived - sent)
        if self._at is not None:
            widened = _drift(arrived - self._at)
            before_low, before_high = self._low - widened, self._high + widened
            if before_low <= high and low <= before_high:
                if before_low > low:
                    low = before_low
                if before_high < high:
                    high = before_high
        self._low, self._high, self._at = low, high, arrived

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


def _drift(age: int) -> int:
    """Tell how far two clocks may come apart meanwhile, rounded up."""
    return -(-age * CLOCK_DRIFT_PPM // 1_000_000)
