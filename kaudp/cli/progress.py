"""The progress of a swarm on a terminal, with rich (the extra `kaudp[cli]`)."""

from contextlib import AbstractContextManager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from kaudp.cli import swarm
from kaudp.sim.swarm import Totals


class ProgressBar(AbstractContextManager["ProgressBar"]):
    """A bar toward the nearer limit, and how it stands."""

    def __init__(self, session_days: float | None, seconds: float | None) -> None:
        self._session_days = session_days
        self._seconds = seconds
        self._bar = Progress(
            BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), transient=True
        )
        self._task = self._bar.add_task("starting", total=1.0)

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the bar away."""
        self._bar.stop()

    def show(self, totals: Totals, seconds: float) -> None:
        """Move the bar."""
        parts = [totals.session_days / self._session_days] if self._session_days else []
        parts += [seconds / self._seconds] if self._seconds else []
        self._bar.update(
            self._task,
            completed=min(1.0, max(parts)),
            description=swarm.standing(totals, seconds),
        )

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._bar.console.print(text, highlight=False, markup=False)
