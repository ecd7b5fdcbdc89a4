"""`decode` over all vectors, over files, over captures, and over noise."""

import base64
import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import dpkt
import dpkt.pcapng
import pytest

from kaudp.cli import main
from kaudp.cli.carried import dissect_carried
from kaudp.cli.dissection import OpeningKeys, dissect
from kaudp.wire.keys import PresharedKey
from tests.cli.conftest import Call
from tests.cli.running import COMMAND, KEY, ROOT, TIMEOUT_S, environment, one_line_error


def vectors(name: str) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = json.loads((ROOT / f"spec/vectors/{name}.json").read_text())[
        "tests"
    ]
    return tests


def by_id(tests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {test["id"]: test for test in tests}


FRAMES = vectors("frames")
HANDSHAKES = vectors("handshake")
CARRIED = [test for test in vectors("carried") if test["kind"] == "frame"]
CARRIED = [test for test in CARRIED if test["carrier"] == "quic" and test["frame"]]
PROBE = by_id(FRAMES)["steady-probe"]
INIT = by_id(HANDSHAKES)["ipv4"]
STUN = "000100002112a442" + "00" * 12
# What only a session can know: which ids it has, what it has sent, who it is.
NEEDS_SESSION = {"unknown_session", "ack_of_unsent", "own_epoch", "unknown_key"}


def key_text(test: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(test["psk"])).decode().rstrip("=")


def decoded(call: Call, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    code, out, err = call("decode", "--json", *arguments)
    assert err == ""
    return code, [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("test", FRAMES, ids=lambda test: test["id"])
def test_a_frame_is_shown_or_refused_as_its_vector_says(test: dict[str, Any], call: Call) -> None:
    code, (frame,) = decoded(call, test["frame"], "--traffic-key", test["traffic_key"])
    if test["result"] == "valid":
        assert (code, frame["valid"], frame["reason"]) == (0, True, None)
        options = frame["body"].pop("options")
        del frame["header"]["sealed_body"]
        assert frame["header"] == test["header"]
        assert frame["body"] == test["body"]
        assert options == test["options"]
    elif test["reason"] not in NEEDS_SESSION:
        assert (code, frame["valid"], frame["reason"]) == (1, False, test["reason"])
        assert frame["detail"].startswith(f"{test['reason']}: ")


@pytest.mark.parametrize("test", FRAMES, ids=lambda test: test["id"])
def test_a_tree_is_shown_of_every_frame(test: dict[str, Any], call: Call) -> None:
    code, out, err = call("decode", test["frame"], "--traffic-key", test["traffic_key"])
    assert err == ""
    assert ("\n  invalid: " in out) == (code == 1)
    if test["result"] == "valid":
        assert "    packet_number  " in out
        assert "    address_hash  " in out


@pytest.mark.parametrize("test", HANDSHAKES, ids=lambda test: test["id"])
def test_a_handshake_is_shown_or_refused_as_its_vector_says(
    test: dict[str, Any], call: Call
) -> None:
    code, (init,) = decoded(call, test["init"], f"--key={key_text(test)}")
    if test["result"] == "valid":
        assert code == 0
        options = init["payload"].pop("options")
        parameters = init["payload"].pop("parameters")
        assert init["payload"] | parameters | {"options": options} == test["init_payload"]
        assert decoded(call, test["response"])[0] == 0
    elif test["refused"] == "init" and test["reason"] == "not_kaudp":
        assert (code, init["reason"]) == (1, "not_kaudp")
    elif test["refused"] == "response":
        _, (response,) = decoded(call, test["response"])
        assert response["reason"] == ("not_kaudp" if test["reason"] == "not_kaudp" else None)


@pytest.mark.parametrize("case", ["init-with-critical-option", "init-with-suspicion-burst-0"])
def test_an_opened_init_is_checked(case: str, call: Call) -> None:
    test = by_id(HANDSHAKES)[case]
    code, (init,) = decoded(call, test["init"], f"--key={key_text(test)}")
    assert (code, init["reason"]) == (1, test["reason"])
    assert "payload." in init["detail"]


@pytest.mark.parametrize("prefix", ["", "d06b617564702f31"], ids=["bare", "context id"])
@pytest.mark.parametrize("test", CARRIED, ids=lambda test: test["id"])
def test_a_carried_frame_is_shown_or_refused_as_its_vector_says(
    test: dict[str, Any], prefix: str, call: Call
) -> None:
    code, (frame,) = decoded(call, "--carried", prefix + test["frame"])
    if test["result"] == "valid":
        assert (code, frame["valid"], frame["reason"]) == (0, True, None)
        assert [*frame["header"].values()] == [*test["header"].values()]
        if test["body"]:
            assert frame["body"] == test["body"] | {"options": test["options"]}
        else:
            parameters = frame["payload"].pop("parameters")
            assert frame["payload"] | parameters == test["payload"]
    elif test["reason"] not in NEEDS_SESSION:
        # Nothing but its payload shows an INIT to be kaudp's. KA-14.1-4.
        is_init = frame["frame"] == "INIT"
        reason = "not_kaudp" if is_init else test["reason"]
        assert (code, frame["valid"], frame["reason"]) == (1, False, reason)
        assert frame["detail"].startswith(f"{reason}: ")


def test_a_carried_frame_is_a_tree_in_clear(call: Call) -> None:
    frame = by_id(CARRIED)["init-plain"]["frame"]
    code, out, err = call("decode", "--carried", frame)
    words = [" ".join(line.split()) for line in out.splitlines()]
    assert (code, err, words[0]) == (0, "", "INIT, 52 bytes")
    assert "suite 0x00 carried: in clear, inside QUIC" in words
    assert "payload" in words
    assert "desired_interval_us 10000000 10 s" in words


@pytest.mark.parametrize("kind", ["00", "03", "07", "ff"])
def test_a_carried_frame_of_no_type_is_refused_with_the_reason(kind: str, call: Call) -> None:
    code, (frame,) = decoded(call, "--carried", f"0b{kind}8100" + "00" * 60)
    assert (code, frame["reason"], frame["frame"]) == (1, "not_kaudp", None)
    assert "header.type: expected " in frame["detail"]


def test_noise_is_taken_for_a_carried_frame_without_an_error() -> None:
    rng = Random(20261122)
    starts = [bytes.fromhex(test["frame"]) for test in CARRIED[:40]]
    for _ in range(2000):
        data = bytearray(rng.choice(starts) + rng.randbytes(rng.randrange(4)))
        data[rng.randrange(len(data))] = rng.randrange(256)
        assert dissect_carried(bytes(data)).size == len(data)


def test_a_capture_holds_no_carried_frames(call: Call, tmp_path: Path) -> None:
    capture = tmp_path / "quic.pcap"
    capture.write_bytes(bytes.fromhex("d4c3b2a1") + bytes(20))
    assert "--carried" in one_line_error(call("decode", "--carried", str(capture)))


def test_what_fields_mean_is_said(call: Call) -> None:
    test = by_id(FRAMES)["close-with-every-option"]
    _, out, _ = call("decode", test["frame"], "--traffic-key", test["traffic_key"])
    words = [" ".join(line.split()) for line in out.splitlines()]
    assert words[0] == "CLOSE, 184 bytes"
    assert "version 0x81 kaudp/1" in words
    assert "state 6 CLOSED" in words
    assert "hold_time 1240873 1.240873 s" in words
    assert "address 20010db8000000000000000000000017 2001:db8::17" in words
    assert "desired_interval_us 10000000 10 s" in words
    assert "reason 1 SHUTDOWN" in words
    assert "option 0x60 5 bytes unknown option 0x60, skipped" in words


@pytest.mark.parametrize(
    ("case", "detail"),
    [
        ("version-82", "header.version: expected 0x81, got 0x82"),
        ("cut-to-63", "length: expected 64 to 512 bytes for PROBE, got 63"),
        ("flags-40", "header.flags: expected 0x00 or 0x01, got 0x40"),
        ("state-7", "body.state: expected 1 to 6, got 0x07"),
        (
            "option-past-the-end-after-a-whole-option",
            "body.options[1].value: expected 1 byte, got 0",
        ),
        (
            "option-pause-short",
            "body.options[0].value.content.duration_ms: expected 4 bytes, got 3",
        ),
        (
            "option-address-family-5",
            "body.options[0].value.content.family: expected 0x04 IPV4, 0x06 IPV6, got 0x05",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(case: str, detail: str, call: Call) -> None:
    test = by_id(FRAMES)[case]
    _, out, _ = call("decode", test["frame"], "--traffic-key", test["traffic_key"])
    assert out.splitlines()[-1].endswith(f": {detail}")


def test_without_keys_the_payload_stays_sealed(call: Call) -> None:
    code, (frame,) = decoded(call, PROBE["frame"])
    assert code == 0
    assert "body" not in frame
    assert "sealed_body                 44 bytes" in call("decode", PROBE["frame"])[1]


def test_reserved_flags_are_seen_without_a_key(call: Call) -> None:
    code, (frame,) = decoded(call, by_id(FRAMES)["flags-02"]["frame"])
    assert (code, frame["reason"]) == (1, "reserved_flag")


def test_each_direction_may_have_its_key(call: Call) -> None:
    keys = ("--traffic-key", "00" * 32, "--traffic-key", PROBE["traffic_key"])
    assert decoded(call, PROBE["frame"], *keys)[0] == 0


def test_an_init_under_another_key_id_stays_sealed(call: Call) -> None:
    other = PresharedKey(bytes(32)).to_text()
    code, (init,) = decoded(call, INIT["init"], f"--key={other}")
    assert code == 0
    assert "payload" not in init


def test_a_file_holds_a_datagram_per_line(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "frames.txt"
    spaced = " ".join(PROBE["frame"][at : at + 2] for at in range(0, len(PROBE["frame"]), 2))
    file.write_text(f"# a comment\n\n{spaced}\n0x{PROBE['frame'].upper()}\n{STUN}\n")
    code, objects = decoded(call, str(file))
    assert code == 1
    assert [entry.get("reason") for entry in objects] == [None, None, "not_kaudp", None]
    assert objects[-1] == {"type": "summary", "frames": 3, "invalid": 1, "others": 0}


def test_a_bad_line_is_named(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "frames.txt"
    file.write_text("\nsome words\n")
    assert "in line 2, got 'some words'" in one_line_error(call("decode", str(file)))


def piped(data: bytes, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*COMMAND, "decode", *arguments],
        input=data,
        capture_output=True,
        env=environment(),
        timeout=TIMEOUT_S,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_stdin_is_read_by_default(arguments: tuple[str, ...]) -> None:
    code, out, _ = piped(f"{PROBE['frame']}\n".encode(), *arguments)
    assert code == 0
    assert out.splitlines()[-1] == "1 frame, 0 of them invalid; 0 other packets"


def test_empty_stdin_is_a_mistake() -> None:
    assert "empty input" in one_line_error(piped(b""))


def test_a_reader_that_stops_early_is_no_error() -> None:
    lines = f"{PROBE['frame']}\n".encode() * 2000
    command = f"{' '.join(COMMAND)} decode | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], input=lines, capture_output=True, env=environment()
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, b"PROBE, 64 bytes\n", b"")


# Captures.


def udp4(payload: bytes) -> dpkt.ip.IP:
    udp = dpkt.udp.UDP(sport=40001, dport=4711, data=payload)
    udp.ulen = len(udp)
    return dpkt.ip.IP(
        src=b"\xc0\0\2\x11", dst=b"\xc0\0\2\1", p=dpkt.ip.IP_PROTO_UDP, data=udp, len=20 + len(udp)
    )


def udp6(payload: bytes) -> dpkt.ip6.IP6:
    udp = dpkt.udp.UDP(sport=40001, dport=4711, data=payload)
    udp.ulen = len(udp)
    return dpkt.ip6.IP6(
        src=bytes(15) + b"\1", dst=bytes(15) + b"\2", nxt=17, plen=len(udp), hlim=64, data=udp
    )


def ethernet(ip: dpkt.Packet) -> bytes:
    kind = dpkt.ethernet.ETH_TYPE_IP if isinstance(ip, dpkt.ip.IP) else dpkt.ethernet.ETH_TYPE_IP6
    return bytes(dpkt.ethernet.Ethernet(type=kind, data=ip))


def icmp_that_quotes(ip: dpkt.ip.IP) -> dpkt.ip.IP:
    unreachable = dpkt.icmp.ICMP(type=3, code=3, data=dpkt.icmp.ICMP.Unreach(data=ip))
    return dpkt.ip.IP(
        src=ip.dst, dst=ip.src, p=dpkt.ip.IP_PROTO_ICMP, data=unreachable, len=28 + len(ip)
    )


def pcap(*packets: bytes, link_type: int = dpkt.pcap.DLT_EN10MB) -> bytes:
    file = io.BytesIO()
    writer = dpkt.pcap.Writer(file, linktype=link_type)
    for number, packet in enumerate(packets):
        writer.writepkt(packet, ts=1_700_000_000 + number)
    return file.getvalue()


def pcapng(*packets: bytes) -> bytes:
    file = io.BytesIO()
    writer = dpkt.pcapng.Writer(file)
    for packet in packets:
        writer.writepkt(packet, ts=1_700_000_000)
    return file.getvalue()


FRAME = bytes.fromhex(PROBE["frame"])
Write = Callable[[bytes], str]


@pytest.fixture
def capture(tmp_path: Path) -> Write:
    def write(content: bytes) -> str:
        file = tmp_path / "capture"
        file.write_bytes(content)
        return str(file)

    return write


@pytest.mark.parametrize("writer", [pcap, pcapng])
def test_a_capture_shows_frames_and_counts_the_rest(
    writer: Callable[..., bytes], call: Call, capture: Write
) -> None:
    packets = [
        ethernet(udp4(FRAME)),
        ethernet(udp6(FRAME)),
        ethernet(udp4(bytes.fromhex(STUN))),
        ethernet(icmp_that_quotes(udp4(FRAME))),
        bytes(60),
    ]
    code, objects = decoded(call, capture(writer(*packets)), "--traffic-key", PROBE["traffic_key"])
    assert code == 0
    assert [entry["type"] for entry in objects] == ["frame", "frame", "summary"]
    assert (objects[0]["number"], objects[0]["from"]) == (1, "192.0.2.17:40001")
    assert objects[1]["to"] == "[::2]:4711"
    assert objects[0]["body"]["state"] == 1
    assert objects[-1] == {"type": "summary", "frames": 2, "invalid": 0, "others": 3}


def test_a_capture_is_readable_by_people(call: Call, capture: Write) -> None:
    code, out, _ = call("decode", capture(pcap(ethernet(udp4(FRAME)))))
    assert code == 0
    assert "192.0.2.17:40001 > 192.0.2.1:4711: PROBE, 64 bytes" in out.splitlines()[0]
    assert out.splitlines()[0].startswith("#1 ")


def test_an_invalid_frame_of_a_capture_counts(call: Call, capture: Write) -> None:
    flipped = FRAME[:-1] + bytes([FRAME[-1] ^ 1])
    name = capture(pcap(ethernet(udp4(flipped))))
    assert decoded(call, name, "--traffic-key", PROBE["traffic_key"])[0] == 1


@pytest.mark.parametrize(
    ("link_type", "packet"),
    [
        (101, bytes(udp4(FRAME))),
        (101, bytes(udp6(FRAME))),
        (0, struct.pack("=I", 2) + bytes(udp4(FRAME))),
        (113, bytes(dpkt.sll.SLL(ethtype=0x0800, data=udp4(FRAME)))),
        (276, bytes(dpkt.sll2.SLL2(ethtype=0x0800, data=udp4(FRAME)))),
    ],
    ids=["IPv4", "IPv6", "loopback", "cooked", "cooked 2"],
)
def test_other_link_types_are_read(
    link_type: int, packet: bytes, call: Call, capture: Write
) -> None:
    _, objects = decoded(call, capture(pcap(packet, link_type=link_type)))
    assert objects[-1]["frames"] == 1


def test_the_padding_of_a_short_packet_is_not_the_datagrams(call: Call, capture: Write) -> None:
    _, objects = decoded(call, capture(pcap(ethernet(udp4(FRAME)) + bytes(10))))
    assert objects[0]["length"] == 64


def test_an_unknown_link_type_is_a_mistake(call: Call, capture: Write) -> None:
    error = one_line_error(call("decode", capture(pcap(b"\0", link_type=147))))
    assert "got type 147" in error


@pytest.mark.parametrize("kept", [4, 20, 30])
def test_a_capture_that_is_cut_off_is_a_mistake(kept: int, call: Call, capture: Write) -> None:
    one_line_error(call("decode", capture(pcap(ethernet(udp4(FRAME)))[:kept])))


def test_a_capture_comes_through_a_pipe_too() -> None:
    code, out, _ = piped(pcap(ethernet(udp4(FRAME))), "-")
    assert code == 0
    assert "PROBE, 64 bytes" in out


def test_without_dpkt_a_capture_asks_for_it(
    call: Call, capture: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dpkt", None)
    error = one_line_error(call("decode", capture(pcap())))
    assert "pip install 'kaudp[cli]'" in error


# Noise.


def noisy(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randint(0, len(changed))] if rng.random() < 0.3 else changed)


def test_no_datagram_is_too_odd_to_be_taken_apart() -> None:
    rng = Random(1)
    keys = OpeningKeys(PresharedKey(bytes.fromhex(INIT["psk"])))
    frames = [bytes.fromhex(test["frame"]) for test in FRAMES if test["frame"]]
    frames += [bytes.fromhex(INIT["init"]), bytes.fromhex(INIT["response"])]
    for _ in range(3000):
        data = noisy(rng.choice(frames), rng)
        assert dissect(data, keys).size == len(data)


@pytest.mark.parametrize("writer", [pcap, pcapng])
def test_no_capture_is_too_odd_to_be_read(
    writer: Callable[..., bytes], call: Call, capture: Write
) -> None:
    rng = Random(2)
    whole = writer(ethernet(udp4(FRAME)), ethernet(udp6(FRAME)), ethernet(udp4(bytes(30))))
    for _ in range(300):
        code, _, err = call("decode", capture(whole[:4] + noisy(whole[4:], rng)))
        assert code in (0, 1, 2)
        assert err.count("\n") == (code == 2)


def test_a_key_that_lost_its_option_is_not_shown(tmp_path: Path, capsys: Any) -> None:
    """KA-5.2-1."""
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    for argument in (str(file), KEY):
        assert main(["decode", argument]) == 2
        assert KEY[:8] not in capsys.readouterr().err
