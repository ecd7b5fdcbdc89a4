"""core/pause: control state of both sides."""

import pytest

from kaudp.config import Config
from kaudp.core.pause import Pause
from tests.worlds import MS, S

CONFIG = Config.wan(max_peer_pause_ms=60_000, max_peer_pause_sum_ms=100_000)


def test_at_first_nothing_is_paused() -> None:
    """KA-8.6-1: version 0 is that of a side that never had control state."""
    pause = Pause(CONFIG, 77)
    assert (pause.version, pause.acked, pause.until) == (0, 0, 77)
    assert pause.pending is False
    assert pause.remaining_ms(77) is None


def test_a_pause_tells_the_time_that_remains_until_it_is_confirmed() -> None:
    """KA-8.6-1."""
    pause = Pause(CONFIG, 0)
    pause.begin(10 * S, 5 * S)
    assert (pause.version, pause.pending, pause.until) == (1, True, 15 * S)
    assert pause.remaining_ms(6 * S + 1) == 8_999
    assert pause.remaining_ms(20 * S) == 0
    pause.confirmed_by(0)
    assert pause.pending
    pause.confirmed_by(1)
    assert pause.pending is False
    assert pause.remaining_ms(7 * S) is None


def test_what_remains_fits_into_its_field() -> None:
    """KA-3.8-3: PAUSE has 4 bytes."""
    pause = Pause(CONFIG, 0)
    pause.begin(2**33 * MS, 0)
    assert pause.remaining_ms(0) == 2**32 - 1


def test_version_255_is_followed_by_1() -> None:
    """KA-8.6-1: 0 is kept for "never"."""
    pause, seen = Pause(CONFIG, 0), []
    for _ in range(256):
        pause.begin(S, 0)
        seen.append(pause.version)
    assert seen == [*range(1, 256), 1]


def test_only_a_pause_that_is_over_by_itself_asks_no_more() -> None:
    """KA-8.6-1 KA-8.6-4: the end of a pause, a duration of zero, must be confirmed."""
    pause = Pause(CONFIG, 0)
    pause.begin(10 * S, 0)
    pause.lapse(10 * S - 1)
    assert pause.pending
    pause.lapse(10 * S)
    assert pause.pending is False
    pause.begin(0, 11 * S)
    pause.lapse(12 * S)
    assert pause.pending
    pause.begin(1, 13 * S)
    pause.lapse(13 * S + 1)
    assert pause.pending is False


def test_the_peers_pause_is_honoured_once_and_within_its_limits() -> None:
    """KA-8.6-3: 60 s of one, 100 s in any hour."""
    pause = Pause(CONFIG, 0)
    assert pause.learn(1, 10_000, S) == 10 * S
    assert (pause.acked, pause.until) == (1, 11 * S)
    assert pause.learn(1, 10_000, 2 * S) is None, "it says the same again"
    assert pause.until == 11 * S
    assert pause.learn(2, 90_000, 20 * S) == 60 * S
    assert pause.learn(3, 90_000, 100 * S) == 30 * S
    assert pause.until == 130 * S
    assert pause.learn(4, 90_000, 200 * S) == 0
    assert pause.learn(5, 90_000, 3619 * S) == 0
    assert pause.learn(6, 90_000, 3620 * S) == 60 * S, "an hour after the second"


def test_a_version_without_a_pause_is_confirmed_and_no_more() -> None:
    """KA-8.6-1: the option may be lost where it does not fit."""
    pause = Pause(CONFIG, 0)
    assert pause.learn(9, None, S) is None
    assert (pause.acked, pause.until) == (9, 0)


def test_both_pauses_must_be_over() -> None:
    """KA-8.6-2."""
    pause = Pause(CONFIG, 0)
    pause.begin(10 * S, 0)
    pause.learn(1, 20_000, 0)
    assert pause.until == 20 * S
    pause.begin(30 * S, 0)
    assert pause.until == 30 * S


@pytest.mark.parametrize("version", [1, 7])
def test_a_peer_that_started_anew_begins_with_its_versions_anew(version: int) -> None:
    """KA-7.4-6 KA-8.6-3."""
    pause = Pause(CONFIG, 0)
    pause.learn(version, 20_000, 0)
    pause.forget_peer(5 * S)
    assert (pause.acked, pause.until) == (0, 5 * S)
    assert pause.learn(version, 1_000, 6 * S) == S
