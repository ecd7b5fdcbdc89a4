"""A server of QUIC connections of kaudp's own, and of kaudp over UDP on the same port if asked."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as serve_quic
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.core.totals import Tally, Totals, by_state
from kaudp.errors import ConfigError, DropReason
from kaudp.events import QUIC_ALPN, CloseReason
from kaudp.io import sockets
from kaudp.io.heart import Announcer, Heart, Server
from kaudp.io.logs import Refusals
from kaudp.io.qlog import Qlog
from kaudp.io.quic import internals
from kaudp.io.quic.attachment import QuicAttachment
from kaudp.io.quic.carriers import CONTEXT_ID
from kaudp.io.quic.modes import MAX_DATAGRAM_FRAME_SIZE
from kaudp.io.udp import Attachment, attach
from kaudp.wire.keys import KeySource
from kaudp.wire.suites import OnSecrets

TOO_MANY: Final = CloseReason.ADMINISTRATIVE


class QuicServer(Announcer, Server):
    """Accepts sessions on QUIC, one a connection, and on UDP where keys are given. KA-14.9-1."""

    def __init__(
        self,
        host: str,
        port: int,
        quic: QuicConfiguration,
        config: Config,
        accept: bool | AcceptHook,
        keys: KeySource | None,
        qlog: Qlog | None,
        keylog: OnSecrets | None,
        instance_id: bytes | None,
    ) -> None:
        super().__init__(None, config.max_events, Totals())
        self._instance_id = instance_id
        self._host, self._port = host, port
        self._config = config
        self._accept = accept
        self._keys = keys
        self._qlog = qlog
        self._keylog = keylog
        self._refusals = Refusals()
        self._configuration = _configuration(quic)
        self._attachments: set[QuicAttachment] = set()
        self._serving: set[QuicAttachment] = set()
        self._udp: Attachment | None = None
        self._server: Any = None

    @property
    def sessions(self) -> list[Session]:
        """The sessions that are established, on QUIC and on UDP."""
        return [session for heart in self._hearts() for session in heart.sessions]

    @property
    def counters(self) -> Counter[DropReason]:
        """Datagrams refused, by reason. Spec: section 12."""
        over_udp: Counter[DropReason] = Counter() if self._udp is None else self._udp.counters
        return self._totals.refused + over_udp

    def tally(self) -> Tally:
        """Count the sessions by state, and give a copy of the totals."""
        states = [state for heart in self._hearts() for state in heart.states()]
        over_udp = Totals() if self._udp is None else self._udp.tally().totals
        return Tally(by_state(states), self._totals + over_udp)

    @property
    def address(self) -> Any:  # noqa: ANN401
        """The socket address that the server is bound to."""
        return internals.server_transport(self._server).get_extra_info("sockname")

    def act_on(self, session: Session, verb: Callable[[int], object]) -> None:
        """Do something to a session that takes `now`, in ns."""
        for heart in self._hearts_of(session):
            heart.act_on(session, verb)

    async def close(self, reason: CloseReason | int = CloseReason.SHUTDOWN) -> None:
        """Close all sessions, tell their peers, close their connections and the socket."""
        if self._closed:
            return
        hearts: list[QuicAttachment | Attachment] = [*self._attachments]
        if self._udp is not None:
            hearts.append(self._udp)
        try:
            await asyncio.gather(*(heart.close(reason) for heart in hearts))
        finally:
            self._closed = True
            self._refusals.flush()
            self._news.set()
            self._server.close()

    async def _open(self) -> None:
        candidates = await sockets.look_up(self._host, self._port, passive=True)
        try:
            self._server = await serve_quic(
                candidates[0][4][0],
                self._port,
                configuration=self._configuration,
                create_protocol=self._make,
            )
        except OSError as error:
            raise sockets.AddressError(
                f"expected a free local address, got {self._host}:{self._port}: {error.strerror}"
            ) from None
        if self._keys is not None:
            self._udp = attach(
                internals.server_transport(self._server),
                keys=self._keys,
                config=self._config,
                accept=self._accept,
                on_event=self._tell,
                ahead_of=self._server,
                qlog=self._qlog,
                instance_id=self._instance_id,
                keylog=self._keylog,
            )

    def _make(
        self, connection: QuicConnection, stream_handler: object = None
    ) -> QuicConnectionProtocol:
        protocol = QuicConnectionProtocol(connection)
        # Handshakes under way are bounded as embryos are; sessions by `_admits`.
        if len(self._attachments) >= self._config.max_sessions + self._config.max_embryos:
            self._loop.call_soon(protocol.close, int(TOO_MANY))
            return protocol
        attachment = QuicAttachment(
            protocol,
            self._config,
            mode=None,
            peer_speaks_kaudp=True,
            context_id=CONTEXT_ID,
            dedicated=True,
            accept=lambda key_id, addr: self._admits(attachment, key_id, addr),
            on_event=self._tell,
            on_gone=self._forget,
            qlog=self._qlog,
            totals=self._totals,
            refusals=self._refusals,
        )
        self._attachments.add(attachment)
        return protocol

    def _admits(self, attachment: QuicAttachment, key_id: bytes, address: Address) -> bool:
        """Bound the sessions on QUIC, then ask the application. Spec: KA-11-2."""
        if attachment not in self._serving:
            if len(self._serving) >= self._config.max_sessions:
                return False
            if not (self._accept(key_id, address) if callable(self._accept) else self._accept):
                return False
            self._serving.add(attachment)
        return True

    def _forget(self, attachment: QuicAttachment) -> None:
        self._attachments.discard(attachment)
        self._serving.discard(attachment)

    def _hearts(self) -> list[Heart]:
        return [*self._attachments, *([self._udp] if self._udp is not None else [])]

    def _hearts_of(self, session: Session) -> list[Heart]:
        return [heart for heart in self._hearts() if session in heart.sessions]


def _configuration(quic: QuicConfiguration) -> QuicConfiguration:
    if quic.is_client:
        raise ConfigError("quic: expected QuicConfiguration(is_client=False) to serve, got True")
    if quic.certificate is None or quic.private_key is None:
        raise ConfigError(
            "quic: expected a certificate and its private key (QuicConfiguration.load_cert_chain), "
            "got none"
        )
    return replace(
        quic,
        alpn_protocols=quic.alpn_protocols or [QUIC_ALPN],
        max_datagram_frame_size=quic.max_datagram_frame_size or MAX_DATAGRAM_FRAME_SIZE,
    )
