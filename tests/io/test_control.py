"""What operators and applications change while sessions run, on real sockets."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

import kaudp
from tests.io.test_udp import KEY, LAN, event_of, linked, run

NEW_KEY = kaudp.PresharedKey(bytes(range(1, 33)))
INSTANCE = b"client-1"


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_both_sides_agree_on_another_interval() -> None:
    """KA-8.8-1 KA-8.8-4."""

    async def test() -> None:
        async with linked() as (server, connection):
            connection.change_intervals(interval_ms=50)
            for side in (connection, server):
                changed = await event_of(side, kaudp.IntervalChanged)
                assert (changed.previous, changed.interval) == (100_000_000, 50_000_000)
            server.slow_session_down(server.sessions[0], 80)
            for side in (connection, server):
                changed = await event_of(side, kaudp.IntervalChanged)
                assert (changed.previous, changed.interval) == (50_000_000, 80_000_000)
            assert connection.state is kaudp.State.UP

    run(test)


def test_what_no_configuration_may_have_is_refused() -> None:
    async def test() -> None:
        async with linked() as (_, connection):
            with pytest.raises(kaudp.ConfigError, match=r"interval_ms: expected .* got 5"):
                connection.change_intervals(interval_ms=5)
            with pytest.raises(kaudp.SessionStateError, match="responder's side"):
                connection.slow_session_down(connection.session, 80)
            with pytest.raises(kaudp.KeyFormatError, match="another key id"):
                connection.change_key(KEY)
            assert connection.session.parameters.desired_interval_us == 100_000
            assert not [e for e in await quiet_events(connection) if "Interval" in type(e).__name__]

    run(test)


async def quiet_events(connection: kaudp.Connection) -> list[kaudp.Event]:
    await connection.close()
    return [event async for event in connection.events()]


def test_an_operator_takes_a_session_down_and_up_again() -> None:
    """KA-8.10-1 KA-8.10-2: both ends are told, and nobody is judged meanwhile."""

    async def test() -> None:
        async with linked() as (server, connection):
            server.take_session_down(server.sessions[0])
            there = await event_of(connection, kaudp.SessionAdminDown)
            here = await event_of(server, kaudp.SessionAdminDown)
            assert (there.by_peer, here.by_peer) == (True, False)
            await asyncio.sleep(5 * LAN.interval_ms / 1000)
            assert connection.state is kaudp.State.ADMIN_DOWN
            server.take_session_up(server.sessions[0])
            for side in (connection, server):
                await event_of(side, kaudp.SessionUp)

    run(test)


def test_keys_rotate_while_sessions_run() -> None:
    """KA-4.8-1 KA-4.8-3: the procedure of the README; nobody leaves UP."""

    async def test() -> None:
        keys = {KEY.key_id: KEY}
        async with (
            kaudp.serve("udp://127.0.0.1:0", keys=keys, config=LAN) as server,
            AsyncExitStack() as stack,
        ):
            url = f"udp://127.0.0.1:{server.address[1]}"
            connections = [
                await stack.enter_async_context(kaudp.connect(url, key=KEY, config=LAN))
                for _ in range(20)
            ]
            for connection in connections:
                await event_of(connection, kaudp.SessionUp)
            keys[NEW_KEY.key_id] = NEW_KEY
            for connection in connections:
                connection.change_key(NEW_KEY)
            for connection in connections:
                changed = await event_of(connection, kaudp.KeyChanged)
                assert (changed.previous, changed.key_id) == (KEY.key_id, NEW_KEY.key_id)
            await until(lambda: {each.key_id for each in server.sessions} == {NEW_KEY.key_id})
            del keys[KEY.key_id]
            await asyncio.sleep(2 * LAN.interval_ms / 1000)
            assert len(server.sessions) == 20
            for connection in connections:
                assert connection.state is kaudp.State.UP
                kinds = {type(event) for event in await quiet_events(connection)}
                assert not kinds & {kaudp.SessionSuspect, kaudp.SessionDown, kaudp.PeerRestarted}

    run(test)


def test_a_client_that_restarts_is_told_by_its_instance_id() -> None:
    """KA-4.7-1: the server goes on with the session it has."""

    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY, config=LAN) as server:
            url = f"udp://127.0.0.1:{server.address[1]}"
            first = kaudp.connect(url, key=KEY, config=LAN, instance_id=INSTANCE)
            connection = await first.__aenter__()
            await event_of(server, kaudp.SessionUp)
            (session,) = server.sessions
            connection._release()  # as a process that is killed does
            async with kaudp.connect(url, key=KEY, config=LAN, instance_id=INSTANCE) as again:
                await event_of(again, kaudp.SessionUp)
                restarted = await event_of(server, kaudp.PeerRestarted)
                assert restarted.session is session
                assert server.sessions == [session]
            await first.__aexit__(None, None, None)

    run(test)


class Peer(asyncio.DatagramProtocol):
    """An application that neither serves nor is served."""

    def connection_made(self, transport: Any) -> None:
        self.address = transport.get_extra_info("sockname")
        self.heart = kaudp.attach(transport, keys=KEY, config=LAN)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self.heart.receive_datagram(data, addr)


def test_two_that_connect_to_each_other_have_one_session() -> None:
    """KA-4.6-1 KA-4.6-2: as two that punch holes do; neither accepts others."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        ends = [
            await loop.create_datagram_endpoint(Peer, local_addr=("127.0.0.1", 0)) for _ in range(2)
        ]
        one, other = (protocol for _, protocol in ends)
        sessions = [
            one.heart.connect(other.address, KEY),
            other.heart.connect(one.address, KEY),
        ]
        for peer in (one, other):
            await event_of(peer.heart, kaudp.SessionUp)
        await until(lambda: all(session.stats.round_trips for session in sessions))
        assert [peer.heart.sessions for peer in (one, other)] == [[each] for each in sessions]
        assert sorted(session.initiator for session in sessions) == [False, True]
        for (transport, _), peer in zip(ends, (one, other), strict=True):
            await peer.heart.close()
            transport.close()

    run(test)
