"""What happened in a demo: the record, its timeline, and what follows from it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, NamedTuple

from kaudp.cli.notices import KINDS, event_facts
from kaudp.cli.relay import Traffic
from kaudp.cli.wording import seconds
from kaudp.core.session import Session
from kaudp.events import Event, SessionDown, SessionSuspect, SessionUp, State

CLIENT: Final = "client"
SERVER: Final = "server"
PATH: Final = "path"
SIDES: Final = (CLIENT, SERVER)
_BY_SEVERITY: Final = (State.CONNECTING, State.UP, State.SUSPECT, State.HALF_OPEN, State.DOWN)


class Entry(NamedTuple):
    """One thing that happened, `at` ns after the start; `event` is None for the path."""

    at: int
    who: str
    label: str
    detail: str
    state: State | None
    event: Event | None

    @property
    def facts(self) -> dict[str, Any]:
        """The entry as plain values."""
        facts = {"at_s": seconds(self.at), "side": self.who}
        if self.event is None:
            return facts | {"event": self.label}
        return facts | event_facts(self.event)


class Story:
    """The record of a demo that lasts `length` ns; `now` and `start` are on the scale of events."""

    def __init__(self, start: int, length: int) -> None:
        self.length = length
        self.entries: list[Entry] = []
        self.cut_at: int | None = None
        self.mended_at: int | None = None
        self.traffic_before_cut: Traffic | None = None
        self._start = start

    def note(self, who: str, event: Event) -> None:
        """Record an event of a side."""
        kind = KINDS[type(event)]
        at = event.time - self._start
        self.entries.append(Entry(at, who, kind.label, kind.detail(event), kind.state, event))

    def progress(self, now: int) -> float:
        """Tell which part of the demo is over, 1 at its end."""
        return (now - self._start) / self.length

    def cut(self, now: int, traffic: Traffic) -> None:
        """Record that the path was cut, and what had gone over it."""
        self.cut_at = now - self._start
        self.traffic_before_cut = traffic
        self._tell(self.cut_at, "CUT", "nothing gets through any more; nobody tells the two")

    def mended(self, now: int) -> None:
        """Record that the path is back."""
        self.mended_at = now - self._start
        self._tell(self.mended_at, "BACK", "datagrams get through again; nobody tells the two")

    def first_up(self, who: str) -> int | None:
        """Tell when a side was UP first."""
        return next(self._times(who, SessionUp), None)

    def suspicions(self, who: str) -> int:
        """Count a side's suspicions before the cut."""
        return len(list(self._before_cut(who, SessionSuspect)))

    def false_alarms(self, who: str) -> int:
        """Count a side's verdicts before the cut."""
        return len(list(self._before_cut(who, SessionDown)))

    def detection(self, who: str) -> int | None:
        """Tell how long after the cut a side was DOWN."""
        return self._delay(who, SessionDown, self.cut_at)

    def recovery(self, who: str) -> int | None:
        """Tell how long after the return a side was UP again."""
        return self._delay(who, SessionUp, self.mended_at)

    def shortcomings(self) -> list[str]:
        """Say what did not happen though it should have, or the other way round."""
        found = []
        for who in SIDES:
            if self.first_up(who) is None:
                found.append(f"the {who} was never UP")
            if self.false_alarms(who):
                found.append(f"the {who} was DOWN although the path worked")
            if self.detection(who) is None:
                found.append(f"the {who} did not notice the cut")
            if self.recovery(who) is None:
                found.append(f"the {who} was not UP again after the return")
        return found

    def timeline(self, who: str, columns: int, now: int) -> list[State]:
        """Give a side's worst state in each of the `columns` parts of the demo, up to now."""
        changes = [(entry.at, entry.state) for entry in self.entries if entry.who == who]
        states = []
        current = State.CONNECTING
        for begin, end in self._parts(columns, now):
            worst = current
            for at, state in changes:
                if begin <= at < end and state in _BY_SEVERITY:
                    current = state
                    worst = max(worst, current, key=_BY_SEVERITY.index)
            states.append(worst)
        return states

    def cuts(self, columns: int, now: int) -> list[bool]:
        """Tell for each of the `columns` parts of the demo, up to now, whether it began cut."""
        if self.cut_at is None:
            return [False for _ in self._parts(columns, now)]
        end = self.length if self.mended_at is None else self.mended_at
        return [self.cut_at <= begin < end for begin, _ in self._parts(columns, now)]

    def _parts(self, columns: int, now: int) -> Iterator[tuple[int, int]]:
        edges = [self.length * column // columns for column in range(columns + 1)]
        return ((begin, end) for begin, end in pairwise(edges) if begin <= now - self._start)

    def _tell(self, at: int, label: str, detail: str) -> None:
        self.entries.append(Entry(at, PATH, label, detail, None, None))

    def _times(self, who: str, kind: type[Event]) -> Iterator[int]:
        for entry in self.entries:
            if entry.who == who and isinstance(entry.event, kind):
                yield entry.at

    def _before_cut(self, who: str, kind: type[Event]) -> Iterator[int]:
        for at in self._times(who, kind):
            if self.cut_at is None or at < self.cut_at:
                yield at

    def _delay(self, who: str, kind: type[Event], since: int | None) -> int | None:
        if since is None:
            return None
        return next((at - since for at in self._times(who, kind) if at >= since), None)


class Scene(NamedTuple):
    """What a view draws."""

    story: Story
    sessions: dict[str, Session | None]
    now: int
