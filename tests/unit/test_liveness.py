"""core/liveness, seen from outside: what the judge does at its rarer turns."""

from itertools import pairwise

from kaudp.config import Config
from kaudp.core.timers import Timer
from kaudp.events import State
from kaudp.wire.grammar import FrameType
from tests.worlds import MS, Pair, S, of_type

KEEP = Config.server(down_retention_ms=86_400_000)


def probes(pair: Pair, since: int) -> list[int]:
    return [at for at, _, _ in of_type(pair.alice, FrameType.PROBE) if at >= since]


def test_suspicions_are_counted() -> None:
    """KA-7.4-1."""
    pair = Pair(bob=KEEP).up()
    assert pair.session.stats.suspicions == 0
    for count in (1, 2):
        pair.cut()
        pair.run_to(State.SUSPECT)
        assert pair.session.stats.suspicions == count
        pair.cut(cut=False)
        pair.run_to(State.UP)
        pair.run(5 * S)


def test_when_the_budget_is_empty_probes_go_on_once_an_interval() -> None:
    """KA-7.4-4: slower, but not silent."""
    pair = Pair(
        alice=Config.wan(interval_ms=2_000, multiplier=20),
        bob=Config.server(suspicion_receive_burst=3),
    ).up()
    pair.cut()
    started = pair.run_to(State.SUSPECT)
    pair.run(18 * S)  # before 32 probes make them rarer (KA-7.4-3)
    assert pair.session.state is State.SUSPECT
    sent = probes(pair, started - MS)
    assert max(b - a for a, b in pairwise(sent)) <= 2 * S
    assert len(sent) >= 15


def test_a_miss_that_is_noticed_late_is_probed_for_and_judged_one_pto_later() -> None:
    """KA-7.7-1 KA-7.7-2: the overdue timer itself fires late, and nothing waits in the socket."""
    pair = Pair(bob=KEEP).up()
    pair.run(5 * S)
    pair.cut()
    while (overdue := pair.session.timers.armed(Timer.OVERDUE)) is None:
        pair.run(MS)
    woken = overdue + 500 * MS
    pair.world.stall(pair.alice, woken - pair.now)
    pair.run(woken - pair.now + MS)
    assert pair.session.state is State.UP
    assert pair.session.stats.stalls == 1
    assert probes(pair, woken) == [woken]
    pto = pair.session.stats.probe_timeout
    pair.run_to(State.SUSPECT)
    assert pair.alice.events[-1].time == woken + pto


def test_a_pause_begun_in_suspicion_stops_the_fast_probes_and_the_judging() -> None:
    """KA-8.6-2 KA-8.6-4: then the silence is measured anew, to a verdict of its own."""
    pair = Pair(bob=KEEP).up()
    pair.cut()
    pair.run_to(State.SUSPECT)
    began = pair.now
    pair.session.pause(60 * S, began)
    pair.run(60 * S - MS)
    assert pair.session.state is State.SUSPECT
    # What is left asks for the confirmation, ever more rarely up to T, and keeps the NAT binding.
    assert len(probes(pair, began)) < 25
    assert len(probes(pair, began + 20 * S)) <= 10
    pair.run_to(State.DOWN)
    assert pair.alice.events[-1].time >= began + 60 * S + 3 * pair.session.stats.interval
