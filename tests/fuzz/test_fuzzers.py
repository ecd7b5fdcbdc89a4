"""The documented fuzz commands start and run; hours of it are for a machine of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["parser", "endpoint"])
def test_a_fuzzer_runs_for_a_moment(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("KAUDP_REQUIRE_ALL") == "1":
            pytest.fail("KAUDP_REQUIRE_ALL=1, but atheris is not installed (kaudp[fuzz])")
        pytest.skip("atheris is not installed (kaudp[fuzz])")
    command = [
        sys.executable,
        f"fuzz/fuzz_{name}.py",
        str(tmp_path),
        f"fuzz/corpus/{name}",
        "-runs=600",
        "-seed=1",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr
