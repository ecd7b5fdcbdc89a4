"""`ping quic://` and `serve --quic` as processes over real sockets, and against others' servers."""

import json
import re
import socket
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGINT
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding
from cryptography.hazmat.primitives.serialization import PrivateFormat as Format

from kaudp.cli.carriers import QuicCarrier
from kaudp.events import ConnectFailed
from kaudp.io.quic import certificates
from tests.cli.conftest import Call, Start
from tests.cli.quic_server import QuicServer
from tests.cli.running import KEY, ROOT, Process, one_line_error

Serve = Callable[..., tuple[Process, str]]
Meet = Callable[..., QuicServer]
Pem = tuple[str, str]
FAST = ("--preset", "lan", "-i", "0.05")
# Slow enough that a busy machine raises no suspicion, where all output is compared.
CALM = ("--preset", "lan", "-i", "0.4")
OFFERED = "kaudp/1, h3, hq-interop or doq"


@pytest.fixture
def meet(pem: Pem) -> Iterator[Meet]:
    """Start a QUIC server that is not kaudp's."""
    running: list[QuicServer] = []

    def begin(alpn: list[str] | None, files: Pem = pem) -> QuicServer:
        running.append(QuicServer(Path(files[0]), Path(files[1]), alpn))
        return running[-1]

    yield begin
    for server in running:
        server.stop()


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address where nobody reads."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


def problem(ping: Process, code: int = 1) -> str:
    """Assert that a ping ended with one sentence on stderr; give it."""
    assert ping.finish() == code
    assert ping.out[-1] == "0 replies"
    assert re.fullmatch(r"kaudp: expected [^\n]+\n", ping.err), ping.err
    return ping.err


# Each mode.

MODES = {
    "auto": ("datagram", "both sides speak kaudp and take DATAGRAM frames"),
    "datagram": ("datagram", "it was asked for"),
    "stream": ("stream", "it was asked for"),
    "ping": ("ping", "it was asked for"),
}


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_is_named_and_answered(
    mode: str, serve_quic: Serve, start: Start, pem: Pem
) -> None:
    server, address = serve_quic("--cert", pem[0], "--cert-key", pem[1])
    target = f"quic://{address}"
    ping = start("ping", target, "-c", "3", "--mode", mode, "--ca", pem[0], *CALM)
    assert ping.finish() == 0, ping.err
    used, why = MODES[mode]
    assert ping.out[0] == f"PING {target} ({address}) every 400 ms, mode {used}: {why}"
    replies = [line for line in ping.out if line.startswith(f"reply from {address}: seq=")]
    assert len(replies) == 3
    assert all(("rtt<=" in line) == (used == "ping") for line in replies)
    loss = "UP loss out=0% in=0%" if used == "datagram" else "UP loss unknown"
    assert all(line.endswith(loss) for line in replies)
    assert f"--- {target} ping statistics ---" in ping.out
    why_unknown = "loss unknown: QUIC repeats what is lost; it shows as delay"
    assert (why_unknown in ping.out) == (used != "datagram")
    assert ping.out[-1].startswith("rtt min/avg/max/jitter = ")
    assert ("upper bounds" in ping.out[-1]) == (used == "ping")
    assert server.finish(SIGINT) == 0
    # Of a ping the server learns nothing: QUIC itself acknowledges it.
    told = ["MODE", "UP", "CLOSED"] if used != "ping" else []
    assert re.findall(r" ([A-Z]+): ", server.text) == told
    assert server.out[-1].startswith("0 sessions" if used == "ping" else "1 session;")


@pytest.mark.parametrize("mode", ["datagram", "stream", "ping"])
def test_all_of_it_is_json_when_asked_for(
    mode: str, serve_quic: Serve, start: Start, pem: Pem
) -> None:
    server, address = serve_quic("--cert", pem[0], "--cert-key", pem[1], "--json")
    options = ("-c", "2", "--mode", mode, "--ca", pem[0], "--json")
    ping = start("ping", f"quic://{address}", *options, *CALM)
    assert ping.finish() == 0, ping.err
    # On a slow machine QUIC's PTO may not allow the interval; that has its own test.
    told = [entry for entry in ping.objects if entry["type"] != "interval"]
    assert [entry["type"] for entry in told] == ["start", "event", "reply", "reply", "summary"]
    begun, _, reply, _, summary = told
    assert (begun["mode"], begun["why"], begun["address"]) == (mode, "it was asked for", address)
    assert reply["rtt_ms"] > 0
    for entry in (reply, summary):
        assert entry["rtt_is_upper_bound"] is (mode == "ping")
        assert entry["loss_out"] == (0 if mode == "datagram" else None)
        unknown = None if mode == "datagram" else "QUIC repeats what is lost"
        assert entry["loss_unknown"] == unknown
    assert (summary["replies"], summary["state"], summary["problem"]) == (2, "UP", None)
    assert summary["lost_out"] == (0 if mode == "datagram" else None)
    assert server.finish(SIGINT) == 0
    assert server.of_type("listening")[0]["carriers"] == ["quic"]
    events = [(entry["event"], entry.get("mode")) for entry in server.of_type("event")]
    expected = [("ModeChosen", mode), ("SessionUp", None), ("SessionClosed", None)]
    assert events == ([] if mode == "ping" else expected)


def test_any_quic_server_answers_in_mode_ping(meet: Meet, start: Start, pem: Pem) -> None:
    server = meet(["h3"])
    ping = start("ping", f"quic://{server.address}", "-c", "2", "--ca", pem[0], *FAST)
    assert ping.finish() == 0, ping.err
    why = "ALPN is h3, so the peer is not known to speak kaudp"
    assert ping.out[0].endswith(f"every 50 ms, mode ping: {why}")
    assert sum("rtt<=" in line for line in ping.out) == 2
    assert "StreamDataReceived" not in server.events
    assert "DatagramFrameReceived" not in server.events


def test_a_protocol_may_be_named(meet: Meet, start: Start) -> None:
    server = meet(["chat"])
    options = ("-c", "1", "--insecure", "--alpn", "other", "--alpn", "chat")
    ping = start("ping", f"quic://{server.address}", *options)
    assert ping.finish() == 0, ping.err
    assert "mode ping: ALPN is chat, so" in ping.out[0]


def test_an_interval_that_quic_does_not_allow_is_a_warning(meet: Meet, start: Start) -> None:
    server = meet(["h3"])
    target = f"quic://{server.address}"
    ping = start("ping", target, "-c", "1", "-i", "40", "--insecure")
    assert ping.finish() == 0, ping.err
    (warning,) = [line for line in ping.out if line.startswith("warning: ")]
    assert warning.startswith("warning: probing every 30 s instead of 40 s: QUIC's idle timeout")
    assert "note: " not in ping.text
    told = start("ping", target, "-c", "1", "-i", "40", "--insecure", "--json")
    assert told.finish() == 0
    (note,) = told.of_type("interval")
    assert (note["wanted_ms"], note["used_ms"]) == (40_000, 30_000)
    assert "idle timeout" in note["why"]


def test_a_server_that_ends_tells_its_peers(serve_quic: Serve, start: Start) -> None:
    server, address = serve_quic("--self-signed")
    ping = start("ping", f"quic://{address}", "--insecure", *FAST)
    ping.wait_for("seq=1 ")
    assert server.finish(SIGINT) == 0
    assert ping.finish() == 0
    assert "CLOSED: SHUTDOWN, by the peer" in ping.text


def test_a_connection_that_others_close_is_described(meet: Meet, start: Start) -> None:
    server = meet(["h3"])
    ping = start("ping", f"quic://{server.address}", "--insecure", *FAST)
    ping.wait_for("seq=1 ")
    server.stop()
    assert ping.finish() == 0
    closed = next(line for line in ping.out if "CLOSED: " in line)
    assert "CARRIER_CLOSED, by the peer; QUIC connection closed by the peer: " in closed


def test_a_signal_ends_ping_with_its_summary(serve_quic: Serve, start: Start) -> None:
    _, address = serve_quic("--self-signed")
    ping = start("ping", f"quic://{address}", "--insecure", *FAST)
    ping.wait_for("seq=2")
    assert ping.finish(SIGINT) == 0
    assert "min/avg/max/jitter" in ping.out[-1]


# What may go wrong.


def test_an_unknown_certificate_is_refused_and_what_helps_is_said(meet: Meet, start: Start) -> None:
    server = meet(["h3"])
    said = problem(start("ping", f"quic://{server.address}"))
    assert "got: self-signed certificate." in said
    assert "--ca FILE" in said
    assert "--insecure" in said


def test_a_certificate_of_another_name_is_refused(
    serve_quic: Serve, start: Start, tmp_path: Path
) -> None:
    files = saved(tmp_path, names=[x509.DNSName("elsewhere.example")])
    _, address = serve_quic("--cert", files[0], "--cert-key", files[1])
    said = problem(start("ping", f"quic://{address}", "--ca", files[0]))
    assert "doesn't match" in said
    assert "elsewhere.example" in said


@pytest.mark.parametrize("insecure", [False, True])
def test_an_expired_certificate_is_refused_unless_any_will_do(
    insecure: bool, serve_quic: Serve, start: Start, tmp_path: Path
) -> None:
    files = saved(tmp_path, days=-1)
    server, address = serve_quic("--cert", files[0], "--cert-key", files[1])
    assert "expired on " in server.wait_for("certificate SHA-256 .*").string
    trust = ["--insecure"] if insecure else ["--ca", files[0]]
    ping = start("ping", f"quic://{address}", "-c", "1", *trust, *FAST)
    if insecure:
        assert ping.finish() == 0, ping.err
        return
    said = problem(ping)
    assert "valid today, got: Certificate is no longer valid." in said
    assert "--ca" not in said


@pytest.mark.parametrize("alpn", [["chat"], None], ids=["another", "none"])
def test_a_protocol_that_nobody_speaks_is_named(
    alpn: list[str] | None, meet: Meet, start: Start
) -> None:
    server = meet(alpn)
    target = f"quic://{server.address}"
    said = problem(start("ping", target, "--insecure"))
    assert said.startswith(f"kaudp: expected {target} to speak {OFFERED} (ALPN), got: none")
    assert "--alpn NAME" in said


def test_a_mode_that_the_peer_cannot_do_says_so(meet: Meet, start: Start) -> None:
    server = meet(["h3"])
    said = problem(start("ping", f"quic://{server.address}", "--insecure", "--mode", "datagram"))
    assert "mode datagram: expected both sides to take DATAGRAM frames" in said


def test_a_mode_that_the_peer_knows_nothing_of_says_so(meet: Meet, start: Start) -> None:
    server = meet(["h3"])
    options = ("--insecure", "--mode", "stream", "-w", "1")
    ping = start("ping", f"quic://{server.address}", *options)
    said = problem(ping)
    assert "mode stream: it was asked for" in ping.out[0]
    assert "mode stream" in said
    assert "--mode ping" in said


@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_nobody_is_reported_by_the_deadline(
    quiet: list[str], silent_address: str, start: Start
) -> None:
    target = f"quic://{silent_address}"
    ping = start("ping", target, "-w", "0.3", *quiet)
    said = problem(ping)
    assert ping.out[0] == f"PING {target} ({silent_address}) every 1 s"
    assert said.startswith(f"kaudp: expected an answer by QUIC from {target}, got none.")


def test_json_tells_of_the_failure_too(meet: Meet, start: Start) -> None:
    server = meet(["chat"])
    ping = start("ping", f"quic://{server.address}", "--insecure", "--json", "-q")
    assert ping.finish() == 1
    assert ping.err == ""
    assert [entry["type"] for entry in ping.objects] == ["start", "event", "summary"]
    begun, event, summary = ping.objects
    assert (begun["mode"], begun["address"]) == (None, server.address)
    assert event["event"] == "ConnectFailed"
    assert event["peer"] == server.address
    assert "no_application_protocol" in event["detail"]
    assert "--alpn" in summary["problem"]


def test_a_udp_server_of_kaudp_is_no_quic_server(serve: Serve, start: Start) -> None:
    _, address = serve()
    assert "pinged as HOST:PORT" in problem(start("ping", f"quic://{address}", "-w", "0.3"))


DETAILS = {
    "QUIC connection closed by this side: TLS alert bad_certificate, \"host 'a'\"": "host 'a'",
    "QUIC connection closed by the peer: TLS alert bad_certificate": "got: bad_certificate",
    "QUIC connection closed by the peer: TLS alert 116": "TLS alert 116",
    "stateless reset: the peer has lost the connection": "stateless reset",
    "idle timeout of the QUIC connection": "got none. Nothing listens",
}


@pytest.mark.parametrize("detail", DETAILS)
def test_whatever_fails_is_said(detail: str) -> None:
    session: Any = None
    carrier = QuicCarrier("quic://a:1", {"alpn": ["h3"]})
    sentence = carrier.no_answer(ConnectFailed(session, 0, False, detail))
    assert sentence.startswith("expected ")
    assert DETAILS[detail] in sentence


# One port.


def test_one_port_serves_udp_and_quic(serve_quic: Serve, start: Start) -> None:
    server, address = serve_quic("--self-signed", KAUDP_KEY=KEY)
    assert f"listening on {address}, UDP and QUIC, preset lan, key id " in server.out[0]
    over_udp = start("ping", f"udp://{address}", "-c", "2", *FAST, KAUDP_KEY=KEY)
    over_quic = start("ping", f"quic://{address}", "-c", "2", "--insecure", *FAST, KAUDP_KEY=KEY)
    assert (over_udp.finish(), over_quic.finish()) == (0, 0)
    assert over_udp.out[0].startswith(f"PING {address} ({address}) every 50 ms, key id ")
    assert "mode datagram" in over_quic.out[0]
    assert server.finish(SIGINT) == 0
    assert server.out[-1].startswith("2 sessions;")


def test_without_a_key_udp_gets_no_answer(serve_quic: Serve, start: Start) -> None:
    server, address = serve_quic("--self-signed")
    assert server.out[0] == f"listening on {address}, QUIC, preset lan"
    ping = start("ping", address, "-w", "0.3", KAUDP_KEY=KEY)
    assert ping.finish() == 1


# Certificates.


def test_a_self_signed_certificate_is_kept_where_asked(
    serve_quic: Serve, start: Start, tmp_path: Path
) -> None:
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    options = ("--self-signed", "--cert", str(files[0]), "--cert-key", str(files[1]))
    server, address = serve_quic(*options)
    told = server.wait_for(r"certificate SHA-256 (\S+), valid until ([\d-]+) .*").groups()
    assert server.out[1].endswith(f"self-signed: clients need --ca {files[0]}")
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600
    made = x509.load_pem_x509_certificate(files[0].read_bytes())
    assert told[0] == made.fingerprint(hashes.SHA256()).hex(":").upper()
    assert told[1] == f"{made.not_valid_after_utc:%Y-%m-%d}"
    lasts = made.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=9, hours=23) < lasts <= timedelta(days=10)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in names} >= {
        "localhost",
        "127.0.0.1",
        "::1",
        socket.gethostname(),
    }
    ping = start("ping", f"quic://{address}", "-c", "1", "--ca", str(files[0]))
    assert ping.finish() == 0, ping.err
    assert server.finish(SIGINT) == 0
    before = [file.read_bytes() for file in files]
    again, _ = serve_quic(*options)
    again.wait_for(re.escape(told[0]))
    assert [file.read_bytes() for file in files] == before


def test_a_certificate_in_memory_needs_insecure_clients(serve_quic: Serve) -> None:
    server, _ = serve_quic("--self-signed")
    assert server.wait_for("certificate .*").string.endswith("clients need --insecure\n")
    told, _ = serve_quic("--self-signed", "--json")
    told.wait_for('"certificate"')
    (facts,) = told.of_type("certificate")
    assert re.fullmatch(r"([0-9A-F]{2}:){31}[0-9A-F]{2}", facts["sha256"])
    assert (facts["self_signed"], facts["file"]) == (True, None)


def test_no_file_is_overwritten(call: Call, tmp_path: Path) -> None:
    precious = tmp_path / "key.pem"
    precious.write_text("precious")
    files = ("--cert", str(tmp_path / "cert.pem"), "--cert-key", str(precious))
    error = one_line_error(call("serve", "127.0.0.1:0", "--quic", "--self-signed", *files))
    assert "both files" in error
    assert precious.read_text() == "precious"
    assert not (tmp_path / "cert.pem").exists()


def test_certificate_files_of_no_use_are_named(call: Call, pem: Pem, tmp_path: Path) -> None:
    junk, missing, other, locked = (str(tmp_path / name) for name in "abcd")
    Path(junk).write_text("junk")
    own = certificates.self_signed()
    own.save(tmp_path / "other.pem", other)
    locked_pem = own.key.private_bytes(Encoding.PEM, Format.PKCS8, BestAvailableEncryption(b"x"))
    Path(locked).write_bytes(locked_pem)
    for files, named in [
        ((missing, pem[1]), missing),
        ((junk, pem[1]), junk),
        ((pem[0], junk), junk),
        ((pem[0], missing), missing),
        ((pem[0], other), other),
        ((pem[0], locked), locked),
        ((pem[0], pem[0]), pem[0]),
    ]:
        command = ("serve", "127.0.0.1:0", "--quic", "--cert", files[0], "--cert-key", files[1])
        assert repr(named) in one_line_error(call(*command))
    unwritable = str(tmp_path / "no" / "cert.pem"), str(tmp_path / "no" / "key.pem")
    options = ("--self-signed", "--cert", unwritable[0], "--cert-key", unwritable[1])
    error = one_line_error(call("serve", "127.0.0.1:0", "--quic", *options))
    assert "No such file" in error


@pytest.mark.parametrize("content", [None, "junk"])
def test_authorities_of_no_use_are_named(content: str | None, call: Call, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    error = one_line_error(call("ping", "quic://127.0.0.1:9", "--ca", str(file)))
    assert repr(str(file)) in error


def test_authorities_may_stand_among_comments(
    meet: Meet, start: Start, pem: Pem, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    others = tmp_path / "other.pem", tmp_path / "other.key"
    certificates.self_signed().save(*others)
    bundle.write_text(
        f"# Other\n{others[0].read_text()}\n# Ours\n{Path(pem[0]).read_text()}# end\n"
    )
    server = meet(["h3"])
    ping = start("ping", f"quic://{server.address}", "-c", "1", "--ca", str(bundle), *FAST)
    assert ping.finish() == 0, ping.err


# Mistakes.

USES = {
    "a key for QUIC": ["ping", "quic://127.0.0.1:9", f"--key={KEY}"],
    "a key file for QUIC": ["ping", "quic://127.0.0.1:9", "--key-file", "kaudp.key"],
    "a mode for UDP": ["ping", "127.0.0.1:9", f"--key={KEY}", "--mode", "auto"],
    "ALPN for UDP": ["ping", "udp://127.0.0.1:9", f"--key={KEY}", "--alpn", "h3"],
    "trust for UDP": ["ping", "127.0.0.1:9", f"--key={KEY}", "--insecure"],
    "authorities for UDP": ["ping", "127.0.0.1:9", f"--key={KEY}", "--ca", "ca.pem"],
    "unknown mode": ["ping", "quic://127.0.0.1:9", "--mode", "carrier-pigeon"],
    "two kinds of trust": ["ping", "quic://127.0.0.1:9", "--insecure", "--ca", "ca.pem"],
    "unknown scheme": ["ping", "tcp://127.0.0.1:9"],
    "no scheme": ["ping", "://127.0.0.1:9"],
    "no port": ["ping", "quic://127.0.0.1"],
    "a path": ["ping", "quic://127.0.0.1:9/index.html"],
    "unknown host": ["ping", "quic://nobody.invalid:4711"],
    "no certificate": ["serve", "127.0.0.1:0", "--quic"],
    "no certificate's key": ["serve", "127.0.0.1:0", "--quic", "--cert", "cert.pem"],
    "no certificate to the key": ["serve", "127.0.0.1:0", "--quic", "--cert-key", "key.pem"],
    "half of the files": [
        *("serve", "127.0.0.1:0", "--quic", "--self-signed"),
        *("--cert", "cert.pem"),
    ],
    "a certificate for UDP": ["serve", "127.0.0.1:0", f"--key={KEY}", "--cert", "cert.pem"],
    "self-signed for UDP": ["serve", "127.0.0.1:0", f"--key={KEY}", "--self-signed"],
    "unknown local host": ["serve", "nobody.invalid:0", "--quic", "--self-signed"],
    "foreign local address": ["serve", "192.0.2.1:4711", "--quic", "--self-signed"],
}


@pytest.mark.parametrize("arguments", USES.values(), ids=USES)
def test_a_mistake_is_answered_by_one_line(arguments: list[str], call: Call) -> None:
    one_line_error(call(*arguments))


def test_a_forgotten_quic_is_named(call: Call) -> None:
    command = ("serve", "127.0.0.1:0", "--cert", "cert.pem", "--cert-key", "key.pem")
    assert "--cert only with --quic" in one_line_error(call(*command))


def test_a_port_in_use_is_one_line(serve_quic: Serve, call: Call) -> None:
    _, address = serve_quic("--self-signed")
    error = one_line_error(call("serve", address, "--quic", "--self-signed"))
    assert "Address already in use" in error


def test_the_two_keys_of_a_server_are_told_apart(call: Call, pem: Pem) -> None:
    command = ("serve", "127.0.0.1:0", "--quic", "--cert", pem[0], "--key", pem[1])
    assert "--cert-key" in one_line_error(call(*command))


@pytest.mark.parametrize(
    "command",
    [
        ["ping", "quic://127.0.0.1:9"],
        ["serve", "127.0.0.1:0", "--quic", "--self-signed", "--cert", "c.pem", "--cert-key", "k"],
    ],
)
def test_without_the_extra_its_name_is_said(
    command: list[str], start: Start, tmp_path: Path
) -> None:
    missing = "raise ModuleNotFoundError('No module named aioquic', name='aioquic')"
    (tmp_path / "aioquic.py").write_text(missing)
    process = start(*command, PYTHONPATH=f"{tmp_path}:{ROOT}")
    result = (process.finish(), process.text, process.err)
    assert "pip install 'kaudp[quic]'" in one_line_error(result)


def test_all_else_works_without_the_extra(serve: Serve, start: Start, tmp_path: Path) -> None:
    (tmp_path / "aioquic.py").write_text("raise ModuleNotFoundError('none', name='aioquic')")
    _, address = serve("--preset", "lan")
    ping = start("ping", address, "-c", "1", *FAST, KAUDP_KEY=KEY, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert ping.finish() == 0, ping.err


# qlog.


def records(file: Path) -> list[dict[str, Any]]:
    """Read a JSON text sequence: each text stands between a record separator and a line feed."""
    text = file.read_text()
    assert text.startswith("\x1e{")
    assert text.endswith("}\n")
    return [json.loads(part) for part in text.split("\x1e")[1:]]


@pytest.mark.parametrize("scheme", ["udp", "quic"])
def test_both_sides_note_what_happens_as_qlog(
    scheme: str, serve: Serve, serve_quic: Serve, start: Start, tmp_path: Path
) -> None:
    notes = {side: tmp_path / f"{side}.sqlog" for side in ("client", "server")}
    over_quic = scheme == "quic"
    kept = ("--qlog", str(notes["server"]))
    server, address = serve_quic("--self-signed", *kept) if over_quic else serve(*kept)
    trust = ["--insecure"] if over_quic else []
    options = ("-c", "2", *FAST, *trust, "--qlog", str(notes["client"]))
    environment = {} if over_quic else {"KAUDP_KEY": KEY}
    ping = start("ping", f"{scheme}://{address}", *options, **environment)
    assert ping.finish() == 0, ping.err
    assert server.finish(SIGINT) == 0
    for side, file in notes.items():
        header, *entries = records(file)
        assert header["file_schema"] == "urn:ietf:params:qlog:file:sequential"
        assert header["serialization_format"] == "application/qlog+json-seq"
        assert header["trace"]["vantage_point"] == {"name": "kaudp", "type": side}
        names = [entry["name"] for entry in entries]
        assert all(name.startswith("kaudp:") for name in names)
        assert {"kaudp:frame_sent", "kaudp:frame_received", "kaudp:session_up"} <= set(names)
        assert ("kaudp:mode_chosen" in names) == over_quic
        assert all(entry["time"] >= 0 and isinstance(entry["data"], dict) for entry in entries)


@pytest.mark.parametrize(
    "command",
    [
        ["ping", "127.0.0.1:9", f"--key={KEY}"],
        ["ping", "quic://127.0.0.1:9"],
        ["serve", "127.0.0.1:0", f"--key={KEY}"],
        ["serve", "127.0.0.1:0", "--quic", "--self-signed"],
    ],
)
def test_a_qlog_file_that_cannot_be_written_is_named(command: list[str], call: Call) -> None:
    code, out, err = call(*command, "--qlog", "/nowhere/a.sqlog")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"kaudp: error: qlog: expected [^\n]+'/nowhere/a.sqlog'[^\n]+\n", err)


def saved(
    folder: Path, *, days: int = 1, names: list[x509.GeneralName] | None = None
) -> tuple[str, str]:
    """Write a certificate like the one that kaudp makes, for other names or another time."""
    own = certificates.self_signed()
    now = datetime.now(UTC)
    alternative = own.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    builder = (
        x509.CertificateBuilder()
        .subject_name(own.certificate.subject)
        .issuer_name(own.certificate.issuer)
        .public_key(own.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(
            alternative.value if names is None else x509.SubjectAlternativeName(names), False
        )
    )
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    own._replace(certificate=builder.sign(own.key, hashes.SHA256())).save(*files)
    return files
