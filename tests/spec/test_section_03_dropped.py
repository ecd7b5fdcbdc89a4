"""Section 3: flags that mean nothing, and frames that are dropped after their tag has verified."""

import pytest

from kaudp.config import Config
from kaudp.core.session import Session
from kaudp.errors import DropReason
from kaudp.wire import codec, seal
from kaudp.wire.codec import Body
from kaudp.wire.grammar import KEY_PHASE, FrameType
from tests.worlds import MS, Pair, S, of_type


def sealed(
    session: Session,
    now: int,
    *,
    flags: int = 0,
    state: int = 1,
    highest: int = 0,
    options: bytes = b"",
    frame_type: FrameType = FrameType.PROBE,
) -> bytes:
    """Seal the next frame of a side, as no honest one would."""
    channel = session._channel
    channel.last_sent += 1
    flags |= channel._keys.flags(now, seal.NO_LIMITS)
    header = codec.build_transport_header(frame_type, channel.remote_id, channel.last_sent, flags)
    body = codec.pack_body(state, 0, 0, 0, 0, 0, 0, highest, 0, 0) + options
    return channel._keys.seal(header, channel.last_sent, body)


def newest_body(session: Session, data: bytes) -> Body:
    """Read a frame that this session has sent."""
    number = codec.parse_transport_header(data).packet_number
    plaintext = seal.unseal(session._channel._keys._sending.aead, number, data)
    return codec.parse_body(data[1], plaintext)


def test_the_only_flag_is_the_phase() -> None:
    """KA-3.6-2: in frames of every type, over phases, loss and a close."""
    pair = Pair(loss=0.2, alice=Config.wan(key_update_interval_ms=30_000)).up()
    pair.run(200 * S)
    pair.session.close(pair.now)
    pair.run(S)
    kinds = (FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE)
    frames = [data for node in (pair.alice, pair.bob) for _, data, _ in of_type(node, *kinds)]
    assert {data[1] for data in frames} == set(kinds)
    assert {data[3] & ~KEY_PHASE for data in frames} == {0}


@pytest.mark.parametrize("kind", [FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE])
@pytest.mark.parametrize("bit", range(1, 8))
def test_a_reserved_flag_drops_the_frame(bit: int, kind: FrameType) -> None:
    """KA-3.6-3: consumed, unanswered, counted, and of no effect but for the replay window."""
    pair = Pair().up()
    close = codec.build_options(codec.Options(close_reason=0))
    data = sealed(
        *(pair.session, pair.now),
        flags=1 << bit,
        frame_type=kind,
        options=close if kind is FrameType.CLOSE else b"",
    )
    before = len(pair.bob.sent), pair.far.stats.rx_at, pair.far._channel.newest
    assert pair.world.inject(pair.bob, data, pair.alice.address)
    assert before == (len(pair.bob.sent), pair.far.stats.rx_at, pair.far._channel.newest)
    assert pair.bob.endpoint.counters == {DropReason.RESERVED_FLAG: 1}
    pair.run(20 * S)
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp"]


def test_the_phase_is_no_reserved_flag() -> None:
    """KA-3.6-3 KA-4.4-5: where the tag verifies under the next phase, bit 0 is as it should be."""
    pair = Pair().up()
    keys = pair.session._channel._keys
    keys._sending = keys._sending.following()
    data = sealed(pair.session, pair.now)
    assert data[3] == KEY_PHASE
    assert pair.world.inject(pair.bob, data, pair.alice.address)
    assert not pair.bob.endpoint.counters
    assert pair.far.stats.key_phase == 1


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (DropReason.MALFORMED, {"state": 0}),
        (DropReason.MALFORMED, {"state": 7}),
        (DropReason.MALFORMED, {"options": b"\x05\x02\x00\x00"}),
        (DropReason.MALFORMED, {"options": b"\x03\x09"}),
        (DropReason.UNKNOWN_CRITICAL_OPTION, {"options": b"\x80\x00"}),
        (DropReason.ACK_OF_UNSENT, {"highest": 2**31}),
        (DropReason.RESERVED_FLAG, {"flags": 0x40}),
    ],
)
def test_a_frame_that_was_dropped_is_not_named(reason: DropReason, fault: dict[str, int]) -> None:
    """KA-3.7-3 KA-5.1-2: `highest_received`, with its times, stays; `received_count` goes on.

    Whoever sent a dropped frame takes it for unconfirmed, and takes its times from another.
    """
    pair = Pair().up()
    channel, far = pair.session._channel, pair.far._channel
    good, count = channel.last_sent, far.window.count
    good_at = next(at for at, data, _ in reversed(pair.alice.sent) if data[1] == FrameType.PROBE)
    pair.run(100 * MS)
    for number in range(1, 4):
        data = sealed(pair.session, pair.now, **fault)  # type: ignore[arg-type]
        assert pair.world.inject(pair.bob, data, pair.alice.address)
        assert pair.bob.endpoint.counters == {reason: number}
    assert far.window.highest == good + 3
    pair.far._probe(pair.now)
    pair.run(1)
    body = newest_body(pair.far, of_type(pair.bob, FrameType.PROBE)[-1][1])
    assert body.highest_received == good
    assert body.received_count == count + 3
    assert body.echo_time == (good_at - channel._birth) // 1000
    arrived = good_at + 20 * MS
    assert body.hold_time == (pair.now - 1 - arrived) // 1000
    pair.run(20 * MS)
    assert channel.confirmed == good
    pair.run(30 * S)
    assert channel.confirmed == channel.last_sent > good + 3
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp"]
    assert pair.session.stats.suspicions == 0


def test_a_dropped_frame_confirms_nothing() -> None:
    """KA-3.7-3 KA-7.1-3: it neither moves a fact nor the control state."""
    pair = Pair().up()
    before = pair.far.stats, pair.far._terms.control.acked
    bad = codec.build_options(codec.Options(pause_ms=1000)) + b"\x80\x00"
    data = sealed(pair.session, pair.now, options=bad, highest=pair.far._channel.last_sent)
    pair.world.inject(pair.bob, data, pair.alice.address)
    after = pair.far.stats
    assert (after.rx_at, after.round_trip_at, after.state) == (
        *(before[0].rx_at, before[0].round_trip_at, before[0].state),
    )
    assert pair.far._terms.control.acked == before[1]
