"""The timers of one session as a table, and the queue of all sessions' next deadlines."""

import heapq
from enum import IntEnum
from typing import Final, Generic, Protocol, TypeVar

SWEEP_FROM: Final = 64
EXACT_UP_TO: Final = 16


class Timer(IntEnum):
    """What a session waits for."""

    PROBE = 0
    OVERDUE = 1
    SUSPICION_PROBE = 2
    VERDICT = 3
    NAT_KEEPALIVE = 4
    HANDSHAKE = 5
    CONTROL = 6
    PAUSE_END = 7
    EXPIRY = 8
    CLOSING = 9
    PATH = 10
    ADMIN_END = 11
    KEY_CHANGE = 12


class TimerTable:
    """At most one deadline for each timer, in ns."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[Timer, int] = {}

    def arm(self, timer: Timer, at: int) -> None:
        """Set, or set anew, one deadline."""
        self._deadlines[timer] = at

    def disarm(self, *timers: Timer) -> None:
        """Forget deadlines."""
        for timer in timers:
            self._deadlines.pop(timer, None)

    def clear(self) -> None:
        """Forget all deadlines."""
        self._deadlines.clear()

    def armed(self, timer: Timer) -> int | None:
        """Tell a deadline, None if there is none."""
        return self._deadlines.get(timer)

    def next(self) -> int | None:
        """Tell the earliest deadline."""
        return min(self._deadlines.values(), default=None)

    def pop_due(self, now: int) -> tuple[Timer, int] | None:
        """Take the earliest timer that is due, with its deadline."""
        earliest = self.next()
        if earliest is None or earliest > now:
            return None
        at, timer = min((at, timer) for timer, at in self._deadlines.items() if at == earliest)
        del self._deadlines[timer]
        return timer, at


class Scheduled(Protocol):
    """What the queue holds: `queued_at` belongs to the queue."""

    timers: TimerTable
    queued_at: int | None


S = TypeVar("S", bound=Scheduled)


class TimerQueue(Generic[S]):
    """A heap with lazy deadlines: a later deadline moves no entry until the old one comes up.

    So a heartbeat that only puts a deadline off costs no heap operation. While entries are few it
    is exact instead: there the loop's needless wake-up would cost more.
    """

    __slots__ = ("_heap", "_serial", "_stale")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, S]] = []
        self._serial = 0
        self._stale = 0

    def update(self, item: S) -> None:
        """Take note of the item's present earliest deadline."""
        deadline = item.timers.next()
        queued = item.queued_at
        if deadline == queued:
            return
        if len(self._heap) - self._stale > EXACT_UP_TO and (
            deadline is None or (queued is not None and queued <= deadline)
        ):
            return
        self._forget(item)
        if deadline is not None:
            item.queued_at = deadline
            self._serial += 1
            heapq.heappush(self._heap, (deadline, self._serial, item))
        self._uncover()

    def discard(self, item: S) -> None:
        """Forget an item."""
        self._forget(item)
        self._uncover()

    def _forget(self, item: S) -> None:
        """Let an item's entry be stale: it stays until it comes up, or half of all are such."""
        if item.queued_at is None:
            return
        item.queued_at = None
        self._stale += 1
        if self._stale > SWEEP_FROM and 2 * self._stale > len(self._heap):
            counted = {
                id(entry[2]): entry for entry in self._heap if entry[2].queued_at == entry[0]
            }
            self._heap = list(counted.values())
            heapq.heapify(self._heap)
            self._stale = 0

    def next(self) -> int | None:
        """Tell when to look again: never later than the earliest deadline, rarely earlier.

        Exactly then while entries are few.
        """
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: int) -> S | None:
        """Take an item whose entry has come up; the caller calls `update` afterwards."""
        if not self._heap or self._heap[0][0] > now:
            return None
        item = heapq.heappop(self._heap)[2]
        item.queued_at = None
        self._uncover()
        return item

    def _uncover(self) -> None:
        """Let the entry on top be one that counts."""
        while self._heap and self._heap[0][2].queued_at != self._heap[0][0]:
            heapq.heappop(self._heap)
            self._stale -= 1
