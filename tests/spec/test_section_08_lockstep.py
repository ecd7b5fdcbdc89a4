"""What the reference model found in the core: changes that are refused, lapse or shorten T."""

from collections.abc import Callable

import pytest

from kaudp.config import Config
from kaudp.core.agreement import own_parameters
from kaudp.core.session import Session
from kaudp.core.timers import Timer
from kaudp.errors import SessionStateError
from kaudp.events import State
from kaudp.units import MICROSECOND
from tests.lockstep import Twins
from tests.worlds import MS, Pair, S

NO_NAT = {"nat_keepalive_ms": None}


def test_a_new_session_knows_of_no_round_trip_but_its_handshake() -> None:
    """KA-7.1-4: a responder's fact is when it answered, not when the first PROBE came."""
    pair = Pair()
    pair.run(60 * MS)
    assert pair.far.state is State.UP
    assert 0 < pair.far.stats.round_trip_at < pair.far.stats.rx_at


def test_a_stale_reply_that_raises_the_probe_timeout_puts_the_judgement_off() -> None:
    """KA-7.2-1 KA-7.3-3: nobody is overdue by a PTO that holds no more."""
    twins = Twins(Config.wan(), own_parameters(Config.wan()), initiator=False)
    twins.init()
    twins.now = 10 * MS
    twins.first_probe()
    session = twins.session
    assert session is not None
    dated_an_hour_ago = twins.now // MICROSECOND + 1
    twins.frame("REPLY", 1, highest_received=1, echo_time=dated_an_hour_ago)
    assert session.stats.probe_timeout == 60 * S
    assert session.timers.armed(Timer.OVERDUE) == 10 * MS + 5 * S + 60 * S


@pytest.mark.parametrize(
    "verb",
    [
        lambda session, now: session.pause(5 * S, now),
        lambda session, now: session.admin_down(now),
        lambda session, now: session.change_intervals(now, interval_ms=30_000),
        lambda session, now: session.slow_down(30_000, now),
    ],
    ids=["pause", "admin_down", "change_intervals", "slow_down"],
)
def test_a_change_that_is_refused_changes_nothing(verb: Callable[[Session, int], None]) -> None:
    """KA-8.6-4: neither what is told nor what this side goes by."""
    pair = Pair().up()
    pair.cut()
    for _ in range(254):
        pair.far.pause(0, pair.now)

    def known() -> object:
        terms = pair.far._terms
        held = terms.hold_judgement(pair.now)
        return terms.control.version, terms.control.pending, terms.parameters, held, pair.far.state

    before = known()
    with pytest.raises(SessionStateError, match="254 changes"):
        verb(pair.far, pair.now)
    assert known() == before


def test_pauses_that_lapse_do_not_use_the_versions_up() -> None:
    """KA-8.6-4: the peer's confirmation counts, also where the pause is over by then."""
    pair = Pair().up()
    for _ in range(300):
        pair.session.pause(1 * MS, pair.now)
        pair.run(200 * MS)
    assert not pair.session._terms.control.waits


def test_a_shorter_interval_never_puts_a_probe_off() -> None:
    """KA-8.8-2 KA-8.10-3: less by a little, in ADMIN_DOWN, is no reason to probe later."""
    pair = Pair(alice=Config.wan(**NO_NAT)).up()
    pair.session.admin_down(pair.now)
    pair.run(8 * S)
    planned = pair.session.timers.armed(Timer.PROBE)
    assert planned is not None
    pair.session.change_intervals(pair.now, interval_ms=4_900)
    again = pair.session.timers.armed(Timer.PROBE)
    assert again is not None
    assert pair.now < again <= planned


def test_a_shorter_interval_leaves_the_probes_of_a_return_alone() -> None:
    """KA-8.8-2 KA-7.6-3: they have a spacing of their own."""
    slow = Config.wan(min_receive_interval_ms=8_000)
    twins = Twins(slow, own_parameters(Config.wan()), initiator=False)
    twins.init()
    twins.first_probe()
    session = twins.session
    assert session is not None
    for _ in range(60):
        if session.state is not State.DOWN:
            twins.time(twins.next_timer() or 0)
    newest, sent_time = max(twins.handshakes[0].seen.items())
    twins.frame("PROBE", 1, highest_received=newest, echo_time=sent_time)
    assert (session.state, session._liveness._recovered) == (State.DOWN, 1)
    planned = session.timers.armed(Timer.PROBE)
    session.change_intervals(twins.now, min_receive_interval_ms=10)
    assert session.stats.interval == 5 * S
    assert session.timers.armed(Timer.PROBE) == planned


def test_a_much_shorter_interval_hastens_the_probes_in_down() -> None:
    """KA-8.8-2 KA-7.6-1: and the back-off is not longer for it."""
    pair = Pair(alice=Config.wan(**NO_NAT)).up()
    pair.cut()
    pair.run_to(State.DOWN)
    probes = pair.session._liveness._down_probes
    pair.session.change_intervals(pair.now, interval_ms=100)
    planned = pair.session.timers.armed(Timer.PROBE)
    assert planned is not None
    assert pair.now < planned <= pair.now + pair.session.stats.interval
    assert pair.session._liveness._down_probes == probes
