"""core/terms: what both sides have told each other, and what of it is to be told again."""

import pytest

from kaudp.config import Config
from kaudp.core.agreement import own_parameters
from kaudp.core.terms import Terms
from kaudp.errors import ConfigError
from kaudp.wire.codec import NO_OPTIONS, Options, Parameters
from tests.worlds import MS, S

CONFIG = Config.wan(interval_ms=2_000, min_receive_interval_ms=100)
OWN = own_parameters(CONFIG)
PEER = Parameters(1_000, 1_000, 20_000, 64, 0)


def terms(*, initiator: bool = True) -> Terms:
    made = Terms(CONFIG, OWN, initiator=initiator, now=0)
    made.established(OWN, PEER, 0)
    made.keys_work()
    return made


def test_neither_judges_while_one_pauses_or_is_down() -> None:
    """KA-8.7-1 KA-8.10-3."""
    held = terms()
    assert not held.hold_judgement(0)
    held.begin_pause(5 * S, 0)
    assert held.hold_judgement(5 * S - 1)
    assert not held.hold_judgement(5 * S)
    assert held.administer(down=True)
    assert held.hold_judgement(6 * S)
    assert held.administer(down=False)
    held.pause.learn(1_000, 6 * S)
    assert held.hold_judgement(7 * S - 1)
    assert not held.hold_judgement(7 * S)


def test_a_pause_is_told_by_what_remains_until_it_is_over() -> None:
    """KA-8.6-1."""
    told = terms()
    told.begin_pause(5 * S, 10 * S)
    assert told.control.pending == Options(pause_ms=5_000)
    assert told.unconfirmed(12 * S) == Options(pause_ms=3_000)
    told.announce(b"key id--")
    told.lapse(15 * S - 1)
    assert told.unconfirmed(15 * S) == Options(pause_ms=0, next_key=b"key id--")
    told.lapse(15 * S)
    assert told.unconfirmed(15 * S) == Options(next_key=b"key id--")
    assert told.control.version == 2


def test_other_intervals_are_told_and_settled_when_confirmed() -> None:
    """KA-8.8-1 KA-8.8-3: what is not named stays."""
    told = terms()
    told.change_intervals(5_000, None)
    assert told.parameters == OWN._replace(desired_interval_us=5_000_000)
    told.change_intervals(None, 300)
    expected = OWN._replace(desired_interval_us=5_000_000, min_receive_interval_us=300_000)
    assert told.parameters == expected
    assert told.control.pending == Options(parameters=expected)
    assert told.confirmed_by(1) is NO_OPTIONS
    assert not told.agreement.settled
    assert told.confirmed_by(2) == Options(parameters=expected)
    assert told.agreement.settled
    with pytest.raises(ConfigError):
        told.change_intervals(1, None)
    assert (told.parameters, told.control.version) == (expected, 2)


def test_slow_down_changes_one_interval_and_outlives_the_others() -> None:
    """KA-8.9-1: and PARAMETERS, which hold it, take its place."""
    told = terms()
    told.slow_down(700)
    assert told.control.pending == Options(slow_down_us=700_000)
    assert told.parameters == OWN._replace(min_receive_interval_us=700_000)
    assert not told.agreement.settled
    told.confirmed_by(1)
    assert told.agreement.settled
    told.slow_down(800)
    told.change_intervals(5_000, None)
    changed = OWN._replace(desired_interval_us=5_000_000, min_receive_interval_us=800_000)
    assert told.control.pending == Options(parameters=changed)
    told.push_back(900_000)
    assert told.parameters.min_receive_interval_us == 900_000


def test_what_else_is_confirmed_settles_no_intervals() -> None:
    """KA-8.8-3: those that a handshake told are not settled before its keys work."""
    fresh = Terms(CONFIG, OWN, initiator=True, now=0)
    fresh.established(OWN._replace(desired_interval_us=9), PEER, 0)
    fresh.administer(down=True)
    fresh.control.begin_anew(Options(admin=1))
    assert fresh.confirmed_by(1) == Options(admin=1)
    assert not fresh.agreement.settled


def test_an_operators_word_is_told_once() -> None:
    """KA-8.10-1."""
    told = terms()
    assert not told.administer(down=False)
    assert told.administer(down=True)
    assert not told.administer(down=True)
    assert told.control.pending == Options(admin=1)
    assert told.administer(down=False)
    assert told.control.pending == Options(admin=0)
    assert told.control.version == 2


def test_what_the_peer_tells_is_taken_once() -> None:
    """KA-8.6-2 KA-8.8-3 KA-8.9-1 KA-4.8-1."""
    told = terms()
    faster = PEER._replace(min_receive_interval_us=4_000_000)
    said = Options(parameters=faster, next_key=b"key id--")
    assert told.learn(1, said, 6) == said
    assert told.learn(1, said, 7) is NO_OPTIONS
    assert told.announced_key == b"key id--"
    assert (told.agreement.interval, told.agreement.judged_interval) == (2 * S, 4 * S)
    assert not told.peer_knows(6)
    assert told.peer_knows(7)
    assert not told.peer_knows(8)
    assert told.agreement.interval == told.agreement.judged_interval == 4 * S
    told.learn(2, Options(slow_down_us=6_000_000), 9)
    assert told.agreement.judged_interval == 6 * S
    assert told.agreement.peer.newest == PEER._replace(min_receive_interval_us=6_000_000)
    assert told.announced_key == b"key id--"


def test_new_keys_tell_again_what_the_handshake_did_not() -> None:
    """KA-8.6-3: also what the peer had confirmed to the process before, if it lasts."""
    told = terms()
    told.begin_pause(9 * S, 0)
    told.confirmed_by(1)
    told.administer(down=True)
    told.confirmed_by(2)
    told.announce(b"key id--")
    told.slow_down(700)
    handshake = told.parameters
    told.established(handshake, PEER, 4 * S)
    again = Options(pause_ms=5_000, admin=1, next_key=b"key id--")
    assert told.control.pending == again
    assert told.control.version == 1
    told.change_intervals(7_000, None)
    told.established(handshake, PEER, 9 * S)
    changed = handshake._replace(desired_interval_us=7_000_000)
    assert told.control.pending.parameters == changed, "it was changed during the handshake"
    assert told.control.pending.admin == 1


def test_a_pause_that_ended_is_not_told_again() -> None:
    """KA-8.6-3."""
    told = terms()
    told.begin_pause(9 * S, 0)
    told.confirmed_by(1)
    told.established(OWN, PEER, 9 * S)
    assert not told.control.waits
    assert told.control.version == 0


def test_keys_that_work_settle_what_the_handshake_told_and_nothing_else() -> None:
    """KA-8.8-3."""
    told = Terms(CONFIG, OWN, initiator=True, now=0)
    told.established(OWN, PEER, 0)
    told.change_intervals(5_000, None)
    told.keys_work()
    assert (told.agreement.interval, told.agreement.judged_interval) == (2 * S, 5 * S)
    told.confirmed_by(1)
    told.push_back(700_000)
    told.keys_work()
    assert not told.agreement.settled
    told.confirmed_by(2)
    told.begin_pause(S, 0)
    told.agreement.own.change(OWN)
    told.keys_work()
    assert told.agreement.settled, "a pause is nothing to it"


def test_a_peer_that_restarted_pauses_no_more_and_is_up() -> None:
    """KA-8.6-3 KA-8.10-5."""
    told = terms()
    told.pause.learn(60_000, 0)
    told.admin.peer_down(0)
    told.forget_peer(MS)
    assert not told.hold_judgement(MS)
