"""Sections 8.8 and 8.9: intervals that change, and push-back."""

from itertools import pairwise

import pytest

from kaudp.config import Config
from kaudp.core.timers import Timer
from kaudp.errors import ConfigError, SessionStateError
from kaudp.events import IntervalChanged, State
from kaudp.wire.codec import Options, Parameters
from kaudp.wire.grammar import FrameType
from tests.worlds import MS, Pair, S, forge, of_type

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


def changes(pair: Pair, name: str) -> list[tuple[int, int]]:
    events = pair.world.nodes[name].events
    return [(e.previous, e.interval) for e in events if isinstance(e, IntervalChanged)]


@pytest.mark.parametrize(("interval", "seconds"), [(2_000, 2), (5_001, 5.001), (60_000, 60)])
def test_the_initiator_changes_the_interval(interval: int, seconds: float) -> None:
    """KA-8.8-1 KA-8.8-3 KA-8.8-4: both report it once and probe and judge by it from then on."""
    pair = calm()
    pair.session.change_intervals(pair.now, interval_ms=interval)
    pair.run(30 * S)
    expected = round(seconds * S)
    for name, session in (("alice", pair.session), ("bob", pair.far)):
        assert session.stats.interval == session._liveness.judged_interval == expected
        assert changes(pair, name) == [(5 * S, expected)]
    since = pair.now
    pair.run(expected * 20)
    steps = [b - a for a, b in pairwise(probes(pair, since))]
    assert 0.75 * expected < min(steps) <= max(steps) <= expected
    assert "SessionSuspect" not in pair.alice.kinds() + pair.bob.kinds()


def test_the_responder_changes_what_it_allows() -> None:
    """KA-8.8-1: it tells by a probe of its own, since replies to steady probes have no room."""
    pair = calm()
    pair.far.change_intervals(pair.now, min_receive_interval_ms=11_000)
    pair.run(20 * S)
    assert pair.session.stats.interval == pair.far.stats.interval == 11 * S
    pair.far.change_intervals(pair.now, min_receive_interval_ms=0)
    pair.run(30 * S)
    assert pair.session.stats.interval == pair.far.stats.interval == 5 * S
    assert changes(pair, "alice") == changes(pair, "bob") == [(5 * S, 11 * S), (11 * S, 5 * S)]


def test_a_faster_interval_is_probed_by_at_once() -> None:
    """KA-8.8-2: and judged by only when both know."""
    pair = calm()
    pair.run(100 * MS)
    pair.cut()
    pair.session.change_intervals(pair.now, interval_ms=1_500)
    began = pair.now
    assert pair.session._liveness.interval == 1_500 * MS
    assert pair.session._liveness.judged_interval == 5 * S
    pair.run(85 * MS)
    assert pair.session.timers.armed(Timer.PROBE) is not None
    assert pair.session.timers.armed(Timer.PROBE) <= began + 1_500 * MS
    assert pair.far.stats.interval == 5 * S


def test_a_slower_interval_is_probed_by_only_when_confirmed() -> None:
    """KA-8.8-2 KA-8.8-3: the peer that has not heard of it hears probes as before."""
    pair = calm()
    pair.world.cut("bob", "alice")
    pair.session.change_intervals(pair.now, interval_ms=30_000)
    pair.run(40 * MS)
    assert pair.far._liveness.judged_interval == 30 * S
    assert pair.far._liveness.interval == 5 * S
    assert pair.session._liveness.interval == 5 * S
    assert pair.session._liveness.judged_interval == 30 * S
    pair.world.cut("bob", "alice", cut=False)
    pair.run(S)
    assert pair.session._liveness.interval == pair.session._liveness.judged_interval == 30 * S
    assert not pair.far._terms.agreement.peer.settled


def test_a_change_of_the_peer_is_settled_by_a_frame_that_confirms() -> None:
    """KA-8.8-3: the own frame that carried the ack must have arrived; the ack alone is not all."""
    pair = calm()
    pair.cut()
    told = Options(parameters=Parameters(9_000_000, 0, 0, 64, 0))
    probe = forge(pair.session, FrameType.PROBE, pair.now, told, control_version=1)
    pair.world.inject(pair.bob, probe, pair.alice.address)
    assert not pair.far._terms.agreement.settled
    again = forge(pair.session, FrameType.PROBE, pair.now, told, control_version=1)
    pair.world.inject(pair.bob, again, pair.alice.address)
    assert not pair.far._terms.agreement.settled
    assert pair.far._liveness.judged_interval == 9 * S
    assert pair.far._liveness.interval == 5 * S
    reply = of_type(pair.bob, FrameType.REPLY)[-1][1]
    pair.world.inject(pair.alice, reply, pair.bob.address)
    confirms = forge(pair.session, FrameType.PROBE, pair.now, told, control_version=1)
    pair.world.inject(pair.bob, confirms, pair.alice.address)
    assert pair.far._terms.agreement.settled
    assert pair.far.stats.interval == 9 * S


def test_silence_is_measured_anew_when_the_interval_has_changed() -> None:
    """KA-8.8-4: what counts as silence now was none under the old interval."""
    pair = calm()
    pair.far._liveness.round_trip_at -= 50 * S
    pair.session.change_intervals(pair.now, interval_ms=1_000)
    pair.run(500 * MS)
    settled = pair.session._liveness._judged_from
    assert pair.now - settled < 500 * MS
    pair.run(20 * S)
    assert changes(pair, "bob") == [(5 * S, S)]
    assert "SessionSuspect" not in pair.alice.kinds() + pair.bob.kinds()


def test_two_changes_before_the_first_is_confirmed() -> None:
    """KA-8.8-2 KA-8.6-1: the shortest of all three is probed by, the longest judged by."""
    pair = calm()
    pair.cut()
    pair.session.change_intervals(pair.now, interval_ms=20_000)
    pair.run(50 * MS)
    pair.session.change_intervals(pair.now, interval_ms=8_000)
    live = pair.session._liveness
    assert (live.interval, live.judged_interval) == (5 * S, 20 * S)
    pair.cut(cut=False)
    pair.run(30 * S)
    assert pair.session.stats.interval == pair.far.stats.interval == 8 * S
    assert changes(pair, "alice") == changes(pair, "bob") == [(5 * S, 8 * S)]


def test_a_change_and_its_reversal_report_nothing() -> None:
    """KA-8.8-4: T is not another one then."""
    pair = calm()
    pair.cut()
    pair.session.change_intervals(pair.now, interval_ms=20_000)
    pair.session.change_intervals(pair.now, interval_ms=5_000)
    pair.cut(cut=False)
    pair.run(30 * S)
    assert changes(pair, "alice") == changes(pair, "bob") == []
    assert pair.far._liveness.judged_interval == 5 * S


def test_features_do_not_change() -> None:
    """KA-8.8-1: whatever a later PARAMETERS says of them."""
    reporting = {"application_traffic": True}
    pair = Pair(alice=Config.wan(**reporting), bob=Config.server(**reporting)).up()
    told = Options(parameters=Parameters(5_000_000, 0, 0, 64, 0))
    probe = forge(pair.session, FrameType.PROBE, pair.now, told, control_version=1)
    pair.world.inject(pair.bob, probe, pair.alice.address)
    assert pair.far._terms.agreement.peer.newest.features == 1
    assert pair.far._liveness.traffic_replaces_probes


def test_a_handshake_tells_the_newest() -> None:
    """KA-8.8-1: with the change under way or long confirmed."""
    pair = calm()
    pair.session.change_intervals(pair.now, interval_ms=9_000)
    pair.run(10 * S)
    pair.session.change_intervals(pair.now, interval_ms=3_000)
    pair.session._begin_attempt(pair.now)
    pair.run(60 * MS)
    assert pair.far.stats.handshakes == 2
    assert pair.far._terms.agreement.peer.newest.desired_interval_us == 3_000_000
    pair.run(20 * S)
    assert pair.session.stats.interval == pair.far.stats.interval == 3 * S


def test_a_change_during_a_handshake_is_told_after_it() -> None:
    """KA-8.8-2 KA-8.8-3: INIT tells what was so when it was made."""
    pair = calm()
    pair.session._begin_attempt(pair.now)
    pair.session.change_intervals(pair.now, interval_ms=17_000)
    pair.run(45 * MS)
    assert pair.session.stats.handshakes == 2
    assert pair.session._liveness.interval == 5 * S
    pair.run(30 * S)
    assert pair.session.stats.interval == pair.far.stats.interval == 17 * S
    assert "SessionSuspect" not in pair.alice.kinds() + pair.bob.kinds()


def test_what_the_peer_allows_in_suspicion_holds_at_once() -> None:
    """KA-8.8-1 KA-7.4-4: a burst of 3 from now on, not when all is settled."""
    pair = calm()
    told = Options(parameters=Parameters(5_000_000, 0, 700_000, 3, 0))
    probe = forge(pair.far, FrameType.PROBE, pair.now, told, control_version=1)
    pair.world.inject(pair.alice, probe, pair.bob.address)
    assert pair.session._liveness.spacing() == 700 * MS
    assert pair.session._liveness._budget._bucket.capacity == 3


def test_intervals_that_no_configuration_may_have() -> None:
    """A user's mistake changes nothing."""
    pair = calm()
    with pytest.raises(ConfigError, match="interval_ms"):
        pair.session.change_intervals(pair.now, interval_ms=5)
    assert pair.session._terms.control.version == 0
    with pytest.raises(SessionStateError, match="expected the responder's side"):
        pair.session.slow_down(500, pair.now)
    with pytest.raises(SessionStateError, match="expected an established session"):
        Pair().session.change_intervals(0, interval_ms=500)


# 8.9 Slow down


def test_slow_down_changes_what_is_allowed_alone() -> None:
    """KA-8.9-1: and is confirmed and settled as PARAMETERS are."""
    pair = calm()
    before = pair.session._terms.agreement.peer.newest
    pair.far.slow_down(8_000, pair.now)
    pair.run(20 * S)
    after = pair.session._terms.agreement.peer.newest
    assert after == before._replace(min_receive_interval_us=8_000_000)
    assert pair.far._terms.agreement.own.newest == after
    assert pair.session.stats.interval == pair.far.stats.interval == 8 * S
    assert changes(pair, "alice") == changes(pair, "bob") == [(5 * S, 8 * S)]


def flood(pair: Pair, count: int, spacing: int, **said: int) -> None:
    for _ in range(count):
        pair.run(spacing)
        probe = forge(pair.session, FrameType.PROBE, pair.now, **said)
        pair.world.inject(pair.bob, probe, pair.alice.address)


def test_a_peer_that_probes_too_often_is_asked_and_answered() -> None:
    """KA-8.9-2 KA-8.9-3: once a minute at most, by the present T; never closed."""
    pair = calm()
    pair.world.cut("bob", "alice")
    pair.far._liveness.suspend()
    began, answered = pair.now, len(of_type(pair.bob, FrameType.REPLY))
    versions: dict[int, int] = {}
    for _ in range(1300):
        flood(pair, 1, 100 * MS, state=State.UP)
        versions.setdefault(pair.far._terms.control.version, pair.now)
    asked = [at for version, at in versions.items() if version]
    assert [at - began for at in asked] == pytest.approx([21 * S, 81 * S], abs=2 * S)
    assert len(of_type(pair.bob, FrameType.REPLY)) - answered >= 1300
    assert pair.far.state is State.UP
    assert pair.far._terms.control.pending == Options(slow_down_us=5_000_000)
    assert pair.far.stats.interval == 5 * S


@pytest.mark.parametrize("state", list(State)[1:6])
def test_only_steady_probes_count(state: State) -> None:
    """KA-8.9-2: those that tell UP or HALF_OPEN and nothing else."""
    pair = calm()
    pair.world.cut("bob", "alice")
    pair.far._liveness.suspend()
    flood(pair, 200, MS, state=state)
    asked = pair.far._terms.control.version == 1
    assert asked is (state in (State.UP, State.HALF_OPEN))


def test_probes_with_options_do_not_count() -> None:
    """KA-8.9-2: they tell a fault, a change or a pause."""
    pair = calm()
    pair.world.cut("bob", "alice")
    pair.far._liveness.suspend()
    for _ in range(200):
        probe = forge(pair.session, FrameType.PROBE, pair.now, Options(pad=0))
        pair.world.inject(pair.bob, probe, pair.alice.address)
    assert pair.far._terms.control.version == 0


@pytest.mark.parametrize("interval_ms", [100, 5_000])
def test_the_bucket_as_it_is(interval_ms: int) -> None:
    """KA-8.9-2: 128, and 4 in each T or second, whichever is less."""
    alice = Config.wan(interval_ms=interval_ms, **NO_NAT)
    pair = Pair(alice=alice, bob=Config.server(min_receive_interval_ms=100), delay=MS).up()
    pair.world.cut("bob", "alice")
    pair.far._liveness.suspend()
    pair.session._liveness.suspend()
    pair.session.timers.disarm(Timer.PROBE)
    pair.run(60 * S)  # the bucket is full
    flood(pair, 128, 0)
    assert pair.far._terms.control.version == 0
    refill = min(interval_ms * MS, S)
    pair.run(refill)
    flood(pair, 4, 0)
    assert pair.far._terms.control.version == 0
    flood(pair, 1, 0)
    assert pair.far._terms.control.version == 1
    assert pair.far._terms.control.pending.slow_down_us == interval_ms * 1000


def test_an_initiator_asks_nobody_to_slow_down() -> None:
    """KA-8.9-2: a responder's probes are no steady ones."""
    pair = calm()
    for _ in range(300):
        probe = forge(pair.far, FrameType.PROBE, pair.now)
        pair.world.inject(pair.alice, probe, pair.bob.address)
    assert pair.session._terms.control.version == 0
