"""kaudp over UDP in asyncio: on a socket of its own, or beside an application on its socket."""

import asyncio
import contextlib
import os
import select
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final, TypeVar

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook, Endpoint
from kaudp.core.outbox import EventQueue
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.core.stats import Stats
from kaudp.errors import DropReason
from kaudp.events import CloseReason, ConnectFailed, Event, SessionClosed, SessionDown, State
from kaudp.io import sockets
from kaudp.io.driver import Driver, production_endpoint
from kaudp.io.sockets import AddressError, parse_url
from kaudp.units import SECOND
from kaudp.wire.keys import KeySource, PresharedKey

CLOSE_TIMEOUT_S: Final = 2.0
LOOK_UP_AGAIN_S: Final = 30.0
TRY_NEXT_S: Final = 2.0

EventCallback = Callable[[Event], object]


class _Heart:
    """An endpoint in a loop. Everything that happens ends in `_settle`: send, tell, re-arm."""

    def __init__(self, endpoint: Endpoint, on_event: EventCallback | None, max_events: int) -> None:
        self.unsent: Counter[str] = Counter()
        self._driver = Driver(endpoint, self._transmit)
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._deferrals = 0
        self._on_event = on_event
        self._events = EventQueue(max_events)
        self._news = asyncio.Event()
        self._closed = False
        self._ended = False

    @property
    def counters(self) -> Counter[DropReason]:
        """Datagrams refused, by reason. Spec: section 12."""
        return self._driver.endpoint.counters

    def close_session(
        self, session: Session, reason: CloseReason | int = CloseReason.NORMAL
    ) -> None:
        """End one session and tell its peer."""
        self._act(lambda now: session.close(now, reason))

    def pause_session(self, session: Session, seconds: float) -> None:
        """Ask one peer to expect nothing for a while; 0 ends a pause."""
        self._act(lambda now: session.pause(int(seconds * SECOND), now))

    async def events(self) -> AsyncIterator[Event]:
        """Give the events as they come, to the end of the last session or of the endpoint."""
        while not self._ended:
            while event := self._events.take():
                self._ended = self._is_last(event)
                yield event
            if self._closed or self._ended:
                return
            self._news.clear()
            await self._news.wait()

    def _is_last(self, event: Event) -> bool:
        return False

    def _act(self, verb: Callable[[int], object]) -> None:
        self._driver.act(verb)
        self._settle()

    def _settle(self) -> None:
        """Tell the events and re-arm the timer; what there was to send is sent."""
        for event in self._driver.events():
            self._notice(event)
            if self._on_event is None:
                self._events.emit(event)
            else:
                self._call(self._on_event, event)
        self._news.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        delay = self._driver.timeout()
        if delay is not None and not self._closed:
            self._timer = self._loop.call_later(delay, self._wake)

    def _call(self, callback: EventCallback, event: Event) -> None:
        """Tell the application; its mistakes are the loop's to report and stop no heart."""
        try:
            callback(event)
        except Exception as error:
            message = "kaudp: exception in the application's on_event"
            self._loop.call_exception_handler({"message": message, "exception": error})

    def _notice(self, event: Event) -> None:
        """Let a kind of heart do something of its own about an event."""

    def _wake(self) -> None:
        """Run the timers; when late, let the loop read what waits first. Spec: KA-7.7-4."""
        if self._deferrals < sockets.READ_BATCH and self._driver.late() and self._readable():
            self._deferrals += 1
            self._timer = self._loop.call_soon(self._wake)
            return
        self._deferrals = 0
        self._driver.wake()
        self._settle()

    def _readable(self) -> bool:
        if self._socket is None or not hasattr(select, "poll"):
            return False
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        return bool(poller.poll(0))

    def _transmit(self, data: bytes, address: Address) -> None:
        """Send at once or drop. Spec: KA-8.3-4, KA-9.2-3."""
        if self._socket is None:
            return
        try:
            sockets.transmit(self._socket, data, address)
        except (BlockingIOError, InterruptedError):
            self.unsent["would_block"] += 1
        except OSError as error:
            self.unsent[type(error).__name__] += 1
            self._hint(address)

    def _hint(self, address: Address) -> None:
        """Take an error of the network for the hint that it is."""

    def _read_ready(self, sock: socket.socket, *, with_local: bool) -> None:
        datagrams = sockets.read_batch(sock, with_local=with_local)
        try:
            while (datagram := self._next(datagrams)) is not None:
                self._driver.receive(*datagram)
        finally:
            self._settle()

    def _next(self, datagrams: Iterator[tuple[bytes, Address]]) -> tuple[bytes, Address] | None:
        try:
            return next(datagrams, None)
        except OSError:
            self._hint(None)
            return None

    async def _shut(self, reason: CloseReason | int) -> None:
        """Close all sessions, tell the peers, and wait until they know or cannot be told."""
        if self._closed:
            return
        self._driver.close(reason)
        self._settle()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    while not self._driver.endpoint.quiet:
                        self._news.clear()
                        await self._news.wait()
        finally:
            self._closed = True
            self._settle()
            self._release()

    def _release(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None


class Connection(_Heart):
    """One session on a socket of its own; made by `connect`."""

    def __init__(self, host: str, port: int, key: PresharedKey, config: Config) -> None:
        super().__init__(production_endpoint(config, key), None, config.max_events)
        self._host, self._port, self._key = host, port, key
        self._task: asyncio.Task[None] | None = None
        self._hints = asyncio.Event()
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The core's session."""
        assert self._session is not None, "a Connection is entered before it is used"  # noqa: S101
        return self._session

    @property
    def state(self) -> State:
        """The present state."""
        return self.session.state

    @property
    def stats(self) -> Stats:
        """What was measured so far."""
        return self.session.stats

    async def close(self, reason: CloseReason | int = CloseReason.NORMAL) -> None:
        """End the session, tell the peer, close the socket."""
        if self._task is not None:
            self._task.cancel()
        await self._shut(reason)

    def pause(self, seconds: float) -> None:
        """Ask the peer to expect nothing for a while; 0 ends a pause."""
        self.pause_session(self.session, seconds)

    async def _open(self) -> None:
        """Look the name up and start. Raises `AddressError`."""
        candidates = await _look_up(self._host, self._port)
        address = self._open_socket(candidates)
        self._session = self._driver.connect(address, key_id=self._key.key_id)
        self._settle()
        if len(candidates) > 1:
            self._task = self._loop.create_task(self._try_others(candidates))

    def _open_socket(self, candidates: list[tuple[Any, ...]]) -> Address:
        sock = sockets.connected_socket(candidates, f"{self._host}:{self._port}")
        self._release()
        self._socket = sock
        self._loop.add_reader(sock, lambda: self._read_ready(sock, with_local=False))
        address: Address = sock.getpeername()
        return address

    def _notice(self, event: Event) -> None:
        if isinstance(event, SessionDown) and (self._task is None or self._task.done()):
            self._task = self._loop.create_task(self._look_up_while_down())

    async def _try_others(self, candidates: list[tuple[Any, ...]]) -> None:
        """While nobody has answered, go through the name's other addresses."""
        first = self.session.address
        for candidate in candidates:
            if candidate[4] == first:
                continue
            await self._hinted_or(TRY_NEXT_S)
            if self.state is not State.CONNECTING:
                return
            self._go_on_at([candidate])

    async def _hinted_or(self, seconds: float) -> None:
        self._hints.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hints.wait()

    def _go_on_at(self, candidates: list[tuple[Any, ...]]) -> None:
        """Take a fresh socket, with a fresh route, and move to the address it leads to."""
        with contextlib.suppress(OSError, AddressError):
            address = self._open_socket(candidates)
            if address != self.session.address:
                self._act(lambda now: self.session.redirect(address, now))

    async def _look_up_while_down(self) -> None:
        """While DOWN, look the name up again and again."""
        while self.state is State.DOWN:
            with contextlib.suppress(AddressError):
                candidates = await _look_up(self._host, self._port)
                if self.state is State.DOWN:
                    self._go_on_at(candidates)
            await asyncio.sleep(LOOK_UP_AGAIN_S)

    def _hint(self, address: Address) -> None:
        self._hints.set()
        if self._session is not None:
            self._driver.act(self._session.note_unreachable)

    def _is_last(self, event: Event) -> bool:
        return isinstance(event, SessionClosed | ConnectFailed)


def connect(
    url: str, *, key: PresharedKey, config: Config | None = None
) -> AbstractAsyncContextManager[Connection]:
    """Keep a heartbeat with a peer, on a socket of its own, for the length of an `async with`.

    `url` is udp://HOST:PORT. Entering looks the name up and sends the first INIT; whether
    anybody answers is told by `session.events()`: `SessionUp`, or `ConnectFailed` after
    `Config.connect_timeout_ms`.
    Raises `AddressError`.
    """
    host, port = parse_url(url)
    if port == 0:
        raise AddressError(f"expected a port of 1 to 65535, got {url!r}")
    return _opened(lambda: Connection(host, port, key, config or Config.wan()))


class Server(_Heart):
    """An endpoint that accepts sessions on a socket of its own; made by `serve`."""

    def __init__(
        self, host: str, port: int, keys: KeySource, config: Config, accept: bool | AcceptHook
    ) -> None:
        asked = _with_plain_addresses(accept) if callable(accept) else accept
        super().__init__(production_endpoint(config, keys, asked), None, config.max_events)
        self._host, self._port = host, port

    @property
    def sessions(self) -> list[Session]:
        """The sessions that are established."""
        return self._driver.endpoint.sessions

    @property
    def address(self) -> Any:  # noqa: ANN401
        """The socket address that the server is bound to."""
        return self._socket.getsockname() if self._socket else None

    async def close(self, reason: CloseReason | int = CloseReason.SHUTDOWN) -> None:
        """Close all sessions, tell their peers, close the socket."""
        await self._shut(reason)

    async def _open(self) -> None:
        family, _, _, _, address = (await _look_up(self._host, self._port, passive=True))[0]
        try:
            sock = sockets.bound_socket(family, address)
        except OSError as error:
            raise AddressError(
                f"expected a free local address, got {self._host}:{self._port}: {error.strerror}"
            ) from None
        self._socket = sock
        with_local = sockets.is_wildcard(address)
        self._loop.add_reader(sock, lambda: self._read_ready(sock, with_local=with_local))


def serve(
    url: str,
    *,
    keys: KeySource,
    config: Config | None = None,
    accept: bool | AcceptHook = True,
    max_sessions: int | None = None,
    max_sessions_per_key: int | None = None,
) -> AbstractAsyncContextManager[Server]:
    """Accept sessions, on a socket of its own, for the length of an `async with`.

    `url` is udp://HOST:PORT, 0.0.0.0 or [::] for all local addresses, port 0 for a free one.
    `accept` may be a hook (key id, address) -> bool. The limits override those of `config`.
    Raises `AddressError` and `ConfigError`.
    """
    host, port = parse_url(url)
    limits = {"max_sessions": max_sessions, "max_sessions_per_key": max_sessions_per_key}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    chosen: Config = replace(config or Config.server(), **given)  # type: ignore[arg-type]
    return _opened(lambda: Server(host, port, keys, chosen, accept))


Own = TypeVar("Own", Connection, Server)


@contextlib.asynccontextmanager
async def _opened(make: Callable[[], Own]) -> AsyncIterator[Own]:
    heart = make()
    await heart._open()
    try:
        yield heart
    finally:
        await heart.close()


class Attachment(_Heart):
    """kaudp beside an application on the application's own socket; made by `attach`."""

    def __init__(
        self,
        transport: asyncio.BaseTransport,
        keys: KeySource,
        config: Config,
        accept: bool | AcceptHook,
        on_event: EventCallback | None,
    ) -> None:
        super().__init__(production_endpoint(config, keys, accept), on_event, config.max_events)
        shared = transport.get_extra_info("socket")
        if shared is None:
            raise AddressError("expected a transport over a UDP socket, got one without a socket")
        self._transport = transport
        # A duplicate of the descriptor: sending does not go through the application's queue.
        self._socket = socket.socket(fileno=os.dup(shared.fileno()))

    @property
    def sessions(self) -> list[Session]:
        """The sessions that are established."""
        return self._driver.endpoint.sessions

    def _transmit(self, data: bytes, address: Address) -> None:
        """Let go of the socket with the application's transport, else the port stays bound."""
        if self._transport.is_closing():
            self._release()
        super()._transmit(data, address)

    def receive_datagram(self, data: bytes, addr: Address) -> bool:
        """Take a datagram in. True: it was kaudp's. False: it is the application's, untouched."""
        consumed = self._driver.receive(data, addr)
        if consumed:
            self._settle()
        return consumed

    def connect(self, addr: Address, key: PresharedKey) -> Session:
        """Start a session with a peer of the application, from the application's socket."""
        session = self._driver.connect(addr, key_id=key.key_id)
        self._settle()
        return session

    def note_application_received(self, session: Session) -> None:
        """Report authenticated traffic from the peer; counts where both sides report it."""
        self._act(session.note_application_received)

    def note_application_sent(self, session: Session) -> None:
        """Report traffic to the peer; counts where both sides report it."""
        self._act(session.note_application_sent)

    async def close(self, reason: CloseReason | int = CloseReason.SHUTDOWN) -> None:
        """Close all sessions and tell their peers. The application's socket stays open.

        The application goes on passing datagrams in meanwhile.
        """
        await self._shut(reason)

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def attach(
    transport: asyncio.BaseTransport,
    *,
    keys: KeySource,
    config: Config | None = None,
    accept: bool | AcceptHook = False,
    on_event: EventCallback | None = None,
) -> Attachment:
    """Link kaudp into a `DatagramProtocol`: call this in `connection_made`.

    Then begin `datagram_received` with `if attachment.receive_datagram(data, addr): return`.
    Events go to `on_event`, or else wait in `attachment.events()`. Without `config` it is
    `Config.server()` where sessions are accepted, `Config.wan()` elsewhere. No option of the
    socket is changed. Spec: KA-2-7.
    """
    chosen = config or (Config.server() if accept else Config.wan())
    return Attachment(transport, keys, chosen, accept, on_event)


def _with_plain_addresses(accept: AcceptHook) -> AcceptHook:
    """Show an accept hook the peer's socket address, also where the local one is known."""
    return lambda key_id, address: accept(key_id, getattr(address, "peer", address))


async def _look_up(host: str, port: int, *, passive: bool = False) -> list[tuple[Any, ...]]:
    loop = asyncio.get_running_loop()
    flags = socket.AI_PASSIVE if passive else 0
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
        raise AddressError(f"expected a host name that resolves, got {host!r}: {reason}") from None
