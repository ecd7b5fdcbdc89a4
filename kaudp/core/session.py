"""One heartbeat session: frames in, frames out, and the timers between.

What the frames mean for the peer's life is judged in `liveness`; how they look in `channel`.
Spec: sections 4 to 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kaudp.core import cadence
from kaudp.core.channel import Channel, Evidence, Said
from kaudp.core.context import Context
from kaudp.core.detectors import detector_for
from kaudp.core.handshake import (
    HANDSHAKE_LIFETIME,
    KEY_CHANGE_TIMEOUT,
    NO_SESSION,
    Attempt,
    Embryo,
)
from kaudp.core.initiation import Initiation
from kaudp.core.liveness import Liveness
from kaudp.core.measurements import Measurements
from kaudp.core.paths import (
    CHALLENGE_BYTES,
    PATH_TRIES,
    Address,
    OwnAddress,
    PeerPath,
    Seen,
    Validation,
    address_bytes,
    address_from_bytes,
    address_hash,
)
from kaudp.core.push_back import PushBack
from kaudp.core.states import Input
from kaudp.core.stats import Stats
from kaudp.core.suspicion import MIN_UNANSWERED
from kaudp.core.terms import Terms
from kaudp.core.timers import Timer, TimerTable
from kaudp.errors import DropReason, KeyFormatError, Refused, SessionStateError
from kaudp.events import (
    CloseReason,
    ConnectFailed,
    DownReason,
    Event,
    IntervalChanged,
    KeyChanged,
    KeyChangeFailed,
    OwnAddressChanged,
    PeerAddressChanged,
    PeerPaused,
    PeerRestarted,
    RoundTrip,
    SessionAdminDown,
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
    State,
)
from kaudp.units import MICROSECOND, milliseconds
from kaudp.wire.codec import (
    NO_OPTIONS,
    Body,
    InitPayload,
    Options,
    Parameters,
    ResponsePayload,
    TransportHeader,
    build_options,
)
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import Credential

CLOSE_TRANSMISSIONS: Final = 3
OPTION_HEADER_BYTES: Final = 2
ADDRESS_OPTION_BYTES: Final = OPTION_HEADER_BYTES + 19
CHALLENGE_OPTION_BYTES: Final = OPTION_HEADER_BYTES + CHALLENGE_BYTES

_STATES: Final = tuple(State)
_DIAGNOSTICS: Final = {State.DOWN: 1, State.HALF_OPEN: 2}


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
        self.connecting_at: tuple[bytes, bytes] | None = None
        self.peer_instance = b""
        self.peer_epoch = b""

        self._confirmed_at: int | None = None
        self.timers = TimerTable()
        self.queued_at: int | None = None
        self._context = context
        self._credential = credential
        self._new_credential: Credential | None = None
        self._path = PeerPath(address)
        self._configure(now, initiator=initiator)
        self._initiation = Initiation(context, self.timers)

        self._push_back = PushBack(now)
        self._measured = Measurements()
        self._channel: Channel | None = None
        self._names: list[bytes] = []
        self._control_spacing = 0
        self._reported_interval = 0
        self._own_address = OwnAddress()
        self._address_hash = 0
        self._diagnostic = 0
        self._closing = 0
        self._close_reason = 0
        self._finished = False
        self._unreachable = False
        context.routes.add_session(self)

    @property
    def initiator(self) -> bool:
        """Whether this side sends the probes of the steady state."""
        return self._terms.agreement.initiator

    @property
    def parameters(self) -> Parameters:
        """What this side says of its intervals now."""
        return self._terms.parameters

    @property
    def announced_key(self) -> bytes | None:
        """The key id of the handshake that the peer has announced. Spec: KA-4.8-2."""
        return self._terms.announced_key

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

    def confirmed_before(self, time: int) -> bool:
        """Tell whether the peer was heard to know of this session by then. Spec: KA-4.6-3."""
        return self._confirmed_at is not None and self._confirmed_at < time

    @property
    def stats(self) -> Stats:
        """What was measured so far."""
        return self._measured.stats(
            self._liveness,
            unreachable=self._unreachable,
            counts_loss=not self._credential.repeats,
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
        self._require_live()
        self._terms.begin_pause(duration, now)
        self._hold_judgement(now)
        self._tell_control(now)

    def change_intervals(
        self,
        now: int,
        *,
        interval_ms: int | None = None,
        min_receive_interval_ms: int | None = None,
    ) -> None:
        """Probe, or allow to be probed, at another interval from now on. Spec: section 8.8.

        `IntervalChanged` tells when both sides agree. Raises `ConfigError` for values that no
        configuration may have, and `SessionStateError` before the first UP and after the end.
        """
        self._require_live()
        self._terms.change_intervals(interval_ms, min_receive_interval_ms)
        self._agreed(now)
        self._tell_control(now)

    def slow_down(self, min_receive_interval_ms: int, now: int) -> None:
        """Ask the initiator to probe no more often than this. Spec: section 8.9.

        Raises as `change_intervals` does, and `SessionStateError` at the initiator's side.
        """
        self._require_live()
        if self.initiator:
            raise SessionStateError("expected the responder's side of a session, it initiated it")
        self._terms.slow_down(min_receive_interval_ms)
        self._agreed(now)
        self._tell_control(now)

    def admin_down(self, now: int) -> None:
        """Take the session down, as an operator does: nobody is judged. Spec: section 8.10.

        Raises `SessionStateError` before the first UP and after the end.
        """
        self._administer(now, down=True)

    def admin_up(self, now: int) -> None:
        """Take the session up again; `SessionUp` follows when the peer is heard."""
        self._administer(now, down=False)

    def change_key(self, key_id: bytes, now: int) -> None:
        """Go over to another pre-shared key, without a gap. Spec: section 4.8.

        `KeyChanged` or `KeyChangeFailed` follows. Raises `KeyFormatError` when the key source
        has no such key, `SessionStateError` at the responder's side, before the first UP and
        after the end.
        """
        self._require_live()
        if not self.initiator:
            raise SessionStateError("expected the initiator's side of a session")
        credential = self._context.key(key_id)
        if credential is None or key_id == self.key_id:
            raise KeyFormatError(f"expected another key id of the key source, got {key_id.hex()}")
        self._terms.announce(key_id)
        self._drop_new_key(now)
        self._new_credential = credential
        self._tell_control(now)

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
        self._go_to(address)
        attempt = self._initiation.attempt
        if attempt is not None or self._channel is None:
            self._begin_attempt(now, attempt.credential if attempt else None)
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
        self._configure(now, initiator=self.initiator)
        self._initiation.restart()
        self._begin_attempt(now)
        self._scheduled(now)

    def _configure(self, now: int, *, initiator: bool) -> None:
        context, config = self._context, self._context.config
        self._terms = Terms(config, context.parameters, initiator=initiator, now=now)
        self._liveness = Liveness(
            config,
            detector_for(config),
            self.timers,
            self._terms.agreement,
            context.totals,
            answer_delay=self._credential.answer_delay,
            now=now,
        )

    def adopt(self, embryo: Embryo, address: Address, now: int) -> None:
        """Take an embryo's keys, as a new session or to go on with new ones. KA-4.3-4, -5."""
        previous = self._path.address
        self._go_to(address)
        self._become_responder(now)
        if embryo.payload.old_session_id in self._names:
            self._rename([embryo.payload.old_session_id])
        self._establish(
            embryo.channel, embryo.credential, embryo.told, embryo.payload, embryo.answered, now
        )
        if previous != address:
            self._context.outbox.emit(PeerAddressChanged(self, now, previous, address))

    def receive_response(self, data: bytes, now: int) -> None:
        """Complete the handshake under way, or raise `Refused`. Spec: KA-8.2-2, KA-10.2-2."""
        attempt = self._require_attempt()
        payload, channel = attempt.complete(data, self._context.on_secrets)
        if now - attempt.started > self._handshake_lifetime():
            raise Refused(DropReason.UNEXPECTED, "stale", consumed=True)
        if attempt.transmissions == 1:
            self._learn_response_time(now - attempt.started)
        self._go_to(self._path.address)
        seen = payload.options.address_seen
        if seen is not None:
            self._learn_own_address_told(seen, now)
        self._establish(channel, attempt.credential, attempt.told, payload, attempt.started, now)
        self._probe(now)
        self.timers.arm(
            Timer.PROBE, now + cadence.spread(self._liveness.interval, self._context.draw())
        )
        self._scheduled(now)

    def receive_cookie(self, data: bytes, now: int) -> None:
        """Shake hands anew with the cookie asked for, or raise `Refused`. Spec: KA-4.5-5."""
        attempt = self._require_attempt()
        if self._initiation.take_cookie(data):
            self._begin_attempt(now, attempt.credential)
        self._scheduled(now)

    def receive_transport(
        self, header: TransportHeader, data: bytes, address: Address, now: int
    ) -> None:
        """Open a frame under the keys in use, or raise `Refused`."""
        channel = self._require_channel()
        body, newest = channel.accept(header, channel.unseal(header, data, now), now)
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
        if self._path.validation is not None:
            self._path.received(address, size)
        if evidence is not None:
            self._note_confirmation(channel, evidence, now)
        self._weigh(header, evidence, now)
        self._report(before, now)
        if newest:
            self._measured.learn(body, evidence, now)
            self._learn_peer(body, address, size, now)
        if header.type == FrameType.PROBE:
            room = size - channel.steady_frame_bytes
            self._reply(body, address, room, now)
            if not room:
                self._meter(body, now)
        elif header.type == FrameType.REPLY:
            self._learn_path(body, now)
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
        if self._terms.pause.until > now:
            return
        if self.state is State.ADMIN_DOWN and self._liveness.awaits_reply:
            self._look_for_restarted_peer(now)
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
        if self._changing_key:
            return
        if self._initiation.confirmed_id == self._require_channel().remote_id:
            self._begin_attempt(now)
        else:
            self._initiation.put_off(now)

    def _look_for_restarted_peer(self, now: int) -> None:
        """Ask a peer that is down whether it knows us: it may have restarted. KA-8.10-5."""
        if self.initiator and self._initiation.attempt is None:
            self._begin_attempt(now)

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
        attempt = self._initiation.attempt
        lifetime = self._handshake_lifetime()
        if not self._initiation.retry(self._path.address, lifetime, planned, now):
            self._begin_attempt(now, attempt.credential if attempt else None)

    def _control_due(self, planned: int, now: int) -> None:
        if self._terms.control.waits and self.state is not State.DOWN:
            self._probe(now)
            self.timers.arm(Timer.CONTROL, now + max(1, self._control_spacing))
            most = max(self._liveness.interval, self._liveness.pto)
            self._control_spacing = min(2 * self._control_spacing, most)

    def _pause_end_due(self, planned: int, now: int) -> None:
        if self._terms.pause.until > now:
            self.timers.arm(Timer.PAUSE_END, self._terms.pause.until)
            return
        self._terms.lapse(now)
        self._release_judgement(now)

    def _admin_end_due(self, planned: int, now: int) -> None:
        """Honour the peer's part no longer. Spec: KA-8.10-4."""
        self._terms.admin.peer_up(now)
        self._follow_administration(now)

    def _path_due(self, planned: int, now: int) -> None:
        """End a try: move, try again, or stay. Spec: KA-9.3-4, KA-9.3-5."""
        validation = self._path.validation
        if validation is None:
            return
        if validation.answered:
            self._move(validation.address, now)
        elif validation.tries < PATH_TRIES:
            self._challenge(validation, now)
        else:
            self._stay(now)

    def _key_change_due(self, planned: int, now: int) -> None:
        """Stay under the old key: the new one was to no avail. Spec: KA-4.8-1."""
        if self._new_credential is None:
            return
        key_id, self._new_credential = self._new_credential.key_id, None
        self._context.outbox.emit(KeyChangeFailed(self, now, key_id))
        self._drop_new_key(now)

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
            if self.state is State.ADMIN_DOWN:
                self._drop_attempt(now)
        elif fresh or header.type != FrameType.REPLY:
            live.heard(now)
        else:
            live.rearm_overdue(now)  # PTO may be another.

    def _learn_response_time(self, response_time: int) -> None:
        """Spec: KA-10.2-1, KA-14.6-2."""
        if response_time <= self._credential.longest_response:
            self._liveness.response_time.sample(response_time)

    def _learn_round_trip(self, evidence: Evidence, now: int) -> None:
        if evidence.rtt is None:
            return
        self._measured.round_trips.sample(evidence.rtt)
        self._context.totals.round_trip(evidence.rtt)
        if self._context.config.report_round_trips:
            self._context.outbox.emit(RoundTrip(self, now, evidence.packet_number, evidence.rtt))

    def _learn_peer(self, body: Body, address: Address, size: int, now: int) -> None:
        """Take over what the newest frame says of the peer and of its view of us."""
        self._learn_peer_state(_STATES[body.state], now)
        self._learn_peer_address(address, size, now)
        self._learn_own_address(body, now)
        if not body.control_version and self._terms.admin.peer:
            self._learn_administration(now, down=False)  # The peer has forgotten. Spec: KA-8.6-5.
        confirmed = self._terms.confirmed_by(body.control_ack)
        if confirmed is not NO_OPTIONS:
            self._control_confirmed(confirmed, now)
        if body.options is not NO_OPTIONS:
            last_sent = self._require_channel().last_sent
            told = self._terms.learn(body.control_version, body.options, last_sent)
            if told is not NO_OPTIONS:
                self._learn_control(told, now)

    def _learn_peer_state(self, state: State, now: int) -> None:
        """Judge by the peer's newest state, on which its probes depend. Spec: KA-7.3-5."""
        if state is not self._liveness.peer_state:
            self._liveness.peer_state = state
            self._liveness.rearm_overdue(now)

    def _control_confirmed(self, told: Options, now: int) -> None:
        """Go by what the peer knows by now. Spec: KA-8.8-3, KA-4.8-1."""
        if told.parameters is not None or told.slow_down_us is not None:
            self._agreed(now)
        if self._new_credential is not None and told.next_key == self._new_credential.key_id:
            self.timers.arm(Timer.KEY_CHANGE, now + KEY_CHANGE_TIMEOUT)
            self._begin_attempt(now, self._new_credential)

    def _learn_control(self, told: Options, now: int) -> None:
        """Do what the peer's new control state brings about. Spec: KA-8.6-2."""
        if told.pause_ms is not None:
            honoured = self._terms.pause.learn(told.pause_ms, now)
            self._hold_judgement(now)
            self._context.outbox.emit(PeerPaused(self, now, honoured))
        if told.admin is not None:
            self._learn_administration(now, down=bool(told.admin))
        self._agreed(now)

    def _learn_administration(self, now: int, *, down: bool) -> None:
        if not down:
            self._terms.admin.peer_up(now)
        elif (until := self._terms.admin.peer_down(now)) is not None:
            self.timers.arm(Timer.ADMIN_END, max(until, now + 1))
        self._follow_administration(now)

    def _learn_peer_address(self, address: Address, size: int, now: int) -> None:
        """Notice that the newest frame came from elsewhere. Spec: KA-9.3-1, -3, KA-14.8-2."""
        if address == self._path.address:
            if self._path.validation is not None:
                self._stay(now)
        elif self._credential.validates_path:
            self._follow(address, now)
        elif self._path.newest_came_from(address, size, now) and self._path.validation:
            self._challenge(self._path.validation, now)

    def _learn_path(self, body: Body, now: int) -> None:
        """Take an answer to a challenge; the old address's decides. Spec: KA-9.3-3."""
        validation, data = self._path.validation, body.options.path_response
        if validation is not None and data is not None and validation.old_answers(data):
            self._stay(now)

    def _meter(self, body: Body, now: int) -> None:
        """Ask a peer that probes far too often to slow down. Spec: KA-8.9-2, KA-8.9-3."""
        if self.initiator or body.state not in (State.UP, State.HALF_OPEN):
            return
        full = self._terms.control.exhausted
        if self._push_back.probed(self._liveness.interval, now) and not full:
            self._terms.push_back(self._liveness.interval // MICROSECOND)
            self._agreed(now)
            self._tell_control(now)

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
        self._own_address.give_up()
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
        """Judge nothing until all pauses are over. Spec: KA-8.7-1."""
        self._liveness.suspend()
        self.timers.arm(Timer.PAUSE_END, max(self._terms.pause.until, now + 1))

    def _release_judgement(self, now: int) -> None:
        """Judge again, unless something else forbids it. Spec: KA-8.7-3, KA-8.10-6."""
        if self._terms.pause.until > now:
            return
        if not self._terms.hold_judgement(now):
            self._liveness.resume(now)
        self._rearm_probe(now)
        if self.state is State.SUSPECT:
            self._suspicion_probe_due(now, now)
        elif self.initiator and self._liveness.may_hasten(now):
            self._probe(now)

    # Control state.

    def _tell_control(self, now: int) -> None:
        """Say at once what has changed, and again until it is confirmed. Spec: KA-8.6-1."""
        self._control_spacing = self._liveness.pto
        self._control_due(now, now)
        self._scheduled(now)

    def _agreed(self, now: int) -> None:
        """Go by what both sides told, as far as they know it of each other. KA-8.8-2, -4."""
        live, agreement = self._liveness, self._terms.agreement
        before = live.interval
        live.agree()
        live.rearm_overdue(now)
        if live.interval < before:
            live.hasten_probe(self._context.draw(), now)
        if agreement.settled and live.interval != self._reported_interval:
            previous, self._reported_interval = self._reported_interval, live.interval
            live.measure_anew(now)
            self._context.outbox.emit(IntervalChanged(self, now, previous, live.interval))

    def _administer(self, now: int, *, down: bool) -> None:
        self._require_live()
        if self._terms.administer(down=down):
            self._follow_administration(now)
            self._tell_control(now)

    def _follow_administration(self, now: int) -> None:
        """Be in ADMIN_DOWN exactly while a side is taken down. Spec: KA-8.10-2."""
        before = self.state
        if self._terms.admin.down == (before is State.ADMIN_DOWN):
            return
        if self._terms.admin.down:
            self._liveness.administer(Input.ADMIN_DOWN)
            self._liveness.suspend()
            self._report(before, now)
        else:
            self._liveness.administer(Input.ADMIN_UP)
            self._report(before, now)
            self._release_judgement(now)

    # Paths.

    def _challenge(self, validation: Validation, now: int) -> None:
        """Begin a try: ask both addresses, as far as that is allowed. KA-9.3-1, KA-9.3-6."""
        validation.tries += 1
        size = self._require_channel().steady_frame_bytes + CHALLENGE_OPTION_BYTES
        self._challenge_at(validation, self._path.address, now)
        if validation.allows(size):
            self._challenge_at(validation, validation.address, now)
        smoothed = self._liveness.response_time.smoothed or 0
        self.timers.arm(Timer.PATH, now + max(self._liveness.pto, 3 * smoothed))

    def _challenge_at(self, validation: Validation, address: Address, now: int) -> None:
        if not self._liveness.may_hasten(now):
            return
        data = self._context.entropy(CHALLENGE_BYTES)
        validation.challenged(data, old=address == self._path.address)
        self._send(FrameType.PROBE, Options(path_challenge=data), address, now)

    def _stay(self, now: int) -> None:
        """End the validation without a move. Spec: KA-9.3-3, KA-9.3-5."""
        self._path.end_validation(not_before=now + self._liveness.interval)
        self.timers.disarm(Timer.PATH)

    def _move(self, address: Address, now: int) -> None:
        """Go on where the peer is now, and tell. Spec: KA-9.3-4."""
        previous = self._path.address
        self._go_to(address)
        self._context.outbox.emit(PeerAddressChanged(self, now, previous, address))

    def _follow(self, address: Address, now: int) -> None:
        """Go where QUIC leads; it may not have known before its handshake. Spec: KA-14.8-2."""
        if self._path.address is None:
            self._go_to(address)
        else:
            self._move(address, now)

    def _go_to(self, address: Address) -> None:
        """Begin anew at an address; a cookie is of no use any more. Spec: KA-4.5-6."""
        self._initiation.forget_cookie()
        self._path = PeerPath(address)
        self.timers.disarm(Timer.PATH)
        if self._channel is None:
            self._context.routes.connect_at(self, address)
        else:
            self._address_hash = self._hash_of(address)

    # Frames out.

    def _probe(self, now: int, options: Options = NO_OPTIONS) -> None:
        if self._terms.control.waits:
            options = self._terms.unconfirmed(now)._replace(pad=options.pad)
        if self._send(FrameType.PROBE, options, self._path.address, now):
            self._liveness.probe_sent(self._require_channel().last_sent, now)
            self._rearm_nat_keepalive(now)

    def _probe_once(self, now: int) -> None:
        """Probe unless another late timer has just done so. Spec: KA-7.7-1."""
        if not self._liveness.probed_at(now):
            self._probe(now)

    def _reply(self, probe: Body, address: Address, room: int, now: int) -> None:
        """Answer a PROBE with what fits into its length. Spec: KA-8.3-1 to KA-8.3-3."""
        options = self._reply_options(probe, address, room, now) if room else NO_OPTIONS
        self._send(FrameType.REPLY, options, address, now)
        self._rearm_nat_keepalive(now)

    def _reply_options(self, probe: Body, address: Address, room: int, now: int) -> Options:
        """Choose: the answer to a challenge, the control state, the address. KA-8.6-1, KA-9.3-2."""
        options = NO_OPTIONS
        challenge = probe.options.path_challenge
        if challenge is not None:
            options = Options(path_response=challenge)
            room -= CHALLENGE_OPTION_BYTES
        if self._terms.control.waits:
            told = self._terms.unconfirmed(now)._replace(path_response=challenge)
            if len(build_options(told)) <= room + len(build_options(options)):
                return told
        if room >= ADDRESS_OPTION_BYTES:
            return options._replace(address_seen=address_bytes(address))
        return options

    def _send(self, frame_type: FrameType, options: Options, address: Address, now: int) -> bool:
        channel = self._require_channel()
        if channel.exhausted and frame_type is not FrameType.CLOSE:
            return False
        if options is not NO_OPTIONS and not any(value is not None for value in options):
            options = NO_OPTIONS
        frame = channel.build(frame_type, self._said(address), now, options)
        self._measured.sent += 1
        if self._path.validation is not None:
            self._path.sent(address, len(frame))
        self._context.outbox.send(frame, address)
        return True

    def _said(self, address: Address) -> Said:
        seen = self._address_hash if address == self._path.address else self._hash_of(address)
        control = self._terms.control
        return Said(self.state, self._diagnostic, control.version, control.acked, seen)

    def _hash_of(self, address: Address) -> int:
        return address_hash(self._require_channel().remote_id, address)

    def _transmit_close(self, now: int) -> None:
        """Send CLOSE, and again one PTO later. Spec: KA-6.4-1."""
        self._closing += 1
        options = Options(close_reason=self._close_reason)
        self._send(FrameType.CLOSE, options, self._path.address, now)
        self.timers.arm(Timer.CLOSING, now + self._liveness.pto)

    # Changes of what the session is.

    def _begin_attempt(self, now: int, credential: Credential | None = None) -> None:
        """Start a handshake that names the session so far. Spec: KA-4.2-1, KA-7.4-5."""
        old_id = self._initiation.confirmed_id
        if old_id == NO_SESSION and self._channel is not None:
            old_id = self._channel.remote_id
        if self._channel is None:
            self._context.routes.connect_at(self, self._path.address)
        self._initiation.begin(self, credential or self._credential, old_id, self.parameters, now)

    @property
    def _changing_key(self) -> bool:
        """Whether a handshake under another key is under way."""
        attempt = self._initiation.attempt
        return attempt is not None and attempt.credential is not self._credential

    def _require_live(self) -> None:
        """Refuse a verb before the first UP and after the end."""
        if self._channel is None or self.state is State.CLOSED:
            raise SessionStateError(f"expected an established session, it is {self.state.name}")

    def _require_attempt(self) -> Attempt:
        if self._initiation.attempt is None:
            raise Refused(DropReason.UNEXPECTED)
        return self._initiation.attempt

    def _handshake_lifetime(self) -> int:
        """Tell how old a handshake may get: what is older proves too little. KA-4.2-1, KA-4.2-7."""
        if self._channel is None:
            return HANDSHAKE_LIFETIME
        return min(self._liveness.longest_wait, HANDSHAKE_LIFETIME)

    def _drop_attempt(self, now: int) -> None:
        """Give up a handshake that is needed no more; one for another key goes on."""
        if not self._changing_key:
            self._initiation.drop(now)

    def _drop_new_key(self, now: int) -> None:
        """Give up a handshake for another key; look for the peer under the old one. KA-4.8-1."""
        self.timers.disarm(Timer.KEY_CHANGE)
        if not self._changing_key:
            return
        self._initiation.drop(now)
        if self.state in (State.SUSPECT, State.DOWN):
            self._begin_attempt(now)

    def _become_responder(self, now: int) -> None:
        """Leave the probing to the peer, of two that met. Spec: KA-4.6-2, KA-4.6-3."""
        if self.initiator:
            self._terms.agreement.initiator = False
            self.timers.disarm(Timer.PROBE)
            self._key_change_due(now, now)

    def _establish(
        self,
        channel: Channel,
        credential: Credential,
        told: InitPayload | ResponsePayload,
        peer: InitPayload | ResponsePayload,
        round_trip_at: int,
        now: int,
    ) -> None:
        """Go on under new keys. Spec: KA-7.4-6."""
        before, routes = self.state, self._context.routes
        self._initiation.drop(now)
        self._retire_channel(now)
        routes.connected(self)
        self._channel = channel
        routes.sessions[channel.local_id] = self
        self._rename([*self._names[:1], channel.local_id])
        self._address_hash = self._hash_of(self._path.address)
        self._own_address.restart()

        self._measured.new_keys(channel, told.options.clock_us, peer.options.clock_us)
        if credential.key_id != self.key_id:
            self._go_under(credential, now)
        self._terms.established(told.parameters, peer.parameters, now)
        restarted = self.peer_epoch not in (b"", peer.epoch)
        self.peer_epoch = peer.epoch
        routes.know_peer(self, peer.instance_id)
        if restarted:
            self._greet_restarted_peer(now)
            before = self.state
        self._liveness.agree()
        self._liveness.established(round_trip_at, now)
        if before is State.CONNECTING:
            self._reported_interval = self._liveness.interval
        self._report(before, now)
        if self._terms.control.waits:
            self._tell_control(now)
        self._agreed(now)

    def _greet_restarted_peer(self, now: int) -> None:
        """Forget what the peer said before it restarted. Spec: KA-7.4-6, KA-8.10-5."""
        self._context.outbox.emit(PeerRestarted(self, now))
        self._confirmed_at = None
        self._terms.forget_peer(now)
        before = self.state
        if before is State.ADMIN_DOWN and not self._terms.admin.down:
            self._liveness.administer(Input.ADMIN_UP)
            self._report(before, now)
        if self._terms.pause.until > now:
            self.timers.arm(Timer.PAUSE_END, self._terms.pause.until)
            return
        self.timers.disarm(Timer.PAUSE_END)
        if not self._terms.hold_judgement(now):
            self._liveness.resume(now)

    def _go_under(self, credential: Credential, now: int) -> None:
        """Take another pre-shared key for the session's. Spec: KA-4.8-3."""
        previous = self.key_id
        self._context.routes.rekey(self, credential.key_id)
        self._credential = credential
        self._new_credential = None
        self._terms.announced_key = None
        self.timers.disarm(Timer.KEY_CHANGE)
        self._context.outbox.emit(KeyChanged(self, now, previous, credential.key_id))

    def _note_confirmation(self, channel: Channel, evidence: Evidence, now: int) -> None:
        """Take note of what the peer knows: that these keys work, and our confirmation.

        Spec: KA-4.3-5, KA-7.4-5, KA-8.8-3.
        """
        if self._confirmed_at is None:
            self._confirmed_at = now
        if evidence.is_new and self._initiation.worked(channel.remote_id):
            self._rename([channel.local_id])
            self._terms.keys_work()
            self._agreed(now)
        if self._terms.peer_knows(evidence.packet_number):
            self._agreed(now)

    def _rename(self, names: list[bytes]) -> None:
        """Keep the ids by which the peer may name us: the last that it knows, and the newest."""
        self._context.routes.rename(self, self._names, names)
        self._names = names

    def _retire_channel(self, now: int) -> None:
        if self._channel is None:
            return
        self._context.routes.linger(self._channel, now)

    def _report(self, before: State, now: int) -> None:
        """Tell of a change of state, and arm what goes with it. Spec: KA-6.3-2, KA-8.6-1."""
        after = self.state
        if after is before:
            return
        _ENTERED[after](self, before, now)
        if before is State.DOWN and self._terms.control.waits:
            self._control_spacing = self._liveness.pto
            self.timers.arm(Timer.CONTROL, now + 1)

    def _entered_up(self, before: State, now: int) -> None:
        self._drop_attempt(now)
        self.timers.disarm(Timer.EXPIRY)
        self._diagnostic = 0
        self._context.outbox.emit(SessionUp(self, now, before))
        self._rearm_probe(now)

    def _entered_admin_down(self, before: State, now: int) -> None:
        self._drop_attempt(now)
        self.timers.disarm(Timer.EXPIRY)
        self._context.outbox.emit(SessionAdminDown(self, now, before, not self._terms.admin.own))
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

    def _end(self, event: Input, now: int) -> None:
        self._initiation.drop(now)
        self._liveness.end(event)

    def _finish(self, now: int) -> None:
        """Forget the session; its key lingers. Spec: KA-5.3-1."""
        if self._finished:
            return
        self._finished = True
        if self._channel is not None:
            self._context.routes.linger(self._channel, now)
        self._rename([])
        self._context.routes.connected(self)
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
    Timer.PATH: Session._path_due,
    Timer.ADMIN_END: Session._admin_end_due,
    Timer.KEY_CHANGE: Session._key_change_due,
}

_ENTERED: Final[dict[State, Callable[[Session, State, int], None]]] = {
    State.UP: Session._entered_up,
    State.SUSPECT: Session._entered_suspect,
    State.HALF_OPEN: Session._entered_half_open,
    State.DOWN: Session._entered_down,
    State.ADMIN_DOWN: Session._entered_admin_down,
}


def _known_reason(value: int) -> CloseReason | int:
    """Name a reason that a peer gave; those that are never on the wire get no name."""
    return CloseReason(value) if value <= CloseReason.KEY_EXHAUSTED else value
