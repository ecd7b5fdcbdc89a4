"""`kaudp demo`: both sides and a bad path between them, in one process, within half a minute."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

import kaudp
from kaudp.cli.arguments import Arguments, Commands, add_command, number, whole_number
from kaudp.cli.conclusion import Outcome, conclude
from kaudp.cli.output import Output
from kaudp.cli.relay import LossyPath
from kaudp.cli.stopping import stop_on_signals
from kaudp.cli.story import CLIENT, SERVER, Scene, Story
from kaudp.cli.wording import span
from kaudp.config import Config
from kaudp.events import Event
from kaudp.io.clock import now_ns
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.keys import PresharedKey

DEFAULT_SECONDS: Final = 30.0
# Shorter leaves no time to return; longer than this nobody watches.
SHORTEST_SECONDS: Final = 5
LONGEST_SECONDS: Final = 40
INTERVALS_PER_DEMO: Final = 60
CUT_AT: Final = 0.3
MENDED_AT: Final = 0.55
DELAYS_PER_INTERVAL: Final = 25
TICK_S: Final = 0.1
LOCALHOST: Final = "127.0.0.1"


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "demo",
        run,
        summary="Show a client and a server live through packet loss, a cut of the path and its "
        "return.",
        examples="  kaudp demo\n  kaudp demo --loss 30 --seconds 20 --seed 7",
    )
    parser.add_argument(
        "--seconds",
        type=number(SHORTEST_SECONDS, LONGEST_SECONDS, "a length", "seconds"),
        default=DEFAULT_SECONDS,
        help=f"how long, {SHORTEST_SECONDS} to {LONGEST_SECONDS} (default {DEFAULT_SECONDS:g})",
    )
    parser.add_argument(
        "--loss",
        metavar="PERCENT",
        type=number(0, 90, "a loss", "percent"),
        default=10.0,
        help="lose this much of all datagrams, each way (default 10)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole_number(0, 10**9, "a seed"),
        default=1,
        help="which of the datagrams are lost (default 1)",
    )


def run(arguments: Arguments, output: Output) -> int:
    """Run the demo; 1 if something else happened than should have."""
    return asyncio.run(_demo(arguments, output))


async def _demo(arguments: Arguments, output: Output) -> int:
    stop = stop_on_signals()
    key = PresharedKey.generate()
    config = _config(arguments.seconds)
    interval = config.interval_ms * MILLISECOND
    story = Story(now_ns(), int(arguments.seconds * SECOND))
    async with (
        kaudp.serve(f"udp://{LOCALHOST}:0", keys=key, config=config) as server,
        _bad_path(server, arguments, interval) as path,
        kaudp.connect(f"udp://{LOCALHOST}:{path.port}", key=key, config=config) as client,
    ):
        play = _Play(story, path, server, client)
        with _view(_title(arguments, interval), output) as view:
            await play.perform(view, stop)
        ended = now_ns()
    outcome = Outcome(story, ended, interval, path.outward.traffic, path.homeward.traffic)
    return conclude(outcome, output)


def _config(duration: float) -> Config:
    """Fit all times to the length of the demo."""
    interval = round(1000 * duration / INTERVALS_PER_DEMO)
    return Config.wan(
        interval_ms=interval,
        min_receive_interval_ms=interval // 2,
        min_suspicion_ms=2 * interval,
        suspicion_interval_ms=interval // 5,
        suspicion_receive_interval_ms=interval // 10,
        connect_timeout_ms=None,
    )


@contextlib.asynccontextmanager
async def _bad_path(
    server: kaudp.Server, arguments: Arguments, interval: int
) -> AsyncIterator[LossyPath]:
    loss = arguments.loss / 100
    delay = interval / DELAYS_PER_INTERVAL / SECOND
    path = LossyPath(server.address, loss=loss, delay=delay, seed=arguments.seed)
    try:
        yield path
    finally:
        path.close()


def _title(arguments: Arguments, interval: int) -> str:
    return (
        f"kaudp demo: {arguments.seconds:g} s, a probe every {span(interval)}, "
        f"{arguments.loss:g}% loss each way (seed {arguments.seed})"
    )


class _Play:
    """Cuts the path, mends it, and records what the two sides notice."""

    def __init__(
        self, story: Story, path: LossyPath, server: kaudp.Server, client: kaudp.Connection
    ) -> None:
        self._story = story
        self._path = path
        self._server = server
        self._client = client

    async def perform(self, view: "_View", stop: asyncio.Event) -> None:
        """Play to the end, or until the stop."""
        followers = [
            asyncio.create_task(self._follow(CLIENT, self._client.events())),
            asyncio.create_task(self._follow(SERVER, self._server.events())),
        ]
        try:
            while self._story.progress(now := now_ns()) < 1 and not stop.is_set():
                self._direct(now)
                view.show(self._scene(now))
                await asyncio.sleep(TICK_S)
        finally:
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
            # The goodbyes of the two sides shall arrive.
            self._path.loss, self._path.cut = 0.0, False

    async def _follow(self, who: str, events: AsyncIterator[Event]) -> None:
        async for event in events:
            self._story.note(who, event)

    def _direct(self, now: int) -> None:
        progress = self._story.progress(now)
        if self._story.cut_at is None and progress >= CUT_AT:
            self._path.cut = True
            self._story.cut(now, self._path.traffic)
        elif self._story.mended_at is None and progress >= MENDED_AT:
            self._path.cut = False
            self._story.mended(now)

    def _scene(self, now: int) -> Scene:
        accepted = self._server.sessions
        sessions = {CLIENT: self._client.session, SERVER: accepted[0] if accepted else None}
        return Scene(self._story, sessions, now)


class _View(AbstractContextManager["_View"], Protocol):
    """A way to show scenes."""

    def show(self, scene: Scene) -> None:
        """Show what is new."""


class _Lines(AbstractContextManager["_Lines"]):
    """A line for each thing that happens."""

    def __init__(self, title: str, output: Output) -> None:
        self._output = output
        self._shown = 0
        output.say("start", title, title=title)

    def __exit__(self, *exception: object) -> None:
        """Leave nothing to undo."""

    def show(self, scene: Scene) -> None:
        """Write what is new."""
        for entry in scene.story.entries[self._shown :]:
            label = self._output.coloured(entry.label, entry.state)
            text = f"{entry.at / SECOND:6.2f} s  {entry.who:<6}  {label}: {entry.detail}"
            self._output.say("event", text, **entry.facts)
        self._shown = len(scene.story.entries)


def _view(title: str, output: Output) -> _View:
    if not output.lively:
        return _Lines(title, output)
    try:
        from kaudp.cli.live import LiveView
    except ModuleNotFoundError:
        return _Lines(f"{title}\n(pip install 'kaudp[cli]' for a live view)", output)
    return LiveView(title)
