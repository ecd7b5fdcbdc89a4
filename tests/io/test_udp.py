"""io/udp on real sockets: own ones, and an application's own."""

import asyncio
import select
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

import kaudp
from kaudp.io import sockets
from kaudp.io.driver import production_endpoint

KEY = kaudp.PresharedKey(bytes(range(32)))
LAN = kaudp.Config.lan()
LIMIT_S = 10


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await test()

    asyncio.run(limited())


async def event_of(source: Any, kind: type) -> Any:
    """Read events up to the first of a kind."""
    async for event in source.events():
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the events ended without {kind.__name__}")


@asynccontextmanager
async def linked(
    server_url: str = "udp://127.0.0.1:0", host: str = "127.0.0.1"
) -> AsyncIterator[tuple[kaudp.Server, kaudp.Connection]]:
    async with kaudp.serve(server_url, keys=KEY, config=LAN) as server:
        url = f"udp://{host}:{server.address[1]}"
        async with kaudp.connect(url, key=KEY, config=LAN) as connection:
            await event_of(connection, kaudp.SessionUp)
            await event_of(server, kaudp.SessionUp)
            yield server, connection


@pytest.mark.parametrize(
    ("server_url", "host"),
    [
        ("udp://127.0.0.1:0", "localhost"),
        ("udp://[::1]:0", "[::1]"),
        ("udp://[::]:0", "127.0.0.1"),
        ("udp://0.0.0.0:0", "127.0.0.2"),
        ("udp://[::]:0", "127.0.0.3"),
    ],
)
def test_up_over_each_family_and_from_the_address_spoken_to(server_url: str, host: str) -> None:
    """KA-8.3-2: the client's socket is connected, so a reply from elsewhere would not reach it."""

    async def test() -> None:
        async with linked(server_url, host) as (server, connection):
            assert connection.state is kaudp.State.UP
            while connection.stats.round_trips < 3:
                await asyncio.sleep(0.01)
            assert len(server.sessions) == 1

    run(test)


def test_closing_tells_the_server() -> None:
    async def test() -> None:
        async with linked() as (server, connection):
            await connection.close()
            closed = await event_of(server, kaudp.SessionClosed)
            assert closed.by_peer
            assert closed.reason is kaudp.CloseReason.NORMAL
            assert [type(e) async for e in connection.events()] == [kaudp.SessionClosed]

    run(test)


def test_a_server_that_stops_tells_its_clients() -> None:
    async def test() -> None:
        async with linked() as (server, connection):
            await server.close()
            closed = await event_of(connection, kaudp.SessionClosed)
            assert closed.reason is kaudp.CloseReason.SHUTDOWN

    run(test)


def test_a_killed_server_is_down_and_the_network_hints_at_it() -> None:
    """KA-9.2-3: the hint shows in the reason, the verdict takes its time."""

    async def test() -> None:
        async with linked() as (server, connection):
            server._release()
            down = await event_of(connection, kaudp.SessionDown)
            assert down.reason is kaudp.DownReason.UNREACHABLE_REPORTED
            waited = down.time - connection.stats.round_trip_at
            assert waited >= 3 * LAN.interval_ms * 1_000_000

    run(test)


@pytest.mark.parametrize("listening", [True, False])
def test_nobody_answers(listening: bool) -> None:
    """A wrong key is silence; a closed port is silence with a hint."""

    async def test() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            port = silent.getsockname()[1]
            if not listening:
                silent.close()
            config = kaudp.Config.wan(connect_timeout_ms=1_200)
            async with kaudp.connect(f"udp://127.0.0.1:{port}", key=KEY, config=config) as one:
                failed = await event_of(one, kaudp.ConnectFailed)
                assert failed.unreachable is not listening

    run(test)


def test_a_wrong_key_is_silence() -> None:
    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY) as server:
            url = f"udp://127.0.0.1:{server.address[1]}"
            config = kaudp.Config.wan(connect_timeout_ms=700)
            other = kaudp.PresharedKey.generate()
            async with kaudp.connect(url, key=other, config=config) as connection:
                await event_of(connection, kaudp.ConnectFailed)
            assert server.counters[kaudp.DropReason.UNKNOWN_KEY] >= 1
            assert server.sessions == []

    run(test)


def test_limits_and_accept_hook() -> None:
    async def test() -> None:
        asked: list[bytes] = []

        def accept(key_id: bytes, address: Any) -> bool:
            asked.append(key_id)
            return True

        async with kaudp.serve(
            "udp://127.0.0.1:0", keys=KEY, config=LAN, accept=accept, max_sessions=1
        ) as server:
            url = f"udp://127.0.0.1:{server.address[1]}"
            brief = kaudp.Config.lan(connect_timeout_ms=700)
            async with kaudp.connect(url, key=KEY, config=brief):
                await event_of(server, kaudp.SessionUp)
                async with kaudp.connect(url, key=KEY, config=brief) as second:
                    await event_of(second, kaudp.ConnectFailed)
            assert server.counters[kaudp.DropReason.SESSION_LIMIT] >= 1
        assert KEY.key_id in asked

    run(test)


def test_a_blocked_loop_convicts_nobody() -> None:
    """KA-7.7-1 KA-7.7-4: the loop stands still for longer than the detection time."""

    async def test() -> None:
        async with linked() as (_, connection):
            await asyncio.sleep(0.3)
            time.sleep(0.8)
            await asyncio.sleep(0.5)
            seen = []
            while event := connection._events.take():
                seen.append(type(event))
            assert kaudp.SessionDown not in seen
            assert connection.state is kaudp.State.UP

    run(test)


def test_what_the_socket_refuses_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """KA-8.3-4: a full socket buffer cannot be made on loopback, so it is played."""

    async def test() -> None:
        async with linked() as (_, connection):
            refused: list[bytes] = []

            def full(sock: Any, data: bytes, address: Any) -> None:
                refused.append(data)
                raise BlockingIOError

            with monkeypatch.context() as patched:
                patched.setattr(sockets, "transmit", full)
                while len(refused) < 3:
                    await asyncio.sleep(0.01)
                assert connection.unsent["would_block"] == len(refused)
            sent: list[bytes] = []
            original = sockets.transmit
            monkeypatch.setattr(
                sockets, "transmit", lambda s, d, a: (sent.append(d), original(s, d, a))
            )
            while len(sent) < 3:
                await asyncio.sleep(0.01)
            assert not set(sent) & set(refused)

    run(test)


def test_a_name_is_looked_up_again_after_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name's new address cannot be had from the machine's resolver, so the look-up is played.

    The second DOWN comes while what the first one began still waits for its time.
    """

    async def test() -> None:
        async with (
            kaudp.serve("udp://127.0.0.1:0", keys=KEY, config=LAN) as first,
            kaudp.serve("udp://127.0.0.2:0", keys=KEY, config=LAN) as second,
            kaudp.serve("udp://127.0.0.3:0", keys=KEY, config=LAN) as third,
        ):
            addresses = [first.address, second.address, third.address]

            async def look_up(host: str, port: int) -> list[tuple[Any, ...]]:
                return [(socket.AF_INET, None, None, None, addresses[0])]

            monkeypatch.setattr(sockets, "look_up", look_up)
            async with kaudp.connect("udp://service:1", key=KEY, config=LAN) as connection:
                await event_of(connection, kaudp.SessionUp)
                for old, new in ((first, second), (second, third)):
                    addresses.pop(0)
                    old._release()
                    await event_of(connection, kaudp.SessionDown)
                    await event_of(connection, kaudp.PeerRestarted)
                    await event_of(connection, kaudp.SessionUp)
                    assert connection.session.address == new.address

    run(test)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:5",
        "tcp://h:5",
        "udp://h",
        "udp://:5",
        "udp://h:99999",
        "udp://h:x",
        "udp://h:0",
        "udp://h:5/path",
        "udp://[::1:5",
        "udp://me@h:5",
        "udp://h:5?x=1",
        "udp://h:5#y",
    ],
)
def test_a_malformed_url_is_one_clear_error(url: str) -> None:
    with pytest.raises(kaudp.AddressError, match=r"^expected .*, got '"):
        kaudp.connect(url, key=KEY)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
def test_a_name_that_does_not_resolve_is_one_clear_error(host: str) -> None:
    async def test() -> None:
        with pytest.raises(kaudp.AddressError, match="expected a host name that resolves"):
            async with kaudp.connect(f"udp://{host}:5", key=KEY):
                pass

    run(test)


def test_a_port_in_use_is_one_clear_error() -> None:
    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY) as server:
            with pytest.raises(kaudp.AddressError, match="expected a free local address"):
                async with kaudp.serve(f"udp://127.0.0.1:{server.address[1]}", keys=KEY):
                    pass

    run(test)


# An application's own socket


class Game(asyncio.DatagramProtocol):
    """A service of its own that links kaudp in."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.received: list[bytes] = []
        self.seen: list[kaudp.Event] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.heart = kaudp.attach(
            transport, keys=KEY, config=LAN, on_event=self.seen.append, **self.options
        )

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self.heart.receive_datagram(data, addr):
            return
        self.received.append(data)


@asynccontextmanager
async def games() -> AsyncIterator[tuple[Game, Game]]:
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_datagram_endpoint(lambda o=o: Game(**o), local_addr=("127.0.0.1", 0))
        for o in ({"accept": True}, {})
    ]
    (_, server), (_, client) = made
    try:
        yield server, client
    finally:
        for transport, game in made:
            await game.heart.close()
            transport.close()
        await asyncio.sleep(0)


OPTIONS = [
    (socket.SOL_SOCKET, number)
    for name in dir(socket)
    if name.startswith("SO_") and isinstance(number := getattr(socket, name), int)
] + [(socket.IPPROTO_IP, number) for number in range(1, 30)]


def options_of(sock: Any) -> dict[tuple[int, int], bytes]:
    found = {}
    for level, number in OPTIONS:
        try:
            found[level, number] = sock.getsockopt(level, number, 16)
        except OSError:
            continue
    return found


def test_attaching_changes_no_option_of_the_applications_socket() -> None:
    """KA-2-7: buffers, error queue and all."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        shared = transport.get_extra_info("socket")
        before = options_of(shared)
        assert len(before) > 20
        attachment = kaudp.attach(transport, keys=KEY)
        session = attachment.connect(("127.0.0.1", 9), KEY)
        assert session.state is kaudp.State.CONNECTING
        assert options_of(shared) == before
        await attachment.close()
        assert not transport.is_closing()
        transport.close()

    run(test)


def test_application_and_heartbeats_share_a_socket() -> None:
    """KA-2-3: every datagram of the application arrives, also one that begins like a frame."""

    async def test() -> None:
        async with games() as (server, client):
            address = server.transport.get_extra_info("sockname")
            session = client.heart.connect(address, KEY)
            own = [b"", b"hello", b"\x0b", b"\x0b\x08\x81" + bytes(61), b"\x0b" * 64, bytes(1200)]
            while session.stats.round_trips < 5:
                await asyncio.sleep(0.02)
                for data in own:
                    client.transport.sendto(data, address)
            while len(server.received) < len(own):
                await asyncio.sleep(0.01)
            # An empty datagram is one too; asyncio's transport does not send those.
            assert set(server.received) >= {data for data in own if data}
            assert set(server.received) <= set(own)
            assert client.received == []
            assert [type(e) for e in client.seen] == [kaudp.SessionUp]
            assert [type(e) for e in server.seen] == [kaudp.SessionUp]
            client.heart.note_application_sent(session)
            client.heart.note_application_received(session)

    run(test)


def test_detaching_tells_the_peer_and_leaves_the_socket_open() -> None:
    async def test() -> None:
        async with games() as (server, client):
            address = server.transport.get_extra_info("sockname")
            client.heart.connect(address, KEY)
            while not server.heart.sessions:
                await asyncio.sleep(0.01)
            await client.heart.close()
            assert isinstance(server.seen[-1], kaudp.SessionClosed)
            client.transport.sendto(b"still here", address)
            while server.received != [b"still here"]:
                await asyncio.sleep(0.01)

    run(test)


def test_a_transport_without_a_socket_is_one_clear_error() -> None:
    async def test() -> None:
        with pytest.raises(kaudp.AddressError, match="expected a transport over a UDP socket"):
            kaudp.attach(asyncio.DatagramTransport(), keys=KEY)

    run(test)


# Plain sockets


def test_the_driver_runs_over_plain_sockets() -> None:
    """No asyncio: two sockets, two drivers, select."""
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    endpoints = [production_endpoint(LAN, KEY, accept) for accept in (False, True)]
    drivers = [kaudp.Driver(e, s.sendto) for e, s in zip(endpoints, socks, strict=True)]
    session = drivers[0].connect(socks[1].getsockname(), key_id=KEY.key_id)
    kinds: list[type] = []
    deadline = time.monotonic() + LIMIT_S
    while session.stats.round_trips < 3 or session.state is not kaudp.State.UP:
        assert time.monotonic() < deadline
        waits = [wait for driver in drivers if (wait := driver.timeout()) is not None]
        for ready in select.select(socks, [], [], min(waits))[0]:
            data, address = ready.recvfrom(2048)
            assert drivers[socks.index(ready)].receive(data, address)
        for driver in drivers:
            driver.wake()
            kinds += [type(event) for event in driver.events()]
    drivers[0].close()
    assert kinds[:2] == [kaudp.SessionUp, kaudp.SessionUp]
    for sock in socks:
        sock.close()


# Mistakes and accidents


def test_an_exception_of_the_application_stops_no_heart() -> None:
    async def test() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        async with games() as (server, client):
            client.heart._on_event = lambda event: 1 / 0
            address = server.transport.get_extra_info("sockname")
            session = client.heart.connect(address, KEY)
            while session.stats.round_trips < 3:
                await asyncio.sleep(0.01)
        assert isinstance(reported[0]["exception"], ZeroDivisionError)

    run(test)


def test_an_exception_of_the_accept_hook_stops_no_server() -> None:
    async def test() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        answers = iter([lambda: {}["missing"], lambda: True, lambda: True])

        def accept(key_id: bytes, address: Any) -> bool:
            assert isinstance(address[0], str)
            return bool(next(answers)())

        async with kaudp.serve("udp://0.0.0.0:0", keys=KEY, config=LAN, accept=accept) as server:
            url = f"udp://127.0.0.1:{server.address[1]}"
            async with kaudp.connect(url, key=KEY, config=LAN) as connection:
                await event_of(connection, kaudp.SessionUp)
        assert isinstance(reported[0]["exception"], KeyError)

    run(test)


def test_a_cancelled_close_leaks_nothing() -> None:
    async def test() -> None:
        async with linked() as (server, connection):
            server._release()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await connection.close()
            assert connection._socket is None
            assert connection._closed

    run(test)


def test_events_after_the_end_end_at_once() -> None:
    async def test() -> None:
        async with linked() as (_, connection):
            await connection.close()
            assert [type(e) async for e in connection.events()] == [kaudp.SessionClosed]
            assert [type(e) async for e in connection.events()] == []

    run(test)


def test_a_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first has nobody; the network says so, and the next is tried at once."""

    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY, config=LAN) as server:
            port = server.address[1]

            async def look_up(host: str, port_: int) -> list[tuple[Any, ...]]:
                return [
                    (socket.AF_INET, None, None, None, (ip, port))
                    for ip in ("127.0.0.9", "127.0.0.1")
                ]

            monkeypatch.setattr(sockets, "look_up", look_up)
            async with kaudp.connect("udp://service:1", key=KEY, config=LAN) as connection:
                await event_of(connection, kaudp.SessionUp)
                assert connection.session.address == ("127.0.0.1", port)

    run(test)


def test_one_session_can_be_closed_and_paused() -> None:
    async def test() -> None:
        async with linked() as (server, connection):
            (session,) = server.sessions
            server.pause_session(session, 0.2)
            assert (await event_of(connection, kaudp.PeerPaused)).duration <= 200_000_000
            server.close_session(session, 0x8001)
            assert (await event_of(connection, kaudp.SessionClosed)).reason == 0x8001

    run(test)


def test_the_drivers_clock_never_goes_back() -> None:
    """A wake that is a little early is taken for on time; what comes next is not before it."""
    read, times = [0], []
    driver = kaudp.Driver(
        production_endpoint(LAN, KEY), lambda data, addr: None, clock=lambda: read[0]
    )
    for name in ("handle_timer", "receive_datagram"):
        verb = getattr(driver.endpoint, name)

        def noted(*arguments: Any, verb: Any = verb) -> Any:
            times.append(arguments[-1])
            return verb(*arguments)

        setattr(driver.endpoint, name, noted)
    driver.connect(("192.0.2.1", 1), key_id=KEY.key_id)
    due = driver.endpoint.next_timer()
    assert due is not None
    for clock in (due - 900_000, due - 800_000, due + 5):
        read[0] = clock
        driver.wake()
        driver.receive(b"", ("192.0.2.1", 1))
    assert times[:2] == [due, due]
    assert times == sorted(times)


def test_an_attachment_lets_go_of_a_socket_that_the_application_closed() -> None:
    async def test() -> None:
        async with games() as (server, client):
            address = server.transport.get_extra_info("sockname")
            own = client.transport.get_extra_info("sockname")
            client.heart.connect(address, KEY)
            client.transport.close()
            while client.heart._socket is not None:
                await asyncio.sleep(0.01)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
                again.bind(own)

    run(test)


def test_an_outage_of_the_network_is_loss_to_the_driver() -> None:
    """KA-8.3-4: `sendto` of a plain socket raises when there is no route."""

    def no_route(data: bytes, addr: Any) -> None:
        raise OSError(101, "Network is unreachable")

    driver = kaudp.Driver(production_endpoint(LAN, KEY), no_route)
    driver.connect(("192.0.2.1", 1), key_id=KEY.key_id)
    assert driver.unsent == 1
