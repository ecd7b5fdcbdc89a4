"""kaudp over UDP in asyncio: on a socket of its own, or beside an application on its socket."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook, Endpoint
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.events import CloseReason, Event, SessionDown, State
from kaudp.io import sockets
from kaudp.io.driver import Driver, production_endpoint
from kaudp.io.heart import Connection, EventCallback, Heart, Server
from kaudp.io.qlog import Qlog
from kaudp.io.sockets import AddressError
from kaudp.wire.grammar import MAGIC
from kaudp.wire.keys import KeySource, PresharedKey
from kaudp.wire.suites import OnSecrets

FIRST_BYTE: Final = bytes([MAGIC])
LOOK_UP_AGAIN_S: Final = 30.0
TRY_NEXT_S: Final = 2.0


class _SocketHeart(Heart):
    """A heart on a UDP socket."""

    def __init__(
        self,
        endpoint: Endpoint,
        on_event: EventCallback | None,
        max_events: int,
        qlog: Qlog | None,
    ) -> None:
        driver = Driver(endpoint, self._transmit, qlogs=() if qlog is None else (qlog,))
        super().__init__(driver, on_event, max_events)
        self._socket: socket.socket | None = None

    def _read_from(self) -> socket.socket | None:
        return self._socket

    def _transmit(self, data: bytes, address: Address) -> bool:
        """Send at once or drop; tell which. Spec: KA-8.3-4, KA-9.2-3."""
        if self._socket is None:
            return False
        try:
            sockets.transmit(self._socket, data, address)
        except (BlockingIOError, InterruptedError):
            self.unsent["would_block"] += 1
            return False
        except OSError as error:
            self.unsent[type(error).__name__] += 1
            self._hint(address)
            return False
        return True

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

    def _release(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None


class UdpConnection(_SocketHeart, Connection):
    """One session on a UDP socket of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        key: PresharedKey,
        config: Config,
        qlog: Qlog | None,
        keylog: OnSecrets | None,
        instance_id: bytes | None,
    ) -> None:
        # A mapping, so that a key may be added for `change_key`.
        self._keys = {key.key_id: key}
        endpoint = production_endpoint(
            config, self._keys, instance_id=instance_id, on_secrets=keylog
        )
        super().__init__(endpoint, None, config.max_events, qlog)
        self._host, self._port, self._key = host, port, key
        self._task: asyncio.Task[None] | None = None
        self._hints = asyncio.Event()

    async def close(self, reason: CloseReason | int = CloseReason.NORMAL) -> None:
        """End the session, tell the peer, close the socket."""
        if self._task is not None:
            self._task.cancel()
        await self._shut(reason)

    def change_session_key(self, session: Session, key: PresharedKey) -> None:
        """Go over to another pre-shared key without a gap; see `KeyChanged`."""
        self._keys[key.key_id] = key
        super().change_session_key(session, key)

    async def _open(self) -> None:
        """Look the name up and start. Raises `AddressError`."""
        candidates = await sockets.look_up(self._host, self._port)
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
        if isinstance(event, SessionDown):
            # What still sleeps since the last DOWN would let this one wait.
            if self._task is not None:
                self._task.cancel()
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
                candidates = await sockets.look_up(self._host, self._port)
                if self.state is State.DOWN:
                    self._go_on_at(candidates)
            await asyncio.sleep(LOOK_UP_AGAIN_S)

    def _hint(self, address: Address) -> None:
        self._hints.set()
        if self._session is not None:
            self._driver.act(self._session.note_unreachable)


class UdpServer(_SocketHeart, Server):
    """An endpoint that accepts sessions on a UDP socket of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        keys: KeySource,
        config: Config,
        accept: bool | AcceptHook,
        qlog: Qlog | None,
        keylog: OnSecrets | None,
        instance_id: bytes | None,
    ) -> None:
        asked = _with_plain_addresses(accept) if callable(accept) else accept
        endpoint = production_endpoint(
            config, keys, asked, instance_id=instance_id, on_secrets=keylog
        )
        super().__init__(endpoint, None, config.max_events, qlog)
        self._host, self._port = host, port

    @property
    def address(self) -> Any:  # noqa: ANN401
        """The socket address that the server is bound to."""
        return self._socket.getsockname() if self._socket else None

    async def close(self, reason: CloseReason | int = CloseReason.SHUTDOWN) -> None:
        """Close all sessions, tell their peers, close the socket."""
        await self._shut(reason)

    async def _open(self) -> None:
        family, _, _, _, address = (await sockets.look_up(self._host, self._port, passive=True))[0]
        try:
            sock = sockets.bound_socket(family, address)
        except OSError as error:
            raise AddressError(
                f"expected a free local address, got {self._host}:{self._port}: {error.strerror}"
            ) from None
        self._socket = sock
        with_local = sockets.is_wildcard(address)
        self._loop.add_reader(sock, lambda: self._read_ready(sock, with_local=with_local))


class Attachment(_SocketHeart):
    """kaudp beside an application on the application's own socket; made by `attach`."""

    def __init__(
        self,
        transport: asyncio.BaseTransport,
        keys: KeySource,
        config: Config,
        accept: bool | AcceptHook,
        on_event: EventCallback | None,
        qlog: Qlog | None,
        keylog: OnSecrets | None,
        instance_id: bytes | None,
    ) -> None:
        endpoint = production_endpoint(
            config, keys, accept, instance_id=instance_id, on_secrets=keylog
        )
        super().__init__(endpoint, on_event, config.max_events, qlog)
        shared = transport.get_extra_info("socket")
        if shared is None:
            raise AddressError("expected a transport over a UDP socket, got one without a socket")
        self._transport = transport
        # A duplicate of the descriptor: sending does not go through the application's queue.
        self._socket = socket.socket(fileno=os.dup(shared.fileno()))

    def _transmit(self, data: bytes, address: Address) -> bool:
        """Let go of the socket with the application's transport, else the port stays bound."""
        if self._transport.is_closing():
            self._release()
        return super()._transmit(data, address)

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
    ahead_of: asyncio.DatagramProtocol | None = None,
    qlog: Qlog | None = None,
    instance_id: bytes | None = None,
    keylog: OnSecrets | None = None,
) -> Attachment:
    """Link kaudp into a `DatagramProtocol`: call this in `connection_made`.

    Then begin `datagram_received` with `if attachment.receive_datagram(data, addr): return`; or
    name the protocol as `ahead_of`, such as an aioquic server or client on the same socket,
    and kaudp takes the first look by itself. Events go to `on_event`, or else wait in
    `attachment.events()`. Without `config` it is `Config.server()` where sessions are accepted,
    `Config.wan()` elsewhere. A `QlogFile` as `qlog` notes what happens; a `KeylogFile` as `keylog`
    the secrets, for looking into a capture. An `instance_id` of 8 bytes, kept across restarts, lets
    peers report `PeerRestarted` and go on with their sessions.
    No option of the socket is changed. Spec: KA-2-7.
    """
    chosen = config or (Config.server() if accept else Config.wan())
    attachment = Attachment(transport, keys, chosen, accept, on_event, qlog, keylog, instance_id)
    if ahead_of is not None:
        _look_first(attachment, ahead_of)
    return attachment


def _look_first(attachment: Attachment, protocol: asyncio.DatagramProtocol) -> None:
    """Hand on to a protocol only what is not kaudp's. Spec: KA-14.9-1."""
    receive = protocol.datagram_received

    def datagram_received(data: bytes, addr: Any) -> None:  # noqa: ANN401
        # The first byte tells QUIC's packets, and all else that is not ours, at no cost. KA-2-1.
        if data[:1] != FIRST_BYTE or not attachment.receive_datagram(data, addr):
            receive(data, addr)

    # The transport looks the method up on the instance at each call.
    setattr(protocol, "datagram_received", datagram_received)  # noqa: B010


def _with_plain_addresses(accept: AcceptHook) -> AcceptHook:
    """Show an accept hook the peer's socket address, also where the local one is known."""
    return lambda key_id, address: accept(key_id, getattr(address, "peer", address))
