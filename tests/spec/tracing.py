"""From each requirement to the code and the tests: what cites it, and whether those tests ran.

A test cites what its own source names, decorators included, and what the docstrings of its classes
name. Helpers and modules cite nothing: that they were imported says little about what was tested.
"""

import inspect
from collections.abc import Generator, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from spec import lock

LEAST_REASON = 20


def binding(text: str) -> list[str]:
    """Give the ids of each MUST and MUST NOT."""
    return [
        one.identifier
        for one in lock.requirements(text)
        if not {"MUST", "MUST NOT"}.isdisjoint(one.keywords)
    ]


def faults(text: str, root: Path, exceptions: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Tell what can be told without running a test."""
    return [*_unknown(text, root), *_uncited(text, root, exceptions), *_bad(text, exceptions)]


def _unknown(text: str, root: Path) -> Iterator[str]:
    known = {one.identifier for one in lock.requirements(text)}
    for file, line, identifier in lock.cited_files(root):
        if identifier not in known:
            yield f"{file}:{line}: there is no {identifier}"


def _uncited(text: str, root: Path, exceptions: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    code = {identifier for _, _, identifier in lock.cited_files(root, ["kaudp"])}
    tests = {identifier for _, _, identifier in lock.cited_files(root, ["tests"])}
    for identifier in binding(text):
        if identifier not in code | exceptions["code"].keys():
            yield f"{identifier}: no code cites it"
        if identifier not in tests | exceptions["tests"].keys():
            yield f"{identifier}: no test cites it"
    for identifier in exceptions["code"]:
        if identifier in code:
            yield f"{identifier}: code cites it, so no exception is needed"


def _bad(text: str, exceptions: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    known = binding(text)
    for listed in exceptions.values():
        for identifier, reason in listed.items():
            if identifier not in known:
                yield f"{identifier}: an exception, but there is no such MUST"
            if len(reason.strip()) < LEAST_REASON:
                yield f"{identifier}: an exception needs a reason, got {reason!r}"


class Verdict(NamedTuple):
    """What a whole run has shown."""

    traced: int
    faults: list[str]
    notes: list[str]


def judge(
    text: str,
    exceptions: Mapping[str, str],
    passed: set[str],
    skipped: set[str],
    *,
    require_all: bool,
) -> Verdict:
    """Judge by the ids that passed tests cite, and those that skipped tests cite."""
    required = binding(text)
    verdict = Verdict(len(passed.intersection(required)), [], [])
    for identifier in required:
        if identifier in exceptions:
            if identifier in passed:
                verdict.faults.append(f"{identifier}: a test traces it, so no exception is needed")
        elif identifier in skipped - passed:
            told = verdict.faults if require_all else verdict.notes
            told.append(f"{identifier}: only tests that were skipped cite it")
        elif identifier not in passed:
            verdict.faults.append(f"{identifier}: no test that ran cites it")
    return verdict


def cited_by(item: pytest.Item) -> set[str]:
    """Collect the ids that a test cites itself."""
    classes = [node.obj for node in item.listchain() if isinstance(node, pytest.Class)]
    texts = [one.__doc__ or "" for one in classes]
    if isinstance(item, pytest.Function):
        texts.append(_source(item.function))
    return _ids("\n".join(texts))


def _ids(text: str) -> set[str]:
    return {identifier for _, identifier in lock.citations(text)}


@cache
def _source(function: Any) -> str:
    """Give the source as it was written; of Hypothesis's state machines that of the class."""
    return inspect.getsource(getattr(function, "_hypothesis_state_machine_class", function))


class Tracer:
    """A pytest plugin: at the end of a whole run, a test that passed cites every MUST.

    A run is whole when all test files of `folder` were collected, nothing of them was deselected,
    every test ran or was skipped, and none failed. Any other run is not judged.
    """

    def __init__(
        self, text: str, exceptions: Mapping[str, str], folder: Path, *, require_all: bool
    ) -> None:
        self._text = text
        self._exceptions = exceptions
        self._folder = folder
        self._require_all = require_all
        self._deselected = False
        self._files: dict[Path, str] = {}
        self._outcomes: dict[str, str] = {}
        self._verdict: Verdict | None = None
        self._unjudged = ""

    def pytest_deselected(self) -> None:
        self._deselected = True

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Take note of each file: one that is skipped as a whole has no item to stand for it."""
        report = yield
        if isinstance(collector, pytest.Module):
            self._files[collector.path.resolve()] = report.outcome
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed:
            self._outcomes[report.nodeid] = report.outcome

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._unjudged = self._why_not_whole(session, exitstatus)
        if self._unjudged:
            return
        cited: dict[str, set[str]] = {"passed": set(), "skipped": set()}
        for item in session.items:
            cited[self._outcomes[item.nodeid]] |= cited_by(item)
        for path, outcome in self._files.items():
            if outcome == "skipped":
                cited["skipped"] |= _ids(path.read_text(encoding="utf-8"))
        self._verdict = judge(self._text, self._exceptions, **cited, require_all=self._require_all)
        if self._verdict.faults:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _why_not_whole(self, session: pytest.Session, exitstatus: int) -> str:
        if exitstatus != pytest.ExitCode.OK:
            return "the run failed"
        if self._deselected or any("::" in argument for argument in session.config.args):
            return "tests were deselected"
        files = set(self._folder.resolve().rglob("test_*.py"))
        if missing := files - self._files.keys():
            return f"{len(missing)} of {len(files)} test files were not collected"
        if any(item.nodeid not in self._outcomes for item in session.items):
            return "not every test ran"
        return ""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._verdict is None:
            terminalreporter.write_line(f"requirements: not judged: {self._unjudged}")
            return
        traced, wrong, notes = self._verdict
        terminalreporter.write_line(f"requirements: {traced} traced by tests that ran")
        for line in notes:
            terminalreporter.write_line(f"requirements: {line}", yellow=True)
        for line in wrong:
            terminalreporter.write_line(f"requirements: {line}", red=True)
