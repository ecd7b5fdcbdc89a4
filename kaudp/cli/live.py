"""The live view of a demo on a terminal, with rich (the extra `kaudp[cli]`)."""

from types import TracebackType
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kaudp.cli.story import PATH, SIDES, Entry, Scene
from kaudp.cli.wording import address_text, milliseconds, share
from kaudp.core.session import Session
from kaudp.events import State
from kaudp.units import SECOND

_EVENTS_SHOWN: Final = 8
_NAME_WIDTH: Final = 8
_MAX_COLUMNS: Final = 100
# Wide enough for what comes, so that the table does not jump, yet 80 columns hold it.
_COLUMN_WIDTHS: Final = {
    "": 6,
    "state": 10,
    "rtt": 8,
    "loss out": 8,
    "loss in": 7,
    "suspicions": 10,
    "peer at": 15,
}
_COLOURS: Final = {
    State.CONNECTING: "cyan",
    State.UP: "green",
    State.SUSPECT: "yellow",
    State.HALF_OPEN: "magenta",
    State.DOWN: "red",
}


class LiveView:
    """Redraws both sides, the timeline and the last events."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, scene: Scene) -> None:
        """Draw a scene."""
        columns = min(self._console.width - _NAME_WIDTH - 1, _MAX_COLUMNS)
        parts: list[RenderableType] = [
            Text(self._title, style="bold"),
            _sides(scene),
            "",
            _timeline(scene, columns),
            _legend(),
            *(_line(entry) for entry in scene.story.entries[-_EVENTS_SHOWN:]),
        ]
        self._live.update(Group(*parts), refresh=True)


def _sides(scene: Scene) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for title, width in _COLUMN_WIDTHS.items():
        table.add_column(title, min_width=width)
    for who in SIDES:
        session = scene.sessions[who]
        table.add_row(who, *(_no_session() if session is None else _measured(session)))
    return table


def _no_session() -> tuple[str, ...]:
    return ("-",) * (len(_COLUMN_WIDTHS) - 1)


def _measured(session: Session) -> tuple[str | Text, ...]:
    stats = session.stats
    rtt = "-" if stats.rtt_latest is None else f"{milliseconds(stats.rtt_latest):.1f} ms"
    return (
        Text(stats.state.name, style=_COLOURS.get(stats.state, "")),
        rtt,
        share(stats.loss_out),
        share(stats.loss_in),
        str(stats.suspicions),
        address_text(session.address),
    )


def _timeline(scene: Scene, columns: int) -> Text:
    text = Text(f"{PATH:<{_NAME_WIDTH}} ")
    for is_cut in scene.story.cuts(columns, scene.now):
        text.append("x" if is_cut else "-", style="red" if is_cut else "green")
    for who in SIDES:
        text.append(f"\n{who:<{_NAME_WIDTH}} ")
        for state in scene.story.timeline(who, columns, scene.now):
            text.append(state.name[0], style=f"black on {_COLOURS[state]}")
    return text


def _legend() -> Text:
    text = Text(" " * (_NAME_WIDTH + 1))
    for state, colour in _COLOURS.items():
        text.append(f" {state.name[0]} ", style=f"black on {colour}")
        text.append(f" {state.name}  ")
    return text


def _line(entry: Entry) -> Text:
    text = Text(f"{entry.at / SECOND:6.2f} s  {entry.who:<6}  ", no_wrap=True, overflow="ellipsis")
    style = "bold" if entry.state is None else _COLOURS.get(entry.state, "")
    text.append(entry.label, style=style)
    text.append(f": {entry.detail}")
    return text
