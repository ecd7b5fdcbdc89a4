"""core/suspicion and core/detectors: the spacing, the budget and the deadline."""

import pytest

from kaudp.config import Config, DetectorKind
from kaudp.core.detectors import Deadline, FixedMultiplier, detector_for
from kaudp.core.suspicion import ProbeBudget, Suspicion
from tests.worlds import MS, S


def taken(budget: ProbeBudget, now: int, interval: int = 1000) -> int:
    count = 0
    while budget.take(interval, now):
        count += 1
        assert count < 1000
    return count


def test_a_budget_holds_3_until_the_peer_allows_more() -> None:
    """KA-7.4-4."""
    assert taken(ProbeBudget(0), 0) == 3


@pytest.mark.parametrize(("burst", "held"), [(1, 3), (3, 3), (10, 10), (64, 64), (65_535, 64)])
def test_a_budget_holds_3_at_least_and_64_at_most(burst: int, held: int) -> None:
    """KA-7.4-4."""
    budget = ProbeBudget(0)
    budget.allow(burst)
    assert taken(budget, 0) == held


def test_a_budget_refills_by_2_per_interval() -> None:
    """KA-7.4-4: one each half of T, counted from when it was last full."""
    budget = ProbeBudget(0)
    budget.allow(10)
    assert taken(budget, 100) == 10
    assert not budget.take(1000, 599)
    assert budget.take(1000, 600)
    assert not budget.take(1000, 1099)
    assert budget.take(1000, 1350), "and half a step is not lost"
    assert not budget.take(1000, 1599)
    assert budget.take(1000, 1600)
    assert taken(budget, 3000) == 2
    assert taken(budget, 100_000) == 10


def test_half_an_odd_interval_is_rounded_down() -> None:
    """KA-7.4-4."""
    budget = ProbeBudget(0)
    assert taken(budget, 0, interval=1001) == 3
    assert not budget.take(1001, 499)
    assert budget.take(1001, 500)


def test_a_budget_that_is_full_saves_nothing_up() -> None:
    """KA-7.4-4: time spent full earns no refill."""
    budget = ProbeBudget(0)
    assert budget.take(1000, 9900)
    assert budget.take(1000, 10_000)
    assert budget.take(1000, 10_000)
    assert not budget.take(1000, 10_399)
    assert budget.take(1000, 10_400)


def test_what_is_spent_stays_spent_when_the_peer_allows_otherwise() -> None:
    """KA-7.4-4: a handshake refills nothing."""
    budget = ProbeBudget(0)
    budget.allow(10)
    assert taken(budget, 0) == 10
    budget.allow(10)
    assert taken(budget, 0) == 0
    budget.allow(12)
    assert taken(budget, 0) == 2


def test_a_budget_bears_the_shortest_interval() -> None:
    """KA-7.4-4: an interval of one ns refills each ns."""
    budget = ProbeBudget(0)
    assert taken(budget, 0, interval=1) == 3
    assert taken(budget, 1, interval=1) == 1


def test_spacing_grows_with_the_suspicion_after_32_probes() -> None:
    """KA-7.4-2 KA-7.4-3."""
    suspicion = Suspicion(started=1000, base=0)
    assert suspicion.probes == 0
    suspicion.probes = 31
    assert suspicion.spacing(100, 81_007) == 100
    suspicion.probes = 32
    assert suspicion.spacing(100, 81_007) == 10_000
    assert suspicion.spacing(20_000, 81_007) == 20_000


def test_the_verdict_waits_for_all_three() -> None:
    """KA-7.5-1: the deadline, the shortest suspicion, and PTO after the third probe."""
    suspicion, detector = Suspicion(started=500, base=100), FixedMultiplier(3)
    assert suspicion.verdict_at(detector, 1000, 10, 0) == 3100
    assert suspicion.verdict_at(detector, 1000, 2700, 0) == 3200
    assert suspicion.verdict_at(detector, 1000, 10, 3300) == 3300


def test_detectors() -> None:
    """KA-7.5-1: what section 7.5's table says; the deadline detector has m = 2 (8.2)."""
    fixed = detector_for(Config.wan(multiplier=4))
    assert isinstance(fixed, FixedMultiplier)
    assert (fixed.jitter_multiplier, fixed.longest_wait(S), fixed.deadline(7, S)) == (
        4,
        4 * S,
        7 + 4 * S,
    )
    config = Config.wan(detector=DetectorKind.DEADLINE, deadline_ms=12_345)
    deadline = detector_for(config)
    assert isinstance(deadline, Deadline)
    wait = 12_345 * MS
    assert (deadline.jitter_multiplier, deadline.longest_wait(S), deadline.deadline(7, 9)) == (
        2,
        wait,
        7 + wait,
    )
