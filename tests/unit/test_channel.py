"""core/channel: what one set of keys counts, and what a frame says about mine."""

import pytest

from kaudp.core.channel import OLD_PACKET_AGE, PACKET_NUMBER_LIMIT, Channel, Evidence, Said
from kaudp.errors import DropReason, Refused
from kaudp.events import State
from kaudp.wire import codec
from kaudp.wire.codec import Body, Options
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import NO_KEYS
from tests.worlds import MS, S

US = 1000
SAID = Said(State.UP, 1, 2, 3, 4)
BIRTH = 5 * S


def channel(now: int = BIRTH) -> Channel:
    return Channel(b"myself--", b"thepeer-", NO_KEYS, now)


def read(frame: bytes) -> tuple[codec.TransportHeader, Body]:
    header = codec.parse_transport_header(frame)
    return header, codec.parse_body(header.type, frame[20:])


def body(**fields: int) -> Body:
    return Body(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)._replace(**fields)


def arrive(at: Channel, number: int, now: int, **fields: int) -> tuple[Body, bool]:
    header = codec.TransportHeader(FrameType.PROBE, fields.pop("flags", 0), at.local_id, number)
    return at.accept(header, codec.build_body(body(**fields)), now)


def test_a_new_channel_has_heard_and_said_nothing() -> None:
    """KA-3.7-3 KA-4.4-2: echo and hold are 0 without a frame; numbers begin at 1."""
    mine = channel()
    header, said = read(mine.build(FrameType.PROBE, SAID, BIRTH + 7 * MS))
    assert header == (FrameType.PROBE, 0, b"thepeer-", 1)
    assert said == Body(1, 1, 2, 3, 7000, 0, 0, 0, 0, 4)
    assert (mine.last_sent, mine.confirmed, mine.peer_highest, mine.peer_count) == (1, 0, 0, 0)
    assert mine.steady_frame_bytes == 48


def test_echo_and_hold_tell_of_the_newest_frame() -> None:
    """KA-3.7-3 KA-10.1-3."""
    mine = channel()
    assert arrive(mine, 4, BIRTH + 10 * MS, sent_time=77)[1]
    assert not arrive(mine, 3, BIRTH + 20 * MS, sent_time=66)[1]
    _, said = read(mine.build(FrameType.REPLY, SAID, BIRTH + 35 * MS + 999))
    assert (said.sent_time, said.echo_time, said.hold_time) == (35_000, 77, 25_000)
    assert (said.highest_received, said.received_count) == (4, 2)


def test_times_wrap_and_a_hold_does_not() -> None:
    """KA-3.7-3: `sent_time` is modulo 2^32, `hold_time` stops there."""
    mine = channel()
    arrive(mine, 1, BIRTH, sent_time=5)
    for beyond, sent, held in ((-1, 2**32 - 1, 2**32 - 1), (0, 0, 2**32 - 1), (9, 9, 2**32 - 1)):
        _, said = read(mine.build(FrameType.PROBE, SAID, BIRTH + (2**32 + beyond) * US))
        assert (said.sent_time, said.hold_time) == (sent, held)


def test_only_the_newest_frame_tells_what_the_peer_has() -> None:
    """KA-10.1-3."""
    mine = channel()
    for _ in range(9):
        mine.build(FrameType.PROBE, SAID, BIRTH)
    arrive(mine, 5, BIRTH, highest_received=9, received_count=8)
    arrive(mine, 2, BIRTH, highest_received=3, received_count=3)
    assert (mine.peer_highest, mine.peer_count) == (9, 8)


@pytest.mark.parametrize(
    ("number", "fields", "reason", "says"),
    [
        (0, {}, DropReason.MALFORMED, "packet number 0"),
        (2**32, {}, DropReason.MALFORMED, "packet number 4294967296"),
        (2, {"flags": 1}, DropReason.RESERVED_FLAG, "0x01"),
        (2, {"flags": 0x80}, DropReason.RESERVED_FLAG, "0x80"),
        (2, {"state": 7}, DropReason.MALFORMED, "state 7"),
        (2, {"highest_received": 4}, DropReason.ACK_OF_UNSENT, "4"),
        (1, {}, DropReason.REPLAY, "1"),
    ],
)
def test_what_is_refused_after_its_tag(
    number: int, fields: dict[str, int], reason: DropReason, says: str
) -> None:
    """KA-3.6-3 KA-3.6-4 KA-3.7-1 KA-3.7-2 KA-5.1-1: consumed, and it says why."""
    mine = channel()
    for _ in range(3):
        mine.build(FrameType.PROBE, SAID, BIRTH)
    arrive(mine, 1, BIRTH, highest_received=3)
    with pytest.raises(Refused) as refused:
        arrive(mine, number, BIRTH, **fields)
    assert refused.value.reason is reason
    assert refused.value.consumed
    assert str(refused.value) == f"{reason.value}: {says}"


@pytest.mark.parametrize("number", [1, 2**32 - 1])
def test_legal_packet_numbers(number: int) -> None:
    """KA-3.6-4."""
    assert arrive(channel(), number, BIRTH)[1]


def test_evidence_is_dated_at_the_sending_of_what_it_confirms() -> None:
    """KA-7.1-3 KA-10.1-1: 100 ms on the way there and back, 30 of them held."""
    mine = channel()
    mine.build(FrameType.PROBE, SAID, BIRTH + 50 * MS)
    now = BIRTH + 150 * MS
    said = body(echo_time=50_000, hold_time=30_000, highest_received=1)
    assert mine.evidence(FrameType.REPLY, said, now) == Evidence(
        1, BIRTH + 50 * MS, 70 * MS, 100 * MS, is_new=True, fresh_number=True
    )
    again = mine.evidence(FrameType.PROBE, said, now)
    assert again == Evidence(
        1, BIRTH + 50 * MS, 70 * MS, 70 * MS, is_new=False, fresh_number=True
    ), "a probe was held for as long as its sender liked"
    assert mine.confirmed == 1


def test_a_frame_that_confirms_nothing_is_no_evidence() -> None:
    """KA-7.1-3."""
    assert channel().evidence(FrameType.PROBE, body(), BIRTH) is None


def test_an_older_confirmation_is_not_new() -> None:
    """KA-7.2-3."""
    mine = channel()
    for _ in range(3):
        mine.build(FrameType.PROBE, SAID, BIRTH)
    news = [
        mine.evidence(FrameType.REPLY, body(highest_received=number), BIRTH).is_new
        for number in (2, 1, 2, 3)
    ]
    assert news == [True, False, False, True]
    assert mine.confirmed == 3


@pytest.mark.parametrize("hold", [2**32 - 1, 200_001])
def test_a_hold_that_cannot_be_gives_no_round_trip_time(hold: int) -> None:
    """KA-10.1-1: the response time then is all there is."""
    mine = channel()
    mine.build(FrameType.PROBE, SAID, BIRTH)
    said = body(hold_time=hold, highest_received=1)
    found = mine.evidence(FrameType.PROBE, said, BIRTH + 200 * MS)
    assert (found.rtt, found.response_time) == (None, 200 * MS)
    whole = body(hold_time=200_000, highest_received=1)
    assert mine.evidence(FrameType.PROBE, whole, BIRTH + 200 * MS).rtt == 0


def test_a_date_is_found_across_the_wrap() -> None:
    """KA-7.1-3: the latest whole microsecond that `sent_time` shows so."""
    mine = channel()
    sent = BIRTH + (2**32 - 10) * US
    mine.build(FrameType.PROBE, SAID, sent)
    said = body(echo_time=2**32 - 10, highest_received=1)
    found = mine.evidence(FrameType.REPLY, said, sent + 50 * US + 999)
    assert (found.date, found.response_time) == (sent, 50 * US)


def test_what_was_sent_20_minutes_ago_is_too_old() -> None:
    """KA-7.2-2: at 20 minutes it may still count or not, at 40 it must not."""
    mine = channel()
    mine.build(FrameType.PROBE, SAID, BIRTH)
    said = body(highest_received=1)
    assert mine.evidence(FrameType.REPLY, said, BIRTH + OLD_PACKET_AGE - 1).fresh_number
    assert not mine.evidence(FrameType.REPLY, said, BIRTH + OLD_PACKET_AGE).fresh_number


def test_old_numbers_are_known_also_while_newer_ones_go_out() -> None:
    """KA-7.2-2: a side keeps enough to know that to within 20 minutes."""
    mine = channel()
    minute, sent_at = 60 * S, {}
    for number in range(1, 91):
        now = BIRTH + number * minute
        mine.build(FrameType.PROBE, SAID, now)
        sent_at[number] = now
    now = BIRTH + 90 * minute
    for number, at in sent_at.items():
        fresh = mine.evidence(FrameType.REPLY, body(highest_received=number), now).fresh_number
        if now - at < OLD_PACKET_AGE:
            assert fresh, number
        if now - at >= 2 * OLD_PACKET_AGE:
            assert not fresh, number


def test_numbers_run_out() -> None:
    """KA-4.4-3."""
    mine = channel()
    mine.last_sent = PACKET_NUMBER_LIMIT - 1
    assert not mine.exhausted
    mine.build(FrameType.PROBE, SAID, BIRTH)
    assert mine.exhausted


def test_options_go_with_the_frame() -> None:
    """KA-3.8-5."""
    frame = channel().build(FrameType.CLOSE, SAID, BIRTH, Options(close_reason=9))
    assert read(frame)[1].options == Options(close_reason=9)


def test_a_first_frame_that_comes_late_is_not_old() -> None:
    """KA-7.2-2: 20 minutes count from its sending, not from the keys."""
    mine = channel()
    now = BIRTH + OLD_PACKET_AGE + S
    mine.build(FrameType.PROBE, SAID, now)
    assert mine.evidence(FrameType.REPLY, body(highest_received=1), now + S).fresh_number
