"""Runs scenarios side by side, each in a thread and in namespaces of its own."""

import threading
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from tests.system.record import Abandoned, Record
from tests.system.scenarios import CASES, Case, Gate, Stage
from tests.system.topology import remove_leftovers

POLL_S = 0.5


class Run:
    """All the named cases at once, for the length of a `with`; leaving early gives the rest up."""

    def __init__(self, names: Iterable[str], seconds: float | None = None) -> None:
        self.records = {name: Record(name) for name in names}
        self._gate = Gate(self.records)
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
        for thread in self._threads.values():
            thread.join()

    @property
    def over(self) -> bool:
        """Whether all have ended."""
        return not any(thread.is_alive() for thread in self._threads.values())

    def record(self, name: str) -> Record:
        """Give a record when its scenario has ended."""
        while self._threads[name].is_alive():
            # In slices, so that Ctrl-C and a test's timeout come through.
            self._threads[name].join(POLL_S)
        return self.records[name]

    def _perform(self, case: Case, seconds: float | None) -> None:
        record = self.records[case.name]
        try:
            with Stage(case, record, self._gate, seconds or case.seconds) as stage:
                case.script(stage)
        except Abandoned:
            record.failure = "given up"
        except Exception:
            record.failure = traceback.format_exc()
        finally:
            self._gate.arrive(case.name)
