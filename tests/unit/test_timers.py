"""core/timers and core/allowance: small machines that everything leans on."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from kaudp.core.allowance import Allowance
from kaudp.core.timers import Timer, TimerQueue, TimerTable


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
