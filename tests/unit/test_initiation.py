"""core/initiation: the handshakes of one session, one after the other."""

from random import Random
from typing import Any

import pytest

from kaudp.config import Config
from kaudp.core.agreement import own_parameters
from kaudp.core.context import Context
from kaudp.core.handshake import Identity
from kaudp.core.initiation import Initiation
from kaudp.core.routes import LINGER
from kaudp.core.timers import Timer, TimerTable
from kaudp.core.totals import Totals
from kaudp.errors import DropReason, Refused
from kaudp.wire import codec
from kaudp.wire.codec import NO_OPTIONS, Options
from kaudp.wire.cookies import NO_COOKIE, seal_cookie
from kaudp.wire.suites import open_init
from tests.worlds import KEY, MS, S

COOKIE = bytes(range(16))
PARAMETERS = own_parameters(Config.wan())
LIFETIME = 60 * S


class Session:
    """What a session is to its handshakes."""

    address = "there"


class Draw(Random):
    """Draws that change nothing: the longest of each step."""

    def getrandbits(self, k: int) -> int:
        return 0


class Begun:
    """A session's handshakes, the first of which begins at 0."""

    def __init__(self, utc_offset: int | None = None) -> None:
        self.context = Context(
            Config.wan(),
            Identity(b"instance", b"epoch---", utc_offset),
            {KEY.key_id: KEY}.get,
            Draw(1),
            Random(1).randbytes,
            LINGER,
            Totals(),
            None,
        )
        self.timers = TimerTable()
        self.initiation = Initiation(self.context, self.timers)
        self.session: Any = Session()
        self.begin(0)

    def begin(self, now: int, old_id: bytes = bytes(8)) -> None:
        self.initiation.begin(self.session, KEY, old_id, PARAMETERS, now)

    def sent(self) -> list[tuple[bytes, Any]]:
        return list(self.context.outbox.datagrams())

    @property
    def due(self) -> int | None:
        return self.timers.armed(Timer.HANDSHAKE)

    def cookie(self) -> bytes:
        """Give a COOKIE that answers the handshake under way."""
        attempt = self.initiation.attempt
        assert attempt is not None
        return seal_cookie(KEY.secret, attempt.init, attempt.session_id, bytes(16), COOKIE)


def test_a_handshake_says_who_we_are_and_what_it_continues() -> None:
    """KA-4.2-1 KA-10.3-2: with the clock only where it is shared."""
    begun = Begun(utc_offset=5_000)
    begun.begin(2_000, b"old id--")
    for (init, address), old, clock in zip(
        begun.sent(), (bytes(8), b"old id--"), (5, 7), strict=True
    ):
        payload = open_init(KEY, init).payload
        assert address == "there"
        options = Options(clock_us=clock)
        assert payload == (b"instance", b"epoch---", old, PARAMETERS, options)
    ((init, _),) = Begun().sent()
    assert open_init(KEY, init).payload.options == NO_OPTIONS


def test_the_session_is_found_by_the_handshake_under_way_and_no_other() -> None:
    """KA-4.3-8: one that was given up still consumes what answers it."""
    begun = Begun()
    first = begun.initiation.attempt
    assert first is not None
    assert begun.context.routes.pending == {first.session_id: begun.session}
    begun.begin(S)
    second = begun.initiation.attempt
    assert second is not None
    assert list(begun.context.routes.pending) == [second.session_id]
    assert begun.context.routes.spent_attempt(first.session_id, S) is first
    begun.initiation.drop(2 * S)
    begun.initiation.drop(2 * S)
    assert begun.initiation.attempt is None
    assert begun.due is None
    assert not begun.context.routes.pending


def test_retries_are_the_same_bytes_ever_rarer_and_end() -> None:
    """KA-4.2-1 KA-4.2-2: 500 ms, doubled each time, 30 s at most."""
    begun = Begun()
    assert begun.due == 500 * MS
    spacings, now = [], 500 * MS
    while begun.initiation.retry("other", 100 * S, now, now):
        due = begun.due
        assert due is not None
        spacings.append((due - now) // MS)
        now = due
    assert spacings == [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]
    sent = begun.sent()
    assert len({init for init, _ in sent}) == 1
    assert [address for _, address in sent] == ["there"] + ["other"] * 8
    attempt = begun.initiation.attempt
    assert attempt is not None
    assert attempt.transmissions == 9
    begun.initiation.drop(now)
    assert not begun.initiation.retry("other", 100 * S, now, now)


def test_a_handshake_is_retried_within_its_lifetime() -> None:
    """KA-4.2-1."""
    assert Begun().initiation.retry("there", LIFETIME, LIFETIME, LIFETIME)
    assert not Begun().initiation.retry("there", LIFETIME, LIFETIME + 1, LIFETIME + 1)


def test_what_works_begins_with_the_schedule_anew() -> None:
    """KA-4.2-2: told once for each of the peer's keys."""
    begun = Begun()
    begun.initiation.put_off(0)
    assert begun.due == S
    begun.initiation.put_off(0)
    assert begun.due == 2 * S
    assert begun.initiation.worked(b"remote--")
    assert not begun.initiation.worked(b"remote--")
    assert begun.initiation.confirmed_id == b"remote--"
    begun.begin(0)
    assert begun.due == 500 * MS
    begun.initiation.slow_down()
    begun.initiation.restart()
    begun.begin(0)
    assert begun.due == 500 * MS


def test_the_first_cookie_is_used_at_once_a_later_one_with_the_next_retry() -> None:
    """KA-4.5-5 KA-4.5-1: so that nobody makes an initiator spin."""
    begun = Begun()
    assert begun.initiation.take_cookie(begun.cookie())
    assert not begun.initiation.retry("there", LIFETIME, S, S), "a new handshake is due instead"
    begun.begin(S)
    assert begun.initiation.retry("there", LIFETIME, 2 * S, 2 * S)
    assert not begun.initiation.take_cookie(begun.cookie())
    assert not begun.initiation.retry("there", LIFETIME, 3 * S, 3 * S)
    begun.initiation.forget_cookie()
    begun.begin(3 * S)
    cookies = [codec.parse_init_header(init).cookie for init, _ in begun.sent()]
    assert cookies == [NO_COOKIE, COOKIE, COOKIE, NO_COOKIE]


def test_a_cookie_that_nobody_waits_for_is_unexpected() -> None:
    """KA-4.5-5."""
    begun = Begun()
    data = begun.cookie()
    begun.initiation.drop(0)
    with pytest.raises(Refused) as refused:
        begun.initiation.take_cookie(data)
    assert refused.value.reason is DropReason.UNEXPECTED
