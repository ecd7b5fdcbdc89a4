"""The testbed leaves nothing behind, and its arithmetic is right."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import bounds, scenarios
from tests.system.record import Record
from tests.system.run import Run
from tests.system.topology import (
    PREFIX,
    CommandError,
    Namespace,
    Network,
    Way,
    network,
    remove_leftovers,
    run,
)

pytestmark = pytest.mark.system


def test_a_network_is_gone_after_an_error() -> None:
    with pytest.raises(RuntimeError), network("error") as built:
        built.lose(50)
        assert built.frames_dropped(Way.TO_SERVER) == 0
        sleeper = sleeping(built.client)
        raise RuntimeError
    with sleeper:
        assert sleeper.wait(5) == -signal.SIGKILL
    assert not present(built)


def test_nothing_is_left_where_a_stage_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Network:
        raise CommandError(name)

    made: list[Path] = []
    monkeypatch.setattr(scenarios, "network", refuse)
    monkeypatch.setattr(scenarios, "make_certificate", lambda folder, _: made.append(folder))
    record = Record("unset")
    stage = scenarios.Stage(scenarios.CASES["cut"], record, scenarios.Gate(()), seconds=1)
    with pytest.raises(CommandError), stage:
        pass
    assert [folder.exists() for folder in made] == [False]


def test_what_a_crashed_run_left_is_removed() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = f"{PREFIX}-{dead.pid}-crashed-client"
    run("ip", "netns", "add", name)
    assert name in remove_leftovers()
    assert name not in run("ip", "netns", "list")


def test_what_a_living_run_uses_is_not_removed() -> None:
    with network("living") as built:
        assert not {each.name for each in built.namespaces} & set(remove_leftovers())
        assert present(built)


def test_what_runs_alone_begins_after_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(stage: scenarios.Stage) -> None:
        stage.begin()
        stage.record.rest(0.2)
        stage.record.add("stage", "Done")

    names = ("alone", "beside", "another-alone")
    for name in names:
        case = scenarios.Case(name, script, alone="alone" in name)
        monkeypatch.setitem(scenarios.CASES, name, case)
    with Run(names) as started:
        first, beside, second = (started.record(name) for name in names)
    for before, after in ((beside, first), (first, second)):
        assert before.first("Done", "stage").time < after.first("Begin", "stage").time


@pytest.mark.parametrize(
    ("trials", "rate", "inside", "outside"),
    [(100, 0.1, (1, 10, 28), (35,)), (200, 0.3, (30, 60, 95), (20, 105)), (70, 0, (0,), (1,))],
)
def test_what_is_likely(
    trials: int, rate: float, inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    counts = bounds.likely(trials, rate)
    assert all(count in counts for count in inside)
    assert not any(count in counts for count in outside)


def sleeping(namespace: Namespace) -> subprocess.Popen[str]:
    """Start a process in a namespace and wait until it is in there."""
    command = namespace.command("sh", "-c", "echo here; exec sleep 60")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process


def present(built: Network) -> bool:
    """Tell whether any namespace of a network is there."""
    names = run("ip", "netns", "list").split()
    return any(each.name in names for each in built.namespaces)
