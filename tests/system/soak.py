"""Run the system scenarios for as long as you like, and print what came of them.

    python tests/system/soak.py --minutes 30
    python tests/system/soak.py --minutes 5 --cases loss-30 cut restart --json soak.json

Needs root, ip, nft, conntrack and sysctl. Steady scenarios last the whole time, faults are
repeated; what needs the machine for itself, as the floods do, comes after the others. Ctrl-C, or
SIGTERM, ends it early: namespaces are removed, and what was seen is printed. It exits with 1 if a
DOWN was false or a scenario could not go on.
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.system.run import Run
from tests.system.scenarios import CASES, SIDES
from tests.system.summary import COUNTED, figures
from tests.system.topology import shortcoming

PROGRESS_S = 10


def main() -> int:
    """Run, show progress, print the table."""
    given = arguments()
    reason = shortcoming()
    if reason:
        print(reason, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Run(given.cases, given.minutes * 60) as run:
        try:
            follow(run)
        except KeyboardInterrupt:
            print("ending early")
    results = [figures(record) for record in run.records.values()]
    show(results)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    if given.records:
        save(run, given.records)
    wrong = [result["case"] for result in results if result["failure"] or result["false_downs"]]
    for name in wrong:
        print(run.records[name].text())
    return int(bool(wrong))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES], metavar="CASE")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--records", type=Path, help="write each record to a file in this folder")
    return parser.parse_args()


def follow(run: Run) -> None:
    """Print the counts of events now and then until all is over."""
    began = time.monotonic()
    while not run.over:
        time.sleep(PROGRESS_S)
        counts = {
            kind: sum(len(record.all(kind)) for record in run.records.values()) for kind in COUNTED
        }
        told = "  ".join(f"{kind.removeprefix('Session')} {n}" for kind, n in counts.items())
        print(f"{time.monotonic() - began:7.0f} s  {told}", flush=True)


def save(run: Run, folder: Path) -> None:
    """Write each record as text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in run.records.items():
        (folder / f"{name}.txt").write_text(record.text() + "\n")


def show(results: list[dict[str, Any]]) -> None:
    """Print the table. Times are least / median / greatest, in seconds."""
    heads = ("case", "side", "outages", "suspect", "half", "down", "false")
    columns = "{:<23} {:<7} {:>7} {:>8} {:>5} {:>5} {:>6}  {:<19} {:<19} {}"
    print(columns.format(*heads, "detection s", "recovery s", "loss out (lost/dropped)"))
    for result in results:
        for who in CASES[result["case"]].sides:
            print(columns.format(*row(result, who)))
        for flood in result["floods"]:
            print(*told(flood), sep="\n")


def told(flood: dict[str, Any]) -> list[str]:
    """Give the lines of one flood."""
    suspicions, megabyte = flood["suspicions"], 1e6
    return [
        f"  flood of {flood['seconds']:.0f} s: {flood['sent_per_s']:.0f} datagrams/s beside"
        f" {flood['good_per_s']:.0f} good; the server needs {flood['server_cpu']:.0%} of a core",
        f"    sent {counts(flood['sent'])}",
        f"    refused {counts(flood['refused'])}; answered {counts(flood['answers'])};"
        f" no room in the socket for {flood['dropped_by_kernel']}",
        f"    bytes sent {flood['bytes_sent']}, back {flood['bytes_back']}; suspicions of clients"
        f" {suspicions['client']}, of the server {suspicions['server']}",
        f"    server memory {flood['server_rss'] / megabyte:.1f} MB, grown by"
        f" {flood['server_growth'] / megabyte:.2f} MB since it was warm",
    ]


def counts(many: dict[str, int]) -> str:
    """Show what there is of each."""
    return ", ".join(f"{name} {count}" for name, count in many.items())


def row(result: dict[str, Any], who: str) -> tuple[Any, ...]:
    """Give one line of the table; the false DOWNs are those of both sides."""
    events = result["events"][who]
    counts = [events[kind] for kind in ("SessionSuspect", "SessionHalfOpen", "SessionDown")]
    times = (shown(result[name][who]) for name in ("detection_s", "recovery_s"))
    return (
        result["case"],
        who,
        result["outages"],
        *counts,
        result["false_downs"],
        *times,
        loss(result, who),
    )


def shown(spread: tuple[float, ...] | None) -> str:
    """Show least / median / greatest."""
    return "-" if spread is None else " / ".join(f"{value:.2f}" for value in spread)


def loss(result: dict[str, Any], who: str) -> str:
    """Show the loss of what a side sends."""
    told = result["loss"]
    if not told:
        return "-"
    way = SIDES.index(who)
    rate = told[("to_server", "to_client")[way]] or 0
    return f"{rate:.1%} ({told['lost'][way]}/{told['dropped'][way]})"


if __name__ == "__main__":
    sys.exit(main())
