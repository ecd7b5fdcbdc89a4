"""Sections 8.8 and 8.9: intervals that change, and push-back."""

from kaudp.config import Config
from kaudp.core.timers import Timer
from kaudp.events import State
from kaudp.wire.grammar import FrameType
from tests.worlds import MS, Pair, S, of_type

NO_NAT = {"nat_keepalive_ms": None}


def calm(seed: object = 1, **bob: int) -> Pair:
    """Without NAT keep-alive, so that every probe has its reason."""
    return Pair(seed, alice=Config.wan(**NO_NAT), bob=Config.server(**bob)).up()


def probes(pair: Pair, since: int = 0) -> list[int]:
    return [at for at, _, _ in of_type(pair.alice, FrameType.PROBE) if at > since]


def test_a_slower_interval_is_judged_by_at_once() -> None:
    """KA-8.8-2: the responder's next judgement is by the longer T, also if nothing more comes."""
    pair = calm()
    pair.session.change_intervals(pair.now, interval_ms=20_000)
    pair.run(100 * MS)
    overdue = pair.far.timers.armed(Timer.OVERDUE)
    assert overdue is not None
    assert overdue == pair.far.stats.rx_at + 20 * S + pair.far.stats.probe_timeout
    pair.cut()
    pair.run(19 * S)
    assert pair.far.state is State.UP
