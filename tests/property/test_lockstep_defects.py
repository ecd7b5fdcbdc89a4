"""The lock-step finds defects: the code is spoilt in one place, and both go apart."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from kaudp.core import cadence, liveness, replay, session, suspicion
from kaudp.core.administration import Administration
from kaudp.core.bucket import Bucket
from kaudp.core.channel import Channel
from kaudp.core.control import Control
from kaudp.core.liveness import Liveness
from kaudp.core.paths import PeerPath, Validation
from kaudp.core.pause import Pause
from kaudp.core.rtt import ResponseTime
from kaudp.core.session import Session
from kaudp.core.terms import Terms
from kaudp.wire.codec import NO_OPTIONS
from tests.lockstep import Divergence
from tests.property.test_lockstep import Lockstep
from tests.worlds import MS

ENOUGH = settings(
    max_examples=500,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

Spoil = Callable[[Any], Any]


def after(then: Callable[..., None]) -> Spoil:
    """Let something more be done after a method."""

    def spoil(method: Any) -> Any:
        def spoilt(self: Any, *args: Any, **named: Any) -> Any:
            result = method(self, *args, **named)
            then(self, *args)
            return result

        return spoilt

    return spoil


def gives(make: Callable[..., Any]) -> Spoil:
    """Put something else in a function's place."""
    return lambda _: make


def constant(value: Any) -> Spoil:
    """Put another value in a constant's place."""
    return lambda _: value


def moves_the_round_trip_fact(live: Liveness, now: int) -> None:
    live.round_trip_at = now


def calms(response: ResponseTime, _: int) -> None:
    response.variation //= 2


def forgets_when(path: PeerPath) -> None:
    path._not_before = None


def forgets_old_budget(bucket: Bucket, *_: int) -> None:
    bucket._spent = max(0, bucket._spent - 1)


def as_new(channel: Channel, *_: Any) -> None:
    channel.confirmed = 0


DEFECTS: list[tuple[str, Any, str, Spoil]] = [
    ("KA-5.1-1 a short window", replay, "REPLAY_WINDOW", constant(512)),
    ("KA-6.4-1 CLOSE twice only", session, "CLOSE_TRANSMISSIONS", constant(2)),
    ("KA-7.1-2 any frame moves both facts", Liveness, "heard", after(moves_the_round_trip_fact)),
    ("KA-7.2-1 evidence counts again", Channel, "evidence", after(as_new)),
    ("KA-7.3-5 one lost probe ends HALF_OPEN", liveness, "HALF_OPEN_PROBES", constant(2)),
    ("KA-7.4-3 no growth of the spacing", suspicion, "SUSPICION_GROWTH_DIVISOR", constant(10**9)),
    ("KA-7.4-4 a bottomless budget", Bucket, "take", after(forgets_old_budget)),
    ("KA-7.5-1 two probes are enough", liveness, "MIN_UNANSWERED", constant(2)),
    ("KA-7.6-1 a short back-off", cadence, "DOWN_BACKOFF_MAX", constant(4)),
    (
        "KA-7.6-2 one answer recovers",
        Liveness,
        "_count_recovery",
        gives(lambda live, date, now: live._enter(liveness.Input.RECOVERED)),
    ),
    ("KA-7.7-1 no excuse", Liveness, "excuse_stall", gives(lambda *_: False)),
    ("KA-7.7-1 an excuse too soon", liveness, "LATE_TIMER", constant(99 * MS)),
    ("KA-7.7-3 endless excuses", liveness, "STALL_WINDOW", constant(1)),
    ("KA-8.2-4 no jitter", cadence, "jittered", gives(lambda interval, m, r: interval)),
    (
        "KA-8.6-1 an old confirmation counts",
        Control,
        "confirmed_by",
        gives(lambda control, ack: NO_OPTIONS if not control.waits else control.confirmed_by_any()),
    ),
    ("KA-8.6-3 versions go on", Control, "begin_anew", gives(lambda *_: None)),
    ("KA-8.6-4 changes without end", Control, "require_room", gives(lambda *_: None)),
    (
        "KA-8.7-2 every pause is honoured",
        Pause,
        "learn",
        after(lambda pause, ms, now: setattr(pause, "_peer_until", now + ms * MS)),
    ),
    ("KA-8.8-2 a probe as late as before", Liveness, "hasten_probe", gives(lambda *_: None)),
    ("KA-8.8-3 what a handshake told is never settled", Terms, "keys_work", gives(lambda _: None)),
    (
        "KA-8.8-4 silence is not measured anew",
        Liveness,
        "measure_anew",
        gives(lambda live, now: live.rearm_overdue(now)),
    ),
    ("KA-8.9-2 nobody is asked to slow down", Session, "_meter", gives(lambda *_: None)),
    ("KA-8.10-4 the peer is down for ever", Administration, "peer_up", gives(lambda *_: None)),
    ("KA-9.1-3 no bound before validation", Validation, "allows", gives(lambda *_: True)),
    (
        "KA-9.3-5 no rest between validations",
        PeerPath,
        "end_validation",
        after(lambda path, **_: forgets_when(path)),
    ),
    ("KA-10.2-1 a variation too small", ResponseTime, "sample", after(calms)),
]


def confirmed_by_any(control: Control) -> Any:
    """Take any version for the newest."""
    confirmed, control._told = control._told, NO_OPTIONS
    return confirmed


@pytest.mark.parametrize(
    ("place", "name", "spoil"),
    [defect[1:] for defect in DEFECTS],
    ids=[defect[0] for defect in DEFECTS],
)
def test_a_defect_is_found(
    place: Any, name: str, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Control, "confirmed_by_any", confirmed_by_any, raising=False)
    monkeypatch.setattr(place, name, spoil(getattr(place, name)))
    with pytest.raises(Divergence):
        run_state_machine_as_test(Lockstep, settings=ENOUGH)
