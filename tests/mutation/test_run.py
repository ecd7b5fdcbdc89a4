"""The mutation run itself, on one tiny module."""

import json
import subprocess
import sys
from pathlib import Path

from tests.mutation.mutants import of_file

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("run.py")


def run(state: Path, *arguments: str) -> tuple[int, str, dict]:
    told = state.with_suffix(".json")
    command = [sys.executable, str(SCRIPT), "--state", str(state), "--json", str(told)]
    done = subprocess.run(
        [*command, "--paths", "kaudp/core/stats.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not done.returncode or told.exists(), done.stderr
    return done.returncode, done.stdout + done.stderr, json.loads(told.read_text())


def test_mutants_are_killed_once_and_remembered(tmp_path: Path) -> None:
    tests = "tests/unit/test_stats.py"
    code, _, told = run(tmp_path / "state", "--tests", tests, "--at-least", "90")
    assert code == 0
    assert told["total"]["killed"] == len(list(of_file(ROOT / "kaudp/core/stats.py", ROOT)))
    code, text, again = run(tmp_path / "state", "--tests", tests)
    assert " 0 to try" in text
    assert again == told


def test_survivors_are_named(tmp_path: Path) -> None:
    arguments = ("--tests", "tests/unit/test_cadence.py", "--every", "5", "--at-least", "90")
    code, text, told = run(tmp_path / "state", *arguments)
    assert code == 1
    assert told["total"]["survived"] == len(told["survivors"]) > 0
    first = told["survivors"][0]
    assert f"{first['file']}:{first['line']} {first['function']}\n  - {first['was']}\n" in text


def test_the_same_source_gives_the_same_mutants() -> None:
    path = ROOT / "kaudp" / "core" / "cadence.py"
    one, two = (list(of_file(path, ROOT)) for _ in range(2))
    assert one == two
    assert len({mutant.key for mutant in one}) == len(one) > 40
    assert all(mutant.mutated != path.read_text() for mutant in one)
