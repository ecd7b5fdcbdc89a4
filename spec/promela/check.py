"""Check the models with spin: each property must hold, each seeded mistake must be refuted.

    python spec/promela/check.py [--model MODEL] [--json FILE] [--keep DIRECTORY]

Exit code 0: all as it should be; 1: a property fails or a mistake is not refuted; 2: wrong use, or
spin or gcc is missing.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

HERE = Path(__file__).parent
MODELS = ("liveness", "session", "control", "path", "phases")
TOOLS = ("spin", "gcc")
JOBS = 2
TIMEOUT = 240  # seconds that one search may take, on a busy machine
MEMORY = 1800  # MB that one search may take
DEPTH = 2_000_000

SAFETY, LIVENESS, FAIR = "safety", "liveness", "liveness, weakly fair"
COMPILE = {
    SAFETY: ["-DSAFETY"],
    LIVENESS: [],
    FAIR: ["-DNFAIR=4", "-DNOREDUCE"],  # partial order reduction excludes fairness
}
SEARCH: dict[str, list[str]] = {SAFETY: [], LIVENESS: ["-a"], FAIR: ["-a", "-f"]}


@dataclasses.dataclass(frozen=True)
class Check:
    """One search: a property of a model under some budgets, with one mistake or none."""

    model: str
    claim: str
    kind: str = SAFETY
    budgets: str = ""
    mistake: str = ""

    @property
    def name(self) -> str:
        """Name the check as the tests do."""
        parts = [self.model, self.claim, *re.findall(r"-D(\S+)", self.budgets), self.mistake]
        return "-".join(part for part in parts if part)

    @property
    def macros(self) -> list[str]:
        """Give the macros that spin gets."""
        return self.budgets.split() + ([f"-DMISTAKE_{self.mistake}"] if self.mistake else [])


@dataclasses.dataclass(frozen=True)
class Result:
    """What spin found."""

    check: Check
    errors: int
    states: int
    depth: int
    seconds: float
    failure: str = ""  # why there is no verdict

    @property
    def good(self) -> bool:
        """Tell whether the property holds, or the mistake is refuted."""
        return not self.failure and (self.errors > 0) == bool(self.check.mistake)

    @property
    def verdict(self) -> str:
        """Say it in words."""
        if self.failure:
            return self.failure
        if self.check.mistake:
            return "refuted" if self.errors else "NOT REFUTED"
        return "FAILS" if self.errors else "holds"


class MissingToolError(Exception):
    """A tool is not installed."""


def _group(
    model: str, claim: str, kind: str, budgets: str, *mistakes: str, also: str = ""
) -> list[Check]:
    """Make the check of a property, and those of the mistakes that it must refute."""
    held = Check(model, claim, kind, budgets)
    more = [Check(model, claim, kind, also)] if also else []
    return [held, *more, *(dataclasses.replace(held, mistake=name) for name in mistakes)]


INITIATOR = "-DSTALLS=0"
RESPONDER = "-DSTALLS=0 -DRESPONDER=1"
STALL = "-DSTALLS=1 -DDEADLINE=7 -DSLOWEST=0"
STALLS = "-DSTALLS=9 -DSLOWEST=0"
MANY = "-DREKEYS=0 -DCHANGES0=3 -DCHANGES1=0 -DVERSIONS=2"
TWO = "-DREKEYS=0 -DCHANGES0=0 -DCHANGES1=2 -DSWAPS=0"
KEYS = "-DCHANGES0=1 -DCAPACITY=1 -DSWAPS=0"
BOTH_DIAL = "-DRESTARTS=0"
ONE_DIALS = "-DBOTH_DIAL=0"

CHECKS: list[Check] = [
    *_group(
        "liveness", "dead_peer_is_found", SAFETY, INITIATOR, "SENDING_IS_HEARING",
        "STALE_EVIDENCE_COUNTS", "TWO_MISSES_ARE_DOWN", "HALF_OPEN_EXPIRES",
        also=RESPONDER,
    ),
    *_group("liveness", "dead_peer_is_found", SAFETY, STALL, "STALL_NOT_EXCUSED"),
    *_group("liveness", "up_is_recent", SAFETY, INITIATOR, "TAG_UNCHECKED"),
    *_group("liveness", "dead_peer_stays_found", LIVENESS, STALLS,
            "STALL_WITHOUT_ALLOWANCE", "NO_REPLAY_WINDOW"),
    *_group("liveness", "reachable_pair_is_up", LIVENESS, INITIATOR, "DOWN_IS_SILENT",
            also=RESPONDER),
    *_group("liveness", "time_goes_on", LIVENESS, INITIATOR, "REARMED_AT_NOW"),
    *_group("session", "roles_differ", SAFETY, BOTH_DIAL, "ROLE_IS_KEPT"),
    *_group("session", "comes_together", FAIR, BOTH_DIAL, "CROSSED_KEYS_TAKEN",
            "EARLIER_EMBRYOS_ONLY"),
    *_group("session", "closed_by_close_only", SAFETY, f"{ONE_DIALS} -DCLOSES=1", "TAG_UNCHECKED"),
    *_group("session", "keys_never_go_back", SAFETY, ONE_DIALS, "OLDER_EMBRYOS_LIVE"),
    *_group("session", "restart_is_known", SAFETY, ONE_DIALS, "RESTART_UNNOTICED"),
    *_group("session", "comes_together", FAIR, ONE_DIALS, "NO_INIT_IN_SUSPICION"),
    *_group(
        "control", "same_interval", SAFETY, MANY, "OLD_FRAMES_COUNT", "OLD_ACKS_COUNT",
        "VERSION_RUNS_ROUND",
    ),
    *_group("control", "same_interval", SAFETY, KEYS, "VERSIONS_OUTLIVE_KEYS",
            "OLD_VALUE_STANDS"),
    *_group("control", "same_interval", SAFETY, TWO, "ACK_WITHOUT_OPTIONS"),
    *_group("control", "probes_as_expected", SAFETY, KEYS, "NOT_LENIENT"),
    *_group("control", "probes_as_expected", SAFETY, TWO, "FORGETS_THE_MIDDLE"),
    *_group("control", "settles", FAIR, "-DREKEYS=0 -DCHANGES0=1 -DCHANGES1=0", "TOLD_ONCE"),
    *_group("path", "victim_is_left_alone", SAFETY, "", "MOVES_AT_ONCE",
            "SOURCE_STANDS_FOR_DATA"),
    *_group("path", "forwarder_gets_nothing", SAFETY, "-DLOSSES=0 -DREBINDS=0",
            "OLD_ADDRESS_NOT_ASKED"),
    *_group("path", "session_follows", LIVENESS, "", "NEVER_AGAIN"),
    *_group(
        "phases", "no_frame_is_lost", SAFETY, "", "COUNTS_FROM_BEGINNING",
        "PREVIOUS_KEY_FORGOTTEN",
    ),
    *_group("phases", "phases_keep_together", SAFETY, "", "BIT_BEFORE_TAG", "UPDATES_BLINDLY"),
    *_group("phases", "updates_go_on", FAIR, "-DADVERSARIES=0", "RESPONDER_STAYS"),
]  # fmt: skip


def missing() -> str:
    """Name the first tool that is not installed, or nothing."""
    return next((tool for tool in TOOLS if shutil.which(tool) is None), "")


def generate(check: Check) -> list[str]:
    """Give the command that makes the verifier's source."""
    return ["spin", "-a", *check.macros, str(HERE / f"{check.model}.pml")]


def search(check: Check, folder: Path) -> Result:
    """Generate, compile and run one verifier in a folder of its own."""
    started = time.monotonic()
    folder.mkdir()
    shortest = ["-DBFS"] if check.mistake and check.kind == SAFETY else []
    macros = [f"-DMEMLIM={MEMORY}", *COMPILE[check.kind], *shortest]
    compiler = ["gcc", "-O1", "-w", *macros, "-o", "pan"]
    verifier = ["./pan", *SEARCH[check.kind], "-E", f"-m{DEPTH}", "-N", check.claim]
    for command in (generate(check), [*compiler, "pan.c"], verifier):
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return Result(check, 0, 0, 0, time.monotonic() - started, f"no end in {TIMEOUT} s")
        if done.returncode and command != verifier:
            said = f"{command[0]}: {(done.stdout + done.stderr).strip()[-500:]}"
            return Result(check, 0, 0, 0, time.monotonic() - started, said)
    return _read(check, done.stdout, time.monotonic() - started)


def _read(check: Check, said: str, seconds: float) -> Result:
    errors = re.search(r"errors: (\d+)", said)
    states = re.search(r"([\d.e+]+) states, stored", said)
    depth = re.search(r"depth reached (\d+)", said)
    if not (errors and states and depth):
        return Result(check, 0, 0, 0, seconds, f"pan: {said.strip()[-500:]}")
    failure = ""
    if "max search depth too small" in said:
        failure = f"deeper than {DEPTH} steps"
    elif "out of memory" in said or "reached -DMEMLIM" in said:
        failure = f"more than {MEMORY} MB"
    count = int(errors[1])
    return Result(
        check, count, int(float(states[1])), int(depth[1]), seconds, "" if count else failure
    )


def run(
    checks: Iterable[Check], folder: Path, tell: Callable[[Result], None] = lambda _: None
) -> Mapping[Check, Result]:
    """Run checks side by side and tell of each when it has ended."""
    if tool := missing():
        raise MissingToolError(f"expected {tool} to be installed (apt packages spin, gcc)")
    results = {}
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        under_way = [pool.submit(search, check, folder / check.name) for check in checks]
        for ended in concurrent.futures.as_completed(under_way):
            result = ended.result()
            results[result.check] = result
            tell(result)
    return results


def replay(check: Check, folder: Path | str = ".") -> str:
    """Say how to see the steps of a counterexample."""
    macros = " ".join(check.macros)
    model = f"spec/promela/{check.model}.pml"
    return f"spin -k {folder}/{check.name}/{check.model}.pml.trail -p -g {macros} {model}"


def table(results: Iterable[Result]) -> str:
    """Lay the results out."""
    rows = [("model", "property", "budgets", "mistake", "states", "depth", "s", "verdict")]
    rows += [
        (
            result.check.model,
            result.check.claim,
            result.check.budgets.replace("-D", ""),
            result.check.mistake,
            str(result.states),
            str(result.depth),
            f"{result.seconds:.1f}",
            result.verdict,
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[7]])
        for row in rows
    )


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=MODELS, help="check this model only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results here")
    parser.add_argument(
        "--keep", type=Path, metavar="DIRECTORY", help="keep verifiers and trails here"
    )
    options = parser.parse_args()
    checks = [check for check in CHECKS if options.model in (None, check.model)]
    total = len(checks)
    ended = 0

    def tell(result: Result) -> None:
        nonlocal ended
        ended += 1
        print(f"[{ended}/{total}] {result.check.name}: {result.verdict}", file=sys.stderr)

    try:
        with tempfile.TemporaryDirectory(prefix="kaudp-promela-") as scratch:
            folder = options.keep or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            found = run(checks, folder, tell)
    except (MissingToolError, FileExistsError) as error:
        print(f"check.py: {error}", file=sys.stderr)
        return 2
    results = [found[check] for check in checks]
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps([_plain(result) for result in results], indent=1))
    bad = [result for result in results if not result.good]
    for result in bad:
        if result.errors:
            print(f"replay (after a run with --keep): {replay(result.check, 'DIRECTORY')}")
    return 1 if bad else 0


def _plain(result: Result) -> dict[str, object]:
    return {**dataclasses.asdict(result), "verdict": result.verdict, "good": result.good}


if __name__ == "__main__":
    sys.exit(main())
