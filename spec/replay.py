"""Feed what sessions did to the reference model: `python spec/replay.py TRACE`.

A trace is JSON lines. A session's first line names it and holds its settings, the others an input,
the r that were drawn and what came of it: frames and events, how many frames were dropped, facts
and timers. A value of the model's is an object whose "is" names its kind; bytes are {"hex": ...}.
Exit code 0: the model does the same at every step; 1: it does not, and where; 2: no such trace.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    from spec import model
except ImportError:  # started as a script: its own directory is what is searched
    import model  # type: ignore[import-not-found, no-redef]


class Divergence(Exception):
    """The model does something else than the trace says."""


def replay(lines: Iterable[str]) -> int:
    """Follow a trace; tell how many steps it has. Raises `Divergence`."""
    sides: dict[str, model.Side] = {}
    steps = 0
    for number, text in enumerate(lines, start=1):
        line = _decoded(json.loads(text))
        name = line["session"]
        if "settings" in line:
            sides[name] = model.new_side(line["settings"], line["address"], line["now"])
            continue
        try:
            sides[name] = _follow(sides[name], line)
        except Divergence as divergence:
            raise Divergence(f"line {number}, {name}, {line['input']}: {divergence}") from None
        steps += 1
    return steps


def _follow(side: model.Side, line: dict[str, Any]) -> model.Side:
    """Take one step and compare."""
    draws = iter(line["draws"])
    sends = [one for one in line["outputs"] if isinstance(one, (model.Send, model.SendInit))]
    asked = [
        one.frame.options.path_challenge
        for one in sends
        if isinstance(one, model.Send) and one.frame.options.path_challenge is not None
    ]
    side, outputs = model.step(side, line["input"], line["now"], draws, iter(asked))
    told = {
        "frames": [one for one in outputs if isinstance(one, (model.Send, model.SendInit))],
        "events": [one for one in outputs if isinstance(one, model.Event)],
        "dropped": sum(isinstance(one, model.Dropped) for one in outputs),
        "draws left": list(draws),
        "facts": model.facts(side),
        "timers": side.timers,
    }
    traced = {
        "frames": sends,
        "events": [one for one in line["outputs"] if isinstance(one, model.Event)],
        "dropped": line["dropped"],
        "draws left": [],
        "facts": line["facts"],
        "timers": line["timers"],
    }
    for what, said in told.items():
        if said != traced[what]:
            raise Divergence(f"{what}: the trace has {traced[what]}, the model {said}")
    return side


def plain(value: Any) -> Any:
    """Make a value of JSON's kinds."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if hasattr(value, "_asdict"):
        return {"is": type(value).__name__, **plain(value._asdict())}
    if isinstance(value, model.Settings):
        return {"is": "Settings", **plain(vars(value))}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_decoded(one) for one in value)
    if not isinstance(value, dict):
        return value
    if value.keys() == {"hex"}:
        return bytes.fromhex(value["hex"])
    inner = {name: _decoded(one) for name, one in value.items() if name != "is"}
    return getattr(model, value["is"])(**inner) if "is" in value else inner


def main(arguments: list[str]) -> int:
    """Run as a command."""
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print(f"expected the file of a trace, got {arguments}", file=sys.stderr)
        return 2
    try:
        with Path(arguments[0]).open(encoding="utf-8") as lines:
            print(f"{replay(lines)} steps, all as the model says")
    except Divergence as divergence:
        print(divergence, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
