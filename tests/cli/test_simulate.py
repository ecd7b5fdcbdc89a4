"""`simulate`: one world and what it tells, many worlds and their totals, and mistakes."""

import json
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest

from kaudp.cli import swarm
from kaudp.core.session import Session
from kaudp.sim import plan
from kaudp.sim.swarm import simulate
from kaudp.units import SECOND
from tests.cli.conftest import Call, Start
from tests.cli.running import one_line_error

MISTAKES = {
    "nothing to do": [],
    "seed in words": ["--seed", "luck"],
    "both": ["--swarm", "--seed", "1"],
    "a trace of many": ["--swarm", "--trace", "x"],
    "verbose of many": ["--swarm", "--verbose"],
    "jobs of one": ["--seed", "1", "--jobs", "2"],
    "minutes of one": ["--seed", "1", "--minutes", "2"],
    "first seed of one": ["--seed", "1", "--first-seed", "0"],
    "no jobs": ["--swarm", "--jobs", "0"],
    "no time": ["--swarm", "--minutes", "0"],
    "no days": ["--swarm", "--session-days", "never"],
    "no such family": ["--swarm", "--family", "quick"],
    "a trace nowhere": ["--seed", "1", "--trace", "/nowhere/world.jsonl"],
}


# Whole worlds run there, each for seconds of a free core.
PATIENCE_S = 200.0


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the worlds of this process short."""
    monkeypatch.setattr(plan, "PROBES_PER_WORLD", 300)
    monkeypatch.setattr(plan, "SHORTEST_WORLD", 60 * SECOND)


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_by_one_line(arguments: list[str], call: Call) -> None:
    one_line_error(call("simulate", *arguments))


def test_a_world_is_told_and_traced(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "world.jsonl"
    code, out, err = call("simulate", "--seed", "4", "--verbose", "--trace", str(file))
    assert (code, err) == (0, "")
    assert "event  SessionUp" in out
    assert "verb   connect" in out
    assert "digest" in out.splitlines()[-1]
    kinds = {json.loads(line)["type"] for line in file.read_text().splitlines()}
    assert kinds >= {"world", "node", "step", "fault"}


def test_json_holds_the_outcome(call: Call) -> None:
    code, out, _ = call("simulate", "--seed", "4", "--json")
    world = json.loads(out)
    assert code == 0
    assert (world["type"], world["seed"], world["failure"]) == ("world", 4, None)
    assert json.loads(call("simulate", "--seed", "4", "--json")[1]) == world


def test_a_violation_is_exit_code_1(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "_reply", lambda *_: None)
    code, out, _ = call("simulate", "--seed", "4")
    assert code == 1
    assert "VIOLATED at " in out
    assert "KA-8.3-1" in out


def test_a_swarm_runs_until_its_limit_and_tells_totals(start: Start) -> None:
    limits = ("--session-days", "0.001", "--jobs", "1", "--family", "rare")
    running = start("simulate", "--swarm", *limits, "--json")
    running.wait_for_end(PATIENCE_S)
    assert running.finish() == 0, running.text
    worlds, (summary,) = running.of_type("world"), running.of_type("summary")
    assert summary["worlds"] == len(worlds) >= 1
    assert summary["session_days"] > 0
    assert summary["failed_seeds"] == []
    assert sum(summary["frames"].values()) == sum(sum(w["frames"].values()) for w in worlds)


@pytest.mark.parametrize("signal", [SIGINT, SIGTERM])
def test_a_signal_ends_a_swarm_with_its_totals(signal: int, start: Start) -> None:
    """And leaves no worker behind."""
    family = ("--family", "slow")
    running = start("simulate", "--swarm", "--minutes", "9", "--jobs", "1", "--json", *family)
    running.wait_for('"type": "world"')
    assert running.finish(signal) == 0, running.text
    (summary,) = running.of_type("summary")
    assert summary["worlds"] == len(running.of_type("world")) >= 1
    assert list(summary["session_days_of"]) == ["slow"]


def test_a_failing_seed_is_told_at_once_with_how_to_replay_it(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "_reply", lambda *_: None)
    monkeypatch.setattr(swarm, "_outcomes", lambda *_: iter([simulate(4)]))
    code, out, _ = call("simulate", "--swarm", "--jobs", "1")
    assert code == 1
    violated, replay, *totals = out.splitlines()
    assert violated.startswith("VIOLATED  seed 4 at ")
    assert replay.endswith("kaudp simulate --seed 4 --verbose")
    assert totals[-1].split() == ["violated", "4"]
