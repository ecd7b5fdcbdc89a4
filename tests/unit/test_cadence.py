"""core/cadence: the formulas of section 8.2 by numbers worked out by hand."""

import pytest

from kaudp.core import cadence

MOST = 2**32 - 1
HALF = 2**31


@pytest.mark.parametrize(
    ("interval", "multiplier", "r", "expected"),
    [
        (1000, 3, 0, 1000),
        (1000, 3, HALF, 875),
        (1000, 3, MOST, 751),
        (1000, 2, HALF, 875),
        (1000, 1, 0, 900),
        (1000, 1, HALF, 825),
        (1000, 1, MOST, 751),
        (1003, 3, HALF, 878),  # 1003 div 4 = 250
        (1019, 1, HALF, 841),  # 9171 div 10 = 917, 3057 div 20 = 152
    ],
)
def test_jitter(interval: int, multiplier: int, r: int, expected: int) -> None:
    """KA-8.2-4."""
    assert cadence.jittered(interval, multiplier, r) == expected


@pytest.mark.parametrize(("r", "expected"), [(0, 1), (HALF, 501), (MOST, 1000)])
def test_spread(r: int, expected: int) -> None:
    """KA-8.2-2 KA-8.2-4: never at once, never later than T."""
    assert cadence.spread(1000, r) == expected


@pytest.mark.parametrize(
    ("planned", "step", "now", "due"),
    [
        (100, 50, 120, 150),
        (100, 50, 149, 150),
        (100, 50, 150, 200),  # not strictly later: from now
        (100, 50, 900, 950),
        (100, 0, 100, 101),
    ],
)
def test_rearming_is_strictly_later_and_makes_up_for_nothing(
    planned: int, step: int, now: int, due: int
) -> None:
    """KA-8.2-1 KA-8.2-3."""
    assert cadence.rearmed(planned, step, now) == due


def test_after_down_probes_become_rarer_up_to_8_intervals() -> None:
    """KA-7.6-1."""
    assert [cadence.down_interval(10, n) for n in range(6)] == [10, 20, 40, 80, 80, 80]
