"""World after world on all cores, with progress, and the totals at the end."""

import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import asdict
from multiprocessing import get_context
from typing import Final, NamedTuple, Protocol, Self

from kaudp.cli.output import Output
from kaudp.cli.wording import amount
from kaudp.sim.swarm import Outcome, Totals, simulate

DEFAULT_MINUTES: Final = 1.0
LINE_EVERY_S: Final = 10.0
LOOK_EVERY_S: Final = 0.5
WAITING_PER_JOB: Final = 2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Limits(NamedTuple):
    """How many worlds at a time, from which seed on, and when to stop, whatever comes first."""

    jobs: int
    session_days: float | None
    minutes: float | None
    first_seed: int
    family: str | None = None

    @property
    def seconds(self) -> float | None:
        """When to stop, None: never."""
        if self.minutes is None and self.session_days is not None:
            return None
        return 60 * (DEFAULT_MINUTES if self.minutes is None else self.minutes)


def run(limits: Limits, output: Output) -> bool:
    """Run the swarm and show what came of it; tell whether a requirement was violated."""
    totals, began = Totals(), time.monotonic()
    with _Stop() as stop, _progress(limits, output) as progress:
        for outcome in _outcomes(limits, totals, began, progress, stop):
            totals.add(outcome)
            _show(outcome, limits, output, progress)
            progress.show(totals, time.monotonic() - began)
    _conclude(totals, time.monotonic() - began, limits, output)
    return bool(totals.failed)


def counted(counts: Mapping[str, int]) -> str:
    """Put counts in words."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _outcomes(
    limits: Limits, totals: Totals, began: float, progress: "_Progress", stop: "_Stop"
) -> Iterator[Outcome]:
    """Give outcomes as they come until a limit or a signal; worlds that still run are left."""
    seed = limits.first_seed
    # Fresh interpreters, so that nothing of this one's state can matter to a world.
    pool = ProcessPoolExecutor(limits.jobs, get_context("spawn"), initializer=_leave_signals)
    running: set[Future[Outcome]] = set()
    try:
        while not (stop.asked or _reached(limits, totals, began)):
            while len(running) < WAITING_PER_JOB * limits.jobs:
                running.add(pool.submit(simulate, seed, family=limits.family))
                seed += 1
            done, running = wait(running, LOOK_EVERY_S, FIRST_COMPLETED)
            progress.show(totals, time.monotonic() - began)
            for future in done:
                yield future.result()
    finally:
        processes = list(pool._processes.values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _leave_signals() -> None:
    """Let signals be the parent's alone."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


class _Stop:
    """Whether a first Ctrl-C or SIGTERM came; a second one ends the process."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: object) -> None:
        self.asked = True
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)


def _reached(limits: Limits, totals: Totals, began: float) -> bool:
    if limits.session_days is not None and totals.session_days >= limits.session_days:
        return True
    return limits.seconds is not None and time.monotonic() - began >= limits.seconds


def _show(outcome: Outcome, limits: Limits, output: Output, progress: "_Progress") -> None:
    """Show a world: in JSON always, in words when it failed."""
    if output.as_json:
        output.say("world", "", **asdict(outcome))
    elif outcome.failure:
        family = f" --family {limits.family}" if limits.family else ""
        progress.say(
            f"VIOLATED  seed {outcome.seed} at {outcome.failed_at_s:.3f} s: {outcome.failure}\n"
            f"          replay: kaudp simulate --seed {outcome.seed}{family} --verbose"
        )


def _conclude(totals: Totals, seconds: float, limits: Limits, output: Output) -> None:
    facts = totals.facts()
    shares = ", ".join(f"{name} {days:g}" for name, days in facts["session_days_of"].items())
    core_hours = seconds * limits.jobs / 3600
    rate = totals.session_days / core_hours if core_hours else 0.0
    failed = " ".join(map(str, totals.failed)) or "none"
    text = "\n".join(
        [
            f"{amount(totals.worlds, 'world')}, {totals.world_days:.1f} days, "
            f"{totals.session_days:.1f} session-days in {seconds:.0f} s on "
            f"{amount(limits.jobs, 'core')}: {rate:.0f} session-days per core-hour",
            f"  session-days by settings: {shares or 'none'}",
            f"  sent      {counted(totals.frames)}",
            f"  events    {counted(totals.events)}",
            f"  faults    {counted(totals.faults)}",
            f"  DOWN      {totals.downs}, {totals.downs_without_outage} by loss and delay alone",
            f"  violated  {failed}",
        ]
    )
    output.say("summary", text, seconds=round(seconds, 3), jobs=limits.jobs, **facts)


class _Progress(AbstractContextManager["_Progress"], Protocol):
    """A way to show how far it is."""

    def show(self, totals: Totals, seconds: float) -> None:
        """Show where it stands."""

    def say(self, text: str) -> None:
        """Write a line above the progress."""


class _Lines(AbstractContextManager["_Lines"]):
    """A line now and then; none in JSON, where each world is one."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._next = LINE_EVERY_S

    def __exit__(self, *exception: object) -> None:
        """Leave nothing to undo."""

    def show(self, totals: Totals, seconds: float) -> None:
        """Write a line when it is time for one."""
        if self._output.as_json or seconds < self._next:
            return
        self._next = seconds + LINE_EVERY_S
        self.say(standing(totals, seconds))

    def say(self, text: str) -> None:
        """Write a line."""
        self._output.say("progress", text)


def standing(totals: Totals, seconds: float) -> str:
    """Say how far a swarm is."""
    return (
        f"{seconds:6.0f} s  {amount(totals.worlds, 'world')}, {totals.session_days:.2f} "
        f"session-days, {amount(sum(totals.faults.values()), 'fault')}, "
        f"{len(totals.failed)} violated"
    )


def _progress(limits: Limits, output: Output) -> _Progress:
    if not output.lively:
        return _Lines(output)
    try:
        from kaudp.cli.progress import ProgressBar
    except ModuleNotFoundError:
        return _Lines(output)
    return ProgressBar(limits.session_days, limits.seconds)
