"""core/liveness alone: its timers, to the nanosecond."""

from kaudp.config import Config
from kaudp.core.agreement import Agreement, own_parameters
from kaudp.core.detectors import detector_for
from kaudp.core.liveness import LATE_TIMER, Liveness
from kaudp.core.timers import Timer, TimerTable
from kaudp.core.totals import Totals
from kaudp.events import State
from tests.worlds import MS, S

T = 2 * S
PTO = S  # before anything was measured
CONFIG = Config.wan(interval_ms=2_000, multiplier=5, min_suspicion_ms=1_000, up_confirmations=3)


class Judge:
    """A judge with its timers, UP since 0."""

    def __init__(self, *, initiator: bool = True) -> None:
        own = own_parameters(CONFIG)
        self.timers = TimerTable()
        self.agreement = Agreement(CONFIG, own, initiator=initiator)
        self.agreement.established(own, own)
        self.agreement.own.settle()
        self.totals = Totals()
        self.live = Liveness(
            CONFIG,
            detector_for(CONFIG),
            self.timers,
            self.agreement,
            self.totals,
            answer_delay=0,
            now=-S,
        )
        assert (self.live.rx_at, self.live.round_trip_at) == (-S, -S)
        self.live.agree()
        self.live.established(0, 0)
        self.live.confirmed(0, 0, 0)
        assert self.live.state is State.UP

    def due(self, timer: Timer) -> int | None:
        return self.timers.armed(timer)

    def suspect(self, now: int) -> "Judge":
        """Miss a reply and send the probes that a verdict takes."""
        self.live.suspect(now)
        for _ in range(3):
            assert self.live.may_suspicion_probe(now)
            self.live.probe_sent(1, now)
            self.live.suspicion_probe_sent(now)
        return self

    def half_open(self) -> "Judge":
        self.suspect(0)
        self.live.heard(9 * S)
        self.live.judge(10 * S)
        assert self.live.state is State.HALF_OPEN
        return self


def test_a_reply_is_due_within_a_pto() -> None:
    """KA-7.3-1: of the first probe that is unanswered, and nothing is due without one."""
    judge = Judge()
    assert judge.due(Timer.OVERDUE) is None
    judge.live.probe_sent(1, 3 * S)
    judge.live.probe_sent(2, 3 * S + MS)
    assert judge.live.awaits_reply
    assert judge.due(Timer.OVERDUE) == 3 * S + PTO
    judge.live.confirmed(1, 3 * S, 3 * S + 5 * MS)
    assert judge.due(Timer.OVERDUE) == 3 * S + 5 * MS + PTO
    judge.live.confirmed(2, 3 * S, 3 * S + 6 * MS)
    assert not judge.live.awaits_reply
    assert judge.due(Timer.OVERDUE) is None


def test_a_responder_also_waits_for_the_probes_of_its_peer() -> None:
    """KA-7.3-1 KA-7.3-3: T and a PTO after it heard, two T and two PTO after it was heard."""
    judge = Judge(initiator=False)
    assert judge.due(Timer.OVERDUE) == T + PTO
    judge.live.heard(2 * S)
    assert judge.due(Timer.OVERDUE) == 2 * S + T + PTO
    judge.live.probe_sent(1, 3 * S)
    assert judge.due(Timer.OVERDUE) == 3 * S + PTO
    judge.live.confirmed(1, 0, 4 * S)
    assert judge.due(Timer.OVERDUE) == 2 * T + 2 * PTO
    judge.live.measure_anew(5 * S)
    assert judge.due(Timer.OVERDUE) == 5 * S + T + PTO


def test_half_open_bears_two_lost_probes_of_the_peer() -> None:
    """KA-7.3-5: eight times as long where the peer is DOWN itself and probes more rarely."""
    judge = Judge().half_open()
    assert judge.due(Timer.OVERDUE) == 9 * S + 3 * T + PTO
    judge.live.peer_state = State.DOWN
    judge.live.heard(11 * S)
    assert judge.due(Timer.OVERDUE) == 11 * S + 24 * T + PTO


def test_the_verdict_follows_the_agreement() -> None:
    """KA-7.5-1 KA-8.8-2: a change during suspicion counts at once; none arms it before."""
    judge = Judge()
    judge.live.suspect(S)
    judge.live.agree()
    assert judge.due(Timer.VERDICT) is None
    judge = Judge().suspect(S)
    assert judge.due(Timer.VERDICT) == 5 * T
    judge.agreement.peer.change(own_parameters(Config.wan(min_receive_interval_ms=3_000)))
    judge.live.agree()
    assert judge.due(Timer.VERDICT) == 5 * 3 * S


def test_a_late_timer_excuses_the_peer_for_a_pto() -> None:
    """KA-7.7-1 KA-7.7-2: the frame that was waiting comes in first; nothing is judged sooner."""
    judge = Judge()
    judge.live.probe_sent(1, 0)
    assert not judge.live.excuse_stall(PTO, PTO + LATE_TIMER)
    woken = PTO + LATE_TIMER + 1
    judge.live.heard(woken)
    assert (judge.live.stalls, judge.totals.stalls) == (1, 1)
    assert judge.due(Timer.OVERDUE) == woken + PTO
    assert not judge.live.excuse_stall(PTO, woken), "it is charged once"
    assert judge.live.postponed(Timer.OVERDUE, woken + PTO - 1)
    assert judge.due(Timer.OVERDUE) == woken + PTO
    assert not judge.live.postponed(Timer.OVERDUE, woken + PTO)


def test_an_excuse_is_kept_whatever_is_heard_meanwhile() -> None:
    """KA-7.7-1: also where the wait for the peer's probes would end before."""
    judge = Judge(initiator=False)
    woken = T + PTO + 30 * S
    assert judge.live.excuse_stall(T + PTO, woken)
    judge.live.rearm_overdue(woken)
    assert judge.due(Timer.OVERDUE) == woken + PTO


def test_a_way_back_takes_so_many_confirmations_after_the_verdict() -> None:
    """KA-7.6-2 KA-7.6-3: and older evidence is none."""
    judge = Judge().suspect(S)
    judge.live.judge(20 * S)
    assert judge.live.state is State.DOWN
    judge.live.confirmed(1, 20 * S - 1_000, 21 * S)
    assert judge.due(Timer.PROBE) is None
    judge.live.confirmed(1, 20 * S, 22 * S)
    assert judge.due(Timer.PROBE) == 22 * S + judge.live.spacing()
    judge.live.confirmed(1, 23 * S, 23 * S)
    assert judge.live.state is State.DOWN
    judge.live.confirmed(1, 24 * S, 24 * S)
    assert judge.live.state is State.UP


def test_where_nothing_was_measured_suspicion_probes_slowly() -> None:
    """KA-7.4-2: 3 s apart, then by the smoothed response time, but no closer than both allow."""
    judge = Judge()
    assert judge.live.spacing() == 3 * S
    judge.live.response_time.sample(700 * MS)
    assert judge.live.spacing() == 700 * MS
    judge = Judge()
    judge.live.response_time.sample(MS)
    assert judge.live.spacing() == 100 * MS
