"""What the tests of the command line share."""

from collections.abc import Callable, Iterator

import pytest

from kaudp.cli import main
from tests.cli.running import KEY, Process

Call = Callable[..., tuple[int, str, str]]
Start = Callable[..., Process]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in this process; give exit code, stdout and stderr."""
    monkeypatch.delenv("KAUDP_KEY", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a `kaudp` that ends with the test at the latest."""
    running: list[Process] = []

    def begin(*arguments: str, **changes: str) -> Process:
        running.append(Process(*arguments, **changes))
        return running[-1]

    yield begin
    for process in running:
        process.stop()


@pytest.fixture
def serve(start: Start) -> Callable[..., tuple[Process, str]]:
    """Start `kaudp serve` on a free port; give the process and its address."""

    def begin(*options: str, host: str = "127.0.0.1") -> tuple[Process, str]:
        process = start("serve", f"{host}:0", *options, KAUDP_KEY=KEY)
        pattern = r'"address": "(\S+)"' if "--json" in options else r"listening on (\S+),"
        return process, process.wait_for(pattern)[1]

    return begin
