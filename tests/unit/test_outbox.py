"""core/outbox: datagrams leave at once, events wait and are bounded."""

from typing import Any

from kaudp.core.outbox import EventQueue, Outbox
from kaudp.core.totals import Totals
from kaudp.events import PeerRestarted, RoundTrip


def test_events_come_in_order() -> None:
    """KA-6.3-2."""
    queue, session = EventQueue(10), object()
    sent = [RoundTrip(_any(session), at, at, at) for at in range(3)]
    for event in sent:
        queue.emit(event)
    assert len(queue) == 3
    assert [queue.take() for _ in range(4)] == [*sent, None]
    assert not queue.lost


def test_at_the_bound_the_oldest_of_the_same_session_and_kind_gives_way() -> None:
    """KA-11-3: and it is counted by kind."""
    queue = EventQueue(4)
    one, two = _any(object()), _any(object())
    other_session = RoundTrip(two, 1, 1, 1)
    other_kind = PeerRestarted(one, 2)
    first, second = RoundTrip(one, 3, 3, 3), RoundTrip(one, 4, 4, 4)
    coming = RoundTrip(one, 5, 5, 5)
    for event in (other_session, other_kind, first, second, coming):
        queue.emit(event)
    assert len(queue) == 4
    assert [queue.take() for _ in range(4)] == [other_session, other_kind, second, coming]
    assert queue.lost == {"RoundTrip": 1}


def test_without_such_a_one_the_oldest_gives_way() -> None:
    """KA-11-3."""
    queue, one = EventQueue(2), _any(object())
    for at in (1, 2):
        queue.emit(RoundTrip(one, at, at, at))
    queue.emit(PeerRestarted(one, 3))
    queue.emit(PeerRestarted(_any(object()), 4))
    assert [type(queue.take()).__name__ for _ in range(3)] == ["PeerRestarted"] * 2 + ["NoneType"]
    assert queue.lost == {"RoundTrip": 2}


def test_datagrams_are_taken_once() -> None:
    """KA-8.3-4."""
    totals = Totals()
    outbox = Outbox(16, totals)
    outbox.send(b"one", "there")
    outbox.send(b"two", "here")
    assert list(outbox.datagrams()) == [(b"one", "there"), (b"two", "here")]
    assert list(outbox.datagrams()) == []


def test_events_are_counted_by_kind_read_or_not() -> None:
    """KA-11-3."""
    totals = Totals()
    outbox, one = Outbox(1, totals), _any(object())
    event = PeerRestarted(one, 1)
    outbox.emit(event)
    assert outbox.events.take() is event
    for at in (2, 3):
        outbox.emit(RoundTrip(one, at, at, at))
    assert totals.events == {"PeerRestarted": 1, "RoundTrip": 2}
    assert totals.events_lost == {"RoundTrip": 1}


def _any(thing: object) -> Any:
    """Let any object stand for a session: the queue only compares it."""
    return thing
