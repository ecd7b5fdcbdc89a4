"""core/allowance: what was granted lately, with bounded memory."""

from kaudp.core.allowance import BUCKETS, Allowance


def test_what_was_granted_close_together_is_freed_together_and_not_before() -> None:
    """KA-7.7-3 KA-8.6-3: grants of one 64th of the window are dated at the last of them."""
    allowance = Allowance(6400)
    assert [allowance.grant(10, 100, at) for at in (1000, 1050, 1099)] == [10, 10, 10]
    assert allowance.left(100, 1099) == 70
    assert allowance.left(100, 1000 + 6400) == 70, "the first waits for the last"
    assert allowance.left(100, 1099 + 6399) == 70
    assert allowance.left(100, 1099 + 6400) == 100


def test_a_64th_of_the_window_later_a_grant_is_dated_by_itself() -> None:
    """KA-7.7-3: 101 after the first of a bucket, however near the last of it."""
    allowance = Allowance(6400)
    for at in (1000, 1099, 1100):
        assert allowance.grant(10, 100, at) == 10
    assert allowance.left(100, 1099 + 6400) == 90
    assert allowance.left(100, 1100 + 6400) == 100
    odd = Allowance(100)  # 100 div 64 is 1
    for at in (0, 1):
        odd.grant(10, 100, at)
    assert odd.left(100, 100) == 90


def test_memory_is_bounded_however_often_it_is_asked() -> None:
    """KA-7.7-3: a grant a nanosecond for two windows."""
    allowance = Allowance(640)
    for at in range(1280):
        assert allowance.grant(1, 10_000, at) == 1
        assert len(allowance._grants) <= BUCKETS + 1
    assert 640 <= 10_000 - allowance.left(10_000, 1279) <= 650


def test_nothing_is_granted_below_nothing() -> None:
    """KA-8.6-3: a limit that has become smaller than what was granted leaves none."""
    allowance = Allowance(100)
    assert allowance.grant(50, 60, 0) == 50
    assert allowance.left(40, 10) == 0
    assert allowance.grant(5, 40, 10) == 0
    assert allowance.left(60, 10) == 10
