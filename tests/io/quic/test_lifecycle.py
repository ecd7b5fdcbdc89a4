"""Coming and going: closing, cancelling, and mistakes of the application."""

import asyncio
from typing import Any

import pytest
from aioquic.asyncio.client import connect
from aioquic.quic.events import ProtocolNegotiated

import kaudp
from kaudp.events import CloseReason
from tests.io.quic.pairs import (
    HEARTS,
    SERVER,
    applications,
    client_configuration,
    event_of,
    linked,
    paired,
    really,
    reported,
    server_configuration,
    until,
    virtually,
)

LAN = kaudp.Config.lan()


def others() -> set[asyncio.Task[Any]]:
    """Give the tasks that run beside the one that asks."""
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[return-value]


def transports() -> list[Any]:
    """Give what the loop watches: every open socket transport."""
    loop: Any = asyncio.get_running_loop()
    return [key.data for fd, key in loop._selector.get_map().items() if fd != loop._ssock.fileno()]


@pytest.mark.parametrize("early", [False, True])
@virtually
async def test_attaching_before_and_after_the_handshake_is_the_same(early: bool) -> None:
    async with paired(early=early) as pair:
        await pair.up()
        kinds = [type(event) for event in pair.client.heard]
        assert kinds == [kaudp.ModeChosen, kaudp.SessionUp]
        await pair.works()


@virtually
async def test_attaching_when_the_alpn_is_negotiated_begins_one_session() -> None:
    """KA-14.5-1: that event is where aioquic's HTTP/3 examples begin; the handshake is done then,
    and its event comes next."""
    pair = applications()
    pair.server.attach(**HEARTS)
    tell = pair.client.quic_event_received

    def quic_event_received(event: Any) -> None:
        tell(event)
        if isinstance(event, ProtocolNegotiated):
            pair.client.attach(**HEARTS)

    pair.client.quic_event_received = quic_event_received  # type: ignore[method-assign]
    pair.client.connect(SERVER)
    await until(lambda: pair.client.done and pair.server.done)
    await pair.up()
    kinds = [type(event) for event in pair.client.heard]
    for side in pair:
        side.close()
        await side.wait_closed()
    assert kinds == [kaudp.ModeChosen, kaudp.SessionUp]


@virtually
async def test_the_session_is_the_same_object_all_along() -> None:
    """README: `session.stats` of what `connect` gave; taken before the handshake it goes stale."""
    pair = applications()
    pair.server.attach(**HEARTS)
    session = pair.client.attach(**HEARTS).session
    pair.client.connect(SERVER)
    await until(lambda: pair.client.done and pair.server.done)
    await pair.up()
    now = pair.client.attached.session
    for side in pair:
        side.close()
        await side.wait_closed()
    assert session is now


@pytest.mark.parametrize("mode", ["datagram", "stream", "ping"])
@virtually
async def test_closing_the_attachment_leaves_the_application_its_connection(mode: str) -> None:
    """KA-14.7-2: datagrams, streams and pings go on, whichever side lets go first."""
    for first in (0, 1):
        far = None if mode == "ping" else HEARTS
        async with paired(near={**HEARTS, "mode": mode}, far=far) as pair:
            await pair.up()
            sides = [side for side in pair if side.heart is not None]
            for side in sides if first == 0 else reversed(sides):
                await side.attached.close()
            await asyncio.sleep(1)
            for here, there in ((pair.client, pair.server), (pair.server, pair.client)):
                before = len(there.datagrams)
                here.send_datagram(b"own")
                await until(lambda there=there, before=before: len(there.datagrams) > before)
                assert there.datagrams[before:] == [b"own"]
                await here.ping()
            await pair.works()
            assert others() == set()


@pytest.mark.parametrize("mode", ["datagram", "stream"])
@virtually
async def test_attaching_again_begins_anew(mode: str) -> None:
    """KA-14.3-1, KA-14.3-6: the peer's attachment stays, and sees another session."""
    again = {**HEARTS, "mode": mode}
    async with paired(near=again) as pair:
        await pair.up()
        await pair.client.attached.close()
        await asyncio.sleep(0.5)
        heard = len(pair.server.heard)
        pair.client.attach(**again)
        await until(
            lambda: [e for e in pair.server.heard[heard:] if isinstance(e, kaudp.SessionUp)], 5
        )
        await until(lambda: pair.client.attached.stats.round_trips > 3, 5)
        await pair.works()


@virtually
async def test_the_responders_session_is_the_one_that_lives() -> None:
    """README: `state` and `stats` of the attachment are those of the new session."""
    async with paired() as pair:
        await pair.up()
        await pair.client.attached.close()
        await asyncio.sleep(0.5)
        pair.client.attach(**HEARTS)
        await asyncio.sleep(1)
        (session,) = pair.server.attached.sessions
        assert pair.server.attached.session is session
        assert pair.server.attached.state is kaudp.State.UP


@virtually
async def test_an_exception_in_on_event_stops_nothing() -> None:
    async with paired(near={**HEARTS, "on_event": lambda event: 1 / 0}) as pair:
        await until(lambda: pair.client.attached.stats.round_trips > 5)
        assert pair.client.attached.state is kaudp.State.UP
        await pair.works()
        told = reported()
        assert len(told) == 2
        assert all(isinstance(what["exception"], ZeroDivisionError) for what in told)
        assert all("on_event" in what["message"] for what in told)
    reported()


@virtually
async def test_closing_from_on_event_is_allowed() -> None:
    """An application may end its connection on what it hears, in the midst of an event."""
    async with paired(near=None) as pair:

        def on_event(event: kaudp.Event) -> None:
            pair.client.heard.append(event)
            if isinstance(event, kaudp.SessionUp):
                pair.client.close(error_code=9)

        pair.client.attach(**{**HEARTS, "on_event": on_event})
        await until(lambda: pair.client.heard_of(kaudp.SessionClosed))
        (ended,) = pair.client.heard_of(kaudp.SessionClosed)
        assert (ended.reason, ended.by_peer) == (CloseReason.CARRIER_CLOSED, False)
        assert pair.client.heard[-1] is ended


@virtually
async def test_events_may_be_read_instead() -> None:
    async with paired(near={**HEARTS, "on_event": None}) as pair:
        await event_of(pair.client.attached, kaudp.SessionUp)
        await pair.client.attached.close()
        assert [type(e) async for e in pair.client.attached.events()] == [kaudp.SessionClosed]
        assert [type(e) async for e in pair.client.attached.events()] == []


@virtually
async def test_something_else_than_a_protocol_is_one_clear_error() -> None:
    with pytest.raises(kaudp.ConfigError, match="expected a QuicConnectionProtocol of aioquic"):
        kaudp.attach_quic(object())  # type: ignore[arg-type]


@really
async def test_connect_that_is_left_by_an_exception_leaves_nothing() -> None:
    """No task, no socket; the peer is told."""
    async with kaudp.serve("quic://127.0.0.1:0", quic=server_configuration(), config=LAN) as server:
        url = f"quic://localhost:{server.address[1]}"
        before = len(transports())
        with pytest.raises(ZeroDivisionError):
            async with kaudp.connect(url, quic=client_configuration(), config=LAN) as connection:
                await event_of(connection, kaudp.SessionUp)
                await event_of(server, kaudp.SessionUp)
                raise ZeroDivisionError
        assert others() == set()
        assert len(transports()) == before
        ended = await event_of(server, kaudp.SessionClosed)
        assert (ended.reason, ended.by_peer) == (CloseReason.NORMAL, True)
    assert others() == set()
    await asyncio.sleep(0)
    assert transports() == []


@really
async def test_connect_that_is_cancelled_while_it_waits_leaves_nothing() -> None:
    """Nobody answers; the task that waits for events is cancelled."""

    async def wait() -> None:
        async with kaudp.connect("quic://127.0.0.1:9", quic=client_configuration()) as connection:
            entered.set()
            await event_of(connection, kaudp.SessionUp)

    entered = asyncio.Event()
    task = asyncio.ensure_future(wait())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert others() == set()
    await asyncio.sleep(0)
    assert transports() == []


@pytest.mark.parametrize("after", [0.005, 0.05])
@virtually
async def test_a_cancelled_exit_of_connect_leaks_no_socket(after: float) -> None:
    """As of a UDP connection: while the peer is told, and while aioquic drains."""
    loop = asyncio.get_running_loop()
    async with kaudp.serve("quic://127.0.0.1:0", quic=server_configuration(), config=LAN) as server:
        url = f"quic://127.0.0.1:{server.address[1]}"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                async with kaudp.connect(
                    url, quic=client_configuration(), config=LAN
                ) as connection:
                    await event_of(connection, kaudp.SessionUp)
                    limit.reschedule(loop.time() + after)
        transport = connection.protocol._transport
        closing = transport.is_closing()
        transport.close()
        assert closing


@virtually
async def test_a_cancelled_close_of_a_server_leaks_no_socket() -> None:
    """As of a UDP server: whatever is not confirmed yet, the socket goes."""
    async with linked() as (server, _):
        transport = server._server._transport
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await server.close()
        assert transport.is_closing()


@virtually
async def test_limits_and_the_accept_hook_hold_on_quic() -> None:
    """One session more than allowed is refused, and so is whom the hook refuses."""
    asked: list[Any] = []

    def accept(key_id: bytes, address: Any) -> bool:
        asked.append((key_id, address))
        return len(asked) < 2

    async with linked(accept=accept) as (server, _):
        url = f"quic://127.0.0.1:{server.address[1]}"
        brief = kaudp.Config.lan(connect_timeout_ms=2_000)
        async with kaudp.connect(url, quic=client_configuration(), config=brief) as second:
            await event_of(second, kaudp.ConnectFailed)
        assert server.counters[kaudp.DropReason.REFUSED] >= 1
        assert asked[0][0] == b""
    async with linked(max_sessions=1) as (server, connection):
        url = f"quic://127.0.0.1:{server.address[1]}"
        async with kaudp.connect(url, quic=client_configuration()) as second:
            await event_of(second, kaudp.ConnectFailed)
        assert server.counters[kaudp.DropReason.REFUSED] >= 1
        assert connection.state is kaudp.State.UP


@virtually
async def test_a_server_forgets_what_has_ended() -> None:
    """And goes on counting what it has counted."""
    async with kaudp.serve("quic://127.0.0.1:0", quic=server_configuration(), config=LAN) as server:
        url = f"quic://127.0.0.1:{server.address[1]}"
        for number in range(5):
            async with kaudp.connect(url, quic=client_configuration(), config=LAN) as connection:
                await event_of(connection, kaudp.SessionUp)
                connection.protocol._quic.send_datagram_frame(b"garbage")
                connection.protocol.transmit()
                await until(lambda number=number: server.counters.total() == number + 1)
            await until(lambda: not server._attachments)
        assert server.sessions == []
        assert server.counters.total() == 5


@virtually
async def test_a_configuration_for_the_wrong_side_is_one_clear_error() -> None:
    with pytest.raises(kaudp.ConfigError, match="is_client=True"):
        async with kaudp.connect("quic://127.0.0.1:1", quic=server_configuration()):
            pass
    with pytest.raises(kaudp.ConfigError, match="is_client=False"):
        async with kaudp.serve("quic://127.0.0.1:0", quic=client_configuration()):
            pass
    with pytest.raises(kaudp.ConfigError, match="expected a certificate"):
        bare = server_configuration()
        bare.certificate = None
        async with kaudp.serve("quic://127.0.0.1:0", quic=bare):
            pass


@virtually
async def test_the_users_configuration_stays_as_it_was() -> None:
    near, far = client_configuration(), server_configuration()
    before = dict(vars(near)), dict(vars(far))
    async with linked(near=near, far=far):
        pass
    assert (vars(near), vars(far)) == before


@pytest.mark.parametrize("reason", [CloseReason.CARRIER_RESET, 0x7FFF, -1, 0x10000])
@virtually
async def test_an_illegal_reason_is_one_clear_error_and_ends_nothing(reason: Any) -> None:
    async with linked() as (_, connection):
        with pytest.raises(kaudp.SessionStateError, match="expected a CloseReason"):
            await connection.close(reason)
        assert connection.state is kaudp.State.UP
        trips = connection.stats.round_trips
        await until(lambda: connection.stats.round_trips > trips + 3)


@virtually
async def test_a_connection_has_one_heart_at_a_time() -> None:
    """A second one would be told nothing of its own; after the first is closed it may come."""
    async with paired(far=None, near={**HEARTS, "mode": "ping"}) as pair:
        await until(lambda: pair.client.attached.stats.round_trips > 3, 5)
        first = pair.client.attached
        with pytest.raises(kaudp.QuicError, match="expected a connection without kaudp"):
            kaudp.attach_quic(pair.client)
        await first.close()
        pair.client.attach(**{**HEARTS, "mode": "ping"})
        await until(lambda: pair.client.attached.stats.round_trips > 3, 5)


@pytest.mark.parametrize("mode", ["datagram", "stream"])
@really
async def test_an_attached_end_meets_one_on_a_connection_of_its_own(mode: str) -> None:
    """14.2: the ALPN kaudp/1 alone tells that datagrams need no context id."""
    asking = client_configuration(
        alpn_protocols=["kaudp/1"], max_datagram_frame_size=65_536, server_name="localhost"
    )
    async with kaudp.serve("quic://127.0.0.1:0", quic=server_configuration(), config=LAN) as server:
        port = server.address[1]
        async with connect("127.0.0.1", port, configuration=asking) as protocol:
            heart = kaudp.attach_quic(protocol, mode=mode, config=LAN)  # type: ignore[arg-type]
            await event_of(heart, kaudp.SessionUp)
            await until(lambda: heart.stats.round_trips > 2)
            assert heart.address == ("127.0.0.1", port)
            assert heart.own_address is not None
            assert heart.own_address[0] == "127.0.0.1"
            await heart.close()
