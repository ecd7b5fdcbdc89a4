"""Section 7: the two facts, evidence, suspicion, the verdict, the return, own stalls."""

from itertools import pairwise
from random import Random

import pytest

from kaudp.config import Config, DetectorKind
from kaudp.core.channel import OLD_PACKET_AGE
from kaudp.core.liveness import LATE_TIMER, STALL_WINDOW
from kaudp.core.suspicion import (
    BLIND_PROBE_SPACING,
    SUSPICION_BUDGET_MAX,
    ProbeBudget,
    Suspicion,
)
from kaudp.core.timers import Timer
from kaudp.events import DownReason, PeerRestarted, SessionDown, SessionSuspect, State
from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, MS, Pair, S, forge, of_type

KEEP = Config.server(down_retention_ms=86_400_000)


def probes(pair: Pair, since: int, name: str = "alice") -> list[int]:
    return [at for at, _, _ in of_type(pair.world.nodes[name], FrameType.PROBE) if at >= since]


# 7.1 Two facts


def test_own_sends_never_extend_liveness() -> None:
    """KA-7.1-1: erlang_quic#174."""
    pair = Pair().up()
    pair.cut()
    facts = pair.session.stats.rx_at, pair.session.stats.round_trip_at
    sent = pair.session.stats.sent
    pair.run(60 * S)
    assert pair.session.stats.sent > sent + 20
    assert (pair.session.stats.rx_at, pair.session.stats.round_trip_at) == facts


def test_a_probe_of_the_peer_moves_rx_only() -> None:
    """KA-7.1-2 KA-7.1-3: it says that the peer lives, not that it hears me."""
    pair = Pair().up()
    pair.world.cut("alice", "bob")
    pair.run(500 * MS)
    before = pair.session.stats.round_trip_at
    pair.world.inject(pair.alice, forge(pair.far, FrameType.PROBE, pair.now), pair.bob.address)
    assert pair.session.stats.rx_at == pair.now
    assert pair.session.stats.round_trip_at == before


def test_evidence_is_dated_when_the_confirmed_frame_was_sent() -> None:
    """KA-7.1-3: to the microsecond, not when the reply arrived."""
    pair = Pair(delay=300 * MS).up()
    sent_at = probes(pair, 0)[-1]
    assert pair.session.stats.rtt_latest == 600 * MS
    assert 0 <= sent_at - pair.session.stats.round_trip_at < 1000


# 7.2 Evidence


def held_reply(pair: Pair) -> bytes:
    """Let bob answer a probe, and keep the answer from alice."""
    pair.world.cut("bob", "alice")
    count = len(of_type(pair.bob, FrameType.REPLY))
    while len(of_type(pair.bob, FrameType.REPLY)) == count:
        pair.run(MS)
    return of_type(pair.bob, FrameType.REPLY)[count][1]


def test_a_late_reply_ends_suspicion() -> None:
    """KA-7.2-3 KA-7.3-2: aioice#58 ignores what is late; late is not lost."""
    pair = Pair().up()
    late = held_reply(pair)
    pair.run_to(State.SUSPECT)
    pair.run(3 * S)
    pair.cut()
    pair.world.inject(pair.alice, late, pair.bob.address)
    assert pair.session.state is State.UP
    overdue = pair.session.timers.armed(Timer.OVERDUE)
    assert overdue is not None
    assert overdue >= pair.now + pair.session.stats.probe_timeout


def test_stale_evidence_changes_statistics_only() -> None:
    """KA-7.2-1: a reply hoarded longer than L and released after death proves only the past."""
    pair = Pair(bob=KEEP).up()
    late = held_reply(pair)
    pair.cut()
    pair.run_to(State.DOWN)
    pair.run(30 * S)
    before = pair.session.stats
    assert pair.world.inject(pair.alice, late, pair.bob.address)
    after = pair.session.stats
    assert after.state is State.DOWN
    assert (after.rx_at, after.round_trip_at) == (before.rx_at, before.round_trip_at)

    assert after.round_trips == before.round_trips + 1
    assert after.rtt_max is not None
    assert after.rtt_max > 30 * S


def test_evidence_whose_times_have_wrapped_is_stale() -> None:
    """KA-7.2-2: held for exactly 2^32 us, its date looks fresh, its packet number does not."""
    pair = Pair(bob=KEEP).up()
    late = held_reply(pair)
    sent_at = pair.now - 20 * MS
    pair.cut()
    pair.world.run_until(sent_at + 2**32 * 1000 + 40 * MS)
    assert pair.session.state is State.DOWN
    before = pair.session.stats
    assert pair.world.inject(pair.alice, late, pair.bob.address)
    after = pair.session.stats
    assert (after.rx_at, after.round_trip_at) == (before.rx_at, before.round_trip_at)
    assert after.round_trips == before.round_trips


def test_wrapped_evidence_is_stale_after_a_suspend_too() -> None:
    """KA-7.2-2: nothing was sent meanwhile that could have kept count."""
    pair = Pair(bob=KEEP).up()
    late = held_reply(pair)
    sent_at = pair.now - 20 * MS
    pair.cut()
    pair.world.stall(pair.alice, OLD_PACKET_AGE * 4)
    before = pair.session.stats.round_trip_at
    pair.session._channel._checkpoint_at = sent_at  # the last count was just before
    pair.world.now = sent_at + 2**32 * 1000 + 40 * MS
    pair.alice.endpoint.receive_datagram(late, pair.bob.address, pair.now)
    assert pair.session.stats.round_trip_at == before


# 7.3 What is overdue


def test_suspicion_begins_one_pto_after_the_probe() -> None:
    """KA-7.3-1 KA-7.4-1: and sends a probe at once."""
    pair = Pair().up()
    pair.run(5 * S)
    pair.cut()
    pto = pair.session.stats.probe_timeout
    start = pair.now
    suspected = pair.run_to(State.SUSPECT)
    event = pair.alice.events[-1]
    assert isinstance(event, SessionSuspect)
    missed, fast, *_ = probes(pair, start)
    assert event.time == fast == missed + pto
    assert suspected - fast <= MS


def test_a_responder_suspects_after_interval_and_pto() -> None:
    """KA-7.3-3: measured from the last frame received."""
    pair = Pair().up()
    pair.run(30 * S)
    pair.cut()
    pair.run_to(State.SUSPECT, pair.far)
    stats = pair.far.stats
    assert pair.bob.events[-1].time == stats.rx_at + stats.interval + stats.probe_timeout


def test_a_responder_notices_that_its_replies_are_lost() -> None:
    """KA-7.3-3: frames come in, but confirm nothing newer than 2 T + 2 PTO."""
    pair = Pair().up()
    pair.run(30 * S)
    pair.world.cut("bob", "alice")
    pair.run_to(State.SUSPECT, pair.far)
    stats = pair.far.stats
    lag = pair.bob.events[-1].time - stats.round_trip_at
    assert lag <= 2 * stats.interval + 2 * stats.probe_timeout
    assert pair.now - stats.rx_at < stats.interval


def test_a_healthy_responder_never_probes() -> None:
    """KA-7.3-4: a session costs two packets an interval."""
    pair = Pair().up()
    pair.run(600 * S)
    assert of_type(pair.bob, FrameType.PROBE) == []
    assert pair.bob.kinds() == ["SessionUp"]
    mean = 600 / len(probes(pair, 2 * S))
    assert 0.85 * 5 < mean < 0.9 * 5


def test_half_open_is_suspected_when_the_peer_falls_silent() -> None:
    """KA-7.3-5: 3 T + PTO, and 24 T + PTO while the peer says DOWN."""
    pair = Pair(bob=KEEP).up()
    pair.world.cut("alice", "bob")
    pair.run_to(State.HALF_OPEN)
    pair.run_to(State.DOWN, pair.far)
    pair.run(60 * S)
    assert pair.session.state is State.HALF_OPEN
    pair.cut()
    pair.run_to(State.SUSPECT)
    stats = pair.session.stats
    assert stats.peer_state is State.DOWN
    assert pair.alice.events[-1].time - stats.rx_at == 24 * stats.interval + stats.probe_timeout
    pair.run_to(State.DOWN)


# 7.4 Suspicion


def test_one_miss_is_never_down() -> None:
    """KA-7.4-1."""
    pair = Pair().up()
    for _ in range(20):
        held_reply(pair)
        pair.world.cut("bob", "alice", cut=False)
        pair.run(2 * S)
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()
    assert pair.alice.kinds().count("SessionSuspect") == 20


@pytest.mark.parametrize(
    ("own", "peer", "delay", "least"),
    [(100, 20, 10, 100), (100, 700, 10, 700), (100, 20, 400, 800)],
)
def test_suspicion_probes_keep_their_distance(own: int, peer: int, delay: int, least: int) -> None:
    """KA-7.4-2: the greatest of own setting, smoothed response time and the peer's wish."""
    pair = Pair(
        alice=Config.wan(suspicion_interval_ms=own, interval_ms=20_000),
        bob=Config.server(suspicion_receive_interval_ms=peer),
        delay=delay * MS,
    ).up()
    pair.run(60 * S)
    pair.cut()
    started = pair.run_to(State.SUSPECT)
    pair.run(10 * S)
    steps = [b - a for a, b in pairwise(probes(pair, started - MS))]
    assert min(steps) == least * MS


def test_without_an_estimate_three_seconds_lie_between() -> None:
    """KA-7.4-2: RFC 8085."""
    pair = Pair(alice=Config.wan(interval_ms=60_000))
    pair.cut()
    pair.run(600 * MS)  # two INITs went out, so RESPONSE gives no sample
    pair.cut(cut=False)
    pair.run_to(State.UP)
    pair.cut()
    started = pair.run_to(State.SUSPECT)
    pair.run(20 * S)
    steps = {b - a for a, b in pairwise(probes(pair, started - MS))}
    assert steps == {BLIND_PROBE_SPACING}


def test_spacing_grows_after_32_probes() -> None:
    """KA-7.4-3."""
    suspicion = Suspicion(0, 0)
    suspicion.probes = 31
    assert suspicion.spacing(100, 8000) == 100
    suspicion.probes = 32
    assert suspicion.spacing(100, 8000) == 1000
    assert suspicion.spacing(100, 400) == 100


@pytest.mark.parametrize("burst", [3, 10, 64, 1000])
def test_the_budget_bounds_suspicion_probes(burst: int) -> None:
    """KA-7.4-4: at most the burst, then two per interval, in any window."""
    budget = ProbeBudget(0)
    budget.allow(burst)
    times = [now for now in range(0, 100 * S, 5 * MS) if budget.take(S, now)]
    assert len([at for at in times if at < S // 2]) == min(burst, SUSPICION_BUDGET_MAX)
    for window in (S, 10 * S, 50 * S):
        most = max(len([at for at in times if a <= at < a + window]) for a in times[::20])
        assert most <= min(burst, SUSPICION_BUDGET_MAX) + 2 * window // S + 1


def test_an_empty_budget_slows_probes_to_the_interval() -> None:
    """KA-7.4-4: the peer allows five."""
    pair = Pair(
        alice=Config.wan(interval_ms=2_000, multiplier=20),
        bob=Config.server(suspicion_receive_burst=5),
    ).up()
    pair.cut()
    started = pair.run_to(State.SUSPECT)
    pair.run(30 * S)
    sent = probes(pair, started - MS)
    assert len([at for at in sent if at < started + S]) <= 6
    assert len(sent) <= 5 + 2 * 15 + 1


def test_a_restarted_peer_is_found_within_suspicion() -> None:
    """KA-7.4-5 KA-7.4-6: not after a timeout (erlang_quic#202)."""
    pair = Pair().up()
    old = pair.bob
    pair.world.move(old, "nowhere")
    pair.world.add_node("bob2", Config.server(), KEY, accept=True, address=("192.0.2.2", 2000))
    started = pair.run_to(State.SUSPECT)
    up = pair.run_to(State.UP)
    assert up - started < S
    assert [type(e) for e in pair.alice.events[-2:]] == [
        PeerRestarted,
        type(pair.alice.events[0]),
    ]
    assert "SessionDown" not in pair.alice.kinds()


# 7.5 The verdict


@pytest.mark.parametrize("interval_ms", [500, 5_000, 20_000])
@pytest.mark.parametrize("multiplier", [1, 3, 10])
def test_fixed_multiplier_detection_time(interval_ms: int, multiplier: int) -> None:
    """KA-7.5-1: from the date of the last evidence, but never before three probes failed."""
    config = Config.wan(
        interval_ms=interval_ms,
        multiplier=multiplier,
        min_suspicion_ms=0,
        max_peer_interval_ms=20_000,
    )
    pair = Pair(alice=config, bob=Config.server(min_receive_interval_ms=0), delay=5 * MS).up()
    pair.run(3 * interval_ms * MS)
    pair.run_to(State.UP)
    pair.cut()
    pair.run_to(State.SUSPECT, limit=60 * S)
    pair.run_to(State.DOWN)
    down = pair.alice.events[-1]
    assert isinstance(down, SessionDown)
    assert down.reason is DownReason.DETECTION_TIME_EXPIRED
    waited = down.time - pair.session.stats.round_trip_at
    fast = probes(pair, pair.alice.events[-2].time)
    earliest = fast[2] + pair.session.stats.probe_timeout - pair.session.stats.round_trip_at
    assert waited == max(multiplier * interval_ms * MS, earliest)


def test_deadline_detection_time() -> None:
    """KA-7.5-1: RFC 7675, 30 s after the last evidence."""
    pair = Pair(alice=Config.wan(detector=DetectorKind.DEADLINE)).up()
    pair.run(20 * S)
    pair.cut()
    pair.run_to(State.DOWN)
    assert pair.alice.events[-1].time - pair.session.stats.round_trip_at == 30 * S


def test_min_suspicion_is_waited_for() -> None:
    """KA-7.5-1."""
    pair = Pair(alice=Config.lan(min_suspicion_ms=4_000), bob=Config.lan(), delay=MS).up()
    pair.cut()
    pair.run_to(State.DOWN)
    suspect, down = pair.alice.events[-2:]
    assert down.time - suspect.time == 4 * S


def test_a_one_way_path_is_half_open_at_the_side_that_hears() -> None:
    """KA-7.5-2 KA-7.5-3: ant-quic#241, pion/ice#767. Neither killed nor hidden nor expired."""
    pair = Pair(bob=KEEP).up()
    pair.world.cut("bob", "alice")
    pair.run_to(State.HALF_OPEN, pair.far)
    pair.run_to(State.DOWN)
    pair.run(3600 * S)
    assert pair.far.state is State.HALF_OPEN
    assert pair.session.state is State.DOWN
    pair.cut(cut=False)
    pair.run_to(State.UP)
    pair.run_to(State.UP, pair.far)


@pytest.mark.parametrize("seed", range(20))
def test_half_open_rides_out_light_loss(seed: int) -> None:
    """KA-7.5-3 KA-7.3-5: the DOWN peer's probes are rare, and one in ten is lost."""
    pair = Pair(seed, alice=Config.wan(interval_ms=1_000), bob=KEEP).up()
    pair.condition(loss=0.1)
    pair.world.cut("alice", "bob")
    pair.run_to(State.HALF_OPEN)
    pair.run(120 * S)
    assert "SessionDown" not in pair.alice.kinds()


def test_handshakes_to_no_avail_become_rarer() -> None:
    """KA-7.4-5 KA-7.4-4: they get through, but nothing under the new keys does."""
    pair = Pair(bob=KEEP).up()
    receive = pair.alice.endpoint.receive_datagram

    def only_responses(data: bytes, addr: object, now: int) -> bool:
        return data[1] == FrameType.RESPONSE and receive(data, addr, now)

    pair.alice.endpoint.receive_datagram = only_responses  # type: ignore[method-assign]
    pair.run(600 * S)
    assert pair.session.stats.handshakes < 40
    assert len(probes(pair, pair.now - 100 * S)) < 100


def test_in_half_open_both_probe_at_the_interval() -> None:
    """KA-7.5-4."""
    pair = Pair(bob=KEEP).up()
    pair.world.cut("alice", "bob")
    started = pair.run_to(State.HALF_OPEN)
    pair.run(300 * S)
    steps = [b - a for a, b in pairwise(probes(pair, started))][1:]
    assert all(0.75 * 5 * S < step <= 5 * S for step in steps)


# 7.6 After DOWN


def test_probing_goes_on_with_back_off() -> None:
    """KA-7.6-1: T, 2 T, 4 T, 8 T, 8 T ..., each with jitter."""
    pair = Pair(alice=Config.wan(nat_keepalive_ms=None)).up()
    pair.cut()
    pair.run_to(State.DOWN)
    down_at = pair.alice.events[-1].time
    pair.run(600 * S)
    times = [down_at, *[at for at in probes(pair, down_at) if at > down_at]]
    for n, (early, late) in enumerate(pairwise(times)):
        step = min(2**n, 8) * 5 * S
        assert 0.75 * step < late - early <= step


def test_the_verdict_is_told_to_the_peer() -> None:
    """KA-7.5-5: the side that is heard says that it hears nothing."""
    pair = Pair(bob=KEEP).up()
    pair.world.cut("alice", "bob")
    down = pair.run_to(State.DOWN, pair.far)
    pair.run(50 * MS)
    assert pair.session.stats.peer_state is State.DOWN
    assert down - pair.bob.events[-1].time <= MS


def test_a_return_takes_several_confirmations_and_is_quick() -> None:
    """KA-7.6-2 KA-7.6-3: flap damping that does not wait for the back-off."""
    pair = Pair(bob=KEEP).up()
    pair.cut()
    pair.run_to(State.DOWN)
    pair.run_to(State.DOWN, pair.far)
    pair.session._drop_attempt(pair.now)  # let probes, not a new handshake, find the way back
    pair.run(5 * S)
    pair.cut(cut=False)
    count = pair.session.stats.round_trips
    first = None
    while pair.session.state is State.DOWN:
        pair.run(MS)
        if first is None and pair.session.stats.round_trips > count:
            first = pair.now
            assert pair.session.state is State.DOWN
    assert pair.session.stats.round_trips - count == 3
    assert first is not None
    assert pair.now - first < S
    assert pair.session.stats.handshakes == 1


def test_a_responder_forgets_in_the_end() -> None:
    """KA-7.6-4: the initiator does not."""
    pair = Pair(bob=Config.server(down_retention_ms=60_000)).up()
    pair.cut()
    pair.run_to(State.DOWN, pair.far)
    down_at = pair.bob.events[-1].time
    pair.run(1000 * S)
    assert pair.bob.kinds()[-1] == "SessionClosed"
    assert pair.bob.events[-1].time == down_at + 60 * S
    assert pair.bob.endpoint.quiet
    assert pair.session.state is State.DOWN
    pair.cut(cut=False)
    pair.run_to(State.UP)
    pair.run(100 * MS)
    assert pair.far.state is State.UP


# 7.7 Own stall


@pytest.mark.parametrize("stall", [200 * MS, 3 * S, 40 * S, 3600 * S])
def test_a_stall_or_suspend_convicts_nobody(stall: int) -> None:
    """KA-7.7-1: websockets#625, Cassandra's max_local_pause. The peer was there all along."""
    pair = Pair(bob=KEEP, alice=Config.lan(), delay=MS).up()
    pair.run(S)
    pair.world.stall(pair.alice, stall)
    pair.run(stall + 10 * S)
    assert "SessionDown" not in pair.alice.kinds()
    assert pair.session.state is State.UP


def test_a_stall_in_suspicion_puts_the_verdict_off() -> None:
    """KA-7.7-1 KA-7.7-2: one probe round at least, and the lateness is no silence."""
    pair = Pair().up()
    pair.cut()
    pair.run_to(State.SUSPECT)
    planned = pair.session.timers.armed(Timer.VERDICT)
    while planned is None:
        pair.run(50 * MS)
        planned = pair.session.timers.armed(Timer.VERDICT)
    lateness = 2 * S
    pair.world.run_until(planned - 500 * MS)
    pair.world.stall(pair.alice, planned + lateness - pair.now)
    pair.run_to(State.DOWN)
    assert pair.session.stats.stalls == 1
    # A suspicion probe was late by more than the verdict was.
    down = pair.alice.events[-1].time
    assert planned + lateness <= down <= planned + 2 * lateness


@pytest.mark.parametrize("stall", [11 * S, 14 * S, 60 * S])
def test_a_stalled_responder_does_not_even_suspect(stall: int) -> None:
    """KA-7.7-1: what waited in its socket shows that the peer lived, not that replies arrived."""
    pair = Pair(alice=Config.wan(interval_ms=2_000)).up()
    pair.run(10 * S)
    pair.world.stall(pair.bob, stall)
    pair.run(stall + 10 * S)
    assert pair.bob.kinds() == ["SessionUp"]
    assert pair.far.stats.stalls >= 1


def test_a_timer_that_is_a_little_late_is_on_time() -> None:
    """KA-7.7-1: 100 ms."""
    pair = Pair().up()
    pair.cut()
    pair.run_to(State.SUSPECT)
    pair.run(5 * S)
    planned = pair.session.timers.armed(Timer.VERDICT)
    assert planned is not None
    pair.world.run_until(planned - MS)
    pair.world.stall(pair.alice, planned + LATE_TIMER - pair.now)
    pair.run_to(State.DOWN)
    assert pair.session.stats.stalls == 0
    assert pair.alice.events[-1].time == planned + LATE_TIMER


def test_a_slow_loop_cannot_switch_detection_off() -> None:
    """KA-7.7-3: every timer fires late, for ever; the allowance of L per ten minutes ends it."""
    pair = Pair().up()
    pair.cut()
    started = pair.now
    rng = Random(7)
    while pair.session.state is not State.DOWN:
        assert pair.now - started < 120 * S
        pair.world.stall(pair.alice, 150 * MS + rng.randrange(1000))
        pair.run(160 * MS)
    wait = pair.session._liveness.longest_wait
    assert pair.now - started < 5 * S + 2 * wait + 2 * S
    assert pair.session._liveness._stall_allowance.left(wait, pair.now + STALL_WINDOW) == wait


@pytest.mark.parametrize("config", [Config.wan(), Config.lan()], ids=["wan", "lan"])
def test_a_suspend_between_probes_is_excused_too(config: Config) -> None:
    """KA-7.7-1 KA-7.7-2: no judgement was armed, and the network is back only after a while."""
    pair = Pair(alice=config, bob=KEEP if config == Config.wan() else Config.lan(), delay=MS).up()
    pair.run_to(State.UP)
    while pair.session.timers.armed(Timer.OVERDUE) is not None:
        pair.run(MS)
    down_after = config.multiplier * config.interval_ms * MS
    pair.cut()
    pair.world.stall(pair.alice, 60 * S)
    pair.run(60 * S + down_after * 2 // 3)
    assert pair.session.stats.stalls >= 1
    assert "SessionDown" not in pair.alice.kinds()


def test_a_stall_early_in_suspicion_is_excused_too() -> None:
    """KA-7.7-2: before a verdict was armed; the suspicion itself begins later by that much."""
    pair = Pair().up()
    pair.cut()
    pair.run_to(State.SUSPECT)
    pair.world.stall(pair.alice, 60 * S)
    pair.run(61 * S)
    assert pair.session.state is State.SUSPECT
    pair.run_to(State.DOWN)


@pytest.mark.parametrize(
    ("config", "slow"),
    [
        (Config.lan(), 250 * MS),
        (Config.lan(), 600 * MS),
        (Config.lan(), 1300 * MS),
        (Config.wan(), 8 * S),
    ],
)
def test_a_path_that_has_become_slow_is_learned(config: Config, slow: int) -> None:
    """KA-7.2-1: else all evidence would be stale for ever, on a path that loses nothing."""
    bob = Config.lan() if config == Config.lan() else Config.server()
    pair = Pair(alice=config, bob=bob, delay=5 * MS).up()
    pair.condition(delay=slow)
    pair.run(600 * S)
    before = len(pair.alice.events) + len(pair.bob.events)
    pair.run(600 * S)
    assert len(pair.alice.events) + len(pair.bob.events) == before
    assert pair.session.state is State.UP
    assert pair.far.state is State.UP


def test_a_hoarded_response_leads_not_out_of_down() -> None:
    """KA-4.2-7."""
    pair = Pair(bob=KEEP).up()
    pair.world.cut("bob", "alice")
    pair.run_to(State.DOWN)
    hoarded = [data for _, data, _ in of_type(pair.bob, FrameType.RESPONSE)[1:]]
    pair.cut()
    pair.run(40 * S)
    assert hoarded
    for data in hoarded:
        assert pair.world.inject(pair.alice, data, pair.bob.address)
    assert pair.session.state is State.DOWN


def test_keys_that_were_never_confirmed_are_not_named() -> None:
    """KA-7.4-5 KA-4.3-5: else the next handshake would leave the responder's session an orphan."""
    pair = Pair(bob=KEEP).up()
    far = pair.far
    pair.cut()
    pair.run_to(State.SUSPECT)
    pair.run(300 * MS)
    old_channel = pair.session._channel
    pair.world.cut("bob", "alice", cut=False)
    init = of_type(pair.alice, FrameType.INIT)[-1][1]
    pair.world.inject(pair.bob, init, pair.alice.address)
    pair.run(100 * MS)
    assert pair.session._channel is not old_channel, "RESPONSE came, but no PROBE went through"
    pair.run(60 * S)
    pair.cut(cut=False)
    pair.run_to(State.UP)
    pair.run(5 * S)
    assert pair.bob.endpoint.sessions == [far]
    assert far.state is State.UP


def test_lost_answers_under_new_keys_make_no_orphans() -> None:
    """KA-4.3-5: the probe that made them valid arrived, its answer did not, and so again."""
    pair = Pair(bob=KEEP).up()
    far = pair.far
    pair.session._begin_attempt(pair.now)
    pair.run(50 * MS)
    for handshakes in (2, 3, 4):
        assert pair.session.stats.handshakes == handshakes
        pair.world.cut("bob", "alice")
        answered = len(of_type(pair.bob, FrameType.RESPONSE))
        while len(of_type(pair.bob, FrameType.RESPONSE)) == answered:
            pair.run(MS)
        _, response, _ = of_type(pair.bob, FrameType.RESPONSE)[-1]
        pair.world.inject(pair.alice, response, pair.bob.address)
    pair.run(S)
    assert pair.bob.endpoint.sessions == [far]
    pair.world.cut("bob", "alice", cut=False)
    pair.run(20 * S)
    assert pair.bob.endpoint.sessions == [far]
    assert pair.session.state is State.UP
    assert far.state is State.UP


def test_a_hostile_peers_parameters_are_bounded() -> None:
    """KA-8.1-1 KA-7.4-2 KA-7.4-4: it can neither switch detection off nor make a side spin."""
    pair = Pair(bob=Config.server(min_receive_interval_ms=0, down_retention_ms=86_400_000))
    hostile = pair.session._context
    hostile.parameters = hostile.parameters._replace(
        desired_interval_us=1, suspicion_interval_us=2**32 - 1, suspicion_burst=1
    )
    pair.session.close(pair.now)
    session = pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run_to(State.UP, session)
    pair.run(S)
    assert pair.far.stats.interval == 10 * MS
    pair.cut()
    started = pair.now
    pair.run_to(State.DOWN, pair.far, limit=10 * S)
    before = len(pair.bob.sent)
    pair.run(S)
    assert len(pair.bob.sent) - before <= 20
    assert pair.bob.events[-1].time - started < 5 * S


def test_a_peer_that_wants_to_be_probed_once_an_hour_is_found_dead_all_the_same() -> None:
    """KA-7.4-4 KA-8.1-2."""
    pair = Pair(
        bob=Config.server(
            max_peer_interval_ms=60_000,
        )
    )
    parameters = pair.bob.endpoint._context.parameters
    pair.bob.endpoint._context.parameters = parameters._replace(
        min_receive_interval_us=2**32 - 1, suspicion_interval_us=2**32 - 1, suspicion_burst=1
    )
    pair.run_to(State.UP)
    pair.run(S)
    pair.cut()
    pair.run_to(State.DOWN, limit=5000 * S)
    suspect, down = pair.alice.events[-2:]
    assert down.time - suspect.time <= 4 * 60 * S


def test_a_responder_never_sends_init() -> None:
    """KA-7.4-5."""
    pair = Pair(bob=KEEP).up()
    pair.cut()
    pair.run(600 * S)
    assert pair.far.state is State.DOWN
    assert of_type(pair.bob, FrameType.INIT) == []


def test_evidence_dated_before_the_verdict_is_no_recovery() -> None:
    """KA-7.6-2: replies to suspicion probes, fresh by their age, but older than the verdict."""
    pair = Pair(bob=KEEP).up()
    pair.world.cut("bob", "alice")
    pair.run_to(State.SUSPECT)
    pair.run(5 * S)
    already = len(of_type(pair.bob, FrameType.REPLY))
    pair.run_to(State.DOWN)
    held = [data for _, data, _ in of_type(pair.bob, FrameType.REPLY)[already:]]
    pair.cut()
    assert len(held) > 3
    for reply in held:
        assert pair.world.inject(pair.alice, reply, pair.bob.address)
    assert pair.session.state is State.DOWN


def test_what_less_than_a_pto_can_excuse_is_not_excused() -> None:
    """KA-7.7-3: an excuse costs one PTO at least."""
    pair = Pair().up()
    live = pair.session._liveness
    live.response_time.pto = S
    wait = live.longest_wait
    live._stall_allowance.grant(wait - S, wait, pair.now)
    assert live.excuse_stall(pair.now, pair.now + 150 * MS)
    assert live._stall_allowance.left(wait, pair.now) == 0
    assert not live.excuse_stall(pair.now + S, pair.now + 2 * S)


def test_a_handshake_brings_no_fact_back() -> None:
    """KA-7.1-4: evidence may be newer than the INIT whose RESPONSE comes late."""
    pair = Pair().up()
    live = pair.session._liveness
    newest = live.round_trip_at
    live.established(newest - S, pair.now)
    assert (live.rx_at, live.round_trip_at) == (pair.now, newest)
    live.established(newest + MS, pair.now)
    assert live.round_trip_at == newest + MS


def test_an_absurd_response_time_counts_as_60_s() -> None:
    """KA-10.2-1 KA-7.4-2: a liar does not spread suspicion probes over hours."""
    pair = Pair().up()
    response_time = pair.session._liveness.response_time
    for _ in range(100):
        response_time.sample(4000 * S)
    assert response_time.pto == 60 * S
    assert 59 * S < pair.session._liveness.spacing() <= 60 * S
