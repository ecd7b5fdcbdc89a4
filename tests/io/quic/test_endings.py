"""How a QUIC connection ends, and what its sessions tell of it. KA-14.7-1, row by row."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aioquic.quic.packet import QuicErrorCode

import kaudp
from kaudp.events import CloseReason
from tests.io.quic.pairs import (
    CLIENT,
    HEARTS,
    SERVER,
    Application,
    Pair,
    applications,
    client_configuration,
    event_of,
    linked,
    network,
    paired,
    reported,
    server_configuration,
    until,
    virtually,
)

MODES: dict[str, dict[str, Any]] = {
    mode: {"near": {**HEARTS, "mode": mode}, "far": None if mode == "ping" else HEARTS}
    for mode in ("datagram", "stream", "ping")
}


def closed(side: Application) -> Any:
    (event,) = side.heard_of(kaudp.SessionClosed)
    assert side.heard[-1] is event
    assert side.attached.state is kaudp.State.CLOSED
    return event


@pytest.mark.parametrize("mode", MODES)
@virtually
async def test_a_local_close_ends_the_session_at_once(mode: str) -> None:
    """KA-14.7-1: not when aioquic has drained, three PTO later; the code is the application's."""
    async with paired(**MODES[mode]) as pair:
        await pair.up()
        pair.client.close(error_code=0x33, reason_phrase="enough")
        ended = closed(pair.client)
        assert not pair.client.terminated
        assert (ended.reason, ended.by_peer) == (CloseReason.CARRIER_CLOSED, False)
        assert "by this side" in ended.detail
        assert "0x33" in ended.detail
        assert "enough" in ended.detail


@pytest.mark.parametrize("mode", MODES)
@virtually
async def test_a_close_of_the_peer_ends_the_session_at_once(mode: str) -> None:
    """KA-14.7-1: within the one-way delay."""
    async with paired(**MODES[mode]) as pair:
        await pair.up()
        pair.server.close(reason_phrase="bye")
        await asyncio.sleep(pair.network.delay * 1.5)
        ended = closed(pair.client)
        assert not pair.client.terminated
        assert (ended.reason, ended.by_peer) == (CloseReason.CARRIER_CLOSED, True)
        assert "by the peer" in ended.detail
        assert "bye" in ended.detail


@virtually
async def test_a_reason_in_an_applications_close_is_the_applications() -> None:
    """KA-14.7-1: without ALPN kaudp/1 an error code says nothing of 6.4."""
    async with paired() as pair:
        await pair.up()
        pair.server.close(error_code=int(CloseReason.SHUTDOWN))
        await asyncio.sleep(0.1)
        assert closed(pair.client).reason is CloseReason.CARRIER_CLOSED


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (0, CloseReason.NORMAL),
        (1, CloseReason.SHUTDOWN),
        (2, CloseReason.ADMINISTRATIVE),
        (3, CloseReason.PROTOCOL_ERROR),
        (4, CloseReason.KEY_EXHAUSTED),
        (5, CloseReason.CARRIER_CLOSED),
        (9, CloseReason.CARRIER_CLOSED),
        (0x7FFF, CloseReason.CARRIER_CLOSED),
        (0x8000, 0x8000),
        (0xFFFF, 0xFFFF),
        (0x10000, CloseReason.CARRIER_CLOSED),
    ],
)
@virtually
async def test_the_error_code_of_a_kaudp_connection_is_a_reason(code: int, reason: Any) -> None:
    """KA-14.7-1: but those that are never on the wire are not believed."""
    async with linked() as (server, connection):
        (attachment,) = server._attachments
        attachment.protocol.close(error_code=code)
        ended = await event_of(connection, kaudp.SessionClosed)
        assert (ended.reason, ended.by_peer) == (reason, True)
        assert hex(code) in ended.detail
        own = await event_of(server, kaudp.SessionClosed)
        assert (own.reason, own.by_peer) == (CloseReason.CARRIER_CLOSED, False)


@pytest.mark.parametrize("mode", MODES)
@virtually
async def test_an_idle_timeout_is_told_as_such(mode: str) -> None:
    """KA-14.7-1: by nobody; the path is cut while all is well."""
    brief = {"idle_timeout": 1.0}
    async with paired(client=brief, server=brief, **MODES[mode]) as pair:
        await pair.up()
        pair.network.lose = lambda data, source, target: True
        loop = asyncio.get_running_loop()
        cut = loop.time()
        await until(lambda: pair.client.heard_of(kaudp.SessionClosed))
        assert loop.time() - cut < 1.3
        ended = closed(pair.client)
        assert (ended.reason, ended.by_peer) == (CloseReason.CARRIER_IDLE, False)
        assert "idle timeout" in ended.detail
        if pair.server.heart is not None:
            await until(lambda: pair.server.heard_of(kaudp.SessionClosed))
            assert closed(pair.server).reason is CloseReason.CARRIER_IDLE


@virtually
async def test_a_peer_cannot_pose_as_an_idle_timeout() -> None:
    """KA-14.7-1: whatever words it closes with."""
    async with paired() as pair:
        await pair.up()
        pair.server.quic.close(
            error_code=QuicErrorCode.INTERNAL_ERROR, frame_type=0, reason_phrase="Idle timeout"
        )
        pair.server.transmit()
        await asyncio.sleep(0.1)
        ended = closed(pair.client)
        assert (ended.reason, ended.by_peer) == (CloseReason.CARRIER_FAILED, True)


@pytest.mark.parametrize("dedicated", [False, True])
@virtually
async def test_a_stateless_reset_ends_the_session(dedicated: bool) -> None:
    """KA-14.7-1: 21 bytes or more that end with the token, from the server's address."""
    if dedicated:
        async with linked() as (server, connection):
            (attachment,) = server._attachments
            token = attachment._quic._host_cids[0].stateless_reset_token
            connection.protocol.datagram_received(b"\x40" + bytes(20) + token, ("::1", 9))
            ended = await event_of(connection, kaudp.SessionClosed)
            assert (ended.reason, ended.by_peer) == (CloseReason.CARRIER_RESET, True)
            assert "stateless reset" in ended.detail
        return
    async with paired() as pair:
        await pair.up()
        token = token_of(pair)
        # None of these is one.
        for data in (
            b"\x40" * 4 + token,
            b"\x40" + bytes(20) + token + b"\0",
            b"\x40" + bytes(20) + token[:-1] + bytes([token[-1] ^ 1]),
            b"\x40" + bytes(40),
        ):
            pair.network.send(data, SERVER, CLIENT)
        await asyncio.sleep(0.5)
        assert pair.client.attached.state is kaudp.State.UP
        pair.network.send(b"\x40" * 5 + token, SERVER, CLIENT)
        await asyncio.sleep(0.006)
        ended = closed(pair.client)
        assert (ended.reason, ended.by_peer) == (CloseReason.CARRIER_RESET, True)
        assert "stateless reset" in ended.detail


def token_of(pair: Pair) -> bytes:
    token: bytes = next(
        cid.stateless_reset_token
        for cid in pair.server.quic._host_cids
        if cid.cid == pair.client.quic._peer_cid.cid
    )
    return token


@virtually
async def test_after_a_stateless_reset_nothing_of_kaudps_is_sent() -> None:
    """RFC 9000, 10.3.1: the peer has no connection that it could mean anything for."""
    async with linked() as (server, connection):
        (attachment,) = server._attachments
        token = attachment._quic._host_cids[0].stateless_reset_token
        del network().hosts["127.0.0.1", server.address[1]]
        before = len(network().sent)
        connection.protocol.datagram_received(b"\x40" + bytes(20) + token, ("::1", 9))
        await asyncio.sleep(1)
        sent = [entry for entry in network().sent[before:] if entry[3][1] == server.address[1]]
        assert sent == []


@virtually
async def test_the_reset_token_of_the_connection_id_in_use_counts() -> None:
    """14.7: after a change of the id, the former token is a datagram like any other."""
    async with paired() as pair:
        await pair.up()
        former = token_of(pair)
        pair.client.change_connection_id()
        await asyncio.sleep(0.1)
        assert token_of(pair) != former
        pair.network.send(b"\x40" * 5 + former, SERVER, CLIENT)
        await asyncio.sleep(0.1)
        assert pair.client.attached.state is kaudp.State.UP
        pair.network.send(b"\x40" * 5 + token_of(pair), SERVER, CLIENT)
        await asyncio.sleep(0.1)
        assert closed(pair.client).reason is CloseReason.CARRIER_RESET


def break_a_rule(side: Application) -> None:
    """Let aioquic send a frame that no peer may send: MAX_STREAMS beyond 2^60."""
    side.quic.close(error_code=QuicErrorCode.PROTOCOL_VIOLATION, frame_type=0x1E)
    side.transmit()


@virtually
async def test_an_error_ends_the_session_by_whom_it_was() -> None:
    """KA-14.7-1: both sides name the error."""
    async with paired() as pair:
        await pair.up()
        break_a_rule(pair.server)
        assert (closed(pair.server).reason, closed(pair.server).by_peer) == (
            CloseReason.CARRIER_FAILED,
            False,
        )
        await asyncio.sleep(0.1)
        ended = closed(pair.client)
        assert (ended.reason, ended.by_peer) == (CloseReason.CARRIER_FAILED, True)
        assert "PROTOCOL_VIOLATION" in ended.detail


# Never up


async def fails(
    near: Any, far: Any, config: kaudp.Config | None = None, host: str = "127.0.0.1"
) -> tuple[Any, float]:
    """Connect to a server of kaudp's own; give the ConnectFailed, and how long it took."""
    loop = asyncio.get_running_loop()
    async with kaudp.serve("quic://127.0.0.1:0", quic=far) as server:
        url = f"quic://{host}:{server.address[1]}"
        begun = loop.time()
        async with kaudp.connect(url, quic=near, config=config) as connection:
            events = [event async for event in connection.events()]
            took = loop.time() - begun
        assert server.sessions == []
    assert [type(event) for event in events] == [kaudp.ConnectFailed]
    return events[0], took


@pytest.mark.parametrize(
    ("near", "far", "words"),
    [
        (
            lambda: client_configuration(alpn_protocols=["other"]),
            server_configuration,
            ["by the peer", "no_application_protocol", "ALPN"],
        ),
        (
            lambda: client_configuration(days=-1),
            lambda: server_configuration(days=-1),
            ["by this side", "certificate_expired"],
        ),
        (
            lambda: client_configuration(name="elsewhere.example"),
            lambda: server_configuration(name="elsewhere.example"),
            ["by this side", "bad_certificate", "127.0.0.1"],
        ),
        (
            client_configuration,
            lambda: server_configuration(name="unknown.example"),
            ["by this side", "bad_certificate"],
        ),
        (
            lambda: client_configuration(supported_versions=[0x1A2A3A4A]),
            server_configuration,
            ["common protocol version"],
        ),
    ],
    ids=["alpn", "expired", "wrong host", "unknown issuer", "version"],
)
@virtually
async def test_a_failed_handshake_is_told_in_words_and_at_once(
    near: Callable[[], Any], far: Callable[[], Any], words: list[str]
) -> None:
    """KA-14.7-1: and not after ten seconds."""
    failed, took = await fails(near(), far())
    for word in words:
        assert word in failed.detail
    assert took < 0.1


@virtually
async def test_nobody_there_is_told_after_the_connect_timeout() -> None:
    """KA-4.2-3: QUIC's idle timeout would be a minute."""
    async with kaudp.connect(
        "quic://127.0.0.1:9",
        quic=client_configuration(),
        config=kaudp.Config.wan(connect_timeout_ms=1_500),
    ) as connection:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await event_of(connection, kaudp.ConnectFailed)
        assert loop.time() - begun == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("sort", ["close", "idle", "peer"])
@virtually
async def test_a_session_never_up_fails_to_connect(sort: str) -> None:
    """KA-14.7-1: and says what for."""
    brief = {"idle_timeout": 1.0}
    async with paired(client=brief, server=brief, far=None) as pair:
        await asyncio.sleep(0.1)
        if sort == "close":
            pair.client.close(reason_phrase="enough")
        elif sort == "peer":
            pair.server.close(reason_phrase="enough")
        else:
            pair.network.lose = lambda data, source, target: True
        (failed,) = await until(lambda: pair.client.heard_of(kaudp.ConnectFailed), 3)
        assert ("idle timeout" if sort == "idle" else "enough") in failed.detail
        assert not pair.client.heard_of(kaudp.SessionClosed)


@virtually
async def test_a_server_hears_that_its_mode_cannot_be() -> None:
    """KA-14.2-1: attached before the handshake, as servers do, it waits for ever in silence."""
    asked = {**HEARTS, "mode": "datagram"}
    async with paired(client={"max_datagram_frame_size": None}, far=asked, early=True) as pair:
        await asyncio.sleep(15)
        assert pair.server.heard


@virtually
async def test_connect_timeout_counts_from_the_first_attempt() -> None:
    """KA-4.2-3: QUIC's handshake is part of it, and is not begun anew when that is done."""
    config = kaudp.Config.lan(connect_timeout_ms=1_000)
    pair = applications()
    pair.network.delay = 0.4
    pair.client.attach(**{**HEARTS, "config": config})
    loop = asyncio.get_running_loop()
    begun = loop.time()
    pair.client.connect(SERVER)
    await until(lambda: pair.client.heard_of(kaudp.ConnectFailed))
    took = loop.time() - begun
    for side in pair:
        side.close()
        await side.wait_closed()
    assert took == pytest.approx(1.0, abs=0.05)


@virtually
async def test_nothing_follows_connect_failed() -> None:
    """README: ConnectFailed is the end of the session, and there is one a connection."""
    pair = applications()
    pair.network.delay = 0.2
    config = kaudp.Config.lan(connect_timeout_ms=300)
    for side in (pair.server, pair.client):
        side.attach(**{**HEARTS, "config": config})
    pair.client.connect(SERVER)
    await until(lambda: pair.client.done and pair.server.done)
    await asyncio.sleep(5)
    kinds = [type(event) for event in pair.client.heard]
    for side in pair:
        side.close()
        await side.wait_closed()
    assert kinds == [kaudp.ConnectFailed]


# Closing a session


@pytest.mark.parametrize("reason", [CloseReason.NORMAL, CloseReason.ADMINISTRATIVE, 0x8123])
@virtually
async def test_closing_a_connection_of_its_own_closes_quic_with_the_reason(reason: Any) -> None:
    """KA-14.7-2: from the client, and from the server."""
    async with linked() as (server, connection):
        await connection.close(reason)
        ended = await event_of(server, kaudp.SessionClosed)
        assert (ended.reason, ended.by_peer) == (reason, True)
        own = connection._quic._close_event
        assert (own.error_code, own.frame_type) == (int(reason), None)
        await until(lambda: not server._attachments)
    async with linked() as (server, connection):
        (attachment,) = server._attachments
        server.close_session(server.sessions[0], reason)
        ended = await event_of(connection, kaudp.SessionClosed)
        assert (ended.reason, ended.by_peer) == (reason, True)
        own = await until(lambda: attachment._quic._close_event)
        assert (own.error_code, own.frame_type) == (int(reason), None)


@virtually
async def test_a_server_that_stops_tells_its_clients() -> None:
    async with linked() as (server, connection):
        await server.close()
        ended = await event_of(connection, kaudp.SessionClosed)
        assert (ended.reason, ended.by_peer) == (CloseReason.SHUTDOWN, True)


@pytest.mark.parametrize("mode", MODES)
@virtually
async def test_closing_a_session_leaves_the_applications_connection_open(mode: str) -> None:
    """KA-14.7-2: and the peer hears the reason, where it can."""
    async with paired(**MODES[mode]) as pair:
        await pair.up()
        await pair.client.attached.close(0x8001)
        await asyncio.sleep(0.1)
        assert closed(pair.client).reason == 0x8001
        if pair.server.heart is not None:
            ended = closed(pair.server)
            assert (ended.reason, ended.by_peer) == (0x8001, True)
        await asyncio.sleep(5)
        assert not pair.client.terminated
        assert not pair.server.datagrams
        await pair.works()


@virtually
async def test_frames_after_the_end_of_a_session_are_not_the_applications() -> None:
    """KA-14.2-4 KA-5.3-1: a side that has closed still knows its session ids."""
    async with paired() as pair:
        await pair.up()
        frames: list[bytes] = []
        send = pair.client.quic.send_datagram_frame
        pair.client.quic.send_datagram_frame = (  # type: ignore[method-assign]
            lambda data: (frames.append(data), send(data))
        )
        await until(lambda: frames)
        await pair.server.attached.close()
        pair.client.send_datagram(frames[0])
        await asyncio.sleep(0.1)
        assert pair.server.datagrams == []


@virtually
async def test_an_ended_connection_is_refused() -> None:
    """KA-14.7-1: attached to what is already over, nobody waits for the connect timeout."""
    async with paired(near=None) as pair:
        pair.client.close()
        await until(lambda: pair.client.terminated)
        with pytest.raises(kaudp.QuicError, match="expected a connection that is open"):
            pair.client.attach(**HEARTS)


def test_nothing_is_left_to_report() -> None:
    """The harness itself: what a test does not take from the loop fails it."""
    with pytest.raises(AssertionError, match="reported to the loop"):

        @virtually
        async def test() -> None:
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            await asyncio.sleep(1)

        test()

    @virtually
    async def taken() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        assert len(reported()) == 1

    taken()
