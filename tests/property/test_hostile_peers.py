"""Properties of what others can make a side do: amplification, the probe budget, hoarded frames."""

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.core.paths import AMPLIFICATION
from kaudp.core.session import Session
from kaudp.events import SessionUp, State
from kaudp.units import MAX_UINT32, MICROSECOND
from kaudp.wire import codec
from kaudp.wire.codec import NO_OPTIONS, Options, Parameters
from kaudp.wire.grammar import FrameType
from tests.lives import reconnect
from tests.property.test_worlds import BURSTS, PRESETS, SEEDS
from tests.worlds import MS, Pair, S, forge, of_type

VICTIMS = [("198.51.100.66", port) for port in range(1, 4)]
Action = tuple[Any, ...]
NOT_LIVE = (State.CONNECTING, State.CLOSED)

# Amplification

FORWARDED = st.lists(
    st.one_of(
        st.tuples(st.just("forward"), st.sampled_from(VICTIMS), st.integers(0, 3)),
        st.tuples(st.just("newest"), st.sampled_from(VICTIMS), st.sampled_from([None, 0, 60])),
        st.tuples(st.just("replay"), st.sampled_from(VICTIMS), st.integers(0, 10**6)),
        st.tuples(st.just("init"), st.sampled_from(VICTIMS)),
        st.tuples(st.just("damage"), st.sampled_from(VICTIMS), st.integers(0, 10**6)),
        st.tuples(st.just("handshake")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("cut"), st.booleans()),
        st.tuples(st.just("control")),
        st.tuples(st.just("run"), st.sampled_from([1, 25, 100, 3_000, 20_000, 60_000])),
    ),
    min_size=3,
    max_size=40,
)


class OnPath:
    """Somebody between alice and bob, with an account of what each victim gave bob."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.given_by: dict[Any, int] = dict.fromkeys(VICTIMS, 0)

    def hand(self, data: bytes, source: Any) -> None:
        self.given_by[source] += len(data)
        self.pair.world.inject(self.pair.bob, data, source)

    def forward(self, source: Any, count: int) -> None:
        """Let frames arrive from elsewhere before they arrive themselves."""
        for at, data, _ in self.pair.alice.sent[-1 - count :]:
            if at + 20 * MS > self.pair.now and data[1] != FrameType.INIT:
                self.hand(data, source)

    def newest(self, source: Any, pad: int | None) -> None:
        if self.pair.session.state not in NOT_LIVE:
            padded = NO_OPTIONS if pad is None else Options(pad=pad)
            self.hand(forge(self.pair.session, FrameType.PROBE, self.pair.now, padded), source)

    def replay(self, source: Any, number: int) -> None:
        sent = self.pair.alice.sent
        self.hand(sent[number % len(sent)][1], source)

    def damage(self, source: Any, number: int) -> None:
        """What does not verify gives nothing."""
        sent = self.pair.alice.sent
        data = bytearray(sent[number % len(sent)][1])
        data[-1] ^= 1
        self.pair.world.inject(self.pair.bob, bytes(data), source)

    def init(self, source: Any) -> None:
        self.hand(of_type(self.pair.alice, FrameType.INIT)[-1][1], source)

    def handshake(self) -> None:
        if self.pair.session.state not in NOT_LIVE:
            self.pair.session._begin_attempt(self.pair.now)
            self.pair.run(0)

    def restart(self) -> None:
        reconnect(self.pair)
        self.pair.run(0)

    def cut(self, cut: bool) -> None:
        self.pair.cut(cut=cut)

    def control(self) -> None:
        for far in self.pair.bob.endpoint.sessions:
            far.pause(100 * MS, self.pair.now)

    def run(self, milliseconds: int) -> None:
        self.pair.run(milliseconds * MS)


@settings(max_examples=100, deadline=None)
@given(SEEDS, FORWARDED)
def test_an_address_that_is_not_validated_gets_three_times_what_it_gave(
    seed: int, plot: list[Action]
) -> None:
    """KA-9.1-3: forwarded, replayed and copied frames and INITs; counted outside of the core."""
    pair = Pair(seed).up()
    on_path = OnPath(pair)
    for verb, *values in [*plot, ("run", 60_000)]:
        getattr(on_path, verb)(*values)
        for victim in VICTIMS:
            if at_home(pair, victim):
                return  # who copies INIT and the first PROBE from there: section 15
            got = sum(len(data) for _, data, to in pair.bob.sent if to == victim)
            assert got <= AMPLIFICATION * on_path.given_by[victim]


def at_home(pair: Pair, victim: Any) -> bool:
    return any(session.address == victim for session in pair.bob.endpoint.sessions)


# The budget


def lie(
    session: Session, frame_type: FrameType, now: int, options: Options, said: dict[str, int]
) -> bytes:
    """Seal a frame that says what it likes, also of times and numbers."""
    channel = session._channel
    assert channel is not None
    channel.last_sent += 1
    body = codec.pack_body(
        said["state"],
        0,
        said["control_version"],
        said["control_ack"],
        said["sent_time"],
        said["echo_time"],
        said["hold_time"],
        said["highest_received"],
        0,
        said["address_hash"],
        options,
    )
    flags = channel._keys.flags(now, channel._limits)
    header = codec.build_transport_header(frame_type, channel.remote_id, channel.last_sent, flags)
    return channel._keys.seal(header, channel.last_sent, body)


def drawn_options(rng: Random) -> Options:
    choices: list[Options] = [
        NO_OPTIONS,
        Options(pause_ms=rng.choice([0, 1, 5000])),
        Options(admin=rng.randrange(2)),
        Options(slow_down_us=rng.choice([0, 10_000, 10**6, MAX_UINT32])),
        Options(
            parameters=Parameters(
                rng.choice([1, 10**5, MAX_UINT32]),
                rng.choice([0, 10**5, MAX_UINT32]),
                rng.choice([0, 10**6]),
                rng.choice([1, 3, 64, 65_535]),
                rng.randrange(2),
            )
        ),
        Options(path_challenge=rng.randbytes(8), pad=rng.choice([None, 40])),
        Options(path_response=rng.randbytes(8)),
        Options(next_key=rng.randbytes(16), pause_ms=0),
    ]
    return rng.choice(choices)


def drawn_words(rng: Random, judge: Session, now: int) -> dict[str, int]:
    channel = judge._channel
    assert channel is not None
    own_time = (now - channel._birth) // MICROSECOND & MAX_UINT32
    return {
        "state": rng.randrange(1, 6),
        "control_version": rng.randrange(256),
        "control_ack": rng.choice([judge._terms.control.version, rng.randrange(256)]),
        "sent_time": rng.getrandbits(32),
        "echo_time": rng.choice([own_time, rng.getrandbits(32), max(0, own_time - 10**5)]),
        "hold_time": rng.choice([0, 1, MAX_UINT32, rng.getrandbits(20)]),
        "highest_received": rng.choice([channel.last_sent, rng.randint(0, channel.last_sent)]),
        "address_hash": rng.choice([1, rng.getrandbits(32)]),
    }


@settings(max_examples=60, deadline=None)
@given(
    SEEDS,
    BURSTS,
    PRESETS,
    st.booleans(),
    st.lists(st.integers(0, 2**32), min_size=50, max_size=200),
)
def test_no_peer_makes_a_side_probe_more_than_its_budget(
    seed: int, burst: int, config: Config, by_bob: bool, draws: list[int]
) -> None:
    """KA-7.4-4 KA-9.3-6 KA-8.6-1: it holds the keys, jumps from address to address, and lies."""
    lan = config.interval_ms == 100
    far = Config.lan if lan else Config.server
    changes: dict[str, Any] = {"suspicion_receive_burst": burst}
    pair = Pair(seed, alice=replaced(config, changes), bob=far(**changes)).up()
    liar, judge = (pair.far, pair.session) if by_bob else (pair.session, pair.far)
    node, home = (pair.alice, pair.bob.address) if by_bob else (pair.bob, pair.alice.address)
    pair.cut()
    for draw in draws:
        rng = Random(draw)
        pair.run(rng.choice([0, 1, 20, 300]) * MS)
        if judge.state is State.CLOSED:
            break
        kind = rng.choice([FrameType.PROBE, FrameType.REPLY])
        frame = lie(liar, kind, pair.now, drawn_options(rng), drawn_words(rng, judge, pair.now))
        pair.world.inject(node, frame, rng.choice([home, *VICTIMS]))
    assert_probes_are_bounded(pair, [at for at, _, _ in of_type(node, FrameType.PROBE)], judge)


def replaced(config: Config, changes: dict[str, Any]) -> Config:
    preset = {100: Config.lan, 15_000: Config.mobile}.get(config.interval_ms, Config.wan)
    return preset(**changes)


def assert_probes_are_bounded(pair: Pair, times: list[int], judge: Session) -> None:
    """KA-7.4-4: 64, twice in T of the shortest that the peer may bring about, and what is regular.

    Beside the budget: a probe in 0.75 T, one in suspicion for T without budget, one at a verdict,
    one more in T for control state (a SLOW_DOWN a minute).
    """
    own = judge.parameters
    shortest = own.desired_interval_us if judge.initiator else own.min_receive_interval_us
    interval = max(shortest * MICROSECOND, 10 * MS)
    for window in (S, 10 * S, 100 * S):
        most = 64 + 6 * (window // interval + 1) + 12
        for number, start in enumerate(times):
            later = times[number + most : number + most + 1]
            assert not later or later[0] - start >= window, f"over {most} probes in {window} ns"


# Hoarded frames


@settings(max_examples=25, deadline=None)
@given(
    SEEDS,
    PRESETS,
    st.integers(0, 70),
    st.lists(st.sampled_from(["pause", "intervals", "move", "handshake"]), max_size=3),
    st.integers(0, 200),
    st.randoms(use_true_random=False),
)
def test_what_was_hoarded_revives_nobody(
    seed: int,
    config: Config,
    before: int,
    told: list[str],
    wait: int,
    rng: Random,
) -> None:
    """KA-7.6-2 KA-7.2-1 KA-4.4-8: replies, answers to challenges, acks, of this phase and before.

    bob dies before alice's verdict; all that he ever sent since the last 100 s comes after it.
    """
    phases = {"key_update_interval_ms": 30_000}
    preset = {100: Config.lan, 15_000: Config.mobile}.get(config.interval_ms, Config.wan)
    far = Config.lan if config.interval_ms == 100 else Config.server
    pair = Pair(seed, alice=preset(**phases), bob=far(**phases)).up()
    pair.run(before * S)
    pair.world.cut("bob", "alice")  # from here on all is hoarded
    start = len(pair.bob.sent)
    for verb in told:
        if verb == "pause":
            pair.far.pause(0, pair.now)
        elif verb == "intervals":
            pair.session.change_intervals(pair.now, interval_ms=preset().interval_ms + 1)
        elif verb == "handshake":
            pair.session._begin_attempt(pair.now)
        else:
            probe = forge(pair.far, FrameType.PROBE, pair.now)
            pair.world.inject(pair.alice, probe, VICTIMS[0])
    pair.run_to(State.SUSPECT)
    pair.run(min(rng.randrange(1, 900) * MS, preset().interval_ms * MS))
    pair.cut()
    hoarded = [data for _, data, _ in pair.bob.sent[start:]]
    pair.run_to(State.DOWN)
    pair.run(wait * S)
    if rng.random() < 0.5:
        rng.shuffle(hoarded)
    hoarded.sort(key=lambda data: data[1] == FrameType.RESPONSE)
    count = len(pair.alice.events)
    for data in hoarded:
        if data[1] == FrameType.RESPONSE:  # one that is younger than L would count
            pair.run(pair.session._liveness.longest_wait)
        pair.world.inject(pair.alice, data, rng.choice([pair.bob.address, VICTIMS[0]]))
        pair.run(rng.choice([0, 0, 10]) * MS)
    pair.run(30 * S)
    assert not [e for e in pair.alice.events[count:] if isinstance(e, SessionUp)]
    assert pair.session.state is State.DOWN
