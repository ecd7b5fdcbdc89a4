"""Whole worlds, recorded and followed by the reference model, step by step."""

import io
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from kaudp.config import Config
from kaudp.core.session import Session
from kaudp.events import State
from kaudp.sim import Conditions, World
from spec import replay
from tests.spec.recording import Recorder
from tests.worlds import KEY, MS, S

REPLAY = Path(replay.__file__)


def use_a_verb(world: World, rng: Random, session: Session) -> None:
    """Let an application do one thing, if its session lives."""
    if session.state in (State.CONNECTING, State.CLOSED):
        return
    match rng.randrange(5):
        case 0:
            session.pause(rng.choice([0, 500 * MS, 8 * S]), world.now)
        case 1:
            session.admin_down(world.now)
        case 2:
            session.admin_up(world.now)
        case 3:
            session.note_unreachable(world.now)
        case 4 if not session.initiator:
            session.slow_down(rng.choice([100, 2_000]), world.now)


def recorded(seed: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Play a drawn world of two nodes and give its trace."""
    file = io.StringIO()
    rng = Random(f"replay {seed}")
    how = {"loss": rng.choice([0.0, 0.1, 0.4]), "spread": rng.choice([0, 30 * MS, 2 * S])}
    world = World(seed, conditions=Conditions(**how))
    preset = rng.choice([Config.wan, Config.lan, Config.mobile])
    config = preset(report_round_trips=True, connect_timeout_ms=None)
    server = Config.server(suspicion_receive_burst=rng.choice([3, 64]))
    alice = world.add_node("alice", config, KEY, address=("192.0.2.1", 1000))
    bob = world.add_node("bob", server, KEY, accept=True, address=("192.0.2.2", 2000))
    recorder = Recorder(file, monkeypatch)
    recorder.watch(alice)
    recorder.watch(bob)
    session = alice.endpoint.connect(bob.address, world.now, key_id=KEY.key_id)
    for _ in range(30):
        world.run_for(rng.randrange(15_000) * MS)
        match rng.randrange(6):
            case 0:
                world.cut(*rng.choice([("alice", "bob"), ("bob", "alice")]))
            case 1 | 2:
                world.cut_both("alice", "bob", cut=False)
            case 3:
                world.move(alice, ("192.0.2.1", rng.randrange(1001, 1004)))
            case 4:
                world.stall(rng.choice([alice, bob]), rng.randrange(30) * S)
            case 5:
                use_a_verb(world, rng, rng.choice([session, *bob.endpoint.sessions]))
    session.close(world.now)
    world.run_for(10 * S)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("seed", range(12))
def test_the_model_does_what_recorded_sessions_did(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = recorded(seed, monkeypatch)
    assert replay.replay(lines) > 50, f"seed {seed}"


def test_the_command_finds_the_step_that_was_falsified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = recorded(1, monkeypatch)
    number = next(n for n, line in enumerate(lines) if '"SessionUp"' in line)
    trace = tmp_path / "trace"

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPLAY), str(trace), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    trace.write_text("\n".join(lines), encoding="utf-8")
    whole = run()
    assert whole.returncode == 0, whole.stderr
    false = json.loads(lines[number])
    false["facts"]["rx fact"] += 1
    trace.write_text("\n".join([*lines[:number], json.dumps(false)]), encoding="utf-8")
    falsified = run()
    assert falsified.returncode == 1
    assert falsified.stderr.startswith(f"line {number + 1}, ")
    assert "Traceback" not in falsified.stderr
    assert run("nonsense").returncode == 2
