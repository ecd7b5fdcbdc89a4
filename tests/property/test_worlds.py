"""Properties of the core over drawn worlds. Hypothesis prints the seed and plot of a failure."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.core.states import TRANSITIONS
from kaudp.events import State
from kaudp.sim import Node
from kaudp.wire.grammar import FrameType
from tests.worlds import MS, Pair, S, of_type

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


def play(seed: int, plot: Plot, config: Config, start: int = 0, **how: Any) -> Pair:
    pair = Pair(
        seed,
        alice=config,
        bob=Config.lan() if config == Config.lan() else Config.server(),
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
            consumed = receive(data, addr, now)
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
@given(SEEDS, PLOTS, PRESETS, CONDITIONS)
def test_whatever_happens(seed: int, plot: Plot, config: Config, how: dict[str, Any]) -> None:
    """KA-6.3-1 KA-8.2-3 KA-8.3-1 KA-8.3-2 KA-8.3-3: at every step of every world."""
    pair = play(seed, plot, config, **how)
    for node in (pair.alice, pair.bob):
        times = [event.time for event in node.events]
        assert times == sorted(times)
        assert_sends_are_bounded(pair, node.name)
        assert_transitions_are_legal(node)


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


def assert_sends_are_bounded(pair: Pair, name: str) -> None:
    """KA-7.4-4: in no window more than the budget, its refill, and the steady and slow cadences."""
    node = pair.world.nodes[name]
    interval = pair.session.stats.interval
    times = [at for at, _, _ in of_type(node, FrameType.PROBE)]
    for window in (S, 10 * S, 100 * S):
        most = 64 + 4 + 6 * (window // interval + 1)
        for number, start in enumerate(times):
            later = times[number + most : number + most + 1]
            assert not later or later[0] - start >= window, f"over {most} probes in {window} ns"


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
@given(SEEDS, st.integers(0, 200), st.data())
def test_evidence_counts_by_its_age_whichever_probe_it_confirms(
    seed: int, wait_deciseconds: int, data: st.DataObject
) -> None:
    """KA-7.2-1 KA-7.2-3: fresh keeps or makes it UP, stale does not."""
    pair = play(seed, [], Config.wan())
    pair.world.cut("bob", "alice")
    already = len(of_type(pair.bob, FrameType.REPLY))
    pair.run_to(State.SUSPECT)
    pair.run(wait_deciseconds * 100 * MS)
    held = list(of_type(pair.bob, FrameType.REPLY)[already:])
    sent_at, reply, _ = data.draw(st.sampled_from(held))
    age = pair.now - (sent_at - 20 * MS)
    fresh = age <= pair.session._liveness.longest_wait
    was_down = pair.session.state is State.DOWN
    pair.world.inject(pair.alice, reply, pair.bob.address)
    if was_down or not fresh:
        assert pair.session.state is not State.UP
    else:
        assert pair.session.state is State.UP


@settings(max_examples=60, deadline=None)
@given(
    SEEDS,
    st.integers(101, 10**8),
    PRESETS,
    st.sampled_from(["alice", "bob"]),
    st.integers(0, 20_000),
)
def test_a_clock_jump_convicts_nobody_before_one_probe_round(
    seed: int, jump: int, config: Config, who: str, lead: int
) -> None:
    """KA-7.7-1: nothing is read from the socket first; still no verdict within a PTO."""
    pair = play(seed, [], config)
    pair.run(lead * MS)
    node = pair.world.nodes[who]
    before = node.kinds().count("SessionDown")
    now = pair.now + jump * MS
    node.endpoint.handle_timer(now)
    pto = pair.session.stats.probe_timeout
    while (due := node.endpoint.next_timer()) is not None and due < now + min(pto, 10 * MS):
        node.endpoint.handle_timer(due)
    pair.world._flush(node)
    assert node.kinds().count("SessionDown") == before
