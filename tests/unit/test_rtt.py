"""core/rtt: the estimates of section 10 by numbers worked out by hand."""

from kaudp.core.rtt import PTO_GRANULARITY, PTO_INITIAL, PTO_MAX, ResponseTime, RoundTripTimes
from tests.worlds import MS, S


def test_before_the_first_sample() -> None:
    """KA-10.2-1."""
    estimate = ResponseTime()
    assert (estimate.smoothed, estimate.variation, estimate.pto) == (None, 0, PTO_INITIAL)


def test_the_first_sample_and_those_after_it() -> None:
    """KA-10.2-1: as in RFC 6298, in whole numbers."""
    estimate = ResponseTime()
    estimate.sample(100_000_003)
    assert (estimate.smoothed, estimate.variation) == (100_000_003, 50_000_001)
    assert estimate.pto == 100_000_003 + 4 * 50_000_001
    estimate.sample(60_000_000)
    assert estimate.variation == 47_500_001  # (3 x 50,000,001 + 40,000,003) div 4, from ...01.5
    assert estimate.smoothed == 95_000_002  # (7 x 100,000,003 + 60,000,000) div 8, from ...02.6
    assert estimate.pto == 95_000_002 + 4 * 47_500_001
    estimate.sample(161 * MS)
    upward = 161 * MS - 95_000_002
    assert estimate.variation == (3 * 47_500_001 + upward) // 4


def test_pto_has_a_margin_of_10_ms_at_least_and_60_s_at_most() -> None:
    """KA-10.2-1."""
    steady = ResponseTime()
    for _ in range(100):
        steady.sample(20 * MS)
    assert steady.pto == 20 * MS + PTO_GRANULARITY
    slow = ResponseTime()
    slow.sample(50 * S)
    assert slow.pto == PTO_MAX


def test_what_the_peer_may_keep_an_answer_back_is_added() -> None:
    """KA-14.4-4: not before the first sample, and below the limit as ever."""
    estimate = ResponseTime(answer_delay=25 * MS)
    assert estimate.pto == PTO_INITIAL
    estimate.sample(100 * MS)
    assert estimate.pto == 100 * MS + 4 * 50 * MS + 25 * MS
    estimate.sample(70 * S)
    assert estimate.pto == PTO_MAX


def test_round_trips() -> None:
    """KA-10.1-2: jitter is rounded down also below zero."""
    trips = RoundTripTimes()
    assert (trips.count, trips.mean, trips.latest, trips.least, trips.greatest) == (0, *[None] * 4)
    trips.sample(100)
    assert (trips.latest, trips.least, trips.greatest, trips.jitter) == (100, 100, 100, 0)
    assert (trips.count, trips.mean) == (1, 100)
    trips.sample(420)
    assert trips.jitter == 320 // 16
    trips.sample(410)
    assert trips.jitter == 20 + (10 - 20) // 16
    assert (trips.latest, trips.least, trips.greatest) == (410, 100, 420)
    assert (trips.count, trips.mean) == (3, 310)
    trips.sample(53)
    assert (trips.least, trips.greatest, trips.mean) == (53, 420, 245)
