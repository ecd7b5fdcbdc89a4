"""`demo`: what it shows, what it tells a newcomer, and that it ends by itself."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from signal import SIGINT

import pytest

from kaudp.cli import demo
from kaudp.cli.output import Output
from kaudp.cli.relay import LossyPath, Traffic
from kaudp.cli.story import CLIENT, SERVER, Story
from kaudp.events import DownReason, SessionDown, SessionSuspect, SessionUp, State
from kaudp.units import SECOND
from tests.cli.conftest import Start
from tests.cli.running import Process, run_on_terminal


@pytest.fixture(scope="module")
def shows() -> Iterator[dict[str, Process]]:
    """Demos that run side by side, since each takes its time."""
    running = {
        "plain": Process("demo", "--seconds", "8"),
        "json": Process("demo", "--seconds", "8", "--json", "--loss", "0"),
        "hopeless": Process("demo", "--seconds", "5", "--loss", "90"),
    }
    yield running
    for process in running.values():
        process.stop()


def test_a_newcomer_is_told_what_happened(shows: dict[str, Process]) -> None:
    show = shows["plain"]
    assert show.finish() == 0, show.text
    assert show.out[0].startswith("kaudp demo: 8 s, a probe every 133 ms, 10% loss each way")
    for words in (
        "path    CUT: ",
        "client  DOWN: ",
        "server  DOWN: ",
        "path    BACK: ",
        "What happened",
        "0 false alarms",
        "bytes/s in all",
        "What to notice",
    ):
        assert words in show.text
    assert "\x1b" not in show.text


def test_json_carries_every_fact(shows: dict[str, Process]) -> None:
    show = shows["json"]
    assert show.finish() == 0, show.text
    assert {entry["type"] for entry in show.objects} == {"start", "event", "summary"}
    labels = [(entry["side"], entry["event"]) for entry in show.of_type("event")]
    assert labels.index(("path", "CUT")) < labels.index(("client", "SessionDown"))
    assert labels.index(("path", "CUT")) < labels.index(("server", "SessionDown"))
    summary = show.objects[-1]
    assert summary["as_expected"] is True
    for side in (CLIENT, SERVER):
        assert summary[side]["false_alarms"] == 0
        assert summary[side]["down_after_cut_ms"] > 0
        assert summary[side]["up_after_return_ms"] > 0
    assert summary["before_cut"]["lost"] == 0
    assert summary["outward"]["bytes"] > 64 * summary["outward"]["datagrams"]


def test_what_went_wrong_is_admitted(shows: dict[str, Process]) -> None:
    show = shows["hopeless"]
    assert show.finish() == 1
    assert "Not as it should be: " in show.out[-1]


def test_a_signal_ends_it_with_what_there_is(start: Start) -> None:
    show = start("demo")
    show.wait_for("server  UP")
    assert show.finish(SIGINT) == 1
    assert "What happened" in show.text
    assert "did not notice the cut" in show.out[-1]


def test_a_terminal_shows_it_live() -> None:
    code, shown = run_on_terminal("demo", "--seconds", "6", "--loss", "0")
    assert code == 0, shown
    assert "\x1b[" in shown
    for words in ("loss out", "peer at", "CONNECTING", "What to notice"):
        assert words in shown
    assert "Traceback" not in shown


def test_without_rich_there_are_lines_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "kaudp.cli.live", raising=False)
    output = Output(as_json=False)
    output.lively = True
    assert isinstance(demo._view("title", output), demo._Lines)
    assert "pip install 'kaudp[cli]'" in capsys.readouterr().out


# The path.


class Sink:
    """A UDP socket that waits for datagrams."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recvfrom(self.socket, 100)


@pytest.fixture
def sinks() -> Iterator[list[Sink]]:
    made = [Sink() for _ in range(3)]
    yield made
    for sink in made:
        sink.socket.close()


def test_the_path_relays_both_ways_behind_another_port(sinks: list[Sink]) -> None:
    async def scenario() -> None:
        server, one, two = sinks
        path = LossyPath(server.socket.getsockname(), loss=0, delay=0.001, seed=1)
        try:
            sources = []
            for client in (one, two):
                client.socket.sendto(b"there", ("127.0.0.1", path.port))
                data, source = await server.receive()
                assert data == b"there"
                assert source != client.socket.getsockname()
                sources.append(source)
                server.socket.sendto(b"and back", source)
                assert (await client.receive())[0] == b"and back"
            assert len(set(sources)) == 2
            assert path.traffic == Traffic(datagrams=4, bytes=26, lost=0)
        finally:
            path.close()

    asyncio.run(scenario())


def test_a_cut_path_counts_and_drops(sinks: list[Sink]) -> None:
    async def scenario() -> None:
        server, client, _ = sinks
        path = LossyPath(server.socket.getsockname(), loss=0, delay=0.001, seed=1)
        try:
            path.cut = True
            client.socket.sendto(b"lost", ("127.0.0.1", path.port))
            async with asyncio.timeout(5):
                while not path.traffic.datagrams:
                    await asyncio.sleep(0.001)
            path.cut = False
            client.socket.sendto(b"kept", ("127.0.0.1", path.port))
            assert (await server.receive())[0] == b"kept"
            assert path.outward.traffic.lost == 1
        finally:
            path.close()

    asyncio.run(scenario())


# The record.


def told() -> Story:
    """10 s: UP, a short suspicion, a cut from 4 s to 6 s with its verdict, UP again."""
    story = Story(start=0, length=10 * SECOND)
    for who in (CLIENT, SERVER):
        story.note(who, SessionUp(None, SECOND // 2, State.CONNECTING))
        story.note(who, SessionSuspect(None, 2 * SECOND, State.UP))
        story.note(who, SessionUp(None, 2 * SECOND + 1, State.SUSPECT))
    story.cut(4 * SECOND, Traffic(10, 640, 1))
    for who in (CLIENT, SERVER):
        story.note(who, SessionDown(None, 5 * SECOND, DownReason.DETECTION_TIME_EXPIRED))
    story.mended(6 * SECOND)
    for who in (CLIENT, SERVER):
        story.note(who, SessionUp(None, 7 * SECOND, State.DOWN))
    return story


def test_the_record_measures_from_cut_and_return() -> None:
    story = told()
    assert story.shortcomings() == []
    for who in (CLIENT, SERVER):
        assert story.first_up(who) == SECOND // 2
        assert story.suspicions(who) == 1
        assert story.false_alarms(who) == 0
        assert story.detection(who) == SECOND
        assert story.recovery(who) == SECOND


def test_the_timeline_shows_the_worst_of_each_part_up_to_now() -> None:
    story = told()
    letters = "".join(state.name[0] for state in story.timeline(CLIENT, 10, 10 * SECOND - 1))
    assert letters == "UUSUUDDDUU"
    assert len(story.timeline(CLIENT, 10, 4 * SECOND)) == 5
    cuts = story.cuts(10, 10 * SECOND - 1)
    assert [at for at, cut in enumerate(cuts) if cut] == [4, 5]


def test_an_alarm_without_a_cut_is_a_shortcoming() -> None:
    story = Story(start=0, length=SECOND)
    story.note(CLIENT, SessionDown(None, 5, DownReason.DETECTION_TIME_EXPIRED))
    assert "the client was DOWN although the path worked" in story.shortcomings()
