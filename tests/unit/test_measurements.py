"""core/measurements: what outlives the keys of a session and what does not."""

from types import SimpleNamespace
from typing import Any

from kaudp.core.channel import OLD_PACKET_AGE, Channel, Evidence, Said
from kaudp.core.measurements import Measurements
from kaudp.core.stats import Stats
from kaudp.events import State
from kaudp.wire import codec
from kaudp.wire.codec import Body
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import NO_KEYS
from tests.worlds import MS, S

SAID = Said(State.UP, 0, 0, 0, 0)
RTT = 40 * MS


def channel(now: int = 0) -> Channel:
    return Channel(b"myself--", b"thepeer-", NO_KEYS, now)


def heard(
    mine: Channel, now: int, sent_time: int, hold_time: int = 0, rtt: int = RTT
) -> tuple[Body, Evidence | None]:
    """Let mine send a frame and, a round trip and a hold (us) later, hear the answer to it."""
    mine.build(FrameType.PROBE, SAID, now - rtt - hold_time * 1000)
    number = mine.last_sent
    echo = (now - rtt) // 1000 - hold_time
    body = Body(3, 0, 0, 0, sent_time, echo, hold_time, number, number, 0)
    header = codec.TransportHeader(FrameType.REPLY, 0, mine.local_id, number)
    body, _ = mine.accept(header, codec.build_body(body), now)
    return body, mine.evidence(FrameType.REPLY, body, now)


def stats(made: Measurements, *, counts_loss: bool = True) -> Stats:
    live: Any = SimpleNamespace(
        state=State.UP,
        peer_state=State.DOWN,
        interval=S,
        pto=MS,
        suspicions=1,
        stalls=2,
        rx_at=3,
        round_trip_at=4,
        response_time=SimpleNamespace(smoothed=5),
    )
    return made.stats(live, unreachable=False, counts_loss=counts_loss)


def test_before_any_keys_there_is_nothing_to_tell() -> None:
    """KA-10.1-3 KA-10.3-2."""
    told = stats(Measurements())
    assert (told.received, told.lost_out, told.lost_in, told.handshakes, told.key_phase) == (0,) * 5
    assert (told.loss_out, told.loss_in, told.clock_offset, told.clock_error) == (None,) * 4
    assert (told.delay_variation_out, told.delay_variation_in) == (None, None)


def test_what_the_judge_knows_is_told_as_it_is() -> None:
    """KA-10.1-3."""
    told = stats(Measurements())
    assert (told.state, told.peer_state, told.unreachable) == (State.UP, State.DOWN, False)
    assert (told.interval, told.probe_timeout, told.rtt_smoothed) == (S, MS, 5)
    assert (told.suspicions, told.stalls, told.rx_at, told.round_trip_at) == (1, 2, 3, 4)
    trips = (told.round_trips, told.rtt_latest, told.rtt_min, told.rtt_mean, told.rtt_max)
    assert trips == (0, None, None, None, None)
    made = Measurements()
    for rtt in (4 * MS, 2 * MS, 3 * MS):
        made.round_trips.sample(rtt)
    told = stats(made)
    trips = (told.round_trips, told.rtt_latest, told.rtt_min, told.rtt_mean, told.rtt_max)
    assert trips == (3, 3 * MS, 2 * MS, 3 * MS, 4 * MS)
    assert told.jitter == made.round_trips.jitter > 0


def test_an_offset_is_told_where_both_told_their_clocks() -> None:
    """KA-10.3-1 KA-10.3-2: the peer's times lie in the middle of the round trip."""
    for own, peer in ((None, 9), (9, None), (None, None)):
        made, mine = Measurements(), channel()
        made.new_keys(mine, own, peer)
        made.learn(*heard(mine, S, 980_000), S)
        assert (stats(made).clock_offset, stats(made).clock_error) == (None, None)
    made, mine = Measurements(), channel()
    made.new_keys(mine, 2_000_000, 5_000_000)
    assert stats(made).clock_offset is None, "without a round trip nothing is known"
    made.learn(*heard(mine, S, 980_000), S)
    told = stats(made)
    drift = RTT * 200 // 1_000_000
    assert told.clock_offset == 3 * S + drift // 2
    assert told.clock_error == RTT // 2 + 2_000 + drift // 2


def test_a_frame_that_proves_nothing_new_is_not_learned_from() -> None:
    """KA-10.3-1 KA-7.2-2: nor one whose round trip took 20 minutes."""
    for change in (
        {"is_new": False},
        {"fresh_number": False},
        {"rtt": None},
        {"rtt": OLD_PACKET_AGE},
    ):
        made, mine = Measurements(), channel()
        made.new_keys(mine, 0, 0)
        body, evidence = heard(mine, S, 980_000)
        assert evidence is not None
        made.learn(body, evidence._replace(**change), S)
        made.learn(body, None, S)
        assert stats(made).clock_offset is None
        made.learn(body, evidence._replace(rtt=OLD_PACKET_AGE - 1), S)
        assert stats(made).clock_offset == RTT * 200 // 1_000_000 // 2


def test_each_direction_varies_for_itself() -> None:
    """KA-10.3-3."""
    made, mine = Measurements(), channel()
    made.new_keys(mine, None, None)
    made.learn(*heard(mine, S, 980_000), S)
    made.learn(*heard(mine, 2 * S, 1_964_000), 2 * S)
    told = stats(made)
    assert (told.delay_variation_out, told.delay_variation_in) == (MS, MS), "a 16th of 16 ms"
    made.learn(*heard(mine, 3 * S, 2_980_000, 7_000, rtt=60 * MS), 3 * S)
    told = stats(made)
    assert told.delay_variation_in == MS + (16 * MS - MS) // 16
    assert told.delay_variation_out == MS + (36 * MS - MS) // 16


def test_new_keys_count_on_but_measure_clocks_anew() -> None:
    """KA-10.1-3 KA-10.3-2."""
    made, mine = Measurements(), channel()
    made.new_keys(mine, 1, 1)
    made.sent = 7
    for at in (1, 2, 3):
        made.learn(*heard(mine, at * S, at * 1_000_000 - 20_000), at * S)
    mine.peer_count = 2
    told = stats(made)
    assert (told.handshakes, told.received, told.unreported) == (1, 3, 4)
    assert (told.lost_out, told.loss_out, told.loss_in) == (1, 1 / 3, 0)
    made.new_keys(channel(4 * S), None, None)
    told = stats(made)
    assert (told.handshakes, told.received, told.unreported, told.lost_out) == (2, 3, 4, 1)
    assert (told.clock_offset, told.delay_variation_in, told.delay_variation_out) == (None,) * 3
    assert stats(made) == told, "to look changes nothing"


def test_inside_quic_loss_is_not_told() -> None:
    """KA-14.3-5."""
    made, mine = Measurements(), channel()
    made.new_keys(mine, None, None)
    made.learn(*heard(mine, S, 980_000), S)
    told = stats(made, counts_loss=False)
    assert (told.loss_out, told.loss_in) == (None, None)
    assert (told.lost_out, told.lost_in) == (0, 0)
