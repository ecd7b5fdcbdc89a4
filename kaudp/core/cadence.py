"""When the next frame is due: pure integer arithmetic on nanoseconds.

`r` is a fresh uniform 32-bit integer. Spec: section 8.2, KA-8.2-4.
"""

from typing import Final

DOWN_BACKOFF_MAX: Final = 8


def jittered(interval: int, multiplier: int, r: int) -> int:
    """J(T, m, r): in (0.75 T, T], for multiplier 1 in (0.75 T, 0.9 T]."""
    if multiplier == 1:
        return 9 * interval // 10 - (3 * interval // 20 * r >> 32)
    return interval - (interval // 4 * r >> 32)


def spread(interval: int, r: int) -> int:
    """F(T, r): in [1, T], so that a fleet that starts together does not beat together."""
    return 1 + (interval * r >> 32)


def rearmed(planned: int, step: int, now: int) -> int:
    """Give the time after `planned`, strictly later than now. Spec: KA-8.2-1, KA-8.2-3."""
    due = planned + step
    return due if due > now else now + max(step, 1)


def down_interval(interval: int, probes_since_verdict: int) -> int:
    """Give the back-off after DOWN, before jitter. Spec: KA-7.6-1."""
    return min(1 << min(probes_since_verdict, 3), DOWN_BACKOFF_MAX) * interval
