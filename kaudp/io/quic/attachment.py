"""kaudp inside one QUIC connection: beside an application, or on a connection of its own.

Spec: section 14.
"""

import asyncio
import contextlib
import hmac
from collections.abc import Callable, Iterable
from typing import Any, Final

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.core.totals import Totals
from kaudp.errors import ConfigError, DropReason, QuicError, SessionStateError
from kaudp.events import (
    QUIC_ALPN,
    CloseReason,
    ConnectFailed,
    Event,
    IntervalAdjusted,
    Mode,
    ModeChosen,
    PeerAddressChanged,
    QuicMode,
    SessionClosed,
    State,
)
from kaudp.io.clock import now_ns
from kaudp.io.driver import Driver, production_endpoint
from kaudp.io.heart import Connection, EventCallback, Pollable
from kaudp.io.logs import Refusals
from kaudp.io.qlog import Qlog
from kaudp.io.quic import internals
from kaudp.io.quic.carriage import Carriage, Taken
from kaudp.io.quic.carriers import CONTEXT_ID, MAX_CONTEXT_ID
from kaudp.io.quic.endings import RESET, Ending, ending, error_code
from kaudp.io.quic.hooks import hooks_of
from kaudp.io.quic.internals import Closing
from kaudp.io.quic.modes import Choice, choose, fit, parse_mode
from kaudp.units import SECOND, milliseconds
from kaudp.wire.suites import Carried

RESET_TOKEN_BYTES: Final = 16
MIN_RESET_BYTES: Final = 21

_NO_QUIC: Final = "no answer to QUIC's handshake"
_NO_KAUDP: Final = (
    "QUIC is up, but no answer to kaudp's handshake: is kaudp attached at the other end, "
    "with the same context id?"
)


class QuicAttachment(Connection):
    """Heartbeats in one QUIC connection; made by `attach_quic`, `connect` and `serve`.

    Until the QUIC handshake is done the session only waits: mode and interval depend on what
    QUIC negotiates. The QUIC client is the initiator; in mode ping both sides may be.
    """

    def __init__(
        self,
        protocol: QuicConnectionProtocol,
        config: Config,
        *,
        mode: QuicMode | None,
        peer_speaks_kaudp: bool,
        context_id: int,
        dedicated: bool,
        accept: bool | AcceptHook,
        on_event: EventCallback | None,
        qlog: Qlog | None = None,
        on_gone: Callable[["QuicAttachment"], object] | None = None,
        address: Address | None = None,
        totals: Totals | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self._totals = totals or Totals()
        self._refusals = refusals or Refusals()
        self.protocol = protocol
        self._qlogs = () if qlog is None else (qlog,)
        self._on_gone = on_gone
        self._address = address
        self._quic: QuicConnection = internals.connection_of(protocol)
        self._is_client = self._quic.configuration.is_client
        hooks = hooks_of(protocol, is_client=self._is_client)
        for other in hooks.lookers[:1]:
            if isinstance(other, QuicAttachment) and not (other.closed or other.finished):
                raise QuicError(
                    "expected a connection without kaudp, got one that it is attached to; "
                    "close that attachment first"
                )
        self._config = self._fitted = config
        self._asked = mode
        self._speaks_kaudp = peer_speaks_kaudp
        self._dedicated = dedicated
        self._accept = accept
        if internals.trace(self._quic) is not None:
            self._qlogs = (*self._qlogs, Qlog(self._note_in_trace))
        self._carried = Carried(silence=_NO_QUIC)
        self._carriage = Carriage(protocol, context_id, now_ns(), dedicated=dedicated)
        self._alpn: str | None = None
        self._begun = False
        self._answered = asyncio.Event()
        self._in_event = False
        self._queued = False
        self._finished = False
        self._carrier_ended = False
        self._carrier_closed = False
        self._silent = False
        self._reason: CloseReason | int = CloseReason.NORMAL
        super().__init__(self._make_driver(config, accept=False), on_event, config.max_events)
        if internals.ended(self._quic):
            raise QuicError("expected a connection that is open, got one that has ended")
        if internals.handshake_complete(self._quic):
            self._begin(internals.alpn(self._quic))
        elif self._is_client:
            self._connect()
            self._settle()
        hooks.add(self)

    @property
    def finished(self) -> bool:
        """Whether a session of this attachment has ended."""
        return self._finished

    @property
    def mode(self) -> QuicMode | None:
        """How heartbeats travel, None while that is not known."""
        return self._carriage.mode

    @property
    def session(self) -> Session:
        """The core's session. Raises `SessionStateError` while the peer has not begun one."""
        if self._session is None:
            raise SessionStateError("expected a session, but the peer has not begun one yet")
        return self._session

    @property
    def transport_rtt(self) -> int | None:
        """QUIC's own smoothed round-trip time in ns, None before there is one."""
        return int(internals.smoothed_rtt(self._quic) * SECOND) or None

    @property
    def head_of_line_delay(self) -> int | None:
        """By how much, in mode stream, the latest round trip exceeds QUIC's own; ns."""
        if self.mode is not QuicMode.STREAM or self._session is None:
            return None
        latest, transport = self._session.stats.rtt_latest, self.transport_rtt
        return None if latest is None or transport is None else max(0, latest - transport)

    def note_application_received(self) -> None:
        """Report authenticated traffic from the peer; counts where both sides report it."""
        self._act(self.session.note_application_received)

    def note_application_sent(self) -> None:
        """Report traffic to the peer; counts where both sides report it."""
        self._act(self.session.note_application_sent)

    async def close(self, reason: CloseReason | int = CloseReason.NORMAL) -> None:
        """End the session and tell the peer; the application's connection stays open.

        A connection of kaudp's own is closed too, with the reason as error code. KA-14.7-2.
        """
        self._reason = reason
        await self._shut(reason)
        self._close_own_connection()

    async def answered(self, seconds: float) -> bool:
        """Wait for QUIC's handshake to end, well or not; False where nobody has answered."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._answered.wait()
        return self._answered.is_set()

    def close_transport(self) -> None:
        """Close the socket of a connection of kaudp's own."""
        transport = internals.transport_of(self.protocol)
        if transport is not None:
            transport.close()

    # Between aioquic and the application.

    def take(self, event: QuicEvent) -> Iterable[QuicEvent]:
        """Look at an event of the connection first; give what goes on to the application."""
        if isinstance(event, ConnectionTerminated) and self._on_gone is not None:
            self._on_gone(self)
        if self._carrier_ended:
            return (event,)
        self._in_event = True
        try:
            if isinstance(event, HandshakeCompleted):
                self._answered.set()
                if not self._begun and not self._finished:
                    self._begin_or_fail(event.alpn_protocol)
            elif isinstance(event, ConnectionTerminated):
                self._end(ending(event, Closing.NEITHER, self._alpn))
            else:
                return self._take_frames(self._carriage.take(event))
        finally:
            # What was queued meanwhile aioquic sends as soon as its events are told.
            self._in_event = self._queued = False
        return (event,)

    def _take_frames(self, taken: Taken) -> Iterable[QuicEvent]:
        if taken.refused is not None:
            self._count_refused(taken.refused)
        consumed = True
        for frame in taken.frames:
            consumed = self._receive(frame, taken)
        return taken.passed if consumed else taken.otherwise

    def _count_refused(self, reason: DropReason) -> None:
        self.counters[reason] += 1
        self._refusals.note(reason, internals.peer_address(self._quic), self._driver.now)

    def transmitting(self) -> None:
        """Let nothing out after a stateless reset: the peer has no connection (RFC 9000, 10.3)."""
        if self._silent:
            self._quic.datagrams_to_send(now=self._loop.time())

    def transmitted(self) -> None:
        """Notice at once, not when aioquic has drained, that the connection is closing."""
        closing = internals.closing(self._quic)
        if closing is Closing.NEITHER or self._carrier_ended:
            return
        event = internals.close_event(self._quic)
        if event is not None:
            self._end(ending(event, closing, self._alpn))

    def received(self, data: bytes) -> None:
        """Notice a stateless reset, which aioquic does not look for. Spec: KA-14.7-1."""
        token = internals.reset_token(self._quic)
        if (
            len(token) == RESET_TOKEN_BYTES
            and len(data) >= MIN_RESET_BYTES
            and hmac.compare_digest(data[-RESET_TOKEN_BYTES:], token)
            and not self._carrier_ended
        ):
            self._silent = self._dedicated
            self._end(RESET)
            self._close_own_connection()

    # How it begins and ends.

    def _begin_or_fail(self, alpn: str | None) -> None:
        try:
            self._begin(alpn)
        except QuicError as error:
            if self._session is None:
                self._connect()
            self._end(Ending(CloseReason.CARRIER_FAILED, False, str(error)))
            self._close_own_connection()

    def _begin(self, alpn: str | None) -> None:
        """Start, now that it is known what QUIC negotiated. Raises `QuicError`.

        Spec: KA-14.1-3, KA-14.5-1, KA-14.6-1.
        """
        quic = self._quic
        self._alpn = alpn
        self._begun = True
        self._carried.silence = _NO_KAUDP
        self._driver.qlogs = self._qlogs
        choice = choose(
            self._asked,
            alpn=alpn,
            speaks_kaudp=self._speaks_kaudp,
            own=quic.configuration.max_datagram_frame_size or 0,
            peer=internals.peer_datagram_limit(quic),
        )
        fitted = fit(
            self._config,
            idle_timeout_s=internals.idle_timeout(quic),
            probe_timeout_s=internals.probe_timeout(quic),
        )
        if choice.mode is not QuicMode.PING:
            self._carriage.listen(own_alpn=alpn == QUIC_ALPN)
        self._fitted = fitted
        if choice.mode is QuicMode.PING or self._is_client:
            self._carriage.use(choice.mode)
            if choice.mode is QuicMode.PING:
                self._carried.answer_delay = int(internals.max_ack_delay(quic) * SECOND)
            self._driver.act(lambda now: self._driver.endpoint.reconfigure(fitted, now))
            self._introduce(self._session or self._connect(), choice)
        else:
            self._driver = self._make_driver(fitted, accept=self._accept)
        self._settle()

    def _introduce(self, session: Session, choice: Choice) -> None:
        """Tell how a session will run. Spec: KA-14.5-1, KA-14.6-1."""
        self._carried.repeats = choice.mode is not QuicMode.DATAGRAM
        self._announce(ModeChosen(session, self._driver.now, choice.mode, choice.why))
        setting = "interval_ms" if session.initiator else "min_receive_interval_ms"
        asked, given = getattr(self._config, setting), getattr(self._fitted, setting)
        if asked != given:
            idle = internals.idle_timeout(self._quic)
            timeout = internals.probe_timeout(self._quic)
            why = f"{setting}: QUIC's idle timeout is {idle:.3g} s, its PTO {timeout:.3g} s"
            asked, given = milliseconds(asked), milliseconds(given)
            self._announce(IntervalAdjusted(session, self._driver.now, asked, given, why))

    def _make_driver(self, config: Config, *, accept: bool | AcceptHook) -> Driver:
        endpoint = production_endpoint(config, self._carried, accept, totals=self._totals)
        # What the session says while it waits for QUIC goes nowhere.
        qlogs = self._qlogs if self._begun else ()
        return Driver(endpoint, self._transmit, qlogs=qlogs, refusals=self._refusals)

    def _connect(self) -> Session:
        address = internals.peer_address(self._quic) or self._address
        self._session = self._driver.connect(address, key_id=self._carried.key_id)
        return self._session

    def _end(self, end: Ending) -> None:
        """End with the connection. Spec: KA-14.7-1."""
        self._carrier_ended = True
        if end.reason is not CloseReason.CARRIER_IDLE:
            self._answered.set()
        self._driver.act(
            lambda now: self._driver.endpoint.abandon(
                now, end.reason, by_peer=end.by_peer, detail=end.detail
            )
        )
        self._settle()

    def _close_own_connection(self) -> None:
        """Close the connection where nobody else uses it. Spec: KA-14.7-2."""
        if not self._dedicated or self._carrier_closed:
            return
        self._carrier_ended = self._carrier_closed = True
        self.protocol.transmit()
        self.protocol.close(error_code=error_code(self._reason))

    # Frames out and in.

    def _transmit(self, frame: bytes, address: Address) -> bool:
        """Queue a frame, or tell that it is dropped; where it goes is QUIC's to decide."""
        if self._carrier_ended or self._carriage.current is None:
            return False
        dropped = self._carriage.send(frame, self._driver.now)
        if dropped:
            self.unsent[dropped] += 1
            return False
        self._queued = True
        return True

    def _receive(self, frame: bytes, taken: Taken) -> bool:
        """Take a frame in; a responder answers in the mode it came in. Spec: KA-14.5-3.

        The endpoint is this connection's own, so no other's frames reach its session: KA-14.1-2.
        """
        address = internals.peer_address(self._quic)
        former = self._carriage.current
        if not self._is_client:
            self._carriage.current = taken.carrier
        self._carried.longest_response = int(internals.probe_timeout(self._quic) * SECOND)
        consumed = self._driver.receive(frame, address)
        if consumed:
            self._carriage.heard(self._driver.now)
            self._follow(address)
        else:
            self._carriage.current = former
        self._settle()
        return consumed

    def _follow(self, address: Address) -> None:
        """Take note of the session that the peer has begun, or of where QUIC has found it."""
        if self._session is None or self._session.state is State.CLOSED:
            self._adopt()
        elif address != self._session.address and self.mode is QuicMode.PING:
            self._move(self._session, address)

    def _adopt(self) -> None:
        """Take note of the session that the peer has begun."""
        for session in self.sessions:
            if session is not self._session and self.mode is not None:
                self._session = session
                self._introduce(session, Choice(self.mode, "the peer chose it"))

    def _move(self, session: Session, address: Address) -> None:
        """Follow QUIC to the peer's new address. Spec: KA-14.8-1."""
        previous = session.address
        self._driver.act(lambda now: session.redirect(address, now))
        self._announce(PeerAddressChanged(session, self._driver.now, previous, address))

    def _settle(self) -> None:
        """Flush QUIC too, unless aioquic is about to do so itself."""
        while (answer := self._carriage.answer()) is not None:
            self._driver.receive(answer, internals.peer_address(self._quic))
        super()._settle()
        if self._queued and not self._in_event:
            self._queued = False
            self.protocol.transmit()
        if self._finished and self._driver.endpoint.quiet:
            self._close_own_connection()

    def _notice(self, event: Event) -> None:
        if not isinstance(event, SessionClosed | ConnectFailed):
            return
        self._finished = True
        if not self._begun:
            self._note(event)
        if isinstance(event, SessionClosed):
            self._reason = event.reason

    def _announce(self, event: Event) -> None:
        """Tell an event of this adapter's own."""
        self._totals.events[type(event).__name__] += 1
        self._driver.note(event)
        self._tell(event)

    def _is_last(self, event: Event) -> bool:
        """Only an initiator's session is its last: a peer may begin another."""
        initiated = self._session is not None and self._session.initiator
        return super()._is_last(event) and (initiated or self._carrier_ended)

    def _note(self, event: Event) -> None:
        for qlog in self._qlogs:
            qlog.event(event)

    def _note_in_trace(self, now: int, name: str, data: dict[str, Any]) -> None:
        """Write into aioquic's qlog of the connection; it stamps the time itself."""
        trace = internals.trace(self._quic)
        if trace is not None:
            trace.log_event(category="kaudp", event=name, data=data)

    def _read_from(self) -> Pollable | None:
        transport = internals.transport_of(self.protocol)
        return None if transport is None else transport.get_extra_info("socket")


def attach(
    protocol: QuicConnectionProtocol,
    *,
    mode: Mode,
    peer_speaks_kaudp: bool,
    config: Config | None,
    context_id: int | None,
    on_event: EventCallback | None,
    qlog: Qlog | None,
) -> QuicAttachment:
    """Attach beside an application; see `kaudp.attach_quic`."""
    if not isinstance(protocol, QuicConnectionProtocol):
        raise ConfigError(
            "protocol: expected a QuicConnectionProtocol of aioquic, "
            f"got a {type(protocol).__name__}"
        )
    quic = internals.connection_of(protocol)
    default = Config.wan() if quic.configuration.is_client else Config.server()
    return QuicAttachment(
        protocol,
        config or default,
        mode=parse_mode(mode),
        peer_speaks_kaudp=peer_speaks_kaudp,
        context_id=CONTEXT_ID if context_id is None else _checked_context_id(context_id),
        dedicated=False,
        accept=True,
        on_event=on_event,
        qlog=qlog,
    )


def _checked_context_id(context_id: int) -> int:
    if (
        isinstance(context_id, bool)
        or not isinstance(context_id, int)
        or not 0 <= context_id <= MAX_CONTEXT_ID
    ):
        raise ConfigError(f"context_id: expected an int of 0 to 2**62 - 1, got {context_id!r}")
    return context_id
