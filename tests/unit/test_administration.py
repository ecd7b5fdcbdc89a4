"""core/administration: who is taken down, and for how long that is honoured."""

from kaudp.config import Config
from kaudp.core.administration import ADMIN_WINDOW, Administration
from tests.worlds import S

HOUR = 3600 * S


def administration(limit: int = HOUR) -> Administration:
    return Administration(Config.wan(max_peer_admin_down_ms=limit // 1_000_000))


def test_either_side_takes_the_session_down() -> None:
    """KA-8.10-2."""
    admin = administration()
    assert not admin.down
    admin.own = True
    assert (admin.down, admin.peer) == (True, False)
    admin.own = False
    assert admin.peer_down(0) == HOUR
    assert (admin.down, admin.peer) == (True, True)
    admin.peer_up(1)
    assert (admin.down, admin.peer) == (False, False)


def test_the_peers_part_is_honoured_for_so_long_in_a_day() -> None:
    """KA-8.10-4: what it took is charged when it is over, and given back after 24 hours."""
    admin = administration()
    assert admin.peer_down(5 * S) == 5 * S + HOUR
    assert admin.peer_down(6 * S) is None, "it is down already"
    admin.peer_up(5 * S + HOUR // 4)
    admin.peer_up(5 * S + HOUR)  # It is up already: nothing is charged.
    assert admin.peer_down(2 * HOUR) == 2 * HOUR + 3 * HOUR // 4
    admin.peer_up(5 * HOUR)
    assert admin.peer_down(6 * HOUR) is None, "the limit is used up"
    assert not admin.down


def test_a_day_later_all_of_it_is_honoured_again() -> None:
    """KA-8.10-4."""
    admin = administration()
    admin.peer_down(0)
    admin.peer_up(HOUR)
    assert admin.peer_down(HOUR + ADMIN_WINDOW - 1) is None
    assert admin.peer_down(HOUR + ADMIN_WINDOW) == HOUR + ADMIN_WINDOW + HOUR


def test_a_limit_of_zero_honours_nothing() -> None:
    """KA-8.10-4."""
    admin = administration(0)
    assert admin.peer_down(7) is None
    assert not admin.peer
