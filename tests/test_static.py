"""The checks that run no code: style, types, layers."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
    "vectors are what the script makes": [sys.executable, "spec/vectors/generate.py", "--check"],
    "the lock is that of the text": [sys.executable, "spec/lock.py", "--check"],
}


@pytest.mark.parametrize("name", CHECKS)
def test_static(name: str) -> None:
    program, *arguments = CHECKS[name]
    beside = Path(sys.executable).parent / program
    command = [str(beside) if beside.exists() else program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
