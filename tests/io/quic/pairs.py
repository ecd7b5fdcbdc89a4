"""Two QUIC endpoints of aioquic that talk to each other, with kaudp in one or both.

In virtual time over a network in memory, where nothing waits and what is lost is chosen; or over
real loopback sockets. Both run the same adapters.
"""

import asyncio
import datetime
import functools
import ipaddress
import selectors
import socket
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import kaudp
from kaudp.io import driver as kaudp_driver
from kaudp.io import qlog as kaudp_qlog
from kaudp.io.quic.attachment import QuicAttachment

CLIENT, SERVER = ("192.0.2.1", 1000), ("192.0.2.2", 2000)
CONTEXT = b"\xd0kaudp/1"
HEADER = b"\x0b\x08\x81\x00"
STEP_S = 0.005
LIMIT_S = 20.0
REAL_LIMIT_S = 10.0
KEY = kaudp.PresharedKey(bytes(range(32)))


# Virtual time


class _Jump(selectors.DefaultSelector):
    """Does not wait: what is ready is taken, else the clock jumps to the next timer."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen"
            self.loop.elapsed += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock nobody waits for, and whose datagrams go through memory."""

    def __init__(self) -> None:
        self.elapsed = 1_000.0
        selector = _Jump()
        selector.loop = self
        self.network = Network(self)
        self.reported: list[dict[str, Any]] = []
        super().__init__(selector)

    def time(self) -> float:
        return self.elapsed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.reported.append(context)

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)

    async def create_datagram_endpoint(  # type: ignore[override]
        self, make: Callable[[], Any], *, local_addr: Any = None, sock: Any = None, **_: Any
    ) -> Any:
        if sock is not None:
            sock.close()
            address = ("::ffff:127.0.0.1", self.network.free_port(), 0, 0)
        else:
            address = (local_addr[0], local_addr[1] or self.network.free_port())
        protocol = make()
        transport = self.network.add(address, protocol)
        protocol.connection_made(transport)
        return transport, protocol


class Transport(asyncio.DatagramTransport):
    """Hands datagrams to the network in memory."""

    def __init__(self, network: "Network", address: Any, protocol: Any) -> None:
        super().__init__({"sockname": address})
        self.network, self.address, self.protocol = network, address, protocol
        self.closed = False

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not self.closed:
            self.network.send(bytes(data), self.address, addr)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True
        self.network.hosts.pop(_bare(self.address), None)


def _bare(address: Any) -> tuple[str, int]:
    return (address[0].removeprefix("::ffff:"), address[1])


class Network:
    """Delivers after `delay` seconds, but what `lose` says yes to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.delay = STEP_S
        self.hosts: dict[tuple[str, int], Transport] = {}
        self.lose: Callable[[bytes, Any, Any], bool] = lambda data, source, target: False
        self.aliases: dict[tuple[str, int], tuple[str, int]] = {}
        self.sent: list[tuple[float, bytes, Any, Any]] = []
        self._ports = iter(range(40_000, 50_000))
        self._under_way: deque[tuple[bytes, Any, Any]] = deque()

    def free_port(self) -> int:
        return next(self._ports)

    def add(self, address: Any, protocol: Any) -> Transport:
        transport = Transport(self, address, protocol)
        self.hosts[_bare(address)] = transport
        return transport

    def send(self, data: bytes, source: Any, target: Any) -> None:
        self.sent.append((self.loop.time(), data, source, target))
        if not self.lose(data, source, target):
            # Timers of the same time run in any order; what is sent first arrives first.
            self._under_way.append((data, source, target))
            self.loop.call_later(self.delay, self._deliver_next)

    def _deliver_next(self) -> None:
        self.deliver(*self._under_way.popleft())

    def deliver(self, data: bytes, source: Any, target: Any) -> None:
        target = self.aliases.get(_bare(target), _bare(target))
        transport = self.hosts.get(target)
        if transport is not None:
            seen = next((a for a, own in self.aliases.items() if own == _bare(source)), source)
            wide = len(transport.address) == 4 and len(seen) == 2
            transport.protocol.datagram_received(
                data, ("::ffff:" + seen[0], seen[1], 0, 0) if wide else seen
            )


@contextmanager
def _clock_of(loop: VirtualLoop, seed: int) -> Iterator[None]:
    """Let kaudp read this loop's clock, and draw from a seed."""

    def now_ns() -> int:
        return round(loop.time() * 1e9)

    defaults = kaudp.Driver.__init__.__kwdefaults__
    entropy = SimpleNamespace(urandom=Random(seed).randbytes)
    with (
        mock.patch.dict(defaults, clock=now_ns),
        mock.patch.object(kaudp_driver, "os", entropy),
        mock.patch.object(kaudp_qlog, "now_ns", now_ns),
    ):
        yield


def run_virtually(test: Callable[[], Coroutine[Any, Any, Any]], seed: int = 1) -> None:
    """Run a coroutine function in virtual time, up to its end and no further."""
    loops: list[VirtualLoop] = []

    def make_loop() -> VirtualLoop:
        loops.append(VirtualLoop())
        return loops[0]

    async def limited() -> None:
        async with asyncio.timeout(1_000_000):
            await test()

    with asyncio.Runner(loop_factory=make_loop) as runner, _clock_of_first(loops, runner, seed):
        runner.run(limited())
    for what in loops[0].reported:
        raise AssertionError(f"reported to the loop: {what}") from what.get("exception")


@contextmanager
def _clock_of_first(loops: list[VirtualLoop], runner: asyncio.Runner, seed: int) -> Iterator[None]:
    runner.get_loop()
    with _clock_of(loops[0], seed):
        yield


def virtually(test: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., None]:
    """Make a test of a coroutine function, in virtual time."""

    @functools.wraps(test)
    def in_virtual_time(*arguments: Any, **named: Any) -> None:
        run_virtually(lambda: test(*arguments, **named))

    return in_virtual_time


def really(test: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., None]:
    """Make a test of a coroutine function, on real sockets and within a limit of time."""

    @functools.wraps(test)
    def on_real_sockets(*arguments: Any, **named: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(REAL_LIMIT_S):
                await test(*arguments, **named)

        asyncio.run(limited())

    return on_real_sockets


def network() -> Network:
    """Give the network in memory of the loop that runs."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.network


def reported() -> list[dict[str, Any]]:
    """Take what was reported to the loop so far: the test expects it."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    taken, loop.reported = loop.reported, []
    return taken


async def until(condition: Callable[[], Any], limit: float = LIMIT_S) -> Any:
    """Wait until something is so, and give it."""
    loop = asyncio.get_running_loop()
    end = loop.time() + limit
    while not (found := condition()):
        assert loop.time() < end, "it never came to be"
        await asyncio.sleep(STEP_S)
    return found


# Certificates and configurations


@functools.cache
def certificate(*, days: int = 1, name: str = "localhost") -> tuple[Any, Any]:
    """Make a certificate that signs itself, and its key; expired where `days` is negative."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    end = now + datetime.timedelta(days=days)
    alternatives: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "localhost":
        alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(min(now, end) - datetime.timedelta(days=1))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made, key


def server_configuration(*, days: int = 1, name: str = "localhost", **options: Any) -> Any:
    cert, key = certificate(days=days, name=name)
    made = QuicConfiguration(is_client=False, **options)
    made.certificate, made.private_key = cert, key
    return made


def client_configuration(*, days: int = 1, name: str = "localhost", **options: Any) -> Any:
    """A client that trusts the certificate of these days and this name."""
    made = QuicConfiguration(is_client=True, **options)
    cert, _ = certificate(days=days, name=name)
    made.cadata = cert.public_bytes(serialization.Encoding.PEM)
    return made


# An application


class Application(QuicConnectionProtocol):
    """Notes all that reaches it, in order."""

    def __init__(self, quic: QuicConnection, stream_handler: Any = None) -> None:
        super().__init__(quic)
        self.seen: list[quic_events.QuicEvent] = []
        self.datagrams: list[bytes] = []
        self.streams: defaultdict[int, bytearray] = defaultdict(bytearray)
        self.ended: set[int] = set()
        self.resets: list[int] = []
        self.stopped: list[int] = []
        self.pings: list[int] = []
        self.heard: list[kaudp.Event] = []
        self.heart: QuicAttachment | None = None

    @property
    def quic(self) -> QuicConnection:
        return self._quic

    @property
    def attached(self) -> QuicAttachment:
        assert self.heart is not None
        return self.heart

    def quic_event_received(self, event: quic_events.QuicEvent) -> None:
        self.seen.append(event)
        match event:
            case quic_events.DatagramFrameReceived():
                self.datagrams.append(event.data)
            case quic_events.StreamDataReceived():
                self.streams[event.stream_id] += event.data
                if event.end_stream:
                    self.ended.add(event.stream_id)
            case quic_events.StreamReset():
                self.resets.append(event.stream_id)
            case quic_events.StopSendingReceived():
                self.stopped.append(event.stream_id)
            case quic_events.PingAcknowledged():
                self.pings.append(event.uid)

    def attach(self, **options: Any) -> QuicAttachment:
        self.heart = kaudp.attach_quic(self, **{"on_event": self.heard.append, **options})
        return self.heart

    def send_datagram(self, data: bytes) -> None:
        self._quic.send_datagram_frame(data)
        self.transmit()

    def send_stream(self, data: bytes, *, stream_id: int | None = None, end: bool = False) -> int:
        """Send on a stream, a new unidirectional one where none is named."""
        if stream_id is None:
            stream_id = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(stream_id, data, end)
        self.transmit()
        return stream_id

    def heard_of(self, kind: type) -> list[Any]:
        return [event for event in self.heard if isinstance(event, kind)]

    def seen_of(self, kind: type) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    @property
    def terminated(self) -> bool:
        return bool(self.seen_of(quic_events.ConnectionTerminated))

    @property
    def done(self) -> bool:
        return bool(self.seen_of(quic_events.HandshakeCompleted))


class Pair:
    """A client and a server of an application, and what both hold of kaudp."""

    def __init__(self, client: Application, server: Application, net: Network) -> None:
        self.client, self.server, self.network = client, server, net

    def __iter__(self) -> Iterator[Application]:
        return iter((self.client, self.server))

    async def works(self) -> None:
        """Check that the connection of the application carries what it did."""
        for here, there in ((self.client, self.server), (self.server, self.client)):
            sent = here.send_stream(b"still here", end=True)
            await until(lambda there=there, sent=sent: sent in there.ended)
            assert bytes(there.streams[sent]) == b"still here"

    async def up(self, round_trips: int = 2) -> "Pair":
        """Wait until both hearts beat."""
        for side in self:
            if side.heart is not None:
                await until(lambda side=side: side.heard_of(kaudp.SessionUp))
                await until(
                    lambda side=side: side.attached.session.stats.round_trips >= round_trips, 600
                )
        return self


def applications(
    client: dict[str, Any] | None = None, server: dict[str, Any] | None = None
) -> Pair:
    """Make the two sides of a connection in memory, not yet begun."""
    common: dict[str, Any] = {"alpn_protocols": ["game"], "max_datagram_frame_size": 65_536}
    near = client_configuration(**{**common, "server_name": "localhost", **(client or {})})
    far = server_configuration(**{**common, **(server or {})})
    asking = QuicConnection(configuration=near)
    answering = QuicConnection(
        configuration=far,
        original_destination_connection_id=asking.original_destination_connection_id,
    )
    net = network()
    sides = []
    for quic, address in ((asking, CLIENT), (answering, SERVER)):
        protocol = Application(quic)
        protocol.connection_made(net.add(address, protocol))
        sides.append(protocol)
    return Pair(sides[0], sides[1], net)


HEARTS: dict[str, Any] = {"peer_speaks_kaudp": True, "config": kaudp.Config.lan()}


@asynccontextmanager
async def paired(
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    *,
    near: dict[str, Any] | None = HEARTS,
    far: dict[str, Any] | None = HEARTS,
    early: bool = False,
    delay: float = STEP_S,
) -> AsyncIterator[Pair]:
    """Connect two sides in memory. `near` and `far` are what `attach_quic` is given, if at all.

    `early` attaches before the handshake.
    """
    pair = applications(client, server)
    pair.network.delay = delay
    if early:
        _attach(pair, near, far)
    pair.client.connect(SERVER)
    await until(lambda: pair.client.done and pair.server.done)
    if not early:
        _attach(pair, near, far)
    try:
        yield pair
    finally:
        for side in pair:
            side.close()
        for side in pair:
            await side.wait_closed()


def _attach(pair: Pair, near: dict[str, Any] | None, far: dict[str, Any] | None) -> None:
    # The responder first, so that no INIT finds nobody.
    for side, options in ((pair.server, far), (pair.client, near)):
        if options is not None:
            side.attach(**options)


@asynccontextmanager
async def linked(
    *,
    mode: Any = "auto",
    near: Any = None,
    far: Any = None,
    config: kaudp.Config | None = None,
    **options: Any,
) -> AsyncIterator[tuple[Any, Any]]:
    """A server and a client of kaudp's own, up. `near` and `far` are their QUIC configurations."""
    chosen = config or kaudp.Config.lan()
    async with kaudp.serve(
        "quic://127.0.0.1:0", quic=far or server_configuration(), config=chosen, **options
    ) as server:
        url = f"quic://127.0.0.1:{server.address[1]}"
        own = near or client_configuration()
        async with kaudp.connect(url, quic=own, config=chosen, mode=mode) as connection:
            await event_of(connection, kaudp.SessionUp)
            if connection.mode is not kaudp.QuicMode.PING:
                await event_of(server, kaudp.SessionUp)
            yield server, connection


# What travels


def frames_received(logger: Any) -> list[str]:
    """Give the QUIC frame types that a side received, from its qlog."""
    (trace,) = logger.to_dict()["traces"]
    return [
        frame["frame_type"]
        for event in trace["events"]
        if event["name"] == "transport:packet_received"
        for frame in event["data"]["frames"]
    ]


async def event_of(source: Any, kind: type) -> Any:
    """Read events up to the first of a kind."""
    async for event in source.events():
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the events ended without {kind.__name__}")


def heartbeats_of(side: Application) -> list[bytes]:
    """Note, from now on, what looks like a heartbeat of what one side hands to QUIC."""
    noted: list[bytes] = []
    send = side.quic.send_datagram_frame

    def send_datagram_frame(data: bytes) -> None:
        if data.startswith(CONTEXT + b"\x0b"):
            noted.append(data)
        send(data)

    side.quic.send_datagram_frame = send_datagram_frame  # type: ignore[method-assign]
    return noted
