"""A run over many mutants, some at a time; each outcome is written down at once."""

import argparse
import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mutation import trial
from tests.mutation.mutants import Mutant
from tests.mutation.report import BROKEN, KILLED, SURVIVED, TIMEOUT

ROOT = Path(__file__).parents[2]


class Campaign:
    """Tries mutants beside each other and writes each outcome down at once."""

    def __init__(self, options: argparse.Namespace, mutants: list[Mutant]) -> None:
        self.options = options
        self.mutants = mutants
        self.outcomes: dict[str, dict[str, str]] = {}
        self.killers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        if options.state.exists():
            for line in options.state.read_text().splitlines():
                entry = json.loads(line)
                self.outcomes[entry["key"]] = entry
        self.due = [mutant for mutant in mutants if self._is_due(mutant)]

    def _is_due(self, mutant: Mutant) -> bool:
        known = self.outcomes.get(mutant.key)
        if known is None or self.options.fresh:
            return True
        return self.options.retry and known["outcome"] in (SURVIVED, BROKEN)

    def run(self) -> None:
        """Try what is due. Raises `SystemExit` where the tests fail without any mutant."""
        if not self.due:
            return
        trial.tame_hypothesis()
        arguments = trial.arguments(self.options.tests)
        plugin = trial.Trial(self.options.examples, self._try_all)
        with Path(os.devnull).open("w") as silence, contextlib.redirect_stdout(silence):
            pytest.main(arguments, plugins=[plugin])
        if plugin.broke and not isinstance(plugin.broke, KeyboardInterrupt):
            raise plugin.broke
        if plugin.failed:
            raise SystemExit(f"expected tests that pass without a mutant, got {plugin.failed}")

    def _try_all(self, plugin: trial.Trial) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            self._measure(plugin)
            if not plugin.failed:
                self._try_due(plugin)

    def _measure(self, plugin: trial.Trial) -> None:
        """Run all tests as they are; learn how long each takes and which lines it runs."""
        paths = sorted({str(ROOT / mutant.path) for mutant in self.due})
        tests, examples = self.options.tests, self.options.examples
        told = self._clean(lambda: trial.measure(paths, tests, examples))
        self.lines: dict[str, dict[str, list[str]]] = told["lines"]
        seconds = told["seconds"]
        order = sorted(seconds, key=lambda name: (seconds[name], name))

        def again() -> tuple[str, dict[str, float]]:
            plugin.run(order, seconds)
            return plugin.failed, plugin.seconds

        self.seconds: dict[str, float]
        plugin.failed = told["failed"]
        if not plugin.failed:
            plugin.failed, self.seconds = self._clean(again)

    def _clean(self, work: Callable[[], Any]) -> Any:
        answer = self.folder / "clean"
        _, status = os.waitpid(trial.forked(work, answer), 0)
        if status:
            told = answer.read_text() if answer.exists() else f"status {status}"
            raise SystemExit(f"expected a run without a mutant to end, got {told}")
        return json.loads(answer.read_text())

    def _tests(self, mutant: Mutant) -> tuple[list[str], list[str], set[str]]:
        """Give the likely killers, the other tests, and which run the lines ("": imports do)."""
        at = self.lines.get(str(ROOT / mutant.path), {})
        running = {name for line in mutant.lines for name in at.get(str(line), ())}
        names = set(self.seconds) if running == {""} else running - {""}
        killers = self.killers[mutant.path + mutant.function]
        known = [self.outcomes.get(mutant.key, {}).get("by", ""), *dict(killers.most_common(3))]
        likely = [name for name in dict.fromkeys(known) if name in names]
        rest = sorted(names.difference(likely), key=lambda name: (self.seconds[name], name))
        return likely, self._affordable(rest), running

    def _affordable(self, tests: list[str]) -> list[str]:
        """Leave out what comes after the seconds that one mutant may take."""
        sums = itertools.accumulate(self.seconds[name] for name in tests)
        return [name for name, spent in zip(tests, sums, strict=True) if spent <= self.options.most]

    def _try_due(self, plugin: trial.Trial) -> None:
        running: dict[int, Mutant] = {}
        waiting = iter(self.due)
        started, told = time.monotonic(), 0.0
        self.options.state.parent.mkdir(parents=True, exist_ok=True)
        with self.options.state.open("a") as state:
            for done in range(1, len(self.due) + 1):
                while len(running) < self.options.jobs and (mutant := next(waiting, None)):
                    running[self._start(plugin, mutant)] = mutant
                child, status = os.wait()
                entry = self._note(running.pop(child), status)
                print(json.dumps(entry), file=state, flush=True)
                spent = time.monotonic() - started
                if spent > told + 10 or done == len(self.due):
                    told = spent
                    self._tell(done, spent)

    def _start(self, plugin: trial.Trial, mutant: Mutant) -> int:
        likely, rest, running = self._tests(mutant)
        path, examples = str(ROOT / mutant.path), self.options.examples

        def anew(collected: list[str], tests: list[str]) -> str:
            def all_of(again: trial.Trial) -> None:
                unknown = [name for name in again.items if name not in self.seconds]
                again.run([*tests, *unknown], self.seconds)

            return trial.anew(collected, examples, all_of).failed

        def work() -> str:
            if running - {""}:
                trial.in_place(mutant, path)
                plugin.run([*likely, *rest], self.seconds)
            if plugin.failed or "" not in running:
                return plugin.failed
            trial.allow(trial.IMPORT_CPU_SECONDS)
            trial.at_import(mutant, path)
            return (likely and anew(likely, likely)) or anew(self.options.tests, [*likely, *rest])

        return trial.forked(work, self.folder / mutant.key)

    def _note(self, mutant: Mutant, status: int) -> dict[str, str]:
        answer = self.folder / mutant.key
        by = json.loads(answer.read_text()) if answer.exists() else ""
        if os.WIFSIGNALED(status):
            outcome = TIMEOUT if os.WTERMSIG(status) == signal.SIGXCPU else KILLED
        elif status:
            outcome = BROKEN
        else:
            outcome = KILLED if by else SURVIVED
        if outcome == KILLED:
            self.killers[mutant.path + mutant.function][by] += 1
        entry = {"key": mutant.key, "outcome": outcome, "by": by}
        self.outcomes[mutant.key] = entry
        return entry

    def _tell(self, done: int, spent: float) -> None:
        survived = sum(
            self.outcomes[m.key]["outcome"] == SURVIVED
            for m in self.due[:done]
            if m.key in self.outcomes
        )
        left = spent / done * (len(self.due) - done) / 60
        text = f"{done} of {len(self.due)}, {survived} survived, {left:.0f} min to go"
        print(text, file=sys.stderr, flush=True)
