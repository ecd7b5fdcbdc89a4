"""The judge of one session: the two facts, suspicion, the verdict and the way back.

It decides on states and on when to judge next; it sends nothing. Times in ns.
Spec: sections 6 and 7.
"""

from typing import Final

from kaudp.config import Config
from kaudp.core import cadence
from kaudp.core.agreement import Agreement
from kaudp.core.allowance import Allowance
from kaudp.core.detectors import Detector
from kaudp.core.rtt import ResponseTime
from kaudp.core.states import Input, next_state
from kaudp.core.suspicion import BLIND_PROBE_SPACING, MIN_UNANSWERED, ProbeBudget, Suspicion
from kaudp.core.timers import Timer, TimerTable
from kaudp.core.totals import Totals
from kaudp.events import State
from kaudp.units import MICROSECOND, MILLISECOND, SECOND, milliseconds

HALF_OPEN_PROBES: Final = 3
LATE_TIMER: Final = 100 * MILLISECOND
STALL_WINDOW: Final = 600 * SECOND
JUDGEMENTS: Final = (Timer.OVERDUE, Timer.VERDICT)


class Liveness:
    """Knows what is known of the peer and what follows from it."""

    def __init__(
        self,
        config: Config,
        detector: Detector,
        timers: TimerTable,
        agreement: Agreement,
        totals: Totals,
        *,
        answer_delay: int,
        now: int,
    ) -> None:
        self.state = State.CONNECTING
        self.peer_state = State.UP
        self.response_time = ResponseTime(answer_delay)
        self.interval = agreement.interval
        self.judged_interval = agreement.judged_interval
        self.traffic_replaces_probes = False
        self.rx_at = now
        self.round_trip_at = now
        self.suspicions = 0
        self.stalls = 0
        self._config = config
        self._detector = detector
        self._timers = timers
        self._agreement = agreement
        self._totals = totals
        self._min_suspicion = milliseconds(config.min_suspicion_ms)
        self._least_spacing = milliseconds(config.suspicion_interval_ms)
        self._budget = ProbeBudget(now)
        self._stall_allowance = Allowance(STALL_WINDOW)
        self._suspicion: Suspicion | None = None
        self._judged_from = now
        self._judge_not_before = now
        self._excused_at = now
        self._suspended = False
        self._awaited: int | None = None
        self._last_probe = 0
        self._last_probe_at = now
        self._down_at = now
        self._down_probes = 0
        self._recovered = 0

    @property
    def pto(self) -> int:
        """The probe timeout. Spec: KA-10.2-1."""
        return self.response_time.pto

    @property
    def longest_wait(self) -> int:
        """L: evidence older than this changes statistics only. Spec: section 7.2."""
        wait = self._detector.longest_wait(self.judged_interval)
        return max(wait, self.judged_interval + 2 * self.pto + self._min_suspicion)

    @property
    def suspicion_probes(self) -> int:
        """How many probes the present suspicion has sent, 0 without one."""
        return self._suspicion.probes if self._suspicion else 0

    @property
    def awaits_reply(self) -> bool:
        """Whether a probe is unanswered."""
        return self._awaited is not None

    def agree(self) -> None:
        """Take over what the agreement says now. Spec: KA-7.4-2, KA-7.4-4, KA-8.8-2."""
        agreement = self._agreement
        self.interval = agreement.interval
        self.judged_interval = agreement.judged_interval
        self.traffic_replaces_probes = agreement.traffic_replaces_probes
        own_spacing = milliseconds(self._config.suspicion_interval_ms)
        self._least_spacing = max(own_spacing, agreement.suspicion_interval)
        self._budget.allow(agreement.suspicion_burst)
        if self._timers.armed(Timer.VERDICT) is not None:
            self._rearm_verdict()

    def jittered_interval(self, interval: int, r: int) -> int:
        """J(interval, m, r) with the detector's m. Spec: section 8.2."""
        return cadence.jittered(interval, self._detector.jitter_multiplier, r)

    # What happened.

    def established(self, round_trip_at: int, now: int) -> None:
        """Take note of a completed handshake that began at `round_trip_at`. KA-7.1-4, KA-8.2-2."""
        self.rx_at = now
        known = self.state is not State.CONNECTING
        self.round_trip_at = max(self.round_trip_at, round_trip_at) if known else round_trip_at
        self._judged_from = now
        self._awaited = None
        self._enter(Input.ESTABLISHED)
        self.rearm_overdue(now)

    def probe_sent(self, packet_number: int, now: int) -> None:
        """Take note of an own probe: it moves no fact. Spec: KA-7.1-1, KA-7.3-1."""
        self._last_probe = packet_number
        self._last_probe_at = now
        if self._awaited is None:
            self._awaited = now
            self.rearm_overdue(now)

    def heard(self, now: int) -> None:
        """Move the rx fact. Spec: KA-7.1-2."""
        self.rx_at = now
        self.rearm_overdue(now)

    def confirmed(self, packet_number: int, date: int, now: int) -> None:
        """Move both facts by fresh evidence. Spec: KA-7.1-2, KA-7.1-3, KA-7.2-3, KA-7.3-2."""
        self.rx_at = now
        self.round_trip_at = max(self.round_trip_at, date)
        if packet_number >= self._last_probe:
            self._awaited = None
        elif self._awaited is not None:
            self._awaited = max(self._last_probe_at, now)
        if self.state is State.DOWN:
            self._count_recovery(date, now)
        else:
            self._enter(Input.CONFIRMED)
        self.rearm_overdue(now)

    def end(self, event: Input) -> None:
        """End all judging, by CLOSE or EXPIRED."""
        self._enter(event)
        self._timers.clear()

    # Judgements.

    def rearm_overdue(self, now: int) -> None:
        """Set when the peer will be overdue. Spec: KA-7.3-1 to KA-7.3-5."""
        if self._suspended:
            return
        missed = self._timers.armed(Timer.OVERDUE)
        if missed is not None and now - missed > LATE_TIMER:
            # A frame that waited while we did not run comes in before the timer that is late.
            self.excuse_stall(missed, now)
        if self.state is State.UP:
            at = self._overdue_in_up()
        elif self.state is State.HALF_OPEN:
            at = self._overdue_in_half_open()
        else:
            return
        if at is None:
            self._timers.disarm(Timer.OVERDUE)
            return
        self._timers.arm(Timer.OVERDUE, max(at, now + 1, self._judge_not_before))

    def suspect(self, now: int) -> None:
        """Begin a suspicion; the caller probes at once. Spec: KA-7.4-1."""
        base = self._base()
        self._enter(Input.OVERDUE)
        self._suspicion = Suspicion(now, base)
        self.suspicions += 1
        self._totals.suspicions += 1

    def may_suspicion_probe(self, now: int) -> bool:
        """Take a probe from the budget; when it is empty, wait for T. Spec: KA-7.4-4."""
        at = self._last_probe_at + self.judged_interval
        if self.may_hasten(now) or at <= now:
            return True
        self._timers.arm(Timer.SUSPICION_PROBE, at)
        return False

    def suspicion_probe_sent(self, now: int) -> None:
        """Set when the next suspicion probe and the verdict are due. Spec: KA-7.4-2, KA-7.5-1."""
        suspicion = self._suspicion
        if suspicion is None:
            return
        suspicion.probes += 1
        self._timers.arm(Timer.SUSPICION_PROBE, now + suspicion.spacing(self.spacing(), now))
        if suspicion.probes == MIN_UNANSWERED:
            suspicion.not_before = now + self.pto
            self._rearm_verdict()

    def spacing(self) -> int:
        """Tell the least spacing of probes in suspicion. Spec: KA-7.4-2."""
        smoothed = self.response_time.smoothed
        return max(self._least_spacing, BLIND_PROBE_SPACING if smoothed is None else smoothed)

    def may_hasten(self, now: int) -> bool:
        """Take a probe from the budget. Spec: KA-7.4-4, KA-9.2-3."""
        return self._budget.take(self.judged_interval, now)

    def judge(self, now: int) -> None:
        """Pass the verdict. Spec: KA-7.5-2, KA-7.5-3."""
        began = self._suspicion.started if self._suspicion else now
        if self.rx_at >= began or now - self.rx_at <= self.judged_interval + self.pto:
            self._enter(Input.VERDICT_HALF_OPEN)
            self.rearm_overdue(now)
            return
        self._enter(Input.VERDICT_DOWN)
        self._down_at = now
        self._down_probes = 0
        self._recovered = 0

    def excuse_stall(self, planned: int, now: int) -> bool:
        """Take the lateness of any timer out of the silence, as far as the allowance goes.

        A stall is charged once, however many timers it delayed. Spec: KA-7.7-2, KA-7.7-3.
        """
        lateness = now - max(planned, self._excused_at)
        if lateness <= LATE_TIMER:
            return False
        wait = self.longest_wait
        charge = max(min(lateness, wait), self.pto)
        if min(charge, self._stall_allowance.left(wait, now)) < self.pto:
            return False
        granted = self._stall_allowance.grant(charge, wait, now)
        self.stalls += 1
        self._totals.stalls += 1
        self._excused_at = now
        self._judge_not_before = now + self.pto
        if self._awaited is not None:
            self._awaited = now
        self._shift_judgement(lateness if granted == charge else granted, now)
        return True

    def postponed(self, timer: Timer, now: int) -> bool:
        """Put a judgement off that an excuse forbids; the caller probes. Spec: KA-7.7-1."""
        if now >= self._judge_not_before:
            return False
        if timer is Timer.VERDICT:
            self._rearm_verdict()
        else:
            self._timers.arm(timer, self._judge_not_before)
        return True

    def probed_at(self, now: int) -> bool:
        """Tell whether a probe went out at this very time."""
        return self._last_probe_at == now

    def suspend(self) -> None:
        """Judge nothing until `resume`. Spec: KA-8.7-1, KA-8.10-3."""
        self._suspended = True
        self._timers.disarm(*JUDGEMENTS, Timer.SUSPICION_PROBE)

    def resume(self, now: int) -> None:
        """Judge again, from now; the caller probes, or waits for the peer's probe."""
        self._suspended = False
        self._awaited = None
        if self.state is State.SUSPECT:
            self._suspicion = Suspicion(now, now)
        self.measure_anew(now)

    def measure_anew(self, now: int) -> None:
        """Count no silence before now. Spec: KA-8.7-3, KA-8.8-4, KA-8.10-6."""
        self._judged_from = now
        self.rearm_overdue(now)

    def administer(self, event: Input) -> None:
        """Be taken down by an operator, or up again. Spec: KA-8.10-2."""
        self._awaited = None
        self._enter(event)

    # The cadence of probes.

    def next_probe(self, planned: int, r: int, now: int) -> int | None:
        """Tell when to probe after the probe of `planned`, None if that is not for this side.

        Spec: KA-8.2-1, KA-7.3-4, KA-7.5-4, KA-7.6-1, KA-7.6-3, KA-8.10-3.
        """
        if self.state is State.DOWN:
            fresh = self._recovered and now - self.round_trip_at <= self.interval
            if fresh and self.may_hasten(now):
                return now + self.spacing()
            if not fresh:
                self._recovered = 0
            self._down_probes += 1
        step = self._probe_interval()
        if step is None:
            return None
        return cadence.rearmed(planned, self.jittered_interval(step, r), now)

    def hasten_probe(self, r: int, now: int) -> None:
        """Wait no longer for a probe than an interval that has become shorter. Spec: KA-8.8-2."""
        if self.state is State.DOWN and self._recovered:
            return  # The probes of a return have a spacing of their own. Spec: KA-7.6-3
        planned, step = self._timers.armed(Timer.PROBE), self._probe_interval()
        if planned is not None and step is not None and planned > now + step:
            self._timers.arm(Timer.PROBE, now + self.jittered_interval(step, r))

    def postponed_probe(self, r: int, now: int) -> int:
        """Tell to when application traffic of now may put off the next probe. Spec: KA-8.5-2."""
        due = self._last_probe_at + self.jittered_interval(2 * self.interval, r)
        return min(due, now + self.jittered_interval(self.interval, r))

    def _probe_interval(self) -> int | None:
        """Tell the interval of this side's probes in this state, None if it has none.

        Spec: KA-7.3-4, KA-7.5-4, KA-7.6-1, KA-8.10-3.
        """
        if self.state is State.DOWN:
            return cadence.down_interval(self.interval, self._down_probes - 1)
        if self.state is State.HALF_OPEN:
            return self.interval
        if not self._agreement.initiator:
            return None
        if self.state is State.ADMIN_DOWN:
            return cadence.DOWN_BACKOFF_MAX * self.interval
        return self.interval if self.state is State.UP else None

    def _overdue_in_up(self) -> int | None:
        reply_at = None if self._awaited is None else self._awaited + self.pto
        if self._agreement.initiator:
            return reply_at
        interval = self.judged_interval
        lag = (4 if self.traffic_replaces_probes else 2) * interval
        heard_at = max(self.rx_at, self._judged_from)
        confirmed_at = max(self.round_trip_at, self._judged_from)
        silent_at = min(heard_at + interval + self.pto, confirmed_at + lag + 2 * self.pto)
        return silent_at if reply_at is None else min(reply_at, silent_at)

    def _overdue_in_half_open(self) -> int:
        """Let two of the peer's probes be lost, as slow as it sends them. Spec: KA-7.3-5."""
        intervals = cadence.DOWN_BACKOFF_MAX if self.peer_state is State.DOWN else 1
        silence = HALF_OPEN_PROBES * intervals * self.judged_interval + self.pto
        return max(self.rx_at, self._judged_from) + silence

    def _count_recovery(self, date: int, now: int) -> None:
        """Count evidence dated after the verdict, or at its microsecond. KA-7.6-2, KA-7.6-3."""
        if date <= self._down_at - MICROSECOND:
            return
        self._recovered += 1
        self._down_probes = 0
        if self._recovered >= self._config.up_confirmations:
            self._enter(Input.RECOVERED)
        elif self._recovered == 1:
            self._timers.arm(Timer.PROBE, now + self.spacing())

    def _base(self) -> int:
        """Tell what silence is measured from. Spec: section 7.5."""
        fact = self.rx_at if self.state is State.HALF_OPEN else self.round_trip_at
        return max(fact, self._judged_from)

    def _shift_judgement(self, by: int, now: int) -> None:
        """Do not count `by` as silence. Spec: KA-7.7-2."""
        suspicion = self._suspicion
        if suspicion is None:
            self._judged_from = min(now, self._base() + by)
            return
        suspicion.base = min(now, suspicion.base + by)
        suspicion.started = min(now, suspicion.started + by)
        if self._timers.armed(Timer.VERDICT) is not None:
            self._rearm_verdict()

    def _rearm_verdict(self) -> None:
        suspicion = self._suspicion
        if suspicion is not None:
            earliest = suspicion.verdict_at(
                self._detector, self.judged_interval, self._min_suspicion, self._judge_not_before
            )
            self._timers.arm(Timer.VERDICT, earliest)

    def _enter(self, event: Input) -> None:
        before = self.state
        self.state = next_state(before, event)
        if self.state is not before or event is Input.ESTABLISHED:
            self._suspicion = None
            self._timers.disarm(*JUDGEMENTS, Timer.SUSPICION_PROBE)
