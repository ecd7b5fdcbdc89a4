"""core/timers and core/allowance: small machines that everything leans on."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaudp.core.allowance import Allowance
from kaudp.core.timers import EXACT_UP_TO, SWEEP_FROM, Timer, TimerQueue, TimerTable


class Item:
    """What a queue holds."""

    def __init__(self) -> None:
        self.timers = TimerTable()
        self.queued_at: int | None = None


def test_a_table_gives_what_is_due_in_order() -> None:
    table = TimerTable()
    for timer, at in ((Timer.PROBE, 30), (Timer.OVERDUE, 10), (Timer.VERDICT, 20)):
        table.arm(timer, at)
    table.disarm(Timer.CLOSING)
    assert table.next() == 10
    assert table.pop_due(9) is None
    assert [table.pop_due(25), table.pop_due(25)] == [(Timer.OVERDUE, 10), (Timer.VERDICT, 20)]
    assert table.pop_due(25) is None
    assert table.armed(Timer.PROBE) == 30
    table.clear()
    assert table.next() is None


@given(st.integers(0, 2**32), st.integers(1, 200), st.sampled_from([1, 5, 40]))
def test_a_queue_never_wakes_late_and_forgets_nobody(seed: int, steps: int, count: int) -> None:
    """KA-8.2-3: against a queue that looks at every item each time; exact while items are few."""
    rng = Random(seed)
    queue: TimerQueue[Item] = TimerQueue()
    items = [Item() for _ in range(count)]
    now = 0
    for _ in range(steps):
        item = rng.choice(items)
        if rng.random() < 0.3:
            item.timers.clear()
        else:
            item.timers.arm(rng.choice(list(Timer)), now + rng.randrange(1, 50))
        queue.update(item)
        now += rng.randrange(10)
        due = {id(i) for i in items if (at := i.timers.next()) is not None and at <= now}
        earliest = min((at for i in items if (at := i.timers.next()) is not None), default=None)
        if count <= 5:
            assert queue.next() == earliest
        elif earliest is not None:
            assert queue.next() is not None
            assert queue.next() <= earliest
        popped = set()
        while (woken := queue.pop_due(now)) is not None:
            popped.add(id(woken))
            while woken.timers.pop_due(now):
                pass
            queue.update(woken)
        assert due <= popped


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 40)), max_size=60))
def test_an_allowance_is_never_exceeded_in_any_window(requests: list[tuple[int, int]]) -> None:
    """KA-7.7-3 KA-8.7-2."""
    allowance, now, granted = Allowance(100), 0, []
    for step, amount in requests:
        now += step
        granted.append((now, allowance.grant(amount, 60, now)))
    for start, _ in granted:
        assert sum(amount for at, amount in granted if start <= at < start + 100) <= 60


def test_an_allowance_grants_what_is_left_and_recovers() -> None:
    allowance = Allowance(100)
    assert allowance.grant(50, 60, 0) == 50
    assert allowance.grant(50, 60, 10) == 10
    assert allowance.grant(50, 60, 99) == 0
    assert allowance.grant(50, 60, 100) == 50


def test_a_timer_has_one_deadline_and_ties_go_by_kind() -> None:
    """KA-8.2-3: an older deadline of the same timer does not come up."""
    table = TimerTable()
    table.arm(Timer.PROBE, 10)
    table.arm(Timer.PROBE, 20)
    assert table.pop_due(19) is None
    for timer in (Timer.VERDICT, Timer.OVERDUE, Timer.CLOSING):
        table.arm(timer, 20)
    order = [table.pop_due(20) for _ in range(5)]
    assert order == [(kind, 20) for kind in (0, 1, 3, 9)] + [None]


def test_several_timers_are_disarmed_at_once() -> None:
    table = TimerTable()
    for timer in Timer:
        table.arm(timer, 5)
    table.disarm(Timer.OVERDUE, Timer.VERDICT)
    left = [timer for timer in Timer if table.armed(timer) is not None]
    assert left == [timer for timer in Timer if timer not in (Timer.OVERDUE, Timer.VERDICT)]


def queue_of(count: int) -> tuple[TimerQueue[Item], list[Item]]:
    queue: TimerQueue[Item] = TimerQueue()
    items = [Item() for _ in range(count)]
    for number, item in enumerate(items):
        item.timers.arm(Timer.PROBE, 100 + number)
        queue.update(item)
    return queue, items


def test_up_to_16_entries_the_queue_is_exact() -> None:
    """A loop of few sessions is never woken for nothing."""
    queue, items = queue_of(EXACT_UP_TO)
    items[0].timers.arm(Timer.PROBE, 1000)
    queue.update(items[0])
    assert queue.next() == 101
    items[1].timers.clear()
    queue.update(items[1])
    assert queue.next() == 102
    assert len(queue._heap) <= EXACT_UP_TO + 2


def test_with_more_a_later_deadline_costs_nothing() -> None:
    """It wakes too early once, never too late."""
    queue, items = queue_of(EXACT_UP_TO + 1)
    heap = list(queue._heap)
    for at in (1000, 2000, 3000):
        items[0].timers.arm(Timer.PROBE, at)
        queue.update(items[0])
    items[1].timers.clear()
    queue.update(items[1])
    assert queue._heap == heap
    assert queue.next() == 100
    assert queue.pop_due(99) is None
    assert queue.pop_due(100) is items[0]
    assert items[0].queued_at is None
    items[0].timers.arm(Timer.PROBE, 50)
    queue.update(items[0])
    assert queue.next() == items[0].queued_at == 50
    items[2].timers.arm(Timer.PROBE, 40)
    queue.update(items[2])
    assert queue.next() == 40, "an earlier deadline counts at once"


def test_what_is_discarded_never_comes_up() -> None:
    queue, items = queue_of(3)
    queue.discard(items[0])
    queue.discard(items[0])
    assert queue.next() == 101
    assert [queue.pop_due(500) for _ in range(3)] == [items[1], items[2], None]
    assert queue.next() is None


def test_stale_entries_are_swept() -> None:
    """Memory is bounded by twice the sessions that wait, however often they come and go."""
    queue, items = queue_of(10)
    for number in range(2000):
        item = items[number % 10]
        item.timers.arm(Timer.PROBE, 10_000 - number)
        queue.update(item)
        assert len(queue._heap) <= 10 + SWEEP_FROM + 2
    assert queue.next() == 10_000 - 1999
    due = [queue.pop_due(10**6) for _ in range(11)]
    assert due == [items[number % 10] for number in range(1999, 1989, -1)] + [None]


@pytest.mark.parametrize("count", [3, 10, EXACT_UP_TO])
def test_a_sweep_forgets_nobody(count: int) -> None:
    """KA-8.2-3: whenever the queue is read, before, at and after a sweep."""
    for updates in range(count, 250, 1 if count == 10 else 7):
        rng = Random(updates)
        queue, items = queue_of(count)
        for number in range(updates):
            item = items[number % count]
            item.timers.arm(Timer.PROBE, 10_000 * (250 - number) + rng.randrange(50_000))
            queue.update(item)
            assert len(queue._heap) <= count + SWEEP_FROM + 1
            assert queue._stale == sum(e[2].queued_at != e[0] for e in queue._heap)
        expected = sorted(items, key=lambda item: item.timers.next() or 0)
        assert [queue.pop_due(10**9) for _ in range(count + 1)] == [*expected, None]
        assert queue._stale == 0


def test_entries_of_the_same_time_come_up_in_the_order_they_went_in() -> None:
    """Items themselves are never compared."""
    queue: TimerQueue[Item] = TimerQueue()
    items = [Item() for _ in range(5)]
    for item in items:
        item.timers.arm(Timer.PROBE, 7)
        queue.update(item)
    assert [queue.pop_due(7) for _ in range(5)] == items
