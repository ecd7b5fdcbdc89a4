"""Sections 6.3 and 8.10: taken down by an operator, and up again."""

from itertools import pairwise

import pytest

from kaudp.config import Config
from kaudp.core.timers import Timer
from kaudp.events import SessionAdminDown, SessionSuspect, SessionUp, State
from kaudp.wire.grammar import FrameType
from tests.lives import restart
from tests.worlds import MS, Pair, S, of_type

NO_NAT = {"nat_keepalive_ms": None}


def probes(pair: Pair, name: str = "alice", since: int = 0) -> list[int]:
    sent = of_type(pair.world.nodes[name], FrameType.PROBE)
    return [at for at, _, _ in sent if at > since]


def inits(pair: Pair, since: int) -> list[int]:
    return [at for at, _, _ in of_type(pair.alice, FrameType.INIT) if at > since]


def calm(**bob: int) -> Pair:
    """Without NAT keep-alive, so that every probe has its reason."""
    return Pair(alice=Config.wan(**NO_NAT), bob=Config.server(**bob)).up()


@pytest.mark.parametrize("by_alice", [True, False])
def test_each_side_reports_each_change_once(by_alice: bool) -> None:
    """KA-6.3-1 KA-6.3-2 KA-8.10-1 KA-8.10-2: down and up again, from either side."""
    pair = calm()
    own, other = (pair.session, pair.far) if by_alice else (pair.far, pair.session)
    own.admin_down(pair.now)
    pair.run(S)
    assert own.state is other.state is State.ADMIN_DOWN
    own.admin_up(pair.now)
    pair.run(2 * S)
    for node, by_peer in ((pair.alice, not by_alice), (pair.bob, by_alice)):
        assert node.kinds() == ["SessionUp", "SessionAdminDown", "SessionSuspect", "SessionUp"]
        _, down, suspect, up = node.events
        assert isinstance(down, SessionAdminDown)
        assert isinstance(suspect, SessionSuspect)
        assert isinstance(up, SessionUp)
        assert (down.previous, down.by_peer) == (State.UP, by_peer)
        assert (suspect.previous, up.previous) == (State.ADMIN_DOWN, State.SUSPECT)


def test_a_restart_of_the_one_that_is_down_ends_its_part() -> None:
    """KA-8.10-5 KA-6.3-2: its 8 T probes find the new process, and each change is told as it is."""
    pair = calm()
    pair.far.admin_down(pair.now)
    pair.run(S)
    assert pair.session.state is State.ADMIN_DOWN
    restart(pair, pair.bob)
    since = pair.now
    pair.run_to(State.UP, limit=100 * S)
    pair.run(S)
    assert len(inits(pair, since)) == 1
    assert pair.alice.kinds()[1:] == [
        "SessionAdminDown",
        "PeerRestarted",
        "SessionSuspect",
        "SessionUp",
    ]
    assert [event.previous for event in pair.alice.events[3:]] == [State.ADMIN_DOWN, State.SUSPECT]
    assert pair.far.state is State.UP


def test_a_restart_does_not_end_the_own_pause() -> None:
    """KA-8.7-1 KA-8.10-5: the operator's part there is over, what the user paused here is not."""
    pair = calm()
    pair.far.admin_down(pair.now)
    pair.run(S)
    began = pair.now
    pair.session.pause(50 * S, began)
    pair.session._begin_attempt(pair.now)
    restart(pair, pair.bob)
    pair.run(2 * S)
    assert pair.session.state is State.UP
    pair.cut()
    pair.run(began + 50 * S - MS - pair.now)
    assert pair.session.state is State.UP
    assert pair.session.timers.armed(Timer.OVERDUE) is None
    pair.run_to(State.DOWN, limit=30 * S)


@pytest.mark.parametrize("ends_by_itself", [True, False])
def test_probing_goes_on_after_a_pause_within(ends_by_itself: bool) -> None:
    """KA-8.10-3 KA-8.7-1: nothing during the pause, then every 8 T at most."""
    pair = calm()
    pair.session.pause(50 * S, pair.now)
    pair.run(S)
    pair.session.admin_down(pair.now)
    pair.run(S)
    quiet = pair.now
    pair.run(46 * S)
    assert probes(pair, since=quiet) == []
    if not ends_by_itself:
        pair.session.pause(0, pair.now)
    pair.run(10 * S)
    resumed = pair.now
    pair.run(400 * S)
    times = probes(pair, since=resumed)
    assert 10 <= len(times) <= 14
    assert all(30 * S <= b - a <= 40 * S for a, b in pairwise(times))
    assert pair.session.state is pair.far.state is State.ADMIN_DOWN
