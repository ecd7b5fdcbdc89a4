"""One heartbeat session: frames in, frames out, and the timers between.

What the frames mean for the peer's life is judged in `liveness`; how they look in `channel`.
Spec: sections 4 to 10.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from kaudp.config import Config
from kaudp.core import cadence
from kaudp.core.channel import Channel, Evidence, Said
from kaudp.core.detectors import detector_for
from kaudp.core.handshake import (
    HANDSHAKE_LIFETIME,
    HANDSHAKE_RETRY_INITIAL,
    HANDSHAKE_RETRY_MAX,
    NO_SESSION,
    Attempt,
    Embryo,
    Identity,
)
from kaudp.core.liveness import Liveness
from kaudp.core.outbox import Outbox
from kaudp.core.paths import (
    Address,
    OwnAddress,
    PeerPath,
    Seen,
    address_bytes,
    address_from_bytes,
    address_hash,
)
from kaudp.core.pause import Pause
from kaudp.core.routes import Routes
from kaudp.core.rtt import RoundTripTimes
from kaudp.core.states import Input
from kaudp.core.stats import DirectionCounts, Stats
from kaudp.core.suspicion import MIN_UNANSWERED
from kaudp.core.timers import Timer, TimerQueue, TimerTable
from kaudp.errors import DropReason, Refused, SessionStateError
from kaudp.events import (
    CloseReason,
    ConnectFailed,
    DownReason,
    Event,
    OwnAddressChanged,
    PeerAddressChanged,
    PeerPaused,
    PeerRestarted,
    RoundTrip,
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
    State,
)
from kaudp.units import MAX_UINT32, MILLISECOND, milliseconds
from kaudp.wire.codec import NO_OPTIONS, Body, Options, Parameters, TransportHeader
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import Credential, Entropy

CLOSE_TRANSMISSIONS: Final = 3
OPTION_HEADER_BYTES: Final = 2
ADDRESS_OPTION_BYTES: Final = OPTION_HEADER_BYTES + 19

_STATES: Final = tuple(State)
_DIAGNOSTICS: Final = {State.DOWN: 1, State.HALF_OPEN: 2}


class Context:
    """What the sessions of one endpoint share."""

    __slots__ = ("config", "entropy", "identity", "outbox", "queue", "rng", "routes")

    def __init__(
        self, config: Config, identity: Identity, rng: Random, entropy: Entropy, linger: int
    ) -> None:
        self.config = config
        self.identity = identity
        self.rng = rng
        self.entropy = entropy
        self.outbox = Outbox(config.max_events)
        self.routes: Routes[Session] = Routes(config, linger)
        self.queue: TimerQueue[Session] = TimerQueue()

    def draw(self) -> int:
        """Draw a uniform 32-bit integer for jitter."""
        return self.rng.getrandbits(32)


class Session:
    """The relation to one peer. Made by `Endpoint.connect`, or by a peer that connected.

    All times are integer nanoseconds on the scale of the driver's `now`.
    """

    def __init__(
        self,
        context: Context,
        credential: Credential,
        address: Address,
        now: int,
        *,
        initiator: bool,
    ) -> None:
        self.key_id = credential.key_id
        self.initiator = initiator
        self.timers = TimerTable()
        self.queued_at: int | None = None
        self._context = context
        self._credential = credential
        self._path = PeerPath(address)
        self._configure(now)
        self._rtts = RoundTripTimes()
        self._channel: Channel | None = None
        self._confirmed_id = NO_SESSION
        self._names: list[bytes] = []
        self._attempt: Attempt | None = None
        self._retry = HANDSHAKE_RETRY_INITIAL
        self._control_spacing = 0
        self._peer_epoch = b""
        self._own_address = OwnAddress()
        self._address_hash = 0
        self._diagnostic = 0
        self._closing = 0
        self._close_reason = 0
        self._finished = False
        self._sent = 0
        self._unreachable = False
        self._handshakes = 0
        self._retired_out = DirectionCounts()
        self._retired_in = DirectionCounts()
        context.routes.add_session(self)

    def __repr__(self) -> str:
        role = "initiator" if self.initiator else "responder"
        return f"<Session {role} {self.state.name} peer={self.address}>"

    # What the application sees and says.

    @property
    def state(self) -> State:
        """The present state. Spec: section 6.1."""
        return self._liveness.state

    @property
    def address(self) -> Address:
        """Where the peer is."""
        return self._path.address

    @property
    def own_address(self) -> tuple[str, int] | None:
        """Our (host, port) as the peer sees it, None while it has not told. Spec: section 9.2."""
        return self._own_address.address

    @property
    def continuable(self) -> bool:
        """Whether a handshake of the peer may give this session new keys. Spec: KA-4.3-5."""
        return not self.initiator and self.state is not State.CLOSED

    @property
    def stats(self) -> Stats:
        """What was measured so far."""
        live = self._liveness
        out, home = self._direction_counts()
        counted = not self._credential.repeats
        return Stats(
            state=live.state,
            peer_state=live.peer_state,
            interval=live.interval,
            probe_timeout=live.pto,
            sent=self._sent,
            received=home.arrived,
            unreported=self._sent - out.sent,
            unreachable=self._unreachable,
            lost_out=out.lost,
            lost_in=home.lost,
            loss_out=out.loss if counted else None,
            loss_in=home.loss if counted else None,
            round_trips=self._rtts.count,
            rtt_latest=self._rtts.latest,
            rtt_min=self._rtts.least,
            rtt_mean=self._rtts.mean,
            rtt_max=self._rtts.greatest,
            rtt_smoothed=live.response_time.smoothed,
            jitter=self._rtts.jitter,
            suspicions=live.suspicions,
            stalls=live.stalls,
            handshakes=self._handshakes,
            rx_at=live.rx_at,
            round_trip_at=live.round_trip_at,
        )

    def close(self, now: int, reason: CloseReason | int = CloseReason.NORMAL) -> None:
        """End the session and tell the peer; closing twice does nothing. Spec: KA-6.4-1.

        `reason` is a `CloseReason` or an int of the application's own, 0x8000 to 0xFFFF.
        """
        if not (0 <= reason <= CloseReason.KEY_EXHAUSTED or 0x8000 <= reason <= 0xFFFF):
            raise SessionStateError(
                "expected a CloseReason up to KEY_EXHAUSTED, or 0x8000 to 0xFFFF, as reason, "
                f"got {reason!r}"
            )
        if self.state is State.CLOSED:
            return
        self._end(Input.CLOSE, now)
        self._context.outbox.emit(SessionClosed(self, now, reason, by_peer=False))
        if self._channel is None:
            self._finish(now)
            self._scheduled(now)
            return
        self._close_reason = int(reason)
        self._transmit_close(now)
        self._scheduled(now)

    def abandon(self, now: int, reason: CloseReason | int, *, by_peer: bool, detail: str) -> None:
        """End with the connection that carried the session; nothing can be sent. KA-14.7-1."""
        before = self.state
        if before is not State.CLOSED:
            self._end(Input.CLOSE, now)
            if before is State.CONNECTING:
                ended: Event = ConnectFailed(self, now, self._unreachable, detail)
            else:
                ended = SessionClosed(self, now, reason, by_peer, detail)
            self._context.outbox.emit(ended)
        self._finish(now)
        self._scheduled(now)

    def pause(self, duration: int, now: int) -> None:
        """Ask the peer to expect nothing for `duration` ns; 0 ends a pause. Spec: KA-8.6-1.

        NAT keep-alive goes on. Raises `SessionStateError` before the first UP and after the end.
        """
        if duration < 0:
            raise SessionStateError(f"expected a pause of 0 ns or more, got {duration}")
        if self._channel is None or self.state is State.CLOSED:
            raise SessionStateError(f"expected an established session, it is {self.state.name}")
        self._pause.begin(duration, now)
        self._control_spacing = self._liveness.pto
        self._hold_judgement(now)
        self._control_due(now, now)
        self._scheduled(now)

    def note_application_received(self, now: int) -> None:
        """Report that authenticated application traffic came from the peer. Spec: KA-8.5-1."""
        if self._liveness.traffic_replaces_probes and self.state is not State.CLOSED:
            self._liveness.heard(now)
            self._scheduled(now)

    def note_application_sent(self, now: int) -> None:
        """Report that application traffic went to the peer: it may replace a probe. KA-8.5-2."""
        live = self._liveness
        if live.traffic_replaces_probes and self.initiator and self.state is State.UP:
            at = live.postponed_probe(self._context.draw(), now)
            self.timers.arm(Timer.PROBE, max(at, now + 1))
            self._scheduled(now)

    def note_unreachable(self, now: int) -> None:
        """Report an ICMP error: a hint that hastens the next probe, no more. Spec: KA-9.2-3."""
        self._unreachable = True
        planned = self.timers.armed(Timer.PROBE)
        hastened = now + self._liveness.spacing()
        if (
            self.state is State.UP
            and planned is not None
            and planned > hastened
            and self._liveness.may_hasten(now)
        ):
            self.timers.arm(Timer.PROBE, hastened)
            self._scheduled(now)

    def redirect(self, address: Address, now: int) -> None:
        """Go on at another address of the peer, such as a name's new one; probes start there."""
        if self.state is State.CLOSED:
            return
        self._move(address)
        if self._attempt is not None or self._channel is None:
            self._begin_attempt(now)
        self._scheduled(now)

    # Frames in.

    def begin(self, now: int) -> None:
        """Start the first handshake. Spec: KA-4.2-2, KA-4.2-3."""
        timeout = self._context.config.connect_timeout_ms
        if timeout is not None:
            self.timers.arm(Timer.EXPIRY, now + milliseconds(timeout))
        self._begin_attempt(now)
        self._scheduled(now)

    def reconfigure(self, now: int) -> None:
        """Begin anew with the endpoint's changed configuration; only while CONNECTING."""
        self._configure(now)
        self._retry = HANDSHAKE_RETRY_INITIAL
        self._begin_attempt(now)
        self._scheduled(now)

    def _configure(self, now: int) -> None:
        config = self._context.config
        self._liveness = Liveness(
            config,
            detector_for(config),
            self.timers,
            initiator=self.initiator,
            answer_delay=self._credential.answer_delay,
            now=now,
        )
        self._pause = Pause(config, now)

    def adopt(self, embryo: Embryo, address: Address, now: int) -> None:
        """Take an embryo's keys, as a new session or to go on with new ones. KA-4.3-4, -5."""
        previous = self._path.address
        self._path = PeerPath(address)
        if embryo.payload.old_session_id in self._names:
            self._rename([embryo.payload.old_session_id])
        self._establish(
            embryo.channel, embryo.payload.epoch, embryo.payload.parameters, embryo.answered, now
        )
        if previous != address:
            self._context.outbox.emit(PeerAddressChanged(self, now, previous, address))

    def receive_response(self, data: bytes, now: int) -> None:
        """Complete the handshake under way, or raise `Refused`. Spec: KA-8.2-2, KA-10.2-2."""
        attempt = self._attempt
        if attempt is None:
            raise Refused(DropReason.UNEXPECTED)
        payload, channel = attempt.complete(data, now)
        if now - attempt.started > self._handshake_lifetime():
            raise Refused(DropReason.UNEXPECTED, "stale", consumed=True)
        if attempt.transmissions == 1:
            self._learn_response_time(now - attempt.started)
        self._path = PeerPath(self._path.address)
        seen = payload.options.address_seen
        if seen is not None:
            self._learn_own_address_told(seen, now)
        self._establish(channel, payload.epoch, payload.parameters, attempt.started, now)
        self._probe(now)
        self.timers.arm(
            Timer.PROBE, now + cadence.spread(self._liveness.interval, self._context.draw())
        )
        self._scheduled(now)

    def receive_transport(
        self, header: TransportHeader, data: bytes, address: Address, now: int
    ) -> None:
        """Open a frame under the keys in use, or raise `Refused`."""
        channel = self._require_channel()
        body, newest = channel.accept(header, channel.unseal(header, data), now)
        self.receive_frame(header, body, address, now, size=len(data), newest=newest)

    def receive_frame(
        self,
        header: TransportHeader,
        body: Body,
        address: Address,
        now: int,
        *,
        size: int,
        newest: bool,
    ) -> None:
        """Do what an accepted frame says: learn, judge, answer."""
        if self.state is State.CLOSED:
            self._receive_after_close(header, body, address, now)
            return
        before = self.state
        channel = self._require_channel()
        evidence = channel.evidence(header.type, body, now)
        if evidence is not None:
            self._note_working_keys(channel)
        self._weigh(header, evidence, now)
        if newest:
            self._learn_peer(body, address, now)
        self._report(before, now)
        if header.type == FrameType.PROBE:
            self._reply(address, size - channel.steady_frame_bytes, now)
        elif header.type == FrameType.CLOSE:
            self._receive_close(body, address, now)
        self._scheduled(now)

    # Timers.

    def handle_timer(self, now: int) -> None:
        """Do all that is due. Spec: KA-7.7-1, KA-8.2-3."""
        while due := self.timers.pop_due(now):
            timer, planned = due
            self._liveness.excuse_stall(planned, now)
            _TIMER_HANDLERS[timer](self, planned, now)
        self._scheduled(now)

    def _probe_due(self, planned: int, now: int) -> None:
        if self._pause.until > now:
            return
        at = self._liveness.next_probe(planned, self._context.draw(), now)
        if at is None:
            return
        self.timers.arm(Timer.PROBE, at)
        self._probe(now)

    def _overdue_due(self, planned: int, now: int) -> None:
        if self._liveness.postponed(Timer.OVERDUE, now):
            self._probe_once(now)
            return
        before = self.state
        self._liveness.suspect(now)
        self._report(before, now)
        self._suspicion_probe_due(now, now)

    def _suspicion_probe_due(self, planned: int, now: int) -> None:
        if not self._liveness.may_suspicion_probe(now):
            return
        self._probe(now)
        self._liveness.suspicion_probe_sent(now)
        if self.initiator and self._liveness.suspicion_probes == MIN_UNANSWERED:
            self._shake_hands_again(now)

    def _shake_hands_again(self, now: int) -> None:
        """Look for a restarted peer; slower where the last handshake was to no avail. KA-7.4-5."""
        if self._confirmed_id == self._require_channel().remote_id:
            self._begin_attempt(now)
            return
        self._retry = min(2 * self._retry, HANDSHAKE_RETRY_MAX)
        step = cadence.jittered(self._retry, 2, self._context.draw())
        self.timers.arm(Timer.HANDSHAKE, now + step)

    def _verdict_due(self, planned: int, now: int) -> None:
        """Pass the verdict and tell the peer. Spec: KA-7.5-5."""
        if self._liveness.postponed(Timer.VERDICT, now):
            self._probe_once(now)
            return
        before = self.state
        self._liveness.judge(now)
        self._report(before, now)
        self._probe(now)

    def _nat_keepalive_due(self, planned: int, now: int) -> None:
        self._probe(now)

    def _handshake_due(self, planned: int, now: int) -> None:
        attempt = self._attempt
        if attempt is None:
            self._begin_attempt(now)
            return
        if now - attempt.started >= self._handshake_lifetime():
            self._retry = min(2 * self._retry, HANDSHAKE_RETRY_MAX)
            self._begin_attempt(now)
            return
        self._retry = min(2 * self._retry, HANDSHAKE_RETRY_MAX)
        self._transmit_init(attempt, planned, now)

    def _control_due(self, planned: int, now: int) -> None:
        if self._pause.pending and self.state is not State.DOWN:
            self._probe(now)
            self.timers.arm(Timer.CONTROL, now + max(1, self._control_spacing))
            self._control_spacing = min(2 * self._control_spacing, self._liveness.interval)

    def _pause_end_due(self, planned: int, now: int) -> None:
        if self._pause.until > now:
            self.timers.arm(Timer.PAUSE_END, self._pause.until)
            return
        self._pause.lapse(now)
        self._liveness.resume(now)
        self._rearm_probe(now)
        if self.state is State.SUSPECT:
            self._suspicion_probe_due(now, now)
        elif self.initiator and self._liveness.may_hasten(now):
            self._probe(now)

    def _expiry_due(self, planned: int, now: int) -> None:
        before = self.state
        self._end(Input.EXPIRED, now)
        if before is State.CONNECTING:
            self._context.outbox.emit(
                ConnectFailed(self, now, self._unreachable, self._credential.silence)
            )
        else:
            self._context.outbox.emit(SessionClosed(self, now, CloseReason.EXPIRED, by_peer=False))
        self._finish(now)

    def _closing_due(self, planned: int, now: int) -> None:
        if self._closing < CLOSE_TRANSMISSIONS:
            self._transmit_close(now)
        else:
            self._finish(now)

    # What frames in do.

    def _weigh(self, header: TransportHeader, evidence: Evidence | None, now: int) -> None:
        """Let a frame move the two facts. Spec: KA-7.1-2, KA-7.2-1, KA-7.2-2, KA-10.1-1."""
        live = self._liveness
        fresh = (
            evidence is not None
            and evidence.fresh_number
            and now - evidence.date <= live.longest_wait
        )
        if evidence is not None and evidence.is_new and evidence.fresh_number:
            self._learn_round_trip(evidence, now)
            self._learn_response_time(evidence.response_time)
        if evidence is not None and evidence.is_new and fresh:
            self._unreachable = False
            live.confirmed(evidence.packet_number, evidence.date, now)
        elif fresh or header.type != FrameType.REPLY:
            live.heard(now)

    def _learn_response_time(self, response_time: int) -> None:
        """Spec: KA-10.2-1, KA-14.6-2."""
        if response_time <= self._credential.longest_response:
            self._liveness.response_time.sample(response_time)

    def _learn_round_trip(self, evidence: Evidence, now: int) -> None:
        if evidence.rtt is None:
            return
        self._rtts.sample(evidence.rtt)
        if self._context.config.report_round_trips:
            self._context.outbox.emit(RoundTrip(self, now, evidence.packet_number, evidence.rtt))

    def _learn_peer(self, body: Body, address: Address, now: int) -> None:
        """Take over what the newest frame says of the peer and of its view of us."""
        self._liveness.peer_state = _STATES[body.state]
        self._learn_peer_address(body, address, now)
        self._learn_own_address(body, now)
        self._pause.confirmed_by(body.control_ack)
        honoured = self._pause.learn(body.control_version, body.options.pause_ms, now)
        if honoured is not None:
            self._hold_judgement(now)
            self._context.outbox.emit(PeerPaused(self, now, honoured))

    def _learn_peer_address(self, body: Body, address: Address, now: int) -> None:
        previous = self._path.address
        if self._path.received(address, body.highest_received):
            self._move(address)
            self._context.outbox.emit(PeerAddressChanged(self, now, previous, address))

    def _learn_own_address(self, body: Body, now: int) -> None:
        """Notice that the peer sees us elsewhere; ask where. Spec: KA-9.2-1, KA-9.2-2."""
        seen = self._own_address.learn(
            body.address_hash, body.highest_received, body.options.address_seen
        )
        if seen is Seen.SAME:
            return
        if seen is Seen.CHANGED and self.initiator and self._liveness.may_hasten(now):
            self._probe(now, Options(pad=ADDRESS_OPTION_BYTES - OPTION_HEADER_BYTES))
            self._own_address.asked(self._require_channel().last_sent)
            return
        self._report_own_address(body.options.address_seen if seen is Seen.ANSWERED else None, now)

    def _learn_own_address_told(self, canonical: bytes, now: int) -> None:
        address = address_from_bytes(canonical)
        if self.own_address is None:
            self._own_address.address = address
        elif self.own_address != address:
            self._report_own_address(canonical, now)

    def _report_own_address(self, canonical: bytes | None, now: int) -> None:
        previous = self.own_address
        self._own_address.address = address_from_bytes(canonical) if canonical else None
        self._context.outbox.emit(OwnAddressChanged(self, now, previous, self.own_address))

    def _receive_close(self, body: Body, address: Address, now: int) -> None:
        """Confirm the peer's CLOSE and be closed. Spec: KA-6.4-2."""
        self._end(Input.CLOSE, now)
        self._send(FrameType.REPLY, NO_OPTIONS, address, now)
        reason = _known_reason(body.options.close_reason or 0)
        self._context.outbox.emit(SessionClosed(self, now, reason, by_peer=True))
        self._finish(now)

    def _receive_after_close(
        self, header: TransportHeader, body: Body, address: Address, now: int
    ) -> None:
        """While our CLOSE is unconfirmed: look for the confirmation only. Spec: KA-6.4-1."""
        if header.type == FrameType.CLOSE:
            self._send(FrameType.REPLY, NO_OPTIONS, address, now)
        elif body.state != State.CLOSED:
            raise Refused(DropReason.LINGERING, consumed=True)
        self._finish(now)
        self._scheduled(now)

    def _hold_judgement(self, now: int) -> None:
        """Judge nothing until all pauses are over. Spec: KA-8.6-2, KA-8.6-4."""
        self._liveness.suspend()
        self.timers.arm(Timer.PAUSE_END, max(self._pause.until, now + 1))

    # Frames out.

    def _probe(self, now: int, options: Options = NO_OPTIONS) -> None:
        if self._send(FrameType.PROBE, options, self._path.address, now):
            self._liveness.probe_sent(self._require_channel().last_sent, now)
            self._rearm_nat_keepalive(now)

    def _probe_once(self, now: int) -> None:
        """Probe unless another late timer has just done so. Spec: KA-7.7-1."""
        if not self._liveness.probed_at(now):
            self._probe(now)

    def _reply(self, address: Address, room: int, now: int) -> None:
        """Answer a PROBE with what fits into its length. Spec: KA-8.3-1 to KA-8.3-3."""
        options = NO_OPTIONS
        pause_ms = self._pause.remaining_ms(now)
        if pause_ms is not None and room >= OPTION_HEADER_BYTES + 4:
            options = Options(pause_ms=pause_ms)
        elif room >= ADDRESS_OPTION_BYTES:
            options = Options(address_seen=address_bytes(address))
        self._send(FrameType.REPLY, options, address, now)
        self._rearm_nat_keepalive(now)

    def _send(self, frame_type: FrameType, options: Options, address: Address, now: int) -> bool:
        channel = self._require_channel()
        if channel.exhausted and frame_type is not FrameType.CLOSE:
            return False
        if (
            frame_type == FrameType.PROBE
            and (pause_ms := self._pause.remaining_ms(now)) is not None
        ):
            options = options._replace(pause_ms=pause_ms)
        if options is not NO_OPTIONS and not any(value is not None for value in options):
            options = NO_OPTIONS
        frame = channel.build(frame_type, self._said(address), now, options)
        self._sent += 1
        self._path.sent(address, channel.last_sent)
        self._context.outbox.send(frame, address)
        return True

    def _said(self, address: Address) -> Said:
        seen = self._address_hash if address == self._path.address else self._hash_of(address)
        return Said(self.state, self._diagnostic, self._pause.version, self._pause.acked, seen)

    def _hash_of(self, address: Address) -> int:
        return address_hash(self._require_channel().remote_id, address)

    def _transmit_close(self, now: int) -> None:
        """Send CLOSE, and again one PTO later. Spec: KA-6.4-1."""
        self._closing += 1
        options = Options(close_reason=self._close_reason)
        self._send(FrameType.CLOSE, options, self._path.address, now)
        self.timers.arm(Timer.CLOSING, now + self._liveness.pto)

    def _transmit_init(self, attempt: Attempt, planned: int, now: int) -> None:
        """Send INIT, the same bytes at each retry. Spec: KA-4.2-1, KA-4.2-2."""
        attempt.transmissions += 1
        self._context.outbox.send(attempt.init, self._path.address)
        step = cadence.jittered(self._retry, 2, self._context.draw())
        self.timers.arm(Timer.HANDSHAKE, cadence.rearmed(planned, step, now))

    # Changes of what the session is.

    def _begin_attempt(self, now: int) -> None:
        """Start a handshake that names the session so far. Spec: KA-4.2-1, KA-7.4-5."""
        self._drop_attempt(now)
        context, old_id = self._context, self._confirmed_id
        if old_id == NO_SESSION and self._channel is not None:
            old_id = self._channel.remote_id
        self._attempt = Attempt(self._credential, context.identity, old_id, context.entropy, now)
        context.routes.pending[self._attempt.session_id] = self
        self._transmit_init(self._attempt, now, now)

    def _handshake_lifetime(self) -> int:
        """Tell how old a handshake may get: what is older proves too little. KA-4.2-1, KA-4.2-7."""
        if self._channel is None:
            return HANDSHAKE_LIFETIME
        return min(self._liveness.longest_wait, HANDSHAKE_LIFETIME)

    def _drop_attempt(self, now: int) -> None:
        if self._attempt is not None:
            self._context.routes.spend(self._attempt, now)
            self._attempt = None
        self.timers.disarm(Timer.HANDSHAKE)

    def _establish(
        self, channel: Channel, epoch: bytes, peer: Parameters, round_trip_at: int, now: int
    ) -> None:
        """Go on under new keys. Spec: KA-7.4-6."""
        before = self.state
        self._drop_attempt(now)
        self._retire_channel(now)
        self._channel = channel
        self._context.routes.sessions[channel.local_id] = self
        self._rename([*self._names[:1], channel.local_id])
        self._address_hash = self._hash_of(self._path.address)
        self._own_address.restart()
        self._handshakes += 1
        if self._peer_epoch not in (b"", epoch):
            self._pause.forget_peer(now)
            self._context.outbox.emit(PeerRestarted(self, now))
        self._peer_epoch = epoch
        self._liveness.agree(self._context.identity.parameters, peer)
        self._liveness.established(round_trip_at, now)
        self._report(before, now)

    def _note_working_keys(self, channel: Channel) -> None:
        """Take note that the peer hears us under these keys. Spec: KA-4.3-5, KA-7.4-5."""
        self._retry = HANDSHAKE_RETRY_INITIAL
        if self._confirmed_id != channel.remote_id:
            self._confirmed_id = channel.remote_id
            self._rename([channel.local_id])

    def _rename(self, names: list[bytes]) -> None:
        """Keep the ids by which the peer may name us: the last that it knows, and the newest."""
        self._context.routes.rename(self, self._names, names)
        self._names = names

    def _retire_channel(self, now: int) -> None:
        if self._channel is None:
            return
        self._retired_out, self._retired_in = self._direction_counts()
        self._context.routes.linger(self._channel, now)

    def _direction_counts(self) -> tuple[DirectionCounts, DirectionCounts]:
        out = DirectionCounts(self._retired_out.sent, self._retired_out.arrived)
        home = DirectionCounts(self._retired_in.sent, self._retired_in.arrived)
        if self._channel is not None:
            out.add(self._channel.peer_highest, self._channel.peer_count)
            home.add(self._channel.window.highest, self._channel.window.count)
        return out, home

    def _report(self, before: State, now: int) -> None:
        """Tell the application of a change of state, and arm what goes with it. KA-6.3-2."""
        after = self.state
        if after is before:
            return
        _ENTERED[after](self, before, now)

    def _entered_up(self, before: State, now: int) -> None:
        self._drop_attempt(now)
        self.timers.disarm(Timer.EXPIRY)
        self._diagnostic = 0
        self._context.outbox.emit(SessionUp(self, now, before))
        self._rearm_probe(now)

    def _entered_suspect(self, before: State, now: int) -> None:
        self._context.outbox.emit(SessionSuspect(self, now, before))

    def _entered_half_open(self, before: State, now: int) -> None:
        self._drop_attempt(now)
        self._diagnostic = _DIAGNOSTICS[State.HALF_OPEN]
        self._context.outbox.emit(SessionHalfOpen(self, now))
        self._rearm_probe(now)

    def _entered_down(self, before: State, now: int) -> None:
        self._diagnostic = _DIAGNOSTICS[State.DOWN]
        reason = DownReason.DETECTION_TIME_EXPIRED
        if self._unreachable:
            reason = DownReason.UNREACHABLE_REPORTED
        self._context.outbox.emit(SessionDown(self, now, reason))
        self._rearm_probe(now)
        if not self.initiator:
            retention = milliseconds(self._context.config.down_retention_ms)
            self.timers.arm(Timer.EXPIRY, now + max(retention, 1))

    def _rearm_probe(self, now: int) -> None:
        at = self._liveness.next_probe(now, self._context.draw(), now)
        if at is None:
            self.timers.disarm(Timer.PROBE)
        else:
            self.timers.arm(Timer.PROBE, at)

    def _rearm_nat_keepalive(self, now: int) -> None:
        """Spec: KA-8.4-1."""
        keepalive = self._context.config.nat_keepalive_ms
        if keepalive is not None and self.state is not State.CLOSED:
            step = cadence.jittered(milliseconds(keepalive), 2, self._context.draw())
            self.timers.arm(Timer.NAT_KEEPALIVE, now + step)

    def _move(self, address: Address) -> None:
        self._path.address = address
        if self._channel is not None:
            self._address_hash = self._hash_of(address)

    def _end(self, event: Input, now: int) -> None:
        self._drop_attempt(now)
        self._liveness.end(event)

    def _finish(self, now: int) -> None:
        """Forget the session; its key lingers. Spec: KA-5.3-1."""
        if self._finished:
            return
        self._finished = True
        if self._channel is not None:
            self._context.routes.linger(self._channel, now)
        self._rename([])
        self._context.routes.remove_session(self)

    def _scheduled(self, now: int) -> None:
        """Bring the endpoint's queue up to date: the last act of every verb. Spec: KA-4.4-3."""
        if self.state is not State.CLOSED and self._channel and self._channel.exhausted:
            self.close(now, CloseReason.KEY_EXHAUSTED)
        elif self._finished:
            self.timers.clear()
            self._context.queue.discard(self)
        else:
            self._context.queue.update(self)

    def _require_channel(self) -> Channel:
        if self._channel is None:
            raise SessionStateError("expected an established session, it is still CONNECTING")
        return self._channel


_TIMER_HANDLERS: Final[dict[Timer, Callable[[Session, int, int], None]]] = {
    Timer.PROBE: Session._probe_due,
    Timer.OVERDUE: Session._overdue_due,
    Timer.SUSPICION_PROBE: Session._suspicion_probe_due,
    Timer.VERDICT: Session._verdict_due,
    Timer.NAT_KEEPALIVE: Session._nat_keepalive_due,
    Timer.HANDSHAKE: Session._handshake_due,
    Timer.CONTROL: Session._control_due,
    Timer.PAUSE_END: Session._pause_end_due,
    Timer.EXPIRY: Session._expiry_due,
    Timer.CLOSING: Session._closing_due,
}

_ENTERED: Final[dict[State, Callable[[Session, State, int], None]]] = {
    State.UP: Session._entered_up,
    State.SUSPECT: Session._entered_suspect,
    State.HALF_OPEN: Session._entered_half_open,
    State.DOWN: Session._entered_down,
}


def _known_reason(value: int) -> CloseReason | int:
    """Name a reason that a peer gave; those that are never on the wire get no name."""
    return CloseReason(value) if value <= CloseReason.KEY_EXHAUSTED else value


def own_parameters(config: Config) -> Parameters:
    """Give what a configuration says in a handshake. Spec: KA-3.3-1."""
    microseconds = MILLISECOND // 1000
    return Parameters(
        min(config.interval_ms * microseconds, MAX_UINT32),
        min(config.min_receive_interval_ms * microseconds, MAX_UINT32),
        min(config.suspicion_receive_interval_ms * microseconds, MAX_UINT32),
        config.suspicion_receive_burst,
        int(config.application_traffic),
    )
