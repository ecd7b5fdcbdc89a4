"""Properties of control state: slow-down, intervals that change, pauses and ADMIN_DOWN."""

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.core.push_back import SLOW_DOWN_SPACING
from kaudp.core.session import Session
from kaudp.events import State
from kaudp.wire.codec import Options
from kaudp.wire.grammar import FrameType
from tests.lives import reconnect
from tests.property.test_worlds import SEEDS, perform
from tests.worlds import MS, Pair, S, forge, of_type

SHORT_NAT = {"nat_keepalive_ms": 1_000, "allow_short_nat_keepalive": True}
PRESETS = st.sampled_from([Config.wan, Config.lan, Config.mobile])
CONDITIONS = st.fixed_dictionaries(
    {
        "loss": st.sampled_from([0.0, 0.1, 0.4]),
        "spread": st.sampled_from([0, 30 * MS, 3 * S]),
        "duplicate": st.sampled_from([0.0, 0.3]),
    }
)
Action = tuple[Any, ...]


class Extremes:
    """Randomness for jitter: the least, the greatest, or now this and now that."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._turn = 0

    def getrandbits(self, bits: int) -> int:
        self._turn += 1
        most = (1 << bits) - 1
        if self._kind == "turns":
            return most if self._turn % 2 else 0
        return most if self._kind == "greatest" else 0


LEGAL = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 60_000)),
    st.tuples(st.just("cut"), st.sampled_from(["out", "home", "both", "none"])),
    st.tuples(st.just("stall"), st.sampled_from(["alice", "bob"]), st.integers(1, 40_000)),
    st.tuples(st.just("move"), st.integers(1001, 1005)),
    st.tuples(st.just("pause"), st.integers(0, 30_000)),
    st.tuples(st.just("hint")),
    st.tuples(st.just("interval"), st.sampled_from([50, 100, 1_000, 5_000, 20_000])),
    st.tuples(st.just("admin"), st.booleans()),
    st.tuples(st.just("restart")),
)


def perform_more(pair: Pair, action: Action) -> None:
    live = pair.session.state not in (State.CONNECTING, State.CLOSED)
    match action:
        case ("interval", milliseconds) if live:
            pair.session.change_intervals(pair.now, interval_ms=milliseconds)
        case ("admin", down) if live:
            (pair.session.admin_down if down else pair.session.admin_up)(pair.now)
        case ("restart",):
            pair.alice.endpoint._context.rng, rng = None, pair.alice.endpoint._context.rng
            reconnect(pair)
            pair.alice.endpoint._context.rng = rng
        case _:
            perform(pair, action)


@settings(max_examples=40, deadline=None)
@given(
    SEEDS,
    st.sampled_from(["least", "greatest", "turns"]),
    st.lists(LEGAL, max_size=12),
    PRESETS,
    CONDITIONS,
)
def test_no_legal_jitter_draws_a_slow_down(
    seed: int, kind: str, plot: list[Action], preset: Any, how: dict[str, Any]
) -> None:
    """KA-8.9-2: NAT keep-alive at 1 s, through everything that may befall an honest peer."""
    far = Config.lan if preset == Config.lan else Config.server
    pair = Pair(seed, alice=preset(**SHORT_NAT), bob=far(**SHORT_NAT), **how)
    for node in (pair.alice, pair.bob):
        node.endpoint._context.rng = Extremes(kind)  # type: ignore[assignment]
    seen: set[Session] = set()
    for action in [("run", 2_000), *plot, ("run", 30_000)]:
        perform_more(pair, action)
        seen.update(pair.bob.endpoint.sessions)
    assert all(session._push_back._asked_at is None for session in seen)


@settings(max_examples=15, deadline=None)
@given(
    SEEDS,
    st.lists(
        st.tuples(st.integers(1, 400), st.sampled_from([0, 1, 10, 100, 300])),
        min_size=1,
        max_size=5,
    ),
)
def test_a_peer_that_probes_too_often_is_asked_at_most_once_a_minute(
    seed: int, bursts: list[tuple[int, int]]
) -> None:
    """KA-8.9-2 KA-8.9-3: every probe is answered, and the session never closed."""
    pair = Pair(seed).up()
    far, asked, injected = pair.far, [], 0
    before = len(of_type(pair.bob, FrameType.REPLY))
    pair.world.cut("alice", "bob")
    for count, spacing in [*bursts, (300, 0)]:
        for _ in range(count):
            pair.run(spacing * MS)
            probe = forge(pair.session, FrameType.PROBE, pair.now, state=State.UP)
            pair.world.inject(pair.bob, probe, pair.alice.address)
            injected += 1
            if far._push_back._asked_at not in (None, *asked[-1:]):
                asked.append(far._push_back._asked_at)
    assert asked
    assert all(b - a >= SLOW_DOWN_SPACING for a, b in pairwise(asked))
    assert len(of_type(pair.bob, FrameType.REPLY)) - before == injected
    assert far.state not in (State.CLOSED, State.DOWN)


CHANGES = st.one_of(
    st.tuples(st.just("alice"), st.integers(3_000, 30_000)),
    st.tuples(st.just("bob"), st.integers(3_000, 30_000)),
    st.tuples(st.just("both"), st.integers(3_000, 30_000), st.integers(3_000, 30_000)),
    st.tuples(st.just("run"), st.integers(1, 40_000)),
    st.tuples(st.just("run"), st.integers(1, 200)),
    st.tuples(st.just("handshake")),
)
LOSSY = st.fixed_dictionaries(
    {
        "loss": st.sampled_from([0.0, 0.1, 0.4]),
        "spread": st.sampled_from([0, 60 * MS]),
        "duplicate": st.sampled_from([0.0, 0.3]),
    }
)


def check_cover(pair: Pair) -> None:
    """Neither side probes more slowly than the other judges. Spec: KA-8.8-2."""
    near, far = pair.session, pair.far
    if near._channel.remote_id == far._channel.local_id:  # no handshake is half way
        assert near._liveness.interval <= far._liveness.judged_interval
        assert far._liveness.interval <= near._liveness.judged_interval


def watch_cover(pair: Pair) -> None:
    """Check at every step of either end."""
    for node in (pair.alice, pair.bob):
        endpoint = node.endpoint
        receive, handle = endpoint.receive_datagram, endpoint.handle_timer

        def receive_and_check(data: bytes, addr: Any, now: int, *, receive: Any = receive) -> bool:
            consumed: bool = receive(data, addr, now)
            check_cover(pair)
            return consumed

        def handle_and_check(now: int, *, handle: Any = handle) -> None:
            handle(now)
            check_cover(pair)

        endpoint.receive_datagram = receive_and_check  # type: ignore[method-assign]
        endpoint.handle_timer = handle_and_check  # type: ignore[method-assign]


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.lists(CHANGES, min_size=1, max_size=10), LOSSY)
def test_after_changes_both_compute_the_same(
    seed: int, plot: list[Action], how: dict[str, Any]
) -> None:
    """KA-8.8-1 to KA-8.8-4: same detection time, that of the newest, and no DOWN on the way."""
    pair = Pair(seed).up()
    pair.condition(**how)
    watch_cover(pair)
    newest = {"alice": 5_000, "bob": 1_000}
    for verb, *values in plot:
        if verb == "run":
            pair.run(values[0] * MS)
        elif verb == "handshake":
            known = pair.session._initiation.confirmed_id == pair.session._channel.remote_id
            if known and pair.session._initiation.attempt is None:
                pair.session._begin_attempt(pair.now)
        if verb in ("alice", "both"):
            newest["alice"] = values[0]
            pair.session.change_intervals(pair.now, interval_ms=values[0])
        if verb in ("bob", "both"):
            newest["bob"] = values[-1]
            pair.far.change_intervals(pair.now, min_receive_interval_ms=values[-1])
        check_cover(pair)
    pair.condition(loss=0.0, duplicate=0.0)
    pair.run(120 * S)
    expected = max(newest.values()) * MS
    for session in (pair.session, pair.far):
        live = session._liveness
        assert session._terms.agreement.settled
        assert live.interval == live.judged_interval == expected
        assert live._detector.longest_wait(live.judged_interval) == 3 * expected
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()


# Caps


def most_within(spans: list[tuple[int, int]], window: int) -> int:
    """Give the greatest sum of parts of spans within any window."""
    ends = [end for _, end in spans]
    return max(
        (sum(max(0, min(b, end) - max(a, end - window)) for a, b in spans) for end in ends),
        default=0,
    )


PEER = st.lists(
    st.one_of(
        st.tuples(st.just("pause"), st.sampled_from([0, 1, 30_000, 60_000, 2**32 - 1])),
        st.tuples(st.just("admin"), st.sampled_from([0, 1])),
        st.tuples(st.just("repeat")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("run"), st.sampled_from([10, 30_000, 59_000, 300_000, 3_400_000])),
        st.tuples(st.just("days"), st.sampled_from([20_000_000, 85_000_000])),
    ),
    max_size=25,
)
PAUSE_SUM, ADMIN_SUM = 150, 400


def say(pair: Pair, version: int, options: Options) -> None:
    if pair.session.state not in (State.CONNECTING, State.CLOSED):
        frame = forge(
            pair.session, FrameType.PROBE, pair.now, options, state=1, control_version=version
        )
        pair.world.inject(pair.bob, frame, pair.alice.address)


@settings(max_examples=40, deadline=None)
@given(SEEDS, PEER)
def test_pauses_and_admin_do_not_add_up_past_their_caps(seed: int, plot: list[Action]) -> None:
    """KA-8.7-2 KA-8.10-4: repeated, prolonged, taken back, in any order, through restarts."""
    bob = Config.server(
        max_peer_pause_ms=60_000,
        max_peer_pause_sum_ms=PAUSE_SUM * 1000,
        max_peer_admin_down_ms=ADMIN_SUM * 1000,
        down_retention_ms=86_400_000,
        max_peer_interval_ms=300_000,
    )
    pair = Pair(seed, alice=Config.wan(interval_ms=300_000, nat_keepalive_ms=None), bob=bob)
    pair.run(3 * S)
    far, version, last = pair.far, 0, Options()
    paused: list[tuple[int, int]] = []
    taken_down: list[tuple[int, int]] = []

    def note(before: int) -> None:
        if until > before:
            paused.append((before, min(until, far._terms.pause.until, pair.now)))
        if was_down:
            ended = next((e.time for e in pair.bob.events[count:]), pair.now)
            taken_down.append((before, ended if not far._terms.admin.peer else pair.now))

    for verb, *values in [*plot, *[("pause", 60_000), ("run", 59_000)] * 4, ("run", 100_000)]:
        before, count, was_down = pair.now, len(pair.bob.events), far._terms.admin.peer
        until = far._terms.pause.until
        if verb in ("pause", "admin"):
            version = version % 255 + 1
            told: dict[str, Any] = {"pause_ms" if verb == "pause" else verb: values[0]}
            last = Options(**told)
            say(pair, version, last)
        elif verb == "repeat":
            version = version % 255 + 1
            say(pair, version, last)
        elif verb == "restart":
            reconnect(pair)
            pair.run(2 * S)
            assert pair.far is far
            version = 0
            note(before)
        else:
            pair.run(values[0] * MS)
            note(before)
    assert most_within(paused, 3600 * S) <= PAUSE_SUM * S
    assert most_within(taken_down, 86_400 * S) <= ADMIN_SUM * S + 1
