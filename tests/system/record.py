"""What happened in one scenario, in order of time, from all who took part.

Times are ns of CLOCK_BOOTTIME, the scale of kaudp's events: one for all processes of a machine.
"""

import bisect
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SECOND = 1_000_000_000
POLL_S = 0.5


def now() -> int:
    """Tell the time."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Abandoned(Exception):
    """The run is being given up."""


class Missing(AssertionError):
    """What a scenario waited for did not happen."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened: who told it, what kind it is, the rest by name."""

    time: int
    who: str
    kind: str
    details: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.details[name]

    def fact(self, name: str) -> int:
        """Give one of the facts that an event was judged by."""
        value: int = self.details["facts"][name]
        return value


class Record:
    """The entries of one scenario; filled by several threads, read by one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure: str | None = None
        self._entries: list[Entry] = []
        self._changed = threading.Condition()
        self._abandoned = False

    def add(self, who: str, kind: str, at: int | None = None, /, **details: Any) -> Entry:
        """Write down what happened."""
        entry = Entry(now() if at is None else at, who, kind, details)
        with self._changed:
            bisect.insort(self._entries, entry, key=_time)
            self._changed.notify_all()
        return entry

    def all(
        self, kind: str | None = None, who: str | None = None, since: int = 0, until: int = 1 << 63
    ) -> list[Entry]:
        """Give what happened, by kind, by who told it, and from and to a time."""
        with self._changed:
            begin = bisect.bisect_left(self._entries, since, key=_time)
            end = bisect.bisect_left(self._entries, until, key=_time)
            entries = self._entries[begin:end]
        return [e for e in entries if kind in (None, e.kind) and who in (None, e.who)]

    def first(self, kind: str, who: str, since: int = 0, until: int = 1 << 63) -> Entry:
        """Give the first of its kind. Raises `Missing`."""
        found = self.all(kind, who, since, until)
        if not found:
            raise Missing(f"no {kind} of {who} in {self.name} where one was expected")
        return found[0]

    def last(self, kind: str, who: str, until: int = 1 << 63) -> Entry:
        """Give the last of its kind. Raises `Missing`."""
        self.first(kind, who, until=until)
        return self.all(kind, who, until=until)[-1]

    # For the scenario that writes it.

    def wait(self, seconds: float, what: str, seen: Callable[[], Any]) -> None:
        """Wait until `seen` is true. Raises `Missing` and `Abandoned`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not seen():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Missing(f"waited {seconds:.1f} s for {what}")
                self._check_abandoned()
                self._changed.wait(min(left, POLL_S))

    def rest(self, seconds: float) -> None:
        """Let time pass. Raises `Abandoned`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while (left := deadline - time.monotonic()) > 0:
                self._check_abandoned()
                self._changed.wait(left)
            self._check_abandoned()

    def abandon(self) -> None:
        """Let whoever waits here give up."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def _check_abandoned(self) -> None:
        if self._abandoned:
            raise Abandoned(self.name)

    # For people.

    def text(self) -> str:
        """Show all entries by time since the start, of statistics the last of each only."""
        entries = self.all()
        start = entries[0].time if entries else 0
        newest = {entry.who: entry for entry in entries if entry.kind == "Stats"}
        shown = [e for e in entries if e.kind != "Stats" or newest[e.who] is e]
        lines = [_line(entry, start) for entry in shown]
        return "\n".join([f"record of {self.name}:", *lines, *filter(None, [self.failure])])


def _time(entry: Entry) -> int:
    return entry.time


def _line(entry: Entry, start: int) -> str:
    seconds = (entry.time - start) / SECOND
    details = " ".join(f"{name}={_shown(value, start)}" for name, value in entry.details.items())
    return f"{seconds:9.3f}  {entry.who:<10} {entry.kind:<18} {details}"


def _shown(value: Any, start: int) -> str:
    """Show a time of the record as seconds since its start: facts are such times."""
    if isinstance(value, Mapping):
        return "{" + " ".join(f"{name}={_shown(each, start)}" for name, each in value.items()) + "}"
    if isinstance(value, int) and value > start > SECOND:
        return f"{(value - start) / SECOND:.3f}s"
    return str(value)
