"""Runs scenarios side by side, then those that need the machine, in namespaces of their own."""

import threading
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from tests.system.record import POLL_S, Abandoned, Record
from tests.system.scenarios import CASES, Case, Gate, Stage
from tests.system.topology import remove_leftovers


class Run:
    """All the named cases, for the length of a `with`; leaving early gives the rest up."""

    def __init__(self, names: Iterable[str], seconds: float | None = None) -> None:
        self.records = {name: Record(name) for name in names}
        # Those that run alone need not wait for others to be ready: there are none.
        self._gate = Gate(name for name in self.records if not CASES[name].alone)
        # Thread.join interrupted by a signal's exception takes the thread for ended (Python 3.11).
        self._ended = {name: threading.Event() for name in self.records}
        self._threads = {
            name: threading.Thread(target=self._perform, args=(CASES[name], seconds), name=name)
            for name in self.records
        }

    def __enter__(self) -> Self:
        remove_leftovers()
        for thread in self._threads.values():
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for record in self.records.values():
            record.abandon()
        for name, thread in self._threads.items():
            self.record(name)
            thread.join()

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return all(ended.is_set() for ended in self._ended.values())

    def record(self, name: str) -> Record:
        """Give a record when its scenario has ended."""
        self._ended[name].wait()
        return self.records[name]

    def _await_turn(self, case: Case) -> None:
        """Let a case that runs alone wait for those beside each other, and for those before it."""
        order = sorted(self.records, key=lambda name: CASES[name].alone)
        before = order[: order.index(case.name)] if case.alone else []
        while not all(self._ended[name].is_set() for name in before):
            self.records[case.name].rest(POLL_S)

    def _perform(self, case: Case, seconds: float | None) -> None:
        record = self.records[case.name]
        try:
            self._await_turn(case)
            with Stage(case, record, self._gate, seconds or case.seconds) as stage:
                case.script(stage)
        except Abandoned:
            record.add("stage", "GivenUp")
        except Exception:
            record.failure = traceback.format_exc()
        finally:
            self._gate.arrive(case.name)
            self._ended[case.name].set()
