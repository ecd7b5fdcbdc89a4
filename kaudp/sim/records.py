"""What an observer knows of one end of a session, and what the end may therefore say.

It is told by headers, times and events alone what was delivered when; how the core comes to its
verdicts it does not know. Times in ns of the node's clock. Spec: sections 6 and 7.
"""

from typing import Final, NoReturn

from kaudp.config import Config, DetectorKind
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
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
    State,
)
from kaudp.units import MICROSECOND, SECOND, milliseconds

# The wire tells times in whole microseconds: what is closer to a bound than this may be either.
ROUNDING: Final = 2 * MICROSECOND
# Evidence this old may count as fresh or not (KA-7.2-2).
DOUBTFUL_AGE: Final = 1200 * SECOND
# What an observer grants above the budget of suspicion probes: the regular cadences beside it.
SPARE_PROBES: Final = 10
PROBES_OF_A_PAUSE: Final = 25
REFILL: Final = 4
# What a bound on detection and return leaves for the path and for rounding.
SLACK: Final = 2 * SECOND

STATE_TOLD: Final[dict[type[Event], State]] = {
    SessionUp: State.UP,
    SessionSuspect: State.SUSPECT,
    SessionHalfOpen: State.HALF_OPEN,
    SessionDown: State.DOWN,
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
        "local_id",
        "record",
        "remote_id",
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
        self.sent = 0
        self.accepted = 0
        self._one_way = False
        self._recovered = 0
        self._base = now
        self._probes = 0
        self._third = now
        self._stalls = 0
        self._burst = MIN_UNANSWERED
        self._credit = 0
        self._credited_at = now

    def __str__(self) -> str:
        role = "initiator" if self.initiator else "responder"
        return f"{self.node}'s {role} session, {self.state.name}"

    # What happened.

    def established(self, end: End, date: int, peer: str, burst: int, now: int) -> None:
        """Take note of new keys, from a handshake that began at `date`, and the peer's burst."""
        self.end = end
        self.peer = peer
        self._burst = max(MIN_UNANSWERED, min(burst, SUSPICION_BUDGET_MAX))
        stats = self.session.stats
        self.interval = stats.interval
        own = self.config.interval_ms if self.initiator else 0
        longest = milliseconds(max(self.config.max_peer_interval_ms, own))
        self.judged = min(self.interval, longest)
        self.learn_pto(stats.probe_timeout)
        self.heard_surely = self.heard_maybe = self.established_at = now
        self.date = date
        self._credit = max(self._credit, self._most_credit)

    def learn_pto(self, pto: int) -> None:
        """Take note of the probe timeout, and of L, which follows from it. Spec: section 7.2."""
        self.pto = pto
        self.longest_wait = max(self.wait, self.judged + 2 * pto + self._min_suspicion)

    def excused(self, until: int) -> None:
        """Take note of a stall or a pause: until then, and a while after, silence is no sign."""
        self.excused_until = max(self.excused_until, until)
        self._credit += PROBES_OF_A_PAUSE * self.judged

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
        """Take note of an own PROBE. Spec: KA-7.4-4."""
        if self.state is not State.SUSPECT:
            return
        self._probes += 1
        if self._probes == MIN_UNANSWERED:
            self._third = now + self.pto
        most = self._most_credit
        if self._credit < most:
            self._credit = min(most, self._credit + self._refill * (now - self._credited_at))
        self._credited_at = now
        self._credit -= self.judged
        if self._credit < 0:
            violated("KA-7.4-4", f"{self} sends more suspicion probes than its budget holds")

    def told_of(self, event: Event, now: int) -> None:
        """Take note of an event. Spec: KA-6.3-1, KA-6.3-2."""
        if event.time != now or now < self.told:
            violated("KA-6.3-2", f"{self} tells at {now} of {event.time}: {event}")
        self.told = now
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
        self._enter(before, after, now)
        self.state, self.since = after, now

    def _enter(self, before: State, after: State, now: int) -> None:
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
        return (
            2 * DOWN_BACKOFF_MAX * self.interval
            + 3 * HANDSHAKE_RETRY_MAX
            + 2 * confirmations * max(self._spacing, self.interval)
            + 8 * self.pto
            + SLACK
        )

    def check_patience(self, now: int) -> None:
        """Check that what was to end has ended. Spec: KA-4.2-3, KA-7.5-1, KA-7.6-4."""
        if self.state is State.CONNECTING:
            timeout = self.config.connect_timeout_ms
            over = timeout is not None and self.created + milliseconds(timeout)
            if over and now > max(over, self.excused_until) + SLACK:
                violated("KA-4.2-3", f"{self} goes on after its connect timeout")
        elif self.state is State.DOWN:
            over = self.since + milliseconds(self.config.down_retention_ms)
            if not self.initiator and now > max(over, self.excused_until) + SLACK:
                violated("KA-7.6-4", f"{self} is kept after down_retention")
        elif self.state is not State.CLOSED:
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
        return (self._burst + SPARE_PROBES) * self.judged

    @property
    def _refill(self) -> int:
        """Budget, waiting for T, and the cadences beside it, NAT keep-alive among them."""
        keepalive = self.config.nat_keepalive_ms
        beside = 0 if keepalive is None else 2 * self.judged // milliseconds(keepalive)
        return REFILL + beside
