"""`serve` and `ping` as two processes over real sockets."""

import socket
from collections.abc import Callable
from signal import SIGINT, SIGKILL, SIGTERM

import pytest

from tests.cli.conftest import Call, Start
from tests.cli.running import KEY, OTHER_KEY, Process, one_line_error, run_on_terminal

Serve = Callable[..., tuple[Process, str]]
FAST = ("--preset", "lan", "-i", "0.05")


def test_ping_shows_replies_and_sums_up(serve: Serve, start: Start) -> None:
    server, address = serve("--preset", "lan")
    ping = start("ping", address, "-c", "3", *FAST, KAUDP_KEY=KEY)
    assert ping.finish() == 0
    assert ping.out[0].startswith(f"PING {address} ({address}) every 50 ms")
    for number, line in enumerate([line for line in ping.out if "reply" in line][:3], start=1):
        assert f"seq={number} rtt=" in line
        assert "UP loss out=0% in=0%" in line
    assert f"--- {address} ping statistics ---" in ping.text
    assert "3 replies" in ping.text
    assert "min/avg/max/jitter = " in ping.out[-1]
    server.wait_for("UP: the handshake is done")
    server.wait_for("CLOSED: NORMAL, by the peer")
    assert server.finish(SIGINT) == 0
    assert server.out[-1] == "1 session; datagrams refused: none"


def test_all_output_is_json_when_asked_for(serve: Serve, start: Start) -> None:
    server, address = serve("--preset", "lan", "--json")
    ping = start("ping", address, "-c", "2", "--json", *FAST, KAUDP_KEY=KEY)
    assert ping.finish() == 0
    assert [entry["type"] for entry in ping.objects] == [
        "start",
        "event",
        "reply",
        "reply",
        "summary",
    ]
    reply, summary = ping.of_type("reply")[0], ping.objects[-1]
    assert reply["rtt_ms"] > 0
    assert (reply["state"], reply["loss_out"]) == ("UP", 0)
    assert (summary["replies"], summary["state"], summary["interval_ms"]) == (2, "UP", 50)
    server.wait_for("SessionClosed")
    assert server.finish(SIGTERM) == 0
    events = [entry["event"] for entry in server.of_type("event")]
    assert events == ["SessionUp", "SessionClosed"]
    assert server.objects[-1] == {"type": "summary", "sessions": 1, "refused": {}}


def test_a_wrong_key_gets_no_answer_and_a_hint(serve: Serve, start: Start) -> None:
    server, address = serve()
    ping = start("ping", address, "-w", "0.3", f"--key={OTHER_KEY}")
    assert ping.finish() == 1
    assert "no authenticated answer" in ping.err
    assert "the key is wrong" in ping.err
    assert "reported" not in ping.err
    assert server.finish(SIGINT) == 0
    assert server.out[-1].startswith("0 sessions; datagrams refused: ")
    assert "unknown_key" in server.out[-1]


@pytest.fixture
def silent_address() -> str:
    """An address where nothing listens any more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def test_what_the_network_reports_is_passed_on(silent_address: str, start: Start) -> None:
    ping = start("ping", silent_address, "-w", "0.3", KAUDP_KEY=KEY)
    assert ping.finish() == 1
    assert "reported the address unreachable" in ping.err
    assert ping.out[-1] == "0 replies"


def test_json_tells_of_the_failure_too(silent_address: str, start: Start) -> None:
    ping = start("ping", silent_address, "-w", "0.3", "--json", "-q", KAUDP_KEY=KEY)
    assert ping.finish() == 1
    assert ping.err == ""
    assert [entry["type"] for entry in ping.objects] == ["start", "event", "summary"]
    assert ping.of_type("event")[0]["unreachable"] is True


@pytest.mark.parametrize("signal", [SIGINT, SIGTERM])
def test_a_signal_ends_ping_with_its_summary(serve: Serve, start: Start, signal: int) -> None:
    _, address = serve("--preset", "lan")
    ping = start("ping", address, *FAST, KAUDP_KEY=KEY)
    ping.wait_for("seq=2")
    assert ping.finish(signal) == 0
    assert "min/avg/max/jitter" in ping.out[-1]


def test_the_deadline_ends_ping(serve: Serve, start: Start) -> None:
    _, address = serve("--preset", "lan")
    ping = start("ping", address, "-w", "1", *FAST, KAUDP_KEY=KEY)
    assert ping.finish() == 0
    assert "state at the end UP" in ping.text


def test_quiet_leaves_the_first_line_and_the_summary(serve: Serve, start: Start) -> None:
    _, address = serve()
    ping = start("ping", address, "-c", "2", "-q", "-i", "0.1", KAUDP_KEY=KEY)
    assert ping.finish() == 0
    assert ping.out[0].startswith("PING")
    assert ping.out[1:3] == ["", f"--- {address} ping statistics ---"]


def test_a_peer_that_wants_fewer_probes_is_named(serve: Serve, start: Start) -> None:
    _, address = serve()
    ping = start("ping", address, "-c", "1", "-i", "0.1", KAUDP_KEY=KEY)
    assert ping.finish() == 0
    assert "note: probing every 1 s instead of 100 ms: the peer demands it" in ping.out


def test_json_names_the_interval_that_is_used(serve: Serve, start: Start) -> None:
    _, address = serve()
    ping = start("ping", address, "-c", "1", "-i", "0.1", "--json", KAUDP_KEY=KEY)
    assert ping.finish() == 0
    (note,) = ping.of_type("interval")
    assert (note["wanted_ms"], note["used_ms"]) == (100, 1000)


def test_a_count_is_given_up_when_the_peer_is_down(serve: Serve, start: Start) -> None:
    server, address = serve("--preset", "lan")
    ping = start("ping", address, "-c", "100000", *FAST, KAUDP_KEY=KEY)
    ping.wait_for("seq=3")
    server.finish(SIGKILL)
    assert ping.finish() == 0
    assert "SUSPECT: " in ping.text
    assert "DOWN: " in ping.text
    assert "state at the end DOWN" in ping.text


def test_a_server_that_ends_tells_its_peers(serve: Serve, start: Start) -> None:
    server, address = serve("--preset", "lan")
    ping = start("ping", address, *FAST, KAUDP_KEY=KEY)
    ping.wait_for("seq=1 ")
    assert server.finish(SIGINT) == 0
    assert ping.finish() == 0
    assert "CLOSED: SHUTDOWN, by the peer" in ping.text
    assert "CLOSED: SHUTDOWN, by this side" in server.text


def test_no_more_sessions_than_allowed(serve: Serve, start: Start) -> None:
    server, address = serve("--preset", "lan", "--max-sessions", "1")
    first = start("ping", address, *FAST, KAUDP_KEY=KEY)
    first.wait_for("seq=1 ")
    second = start("ping", address, "-w", "0.3", *FAST, KAUDP_KEY=KEY)
    assert second.finish() == 1
    assert first.finish(SIGINT) == 0
    assert server.finish(SIGINT) == 0
    assert "session_limit" in server.out[-1]
    assert server.out[-1].startswith("1 session;")


def test_a_port_in_use_is_one_line(serve: Serve, call: Call) -> None:
    _, address = serve()
    error = one_line_error(call("serve", address, f"--key={KEY}"))
    assert "Address already in use" in error


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_addresses_stand_in_brackets(serve: Serve, start: Start) -> None:
    server, address = serve("--preset", "lan", host="[::1]")
    assert address.startswith("[::1]:")
    ping = start("ping", address, "-c", "1", *FAST, KAUDP_KEY=KEY)
    assert ping.finish() == 0
    server.wait_for(r"\[::1\]:\d+ UP")


def test_colours_are_for_terminals_that_want_them(serve: Serve) -> None:
    _, address = serve("--preset", "lan")
    arguments = ("ping", address, "-c", "1", *FAST)
    assert "\x1b[32mUP\x1b[0m" in run_on_terminal(*arguments, KAUDP_KEY=KEY)[1]
    assert "\x1b" not in run_on_terminal(*arguments, KAUDP_KEY=KEY, NO_COLOR="1")[1]
    assert "\x1b" not in run_on_terminal(*arguments, KAUDP_KEY=KEY, TERM="dumb")[1]
    assert "\x1b" not in run_on_terminal(*arguments, "--json", KAUDP_KEY=KEY)[1]
