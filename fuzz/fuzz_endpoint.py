"""Fuzz the endpoint target with libFuzzer. See README.md beside this file."""

import sys
from pathlib import Path

import atheris

# Behind the installed packages, so that an installed kaudp is the one that is fuzzed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["kaudp"]):
    from fuzz.targets import endpoint

atheris.Setup(sys.argv, endpoint)
atheris.Fuzz()
