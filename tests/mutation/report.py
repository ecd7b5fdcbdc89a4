"""What came of the mutants: the table by file, and the survivors with their change."""

import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant

KILLED, TIMEOUT, SURVIVED, BROKEN = "killed", "timeout", "survived", "broken"
EQUIVALENT, UNTRIED = "equivalent", "untried"
COLUMNS = (KILLED, TIMEOUT, SURVIVED, EQUIVALENT, BROKEN, UNTRIED)
KNOWN = Path(__file__).parent / "equivalent.toml"


def percent(counts: Counter[str], *left_out: str) -> float:
    """Give the part that was killed; what timed out counts as that."""
    whole = counts.total() - sum(counts[name] for name in left_out)
    return 100 * (counts[KILLED] + counts[TIMEOUT]) / whole if whole else 100.0


def reasons() -> dict[tuple[str, str, str, str], str]:
    """Read which mutants are known to change nothing that can be seen, and why."""
    found = {}
    for entry in tomllib.loads(KNOWN.read_text()).get("mutant", []):
        for now in [entry["now"]] if isinstance(entry["now"], str) else entry["now"]:
            found[entry["file"], entry["function"], entry["was"], now] = entry["why"]
    return found


class Report:
    """Counts by file and in total, survivors in the order of the source."""

    def __init__(self, mutants: list[Mutant], outcomes: dict[str, dict[str, str]]) -> None:
        known = reasons()
        places = {listed[:2] for listed in known}
        missing = {listed for listed in known if listed[0] in {mutant.path for mutant in mutants}}
        self.files: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.survivors: list[Mutant] = []
        self.wrong: list[str] = []
        for mutant in mutants:
            outcome = outcomes.get(mutant.key, {}).get("outcome", UNTRIED)
            if (mutant.path, mutant.function) in places:
                listed = (mutant.path, mutant.function, *mutant.change)
                if listed in known:
                    missing.discard(listed)
                    if outcome == SURVIVED:
                        outcome = EQUIVALENT
                    elif outcome in (KILLED, TIMEOUT):
                        self.wrong.append(f"killed, yet listed as equivalent: {_describe(mutant)}")
            if outcome in (SURVIVED, BROKEN):
                self.survivors.append(mutant)
            self.files[mutant.path][outcome] += 1
        self.wrong += [f"listed as equivalent, but no mutant: {' | '.join(e)}" for e in missing]
        self.total = sum(self.files.values(), Counter[str]())

    def text(self) -> str:
        lines = [_describe(mutant) for mutant in self.survivors]
        lines += sorted(self.wrong)
        width = max(map(len, [*self.files, "total"]))
        heads = "".join(f"{name:>11}" for name in (*COLUMNS, "%", "% w/o eq."))
        lines.append(f"{'':{width}}{heads}")
        for path, counts in [*self.files.items(), ("total", self.total)]:
            numbers = "".join(f"{counts[name]:11}" for name in COLUMNS)
            shares = f"{percent(counts):11.1f}{percent(counts, EQUIVALENT):11.1f}"
            lines.append(f"{path:{width}}{numbers}{shares}")
        return "\n".join(lines)

    def data(self) -> dict[str, Any]:
        """Give the same for a program."""
        return {
            "total": _numbers(self.total),
            "files": {path: _numbers(counts) for path, counts in self.files.items()},
            "survivors": [
                {
                    "file": mutant.path,
                    "line": mutant.line,
                    "function": mutant.function,
                    "was": mutant.change[0],
                    "now": mutant.change[1],
                }
                for mutant in self.survivors
            ],
        }


def _numbers(counts: Counter[str]) -> dict[str, float]:
    shares = {
        "percent": round(percent(counts), 2),
        "percent_without_equivalent": round(percent(counts, EQUIVALENT), 2),
    }
    return {**{name: counts[name] for name in COLUMNS}, **shares}


def _describe(mutant: Mutant) -> str:
    was, now = mutant.change
    return f"{mutant.path}:{mutant.line} {mutant.function}\n  - {was}\n  + {now}"
