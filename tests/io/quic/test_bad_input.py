"""What a peer should not send: it is counted and dropped, and the connection lives."""

import asyncio
import tracemalloc
from random import Random

import pytest

import kaudp
from kaudp.errors import DropReason
from kaudp.wire.grammar import FrameType
from tests.io.quic.pairs import (
    CONTEXT,
    HEADER,
    HEARTS,
    Application,
    Pair,
    heartbeats_of,
    linked,
    network,
    paired,
    reported,
    until,
    virtually,
)

STREAM = {**HEARTS, "mode": "stream"}
QUIET = {
    **HEARTS,
    "config": kaudp.Config.wan(
        interval_ms=600_000, max_peer_interval_ms=600_000, multiplier=2, nat_keepalive_ms=None
    ),
}


async def settled(pair: Pair) -> None:
    """Let what is under way arrive."""
    await asyncio.sleep(8 * pair.network.delay)


# Datagrams on the heartbeat context


@pytest.mark.parametrize("dedicated", [False, True])
@virtually
async def test_garbage_datagrams_are_counted_and_change_nothing(dedicated: bool) -> None:
    """KA-14.2-4 KA-12-1: beside an application it gets them back."""
    rng = Random(1)
    garbage = [rng.randbytes(size) for size in (0, 1, 3, 19, 47, 48, 60, 512, 513, 1_000)]
    garbage += [HEADER + rng.randbytes(size) for size in (0, 43, 44, 56, 508, 509, 900)]
    if dedicated:
        async with linked() as (server, connection):
            for data in garbage:
                connection.protocol._quic.send_datagram_frame(data)
                connection.protocol.transmit()
            await until(lambda: server.counters.total() >= len(garbage))
            assert set(server.counters) == {DropReason.NOT_KAUDP, DropReason.UNKNOWN_SESSION}
            assert server.counters.total() == len(garbage)
            assert connection.state is kaudp.State.UP
        return
    async with paired() as pair:
        await pair.up()
        counters = pair.server.attached.counters
        for data in garbage:
            pair.client.send_datagram(CONTEXT + data)
        await until(lambda: len(pair.server.datagrams) == len(garbage))
        assert pair.server.datagrams == [CONTEXT + data for data in garbage]
        assert counters[DropReason.NOT_KAUDP] + counters[DropReason.UNKNOWN_SESSION] == len(garbage)
        await pair.up(pair.client.attached.stats.round_trips + 3)
        await pair.works()


@virtually
async def test_every_truncation_of_a_frame_is_dropped_and_counted() -> None:
    """KA-14.1-4 KA-12-1: too short is not ours; the rest is counted by reason."""
    async with paired(near=QUIET, far=QUIET) as pair:
        frames = heartbeats_of(pair.client)
        await until(lambda: pair.server.attached.sessions)
        pair.client.attached._act(pair.client.attached.session._probe)
        await settled(pair)
        probe = frames[-1]
        assert probe[9] == FrameType.PROBE
        state = pair.server.attached.state
        for size in range(len(CONTEXT), len(probe)):
            pair.server.datagrams.clear()
            pair.client.send_datagram(probe[:size])
            await settled(pair)
            assert pair.server.datagrams == [probe[:size]]
        assert pair.server.attached.counters[DropReason.NOT_KAUDP] == len(probe) - len(CONTEXT)
        assert pair.server.attached.state is state
        await pair.works()


@pytest.mark.parametrize("mode", ["datagram", "stream"])
@virtually
async def test_every_byte_of_a_frame_may_change_and_the_connection_lives(mode: str) -> None:
    """KA-12-1: whatever the session makes of it, the application's connection is untouched."""
    rng = Random(2)
    for kind in ("INIT", "PROBE"):
        async with paired(near=None, far=HEARTS) as pair:
            noted: list[bytes] = []
            send = pair.client.quic.send_datagram_frame
            pair.client.quic.send_datagram_frame = (  # type: ignore[method-assign]
                lambda data, noted=noted, send=send: (noted.append(data), send(data))
            )
            pair.client.attach(**HEARTS)
            await pair.up()
            frame = next(d for d in noted if d[9] == FrameType[kind])[len(CONTEXT) :]
            stream_id = None
            for at in range(len(frame)):
                for flip in (1, 0x80, rng.randrange(1, 256)):
                    changed = bytearray(frame)
                    changed[at] ^= flip
                    if mode == "datagram":
                        send(CONTEXT + bytes(changed))
                        pair.client.transmit()
                    else:
                        begun = CONTEXT if stream_id is None else b""
                        message = len(changed).to_bytes(2, "big") + changed
                        stream_id = pair.client.send_stream(begun + message, stream_id=stream_id)
                await asyncio.sleep(0.001)
            await settled(pair)
            assert pair.server.attached.counters.total() >= 10
            assert all(d.startswith(CONTEXT) for d in pair.server.datagrams)
            assert not pair.server.streams
            await pair.works()


@virtually
async def test_an_init_that_is_not_whole_is_the_applications() -> None:
    """KA-14.1-4 KA-14.2-4: neither a tag nor a session id vouches for it."""
    async with paired() as pair:
        await pair.up()
        broken = CONTEXT + b"\x0b\x01\x81\x00" + bytes(48)
        pair.client.send_datagram(broken)
        pair.client.send_datagram(b"behind it")
        await until(lambda: b"behind it" in pair.server.datagrams)
        assert pair.server.datagrams == [broken, b"behind it"]


# Streams


@pytest.mark.parametrize("dedicated", [False, True])
@pytest.mark.parametrize("length", [0, 1, 47, 513, 65_535])
@virtually
async def test_a_message_of_no_legal_length_abandons_its_stream(
    length: int, dedicated: bool
) -> None:
    """KA-14.3-3: counted as malformed; the sender is told; what follows on it is nobody's."""
    if dedicated:
        async with linked() as (server, connection):
            quic = connection.protocol._quic
            stream_id = quic.get_next_available_stream_id(is_unidirectional=True)
            quic.send_stream_data(stream_id, CONTEXT + length.to_bytes(2, "big") + bytes(60))
            connection.protocol.transmit()
            await until(lambda: server.counters[DropReason.MALFORMED] == 1)
            await until(lambda: connection.stats.round_trips > 5)
            assert set(server.counters) == {DropReason.MALFORMED}
        return
    async with paired() as pair:
        await pair.up()
        message = length.to_bytes(2, "big") + bytes(60)
        stream_id = pair.client.send_stream(CONTEXT + message)
        await until(lambda: stream_id in pair.client.stopped)
        assert pair.server.attached.counters[DropReason.MALFORMED] == 1
        await settled(pair)
        assert stream_id not in pair.server.streams
        assert pair.server.resets == []
        await pair.up(pair.client.attached.stats.round_trips + 3)
        await pair.works()


@virtually
async def test_the_frames_before_a_malformed_message_count() -> None:
    """KA-14.3-3: and those behind it do not."""
    async with paired() as pair:
        frames = heartbeats_of(pair.client)
        await until(lambda: len(frames) > 2)
        foreign = bytearray(frames[-1][len(CONTEXT) :])
        foreign[4] ^= 1
        message = b"\0\x30" + foreign
        pair.client.send_stream(CONTEXT + 3 * message + b"\xff\xff" + 5 * message)
        await settled(pair)
        counters = pair.server.attached.counters
        assert counters[DropReason.UNKNOWN_SESSION] == 3
        assert counters[DropReason.MALFORMED] >= 1


@virtually
async def test_an_abandoned_stream_is_counted_once() -> None:
    """KA-14.3-3 KA-12-1: the peer's answer to our refusal is no fault of its own."""
    async with paired() as pair:
        pair.client.send_stream(CONTEXT + b"\xff\xff" + bytes(60))
        await asyncio.sleep(1)
        assert pair.server.attached.counters == {DropReason.MALFORMED: 1}


@virtually
async def test_a_refused_stream_is_counted_once() -> None:
    """KA-12-1: on a connection of kaudp's own."""
    async with linked() as (server, connection):
        quic = connection.protocol._quic
        quic.send_stream_data(quic.get_next_available_stream_id(is_unidirectional=True), b"x")
        connection.protocol.transmit()
        await asyncio.sleep(1)
        assert server.counters == {DropReason.UNEXPECTED: 1}


@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("cut", [1, 2, 3, 49])
@virtually
async def test_a_stream_cut_within_a_message_is_malformed(cut: int, end: str) -> None:
    """KA-14.3-3: and one cut between two messages is not."""
    message = b"\0\x30" + bytes(48)
    async with paired() as pair:
        await pair.up()
        stream_id = pair.client.send_stream(CONTEXT + message + message[:cut])
        await settled(pair)
        counters = pair.server.attached.counters
        assert counters == {DropReason.NOT_KAUDP: 1}
        if end == "fin":
            pair.client.send_stream(b"", stream_id=stream_id, end=True)
        else:
            pair.client.quic.reset_stream(stream_id, 1)
            pair.client.transmit()
        await until(lambda: counters[DropReason.MALFORMED] == 1)
        whole = pair.client.send_stream(CONTEXT + message, end=True)
        await settled(pair)
        assert counters[DropReason.MALFORMED] == 1
        assert {stream_id, whole}.isdisjoint(pair.server.streams)
        assert pair.server.resets == []
        await pair.works()


@pytest.mark.parametrize("end", ["fin", "reset"])
@virtually
async def test_a_second_stream_after_one_that_ended_is_taken(end: str) -> None:
    """KA-14.3-2 KA-12-1: the former needs no refusal any more."""
    async with paired(near=None) as pair:
        first = pair.client.send_stream(CONTEXT, end=end == "fin")
        await settled(pair)
        if end == "reset":
            pair.client.quic.reset_stream(first, 1)
            pair.client.transmit()
        await settled(pair)
        pair.client.send_stream(CONTEXT + b"\0\x30" + bytes(48))
        await settled(pair)
        assert reported() == []
        assert pair.server.attached.counters == {DropReason.NOT_KAUDP: 1}


@virtually
async def test_the_newest_heartbeat_stream_counts() -> None:
    """KA-14.3-2: the former is refused, and what still comes on it is nobody's."""
    message = b"\0\x30" + bytes(48)
    async with paired(near=None) as pair:
        first = pair.client.send_stream(CONTEXT + message)
        await settled(pair)
        second = pair.client.send_stream(CONTEXT + message)
        pair.client.send_stream(message, stream_id=first)
        await until(lambda: first in pair.client.stopped)
        pair.client.send_stream(message, stream_id=second)
        await settled(pair)
        assert pair.server.attached.counters == {DropReason.NOT_KAUDP: 3}
        assert not pair.server.streams
        await pair.works()


@virtually
async def test_the_former_stream_is_nobodys_where_the_newest_is_malformed() -> None:
    """KA-14.3-2 KA-14.3-3: the application gets no stream from its middle on."""
    async with paired(near=None) as pair:
        first = pair.client.send_stream(CONTEXT)
        await settled(pair)
        pair.client.send_stream(CONTEXT + b"\0\0")
        pair.client.send_stream(b"\0", stream_id=first)
        await until(lambda: first in pair.client.stopped)
        await settled(pair)
        assert not pair.server.streams


@virtually
async def test_an_older_stream_that_turns_out_ours_late_is_refused() -> None:
    """KA-14.3-2: newest is by number, not by arrival."""
    message = b"\0\x30" + bytes(48)
    async with paired(near=None) as pair:
        old = pair.client.send_stream(CONTEXT[:3])
        new = pair.client.send_stream(CONTEXT + message)
        await settled(pair)
        pair.client.send_stream(CONTEXT[3:] + message, stream_id=old)
        await until(lambda: old in pair.client.stopped)
        pair.client.send_stream(message, stream_id=new)
        await settled(pair)
        assert pair.server.attached.counters == {DropReason.NOT_KAUDP: 2}
        assert not pair.server.streams


@virtually
async def test_a_reset_of_the_applications_stream_without_data_reaches_it() -> None:
    """KA-14.3-2: also when kaudp's stream is newer."""
    async with paired(near=None) as pair:
        pair.client.quic.send_stream_data(2, b"")
        pair.client.send_stream(CONTEXT, stream_id=6)
        await settled(pair)
        pair.client.quic.reset_stream(2, 7)
        pair.client.transmit()
        await settled(pair)
        assert pair.server.resets == [2]


@virtually
async def test_a_stopped_stream_is_followed_by_another_at_the_next_heartbeat() -> None:
    """14.3: and the session does not even suspect."""
    async with paired(near=STREAM) as pair:
        await pair.up()
        (first,) = (number for number in pair.client.quic._streams if number & 3 == 2)
        pair.server.quic.stop_stream(first, 0)
        pair.server.transmit()
        trips = pair.client.attached.stats.round_trips
        await until(lambda: pair.client.attached.stats.round_trips > trips + 5)
        assert pair.client.stopped == []
        assert reported() == []
        assert not pair.client.heard_of(kaudp.SessionSuspect)


@virtually
async def test_a_stopped_stream_never_ends_the_heart() -> None:
    """14.3: whatever is lost at the change, the session is up again at once."""
    async with paired(near=STREAM) as pair:
        await pair.up()
        for _ in range(3):
            last = max(number for number in pair.client.quic._streams if number & 3 == 2)
            pair.server.quic.stop_stream(last, 0)
            pair.server.transmit()
            trips = pair.client.attached.stats.round_trips
            await until(lambda trips=trips: pair.client.attached.stats.round_trips > trips + 5)
            assert max(pair.client.quic._streams) > last
        assert not pair.client.heard_of(kaudp.SessionDown)
        assert pair.server.streams.keys() == set()
        await pair.works()


@virtually
async def test_a_stream_that_the_application_holds_unwritten_stays_its_own() -> None:
    """KA-14.3-2: `create_stream` of aioquic gives a number that is only taken at the first write.

    Both then write to one stream: the application's bytes are eaten as a broken message, and its
    FIN ends the heart's stream.
    """
    async with paired(near=None) as pair:
        _, writer = await pair.client.create_stream(is_unidirectional=True)
        pair.client.attach(**STREAM)
        await pair.up()
        writer.write(b"hello")
        writer.write_eof()
        await asyncio.sleep(1)
        assert reported() == []
        assert [bytes(data) for data in pair.server.streams.values()] == [b"hello"]


@virtually
async def test_a_probe_and_the_stop_of_our_stream_may_come_together() -> None:
    """KA-12-1: the answer to the probe goes to a stream that aioquic has just reset."""
    async with paired(near=STREAM) as pair:
        await pair.up()
        quic, heart = pair.server.quic, pair.server.attached
        own = next(number for number in pair.client.quic._streams if number & 3 == 2)
        # The order in the packet is that of the streams: the probe first.
        ours = next(stream for stream in quic._streams_queue if stream.stream_id & 3 == 3)
        quic._streams_queue.remove(ours)
        quic._streams_queue.insert(0, ours)
        quic.stop_stream(own, 0)
        heart._act(heart.session._probe)
        await asyncio.sleep(1)
        assert not [what for what in reported() if "reset" in str(what["exception"])]


# Many streams


async def open_many(side: Application, count: int, data: bytes, *, end: bool) -> int:
    """Open streams as fast as the peer allows; give how many got through."""
    for _ in range(count):
        side.send_stream(data, end=end)
        await asyncio.sleep(0.002)
    await asyncio.sleep(1)
    return count


@pytest.mark.parametrize(
    ("data", "end"),
    [(CONTEXT, False), (CONTEXT[:3], False), (b"own", True), (b"", True), (CONTEXT[:3], True)],
)
@virtually
async def test_a_thousand_streams_beside_an_application(data: bytes, end: bool) -> None:
    """KA-14.3-2: what kaudp keeps of them is bounded, and the connection lives."""
    async with paired(far=HEARTS) as pair:
        await pair.up()
        await open_many(pair.client, 1_000, data, end=end)
        kept = pair.server.attached._carriage._peer_streams
        assert len(kept._undecided) <= 128
        assert len(kept._applications) == 0
        assert len(kept._abandoned) <= 2
        own = {} if data == CONTEXT or not end else pair.server.streams
        assert len(own) in (0, 1_000)
        assert bool(own) == end
        assert pair.client.attached.state is kaudp.State.UP
        assert not pair.server.terminated


@pytest.mark.parametrize(("data", "end"), [(CONTEXT, False), (b"x", False), (b"x", True)])
@virtually
async def test_a_thousand_streams_to_a_server_of_its_own(data: bytes, end: bool) -> None:
    """KA-14.3-3 KA-12-1: each is refused; memory stays flat, heartbeats go on."""
    async with linked() as (server, connection):
        (attachment,) = server._attachments
        protocol, quic = connection.protocol, connection.protocol._quic
        sizes = []
        traced = data == b"x" and end
        for number in range(1_000):
            stream_id = quic.get_next_available_stream_id(is_unidirectional=True)
            quic.send_stream_data(stream_id, data, end)
            protocol.transmit()
            await asyncio.sleep(0.002)
            if traced and number == 400:
                tracemalloc.start()
            if traced and number in (600, 999):
                await asyncio.sleep(0.1)
                network().sent.clear()
                sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        await asyncio.sleep(1)
        kept = attachment._carriage._peer_streams
        assert len(kept._undecided) + len(kept._applications) + len(kept._abandoned) <= 130
        assert len(attachment._quic._streams) <= 130
        assert not attachment.protocol._stream_readers
        if data == b"x":
            assert server.counters[DropReason.UNEXPECTED] >= 1_000
        assert connection.state is kaudp.State.UP
        assert not traced or sizes[1] - sizes[0] < 100_000, sizes


@virtually
async def test_a_bidirectional_stream_to_a_server_of_its_own_is_refused() -> None:
    """12: there is no application that it could be for."""
    async with linked() as (server, connection):
        quic = connection.protocol._quic
        quic.send_stream_data(quic.get_next_available_stream_id(), b"GET /\r\n", True)
        connection.protocol.transmit()
        await until(lambda: server.counters[DropReason.UNEXPECTED] == 1)
        await asyncio.sleep(0.5)
        assert connection.state is kaudp.State.UP
