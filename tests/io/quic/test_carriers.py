"""Modes datagram, stream and ping on the wire: what is sent, what is dropped and what waits."""

import asyncio
from typing import Any

import pytest
from aioquic.quic.logger import QuicLogger

import kaudp
from kaudp.io.quic import internals
from kaudp.io.quic.carriers import DatagramCarrier
from tests.io.quic.pairs import (
    CONTEXT,
    HEARTS,
    SERVER,
    STEP_S,
    Pair,
    client_configuration,
    event_of,
    frames_received,
    heartbeats_of,
    paired,
    really,
    server_configuration,
    until,
    virtually,
)

STREAM = {**HEARTS, "mode": "stream"}


# Mode datagram


@virtually
async def test_no_datagram_goes_to_a_peer_that_did_not_advertise_it() -> None:
    """KA-14.2-1 KA-14.5-1: the peer's QUIC stack sees streams, and the mode says why."""
    logger = QuicLogger()
    server = {"max_datagram_frame_size": None, "quic_logger": logger}
    async with paired(server=server) as pair:
        await pair.up()
        seen = frames_received(logger)
        assert "datagram" not in seen
        assert "stream" in seen
        (chosen,) = pair.client.heard_of(kaudp.ModeChosen)
        assert chosen.mode is kaudp.QuicMode.STREAM
        assert "the peer takes no DATAGRAM" in chosen.why
        await pair.works()


@pytest.mark.parametrize(("limit", "mode"), [(159, "stream"), (160, "datagram")])
@virtually
async def test_mode_datagram_needs_160_bytes_of_the_peer(limit: int, mode: str) -> None:
    """KA-14.5-1: and on either side's account."""
    for sides in (
        {"server": {"max_datagram_frame_size": limit}},
        {"client": {"max_datagram_frame_size": limit}},
    ):
        async with paired(**sides) as pair:
            await pair.up()
            for side in pair:
                assert side.attached.mode is kaudp.QuicMode(mode)


@virtually
async def test_what_the_peer_does_not_allow_is_dropped_and_counted() -> None:
    """KA-14.2-1: the limit counts type and length too; one byte less goes."""
    async with paired(server={"max_datagram_frame_size": 200}) as pair:
        await pair.up()
        heart = pair.client.attached
        # 1 byte of type, 2 of length, 8 of context id.
        for size, dropped in ((189, 0), (190, 1), (512, 2)):
            heart._transmit(bytes(size), SERVER)
            pair.client.transmit()
            assert heart.unsent["too_long"] == dropped
            await asyncio.sleep(3 * STEP_S)
        assert pair.server.datagrams == [CONTEXT + bytes(189)]
        await pair.works()


@virtually
async def test_what_fits_no_packet_is_dropped_and_blocks_nothing() -> None:
    """KA-14.2-2: in aioquic's queue it would wait for ever, and all behind it too."""
    async with paired() as pair:
        await pair.up()
        carrier = DatagramCarrier(pair.client.quic, CONTEXT)
        room = internals.packet_room(pair.client.quic)
        fits = room - 3 - len(CONTEXT)
        assert carrier.send(bytes(fits + 1)) == "too_long"
        assert not internals.waiting_datagrams(pair.client.quic)
        assert carrier.send(bytes(fits)) == ""
        pair.client.send_datagram(b"behind it")
        await until(lambda: b"behind it" in pair.server.datagrams)
        assert CONTEXT + bytes(fits) in pair.server.datagrams


def fill_the_window(pair: Pair) -> None:
    """Let the client send more than the congestion window takes, of which nothing arrives."""
    pair.network.lose = lambda data, source, target: True
    pair.client.send_stream(bytes(200_000))


@virtually
async def test_one_heartbeat_waits_at_most() -> None:
    """KA-14.2-3, KA-14.6-3: while the window is full, newer ones are dropped and counted."""
    slow = {**HEARTS, "config": kaudp.Config.lan(min_suspicion_ms=600_000, multiplier=5)}
    async with paired(near=slow) as pair:
        await pair.up()
        sent = heartbeats_of(pair.client)
        fill_the_window(pair)
        waited = []
        for _ in range(40):
            await asyncio.sleep(0.025)
            waiting = internals.waiting_datagrams(pair.client.quic)
            waited.append(sum(datagram.startswith(CONTEXT) for datagram in waiting))
        assert max(waited) == 1
        assert pair.client.attached.unsent["would_block"] >= 3
        # Only what QUIC's own probes let out made room for another.
        assert len(sent) <= 6
        pair.network.lose = lambda data, source, target: False
        await until(lambda: not internals.waiting_datagrams(pair.client.quic), 120)
        await pair.works()


@virtually
async def test_the_applications_datagrams_wait_as_they_did() -> None:
    """KA-14.2-3: they are not counted as heartbeats, nor dropped, nor do they block one."""
    async with paired() as pair:
        await pair.up()
        fill_the_window(pair)
        await asyncio.sleep(0.3)
        own = [bytes([number]) * 20 for number in range(50)]
        for datagram in own:
            pair.client.send_datagram(datagram)
        assert [d for d in internals.waiting_datagrams(pair.client.quic) if d in own] == own
        pair.network.lose = lambda data, source, target: False
        await until(lambda: pair.server.datagrams == own, 120)
        await pair.up()


@virtually
async def test_heartbeats_beside_waiting_datagrams_of_the_application_are_not_dropped() -> None:
    """KA-14.2-3: only a heartbeat that waits keeps another one back, not an equal datagram."""
    async with paired() as pair:
        for side in pair:
            carrier = DatagramCarrier(side.quic, CONTEXT)
            side.quic.send_datagram_frame(b"")
            assert carrier.send(bytes(60)) == ""
            assert carrier.send(bytes(60)) == "would_block"
            side.transmit()


# Mode stream


@virtually
async def test_a_heartbeat_stream_is_unidirectional_and_begins_with_the_context_id() -> None:
    """KA-14.3-1: an application that does not know kaudp sees exactly what goes out."""
    async with paired(near=STREAM, far=None) as pair:
        await until(lambda: pair.server.streams)
        await asyncio.sleep(0.1)
        ((stream_id, data),) = pair.server.streams.items()
        assert stream_id & 3 == 2
        assert data.startswith(CONTEXT + b"\x00\x34\x0b\x01\x81\x00")
        messages = data[len(CONTEXT) :]
        while messages:
            length = int.from_bytes(messages[:2], "big")
            assert messages[2] == 0x0B
            assert 48 <= length <= 512
            del messages[: 2 + length]


@virtually
async def test_the_responder_answers_in_the_mode_in_which_the_frame_came() -> None:
    """KA-14.5-3: both sides could do DATAGRAM."""
    loggers = QuicLogger(), QuicLogger()
    async with paired(
        client={"quic_logger": loggers[0]}, server={"quic_logger": loggers[1]}, near=STREAM
    ) as pair:
        await pair.up()
        for side, logger in zip(pair, loggers, strict=True):
            assert side.attached.mode is kaudp.QuicMode.STREAM
            assert "datagram" not in frames_received(logger)


@virtually
async def test_while_a_message_waits_newer_ones_are_dropped() -> None:
    """KA-14.3-4: with the window full, at most one message is in the stream's buffer."""
    slow = {**STREAM, "config": kaudp.Config.lan(min_suspicion_ms=600_000, multiplier=5)}
    async with paired(near=slow) as pair:
        await pair.up()
        fill_the_window(pair)
        stream = pair.client.quic._streams[2]
        for _ in range(40):
            await asyncio.sleep(0.025)
            unsent = sum(
                r.stop - max(r.start, stream.sender.highest_offset)
                for r in stream.sender._pending
                if r.stop > stream.sender.highest_offset
            )
            assert unsent <= 2 + 80
        assert pair.client.attached.unsent["would_block"] >= 3
        pair.network.lose = lambda data, source, target: False
        await pair.up(pair.client.attached.session.stats.round_trips + 3)
        await pair.works()


@pytest.mark.parametrize("mode", ["datagram", "stream", "ping"])
@virtually
async def test_loss_is_reported_in_mode_datagram_only(mode: str) -> None:
    """KA-14.3-5: what QUIC sends again is not lost."""
    far = None if mode == "ping" else HEARTS
    async with paired(near={**HEARTS, "mode": mode}, far=far) as pair:
        await pair.up()
        await asyncio.sleep(1)
        for side in pair:
            if side.heart is None:
                continue
            stats = side.attached.stats
            assert (stats.loss_out is None) == (mode != "datagram")
            assert (stats.loss_in is None) == (mode != "datagram")


@virtually
async def test_head_of_line_delay_shows_in_mode_stream() -> None:
    """14.3: what is lost holds up what follows, and that is a delay, not loss."""
    async with paired(near=STREAM) as pair:
        await pair.up()
        heart = pair.client.attached
        assert heart.transport_rtt == pytest.approx(10_000_000, rel=0.5)
        assert heart.head_of_line_delay is not None
        assert heart.head_of_line_delay < 20_000_000
    async with paired() as pair:
        await pair.up()
        assert pair.client.attached.head_of_line_delay is None


# Mode ping


@virtually
async def test_nothing_but_ping_reaches_an_unaware_peer() -> None:
    """KA-14.4-1 KA-14.4-3 KA-14.5-2: from the attachment to its end."""
    logger = QuicLogger()
    async with paired(server={"quic_logger": logger}, near=None, far=None) as pair:
        await asyncio.sleep(0.5)
        before = len(frames_received(logger))
        pair.client.attach(config=kaudp.Config.lan())
        await pair.up(5)
        await pair.client.attached.close()
        await asyncio.sleep(0.2)
        seen = frames_received(logger)[before:]
        assert set(seen) <= {"ping", "ack", "padding"}
        assert 5 <= seen.count("ping") <= 12
        assert pair.server.datagrams == []
        assert not pair.server.streams
        (chosen,) = pair.client.heard_of(kaudp.ModeChosen)
        assert chosen.mode is kaudp.QuicMode.PING
        assert "game" in chosen.why
        await pair.works()


@virtually
async def test_the_server_may_be_the_one_that_pings() -> None:
    """KA-14.1-3: in ping mode no side is bound to be the initiator."""
    async with paired(near=None, far={"config": kaudp.Config.lan()}) as pair:
        await pair.up()
        assert pair.server.attached.mode is kaudp.QuicMode.PING
        assert pair.server.attached.session.initiator


@virtually
async def test_both_may_ping_each_other() -> None:
    """KA-14.4-1: and neither sees the other's."""
    lan = {"config": kaudp.Config.lan()}
    async with paired(near=lan, far=lan) as pair:
        await pair.up(5)
        for side in pair:
            assert side.pings == []
            assert side.attached.state is kaudp.State.UP


@virtually
async def test_the_applications_own_pings_are_its_own() -> None:
    """KA-14.4-1: and an acknowledgement of a heartbeat reaches no application."""
    async with paired(near={"config": kaudp.Config.lan()}, far=None) as pair:
        await pair.up(5)
        assert pair.client.pings == []
        await pair.client.ping()
        pair.client.quic.send_ping(7)
        pair.client.transmit()
        await until(lambda: 7 in pair.client.pings)
        assert len(pair.client.pings) == 2


@virtually
async def test_a_dead_path_is_down_and_comes_back_in_mode_ping() -> None:
    """14.4: all of section 7 applies, without the peer's doing."""
    async with paired(near={"config": kaudp.Config.lan()}, far=None) as pair:
        await pair.up(5)
        pair.network.lose = lambda data, source, target: source == SERVER
        await until(lambda: pair.client.heard_of(kaudp.SessionDown), 2)
        assert pair.client.heard_of(kaudp.SessionSuspect)
        pair.network.lose = lambda data, source, target: False
        await until(lambda: pair.client.attached.state is kaudp.State.UP, 30)


@virtually
async def test_a_round_trip_in_mode_ping_is_never_less_than_the_path() -> None:
    """KA-14.4-2: a PING that is lost and repeated is dated at its first sending."""
    async with paired(near={"config": kaudp.Config.lan()}, far=None) as pair:
        await pair.up(5)
        count = 0

        def lose_some(data: bytes, source: Any, target: Any) -> bool:
            nonlocal count
            count += 1
            return count % 5 == 0

        pair.network.lose = lose_some
        await asyncio.sleep(3)
        stats = pair.client.attached.stats
        assert stats.suspicions > 3
        assert stats.round_trips > 15
        assert stats.rtt_min >= 10_000_000
        pair.network.lose = lambda data, source, target: False


# Choice


@pytest.mark.parametrize("mode", ["auto", "datagram", "stream", "ping"])
@really
async def test_each_mode_over_loopback(mode: Any) -> None:
    """KA-14.5-1: on connections of kaudp's own, with ALPN kaudp/1."""
    lan = kaudp.Config.lan()
    async with kaudp.serve("quic://127.0.0.1:0", quic=server_configuration(), config=lan) as server:
        url = f"quic://localhost:{server.address[1]}"
        async with kaudp.connect(
            url, quic=client_configuration(), mode=mode, config=lan
        ) as connection:
            chosen = await event_of(connection, kaudp.ModeChosen)
            assert chosen.mode.value == (mode if mode != "auto" else "datagram")
            await event_of(connection, kaudp.SessionUp)
            if mode != "ping":
                await event_of(server, kaudp.SessionUp)
                assert len(server.sessions) == 1
            await until(lambda: connection.stats.round_trips >= 3)
            assert connection.stats.rtt_min > 0


@virtually
async def test_another_context_id_is_another_world() -> None:
    """14.2: both sides configure it; frames behind another one are the application's."""
    own = {**HEARTS, "context_id": 5}
    async with paired(near=own, far=own) as pair:
        await pair.up()
        pair.client.send_datagram(CONTEXT + b"x")
        await until(lambda: pair.server.datagrams)
        assert pair.server.datagrams == [CONTEXT + b"x"]
    async with paired(near=own, far=HEARTS) as pair:
        await until(lambda: pair.server.datagrams)
        assert pair.server.datagrams[0].startswith(b"\x05\x0b\x01\x81\x00")
        assert pair.server.attached.sessions == []


@pytest.mark.parametrize("context_id", [-1, 2**62, True, "5", 1.0])
@virtually
async def test_an_illegal_context_id_is_one_clear_error(context_id: Any) -> None:
    async with paired(near=None, far=None) as pair:
        with pytest.raises(kaudp.ConfigError, match=r"context_id: expected an int of 0 to 2\*\*62"):
            pair.client.attach(context_id=context_id)


@virtually
async def test_an_illegal_mode_is_one_clear_error() -> None:
    async with paired(near=None, far=None) as pair:
        with pytest.raises(kaudp.ConfigError, match="mode: expected 'auto', 'datagram'"):
            pair.client.attach(mode="dgram")


@virtually
async def test_mode_datagram_toward_a_peer_without_it_is_one_clear_error() -> None:
    """KA-14.2-1: raised after the handshake; before it, told as ConnectFailed."""
    asked: dict[str, Any] = {**HEARTS, "mode": "datagram"}
    without = {"max_datagram_frame_size": None}
    async with paired(server=without, near=None) as pair:
        with pytest.raises(kaudp.QuicError, match="mode datagram: expected both sides"):
            pair.client.attach(**asked)
        await pair.works()
    async with paired(server=without, near=asked, early=True) as pair:
        failed = (await until(lambda: pair.client.heard_of(kaudp.ConnectFailed)))[0]
        assert "mode datagram: expected both sides" in failed.detail
        assert "0 on the peer's" in failed.detail
        await pair.works()


@pytest.mark.parametrize("mode", ["datagram", "stream"])
@virtually
async def test_the_client_is_the_initiator(mode: str) -> None:
    """KA-14.1-3: whoever attached first."""
    async with paired(near={**HEARTS, "mode": mode}) as pair:
        await pair.up()
        assert pair.client.attached.session.initiator
        assert not pair.server.attached.session.initiator


@virtually
async def test_a_peer_that_moves_is_followed_and_reported() -> None:
    """KA-14.8-1: in each mode that has a server's session; QUIC moves it, kaudp tells."""
    moved = ("192.0.2.9", 999)
    for near, far in ((HEARTS, HEARTS), (STREAM, HEARTS), (None, {"config": kaudp.Config.lan()})):
        async with paired(near=near, far=far) as pair:
            await pair.up()
            pair.network.aliases[moved] = ("192.0.2.1", 1000)
            if near is None:
                pair.client.quic.send_ping(1)
                pair.client.transmit()
            (change,) = await until(lambda: pair.server.heard_of(kaudp.PeerAddressChanged))
            assert change.previous == ("192.0.2.1", 1000)
            assert change.address == moved
            assert pair.server.attached.session.address == moved
            await asyncio.sleep(1)
            assert pair.server.attached.state is kaudp.State.UP
            pair.network.aliases.clear()
