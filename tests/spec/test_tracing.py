"""The tracer on a small tree of its own. "@" stands for what an id begins with."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.spec import tracing

ROOT = Path(__file__).parents[2]
TEXT = """## 1. Frames

[@1-1] A frame MUST be short.

[@1-2] A frame MUST NOT be empty.

[@1-3] A frame SHOULD be one.
"""
REASON = "It forbids what nothing here could do."


def real(text: str) -> str:
    return re.sub(r"@(?=\d)", "KA-", text)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(real(content))
    return root


# ---- what shows without a run ----


def faults(root: Path, files: dict[str, str], **exceptions: dict[str, str]) -> list[str]:
    cites_all = {"kaudp/frames.py": "# @1-1, -2", "tests/test_frames.py": "# @1-1, -2"}
    write(root, cites_all | files)
    told = {
        place: {
            real(identifier): reason for identifier, reason in exceptions.get(place, {}).items()
        }
        for place in ("code", "tests")
    }
    return tracing.faults(real(TEXT), root, told)


def test_a_text_whose_musts_are_cited_is_without_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("kaudp/frames.py", "# @1-1", "@1-2: no code cites it"),
        ("tests/test_frames.py", "# @1-2", "@1-1: no test cites it"),
        ("kaudp/more.py", "\n# @1-4", "kaudp/more.py:2: there is no @1-4"),
        ("tests/helper.py", "# @1-2, -9", "tests/helper.py:1: there is no @1-9"),
        ("fuzz/target.py", "# @2-1", "fuzz/target.py:1: there is no @2-1"),
        ("spec/vectors/frames.json", '["@2-1"]', "spec/vectors/frames.json:1: there is no @2-1"),
        ("spec/kaudp.md", "see @7-1", "spec/kaudp.md:1: there is no @7-1"),
    ],
)
def test_a_must_without_citation_or_a_citation_without_requirement(
    file: str, content: str, fault: str, tmp_path: Path
) -> None:
    assert faults(tmp_path, {file: content}) == [real(fault)]


def test_an_exception_stands_for_a_citation(tmp_path: Path) -> None:
    uncited = {"kaudp/frames.py": "# @1-1", "tests/test_frames.py": "# @1-2"}
    assert faults(tmp_path, uncited, code={"@1-2": REASON}, tests={"@1-1": REASON}) == []


@pytest.mark.parametrize(
    ("place", "identifier", "reason", "fault"),
    [
        ("code", "@1-1", REASON, "@1-1: code cites it, so no exception is needed"),
        ("tests", "@1-1", "  ", "@1-1: an exception needs a reason, got '  '"),
        ("tests", "@1-1", "Not needed.", "@1-1: an exception needs a reason, got 'Not needed.'"),
        ("code", "@1-3", REASON, "@1-3: an exception, but there is no such MUST"),
        ("tests", "@1-7", REASON, "@1-7: an exception, but there is no such MUST"),
    ],
)
def test_an_exception_without_need_or_reason(
    place: str, identifier: str, reason: str, fault: str, tmp_path: Path
) -> None:
    assert faults(tmp_path, {}, **{place: {identifier: reason}}) == [real(fault)]


# ---- what shows at the end of a run ----

CONFTEST = """
import os
from pathlib import Path
from tests.spec.tracing import Tracer

def pytest_configure(config):
    here = Path(__file__).parent
    exceptions = {exceptions}
    tracer = Tracer({text!r}, exceptions, here, require_all="REQUIRE_ALL" in os.environ)
    config.pluginmanager.register(tracer)
"""
BOTH = """
def test_short():
    "@1-1."

def test_empty():
    "@1-2."
"""
SKIPPED = """
import pytest

def test_short():
    "@1-1."

def test_empty():
    "@1-2."
    pytest.skip("no root")
"""


class Run:
    """One run of pytest over a folder of tests, which knows nothing of this one but the tracer."""

    def __init__(
        self,
        root: Path,
        files: dict[str, str],
        *arguments: str,
        text: str = TEXT,
        exceptions: str = "{}",
        require_all: bool = True,
    ) -> None:
        conftest = CONFTEST.format(text=real(text), exceptions=exceptions)
        write(root, {f"checks/{name}": content for name, content in files.items()})
        write(root, {"checks/conftest.py": conftest})
        environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment |= {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        if require_all:
            environment["REQUIRE_ALL"] = "1"
        command = [sys.executable, "-m", "pytest", "--import-mode=importlib"]
        command += ["--rootdir", str(root), *(arguments or ["checks"])]
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        self.code = done.returncode
        self.output = done.stdout + done.stderr
        self.told = re.findall(r"^requirements: (.*)$", done.stdout, re.M)


def test_a_whole_run_whose_tests_trace_each_must_is_green(tmp_path: Path) -> None:
    run = Run(tmp_path, {"test_frames.py": BOTH})
    assert (run.code, run.told) == (0, ["2 traced by tests that ran"]), run.output


EVERY_KIND = '''
import functools
import unittest

import pytest
from hypothesis import given, strategies
from hypothesis.stateful import RuleBasedStateMachine, rule

def logged(function):
    @functools.wraps(function)
    def inner(*args, **named):
        return function(*args, **named)
    return inner

@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.skip)])
def test_parametrised(number):
    "@1-1."

@given(strategies.integers())
def test_drawn(number):
    "@1-2."

@logged
def test_wrapped():
    pass  # @1-3

class Machine(RuleBasedStateMachine):
    @rule()
    def step(self):
        "@1-4."

TestMachine = Machine.TestCase

class TestOuter:
    "@1-5."
    class TestInner:
        async def helper(self):
            "@1-9."
        def test_method(self):
            """Two lines.

            @1-6.
            """

class TestUnit(unittest.TestCase):
    def test_method(self):
        "@1-7."

# @1-8 below: the decorators are of the test.
@pytest.mark.parametrize("name", ["@1-8"])
def test_named(name):
    pass
'''


def test_every_kind_of_test_traces_what_its_own_source_cites(tmp_path: Path) -> None:
    """What only a helper cites, though it stands beside the tests, is not traced."""
    text = "## 1. Frames\n\n" + "".join(f"[@1-{n}] It MUST be {n}.\n\n" for n in range(1, 10))
    run = Run(tmp_path, {"test_kinds.py": EVERY_KIND}, text=text)
    wanted = ["8 traced by tests that ran", real("@1-9: no test that ran cites it")]
    assert (run.code, run.told) == (1, wanted), run.output


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("test_more.py", '"""@1-2."""\n\ndef test_nothing():\n    pass\n'),
        ("helper.py", "def check():\n    '@1-2.'\n"),
        ("test_more.py", "def check():\n    '@1-2.'\n\ndef test_it():\n    check()\n"),
    ],
)
def test_neither_modules_nor_helpers_trace(file: str, content: str, tmp_path: Path) -> None:
    short = BOTH.split("def test_empty")[0]
    run = Run(tmp_path, {"test_frames.py": short, file: content}, require_all=False)
    wanted = ["1 traced by tests that ran", real("@1-2: no test that ran cites it")]
    assert (run.code, run.told) == (1, wanted), run.output


@pytest.mark.parametrize(
    "skipped",
    [
        SKIPPED,
        BOTH.replace("def test_empty", "@__import__('pytest').mark.skip\ndef test_empty"),
    ],
)
@pytest.mark.parametrize("require_all", [True, False])
def test_a_skipped_test_traces_nothing(require_all: bool, skipped: str, tmp_path: Path) -> None:
    run = Run(tmp_path, {"test_frames.py": skipped}, require_all=require_all)
    wanted = ["1 traced by tests that ran", real("@1-2: only tests that were skipped cite it")]
    assert (run.code, run.told) == (int(require_all), wanted), run.output


@pytest.mark.parametrize("require_all", [True, False])
def test_a_file_skipped_as_a_whole_traces_nothing(require_all: bool, tmp_path: Path) -> None:
    short, empty = BOTH.split("def test_empty")
    absent = f"import pytest\npytest.importorskip('absent_module')\ndef test_empty{empty}"
    files = {"test_frames.py": short, "test_absent.py": absent}
    run = Run(tmp_path, files, require_all=require_all)
    wanted = ["1 traced by tests that ran", real("@1-2: only tests that were skipped cite it")]
    assert (run.code, run.told) == (int(require_all), wanted), run.output


def test_what_fails_as_expected_traces_nothing(tmp_path: Path) -> None:
    failing = BOTH.replace("def test_empty", "@__import__('pytest').mark.xfail\ndef test_empty")
    run = Run(tmp_path, {"test_frames.py": failing + "    assert False\n"})
    assert (run.code, len(run.told)) == (1, 2), run.output


def test_an_exception_stands_for_a_test_until_one_traces_it(tmp_path: Path) -> None:
    exceptions = real(f"{{'@1-2': {REASON!r}}}")
    short = BOTH.split("def test_empty")[0]
    run = Run(tmp_path / "needed", {"test_frames.py": short}, exceptions=exceptions)
    assert (run.code, run.told) == (0, ["1 traced by tests that ran"]), run.output
    run = Run(tmp_path / "needless", {"test_frames.py": BOTH}, exceptions=exceptions)
    needless = real("@1-2: a test traces it, so no exception is needed")
    assert (run.code, run.told) == (1, ["2 traced by tests that ran", needless]), run.output


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["checks/test_frames.py"], 0, "1 of 2 test files were not collected"),
        (["checks", "--ignore", "checks/test_other.py"], 0, "1 of 2 test files were not collected"),
        (["checks", "-k", "frames"], 0, "tests were deselected"),
        (["checks", "--deselect", "checks/test_other.py"], 0, "tests were deselected"),
        (["checks/test_other.py", "checks/test_frames.py::test_1"], 0, "tests were deselected"),
        (["checks", "--collect-only"], 0, "not every test ran"),
        (["checks", "--failing"], 1, "the run failed"),
    ],
)
def test_part_of_a_run_is_not_judged(
    arguments: list[str], code: int, why: str, tmp_path: Path
) -> None:
    frames = "def test_1():\n    pass\n\ndef test_2():\n    pass\n"
    other = "def test_other():\n    pass\n"
    if "--failing" in arguments:
        arguments, other = ["checks"], other.replace("pass", "raise ValueError")
    run = Run(tmp_path, {"test_frames.py": frames, "test_other.py": other}, *arguments)
    assert (run.code, run.told) == (code, [f"not judged: {why}"]), run.output


def test_the_last_failed_alone_are_not_judged(tmp_path: Path) -> None:
    other = "def test_other():\n    {}\n"
    Run(tmp_path, {"test_frames.py": BOTH, "test_other.py": other.format("raise ValueError")})
    run = Run(tmp_path, {"test_other.py": other.format("pass")}, "checks", "--lf")
    assert (run.code, run.told) == (0, ["not judged: tests were deselected"]), run.output


def test_a_file_without_tests_does_not_put_the_judgement_off(tmp_path: Path) -> None:
    run = Run(tmp_path, {"test_frames.py": BOTH, "test_empty.py": ""})
    assert (run.code, run.told) == (0, ["2 traced by tests that ran"]), run.output
