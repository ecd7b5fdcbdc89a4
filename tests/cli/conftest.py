"""What the tests of the command line share."""

from collections.abc import Callable, Iterator

import pytest

from kaudp.cli import main
from kaudp.io.quic import certificates
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


@pytest.fixture
def serve_quic(start: Start) -> Callable[..., tuple[Process, str]]:
    """Start `kaudp serve --quic` on a free port; give the process and its address."""

    def begin(*options: str, **changes: str) -> tuple[Process, str]:
        process = start("serve", "127.0.0.1:0", "--quic", "--preset", "lan", *options, **changes)
        pattern = r'"address": "(\S+)"' if "--json" in options else r"listening on (\S+),"
        return process, process.wait_for(pattern)[1]

    return begin


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Give the files of a self-signed certificate and its key."""
    folder = tmp_path_factory.mktemp("pem")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    certificates.self_signed().save(*files)
    return files
