"""Mutation tests of the library: python tests/mutation/run.py --help. See README.md beside it."""

import argparse
import json
import math
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutation import report  # noqa: E402
from tests.mutation.campaign import Campaign  # noqa: E402
from tests.mutation.mutants import of_file  # noqa: E402

PATHS = ["kaudp/wire", "kaudp/core"]
TESTS = ["tests/unit", "tests/spec", "tests/property"]
STATE = ROOT / "build" / "mutation" / "outcomes.jsonl"


def python_files(paths: list[str]) -> list[Path]:
    """Give the files of folders and files, in order. Raises `SystemExit`."""
    files: set[Path] = set()
    for path in map(Path.resolve, map(Path, paths)):
        found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        if not found or not all(file.is_file() and file.is_relative_to(ROOT) for file in found):
            raise SystemExit(f"expected Python files below {ROOT}, got {path}")
        files.update(found)
    return sorted(files)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paths", nargs="+", default=PATHS, help="what to mutate")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="the tests that may kill")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at a time")
    parser.add_argument("--examples", type=int, default=10, help="of each Hypothesis test, at most")
    parser.add_argument("--most", type=float, default=math.inf, help="seconds of tests a mutant")
    parser.add_argument("--state", type=Path, default=STATE, help="outcomes so far, to go on from")
    parser.add_argument("--retry", action="store_true", help="try survivors again, after new tests")
    parser.add_argument("--fresh", action="store_true", help="try all again, old killers first")
    parser.add_argument("--every", type=int, default=1, help="an estimate: only each n-th mutant")
    parser.add_argument("--report", action="store_true", help="try nothing, report what is known")
    parser.add_argument("--json", type=Path, help="write counts and survivors there")
    parser.add_argument("--at-least", type=float, default=0, help="exit 1 below these percent")
    options = parser.parse_args(arguments)
    if min(options.jobs, options.examples, options.every) < 1:
        parser.error("expected --jobs, --examples and --every of 1 or more")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    os.chdir(ROOT)
    mutants = [mutant for file in python_files(options.paths) for mutant in of_file(file, ROOT)]
    mutants = mutants[:: options.every]
    campaign = Campaign(options, mutants)
    print(f"{len(mutants)} mutants, {len(campaign.due)} to try", file=sys.stderr, flush=True)
    if not options.report:
        campaign.run()
    told = report.Report(mutants, campaign.outcomes)
    print(told.text())
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(told.data(), indent=2) + "\n")
    return int(report.percent(told.total) < options.at_least)


if __name__ == "__main__":
    sys.exit(main())
