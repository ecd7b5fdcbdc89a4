"""Round-trip estimates: the probe timeout and what the statistics show.

All times in ns. Spec: section 10.
"""

from typing import Final

from kaudp.units import MILLISECOND, SECOND

PTO_INITIAL: Final = 1 * SECOND
PTO_GRANULARITY: Final = 10 * MILLISECOND
PTO_MAX: Final = 60 * SECOND


class ResponseTime:
    """Smoothed response time and its variation (RFC 6298). Spec: section 10.2.

    `answer_delay` is how long the peer may keep an answer back. Spec: KA-14.4-4.
    """

    __slots__ = ("_answer_delay", "pto", "smoothed", "variation")

    def __init__(self, answer_delay: int = 0) -> None:
        self.smoothed: int | None = None
        self.variation = 0
        self.pto = PTO_INITIAL
        self._answer_delay = answer_delay

    def sample(self, response_time: int) -> None:
        """Learn one response time, 60 s at most. Spec: KA-10.2-1."""
        response_time = min(response_time, PTO_MAX)
        if self.smoothed is None:
            self.smoothed = response_time
            self.variation = response_time // 2
        else:
            deviation = abs(self.smoothed - response_time)
            self.variation = (3 * self.variation + deviation) // 4
            self.smoothed = (7 * self.smoothed + response_time) // 8
        margin = max(4 * self.variation, PTO_GRANULARITY) + self._answer_delay
        self.pto = min(self.smoothed + margin, PTO_MAX)


class RoundTripTimes:
    """Round-trip time samples: least, mean, greatest, and jitter (RFC 3550). KA-10.1-2."""

    __slots__ = ("count", "greatest", "jitter", "latest", "least", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.jitter = 0
        self.latest: int | None = None
        self.least: int | None = None
        self.greatest: int | None = None

    def sample(self, rtt: int) -> None:
        """Learn one round-trip time."""
        if self.latest is None or self.least is None or self.greatest is None:
            self.least = self.greatest = rtt
        else:
            difference = abs(rtt - self.latest)
            self.jitter += (difference - self.jitter) // 16
            self.least = min(self.least, rtt)
            self.greatest = max(self.greatest, rtt)
        self.latest = rtt
        self.total += rtt
        self.count += 1

    @property
    def mean(self) -> int | None:
        """The mean in whole ns, None without a sample."""
        return self.total // self.count if self.count else None
