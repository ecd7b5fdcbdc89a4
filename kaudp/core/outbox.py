"""What waits to leave the core: datagrams for the transport, events for the application."""

from collections import Counter, deque
from collections.abc import Iterator

from kaudp.core.paths import Address
from kaudp.core.totals import Totals
from kaudp.events import Event


class EventQueue:
    """Events in order, bounded; at the bound an older one gives way. Spec: KA-11-2, KA-11-3."""

    __slots__ = ("_events", "_most", "lost")

    def __init__(self, most: int, lost: Counter[str] | None = None) -> None:
        self._events: deque[Event] = deque()
        self._most = most
        self.lost: Counter[str] = Counter() if lost is None else lost

    def __len__(self) -> int:
        return len(self._events)

    def emit(self, event: Event) -> None:
        """Queue an event."""
        if len(self._events) >= self._most:
            self._make_room(event)
        self._events.append(event)

    def take(self) -> Event | None:
        """Take the oldest event."""
        return self._events.popleft() if self._events else None

    def _make_room(self, coming: Event) -> None:
        lost = next(
            (
                event
                for event in self._events
                if event.session is coming.session and type(event) is type(coming)
            ),
            self._events[0],
        )
        self._events.remove(lost)
        self.lost[type(lost).__name__] += 1


class Outbox:
    """What an endpoint has to say: datagrams are taken at once, events wait."""

    __slots__ = ("_datagrams", "_totals", "events")

    def __init__(self, max_events: int, totals: Totals) -> None:
        self._datagrams: list[tuple[bytes, Address]] = []
        self._totals = totals
        self.events = EventQueue(max_events, totals.events_lost)

    def send(self, datagram: bytes, address: Address) -> None:
        """Hand a datagram to the transport."""
        self._datagrams.append((datagram, address))

    def datagrams(self) -> Iterator[tuple[bytes, Address]]:
        """Take all datagrams."""
        taken, self._datagrams = self._datagrams, []
        return iter(taken)

    def emit(self, event: Event) -> None:
        """Count and queue an event."""
        self._totals.events[type(event).__name__] += 1
        self.events.emit(event)
