"""How a mutant is tried: in a process forked from a pytest that has collected all tests.

Where the changed lines run in tests only, the function gets its new code in place, so a trial costs
a fork and the tests up to the first that fails. Where they run at import, the project is imported
and collected anew in the fork.
"""

import ast
import gc
import importlib
import importlib.machinery
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import coverage
import hypothesis
import pytest

from tests.mutation.mutants import Mutant

OURS = ("kaudp", "tests", "fuzz")
UNRELATED = "not cited and not schema"  # they read the text, and the sources on disk, alone
IMPORT_CPU_SECONDS = 60  # of an import and collection anew
LEAST_CPU_SECONDS = 2  # of one test; beyond five times what it takes unchanged it has timed out
MEMORY = 4 << 30


def arguments(tests: Iterable[str]) -> list[str]:
    """Give pytest's arguments: one import mode, no cache, no rewritten asserts, no citations."""
    options = ["-q", "-s", "--assert=plain", "--tb=native", "--timeout=120", "-k", UNRELATED]
    return [*options, "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider", *tests]


def tame_hypothesis() -> None:
    """Let every drawn example be the same on each run, and remember and shrink none."""
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "mutation", database=None, deadline=None, derandomize=True, phases=phases
    )
    hypothesis.settings.load_profile("mutation")


class Trial:
    """A pytest plugin that hands the collected tests to `work` instead of running them."""

    def __init__(self, examples: int, work: Callable[["Trial"], None]) -> None:
        self.examples = examples
        self.work = work
        self.failed = ""
        self.broke: BaseException | None = None
        self.items: dict[str, pytest.Item] = {}
        self.seconds: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            test = getattr(item, "obj", None)
            own = getattr(test, "_hypothesis_internal_use_settings", None)
            if own is not None:
                most = min(own.max_examples, self.examples)
                test._hypothesis_internal_use_settings = hypothesis.settings(own, max_examples=most)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            self.failed = "import"
        else:
            self.items = {item.nodeid: item for item in session.items}
            try:
                self.work(self)
            except BaseException as error:
                self.broke = error  # pytest would only print it
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def run(self, names: Iterable[str], seconds: dict[str, float] | None = None) -> None:
        """Run tests up to the first that fails, each within its processor time."""
        for name in names:
            if name not in self.items:
                continue  # its parameters have another name now, under which it runs too
            if seconds is not None:
                allow(LEAST_CPU_SECONDS + 5 * seconds.get(name, 0))
            item = self.items[name]
            began = time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            self.seconds[name] = time.process_time() - began
            if self.failed:
                return


def allow(seconds: float) -> None:
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds), hard))


def forked(work: Callable[[], Any], answer: Path) -> int:
    """Do `work` in a process of its own, which writes what it gives, or why it broke, to a file."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        silence = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silence, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        answer.write_text(json.dumps(work()))
        status = 0
    except BaseException:
        answer.write_text(json.dumps(traceback.format_exc()))
    finally:
        os._exit(status)


def anew(tests: list[str], examples: int, work: Callable[[Trial], None]) -> Trial:
    """Import and collect everything again in this process."""
    trial = Trial(examples, work)
    ours = [name for name in sys.modules if name.partition(".")[0] in OURS]
    for name in ours:
        if not name.startswith("tests.mutation"):
            del sys.modules[name]
    try:
        for name in ours:
            if name.startswith("kaudp."):
                importlib.import_module(name)
    except Exception:
        trial.failed = "import"  # before the costlier collection
        return trial
    code = pytest.main(arguments(tests), plugins=[trial])
    if code in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
        trial.failed = trial.failed or "import"
    return trial


def measure(paths: list[str], tests: list[str], examples: int) -> dict[str, Any]:
    """Run all tests unchanged: what each takes, and which of them run which line.

    Lines that run at import stand for the empty name.
    """
    observer = coverage.Coverage(data_file=None, config_file=False, include=paths)
    observer.start()

    def work(trial: Trial) -> None:
        for name in trial.items:
            observer.switch_context(name)
            trial.run([name])

    trial = anew(tests, examples, work)
    observer.stop()
    data = observer.get_data()
    lines = {path: data.contexts_by_lineno(path) for path in data.measured_files()}
    return {"failed": trial.failed, "seconds": trial.seconds, "lines": lines}


def in_place(mutant: Mutant, path: str) -> None:
    """Give the function its new code, wherever it has been imported to."""
    module = compile(mutant.mutated, path, "exec", dont_inherit=True)
    places = {code.co_firstlineno: code for code in _codes(module, mutant.function)}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType):
            code = thing.__code__
            if code.co_filename == path and code.co_qualname == mutant.function:
                thing.__code__ = places[code.co_firstlineno]


def _codes(code: CodeType, name: str) -> Iterable[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_qualname == name:
                yield constant
            yield from _codes(constant, name)


def at_import(mutant: Mutant, path: str) -> None:
    """Let the changed source be what an import finds."""
    loader: Any = importlib.machinery.SourceFileLoader
    original = loader.get_code

    def get_code(self: Any, fullname: str) -> Any:
        if self.path == path:
            return compile(ast.parse(mutant.mutated), path, "exec", dont_inherit=True)
        return original(self, fullname)

    loader.get_code = get_code
