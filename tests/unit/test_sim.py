"""sim: the links do what their conditions say, and every run can be had again."""

from random import Random

import pytest

from kaudp.sim import Conditions, Link
from kaudp.units import MILLISECOND


def fate(conditions: Conditions, count: int = 20_000) -> list[list[int]]:
    link = Link(conditions, Random(1))
    return [link.arrivals(0) for _ in range(count)]


@pytest.mark.parametrize("loss", [0.0, 0.1, 0.5, 1.0])
def test_independent_loss(loss: float) -> None:
    lost = [arrivals == [] for arrivals in fate(Conditions(loss=loss))]
    assert sum(lost) / len(lost) == pytest.approx(loss, abs=0.01)


def test_bursts_have_the_length_asked_for() -> None:
    """Gilbert: 0.02 to begin and 0.25 to end make 7.4 % loss in bursts of 4."""
    lost = [not arrivals for arrivals in fate(Conditions(burst_begins=0.02, burst_ends=0.25))]
    bursts = sum(1 for before, after in zip([False, *lost], lost, strict=False) if after > before)
    assert sum(lost) / len(lost) == pytest.approx(0.02 / 0.27, abs=0.01)
    assert sum(lost) / bursts == pytest.approx(4, abs=0.4)


def test_delay_spread_and_duplicates() -> None:
    delay, spread = 20 * MILLISECOND, 10 * MILLISECOND
    fates = fate(Conditions(delay=delay, spread=spread, duplicate=0.25))
    times = [at for arrivals in fates for at in arrivals]
    assert delay <= min(times) < delay + MILLISECOND
    assert delay + 9 * MILLISECOND < max(times) <= delay + spread
    assert len(times) / len(fates) == pytest.approx(1.25, abs=0.02)


def test_a_cut_link_carries_nothing_and_keeps_its_dice() -> None:
    links = [Link(Conditions(loss=0.5), Random(5)) for _ in range(2)]
    links[0].cut = True
    assert all(links[0].arrivals(0) == [] for _ in range(100))
    [links[1].arrivals(0) for _ in range(100)]
    links[0].cut = False
    assert [links[0].arrivals(0) for _ in range(50)] == [links[1].arrivals(0) for _ in range(50)]
