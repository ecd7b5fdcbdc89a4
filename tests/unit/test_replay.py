"""core/replay: the window by its edges."""

import pytest

from kaudp.core.replay import REPLAY_WINDOW, ReplayWindow
from kaudp.errors import DropReason, Refused


def refused(window: ReplayWindow, number: int) -> Refused:
    before = window.highest, window.count
    with pytest.raises(Refused) as error:
        window.accept(number)
    assert error.value.reason is DropReason.REPLAY
    assert error.value.consumed
    assert (window.highest, window.count) == before
    return error.value


def test_each_number_counts_once_in_any_order() -> None:
    """KA-5.1-1 KA-5.1-2."""
    window = ReplayWindow()
    for number, highest in ((3, 3), (1, 3), (2, 3), (7, 7), (5, 7)):
        window.accept(number)
        assert window.highest == highest
    assert window.count == 5
    for number in (1, 2, 3, 5, 7):
        assert str(number) in str(refused(window, number))
    window.accept(4)
    window.accept(6)
    assert (window.highest, window.count) == (7, 7)


def test_1024_below_the_highest_is_too_old_and_1023_is_not() -> None:
    """KA-5.1-1."""
    window = ReplayWindow()
    window.accept(5000)
    refused(window, 5000 - REPLAY_WINDOW)
    window.accept(5000 - REPLAY_WINDOW + 1)
    refused(window, 5000 - REPLAY_WINDOW + 1)


@pytest.mark.parametrize("leap", [1, REPLAY_WINDOW - 1, REPLAY_WINDOW, REPLAY_WINDOW + 1, 10**6])
def test_a_leap_keeps_what_stays_in_the_window_and_only_that(leap: int) -> None:
    """KA-5.1-1."""
    window = ReplayWindow()
    for number in (1, 2000, 2001):
        window.accept(number)
    window.accept(2001 + leap)
    assert (window.highest, window.count) == (2001 + leap, 4)
    refused(window, 2001 + leap)
    if leap < REPLAY_WINDOW:
        refused(window, 2001)
    if leap > 1:
        window.accept(2001 + leap - 1)  # never received, and inside the window
        assert (window.highest, window.count) == (2001 + leap, 5)


def test_what_it_remembers_is_bounded() -> None:
    """KA-5.1-1: 1024 bits, however many come in."""
    window = ReplayWindow()
    for number in range(1, 3000):
        window.accept(number)
    assert window._seen.bit_length() == REPLAY_WINDOW
    window.accept(2**62)  # as many bits would not fit into any memory
    assert window._seen.bit_length() == 1


def test_the_first_number_is_1() -> None:
    """KA-3.6-4."""
    window = ReplayWindow()
    window.accept(1)
    assert (window.highest, window.count) == (1, 1)
