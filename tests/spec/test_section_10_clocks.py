"""Section 10.3: clocks that differ and drift, and the delays of each direction."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.core.clocks import ClockOffset, DelayVariation, Exchange
from kaudp.core.endpoint import Endpoint
from kaudp.core.session import Session
from kaudp.events import State
from kaudp.sim import Conditions, Node, World
from kaudp.sim.world import Kind, Step
from kaudp.units import SECOND
from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, MS, S, of_type

US = 1_000
UTC = 1_780_000_000 * SECOND
WRAP = (1 << 32) * US


class Drifting:
    """An endpoint whose clock starts elsewhere and runs at another rate than the world's."""

    def __init__(self, endpoint: Endpoint, start: int, ppm: int) -> None:
        self._endpoint = endpoint
        self._start = start
        self._ppm = ppm

    def local(self, now: int) -> int:
        return self._start + now + now * self._ppm // 1_000_000

    def next_timer(self) -> int | None:
        at = self._endpoint.next_timer()
        if at is None:
            return None
        now = (at - self._start) * 1_000_000 // (1_000_000 + self._ppm)
        while self.local(now) < at:
            now += 1
        return now

    def receive_datagram(self, data: bytes, addr: Any, now: int) -> bool:
        return self._endpoint.receive_datagram(data, addr, self.local(now))

    def handle_timer(self, now: int) -> None:
        self._endpoint.handle_timer(self.local(now))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._endpoint, name)


class Clocks:
    """alice connects to bob; both tell the time of day of clocks of their own."""

    def __init__(
        self,
        seed: object = 1,
        *,
        ahead: int = 0,
        starts: tuple[int, int] = (0, 0),
        ppm: tuple[int, int] = (0, 0),
        share: tuple[bool, bool] = (True, True),
        alice: Config | None = None,
        bob: Config | None = None,
        out: Conditions | None = None,
        home: Conditions | None = None,
    ) -> None:
        self.world = World(seed)
        configs = (alice or Config.wan(), bob or Config.server())
        self.alice = self._node("alice", configs[0], starts[0], ppm[0], share[0], UTC)
        self.bob = self._node("bob", configs[1], starts[1], ppm[1], share[1], UTC + ahead)
        self.world.link("alice", "bob").conditions = out or Conditions()
        self.world.link("bob", "alice").conditions = home or Conditions()
        self.session: Session = self.alice.endpoint.connect(
            self.bob.address, self._local(self.alice), key_id=KEY.key_id
        )

    def _node(self, name: str, config: Config, start: int, ppm: int, share: bool, utc: int) -> Node:
        node = self.world.add_node(name, config, KEY, address=(f"192.0.2.{len(name)}", 1000))
        endpoint = Endpoint(
            replace(config, share_clock=share),
            keys=KEY,
            rng=Random(f"{self.world.seed}/{name}/jitter"),
            entropy=Random(f"{self.world.seed}/{name}/entropy").randbytes,
            accept=True,
            utc_offset=utc - start,
        )
        node.endpoint = Drifting(endpoint, start, ppm)  # type: ignore[assignment]
        return node

    def _local(self, node: Node) -> int:
        endpoint: Any = node.endpoint
        return int(endpoint.local(self.world.now))

    @property
    def far(self) -> Session:
        (session,) = self.bob.endpoint.sessions
        return session

    def time_of_day(self, node: Node) -> int:
        utc = node.endpoint._context.identity.utc_offset
        assert utc is not None
        return self._local(node) + utc

    def run(self, duration: int) -> "Clocks":
        self.world.run_for(duration)
        return self

    def assert_true(self, elapsed: int = 0) -> None:
        """The truth is within what is told, by what clocks may drift since the last sample."""
        truth = self.time_of_day(self.bob) - self.time_of_day(self.alice)
        for session, offset in ((self.session, truth), (self.far, -truth)):
            stats = session.stats
            assert stats.clock_offset is not None
            assert stats.clock_error is not None
            drifted = elapsed * 200 // 1_000_000
            assert abs(stats.clock_offset - offset) <= stats.clock_error + drifted


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    ahead=st.integers(-(10**18), 10**18),
    starts=st.tuples(st.integers(0, 10**18), st.integers(0, 10**18)),
    ppm=st.tuples(st.integers(-100, 100), st.integers(-100, 100)),
    delays=st.tuples(st.integers(MS, 2 * S), st.integers(MS, 2 * S)),
    spreads=st.tuples(st.integers(0, S), st.integers(0, S)),
    loss=st.sampled_from([0.0, 0.3]),
)
def test_the_truth_is_within_the_error(
    seed: int,
    ahead: int,
    starts: tuple[int, int],
    ppm: tuple[int, int],
    delays: tuple[int, int],
    spreads: tuple[int, int],
    loss: float,
) -> None:
    """KA-10.3-1: for any delays of the two directions, clocks 100 ppm off each, after any loss."""
    out, home = (
        Conditions(delay=delay, spread=spread, loss=loss)
        for delay, spread in zip(delays, spreads, strict=True)
    )
    clocks = Clocks(seed, ahead=ahead, starts=starts, ppm=ppm, out=out, home=home)
    checked = 0
    for _ in range(20):
        clocks.run(7 * S)
        if clocks.bob.endpoint.sessions and clocks.session.state is State.UP:
            sessions = (clocks.session, clocks.far)
            if all(s.stats.clock_offset is not None for s in sessions):
                clocks.assert_true(elapsed=140 * S)
                checked += 1
    assert checked or loss  # of which the handshake may have died


def test_the_error_is_half_of_the_best_round_trip() -> None:
    """KA-10.3-1: and the middle is off by half of what the two delays differ by.

    200 ppm of the round trip are 8 us, and 2 us are for rounding.
    """
    clocks = Clocks(ahead=7 * S, out=Conditions(delay=30 * MS), home=Conditions(delay=10 * MS))
    clocks.run(3 * S)
    stats = clocks.session.stats
    clocks.run(8 * S).assert_true()
    assert stats.clock_offset is not None
    assert stats.clock_error is not None
    assert abs(stats.clock_offset - (7 * S + 10 * MS)) <= (8 // 2 + 2) * US
    assert abs(stats.clock_error - 20 * MS) <= (8 // 2 + 2) * US


def test_a_quicker_round_trip_narrows_and_time_widens() -> None:
    """KA-10.3-1: 200 ppm of the age at both ends, and cut anew by each sample."""
    clocks = Clocks(out=Conditions(delay=2 * MS), home=Conditions(delay=2 * MS))
    clocks.run(3 * S)
    narrow = clocks.session.stats.clock_error
    slow = Conditions(delay=300 * MS)
    clocks.world.link("alice", "bob").conditions = slow
    clocks.world.link("bob", "alice").conditions = slow
    clocks.run(200 * S)
    widened = clocks.session.stats.clock_error
    assert narrow is not None
    assert widened is not None
    assert narrow + 190 * S * 200 // 10**6 <= widened <= narrow + 205 * S * 200 // 10**6
    clocks.assert_true()


def test_the_interval_as_it_is_cut() -> None:
    """KA-10.3-1: the arithmetic alone, with what has nothing in common at the end."""
    clock = ClockOffset()
    assert (clock.offset, clock.error) == (None, None)
    clock.sample(Exchange(0, 1_000_000, 1_000_000, 400_000))
    # 600000 and 1000000, wider by 2000; the upper end is 400 us old: 80.
    assert (clock.offset, clock.error) == (800_040, 202_040)
    clock.sample(Exchange(5_000_000, 5_900_000, 5_900_000, 5_400_000))
    # 5 ms later: [598000 - 1000, 1002080 + 1000] and [498000, 902080]
    assert (clock.offset, clock.error) == ((597_000 + 902_080) // 2, (902_080 - 597_000 + 1) // 2)
    clock.sample(Exchange(6_000_000, 9_000_000, 9_000_000, 6_000_000))
    assert (clock.offset, clock.error) == (3_000_000, 2_000)


def test_a_clock_that_was_set_is_followed() -> None:
    """KA-10.3-1: where the intervals have nothing in common the newest counts."""
    clocks = Clocks(out=Conditions(delay=5 * MS), home=Conditions(delay=5 * MS)).run(20 * S)
    endpoint: Any = clocks.bob.endpoint
    endpoint._start += 3 * S
    clocks.run(20 * S)
    assert clocks.session.stats.clock_offset == pytest.approx(3 * S, abs=5 * MS)


@pytest.mark.parametrize("share", [(True, False), (False, True), (False, False)])
def test_the_offset_is_told_where_both_share(share: tuple[bool, bool]) -> None:
    """KA-10.3-2: one alone tells, and learns, nothing."""
    clocks = Clocks(share=share).run(20 * S)
    for session in (clocks.session, clocks.far):
        assert session.state is State.UP
        assert session.stats.round_trips
        assert (session.stats.clock_offset, session.stats.clock_error) == (None, None)
        assert session.stats.delay_variation_out is not None


@pytest.mark.parametrize("share", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("family", ["4", "6"])
def test_a_response_with_a_clock_is_not_longer_than_its_init(
    share: tuple[bool, bool], family: str
) -> None:
    """KA-10.3-2 KA-4.3-1: a responder tells its clock to one that told its own."""
    clocks = Clocks(share=share)
    if family == "6":
        clocks.world.move(clocks.alice, ("2001:db8::1", 1000))
    clocks.run(S)
    ((_, init, _),) = of_type(clocks.alice, FrameType.INIT)
    ((_, response, _),) = of_type(clocks.bob, FrameType.RESPONSE)
    assert len(response) <= len(init)
    assert len(init) == (142 if share[0] else 132)
    seen = 9 if family == "4" else 21
    assert len(response) == 100 + seen + (10 if share == (True, True) else 0)


def test_times_of_32_bits_go_round() -> None:
    """KA-10.3-1: after 71 and after 143 minutes, with clocks that began in the middle."""
    clocks = Clocks(ahead=-5 * S, starts=(3 * 10**15, 17), ppm=(100, -100))
    last = clocks.run(60 * S).session.stats.clock_offset
    for _ in range(5):
        clocks.run(WRAP // 2)
        clocks.assert_true(elapsed=10 * S)
        offset = clocks.session.stats.clock_offset
        assert offset is not None
        assert last is not None
        assert offset < last  # bob's runs slower
        last = offset
    assert clocks.session.stats.handshakes == 1


def test_new_keys_begin_anew() -> None:
    """KA-10.3-1: other instants to count from, and the samples of the old keys forgotten."""
    clocks = Clocks(ahead=9 * S, out=Conditions(delay=2 * MS), home=Conditions(delay=2 * MS))
    clocks.run(10 * S)
    slow = Conditions(delay=150 * MS)
    clocks.world.link("alice", "bob").conditions = slow
    clocks.world.link("bob", "alice").conditions = slow
    clocks.session._begin_attempt(clocks._local(clocks.alice))
    clocks.run(8 * S)
    assert clocks.session.stats.handshakes == 2
    clocks.assert_true()
    error = clocks.session.stats.clock_error
    assert error is not None
    assert error >= 150 * MS


def test_a_hold_is_no_part_of_the_round_trip() -> None:
    """KA-10.3-1: the responder's view, from probes that come seconds after its replies."""
    clocks = Clocks(ahead=S, out=Conditions(delay=3 * MS), home=Conditions(delay=3 * MS))
    clocks.run(30 * S)
    error = clocks.far.stats.clock_error
    assert error is not None
    assert error <= 3 * MS + 6 * S * 200 // 10**6
    clocks.assert_true()


@pytest.mark.parametrize("minutes", [19, 21, 37, 60, 80, 140])
def test_a_frame_that_was_hoarded_misleads_nobody(minutes: int) -> None:
    """KA-10.3-1 KA-7.2-2: its times have gone round meanwhile."""
    clocks = Clocks(ahead=5 * S, alice=Config.wan(nat_keepalive_ms=None))
    clocks.run(20 * S)
    clocks.world.cut("bob", "alice")
    count = len(of_type(clocks.bob, FrameType.REPLY))
    while len(of_type(clocks.bob, FrameType.REPLY)) == count:
        clocks.run(100 * MS)
    _, reply, _ = of_type(clocks.bob, FrameType.REPLY)[count]
    clocks.world.cut("alice", "bob")
    clocks.run(minutes * 60 * S)
    clocks.world.inject(clocks.alice, reply, clocks.bob.address)
    stats = clocks.session.stats
    assert stats.clock_offset is not None
    assert stats.clock_error is not None
    assert abs(stats.clock_offset - 5 * S) <= stats.clock_error


@pytest.mark.parametrize("ppm", [(95, -95), (-95, 95)])
def test_clocks_drift_while_a_frame_is_held(ppm: tuple[int, int]) -> None:
    """KA-10.3-1: bob learns of probes a minute apart, each of which confirms a frame of before."""
    slow = Config.wan(interval_ms=60_000, nat_keepalive_ms=None)
    clocks = Clocks(ppm=ppm, alice=slow, out=Conditions(delay=20 * MS), home=Conditions(delay=MS))
    told = []

    def watch(step: Step) -> None:
        if step.node is clocks.bob and step.kind is Kind.DATAGRAM and clocks.bob.endpoint.sessions:
            stats = clocks.far.stats
            truth = clocks.time_of_day(clocks.alice) - clocks.time_of_day(clocks.bob)
            if stats.clock_offset is not None and stats.clock_error is not None:
                told.append(abs(stats.clock_offset - truth) <= stats.clock_error)

    clocks.world.watchers.append(watch)
    clocks.run(1200 * S)
    assert len(told) > 20
    assert all(told)


@pytest.mark.parametrize("minutes", [19, 30, 37, 60, 80])
def test_a_frame_that_waited_long_misleads_nobody_afterwards(minutes: int) -> None:
    """KA-10.3-1: it is no sample, and the times of those that follow are as whole as before."""
    patient = Config.server(down_retention_ms=7_200_000)
    clocks = Clocks(ahead=5 * S, alice=Config.wan(nat_keepalive_ms=None), bob=patient)
    clocks.run(20 * S)
    count = len(of_type(clocks.bob, FrameType.REPLY))
    while len(of_type(clocks.bob, FrameType.REPLY)) == count:
        clocks.run(MS)
    clocks.world.stall(clocks.alice, minutes * 60 * S)
    clocks.run((minutes + 5) * 60 * S)
    assert clocks.session.stats.handshakes == 1
    clocks.assert_true(elapsed=10 * S)


def test_delay_variation_is_told_for_each_direction() -> None:
    """KA-10.3-3: the direction that jitters shows, the other one does not."""
    clocks = Clocks(
        share=(False, False),
        starts=(10**15, 5),
        out=Conditions(delay=20 * MS, spread=40 * MS),
        home=Conditions(delay=20 * MS),
    ).run(1800 * S)
    near, far = clocks.session.stats, clocks.far.stats
    assert near.delay_variation_out is not None
    assert near.delay_variation_in is not None
    assert far.delay_variation_out is not None
    assert far.delay_variation_in is not None
    # The difference of two uniform draws of 40 ms is 13.3 ms on the average.
    assert 7 * MS <= near.delay_variation_out <= 20 * MS
    assert 7 * MS <= far.delay_variation_in <= 20 * MS
    assert near.delay_variation_in <= 20 * US
    assert far.delay_variation_out <= 20 * US


def test_delay_variation_by_the_formula() -> None:
    """KA-10.3-3 KA-10.1-2: j + (|d| - j) div 16, rounded down also below zero."""
    variation = DelayVariation()
    means = []
    for transit in (-1_000, 600, 600, 590, -10_000):
        variation.sample(transit)
        means.append(variation.mean)
    assert means == [None, 100, 93, 87, 743]
