"""QUIC and kaudp over UDP on one port. KA-14.9-1, on real loopback sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.server import QuicServer, serve

import kaudp
from tests.io.quic.pairs import (
    KEY,
    Application,
    client_configuration,
    event_of,
    really,
    server_configuration,
    until,
)

LAN = kaudp.Config.lan()
GAME: dict[str, Any] = {"alpn_protocols": ["game"], "max_datagram_frame_size": 65_536}
# What is no frame and no QUIC packet, what looks like a frame, and what is cut short.
FOREIGN = [
    b"\x0b",
    b"\x0b\x08\x81\x00" + bytes(60),
    b"\x0b\x01\x81\x01" + bytes(150),
    b"\x40" + bytes(40),
    b"\xc0\0\0\0\x01",
    b"\x16\xfe\xfd hello DTLS",
    bytes(1_200),
]


class Stack(asyncio.DatagramProtocol):
    """Stands for a QUIC stack: notes what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[bytes, Any]] = []

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.given.append((data, addr))


@asynccontextmanager
async def quic_server() -> AsyncIterator[tuple[QuicServer, list[Application], Any]]:
    made: list[Application] = []

    def make(quic: Any, stream_handler: Any = None) -> Application:
        made.append(Application(quic))
        return made[-1]

    server = await serve(
        "127.0.0.1", 0, configuration=server_configuration(**GAME), create_protocol=make
    )
    transport = server._transport
    try:
        yield server, made, transport
    finally:
        for protocol in made:
            protocol.close()
        for protocol in made:
            await protocol.wait_closed()
        server.close()
        await asyncio.sleep(0)


def port_of(transport: Any) -> int:
    port: int = transport.get_extra_info("sockname")[1]
    return port


@really
async def test_a_quic_server_and_kaudp_share_a_port() -> None:
    """KA-14.9-1: QUIC works as before, kaudp over UDP beside it, and QUIC's hearts as well."""
    async with quic_server() as (server, made, transport):
        given: list[bytes] = []
        told = server.datagram_received

        def datagram_received(data: bytes, addr: Any) -> None:
            given.append(data)
            told(data, addr)

        server.datagram_received = datagram_received  # type: ignore[method-assign]
        heart = kaudp.attach(transport, keys=KEY, config=LAN, accept=True, ahead_of=server)
        url = f"127.0.0.1:{port_of(transport)}"
        async with (
            connect(
                "127.0.0.1",
                port_of(transport),
                configuration=client_configuration(**GAME),
                create_protocol=Application,
            ) as client,
            kaudp.connect(f"udp://{url}", key=KEY, config=LAN) as over_udp,
        ):
            assert isinstance(client, Application)
            client.attach(config=LAN)
            await event_of(over_udp, kaudp.SessionUp)
            await until(lambda: client.heard_of(kaudp.SessionUp))
            for number in range(20):
                client.send_datagram(bytes([number]) * 50)
                client.send_stream(bytes(2_000), end=True)
            await until(lambda: over_udp.stats.round_trips >= 5)
            await until(lambda: made and len(made[0].datagrams) == 20)
            await until(lambda: len(made[0].ended) == 20)
            assert made[0].datagrams == [bytes([number]) * 50 for number in range(20)]
            assert all(bytes(data) == bytes(2_000) for data in made[0].streams.values())
            # A frame that verified never reached QUIC; what did is QUIC's.
            assert given
            assert not [data for data in given if data[0] == 0x0B]
            assert len(heart.sessions) == 1
        await heart.close()


@really
async def test_what_is_not_kaudps_reaches_the_stack_unchanged() -> None:
    """KA-14.9-1: byte for byte, in order, with the address it came from."""
    loop = asyncio.get_running_loop()
    transport, stack = await loop.create_datagram_endpoint(Stack, local_addr=("127.0.0.1", 0))
    heart = kaudp.attach(transport, keys=KEY, config=LAN, accept=True, ahead_of=stack)
    url = f"udp://127.0.0.1:{port_of(transport)}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        async with kaudp.connect(url, key=KEY, config=LAN) as connection:
            await event_of(connection, kaudp.SessionUp)
            for _ in range(3):
                for data in FOREIGN:
                    other.sendto(data, ("127.0.0.1", port_of(transport)))
                await asyncio.sleep(0.03)
            await until(lambda: len(stack.given) >= 3 * len(FOREIGN))
            await until(lambda: connection.stats.round_trips >= 3)
        assert stack.given == 3 * [(data, other.getsockname()) for data in FOREIGN]
    await heart.close()
    transport.close()
    await asyncio.sleep(0)


@really
async def test_a_quic_client_and_kaudp_share_a_port() -> None:
    """KA-14.9-1: the same socket speaks QUIC to one and kaudp to another."""
    async with (
        quic_server() as (_, made, transport),
        kaudp.serve("udp://[::1]:0", keys=KEY, config=LAN) as far,
        connect(
            "127.0.0.1",
            port_of(transport),
            configuration=client_configuration(**GAME),
            create_protocol=Application,
        ) as client,
    ):
        assert isinstance(client, Application)
        heart = kaudp.attach(client._transport, keys=KEY, config=LAN, ahead_of=client)
        session = heart.connect(("::1", far.address[1], 0, 0), KEY)
        await event_of(far, kaudp.SessionUp)
        await until(lambda: session.stats.round_trips >= 3)
        made[0].send_datagram(b"from the server")
        await until(lambda: client.datagrams == [b"from the server"])
        await client.ping()
        peer = far.sessions[0].address
        assert peer[1] == client._transport.get_extra_info("sockname")[1]
        await heart.close()


@really
async def test_a_client_may_have_hearts_in_quic_and_beside_it() -> None:
    """KA-14.9-1 KA-14.4-1: both hooks take a look, in either order."""
    async with quic_server() as (server, _, transport):
        beside = kaudp.attach(transport, keys=KEY, config=LAN, accept=True, ahead_of=server)
        for inside_first in (True, False):
            async with connect(
                "127.0.0.1",
                port_of(transport),
                configuration=client_configuration(**GAME),
                create_protocol=Application,
            ) as client:
                assert isinstance(client, Application)
                if inside_first:
                    client.attach(config=LAN)
                udp = kaudp.attach(client._transport, keys=KEY, config=LAN, ahead_of=client)
                if not inside_first:
                    client.attach(config=LAN)
                own = udp.connect(("::ffff:127.0.0.1", port_of(transport), 0, 0), KEY)
                await until(lambda own=own: own.stats.round_trips >= 3)
                await until(lambda client=client: client.attached.stats.round_trips >= 3)
                await udp.close()
        await beside.close()


@pytest.mark.parametrize("scheme", ["udp", "quic"])
@really
async def test_serve_takes_quic_and_udp_on_one_port(scheme: str) -> None:
    """KA-14.9-1: with both `keys` and `quic`; events of both in one place."""
    async with kaudp.serve(
        f"{scheme}://127.0.0.1:0", keys=KEY, quic=server_configuration(), config=LAN
    ) as server:
        port = server.address[1]
        async with (
            kaudp.connect(f"udp://127.0.0.1:{port}", key=KEY, config=LAN) as over_udp,
            kaudp.connect(
                f"quic://localhost:{port}", quic=client_configuration(), config=LAN
            ) as over_quic,
        ):
            await event_of(server, kaudp.SessionUp)
            await event_of(server, kaudp.SessionUp)
            for connection in (over_udp, over_quic):
                await until(lambda one=connection: one.stats.round_trips >= 3)
            assert len(server.sessions) == 2
            for session in server.sessions:
                server.close_session(session, 0x8001)
            for connection in (over_udp, over_quic):
                ended = await event_of(connection, kaudp.SessionClosed)
                assert (ended.reason, ended.by_peer) == (0x8001, True)
        await until(lambda: not server.sessions)


@really
async def test_a_wrong_key_beside_quic_is_silence() -> None:
    async with kaudp.serve(
        "udp://127.0.0.1:0", keys=KEY, quic=server_configuration(), config=LAN
    ) as server:
        url = f"udp://127.0.0.1:{server.address[1]}"
        brief = kaudp.Config.lan(connect_timeout_ms=300)
        async with kaudp.connect(
            url, key=kaudp.PresharedKey.generate(), config=brief
        ) as connection:
            await event_of(connection, kaudp.ConnectFailed)
        assert server.counters[kaudp.DropReason.UNKNOWN_KEY] >= 1
        assert server.sessions == []
