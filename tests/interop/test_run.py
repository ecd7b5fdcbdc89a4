"""interop/run.py itself: a peer that does not agree with kaudp fails its case."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interop import run
from interop.peers import launch

ROOT = Path(__file__).parents[2]
LYING = Path(__file__).with_name("lying.py")
# What goes wrong in a role, and what the result says of it.
LIES = {
    ("server", "skips a probe"): "the peer counted the probes [1, 3,",
    ("server", "another reason"): "the peer heard {'event': 'close', 'reason': 1}",
    ("server", "another session"): "sessions of the peer: [{",
    ("server", "garbage"): "the peer printed ['about to say ready',",
    ("server", "status"): "the peer ended with 3",
    ("server", "dies"): "the peer ended early",
    ("client", "fewer replies"): "the client's count of 4 probes is {",
    ("client", "status"): "the peer ended with 3",
    ("client", "dies"): "the peer ended early",
}


class Lying(launch.Qh3):
    """A qh3 peer that lies, or where `lie` is not one, does not."""

    def __init__(self, lie: str) -> None:
        super().__init__()
        self.lie = lie

    def program(self) -> list[str]:
        return [sys.executable, str(LYING), self.lie]


class Absent(launch.Qh3):
    def missing(self) -> str | None:
        return "no such stack"


class Unbuildable(launch.Qh3):
    def build(self) -> None:
        raise FileNotFoundError("no compiler")


@pytest.fixture(scope="module")
def matrix() -> run.Matrix:
    peers: dict[str, launch.Peer] = {lie: Lying(lie) for _, lie in LIES}
    peers |= {"honest": Lying("none"), "absent": Absent(), "unbuildable": Unbuildable()}
    cases = [run.Case(lie, role, "datagram") for role, lie in LIES]
    cases += [run.Case(name, "server", "datagram") for name in ("honest", "absent", "unbuildable")]
    made = run.Matrix(cases, peers=peers, seconds=0.6)
    made.run()
    return made


@pytest.mark.parametrize(("role", "lie"), LIES)
def test_a_peer_that_disagrees_fails(matrix: run.Matrix, role: str, lie: str) -> None:
    result = matrix.results[run.Case(lie, role, "datagram")]
    assert result.result == "fail"
    assert result.reason.startswith(LIES[role, lie])
    assert f"lying.py {lie}" in result.evidence


def test_the_same_peer_passes_when_honest(matrix: run.Matrix) -> None:
    result = matrix.results[run.Case("honest", "server", "datagram")]
    assert (result.result, result.reason, result.evidence) == ("pass", "", "")
    assert result.round_trips is not None
    assert result.round_trips >= 4


def test_a_stack_that_is_not_there_is_missing(matrix: run.Matrix) -> None:
    result = matrix.results[run.Case("absent", "server", "datagram")]
    assert (result.result, result.reason) == ("missing", "no such stack")


def test_a_stack_that_does_not_build_fails(matrix: run.Matrix) -> None:
    result = matrix.results[run.Case("unbuildable", "server", "datagram")]
    assert (result.result, result.reason) == ("fail", "does not build: no compiler")


def test_the_table_has_a_line_for_each_case_and_json_the_same(
    matrix: run.Matrix, tmp_path: Path
) -> None:
    results = [*matrix.results.values()]
    head, *lines = run.table(results).splitlines()
    assert head.split()[:3] == ["stack", "version", "role"]
    for line, result in zip(lines, results, strict=True):
        assert line.startswith(result.stack)
        assert line.endswith(result.reason)
        assert f" {result.result} " in line
    run.save(results, tmp_path / "interop.json")
    saved = json.loads((tmp_path / "interop.json").read_text())
    assert [entry["result"] for entry in saved] == [result.result for result in results]


def test_what_no_stack_can_is_unsupported() -> None:
    peers = launch.peers()
    reasons = {case.name: run.unsupported(case, peers) for case in run.all_cases(peers)}
    assert reasons["ngtcp2-server-datagram"] == "speaks no kaudp"
    assert reasons["quic-go-client-ping"] == "no client among the peers"
    assert reasons["quic-go-server-ping"] is None


@pytest.mark.parametrize(
    "arguments", [("--stack", "nothing"), ("--seconds", "0"), ("--seconds", "nan"), ("more",)]
)
def test_a_wrong_command_line_exits_with_2(arguments: tuple[str, ...]) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "usage:" in done.stderr


def test_the_command_prints_a_table_and_exits_with_0(tmp_path: Path) -> None:
    file = tmp_path / "interop.json"
    done = _run("--stack", "aioquic", "--seconds", "0.5", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[3] for line in done.stdout.splitlines()[1:]] == [
        "datagram",
        "stream",
        "ping",
    ]
    assert [entry["result"] for entry in json.loads(file.read_text())] == ["pass"] * 3


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "interop" / "run.py"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
