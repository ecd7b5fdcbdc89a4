"""Sections 6.3 and 8.10: taken down by an operator, and up again."""

from itertools import pairwise

import pytest

from kaudp.config import Config
from kaudp.core.states import TRANSITIONS
from kaudp.core.timers import Timer
from kaudp.errors import SessionStateError
from kaudp.events import SessionAdminDown, SessionSuspect, SessionUp, State
from kaudp.wire.grammar import FrameType
from tests.lives import reconnect, restart
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


def test_admin_down_from_every_state() -> None:
    """KA-6.3-1: the column of ADMIN_DOWN and the row, as the table has them."""
    for state in (State.UP, State.SUSPECT, State.HALF_OPEN, State.DOWN):
        pair = calm(down_retention_ms=86_400_000)
        if state is State.HALF_OPEN:
            pair.world.cut("bob", "alice")
            pair.run_to(State.SUSPECT)
            pair.world.cut("bob", "alice", cut=False)
            pair.world.cut("alice", "bob")
            pair.run_to(State.HALF_OPEN, limit=100 * S)
        elif state is not State.UP:
            pair.cut()
            pair.run_to(state)
        assert pair.session.state is state
        pair.session.admin_down(pair.now)
        assert pair.session.state is State.ADMIN_DOWN
        down = pair.alice.endpoint.next_event()
        assert isinstance(down, SessionAdminDown)
        assert (down.previous, down.by_peer) == (state, False)
    row = TRANSITIONS[State.ADMIN_DOWN]
    assert set(row.values()) == {State.SUSPECT, State.CLOSED}


def test_the_operators_verbs_may_be_repeated() -> None:
    """KA-8.10-1: what is so already is not said again."""
    pair = calm()
    pair.session.admin_up(pair.now)
    assert pair.session._terms.control.version == 0
    for _ in range(3):
        pair.session.admin_down(pair.now)
        pair.run(S)
    assert pair.session._terms.control.version == 1
    assert pair.bob.kinds() == ["SessionUp", "SessionAdminDown"]
    with pytest.raises(SessionStateError, match="expected an established session"):
        Pair().session.admin_down(0)


def test_nobody_judges_while_it_is_down() -> None:
    """KA-8.10-3: not through a cut of an hour, and the probes come every 8 T at most."""
    pair = calm()
    pair.session.admin_down(pair.now)
    pair.run(S)
    began = pair.now
    pair.cut()
    pair.run(3600 * S)
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp", "SessionAdminDown"]
    steps = [b - a for a, b in pairwise(probes(pair, since=began))]
    assert len(steps) >= 3600 // 40 - 2
    assert 0.75 * 40 * S < min(steps) < 0.8 * 40 * S
    assert 0.95 * 40 * S < max(steps) <= 40 * S
    assert probes(pair, "bob", since=began) == []


def test_nat_keepalive_goes_on() -> None:
    """KA-8.10-3: the binding is kept while the operator works."""
    pair = Pair(alice=Config.wan(nat_keepalive_ms=15_000)).up()
    pair.session.admin_down(pair.now)
    pair.run(S)
    began = pair.now
    pair.run(600 * S)
    steps = [b - a for a, b in pairwise(probes(pair, since=began))]
    assert max(steps) <= 15 * S
    assert len(steps) >= 600 // 15 - 1


def test_up_again_measures_silence_anew_and_probes_at_once() -> None:
    """KA-8.10-6: with the first suspicion probe; a peer that died meanwhile is found in time."""
    pair = calm()
    pair.session.admin_down(pair.now)
    pair.run(S)
    pair.cut()
    pair.run(1000 * S)
    began = pair.now
    pair.session.admin_up(began)
    assert pair.session.state is State.SUSPECT
    pair.run(0)
    assert of_type(pair.alice, FrameType.PROBE)[-1][0] == began
    down = pair.run_to(State.DOWN, limit=60 * S)
    assert down - began == 15 * S


def test_up_again_at_the_other_side_probes_at_once() -> None:
    """KA-8.10-6: the responder too, which has no probes of its own otherwise."""
    pair = calm()
    pair.session.admin_down(pair.now)
    pair.run(100 * S)
    before = len(probes(pair, "bob"))
    pair.session.admin_up(pair.now)
    pair.run(25 * MS)
    assert len(probes(pair, "bob")) == before + 1
    pair.run(S)
    assert pair.session.state is pair.far.state is State.UP


def test_both_sides_down_and_released_one_after_the_other() -> None:
    """KA-8.10-2: until neither is; told and confirmed both ways."""
    pair = calm()
    pair.session.admin_down(pair.now)
    pair.far.admin_down(pair.now)
    pair.run(50 * S)
    assert pair.session.state is pair.far.state is State.ADMIN_DOWN
    pair.session.admin_up(pair.now)
    pair.run(50 * S)
    assert pair.session.state is pair.far.state is State.ADMIN_DOWN
    pair.far.admin_up(pair.now)
    pair.run(S)
    assert pair.session.state is pair.far.state is State.UP
    for node in (pair.alice, pair.bob):
        assert node.kinds() == ["SessionUp", "SessionAdminDown", "SessionSuspect", "SessionUp"]


def test_down_is_told_through_loss_and_by_a_responder() -> None:
    """KA-8.10-1 KA-8.6-1: again and again until the peer has it."""
    pair = calm()
    pair.cut()
    pair.far.admin_down(pair.now)
    pair.run(2 * S)
    assert pair.session.state is State.UP
    pair.cut(cut=False)
    pair.run(6 * S)
    assert pair.session.state is State.ADMIN_DOWN
    assert pair.alice.events[-1].by_peer


@pytest.mark.parametrize("by_alice", [True, False])
def test_the_peers_part_is_honoured_within_its_limit(by_alice: bool) -> None:
    """KA-8.10-4: 100 s of 24 hours; repeated, prolonged, and again a day later."""
    limit = {"max_peer_admin_down_ms": 100_000}
    alice = Config.wan(interval_ms=20_000, **NO_NAT, **limit)
    pair = Pair(alice=alice, bob=Config.server(**limit)).up()
    down, judge = (pair.session, pair.far) if by_alice else (pair.far, pair.session)
    node = pair.bob if by_alice else pair.alice
    down.admin_down(pair.now)
    pair.run(60 * S)
    for _ in range(5):
        down._terms.control.change(admin=1)
        down._tell_control(pair.now)
        pair.run(S)
    pair.run_to(State.SUSPECT, judge)
    assert pair.now - node.events[1].time == pytest.approx(100 * S, abs=2 * MS)
    pair.run_to(State.UP, judge)
    down.admin_up(pair.now)
    pair.run(S)
    down.admin_down(pair.now)
    pair.run(100 * S)
    assert node.kinds().count("SessionAdminDown") == 1
    down.admin_up(pair.now)
    pair.run(86_400 * S)
    down.admin_down(pair.now)
    pair.run(S)
    assert judge.state is State.ADMIN_DOWN


def test_a_limit_of_zero_honours_nothing() -> None:
    """KA-8.10-4."""
    pair = calm(max_peer_admin_down_ms=0)
    pair.session.admin_down(pair.now)
    pair.run(2 * S)
    assert pair.bob.kinds()[:1] == ["SessionUp"]
    assert "SessionAdminDown" not in pair.bob.kinds()
    assert pair.session.state is State.ADMIN_DOWN


def test_the_own_part_has_no_limit() -> None:
    """KA-8.10-4: when the peer's has ended, the own one goes on."""
    pair = calm(max_peer_admin_down_ms=50_000)
    pair.session.admin_down(pair.now)
    pair.far.admin_down(pair.now)
    pair.run(400 * S)
    assert pair.far.state is State.ADMIN_DOWN
    pair.far.admin_up(pair.now)
    assert pair.far.state is State.SUSPECT


def test_init_only_when_a_probe_was_not_answered() -> None:
    """KA-8.10-5: by the schedule of retries until one is answered."""
    pair = calm()
    pair.session.admin_down(pair.now)
    pair.run(400 * S)
    assert inits(pair, 0) == []
    pair.cut()
    began = pair.now
    pair.run(200 * S)
    sent = inits(pair, began)
    assert len(sent) >= 6
    (first, second), *_ = pairwise(probes(pair, since=began))
    assert sent[0] == second
    assert first < second
    steps = [b - a for a, b in pairwise(sent)]
    assert 375 * MS <= steps[0] <= 500 * MS
    assert max(steps) <= 60 * S
    pair.cut(cut=False)
    pair.run(70 * S)
    quiet = pair.now
    pair.run(400 * S)
    assert inits(pair, quiet) == []
    assert pair.session.state is State.ADMIN_DOWN
    assert "PeerRestarted" not in pair.alice.kinds()


@pytest.mark.parametrize("own", [True, False])
def test_a_responder_that_restarts_is_told_anew(own: bool) -> None:
    """KA-8.10-5 KA-8.6-3: what the initiator itself took down stays so, at both ends."""
    pair = calm()
    (pair.session if own else pair.far).admin_down(pair.now)
    pair.run(S)
    restart(pair, pair.bob)
    pair.run(100 * S)
    expected = State.ADMIN_DOWN if own else State.UP
    assert pair.session.state is pair.far.state is expected
    assert pair.alice.kinds().count("PeerRestarted") == 1


@pytest.mark.parametrize("own", [True, False])
def test_an_initiator_that_restarts_is_told_anew(own: bool) -> None:
    """KA-8.10-5 KA-8.6-3: the responder's operator holds on, the initiator's is forgotten."""
    pair = calm()
    (pair.far if own else pair.session).admin_down(pair.now)
    pair.run(S)
    far = pair.far
    reconnect(pair)
    pair.run(10 * S)
    assert pair.far is far
    expected = State.ADMIN_DOWN if own else State.UP
    assert pair.session.state is far.state is expected
    assert pair.bob.kinds().count("PeerRestarted") == 1


def test_a_handshake_with_the_same_process_ends_nothing() -> None:
    """KA-8.10-5 KA-8.10-2: only another epoch does."""
    pair = calm()
    pair.far.admin_down(pair.now)
    pair.run(S)
    pair.session._begin_attempt(pair.now)
    pair.run(S)
    assert pair.session.stats.handshakes == 2
    assert pair.session.state is pair.far.state is State.ADMIN_DOWN


def test_a_pause_and_admin_at_once() -> None:
    """KA-8.10-2 KA-8.7-1: told in one version, each ends by itself."""
    pair = calm()
    pair.session.pause(30 * S, pair.now)
    pair.session.admin_down(pair.now)
    pair.run(S)
    assert pair.bob.kinds() == ["SessionUp", "PeerPaused", "PeerPaused", "SessionAdminDown"]
    pair.session.admin_up(pair.now)
    pair.run(S)
    # The pause holds the first suspicion probe back, at the side that has nothing to tell.
    assert (pair.session.state, pair.far.state) == (State.UP, State.SUSPECT)
    quiet = pair.now
    pair.cut()
    pair.run(27 * S)
    assert probes(pair, since=quiet) == probes(pair, "bob", since=quiet) == []
    assert (pair.session.state, pair.far.state) == (State.UP, State.SUSPECT)
    pair.cut(cut=False)
    pair.run(2 * S)
    assert probes(pair, since=quiet)
    assert pair.session.state is pair.far.state is State.UP
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()


def test_close_ends_what_is_down() -> None:
    """KA-6.3-1: from either side."""
    pair = calm()
    pair.far.admin_down(pair.now)
    pair.run(S)
    pair.session.close(pair.now)
    pair.run(S)
    assert pair.bob.kinds()[-1] == pair.alice.kinds()[-1] == "SessionClosed"
    assert pair.alice.endpoint.quiet
    assert pair.bob.endpoint.quiet


def test_a_responder_that_has_forgotten_is_taken_down_no_more() -> None:
    """KA-8.6-5: it closes, which is lost, and has a new session with the next handshake."""
    pair = calm()
    pair.far.admin_down(pair.now)
    pair.run(S)
    assert pair.session.state is State.ADMIN_DOWN
    pair.cut()
    pair.far.close(pair.now)
    pair.run(60 * S)
    pair.cut(cut=False)
    pair.run(120 * S)
    assert pair.session.state is pair.far.state is State.UP
