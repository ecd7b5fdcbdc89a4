"""`kaudp simulate`: worlds of endpoints in which everything goes wrong, each drawn from a seed."""

import os
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TextIO

from kaudp.cli import swarm
from kaudp.cli.arguments import (
    Arguments,
    Commands,
    UsageError,
    add_command,
    number,
    whole_number,
)
from kaudp.cli.output import Output
from kaudp.cli.wording import amount
from kaudp.sim.plan import FAMILIES
from kaudp.sim.records import STATE_TOLD
from kaudp.sim.stage import Stage
from kaudp.sim.swarm import Listener, Outcome, simulate
from kaudp.sim.trace import Trace
from kaudp.sim.world import Step
from kaudp.units import SECOND

EXIT_VIOLATED: Final = 1
HIGHEST_SEED: Final = 10**18
MOST_JOBS: Final = 1024


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "simulate",
        run,
        summary="Run worlds of many endpoints with faults drawn from a seed, and check after each "
        "step what the specification requires.",
        examples="  kaudp simulate --seed 7\n"
        "  kaudp simulate --seed 7 --verbose\n"
        "  kaudp simulate --seed 7 --trace world.jsonl\n"
        "  kaudp simulate --swarm --minutes 10\n"
        "  kaudp simulate --swarm --session-days 10000 --first-seed 5000",
    )
    seed = whole_number(0, HIGHEST_SEED, "a seed")
    parser.add_argument("--seed", metavar="N", type=seed, help="run the one world of this seed")
    parser.add_argument(
        "--verbose", action="store_true", help="show each fault, verb and event of that world"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="write everything that happens in that world, a JSON object per line",
    )
    parser.add_argument(
        "--swarm", action="store_true", help="run world after world, on all cores, until a limit"
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=whole_number(1, MOST_JOBS, "a number of jobs"),
        help="so many worlds at a time (default: one per core)",
    )
    parser.add_argument(
        "--session-days",
        metavar="D",
        type=number(0.001, 1e9, "a length", "session-days"),
        help="stop after so many days of sessions",
    )
    parser.add_argument(
        "--minutes",
        metavar="M",
        type=number(0.01, 1e6, "a length", "minutes"),
        help="stop after so many minutes (default 1, unless --session-days is given)",
    )
    parser.add_argument(
        "--first-seed", metavar="N", type=seed, help="begin with this seed (default 0)"
    )
    parser.add_argument(
        "--family", choices=FAMILIES, help="take worlds of this family only (default: as drawn)"
    )


def run(arguments: Arguments, output: Output) -> int:
    """Run one world, or many; 1 if a requirement was violated."""
    _check(arguments)
    if arguments.swarm:
        limits = swarm.Limits(
            jobs=arguments.jobs or os.cpu_count() or 1,
            session_days=arguments.session_days,
            minutes=arguments.minutes,
            first_seed=arguments.first_seed or 0,
            family=arguments.family,
        )
        return EXIT_VIOLATED if swarm.run(limits, output) else 0
    return EXIT_VIOLATED if _replay(arguments, output).failure else 0


def _check(arguments: Arguments) -> None:
    """Check that what was given goes together. Raises `UsageError`."""
    of_swarm = ("jobs", "session_days", "minutes", "first_seed")
    of_one = ("seed", "verbose", "trace")
    strangers = of_one if arguments.swarm else of_swarm
    for name in strangers:
        given = getattr(arguments, name)
        if given is not None and given is not False:
            option = f"--{name.replace('_', '-')}"
            where = "without" if arguments.swarm else "with"
            raise UsageError(f"expected {option} {where} --swarm only, got both or neither")
    if not arguments.swarm and arguments.seed is None:
        raise UsageError("expected --seed N or --swarm, got neither")


def _replay(arguments: Arguments, output: Output) -> Outcome:
    listeners: list[Listener] = []
    with ExitStack() as stack:
        if arguments.trace is not None:
            listeners.append(Trace(stack.enter_context(_opened(arguments.trace))))
        if arguments.verbose:
            listeners.append(_Verbose(output))
        outcome = simulate(arguments.seed, *listeners, family=arguments.family)
    output.say("world", _text(outcome), **asdict(outcome))
    return outcome


def _opened(name: str) -> TextIO:
    try:
        return Path(name).open("w", encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"expected a file to write to, got {name!r}: {reason}") from None


def _text(outcome: Outcome) -> str:
    lines = [
        f"seed {outcome.seed}: {amount(outcome.nodes, 'node')}, {outcome.family}, "
        f"{outcome.world_days:.2f} days, {outcome.session_days:.2f} session-days, "
        f"{amount(sum(outcome.faults.values()), 'fault')}",
        f"  sent     {swarm.counted(outcome.frames)}",
        f"  events   {swarm.counted(outcome.events)}",
        f"  faults   {swarm.counted(outcome.faults)}",
        f"  DOWN     {outcome.downs}, {outcome.downs_without_outage} by loss and delay alone",
        f"  digest   {outcome.digest}",
    ]
    if outcome.failure:
        lines.append(f"  VIOLATED at {outcome.failed_at_s:.6f} s: {outcome.failure}")
        lines += [outcome.detail] if outcome.detail else []
    return "\n".join(lines)


class _Verbose:
    """A line for each fault, verb and event."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def begin(self, stage: Stage) -> None:
        """Listen to a stage."""
        self._stage = stage
        stage.world.watchers.insert(0, self._take)
        stage.fault_watchers.append(lambda name: self._say("fault", "-", name))

    def _take(self, step: Step) -> None:
        if step.verb:
            self._say("verb", step.node.name, step.verb)
        for event in step.events:
            kind = type(event)
            state = STATE_TOLD.get(kind)
            label = self._output.coloured(kind.__name__, state)
            self._say("event", step.node.name, label, peer=repr(event.session.address))

    def _say(self, kind: str, who: str, what: str, **facts: Any) -> None:  # noqa: ANN401
        at = (self._stage.world.now - self._stage.plan.start) / SECOND
        more = "".join(f"  {fact}" for fact in facts.values())
        text = f"{at:14.6f} s  {who:<8}  {kind:<5}  {what}{more}"
        self._output.say(kind, text, at_s=at, node=who, what=what, **facts)
