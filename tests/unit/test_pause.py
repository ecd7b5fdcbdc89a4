"""core/pause: for how long either side is not judged."""

from kaudp.config import Config
from kaudp.core.pause import Pause
from tests.worlds import MS, S

CONFIG = Config.wan(max_peer_pause_ms=60_000, max_peer_pause_sum_ms=100_000)


def test_at_first_nothing_is_paused() -> None:
    """KA-8.7-1."""
    pause = Pause(CONFIG, 77)
    assert (pause.until, pause.remaining_ms(77)) == (77, 0)
    assert not pause.lapsed(77)
    assert not pause.lapsed(78)


def test_an_own_pause_tells_the_time_that_remains() -> None:
    """KA-8.6-1: in whole milliseconds, rounded down, and never below zero."""
    pause = Pause(CONFIG, 0)
    pause.begin(10 * S, 5 * S)
    assert pause.until == 15 * S
    assert pause.remaining_ms(6 * S) == 9_000
    assert pause.remaining_ms(6 * S + 1) == 8_999
    assert pause.remaining_ms(20 * S) == 0


def test_what_remains_fits_into_its_field() -> None:
    """KA-3.8-3: PAUSE has 4 bytes."""
    pause = Pause(CONFIG, 0)
    pause.begin(2**33 * MS, 0)
    assert pause.remaining_ms(0) == 2**32 - 1


def test_only_a_pause_that_is_over_by_itself_has_lapsed() -> None:
    """KA-8.7-3: the end of a pause, a duration of zero, is to be told and confirmed."""
    pause = Pause(CONFIG, 0)
    pause.begin(10 * S, 0)
    assert not pause.lapsed(10 * S - 1)
    assert pause.lapsed(10 * S)
    pause.begin(0, 11 * S)
    assert not pause.lapsed(12 * S)
    pause.begin(1, 13 * S)
    assert pause.lapsed(13 * S + 1)


def test_the_peers_pause_is_honoured_within_its_limits() -> None:
    """KA-8.7-2: 60 s of one, 100 s in any hour."""
    pause = Pause(CONFIG, 0)
    assert pause.learn(10_000, S) == 10 * S
    assert pause.until == 11 * S
    assert pause.learn(90_000, 20 * S) == 60 * S
    assert pause.learn(90_000, 100 * S) == 30 * S
    assert pause.until == 130 * S
    assert pause.learn(90_000, 200 * S) == 0
    assert pause.learn(90_000, 3619 * S) == 0
    assert pause.learn(90_000, 3620 * S) == 60 * S, "an hour after the second"


def test_what_an_earlier_pause_covers_is_not_charged_again() -> None:
    """KA-8.7-2: a peer may tell its pause again under new keys."""
    pause = Pause(CONFIG, 0)
    pause.learn(50_000, 0)
    assert pause.learn(40_000, 10 * S) == 40 * S
    assert pause.learn(60_000, 20 * S) == 60 * S
    assert pause.until == 80 * S
    assert pause.learn(60_000, 90 * S) == 20 * S, "80 of 100 s were charged"
    assert pause.learn(0, 91 * S) == 0
    assert pause.until == 91 * S, "a duration of zero ends it"


def test_both_pauses_must_be_over() -> None:
    """KA-8.7-1 KA-8.7-3."""
    pause = Pause(CONFIG, 0)
    pause.begin(10 * S, 0)
    pause.learn(20_000, 0)
    assert pause.until == 20 * S
    pause.begin(30 * S, 0)
    assert pause.until == 30 * S


def test_a_peer_that_started_anew_pauses_no_more() -> None:
    """KA-8.6-3: what it said before does not count, but what was granted does."""
    pause = Pause(CONFIG, 0)
    pause.learn(60_000, 0)
    pause.forget_peer(5 * S)
    assert pause.until == 5 * S
    assert pause.learn(60_000, 6 * S) == 40 * S
