"""Section 10: what a reply tells; and section 11 and 12: bounds and errors."""

import pytest

from kaudp.config import Config, DetectorKind
from kaudp.core.outbox import EventQueue
from kaudp.errors import ConfigError, DropReason
from kaudp.events import RoundTrip, SessionDown, SessionUp, State
from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, MS, Pair, S, forge


def test_round_trips_are_measured_to_the_microsecond() -> None:
    """KA-10.1-1: from replies at one side and from probes at the other."""
    pair = Pair(alice=Config.wan(report_round_trips=True), delay=33 * MS).up()
    pair.run(60 * S)
    rtts = [event.rtt for event in pair.alice.events if isinstance(event, RoundTrip)]
    assert len(rtts) > 10
    assert all(abs(rtt - 66 * MS) <= 2000 for rtt in rtts)
    assert abs(pair.far.stats.rtt_mean - 66 * MS) <= 2000


def test_a_hold_longer_than_the_round_trip_gives_no_sample() -> None:
    """KA-10.1-1: a peer that lies about its hold time misleads nobody but the count."""
    pair = Pair().up()
    pair.far._channel._arrival -= 10 * S
    count = pair.session.stats.round_trips
    reply = forge(pair.far, FrameType.PROBE, pair.now)
    pair.session._channel.confirmed = 0
    pair.world.inject(pair.alice, reply, pair.bob.address)
    assert pair.session.stats.round_trips == count


def test_karns_rule() -> None:
    """KA-10.2-2: a RESPONSE gives a sample only if its INIT was sent once."""
    once, twice = Pair(delay=100 * MS), Pair(delay=300 * MS)
    once.run(201 * MS)
    twice.run(601 * MS)
    assert once.session.state is twice.session.state is State.UP
    assert once.session.stats.rtt_smoothed == 200 * MS
    assert twice.session.stats.rtt_smoothed is None
    assert twice.session.stats.probe_timeout == S


@pytest.mark.parametrize(("out", "home"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.1, 0.25)])
def test_loss_is_told_per_direction(out: float, home: float) -> None:
    """KA-10.1-3: both ends agree. A handshake in suspicion cuts off a tail of lost frames."""
    pair = Pair("loss").up()
    for source, target, loss in (("alice", "bob", out), ("bob", "alice", home)):
        pair.world.link(source, target).conditions = type(
            pair.world.link(source, target).conditions
        )(loss=loss)
    pair.run(4 * 3600 * S)
    near, far = pair.session.stats, pair.far.stats
    assert near.loss_out == pytest.approx(out, abs=0.03)
    assert near.loss_in == pytest.approx(home, abs=0.03)
    assert far.loss_in == pytest.approx(near.loss_out, abs=0.01)
    assert far.loss_out == pytest.approx(near.loss_in, abs=0.01)
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()


# 11. Limits


@pytest.mark.parametrize(
    "changes",
    [
        {"interval_ms": 3_600_000},
        {"multiplier": 255, "max_peer_interval_ms": 60_000},
        {"detector": DetectorKind.DEADLINE, "deadline_ms": 1_800_000, "min_suspicion_ms": 1_000},
    ],
)
def test_a_detection_time_over_half_an_hour_is_refused(changes: dict[str, object]) -> None:
    """KA-11-1."""
    with pytest.raises(ConfigError, match=r"at most 1,800 s"):
        Config.wan(**changes)


@pytest.mark.parametrize("limit", ["max_sessions", "max_sessions_per_key"])
def test_sessions_are_bounded(limit: str) -> None:
    """KA-11-2: a third client is not answered, and is when one has gone."""
    pair = Pair(bob=Config.server(**{limit: 2}))
    nodes = [pair.world.add_node(f"n{i}", Config.wan(), KEY) for i in range(2)]
    sessions = [
        node.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id) for node in nodes
    ]
    pair.run(3 * S)
    up = [s.state is State.UP for s in (pair.session, *sessions)]
    assert sorted(up) == [False, True, True]
    assert len(pair.bob.endpoint.sessions) == 2
    assert pair.bob.endpoint.counters[DropReason.SESSION_LIMIT] >= 1
    pair.bob.endpoint.sessions[0].close(pair.now)
    pair.run(6 * S)
    assert len(pair.bob.endpoint.sessions) == 2


def test_events_are_bounded_and_coalesce() -> None:
    """KA-11-3 KA-11-2: an older one of the same session and kind gives way, else the oldest."""
    queue = EventQueue(3)
    one, two = Pair().session, Pair().session
    down = [SessionDown(one, time, None) for time in range(4)]  # type: ignore[arg-type]
    queue.emit(SessionUp(two, 0, State.DOWN))
    queue.emit(down[0])
    queue.emit(down[1])
    queue.emit(down[2])
    queue.emit(SessionUp(one, 9, State.DOWN))
    assert queue.lost == {"SessionDown": 1, "SessionUp": 1}
    assert [queue.take() for _ in range(4)] == [
        down[1],
        down[2],
        SessionUp(one, 9, State.DOWN),
        None,
    ]


# 12. Errors


def test_every_refusal_is_counted_by_its_reason() -> None:
    """KA-12-1: the vectors go through the endpoint's own door, and none raises."""
    pair = Pair().up()
    for data in (b"", b"\x0b", b"\x0b" * 64, bytes(600), b"\x0b\x08\x81" + bytes(61)):
        assert not pair.bob.endpoint.receive_datagram(data, ("192.0.2.9", 9), pair.now)
    assert pair.bob.endpoint.counters == {
        DropReason.NOT_KAUDP: 4,
        DropReason.UNKNOWN_SESSION: 1,
    }
