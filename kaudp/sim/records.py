"""What an observer knows of one end of a session, and what the end may therefore say.

It is told by headers, times and events alone what was delivered when; how the core comes to its
verdicts it does not know. Times in ns of the node's clock. Spec: sections 6 and 7.
"""

from typing import Final, NoReturn

from kaudp.config import Config, DetectorKind
from kaudp.core.agreement import MIN_INTERVAL
from kaudp.core.cadence import DOWN_BACKOFF_MAX
from kaudp.core.handshake import HANDSHAKE_RETRY_MAX
from kaudp.core.liveness import HALF_OPEN_PROBES
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.core.states import TRANSITIONS
from kaudp.core.suspicion import (
    BLIND_PROBE_SPACING,
    MIN_UNANSWERED,
    SUSPICION_BUDGET_MAX,
)
from kaudp.events import (
    ConnectFailed,
    Event,
    IntervalChanged,
    KeyChanged,
    KeyChangeFailed,
    SessionAdminDown,
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
    State,
)
from kaudp.units import MICROSECOND, SECOND, milliseconds
from kaudp.wire.seal import PHASE_LINGER

# The wire tells times in whole microseconds: what is closer to a bound than this may be either.
ROUNDING: Final = 2 * MICROSECOND
# Evidence this old may count as fresh or not (KA-7.2-2).
DOUBTFUL_AGE: Final = 1200 * SECOND
# What an observer grants above the budget of hastened probes: a verdict's, and what rounding does.
SPARE_PROBES: Final = 5
PROBES_OF_A_PAUSE: Final = 25
REFILL: Final = 2
# Jitter makes an interval as short as 3/4 of itself. Spec: section 8.2.
SHORTEST: Final = 4 / 3
ADMIN_WINDOW: Final = 86_400 * SECOND
CLOCK_DRIFT_PPM: Final = 200
# What a bound on detection and return leaves for the path and for rounding.
SLACK: Final = 2 * SECOND

STATE_TOLD: Final[dict[type[Event], State]] = {
    SessionUp: State.UP,
    SessionSuspect: State.SUSPECT,
    SessionHalfOpen: State.HALF_OPEN,
    SessionDown: State.DOWN,
    SessionAdminDown: State.ADMIN_DOWN,
    SessionClosed: State.CLOSED,
    ConnectFailed: State.CLOSED,
}


class Violation(Exception):
    """A requirement does not hold; the message begins with its id."""


def violated(requirement: str, what: str) -> NoReturn:
    """Raise `Violation`."""
    raise Violation(f"{requirement}: {what}")


class End:
    """One end of one handshake's keys: what it sent, when and where to, and what arrived."""

    __slots__ = (
        "accepted",
        "confirmed",
        "highest",
        "initiator",
        "local_id",
        "opened",
        "opened_at",
        "phase",
        "phase_since",
        "record",
        "remote_id",
        "sealed",
        "sent_at",
        "sent_to",
    )

    def __init__(self, record: "Record", local_id: bytes, remote_id: bytes) -> None:
        self.record = record
        self.local_id = local_id
        self.remote_id = remote_id
        self.sent_at: list[int] = []
        self.sent_to: list[Address] = []
        self.highest = 0
        self.confirmed = 0
        self.accepted = 0
        self.initiator = record.session.initiator
        self.phase = 0
        self.phase_since = -1
        self.sealed = 0
        self.opened = -1
        self.opened_at = 0

    def opens(self, phase: int, now: int) -> None:
        """Take note of a frame of the peer that verified under a phase."""
        if phase > self.opened:
            self.opened, self.opened_at = phase, now

    def must_open(self, phase: int, now: int) -> bool:
        """Tell whether a frame of the peer has to verify. Spec: KA-4.4-8."""
        lingers = phase == self.opened - 1 and now - self.opened_at < PHASE_LINGER
        return lingers or self.opened <= phase <= self.opened + 1

    def seals(self, bit: int, now: int) -> None:
        """Follow the phase of an own frame. Spec: KA-4.4-5, KA-4.4-6, KA-4.4-7."""
        if self.phase_since < 0:
            self.phase_since = now
        if self._due(now):
            self.phase, self.phase_since, self.sealed = self.phase + 1, now, 0
        self.sealed += 1
        if bit != self.phase & 1:
            rule = "KA-4.4-6" if self.initiator else "KA-4.4-7"
            violated(rule, f"{self.record} seals by another phase than {self.phase}")

    def _due(self, now: int) -> bool:
        if not self.initiator:
            return self.opened > self.phase
        config, age = self.record.config, now - self.phase_since
        over = age >= milliseconds(config.key_update_interval_ms)
        over = over or self.sealed >= config.key_update_frames
        heard = self.opened == self.phase and now - self.opened_at >= PHASE_LINGER
        return over and heard


class Record:
    """One end of a session, as an observer has seen it."""

    def __init__(self, session: Session, node: str, config: Config, now: int) -> None:
        self.session = session
        self.node = node
        self.peer = ""
        self.initiator = session.initiator
        self.config = config
        self.state = State.CONNECTING
        self.since = self.created = now
        self.end: End | None = None
        self.interval = milliseconds(config.interval_ms)
        self.judged = self.interval
        self.learn_pto(session.stats.probe_timeout)
        self.heard_surely = self.heard_maybe = now
        self.date = now
        self.fresh_maybe_at = -1
        self.established_at = -1
        self.first_up: int | None = None
        self.excused_until = now
        self.told = now
        self.key_id = session.key_id
        self.new_key: bytes | None = None
        self.wants = self.interval
        self.allows = milliseconds(config.min_receive_interval_ms)
        self.own_admin = False
        self.answered: dict[Address, int] = {}
        self.moved_at = -1
        self.stalled = 0
        self.sent = 0
        self.accepted = 0
        self._one_way = False
        self._recovered = 0
        self._base = now
        self._probes = 0
        self._third = now
        self._stalls = 0
        self._burst = MIN_UNANSWERED
        self._credit = 0.0
        self._credited_at = now
        self._control_version = 0
        self._admin_since: int | None = None
        self._admin_times: list[tuple[int, int]] = []
        self._clock: tuple[int | None, int | None] = (None, None)
        self._clock_at = now

    def __str__(self) -> str:
        role = "initiator" if self.initiator else "responder"
        return f"{self.node}'s {role} session, {self.state.name}"

    # What happened.

    def established(self, end: End, date: int, peer: str, burst: int, now: int) -> None:
        """Take note of new keys, from a handshake that began at `date`, and the peer's burst."""
        first = self.end is None
        self.end = end
        self.peer = peer
        self.initiator = end.initiator
        self.answered.clear()
        self._burst = max(MIN_UNANSWERED, min(burst, SUSPICION_BUDGET_MAX))
        self.learn_terms(now)
        self.heard_surely = self.heard_maybe = self.established_at = now
        self.date = date
        # One probe at once, and the next one sooner than by the regular cadence. Spec: KA-8.2-2.
        self._credit += self._most_credit if first else 2
        self._tells_again()

    def learn_terms(self, now: int) -> None:
        """Take note of the intervals that are gone by now, and of the probe timeout.

        They are the core's own; where they have to lead to is checked in a calm.
        """
        live = self.session._liveness
        before = self.interval, self.judged
        self.interval, self.judged = live.interval, live.judged_interval
        if before != (self.interval, self.judged):
            self.excused_until = max(self.excused_until, now + max(*before, self.judged))
        if live.pto != self.pto or before[1] != self.judged:
            self.learn_pto(live.pto)

    def told_intervals(self, interval_ms: int | None, min_receive_interval_ms: int | None) -> None:
        """Take note of other parameters; None: as before."""
        if interval_ms is not None:
            self.wants = milliseconds(interval_ms)
        if min_receive_interval_ms is not None:
            self.allows = milliseconds(min_receive_interval_ms)

    def administered(self, now: int, *, down: bool) -> None:
        """Take note of what the operator does on this side."""
        self.own_admin = down
        self._note_admin(now)

    def learn_pto(self, pto: int) -> None:
        """Take note of the probe timeout, and of L, which follows from it. Spec: section 7.2."""
        self.pto = pto
        self.longest_wait = max(self.wait, self.judged + 2 * pto + self._min_suspicion)

    def excused(self, until: int) -> None:
        """Take note of a stall or a pause: until then, and a while after, silence is no sign."""
        self.stalled += max(0, until - max(self.told, self.excused_until))
        self.excused_until = max(self.excused_until, until)
        self._credit += PROBES_OF_A_PAUSE

    def evidence(self, date: int, now: int) -> None:
        """Take note of a frame that confirms one sent at `date`, newer than all before."""
        age = now - date
        if age > self.longest_wait + ROUNDING:
            return
        self.fresh_maybe_at = now
        if age < min(self.longest_wait - ROUNDING, DOUBTFUL_AGE):
            self.date = max(self.date, date)
        if self.state is State.DOWN and date >= self.since - ROUNDING:
            self._recovered += 1

    def heard(self, now: int, reply_to: int | None) -> None:
        """Take note of an accepted frame; a REPLY counts by the date of what it confirms."""
        age = 0 if reply_to is None else now - reply_to
        if age <= self.longest_wait + ROUNDING:
            self.heard_maybe = now
        if age < min(self.longest_wait - ROUNDING, DOUBTFUL_AGE):
            self.heard_surely = now

    def probed(self, now: int) -> None:
        """Take note of an own PROBE of whatever cause. Spec: KA-7.4-4."""
        if self.state is State.SUSPECT:
            self._probes += 1
            if self._probes == MIN_UNANSWERED:
                self._third = now + self.pto
        control = self.session._terms.control
        if control.version != self._control_version:
            self._control_version = control.version
            self._credit += self._control_probes
        self._accrue(now)
        self._credit -= 1
        if self._credit < 0:
            violated("KA-7.4-4", f"{self} sends more probes than its budget and its cadences allow")

    def _accrue(self, now: int) -> None:
        """Let the budget refill, and the cadences of the state so far go on."""
        most = self._most_credit
        if self._credit < most:
            waits = self.session._terms.control.waits
            refill = self._refill(waits=waits) * (now - self._credited_at)
            self._credit = min(most, self._credit + refill / self.judged)
        self._credited_at = now

    def check_clock(self, truth: int, now: int) -> None:
        """Check how far the peer's clock is said to be ahead. Spec: KA-10.3-1."""
        stats = self.session.stats
        told = offset, error = stats.clock_offset, stats.clock_error
        if told != self._clock:
            self._clock, self._clock_at = told, now
        if offset is None or error is None:
            return
        drift = (now - self._clock_at) * CLOCK_DRIFT_PPM // 1_000_000
        off = abs(offset - truth)
        if off > error + drift:
            violated("KA-10.3-1", f"{self} is {off} ns off the true offset, told {error}")

    def moves_to(self, address: Address, now: int) -> None:
        """Check that a challenge was answered from where the session goes. Spec: KA-9.3-4."""
        if self.answered.get(address, -1) <= self.moved_at:
            violated("KA-9.3-4", f"{self} moves to {address}, where no challenge was answered")
        self.moved_at = now

    def check_agreement(self, other: "Record") -> None:
        """Check that both sides agree when all is quiet. Spec: KA-8.1-1, KA-8.8-4, KA-4.8-1."""
        caller, called = (self, other) if self.initiator else (other, self)
        expected = max(caller.wants, called.allows, MIN_INTERVAL)
        for record in (caller, called):
            if record.session.stats.interval != expected:
                told = record.session.stats.interval
                violated("KA-8.8-4", f"{record} goes by {told} ns, expected {expected}")
            if record.session.key_id != caller.key_id or record.key_id != caller.key_id:
                violated("KA-4.8-3", f"{record} is under another key than was told, or its peer")
        if caller.new_key is not None:
            violated("KA-4.8-1", f"{caller}: a change of key came to no end")

    def told_of(self, event: Event, now: int) -> None:
        """Take note of an event. Spec: KA-6.3-1, KA-6.3-2."""
        if event.time != now or now < self.told:
            violated("KA-6.3-2", f"{self} tells at {now} of {event.time}: {event}")
        self.told = now
        self._learn_told(event, now)
        after = STATE_TOLD.get(type(event))
        if after is None:
            return
        before = self.state
        if after is before:
            violated("KA-6.3-2", f"{self} is told to be so twice")
        if after not in TRANSITIONS[before].values():
            violated("KA-6.3-1", f"{self} becomes {after.name}")
        if getattr(event, "previous", before) is not before:
            violated("KA-6.3-2", f"{self} is said to come from {event.previous}")  # type: ignore[attr-defined]
        if isinstance(event, SessionAdminDown) and event.by_peer is self.own_admin:
            violated("KA-8.10-2", f"{self} is taken down, but by another side than it tells")
        self._enter(before, after, now)
        self.state, self.since = after, now
        self._note_admin(now)

    def _learn_told(self, event: Event, now: int) -> None:
        """Spec: KA-4.8-1, KA-4.8-3, KA-8.8-4."""
        if isinstance(event, KeyChanged):
            if event.previous != self.key_id:
                violated("KA-4.8-3", f"{self} changes from a key that it was not under")
            self.key_id = event.key_id
            self.new_key = None
        elif isinstance(event, KeyChangeFailed):
            if event.key_id != self.new_key:
                violated("KA-4.8-1", f"{self} tells of a change of key that nobody asked for")
            self.new_key = None
        elif isinstance(event, IntervalChanged):
            self.excused_until = max(self.excused_until, now)

    def _note_admin(self, now: int) -> None:
        """Keep for how long this side was down on account of its peer alone."""
        by_peer = self.state is State.ADMIN_DOWN and not self.own_admin
        if by_peer and self._admin_since is None:
            self._admin_since = now
        elif not by_peer and self._admin_since is not None:
            self._admin_times.append((self._admin_since, now))
            self._admin_since = None

    def _check_admin(self, now: int) -> None:
        """Spec: KA-8.10-2, KA-8.10-4."""
        if self.own_admin and self.state not in (State.ADMIN_DOWN, State.CLOSED):
            violated("KA-8.10-2", f"{self} although it was taken down")
        if self._admin_since is None:
            return
        self._admin_times = [times for times in self._admin_times if times[1] > now - ADMIN_WINDOW]
        spent = [*self._admin_times, (self._admin_since, now)]
        total = sum(end - max(begin, now - ADMIN_WINDOW) for begin, end in spent)
        limit = milliseconds(self.config.max_peer_admin_down_ms)
        if total > limit + self.stalled + SLACK:
            violated("KA-8.10-4", f"{self} honours {total} ns, expected {limit} at most")

    def _tells_again(self) -> None:
        """Grant what tells control state from the beginning. Spec: KA-8.6-1."""
        if self.session._terms.control.waits:
            self._credit += self._control_probes

    def _enter(self, before: State, after: State, now: int) -> None:
        self._accrue(now)
        if before is State.DOWN:
            self._tells_again()
        if before is State.ADMIN_DOWN:
            self.excused_until = max(self.excused_until, now)
            self.date = max(self.date, now)
        if after is not State.SUSPECT:
            self._one_way = after is State.HALF_OPEN
        if after is State.UP:
            self._check_up(before, now)
        elif after is State.SUSPECT:
            self._base = self.heard_surely if before is State.HALF_OPEN else self.date
            self._probes = 0
            self._stalls = self.session.stats.stalls
        elif after in (State.HALF_OPEN, State.DOWN):
            self._check_verdict(after, now)
            self._recovered = 0

    # What must hold.

    @property
    def wait(self) -> int:
        """The longest wait of the detector. Spec: section 7.5."""
        if self.config.detector is DetectorKind.DEADLINE:
            return milliseconds(self.config.deadline_ms)
        return self.config.multiplier * self.judged

    @property
    def detection_bound(self) -> int:
        """How long after the last frame heard, and the last excuse, DOWN must have come.

        A probe may be T away, the suspicion begins a PTO after it, needs three probes, which wait
        for T where the budget is empty, and a PTO; on the way through HALF_OPEN also the silence
        of that state. Spec: KA-7.3-1, KA-7.3-3, KA-7.3-5, KA-7.5-1.
        """
        suspicion = max(self.wait, self._min_suspicion, 3 * max(self.judged, self._spacing))
        once = self.interval + 3 * self.pto + suspicion
        half_open = HALF_OPEN_PROBES * DOWN_BACKOFF_MAX * self.judged
        return 2 * once + (half_open if self._one_way else 0) + SLACK

    @property
    def return_bound(self) -> int:
        """How long after the path is good again a session must be UP.

        A probe of the back-off, a handshake's longest retry, the confirmations, and the probes of
        the other side, which has to come back too. Spec: KA-4.2-2, KA-7.6-1 to KA-7.6-3.
        """
        confirmations = self.config.up_confirmations + 2
        slowest = max(self.interval, self.judged, self.wants, self.allows)
        return (
            3 * DOWN_BACKOFF_MAX * slowest
            + 3 * HANDSHAKE_RETRY_MAX
            + 2 * confirmations * max(self._spacing, slowest)
            + 8 * self.pto
            + SLACK
        )

    def check_patience(self, now: int) -> None:
        """Check that what was to end has ended. Spec: KA-4.2-3, KA-7.5-1, KA-7.6-4."""
        self._check_admin(now)
        if self.state is State.CONNECTING:
            timeout = self.config.connect_timeout_ms
            over = timeout is not None and self.created + milliseconds(timeout)
            if over and now > max(over, self.excused_until) + SLACK:
                violated("KA-4.2-3", f"{self} goes on after its connect timeout")
        elif self.state is State.DOWN:
            over = self.since + milliseconds(self.config.down_retention_ms)
            if not self.initiator and now > max(over, self.excused_until) + SLACK:
                violated("KA-7.6-4", f"{self} is kept after down_retention")
        elif self.state not in (State.CLOSED, State.ADMIN_DOWN):
            silent = now - max(self.heard_maybe, self.excused_until, self.created)
            if silent > self.detection_bound:
                what = f"{self} for {silent} ns without a frame, expected {self.detection_bound}"
                violated("KA-7.5-1", what)

    def check_counts(self) -> None:
        """Check the numbers that the application is shown. Spec: KA-10.1-3."""
        stats = self.session.stats
        if stats.sent != self.sent or stats.received != self.accepted:
            violated(
                "KA-10.1-3",
                f"{self} counts {stats.sent} sent and {stats.received} received, "
                f"expected {self.sent} and {self.accepted}",
            )
        if stats.state is not self.state:
            violated("KA-6.3-2", f"{self} is {stats.state.name}, which was not told")

    def _check_up(self, before: State, now: int) -> None:
        """Check that something revived the session. Spec: KA-7.2-1, KA-7.6-2."""
        if self.established_at == now:
            return
        if before is State.DOWN and self._recovered < self.config.up_confirmations:
            violated("KA-7.6-2", f"{self} is UP after {self._recovered} pieces of evidence")
        if self.fresh_maybe_at != now:
            violated("KA-7.2-1", f"{self} is UP without fresh evidence")

    def _check_verdict(self, verdict: State, now: int) -> None:
        """Check that a verdict was due. Spec: KA-7.5-1, KA-7.5-2."""
        early = self._base + self.wait - ROUNDING - now
        if early > 0:
            violated("KA-7.5-1", f"{self} becomes {verdict.name} {early} ns before the deadline")
        if now < self.since + self._min_suspicion:
            violated("KA-7.5-1", f"{self} becomes {verdict.name} before min_suspicion")
        if self._probes < MIN_UNANSWERED or now < self._third:
            violated("KA-7.5-1", f"{self} becomes {verdict.name} after {self._probes} probes")
        lately = now - self.judged - self.pto
        excused = self.session.stats.stalls != self._stalls or self.excused_until >= self.since
        if verdict is State.DOWN:
            since = lately if excused else min(lately, self.since)
            if self.heard_surely >= since:
                violated("KA-7.5-2", f"{self} becomes DOWN though the peer is heard")
        elif self.heard_maybe < min(lately, self.since):
            violated("KA-7.5-2", f"{self} becomes HALF_OPEN though nothing was heard")

    @property
    def _min_suspicion(self) -> int:
        return milliseconds(self.config.min_suspicion_ms)

    @property
    def _spacing(self) -> int:
        """The widest spacing of suspicion probes, which the peer may ask for up to T. KA-7.4-2."""
        own = milliseconds(self.config.suspicion_interval_ms)
        return max(own, self.judged, self.pto, BLIND_PROBE_SPACING)

    @property
    def _most_credit(self) -> int:
        return self._burst + SPARE_PROBES

    @property
    def _control_probes(self) -> int:
        """How many probes tell new control state: one PTO apart, then ever twice as far. 8.6."""
        return 4 + (self.judged // max(self.pto, 1)).bit_length()

    def _refill(self, *, waits: bool) -> float:
        """Budget, the regular cadence, NAT keep-alive, and what control state there is to tell."""
        keepalive = self.config.nat_keepalive_ms
        beside = 0.0 if keepalive is None else SHORTEST * self.judged / milliseconds(keepalive)
        quiet = self.state is State.UP and not self.initiator  # Spec: KA-7.3-4.
        # Where nothing is regular, a suspicion probe is free T after the last.
        regular = 1.0 if quiet else SHORTEST * max(1, self.judged / self.interval)
        return REFILL + regular + beside + waits
