"""Detectors: when a silence that already made us suspicious becomes a verdict.

A detector only names the deadline; what suspicion, evidence and stalls are is not its business.
Spec: section 7.5.
"""

from typing import Protocol

from kaudp.config import Config, DetectorKind
from kaudp.units import milliseconds


class Detector(Protocol):
    """The interface of all detectors. Times in ns."""

    jitter_multiplier: int
    """The multiplier that chooses the range of jitter. Spec: section 8.2."""

    def longest_wait(self, interval: int) -> int:
        """Tell how long after the base the deadline can be at most."""

    def deadline(self, base: int, interval: int) -> int:
        """Tell the deadline of the verdict for a silence that is measured from `base`."""


class FixedMultiplier:
    """`multiplier` intervals after the base (RFC 5880, section 6.8.4)."""

    __slots__ = ("jitter_multiplier",)

    def __init__(self, multiplier: int) -> None:
        self.jitter_multiplier = multiplier

    def longest_wait(self, interval: int) -> int:
        """Tell `multiplier` intervals."""
        return self.jitter_multiplier * interval

    def deadline(self, base: int, interval: int) -> int:
        """Tell the base plus `multiplier` intervals."""
        return base + self.longest_wait(interval)


class Deadline:
    """A fixed time after the base, whatever the interval (RFC 7675, section 5.1)."""

    __slots__ = ("_wait", "jitter_multiplier")

    def __init__(self, wait: int) -> None:
        self._wait = wait
        self.jitter_multiplier = 2

    def longest_wait(self, interval: int) -> int:
        """Tell the fixed time."""
        return self._wait

    def deadline(self, base: int, interval: int) -> int:
        """Tell the base plus the fixed time."""
        return base + self.longest_wait(interval)


def detector_for(config: Config) -> Detector:
    """Make the detector that a configuration names, one for each session."""
    if config.detector is DetectorKind.DEADLINE:
        return Deadline(milliseconds(config.deadline_ms))
    return FixedMultiplier(config.multiplier)
