"""Properties of the core over drawn worlds. Hypothesis prints the seed and plot of a failure."""

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.core.liveness import LATE_TIMER
from kaudp.core.states import TRANSITIONS
from kaudp.core.timers import Timer
from kaudp.events import SessionDown, SessionSuspect, State
from kaudp.sim import Node
from kaudp.wire.codec import NO_OPTIONS, Options
from kaudp.wire.grammar import FrameType
from tests.worlds import MS, Pair, S, forge, of_type

SEEDS = st.integers(0, 2**32)
PRESETS = st.sampled_from([Config.wan(), Config.lan(), Config.mobile()])
CONDITIONS = st.fixed_dictionaries(
    {
        "loss": st.sampled_from([0.0, 0.1, 0.4]),
        "spread": st.sampled_from([0, 30 * MS, 3 * S]),
        "duplicate": st.sampled_from([0.0, 0.2]),
        "burst_begins": st.sampled_from([0.0, 0.05]),
        "burst_ends": st.sampled_from([0.2, 1.0]),
    }
)
ACTIONS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 60_000)),
    st.tuples(st.just("cut"), st.sampled_from(["out", "home", "both", "none"])),
    st.tuples(st.just("stall"), st.sampled_from(["alice", "bob"]), st.integers(1, 40_000)),
    st.tuples(st.just("move"), st.integers(1001, 1005)),
    st.tuples(st.just("pause"), st.integers(0, 30_000)),
    st.tuples(st.just("hint")),
)
PLOTS = st.lists(ACTIONS, max_size=12)
BURSTS = st.sampled_from([3, 8, 64])


def perform(pair: Pair, action: tuple[Any, ...]) -> None:
    match action:
        case ("run", milliseconds):
            pair.run(milliseconds * MS)
        case ("cut", which):
            pair.world.cut("alice", "bob", cut=which in ("out", "both"))
            pair.world.cut("bob", "alice", cut=which in ("home", "both"))
        case ("stall", name, milliseconds):
            pair.world.stall(pair.world.nodes[name], milliseconds * MS)
        case ("move", port):
            pair.world.move(pair.alice, ("192.0.2.1", port))
        case ("pause", milliseconds) if pair.session.state not in (State.CONNECTING, State.CLOSED):
            pair.session.pause(milliseconds * MS, pair.now)
        case ("hint",):
            pair.session.note_unreachable(pair.now)


Plot = list[tuple[Any, ...]]
STATES = {
    "SessionUp": State.UP,
    "SessionSuspect": State.SUSPECT,
    "SessionHalfOpen": State.HALF_OPEN,
    "SessionDown": State.DOWN,
    "SessionClosed": State.CLOSED,
    "ConnectFailed": State.CLOSED,
}


def play(
    seed: int, plot: Plot, config: Config, start: int = 0, burst: int = 64, **how: Any
) -> Pair:
    far = Config.lan() if config == Config.lan() else Config.server()
    pair = Pair(
        seed,
        alice=replace(config, suspicion_receive_burst=burst),
        bob=replace(far, suspicion_receive_burst=burst),
        start=start,
        **how,
    )
    watch(pair)
    for action in [("run", 2000), *plot, ("run", 30_000)]:
        perform(pair, action)
    return pair


def watch(pair: Pair) -> None:
    """Check at every step what must hold at every step."""
    for node in (pair.alice, pair.bob):
        endpoint = node.endpoint
        receive, handle = endpoint.receive_datagram, endpoint.handle_timer

        def receive_and_check(
            data: bytes, addr: Any, now: int, *, endpoint: Any = endpoint, receive: Any = receive
        ) -> bool:
            outbox = endpoint._context.outbox
            waiting = len(outbox._datagrams)
            was_due = endpoint.next_timer()
            consumed = receive(data, addr, now)
            due = endpoint.next_timer()
            if was_due is None or was_due > now:
                assert due is None or due > now, "a re-arm that is not strictly later"
            answers = outbox._datagrams[waiting:]
            replies = [a for a in answers if a[0][1] in (FrameType.REPLY, FrameType.RESPONSE)]
            assert len(replies) <= (data[1] in (FrameType.PROBE, FrameType.INIT, FrameType.CLOSE))
            assert all(len(reply) <= len(data) and to == addr for reply, to in replies)
            return consumed

        def handle_and_check(now: int, *, endpoint: Any = endpoint, handle: Any = handle) -> None:
            handle(now)
            due = endpoint.next_timer()
            assert due is None or due > now, "a re-arm that is not strictly later"

        endpoint.receive_datagram = receive_and_check  # type: ignore[method-assign]
        endpoint.handle_timer = handle_and_check  # type: ignore[method-assign]


@settings(max_examples=150, deadline=None)
@given(SEEDS, PLOTS, PRESETS, CONDITIONS, BURSTS)
def test_whatever_happens(
    seed: int, plot: Plot, config: Config, how: dict[str, Any], burst: int
) -> None:
    """KA-6.3-1 KA-8.2-3 KA-8.3-1 KA-8.3-2 KA-8.3-3: at every step of every world."""
    pair = play(seed, plot, config, burst=burst, **how)
    for node in (pair.alice, pair.bob):
        times = [event.time for event in node.events]
        assert times == sorted(times)
        assert_sends_are_bounded(pair, node, burst, [verb for verb, *_ in plot].count("pause"))
        assert_transitions_are_legal(node)
        assert_verdicts_come_after_three_probes(node)


def assert_verdicts_come_after_three_probes(node: Node) -> None:
    """KA-7.5-1: since the suspicion began, and none of them a moment ago."""
    for suspect, down in pairwise(node.events):
        if not (isinstance(down, SessionDown) and isinstance(suspect, SessionSuspect)):
            continue
        if down.session is suspect.session:
            probes = [at for at, _, _ in of_type(node, FrameType.PROBE)]
            assert len([at for at in probes if suspect.time <= at < down.time]) >= 3


def assert_transitions_are_legal(node: Node) -> None:
    """KA-6.3-1 KA-6.3-2: for each session, by the table, none left out."""
    states: dict[int, State] = {}
    for event in node.events:
        after = STATES.get(type(event).__name__)
        if after is None:
            continue
        before = states.get(id(event.session), State.CONNECTING)
        assert after is not before
        assert after in TRANSITIONS[before].values(), f"{before.name} to {after.name}"
        assert getattr(event, "previous", before) is before
        states[id(event.session)] = after


def assert_sends_are_bounded(pair: Pair, node: Node, burst: int, pauses: int = 0) -> None:
    """KA-7.4-4: in no window more than the budget, its refill, and the regular cadences.

    A regular probe comes every 0.75 T at most often, the budget refills twice in T, and a suspicion
    without budget waits for T: less than five in T, and a few that changes of state cause.
    """
    interval = pair.session.stats.interval
    times = [at for at, _, _ in of_type(node, FrameType.PROBE)]
    for window in (S, 10 * S, 100 * S):
        most = burst + 5 * (window // interval + 1) + 5 + 10 * pauses
        for number, start in enumerate(times):
            later = times[number + most : number + most + 1]
            assert not later or later[0] - start >= window, f"over {most} probes in {window} ns"


@settings(max_examples=60, deadline=None)
@given(SEEDS, BURSTS, PRESETS, st.lists(st.integers(0, 2**32), min_size=50, max_size=300))
def test_a_hostile_peer_cannot_make_a_side_send_more(
    seed: int, burst: int, config: Config, draws: list[int]
) -> None:
    """KA-7.4-4: it holds the keys, says what it likes, and confirms late on purpose."""
    pair = play(seed, [], config, burst=burst)
    pair.world.cut("bob", "alice")
    injected = {FrameType.PROBE: 0, FrameType.REPLY: 0}
    before, far = len(of_type(pair.alice, FrameType.REPLY)), pair.far
    for draw in draws:
        rng = Random(draw)
        kind = rng.choice(list(injected))
        options = rng.choice([NO_OPTIONS, Options(pause_ms=rng.choice([0, 1, 5000]))])
        said = {
            "state": rng.randrange(1, 7),
            "address_hash": rng.getrandbits(32),
            "control_version": rng.randrange(256),
        }
        pair.run(rng.randrange(300) * MS)
        frame = forge(far, kind, pair.now, options, **said)
        pair.world.inject(pair.alice, frame, pair.bob.address)
        injected[kind] += 1
    assert_sends_are_bounded(pair, pair.alice, burst)
    answers = len(of_type(pair.alice, FrameType.REPLY)) - before
    assert answers <= injected[FrameType.PROBE]


@settings(max_examples=60, deadline=None)
@given(SEEDS, PLOTS, CONDITIONS, st.integers(1, 2**62))
def test_shifting_all_times_shifts_the_trace_and_nothing_else(
    seed: int, plot: Plot, how: dict[str, Any], shift: int
) -> None:
    here = play(seed, plot, Config.wan(), **how)
    there = play(seed, plot, Config.wan(), start=shift, **how)
    for name in ("alice", "bob"):
        one, two = here.world.nodes[name], there.world.nodes[name]
        assert [(at + shift, data, to) for at, data, to in one.sent] == two.sent
        assert [e.time + shift for e in one.events] == [e.time for e in two.events]
        assert one.kinds() == two.kinds()


@settings(max_examples=40, deadline=None)
@given(SEEDS, PLOTS, CONDITIONS)
def test_the_same_seed_gives_the_same_bytes(seed: int, plot: Plot, how: dict[str, Any]) -> None:
    one, two = (play(seed, plot, Config.wan(), **how) for _ in range(2))
    assert one.alice.sent == two.alice.sent
    assert one.bob.sent == two.bob.sent


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 100_000), PRESETS, st.integers(0, 120_000))
def test_own_sends_never_extend_liveness(seed: int, at: int, config: Config, wait: int) -> None:
    """KA-7.1-1: after a cut the facts stand still, whatever is sent."""
    pair = play(seed, [], config)
    pair.run(at * MS)
    pair.cut()
    pair.run(100 * MS)  # what was under way has arrived
    before = [(s.stats.rx_at, s.stats.round_trip_at) for s in (pair.session, pair.far)]
    sessions = pair.session, pair.far
    pair.run(wait * MS)
    assert [(s.stats.rx_at, s.stats.round_trip_at) for s in sessions] == before


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.lists(st.sampled_from(["alice", "bob"]), min_size=1, max_size=6), PRESETS)
def test_one_lost_frame_never_means_down(seed: int, losers: list[str], config: Config) -> None:
    """KA-7.4-1: single losses, each followed by one good interval, either way."""
    pair = play(seed, [], config)
    for loser in losers:
        node, other = pair.world.nodes[loser], {"alice": "bob", "bob": "alice"}[loser]
        pair.world.cut(loser, other)
        count = len(node.sent)
        while len(node.sent) == count:
            pair.run(MS)
        pair.world.cut(loser, other, cut=False)
        pair.run(2 * pair.session.stats.interval)
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(0, 300), st.data())
def test_evidence_counts_by_its_age_whichever_probe_it_confirms(
    seed: int, wait_deciseconds: int, data: st.DataObject
) -> None:
    """KA-7.2-1 KA-7.2-3: fresh makes it UP again, stale does not, also while the peer is heard."""
    pair = play(seed, [], Config.wan())
    hoarded = [forge(pair.far, FrameType.PROBE, pair.now) for _ in range(20)]
    pair.world.cut("bob", "alice")
    already = len(of_type(pair.bob, FrameType.REPLY))
    pair.run_to(State.SUSPECT)
    pair.run(500 * MS)
    pair.cut()
    held = of_type(pair.bob, FrameType.REPLY)[already:]
    for probe in hoarded[: 1 + wait_deciseconds // 20]:
        pair.run(min(2 * S, wait_deciseconds * 100 * MS))
        pair.world.inject(pair.alice, probe, pair.bob.address)
    sent_at, reply, _ = data.draw(st.sampled_from(held))
    fresh = pair.now - (sent_at - 20 * MS) <= pair.session._liveness.longest_wait
    before = pair.session.state
    assert before in (State.SUSPECT, State.HALF_OPEN)
    pair.world.inject(pair.alice, reply, pair.bob.address)
    assert pair.session.state is (State.UP if fresh else before)


@settings(max_examples=100, deadline=None)
@given(
    SEEDS,
    st.integers(101, 10**8),
    PRESETS,
    st.sampled_from(["alice", "bob"]),
    st.booleans(),
    st.integers(0, 20_000),
)
def test_a_clock_jump_convicts_nobody_before_one_probe_round(
    seed: int, jump: int, config: Config, who: str, cut: bool, lead: int
) -> None:
    """KA-7.7-1: nothing is read from the socket first; still no verdict within a PTO."""
    pair = play(seed, [], config)
    pair.world.cut_both("alice", "bob", cut=cut)
    pair.run(lead * MS)
    node = pair.world.nodes[who]
    session = pair.session if who == "alice" else pair.far
    now = pair.now + jump * MS
    verdict_at = session.timers.armed(Timer.VERDICT)
    assume(verdict_at is None or not 0 <= now - verdict_at <= LATE_TIMER)  # that is on time
    before = session.state
    node.endpoint.handle_timer(now)
    end = now + session.stats.probe_timeout
    while (due := node.endpoint.next_timer()) is not None and due < end:
        node.endpoint.handle_timer(due)
    assert session.state is before or session.state is not State.DOWN
