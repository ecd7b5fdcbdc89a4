"""Suspicion: the fast probing between a miss and a verdict, and the budget it draws from.

Times in ns. Spec: section 7.4.
"""

from typing import Final

from kaudp.core.bucket import Bucket
from kaudp.core.detectors import Detector
from kaudp.units import SECOND

BLIND_PROBE_SPACING: Final = 3 * SECOND
SUSPICION_PROBES_BEFORE_GROWTH: Final = 32
SUSPICION_GROWTH_DIVISOR: Final = 8
SUSPICION_BUDGET_MAX: Final = 64
BUDGET_REFILL_PER_INTERVAL: Final = 2
MIN_UNANSWERED: Final = 3


class Suspicion:
    """One suspicion: since when, measured from what, and the probes sent in it."""

    __slots__ = ("base", "not_before", "probes", "started")

    def __init__(self, started: int, base: int) -> None:
        self.started = started
        self.base = base
        self.probes = 0
        self.not_before = started

    def spacing(self, least: int, now: int) -> int:
        """Tell the time to the next probe. Spec: KA-7.4-2, KA-7.4-3."""
        if self.probes < SUSPICION_PROBES_BEFORE_GROWTH:
            return least
        return max(least, (now - self.started) // SUSPICION_GROWTH_DIVISOR)

    def verdict_at(
        self, detector: Detector, interval: int, min_suspicion: int, not_before: int
    ) -> int:
        """Tell the earliest time of the verdict. Spec: KA-7.5-1."""
        deadline = detector.deadline(self.base, interval)
        return max(deadline, self.started + min_suspicion, self.not_before, not_before)


class ProbeBudget:
    """A bucket of suspicion probes: refills by 2 per interval. Spec: KA-7.4-4."""

    __slots__ = ("_bucket",)

    def __init__(self, now: int) -> None:
        self._bucket = Bucket(MIN_UNANSWERED, now)

    def allow(self, burst: int) -> None:
        """Take over what the peer allows; what is spent stays spent."""
        self._bucket.capacity = max(MIN_UNANSWERED, min(burst, SUSPICION_BUDGET_MAX))

    def take(self, interval: int, now: int) -> bool:
        """Take one probe; False when the bucket is empty."""
        return self._bucket.take(interval // BUDGET_REFILL_PER_INTERVAL, now)
