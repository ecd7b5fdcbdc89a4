"""`serve --metrics`, and key logs from `serve` and `ping` to `decode`, as a user runs them."""

import json
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kaudp.errors import DropReason
from kaudp.io.keylog import LABEL
from kaudp.wire import codec
from tests.cli.conftest import Call, Start
from tests.cli.running import KEY, ROOT, Process, one_line_error

Serve = Callable[..., tuple[Process, str]]
FAST = ("--preset", "lan", "-i", "0.05")


def scrape(url: str) -> dict[str, float]:
    with urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sessions_in(samples: dict[str, float]) -> float:
    return sum(value for name, value in samples.items() if name.startswith("kaudp_sessions "))


def test_serve_shows_metrics_while_it_serves(serve: Serve, start: Start) -> None:
    server, address = serve("--preset", "lan", "--metrics", "0")
    url = server.wait_for(r"^metrics at (http://127\.0\.0\.1:\d+/metrics)$")[1]
    before = scrape(url)
    assert sessions_in(before) == 0
    assert all(f"kaudp_datagrams_refused_total {reason.value}" in before for reason in DropReason)
    assert before["process_start_time_seconds"] > 0
    ping = start("ping", address, *FAST, KAUDP_KEY=KEY)
    ping.wait_for("seq=2")
    during = scrape(url)
    assert sessions_in(during) == 1
    assert ping.finish(SIGINT) == 0
    server.wait_for("CLOSED: NORMAL, by the peer")
    after = scrape(url)
    assert sessions_in(after) == 0
    assert after["kaudp_events_total SessionClosed"] == 1
    for name in before:
        if name.startswith("kaudp_") and not name.startswith("kaudp_sessions"):
            assert before[name] <= during[name] <= after[name]
    assert server.finish(SIGINT) == 0
    assert server.err == ""


def test_the_address_of_the_metrics_is_in_json(serve: Serve) -> None:
    server, _ = serve("--json", "--metrics", "[::1]:0")
    server.wait_for('"type": "metrics"')
    (said,) = server.of_type("metrics")
    assert re.fullmatch(r"http://\[::1\]:\d+/metrics", said["url"])
    assert scrape(said["url"])["kaudp_sessions up"] == 0
    assert server.finish(SIGINT) == 0


def test_quic_is_measured_too(serve_quic: Serve, start: Start) -> None:
    server, address = serve_quic("--self-signed", "--metrics", "0")
    url = server.wait_for(r"^metrics at (\S+)$")[1]
    ping = start("ping", f"quic://{address}", "--insecure", *FAST)
    ping.wait_for("seq=2")
    assert sessions_in(scrape(url)) == 1
    assert ping.finish(SIGINT) == 0
    assert server.finish(SIGINT) == 0


def test_a_taken_port_for_metrics_is_one_clear_error(call: Call) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = call("serve", "127.0.0.1:0", f"--key={KEY}", "--metrics", port)
        assert f"metrics, got 127.0.0.1:{port}: Address already in use" in one_line_error(result)


@pytest.mark.parametrize("given", ["", "metrics", "127.0.0.1", "65536", "::1:9"])
def test_a_malformed_address_for_metrics_is_one_clear_error(given: str, call: Call) -> None:
    result = call("serve", "127.0.0.1:0", f"--key={KEY}", f"--metrics={given}")
    assert "[HOST:]PORT" in one_line_error(result)


def test_without_the_extra_its_name_is_said(serve: Serve, start: Start, tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError('none', name='prometheus_client')"
    (tmp_path / "prometheus_client.py").write_text(missing)
    changes = {"KAUDP_KEY": KEY, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = start("serve", "127.0.0.1:0", "--metrics", "0", **changes)
    result = (process.finish(), process.text, process.err)
    assert "pip install 'kaudp[metrics]'" in one_line_error(result)
    # And all else works.
    _, address = serve("--preset", "lan")
    ping = start("ping", address, "-c", "1", *FAST, **changes)
    assert ping.finish() == 0, ping.err


@contextmanager
def recorded(address: str, frames: list[bytes]) -> Iterator[str]:
    """Pass datagrams on between one client and a server, and keep them; give where to ping."""
    host, _, port = address.rpartition(":")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        near.bind(("127.0.0.1", 0))
        far.connect((host, int(port)))
        clients: list[tuple[str, int]] = []
        ended = b"the end"

        def outward() -> None:
            while (datagram := near.recvfrom(2048))[0] != ended:
                clients[:] = [datagram[1]]
                frames.append(datagram[0])
                far.send(datagram[0])

        def homeward() -> None:
            while (frame := far.recv(2048)) != b"":
                frames.append(frame)
                near.sendto(frame, clients[0])

        threads = [threading.Thread(target=way) for way in (outward, homeward)]
        for thread in threads:
            thread.start()
        try:
            yield f"127.0.0.1:{near.getsockname()[1]}"
        finally:
            far.shutdown(socket.SHUT_RD)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(ended, near.getsockname())
            for thread in threads:
                thread.join()


def test_what_was_recorded_is_opened_with_the_key_log(
    serve: Serve, start: Start, call: Call, tmp_path: Path
) -> None:
    logs = {side: tmp_path / side for side in ("near", "far")}
    server, address = serve("--preset", "lan", "--keylog", str(logs["far"]))
    frames: list[bytes] = []
    with recorded(address, frames) as way:
        ping = start("ping", way, "-c", "3", *FAST, "--keylog", str(logs["near"]), KAUDP_KEY=KEY)
        assert ping.finish() == 0
        server.wait_for("CLOSED: NORMAL, by the peer")
    assert server.finish(SIGINT) == 0
    assert logs["near"].read_text() == logs["far"].read_text()
    assert {stat.S_IMODE(log.stat().st_mode) for log in logs.values()} == {0o600}
    assert not [text for text in (ping.text, server.text) if LABEL in text]
    for log in logs.values():
        for line in log.read_text().splitlines():
            secret = line.split()[2]
            assert secret not in ping.text + server.text + ping.err + server.err

    capture = tmp_path / "frames"
    capture.write_text("\n".join(frame.hex() for frame in frames))
    code, out, err = call("decode", str(capture), "--json", "--keylog", str(logs["near"]))
    assert (code, err) == (0, "")
    shown = [entry for entry in map(json.loads, out.splitlines()) if entry["type"] == "frame"]
    sealed = [entry for entry in shown if entry["frame"] in ("PROBE", "REPLY", "CLOSE")]
    assert len(sealed) == len([each for each in frames if each[1] in codec.TRANSPORT_TYPES]) >= 8
    assert all(entry["body"]["state"] for entry in sealed)
    assert {entry["frame"] for entry in sealed} == {"PROBE", "REPLY", "CLOSE"}

    # A frame that was changed on the way does not verify; one of another session stays shut.
    broken = bytearray(next(frame for frame in frames if frame[1] in codec.TRANSPORT_TYPES))
    broken[-1] ^= 1
    code, out, _ = call("decode", broken.hex(), "--keylog", str(logs["near"]))
    assert (code, "bad_tag" in out) == (1, True)
    broken[4] ^= 1
    code, out, _ = call("decode", broken.hex(), "--keylog", str(logs["near"]))
    assert (code, "  body" in out) == (0, False)


def test_a_key_log_may_have_comments_but_nothing_else(call: Call, tmp_path: Path) -> None:
    log = tmp_path / "log"
    frame = "0b0881005e5510a1b2c3d4e5" + "00" * 52
    log.write_text(f"# a comment\n\n{LABEL} {'ab' * 8} {'cd' * 32}\n")
    assert call("decode", frame, "--keylog", str(log))[0] == 0
    log.write_text(f"{LABEL} {'ab' * 8} {'cd' * 33}\n")
    error = one_line_error(call("decode", frame, "--keylog", str(log)))
    assert f"line 1 of {str(log)!r}" in error
    assert "cdcd" not in error


@pytest.mark.parametrize("name", ["/nowhere/log", "/", "a\0b"])
def test_a_key_log_that_cannot_be_read_is_one_clear_error(name: str, call: Call) -> None:
    error = one_line_error(call("decode", "00", "--keylog", name))
    assert "expected a readable key log" in error


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "127.0.0.1:0", f"--key={KEY}"],
        ["ping", "127.0.0.1:9", f"--key={KEY}"],
    ],
)
def test_a_key_log_that_cannot_be_written_is_one_clear_error(
    command: list[str], call: Call, tmp_path: Path
) -> None:
    result = call(*command, "--keylog", "/nowhere/log")
    assert "expected a key log file that can be written" in one_line_error(result)
    open_to_all = tmp_path / "log"
    open_to_all.touch()
    open_to_all.chmod(0o644)
    assert "of mode 0644" in one_line_error(call(*command, "--keylog", str(open_to_all)))


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "127.0.0.1:0", "--quic", "--self-signed"],
        ["ping", "quic://127.0.0.1:9"],
    ],
)
def test_a_key_log_of_quic_alone_is_refused(command: list[str], call: Call, tmp_path: Path) -> None:
    result = call(*command, "--keylog", str(tmp_path / "log"))
    assert "--keylog" in one_line_error(result)
    assert not (tmp_path / "log").exists()
