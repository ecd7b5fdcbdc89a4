"""Write the golden test vectors of kaudp/1 next to this file.

They follow from the text of spec/kaudp.md alone: bytes are packed by hand, handshakes are worked
out step by step and checked against `noiseprotocol`; what happens in a session is played here by
the rules alone. Nothing of the library is imported, so that a vector and the library agree only if
both agree with the text.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import random
import re
import struct
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from hmac import digest as hmac_digest
from itertools import accumulate
from pathlib import Path
from typing import Any

from clocks import CLOCKS, clock_tests
from common import MICROSECOND, MILLISECOND, SECOND, U16, U32, U64, Json, described
from control import CONTROL, control_tests
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from negotiation import NEGOTIATION, negotiation_tests
from noise.connection import Keypair, NoiseConnection
from paths import PATHS, path_tests

INIT, RESPONSE, COOKIE, PROBE, REPLY, CLOSE = 0x01, 0x02, 0x03, 0x08, 0x09, 0x0A
MAGIC, VERSION, SUITE = 0x0B, 0x81, 0x01
UP, SUSPECT, HALF_OPEN, DOWN, ADMIN_DOWN, CLOSED = range(1, 7)
TAG_BYTES = 16
TEXT = Path(__file__).parents[1] / "kaudp.md"
NOT_CONSUMED = {"not_kaudp", "unknown_session", "unknown_key", "bad_tag"}

# The verdict depends on the session, here on `highest_sent`.
NEEDS_SESSION = "needs-session"
# The text refuses the frame but names no reason: `reason` is how this file's author reads it.


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the golden test vectors of kaudp/1.")
    parser.add_argument("--check", action="store_true", help="fail if a file on disk differs")
    check = parser.parse_args().check
    differing = []
    for path, text in vector_files():
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            differing.append(path.name)
    if differing:
        print("not what generate.py makes:", *differing, file=sys.stderr)
    return 1 if differing else 0


def vector_files() -> Iterator[tuple[Path, str]]:
    known = set(re.findall(r"^\[(KA-[0-9.]+-[0-9]+)\]", TEXT.read_text(encoding="utf-8"), re.M))
    for algorithm, draft, description, tests in (
        ("frames", 3, FRAMES, frame_tests()),
        ("handshake", 3, HANDSHAKE, handshake_tests()),
        ("cookies", 3, COOKIES, cookie_tests()),
        ("phases", 3, PHASES, phase_tests()),
        ("derivations", 3, DERIVATIONS, derivation_tests()),
        ("cadence", 3, CADENCE, cadence_tests()),
        ("negotiation", 3, NEGOTIATION, negotiation_tests()),
        ("control", 3, CONTROL, control_tests()),
        ("replay", 3, REPLAY, replay_tests()),
        ("rtt", 1, RTT, rtt_tests()),
        ("clocks", 3, CLOCKS, clock_tests()),
        ("paths", 3, PATHS, path_tests()),
        ("carried", 3, CARRIED, carried_tests()),
    ):
        content = {
            "algorithm": algorithm,
            "description": description,
            "specification": f"kaudp/1 draft {draft}",
            "generator": "spec/vectors/generate.py",
            "tests": list(tests),
        }
        ids = [test["id"] for test in content["tests"]]
        assert len(ids) == len(set(ids)), f"an id stands twice in {algorithm}"
        cited = {number for test in content["tests"] for number in test["requirements"]}
        assert cited <= known, f"{algorithm} cites what the text does not hold: {cited - known}"
        yield Path(__file__).with_name(f"{algorithm}.json"), json.dumps(content, indent=1) + "\n"


def verdict(reason: str | None) -> Json:
    return {
        "result": "invalid" if reason else "valid",
        "reason": reason,
        "consumed": reason not in NOT_CONSUMED,
    }


def fixed(label: str, length: int) -> bytes:
    """Make bytes that look random and are the same in each run."""
    return sha256(f"kaudp/1 vectors: {label}".encode()).digest()[:length]


def flip(data: bytes, offset: int, bit: int = 0x01) -> bytes:
    at = offset % len(data)
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


# ---- frames.json: transport frames (3.6, 3.7, 3.8, 4.4) ----

FRAMES = (
    "One datagram at a receiver that has a session with the id `session_id`. `traffic_key` is that "
    "of the phase which bit 0 of the frame's `flags` tells. The packet number was not received "
    "before and, unless `highest_sent` tells otherwise, the receiver has sent what "
    "`highest_received` names. `header` is decoded from any datagram of 20 bytes or more; `aad`, "
    "`nonce` and `plaintext` are given where the datagram is consumed, `body` and `options` where "
    "it is valid."
)
SESSION_ID = bytes.fromhex("5e5510a1b2c3d4e5")
TRAFFIC_KEY = bytes(range(0x40, 0x60))
HEADER_LAYOUT, HEADER_BYTES = ">BBBB8sQ", 20
HEADER_FIELDS = ("magic", "type", "version", "flags", "receiver_session_id", "packet_number")
BODY_LAYOUT = ">BBBBIIIII4s"
STEADY_BODY = {
    "state": UP,
    "diagnostic": 0,
    "control_version": 0,
    "control_ack": 0,
    "sent_time": 75_300_417,
    "echo_time": 74_021_990,
    "hold_time": 1_240_873,
    "highest_received": 6,
    "received_count": 5,
    "address_hash": "5fae9c01",
}
SMALLEST_BODY = dict.fromkeys(STEADY_BODY, 0) | {"state": UP, "address_hash": "00000000"}
GREATEST_BODY = {
    "state": CLOSED,
    "diagnostic": 255,
    "control_version": 255,
    "control_ack": 255,
    "sent_time": U32,
    "echo_time": U32,
    "hold_time": U32,
    "highest_received": U32,
    "received_count": U32,
    "address_hash": "ffffffff",
}
NOTHING_RECEIVED = dict.fromkeys(
    ("echo_time", "hold_time", "highest_received", "received_count"), 0
)


def frame_tests() -> Iterator[Json]:
    yield from plain_frames()
    yield from frames_with_options()
    yield from foreign_datagrams()
    yield from damaged_frames()
    yield from frames_with_illegal_header()
    yield from frames_with_illegal_body()
    yield from frames_with_illegal_options()


def plain_frames() -> Iterator[Json]:
    yield frame_test(
        "steady-probe", "3.6-1 4.4-1", "A PROBE in the steady state has 64 bytes.", Frame()
    )
    yield frame_test(
        "steady-reply", "3.6-1 4.4-1", "A REPLY in the steady state has 64 bytes.", Frame(REPLY)
    )
    yield frame_test("steady-close", "3.8-5 4.4-1", "A CLOSE holds its reason.", closing())
    yield frame_test(
        "other-traffic-key",
        "4.4-1",
        "The same PROBE under another traffic key.",
        Frame(key=fixed("other traffic key", 32)),
    )
    yield frame_test(
        "first-of-session",
        "3.6-1",
        "Packet number 1 of a side that has received nothing yet.",
        Frame(packet_number=1, body=NOTHING_RECEIVED),
    )
    yield frame_test(
        "fields-smallest",
        "3.6-1",
        "Every field has its smallest legal value.",
        Frame(packet_number=1, body=SMALLEST_BODY),
    )
    yield frame_test(
        "fields-greatest",
        "3.6-1",
        "Every field has its greatest legal value, packet number 2^32-1 included.",
        Frame(REPLY, packet_number=U32, body=GREATEST_BODY),
    )
    yield frame_test(
        "flags-01",
        "4.4-5",
        "A PROBE of an odd phase; bit 0 is part of the additional data.",
        Frame(flags=1),
    )
    yield frame_test(
        "flags-01-reply",
        "4.4-5",
        "A REPLY of an odd phase.",
        Frame(REPLY, flags=1, key=fixed("other traffic key", 32)),
    )
    for number in (2**16, 2**31, U32):
        yield frame_test(
            f"packet-number-{number}",
            "4.4-1",
            "The packet number enters the nonce and the additional data.",
            Frame(packet_number=number),
        )
    for state in range(UP, CLOSED + 1):
        yield frame_test(
            f"state-{state}", "3.7-1", "A state of 6.1.", Frame(REPLY, body={"state": state})
        )
    for diagnostic in (1, 2, 3):
        yield frame_test(
            f"diagnostic-{diagnostic}",
            "3.6-1",
            "Any diagnostic is legal.",
            Frame(body={"state": SUSPECT, "diagnostic": diagnostic}),
        )
    yield frame_test(
        "acknowledges-the-newest-sent",
        "3.7-2",
        "highest_received may name the newest packet number that the receiver has sent.",
        Frame(),
        flags=[NEEDS_SESSION],
        highest_sent=6,
    )


def frames_with_options() -> Iterator[Json]:
    eight = bytes(range(0xA0, 0xA8))
    greatest, smallest = parameters(**GREATEST_PARAMETERS), parameters(**SMALLEST_PARAMETERS)
    for name, requirements, comment, options in (
        ("pad-empty", "3.8-4", "The shortest PAD.", [pad(0)]),
        ("pad-255", "3.8-4", "The longest PAD.", [pad(255)]),
        ("pad-nonzero", "3.8-4", "What PAD holds is ignored.", [pad(3, b"\xee")]),
        ("pad-thrice", "3.8-3", "PAD may be repeated.", [pad(1), pad(0), pad(2)]),
        ("address-ipv4", "9.2-2", "7 bytes.", [address_seen("192.0.2.1", 40_000)]),
        ("address-ipv6", "9.2-2", "19 bytes.", [address_seen("2001:db8::17", 4433)]),
        ("address-zeros", "9.2-2", "The smallest address.", [address_seen("0.0.0.0", 0)]),
        ("address-ones", "9.2-2", "The greatest.", [address_seen("ffff" + ":ffff" * 7, U16)]),
        ("parameters", "3.8-3", "As in 3.3.", [parameters()]),
        ("parameters-greatest", "3.8-3", "The greatest legal values.", [greatest]),
        ("parameters-smallest", "3.8-3", "The smallest legal values.", [smallest]),
        ("parameters-features", "3.3-1", "Unknown bits do no harm.", [parameters(features=U16)]),
        ("pause", "3.8-3", "A pause of one minute.", [pause(60_000)]),
        ("pause-ends", "8.7-3", "A duration of zero ends the pause.", [pause(0)]),
        ("pause-longest", "8.7-2", "Legal, though honoured in part.", [pause(U32)]),
        ("slow-down", "3.8-3", "Half a second.", [slow_down(500_000)]),
        ("slow-down-most", "3.8-3", "The greatest value.", [slow_down(U32)]),
        ("path-challenge", "3.8-3", "8 bytes of data.", [path_challenge(eight)]),
        ("path-response", "3.8-3", "8 bytes of data.", [path_response(eight)]),
        ("slow-down-least", "8.9-1", "The smallest value.", [slow_down(0)]),
        ("path-challenge-zeros", "9.3-1", "Any data is legal.", [path_challenge(bytes(8))]),
        ("path-challenge-ones", "9.3-1", "Any data is legal.", [path_challenge(b"\xff" * 8)]),
        ("path-response-zeros", "9.3-2", "Any data is legal.", [path_response(bytes(8))]),
        ("path-response-ones", "9.3-2", "Any data is legal.", [path_response(b"\xff" * 8)]),
        ("next-key", "4.8-1", "The key of the handshake to come.", [next_key(NEXT_KEY_ID)]),
        ("next-key-zeros", "4.8-1", "Any key id is legal.", [next_key(bytes(16))]),
        ("next-key-ones", "4.8-1", "Any key id is legal.", [next_key(b"\xff" * 16)]),
        ("admin-up", "8.10-1", "No longer taken down.", [admin(0)]),
        ("admin-down", "8.10-1", "Taken down.", [admin(1)]),
        ("clock", "3.8-3", "Some day in 2025.", [clock(SOME_DAY)]),
        ("clock-zero", "3.8-3", "The beginning of 1970.", [clock(0)]),
        ("clock-greatest", "3.8-3", "The greatest value.", [clock(U64)]),
        ("every-control", "8.6-1", "All control state at once.", control_options()),
        (
            "every-control-backwards",
            "8.6-2",
            "Options may stand in any order.",
            control_options()[::-1],
        ),
        (
            "control-between-pads",
            "8.6-1 9.2-2",
            "Control state in a probe that makes room for ADDRESS_SEEN.",
            [pad(0), *control_options(), pad(18)],
        ),
        (
            "challenge-and-control",
            "8.6-1 9.3-1",
            "A probe may ask, tell and challenge at once.",
            [pad(18), pause(60_000), path_challenge(eight), admin(1)],
        ),
        (
            "challenge-and-response",
            "9.3-1 9.3-2",
            "Both sides validate at the same time.",
            [path_challenge(eight), path_response(eight[::-1])],
        ),
        ("16-options", "3.8-6", "As many as there may be.", [pad(0)] * 16),
        (
            "16-options-of-all-types",
            "3.8-6",
            "Known types once each, the rest unknown ones.",
            [pad(2), *known_options().values(), *[unknown(0x0B + n) for n in range(6)]],
        ),
        ("unknown-0b", "3.8-1", "The first free type is skipped.", [unknown(0x0B, b"new")]),
        ("unknown-7f", "3.8-1", "The last type to be skipped.", [unknown(0x7F)]),
        ("unknown-255", "3.8-1", "As long as can be.", [unknown(0x55, bytes(range(255)))]),
        ("unknown-twice", "3.8-3", "May be repeated.", [unknown(0x42, b"a"), unknown(0x42)]),
        ("unknown-first", "3.8-1", "The next one is read.", [unknown(0x42, b"abc"), pause(9)]),
        ("longest-frame", "3.1-3", "512 bytes.", [pad(255), pad(189)]),
    ):
        yield frame_test(f"option-{name}", requirements, comment, Frame(options=tuple(options)))
    yield frame_test(
        "option-in-reply",
        "9.2-2",
        "A REPLY tells the address to a probe that was padded for it.",
        Frame(REPLY, (address_seen("198.51.100.77", 61_000),)),
    )
    for name, options in (
        ("every-control", tuple(control_options())),
        ("address-and-control", (address_seen("2001:db8::17", 4433), *control_options())),
        ("response-and-address", (address_seen("192.0.2.1", 40_000), path_response(eight))),
        ("admin", (admin(1),)),
        ("next-key", (next_key(NEXT_KEY_ID),)),
    ):
        yield frame_test(
            f"option-in-reply-{name}",
            "8.6-1 9.3-2",
            "A REPLY holds what its request made room for.",
            Frame(REPLY, options),
        )
    for reason in (0, 1, 2, 3, 4, 0x8000, U16):
        yield frame_test(
            f"close-reason-{reason}", "3.8-5", "A reason that 6.4 lists.", closing(reason)
        )
    known = known_options() | {"address-seen": address_seen("2001:db8::17", 4433)}
    every_other = (pad(5), *known.values(), unknown(0x60, b"later"))
    yield frame_test(
        "close-with-every-option",
        "3.8-3 3.8-5",
        "CLOSE_REASON need not be the only option of a CLOSE.",
        Frame(CLOSE, (*every_other, close_reason(1)), body={"state": CLOSED}),
    )


def foreign_datagrams() -> Iterator[Json]:
    steady = Frame().datagram()
    stun = bytes.fromhex("000100002112a442") + fixed("stun transaction", 12)
    for name, comment, datagram in (
        ("empty", "No byte at all.", b""),
        ("one-byte", "The magic alone.", steady[:1]),
        ("stun-request", "A STUN binding request.", stun),
        ("rtp-of-64-bytes", "An RTP packet as long as a PROBE.", b"\x80" + steady[1:]),
        ("no-frame-of-64-bytes", "The magic, then anything.", b"\x0b" + fixed("noise", 32) * 2),
    ):
        yield frame_test(name, "2-3 2-6", comment, Frame(), "not_kaudp", datagram=datagram)
    for length in (3, 4, 12, 19, 20, 36, 47, 48, 63):
        yield frame_test(
            f"cut-to-{length}",
            "2-6 3.6-1",
            "Shorter than any transport frame.",
            Frame(),
            "not_kaudp",
            datagram=steady[:length],
        )
    yield frame_test(
        "513-bytes",
        "3.1-3",
        "One byte longer than any frame, though its tag verifies.",
        Frame(options=(pad(255), pad(190))),
        "not_kaudp",
    )
    for name, requirements, changed in (
        ("magic-0a", "2-1", {"magic": 0x0A}),
        ("magic-04", "2-1", {"magic": 0x04}),
        ("type-00", "3.1-2", {"type": 0x00}),
        ("type-04", "3.1-2", {"type": 0x04}),
        ("type-07", "3.1-2", {"type": 0x07}),
        ("type-0b", "3.1-2", {"type": 0x0B}),
        ("type-ff", "3.1-2", {"type": 0xFF}),
        ("version-01", "2-2 3.1-1", {"version": 0x01}),
        ("version-80", "3.1-1", {"version": 0x80}),
        ("version-82", "3.1-1", {"version": 0x82}),
    ):
        yield frame_test(
            name,
            requirements,
            "No frame of this version, though its tag verifies.",
            Frame(**changed),
            "not_kaudp",
        )
    yield frame_test(
        "type-init-too-short",
        "2-6",
        "64 bytes are too few for an INIT.",
        Frame(type=INIT),
        "not_kaudp",
    )


def damaged_frames() -> Iterator[Json]:
    steady, longer = Frame(), Frame(options=(address_seen("192.0.2.1", 40_000),))
    for name, reason, offset, bit in (
        ("magic", "not_kaudp", 0, 0x01),
        ("type-to-none", "not_kaudp", 1, 0x04),
        ("type-to-reply", "bad_tag", 1, 0x01),
        ("version", "not_kaudp", 2, 0x80),
        ("flags", "bad_tag", 3, 0x01),
        ("session-id-first", "unknown_session", 4, 0x80),
        ("session-id-last", "unknown_session", 11, 0x01),
        ("packet-number-first", "bad_tag", 12, 0x80),
        ("packet-number-last", "bad_tag", 19, 0x10),
        ("ciphertext-first", "bad_tag", 20, 0x80),
        ("ciphertext-last", "bad_tag", -17, 0x01),
        ("tag-first", "bad_tag", -16, 0x80),
        ("tag-last", "bad_tag", -1, 0x01),
    ):
        yield frame_test(
            f"flipped-bit-in-{name}",
            "2-3 2-4 4.4-1",
            "One bit of a steady PROBE was flipped on the way.",
            steady,
            reason,
            datagram=flip(steady.datagram(), offset, bit),
        )
    for name, comment, datagram in (
        ("last-byte-lost", "A frame with an option lost its last byte.", longer.datagram()[:-1]),
        ("cut-to-64", "A longer frame cut to the shortest length.", longer.datagram()[:64]),
        ("byte-appended", "A byte was appended.", steady.datagram() + b"\0"),
        ("tag-zeroed", "The tag is all zeros.", steady.datagram()[:-16] + bytes(16)),
        ("unsealed", "Plaintext where ciphertext belongs.", steady.header() + bytes(44)),
    ):
        yield frame_test(name, "2-3 2-4", comment, longer, "bad_tag", datagram=datagram)
    yield frame_test(
        "sealed-under-another-key",
        "2-3",
        "A frame of the other direction, sent back.",
        steady,
        "bad_tag",
        datagram=replace(steady, key=fixed("other traffic key", 32)).datagram(),
    )
    yield frame_test(
        "of-another-session",
        "2-6",
        "No session of the receiver has this id.",
        steady,
        "unknown_session",
        datagram=replace(steady, session_id=fixed("other session", 8)).datagram(),
    )


def frames_with_illegal_header() -> Iterator[Json]:
    for flags in (0x02, 0x03, 0x40, 0x80, 0xFE, 0xFF):
        yield frame_test(
            f"flags-{flags:02x}",
            "2-5 3.6-3",
            "A reserved flag is set and the tag verifies.",
            Frame(flags=flags),
            "reserved_flag",
        )
    for number in (0, 2**32, 2**63, U64):
        yield frame_test(
            f"packet-number-{number}",
            "3.6-4",
            "The tag verifies under all 8 bytes, the number is out of range.",
            Frame(packet_number=number),
            "malformed",
        )


def frames_with_illegal_body() -> Iterator[Json]:
    for state in (0, 7, 255):
        yield frame_test(
            f"state-{state}", "3.7-1", "No state of 6.1.", Frame(body={"state": state}), "malformed"
        )
    for sent in (5, 0):
        yield frame_test(
            f"acknowledges-unsent-after-{sent}",
            "3.7-2",
            "highest_received names a packet number that the receiver has not sent.",
            Frame(),
            "ack_of_unsent",
            flags=[NEEDS_SESSION],
            highest_sent=sent,
        )


def frames_with_illegal_options() -> Iterator[Json]:
    yield from options_past_the_end()
    yield from options_of_illegal_value()
    for name, one in known_options().items():
        yield malformed_frame(f"{name}-twice", "A known option stands twice.", one, pad(0), one)
    for code in (0x80, 0xC5, 0xFF):
        yield frame_test(
            f"critical-option-{code:02x}",
            "3.8-2",
            "An option of unknown type that must not be skipped.",
            Frame(options=(unknown(code, b"must"),)),
            "unknown_critical_option",
        )
    yield frame_test(
        "critical-option-after-a-known-one",
        "3.8-2",
        "One option to refuse is enough.",
        Frame(options=(pause(60_000), unknown(0x80))),
        "unknown_critical_option",
    )
    for kind, name in ((PROBE, "probe"), (REPLY, "reply")):
        yield frame_test(
            f"{name}-with-close-reason",
            "3.8-5",
            "Only a CLOSE holds a CLOSE_REASON.",
            Frame(kind, (close_reason(0),)),
            "malformed",
        )
    yield frame_test(
        "close-without-reason",
        "3.8-5",
        "A CLOSE holds a CLOSE_REASON.",
        Frame(CLOSE, body={"state": CLOSED}),
        "malformed",
    )
    yield frame_test(
        "close-with-two-reasons",
        "3.8-3",
        "A known option stands twice.",
        Frame(CLOSE, (close_reason(0), close_reason(1)), body={"state": CLOSED}),
        "malformed",
    )


def options_past_the_end() -> Iterator[Json]:
    for name, tail in (
        ("type-alone", bytes([0x00])),
        ("pad-one-byte-short", bytes([0x00, 5]) + bytes(4)),
        ("pad-without-content", bytes([0x00, 1])),
        ("pause-one-byte-short", bytes([0x03, 4]) + bytes(3)),
        ("unknown-one-byte-short", bytes([0x42, 255]) + bytes(254)),
        ("after-a-whole-option", option_bytes(pause(1)) + bytes([0x00])),
    ):
        yield frame_test(
            f"option-past-the-end-{name}",
            "3.8-3",
            "The last option runs past the end of the body.",
            Frame(tail=tail),
            "malformed",
        )


def options_of_illegal_value() -> Iterator[Json]:
    for name, one in known_options().items():
        content = option_bytes(one)[2:]
        for change, wrong in (("short", content[:-1]), ("long", content + b"\0"), ("empty", b"")):
            yield malformed_frame(
                f"{name}-{change}",
                "The length of a known option is illegal.",
                tail=raw_option(one["type"], wrong),
            )
    for reason, name in ((b"\0", "short"), (b"\0\0\0", "long")):
        yield frame_test(
            f"close-reason-{name}",
            "3.8-3",
            "CLOSE_REASON has 2 bytes.",
            Frame(CLOSE, tail=raw_option(0x05, reason), body={"state": CLOSED}),
            "malformed",
        )
    for name, family, length in (
        ("family-0", 0, 4),
        ("family-5", 5, 4),
        ("family-4-with-16-bytes", 4, 16),
        ("family-6-with-4-bytes", 6, 4),
    ):
        content = struct.pack(">BH", family, 40_000) + bytes(range(1, length + 1))
        yield malformed_frame(
            f"address-{name}",
            "Family and length of an address do not agree.",
            tail=raw_option(0x01, content),
        )
    for name in ("desired_interval_us", "suspicion_burst"):
        yield malformed_frame(
            f"parameters-{name.replace('_', '-')}-0",
            "A value outside of the legal range of 3.3.",
            parameters(**{name: 0}),
        )
    for down in (2, 0x80, 255):
        yield malformed_frame(f"admin-{down}", "Neither 0 nor 1.", admin(down))
    yield frame_test(
        "option-17-pads", "3.8-6", "One too many.", Frame(options=(pad(0),) * 17), "malformed"
    )


def malformed_frame(name: str, comment: str, *options: Json, tail: bytes = b"") -> Json:
    frame = Frame(options=options, tail=tail)
    return frame_test(f"option-{name}", "2-5 3.8-3", comment, frame, "malformed")


def known_options() -> dict[str, Json]:
    """Give one of each known option that a PROBE may hold and that may not be repeated."""
    return {
        "address-seen": address_seen("192.0.2.1", 40_000),
        "parameters": parameters(),
        "pause": pause(1000),
        "slow-down": slow_down(500_000),
        "path-challenge": path_challenge(bytes(8)),
        "path-response": path_response(bytes(8)),
        "next-key": next_key(NEXT_KEY_ID),
        "admin": admin(1),
        "clock": clock(SOME_DAY),
    }


def control_options() -> list[Json]:
    """Give one of each option of 8.6."""
    return [parameters(), pause(60_000), slow_down(500_000), next_key(NEXT_KEY_ID), admin(1)]


def frame_test(
    test_id: str,
    requirements: str,
    comment: str,
    frame: Frame,
    reason: str | None = None,
    datagram: bytes | None = None,
    flags: Iterable[str] = (),
    **context: int,
) -> Json:
    """`datagram` stands where the frame was changed after it had been sealed."""
    session = {"session_id": SESSION_ID.hex(), **context}
    content = verdict(reason) | session | frame_content(frame, reason, datagram)
    return described(test_id, requirements, comment, flags, **content)


def frame_content(frame: Frame, reason: str | None = None, datagram: bytes | None = None) -> Json:
    datagram = frame.datagram() if datagram is None else datagram
    consumed = reason not in NOT_CONSUMED
    crypto = {"aad": frame.header(), "nonce": frame.nonce(), "plaintext": frame.plaintext()}
    return {
        "traffic_key": frame.key.hex(),
        "frame": datagram.hex(),
        "header": header_of(datagram),
        "body": None if reason else frame.fields(),
        "options": None if reason else list(frame.options),
        **{name: data.hex() if consumed else None for name, data in crypto.items()},
    }


def header_of(datagram: bytes) -> Json | None:
    if len(datagram) < HEADER_BYTES:
        return None
    header = dict(zip(HEADER_FIELDS, struct.unpack_from(HEADER_LAYOUT, datagram), strict=True))
    return header | {"receiver_session_id": header["receiver_session_id"].hex()}


def closing(reason: int = 0) -> Frame:
    return Frame(CLOSE, (close_reason(reason),), body={"state": CLOSED})


@dataclass(frozen=True)
class Frame:
    """A transport frame; `tail` is plaintext after the options that need not be well-formed."""

    type: int = PROBE
    options: tuple[Json, ...] = ()
    tail: bytes = b""
    body: Json = field(default_factory=dict)
    packet_number: int = 7
    magic: int = MAGIC
    version: int = VERSION
    flags: int = 0
    session_id: bytes = SESSION_ID
    key: bytes = TRAFFIC_KEY

    def fields(self) -> Json:
        return STEADY_BODY | self.body

    def header(self) -> bytes:
        first_four = (self.magic, self.type, self.version, self.flags)
        return struct.pack(HEADER_LAYOUT, *first_four, self.session_id, self.packet_number)

    def nonce(self) -> bytes:
        return bytes(4) + struct.pack(">Q", self.packet_number)

    def plaintext(self) -> bytes:
        *numbers, address_hash_hex = self.fields().values()
        body = struct.pack(BODY_LAYOUT, *numbers, bytes.fromhex(address_hash_hex))
        return body + b"".join(map(option_bytes, self.options)) + self.tail

    def datagram(self) -> bytes:
        sealed = AESGCM(self.key).encrypt(self.nonce(), self.plaintext(), self.header())
        return self.header() + sealed


# ---- options (3.8) and addresses (9.2) ----

PARAMETERS = {
    "desired_interval_us": 10_000_000,
    "min_receive_interval_us": 1_000_000,
    "suspicion_interval_us": 100_000,
    "suspicion_burst": 16,
    "features": 0,
}
GREATEST_PARAMETERS = dict.fromkeys(PARAMETERS, U32) | {"suspicion_burst": U16, "features": 1}
SMALLEST_PARAMETERS = dict.fromkeys(PARAMETERS, 0) | {
    "desired_interval_us": 1,
    "suspicion_burst": 1,
}
PARAMETERS_LAYOUT = ">IIIHH"
VALUE_LAYOUTS = {
    0x02: PARAMETERS_LAYOUT,
    0x03: ">I",
    0x04: ">I",
    0x05: ">H",
    0x09: ">B",
    0x0A: ">Q",
}
NEXT_KEY_ID = fixed("next key id", 16)
SOME_DAY = 1_760_000_000_000_000  # µs since 1970


def pad(length: int, byte: bytes = b"\0") -> Json:
    return {"type": 0x00, "name": "PAD", "value": (byte * length).hex()}


def address_seen(ip: str, port: int) -> Json:
    family, address = family_and_bytes(ip)
    value = {"family": family, "port": port, "address": address.hex()}
    return {"type": 0x01, "name": "ADDRESS_SEEN", "value": value}


def parameters(**changed: int) -> Json:
    return {"type": 0x02, "name": "PARAMETERS", "value": PARAMETERS | changed}


def pause(duration_ms: int) -> Json:
    return {"type": 0x03, "name": "PAUSE", "value": {"duration_ms": duration_ms}}


def slow_down(interval_us: int) -> Json:
    value = {"min_receive_interval_us": interval_us}
    return {"type": 0x04, "name": "SLOW_DOWN", "value": value}


def close_reason(reason: int) -> Json:
    return {"type": 0x05, "name": "CLOSE_REASON", "value": {"reason": reason}}


def path_challenge(data: bytes) -> Json:
    return {"type": 0x06, "name": "PATH_CHALLENGE", "value": {"data": data.hex()}}


def path_response(data: bytes) -> Json:
    return {"type": 0x07, "name": "PATH_RESPONSE", "value": {"data": data.hex()}}


def next_key(key_id: bytes) -> Json:
    return {"type": 0x08, "name": "NEXT_KEY", "value": {"key_id": key_id.hex()}}


def admin(down: int) -> Json:
    return {"type": 0x09, "name": "ADMIN", "value": {"down": down}}


def clock(utc_us: int) -> Json:
    return {"type": 0x0A, "name": "CLOCK", "value": {"utc_us": utc_us}}


def unknown(code: int, value: bytes = b"") -> Json:
    return {"type": code, "name": None, "value": value.hex()}


def option_bytes(option: Json) -> bytes:
    return raw_option(option["type"], option_content(option))


def option_content(option: Json) -> bytes:
    code, value = option["type"], option["value"]
    if isinstance(value, str):
        return bytes.fromhex(value)
    if code in VALUE_LAYOUTS:
        return struct.pack(VALUE_LAYOUTS[code], *value.values())
    if len(value) == 1:
        return bytes.fromhex(value.get("data") or value["key_id"])
    return struct.pack(">BH", value["family"], value["port"]) + bytes.fromhex(value["address"])


def raw_option(code: int, content: bytes) -> bytes:
    return bytes([code, len(content)]) + content


def address_hash(receiver_session_id: bytes, ip: str, port: int) -> bytes:
    return sha256(receiver_session_id + canonical_bytes(ip, port)).digest()[:4]


def canonical_bytes(ip: str, port: int) -> bytes:
    family, address = family_and_bytes(ip)
    return struct.pack(">BH", family, port) + address


def family_and_bytes(ip: str) -> tuple[int, bytes]:
    address = ipaddress.ip_address(ip)
    address = getattr(address, "ipv4_mapped", None) or address
    return address.version, address.packed


# ---- handshake.json: handshakes (3.2 to 3.4, 4.2 to 4.4) ----

HANDSHAKE = (
    "A handshake between `initiator` and `responder`, who holds `psk` as `key_id`. Where valid, "
    "both messages, all that is computed on the way (`trace`: h, ck and k after each step of 4.2 "
    "and 4.3) and the first PROBE and its REPLY. Where invalid, `refused` names the message that "
    "its receiver refuses: `init` came to the responder, or `response` to the initiator, who sent "
    "`init` and holds `psk`."
)
NOISE_NAME = b"Noise_NNpsk0_25519_AESGCM_SHA256"
NO_SESSION = bytes(8)
# Points of order 2, 4 and 8: with any private key, X25519 makes zeros of them.
LOW_ORDER = {
    "2": bytes(32),
    "4": bytes([1]) + bytes(31),
    "8": bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
}


def handshake_tests() -> Iterator[Json]:
    yield from whole_handshakes()
    yield from refused_inits()
    yield from refused_init_payloads()
    yield from refused_responses()
    yield from refused_response_payloads()


def whole_handshakes() -> Iterator[Json]:
    yield valid_handshake(
        "ipv4",
        "4.1-5 4.2-6 4.3-1 4.4-1",
        "Over IPv4, under the default key id of the PSK.",
        Handshake(),
    )
    yield valid_handshake(
        "ipv6",
        "4.3-1 4.4-1",
        "Over IPv6, under a key id of its own.",
        Handshake(
            initiator=replace(INITIATOR, ip="2001:db8:17::2", port=50_123),
            responder=replace(RESPONDER, ip="2001:db8::1"),
            psk=fixed("ipv6 psk", 32),
            key_id=b"client-0017\0\0\0\0\0",
        ),
    )
    yield valid_handshake(
        "ipv4-mapped",
        "4.3-1 9.2-4",
        "On a dual-stack socket, where IPv4 addresses look like IPv6.",
        Handshake(
            initiator=replace(INITIATOR, ip="::ffff:192.0.2.44"),
            responder=replace(RESPONDER, ip="::ffff:198.51.100.1"),
        ),
    )
    yield valid_handshake(
        "old-session",
        "4.3-5 8.5-1",
        "The INIT names a session to continue; both sides report application traffic.",
        Handshake(
            initiator=replace(INITIATOR, ephemeral=fixed("initiator ephemeral 2", 32)),
            responder=replace(RESPONDER, ephemeral=fixed("responder ephemeral 2", 32)),
            old_session_id=fixed("session to continue", 8),
            init_parameters={"features": 1},
            response_parameters={"features": 1},
        ),
    )
    yield valid_handshake(
        "longest-init",
        "3.1-3 3.8-4",
        "PAD makes the INIT 512 bytes long.",
        Handshake(init_options=(pad(255), pad(121))),
    )
    yield valid_handshake(
        "longest-response",
        "3.1-3 4.3-1",
        "A padded RESPONSE is as long as its INIT.",
        Handshake(
            init_options=(pad(255), pad(121)),
            response_options=(address_seen(INITIATOR.ip, INITIATOR.port), pad(255), pad(144)),
        ),
    )
    yield valid_handshake(
        "greatest-parameters",
        "3.3-1",
        "Every parameter has its greatest legal value.",
        Handshake(init_parameters=GREATEST_PARAMETERS, response_parameters=GREATEST_PARAMETERS),
    )
    yield valid_handshake(
        "smallest-parameters",
        "3.3-1",
        "Every parameter has its smallest legal value.",
        Handshake(init_parameters=SMALLEST_PARAMETERS, response_parameters=SMALLEST_PARAMETERS),
    )
    yield valid_handshake(
        "unknown-features-and-option",
        "3.3-1 3.8-1",
        "A receiver ignores feature bits and skips options that it does not know.",
        Handshake(
            init_parameters={"features": 0xFFFE},
            response_parameters={"features": 0x8000},
            init_options=(unknown(0x0B, b"later"),),
            response_options=(unknown(0x7F, b"later"), address_seen(INITIATOR.ip, INITIATOR.port)),
        ),
    )
    yield valid_handshake(
        "with-cookie",
        "4.5-1",
        "The cookie is part of the prologue and nothing to a responder that asked for none.",
        Handshake(cookie=fixed("cookie", 16)),
    )
    address = address_seen(INITIATOR.ip, INITIATOR.port)
    for name, comment, init_options, response_options in (
        ("clocks", "Both sides tell the time of day.", [clock(SOME_DAY)], [clock(SOME_DAY + 17)]),
        ("clock-of-initiator", "Only the initiator tells it.", [clock(SOME_DAY)], []),
        ("clock-of-responder", "Only the responder tells it.", [], [clock(SOME_DAY)]),
        ("clocks-extreme", "The least and the greatest time.", [clock(0)], [clock(U64)]),
        ("clocks-of-2038", "Around 2^31 s.", [clock(2**31 * 10**6 - 1)], [clock(2**31 * 10**6)]),
    ):
        # A responder's PAD keeps the order of 3.8 in sight, an initiator's makes room for it.
        yield valid_handshake(
            name,
            "4.3-1 10.3-2",
            comment,
            Handshake(
                init_options=(*init_options, pad(0)),
                response_options=(address, *response_options, pad(1)),
            ),
        )
    yield valid_handshake(
        "every-option",
        "3.8-3",
        "Any option but CLOSE_REASON may stand in a payload; one that means nothing is ignored.",
        Handshake(
            init_options=(pad(3), *known_options().values()),
            response_options=(address, *list(known_options().values())[1:]),
        ),
    )


def refused_inits() -> Iterator[Json]:
    plain = Handshake()
    init, padded = plain.init(), replace(plain, init_options=(pad(20),)).init()
    for name, requirements, comment, reason, datagram in (
        (
            "under-another-psk",
            "2-3 2-4",
            "The responder holds another PSK under this key id.",
            "bad_tag",
            replace(plain, psk=fixed("another psk", 32)).init(),
        ),
        (
            "of-unknown-key-id",
            "2-6 4.1-2",
            "The responder holds no PSK under this key id.",
            "unknown_key",
            replace(plain, key_id=fixed("unknown key id", 16)).init(),
        ),
        (
            "of-suite-2",
            "3.1-4",
            "Another suite, though the tag verifies.",
            "not_kaudp",
            replace(plain, suite=0x02).init(),
        ),
        ("cut-to-75", "2-6", "Within the ephemeral.", "not_kaudp", init[:75]),
        ("cut-to-131", "2-6", "Shorter than any INIT.", "not_kaudp", init[:131]),
        (
            "of-131-bytes",
            "2-6",
            "Its payload lacks a byte, though the tag verifies.",
            "not_kaudp",
            replace(plain, cut_payload=True).init(),
        ),
        ("cut-to-132", "2-3", "A longer INIT cut short.", "bad_tag", padded[:132]),
        ("last-byte-lost", "2-3", "A longer INIT lost a byte.", "bad_tag", padded[:-1]),
        (
            "of-513-bytes",
            "3.1-3",
            "Longer than any frame, though the tag verifies.",
            "not_kaudp",
            replace(plain, init_options=(pad(255), pad(122))).init(),
        ),
    ):
        yield refused(f"init-{name}", requirements, comment, reason, plain, init=datagram)
    for name, reason, offset, bit in (
        ("magic", "not_kaudp", 0, 0x01),
        ("type", "not_kaudp", 1, 0x04),
        ("type-to-cookie", "not_kaudp", 1, 0x02),
        ("version", "not_kaudp", 2, 0x01),
        ("suite", "not_kaudp", 3, 0x02),
        ("session-id", "bad_tag", 4, 0x01),
        ("key-id", "unknown_key", 27, 0x80),
        ("cookie", "bad_tag", 28, 0x01),
        ("ephemeral-first", "bad_tag", 44, 0x01),
        # X25519 ignores this bit, the handshake hash does not.
        ("ephemeral-ignored", "bad_tag", 75, 0x80),
        ("ciphertext-first", "bad_tag", 76, 0x01),
        ("ciphertext-last", "bad_tag", -17, 0x01),
        ("tag-first", "bad_tag", -16, 0x01),
        ("tag-last", "bad_tag", -1, 0x80),
    ):
        yield refused(
            f"init-flipped-bit-in-{name}",
            "2-3 2-4 4.2-4",
            "One bit of an INIT was flipped on the way.",
            reason,
            plain,
            init=flip(init, offset, bit),
        )


def refused_init_payloads() -> Iterator[Json]:
    yield refused(
        "init-reflected",
        "4.2-5",
        "The epoch is the responder's own: its INIT came back.",
        "own_epoch",
        Handshake(initiator=replace(INITIATOR, epoch=RESPONDER.epoch)),
    )
    for name, options, reason, requirements in (
        ("critical-option", [unknown(0x80, b"must")], "unknown_critical_option", "3.8-2"),
        ("close-reason", [close_reason(0)], "malformed", "3.8-5"),
        ("option-twice", [pause(1), pause(1)], "malformed", "3.8-3"),
        ("clock-twice", [clock(1), clock(1)], "malformed", "3.8-3"),
        ("admin-2", [admin(2)], "malformed", "3.8-3"),
        ("17-options", [pad(0)] * 17, "malformed", "3.8-6"),
    ):
        yield refused(
            f"init-with-{name}",
            requirements,
            "The rules of options hold in handshakes too.",
            reason,
            Handshake(init_options=tuple(options)),
        )
    for name, tail in (
        ("option-past-the-end", bytes([0x00, 1])),
        ("clock-short", raw_option(0x0A, bytes(7))),
        ("clock-long", raw_option(0x0A, bytes(9))),
    ):
        yield refused(
            f"init-with-{name}",
            "3.8-3",
            "The rules of options hold in handshakes too.",
            "malformed",
            Handshake(init_tail=tail),
        )
    for name in ("desired_interval_us", "suspicion_burst"):
        yield refused(
            f"init-with-{name.replace('_', '-')}-0",
            "3.1-7",
            "A parameter outside of its legal range.",
            "malformed",
            Handshake(init_parameters={name: 0}),
        )
    for order, point in LOW_ORDER.items():
        yield refused(
            f"init-with-ephemeral-of-order-{order}",
            "2-5 4.3-7",
            "The tag verifies, since it takes the PSK only, but X25519 yields zeros.",
            "malformed",
            Handshake(init_ephemeral=point),
        )


def refused_responses() -> Iterator[Json]:
    plain = Handshake()
    response = plain.response()
    for name, requirements, comment, reason, datagram in (
        (
            "under-another-psk",
            "2-3 4.3-6",
            "The responder computed with another PSK.",
            "bad_tag",
            replace(plain, psk=fixed("another psk", 32)).response(),
        ),
        (
            "to-another-init",
            "4.3-6",
            "It answers an INIT with another cookie.",
            "bad_tag",
            replace(plain, cookie=fixed("cookie", 16)).response(),
        ),
        (
            "of-unknown-session",
            "2-6",
            "The initiator waits for no RESPONSE with this session id.",
            "unknown_session",
            response[:4] + fixed("unknown session", 8) + response[12:],
        ),
        ("of-suite-2", "3.1-4", "Another suite.", "not_kaudp", flip(response, 3, 0x03)),
        ("cut-to-43", "2-6", "Within the ephemeral.", "not_kaudp", response[:43]),
        ("cut-to-99", "2-6", "Shorter than any RESPONSE.", "not_kaudp", response[:99]),
        ("cut-to-100", "2-3 4.3-6", "It lost its option.", "bad_tag", response[:100]),
        ("last-byte-lost", "2-3 4.3-6", "It lost a byte.", "bad_tag", response[:-1]),
        (
            "of-513-bytes",
            "3.1-3",
            "Longer than any frame, though the tag verifies.",
            "not_kaudp",
            replace(plain, response_options=(pad(255), pad(154))).response(),
        ),
    ):
        yield refused(f"response-{name}", requirements, comment, reason, plain, response=datagram)
    for name, reason, offset, bit in (
        ("magic", "not_kaudp", 0, 0x02),
        ("type", "not_kaudp", 1, 0x04),
        ("version", "not_kaudp", 2, 0x80),
        ("suite", "not_kaudp", 3, 0x80),
        ("session-id", "unknown_session", 11, 0x01),
        ("ephemeral-first", "bad_tag", 12, 0x01),
        # X25519 ignores this bit, the handshake hash does not.
        ("ephemeral-ignored", "bad_tag", 43, 0x80),
        ("ciphertext-first", "bad_tag", 44, 0x01),
        ("ciphertext-last", "bad_tag", -17, 0x01),
        ("tag-first", "bad_tag", -16, 0x01),
        ("tag-last", "bad_tag", -1, 0x80),
    ):
        yield refused(
            f"response-flipped-bit-in-{name}",
            "2-3 2-4 4.3-6",
            "One bit of a RESPONSE was flipped on the way.",
            reason,
            plain,
            response=flip(response, offset, bit),
        )
    for order, point in LOW_ORDER.items():
        yield refused(
            f"response-with-ephemeral-of-order-{order}",
            "4.3-7",
            "X25519 yields zeros; a receiver that took them would find that the tag verifies.",
            "bad_tag",
            plain,
            response=replace(plain, response_ephemeral=point).response(),
        )


def refused_response_payloads() -> Iterator[Json]:
    for name, requirements, reason, changed in (
        (
            "critical-option",
            "3.8-2",
            "unknown_critical_option",
            {"response_options": (unknown(0x80),)},
        ),
        ("close-reason", "3.8-5", "malformed", {"response_options": (close_reason(1),)}),
        ("clock-twice", "3.8-3", "malformed", {"response_options": (clock(1), clock(2))}),
        ("admin-2", "3.8-3", "malformed", {"response_options": (admin(2),)}),
        (
            "suspicion-burst-0",
            "3.1-7",
            "malformed",
            {"response_parameters": {"suspicion_burst": 0}},
        ),
    ):
        yield refused(
            f"response-with-{name}",
            requirements,
            "The tag verifies but the payload is not legal.",
            reason,
            Handshake(),
            response=Handshake(**changed).response(),
        )


def valid_handshake(test_id: str, requirements: str, comment: str, handshake: Handshake) -> Json:
    handshake.check_against_noiseprotocol()
    content = verdict(None) | handshake.context(None) | handshake.content()
    return described(test_id, requirements, comment, **content)


def refused(
    test_id: str,
    requirements: str,
    comment: str,
    reason: str,
    handshake: Handshake,
    init: bytes | None = None,
    response: bytes | None = None,
    flags: Iterable[str] = (),
) -> Json:
    """Refuse `response`, or else `init`, or else the handshake's own INIT."""
    messages = {
        "init": (handshake.init() if init is None else init).hex(),
        "response": None if response is None else response.hex(),
    }
    context = handshake.context("init" if response is None else "response")
    content = verdict(reason) | context | messages
    return described(test_id, requirements, comment, flags, **content)


@dataclass(frozen=True)
class Side:
    ip: str
    port: int
    session_id: bytes
    ephemeral: bytes
    instance_id: bytes
    epoch: bytes

    def public_key(self) -> bytes:
        return X25519PrivateKey.from_private_bytes(self.ephemeral).public_key().public_bytes_raw()

    def content(self) -> Json:
        return {
            "ip": self.ip,
            "port": self.port,
            "session_id": self.session_id.hex(),
            "ephemeral_private": self.ephemeral.hex(),
            "ephemeral_public": self.public_key().hex(),
            "instance_id": self.instance_id.hex(),
            "epoch": self.epoch.hex(),
        }


INITIATOR = Side(
    ip="192.0.2.17",
    port=40_001,
    session_id=bytes.fromhex("c11e270000000001"),
    ephemeral=fixed("initiator ephemeral", 32),
    instance_id=bytes.fromhex("1157a4ce00000001"),
    epoch=fixed("initiator epoch", 8),
)
RESPONDER = Side(
    ip="198.51.100.1",
    port=4711,
    session_id=bytes.fromhex("5e27e20000000002"),
    ephemeral=fixed("responder ephemeral", 32),
    instance_id=bytes.fromhex("1157a4ce00000002"),
    epoch=fixed("responder epoch", 8),
)
INITIATOR_6 = replace(INITIATOR, ip="2001:db8:17::2")
PSK = bytes(range(0x80, 0xA0))


def default_key_id(psk: bytes) -> bytes:
    return sha256(b"kaudp/1 key id" + psk).digest()[:16]


@dataclass(frozen=True)
class Handshake:
    """Who shakes hands, with what; the fields from `suite` on make handshakes to refuse."""

    initiator: Side = INITIATOR
    responder: Side = RESPONDER
    psk: bytes = PSK
    key_id: bytes = default_key_id(PSK)
    cookie: bytes = bytes(16)
    old_session_id: bytes = NO_SESSION
    init_parameters: Json = field(default_factory=dict)
    init_options: tuple[Json, ...] = ()
    response_parameters: Json = field(default_factory=dict)
    response_options: tuple[Json, ...] | None = None
    suite: int = SUITE
    init_tail: bytes = b""
    cut_payload: bool = False
    init_ephemeral: bytes | None = None
    response_ephemeral: bytes | None = None

    def init(self) -> bytes:
        return self.messages()[0]

    def response(self) -> bytes:
        return self.messages()[1]

    def messages(self) -> tuple[bytes, bytes, Noise]:
        init_ephemeral = self.init_ephemeral or self.initiator.public_key()
        response_ephemeral = self.response_ephemeral or self.responder.public_key()
        noise = Noise(self.prologue())
        noise.mix_psk(self.psk)
        noise.mix_ephemeral(init_ephemeral)
        init = self.prologue() + init_ephemeral + noise.seal(self.init_plaintext())
        noise.mix_ephemeral(response_ephemeral)
        noise.mix_shared_secret(self.shared_secret())
        sealed = noise.seal(self.response_plaintext())
        return init, self.response_head() + response_ephemeral + sealed, noise

    def prologue(self) -> bytes:
        first_four = bytes([MAGIC, INIT, VERSION, self.suite])
        return first_four + self.initiator.session_id + self.key_id + self.cookie

    def response_head(self) -> bytes:
        return bytes([MAGIC, RESPONSE, VERSION, SUITE]) + self.initiator.session_id

    def init_plaintext(self) -> bytes:
        plaintext = payload_bytes(self.init_payload()) + self.init_tail
        return plaintext[:-1] if self.cut_payload else plaintext

    def response_plaintext(self) -> bytes:
        return payload_bytes(self.response_payload())

    def init_payload(self) -> Json:
        return {
            "instance_id": self.initiator.instance_id.hex(),
            "epoch": self.initiator.epoch.hex(),
            "old_session_id": self.old_session_id.hex(),
            **(PARAMETERS | self.init_parameters),
            "options": list(self.init_options),
        }

    def response_payload(self) -> Json:
        options = self.response_options
        if options is None:
            options = (address_seen(self.initiator.ip, self.initiator.port),)
        return {
            "sender_session_id": self.responder.session_id.hex(),
            "instance_id": self.responder.instance_id.hex(),
            "epoch": self.responder.epoch.hex(),
            **(PARAMETERS | self.response_parameters),
            "options": list(options),
        }

    def shared_secret(self) -> bytes:
        if self.init_ephemeral or self.response_ephemeral:
            return bytes(32)  # what X25519 makes of a point of low order
        private = X25519PrivateKey.from_private_bytes(self.initiator.ephemeral)
        return private.exchange(X25519PublicKey.from_public_bytes(self.responder.public_key()))

    def context(self, refused_message: str | None) -> Json:
        return {
            "refused": refused_message,
            "psk": self.psk.hex(),
            "key_id": self.key_id.hex(),
            "initiator": self.initiator.content(),
            "responder": self.responder.content(),
        }

    def content(self) -> Json:
        init, response, noise = self.messages()
        s_i, s_r = noise.split()
        probe, reply = self.first_frames(s_i, s_r)
        return {
            "init_payload": self.init_payload(),
            "init_plaintext": self.init_plaintext().hex(),
            "response_payload": self.response_payload(),
            "response_plaintext": self.response_plaintext().hex(),
            "prologue": self.prologue().hex(),
            "init": init.hex(),
            "response": response.hex(),
            "shared_secret": self.shared_secret().hex(),
            "trace": noise.trace,
            "handshake_hash": noise.h.hex(),
            "s_i": s_i.hex(),
            "s_r": s_r.hex(),
            "key_i": traffic_key(s_i).hex(),
            "key_r": traffic_key(s_r).hex(),
            "next_s_i": next_secret(s_i).hex(),
            "next_s_r": next_secret(s_r).hex(),
            "probe": frame_content(probe),
            "reply": frame_content(reply),
        }

    def first_frames(self, s_i: bytes, s_r: bytes) -> tuple[Frame, Frame]:
        to_responder, to_initiator = self.responder.session_id, self.initiator.session_id
        hash_to_responder = address_hash(to_responder, self.responder.ip, self.responder.port)
        hash_to_initiator = address_hash(to_initiator, self.initiator.ip, self.initiator.port)
        probe_body = {"sent_time": 31_250, "address_hash": hash_to_responder.hex()}
        probe = Frame(
            PROBE,
            packet_number=1,
            session_id=to_responder,
            key=traffic_key(s_i),
            body=NOTHING_RECEIVED | probe_body,
        )
        reply_body = {
            "sent_time": 16_384,
            "echo_time": probe_body["sent_time"],
            "hold_time": 85,
            "highest_received": 1,
            "received_count": 1,
            "address_hash": hash_to_initiator.hex(),
        }
        reply = Frame(
            REPLY, packet_number=1, session_id=to_initiator, key=traffic_key(s_r), body=reply_body
        )
        return probe, reply

    def check_against_noiseprotocol(self) -> None:
        """Let an independent implementation of Noise do the same handshake, in both roles."""
        init, response, noise = self.messages()
        initiator = self.noise_connection(self.initiator)
        initiator.set_as_initiator()
        responder = self.noise_connection(self.responder)
        responder.set_as_responder()
        with warnings.catch_warnings(action="ignore"):  # it warns of fixed ephemeral keys
            initiator.start_handshake()
            responder.start_handshake()
        assert initiator.write_message(self.init_plaintext()) == init[44:]
        assert responder.read_message(init[44:]) == self.init_plaintext()
        assert responder.write_message(self.response_plaintext()) == response[12:]
        assert initiator.read_message(response[12:]) == self.response_plaintext()
        for side in (initiator, responder):
            assert side.get_handshake_hash() == noise.h
        sending, receiving = (
            (side.noise_protocol.cipher_state_encrypt.k, side.noise_protocol.cipher_state_decrypt.k)
            for side in (initiator, responder)
        )
        assert sending == receiving[::-1] == noise.split()

    def noise_connection(self, side: Side) -> NoiseConnection:
        connection = NoiseConnection.from_name(NOISE_NAME)
        connection.set_prologue(self.prologue())
        connection.set_psks(self.psk)
        connection.set_keypair_from_private_bytes(Keypair.EPHEMERAL, side.ephemeral)
        return connection


def payload_bytes(payload: Json) -> bytes:
    ids = b"".join(bytes.fromhex(v) for v in payload.values() if isinstance(v, str))
    numbers = struct.pack(PARAMETERS_LAYOUT, *(payload[name] for name in PARAMETERS))
    return ids + numbers + b"".join(map(option_bytes, payload["options"]))


class Noise:
    """Steps 1 to 9 of 4.2 and 4.3, done by hand; `trace` keeps what each of 1 to 8 leaves."""

    def __init__(self, prologue: bytes) -> None:
        self.trace: list[Json] = []
        self.h = self.ck = NOISE_NAME
        self.k: bytes | None = None
        self.keep()
        self.mix_hash(prologue)
        self.keep()

    def mix_psk(self, psk: bytes) -> None:
        self.ck, t, self.k = noise_hkdf(self.ck, psk, 3)
        self.mix_hash(t)
        self.keep()

    def mix_ephemeral(self, ephemeral: bytes) -> None:
        self.mix_hash(ephemeral)
        self.ck, self.k = noise_hkdf(self.ck, ephemeral, 2)
        self.keep()

    def mix_shared_secret(self, shared_secret: bytes) -> None:
        self.ck, self.k = noise_hkdf(self.ck, shared_secret, 2)
        self.keep()

    def seal(self, payload: bytes) -> bytes:
        sealed = AESGCM(self.k).encrypt(bytes(12), payload, self.h)
        self.mix_hash(sealed)
        self.keep()
        return sealed

    def split(self) -> tuple[bytes, ...]:
        return noise_hkdf(self.ck, b"", 2)

    def mix_hash(self, data: bytes) -> None:
        self.h = sha256(self.h + data).digest()

    def keep(self) -> None:
        values = {"h": self.h.hex(), "ck": self.ck.hex(), "k": self.k and self.k.hex()}
        self.trace.append({"step": len(self.trace) + 1, **values})


def noise_hkdf(ck: bytes, material: bytes, count: int) -> tuple[bytes, ...]:
    secret = hmac_digest(ck, material, "sha256")
    outputs = [b""]
    for number in range(1, count + 1):
        outputs.append(hmac_digest(secret, outputs[-1] + bytes([number]), "sha256"))
    return tuple(outputs[1:])


# ---- cookies.json: proof of the source address (3.5, 4.5) ----

COOKIES = (
    "asked: an INIT comes from `source` to a responder that has as many embryos as "
    "`cookie_threshold`, holds `psk` as `key_id` and honours cookies under each of `secrets`, the "
    "first of which is the present one; `answer` is response, cookie or null, and "
    "`cookie_frame` is the COOKIE made with `nonce`; `made_embryo` tells that this INIT made one "
    "of the embryos. received: a COOKIE comes to the initiator that sent `init` under `psk`; "
    "`under_way` tells whether that handshake still is; where the cookie is taken the next "
    "handshake holds `cookie` and begins at once or at the next retry. secrets: the secret of a "
    "responder, drawn anew for each number, at times in ns since its first use: `make` makes a "
    "cookie under the secret of that number, `check` tells whether one made under it is right."
)
FIRST_INIT = "The first INIT holds no cookie."


def cookie_tests() -> Iterator[Json]:
    yield from inits_without_the_right_cookie()
    yield from inits_with_the_right_cookie()
    yield from received_cookies()
    yield from refused_cookies()
    yield from cookie_secrets()


def inits_without_the_right_cookie() -> Iterator[Json]:
    right = Asked().right_cookie()
    elsewhere = replace(INITIATOR, ip="192.0.2.18")
    for name, requirements, comment, asked in (
        ("none", "4.5-1 4.5-2", FIRST_INIT, Asked()),
        ("none-ipv6", "4.5-1 4.5-2", FIRST_INIT, Asked(INITIATOR_6)),
        ("none-longest", "4.5-2", "An INIT of 512 bytes.", Asked(options=(pad(255), pad(121)))),
        ("first-bit", "4.5-2", "One bit differs.", Asked(cookie=flip(right, 0, 0x80))),
        ("last-bit", "4.5-2", "One bit differs.", Asked(cookie=flip(right, -1))),
        ("ones", "4.5-2", "Any 16 bytes.", Asked(cookie=b"\xff" * 16)),
        ("of-other-ip", "4.5-3", "Given to 192.0.2.17.", Asked(elsewhere, cookie=right)),
        (
            "of-other-port",
            "4.5-3",
            "Given to port 40001.",
            Asked(replace(INITIATOR, port=40_002), cookie=right),
        ),
        (
            "of-other-family",
            "4.5-3",
            "Given to the IPv4 address.",
            Asked(INITIATOR_6, cookie=right),
        ),
        (
            "of-other-key",
            "4.5-3",
            "Given under another key id.",
            Asked(key_id=b"client-0017\0\0\0\0\0", cookie=right),
        ),
        (
            "of-older-secret",
            "4.5-3",
            "Its secret is honoured no more.",
            Asked(cookie=Asked(secret=fixed("oldest cookie secret", 32)).right_cookie()),
        ),
    ):
        yield asked_test(f"asked-{name}", requirements, comment, asked, "cookie", "cookie_sent")
    for name, comment, reason, asked in (
        ("under-another-psk", "Nothing is sent.", "bad_tag", Asked(sender_psk=fixed("psk", 32))),
        (
            "under-another-psk-with-cookie",
            "A right cookie does not make up for a wrong tag.",
            "bad_tag",
            Asked(sender_psk=fixed("psk", 32), cookie=right),
        ),
    ):
        yield asked_test(f"asked-{name}", "2-4 4.5-2", comment, asked, None, reason)
    yield asked_test(
        "asked-made-embryo",
        "4.3-2 4.5-2",
        "It has made an embryo already: the same RESPONSE again.",
        Asked(),
        "response",
        made_embryo=True,
    )


def inits_with_the_right_cookie() -> Iterator[Json]:
    mapped = replace(INITIATOR, ip="::ffff:192.0.2.17")
    old = {"secrets": (fixed("cookie secret", 32), fixed("cookie secret before", 32))}
    for name, requirements, comment, asked, given_to in (
        ("ipv4", "4.5-2 4.5-3", "The cookie is right.", Asked(), Asked()),
        ("ipv6", "4.5-3", "The cookie is right.", Asked(INITIATOR_6), Asked(INITIATOR_6)),
        ("mapped", "4.5-3 9.2-4", "IPv4-mapped both times.", Asked(mapped), Asked(mapped)),
        (
            "mapped-as-ipv4",
            "4.5-3 9.2-4",
            "An IPv4-mapped address counts as IPv4.",
            Asked(),
            Asked(mapped),
        ),
        ("ipv4-as-mapped", "4.5-3 9.2-4", "And the other way round.", Asked(mapped), Asked()),
        (
            "previous-secret",
            "4.5-3",
            "Made under the secret before.",
            Asked(**old),
            Asked(secret=old["secrets"][1]),
        ),
        ("present-of-two-secrets", "4.5-3", "Made under the present one.", Asked(**old), Asked()),
        (
            "other-init-options",
            "4.5-3",
            "The cookie is bound to address and key id alone.",
            Asked(options=(pad(7),)),
            Asked(),
        ),
    ):
        asked = replace(asked, cookie=given_to.right_cookie())
        yield asked_test(f"asked-right-{name}", requirements, comment, asked, "response")


def received_cookies() -> Iterator[Json]:
    for name, requirements, comment, asked in (
        ("ipv4", "4.5-4 4.5-5", "The first cookie is used at once.", Asked()),
        ("ipv6", "4.5-4 4.5-5", "The first cookie is used at once.", Asked(INITIATOR_6)),
        ("other-nonce", "4.5-4", "Any nonce.", Asked(nonce=b"\xff" * 16)),
        ("nonce-zeros", "4.5-4", "Any nonce.", Asked(nonce=bytes(16))),
        ("longest-init", "4.5-4", "The INIT's last bytes count.", Asked(options=(pad(255),))),
        (
            "again",
            "4.5-5",
            "The INIT held a cookie already: the new one waits for the next retry.",
            Asked(cookie=fixed("cookie", 16)),
        ),
    ):
        yield received_test(f"received-{name}", requirements, comment, asked)
    yield received_test(
        "received-late",
        "4.3-8",
        "The handshake was completed or given up a moment ago.",
        Asked(),
        "unexpected",
        under_way=False,
    )


def refused_cookies() -> Iterator[Json]:
    frame = Asked().frame()
    other_session = replace(INITIATOR, session_id=fixed("other session", 8))
    for name, comment, reason, datagram in (
        ("of-suite-0", "Another suite.", "not_kaudp", frame[:3] + b"\0" + frame[4:]),
        ("of-suite-2", "Another suite.", "not_kaudp", frame[:3] + b"\2" + frame[4:]),
        ("of-version-2", "Another version.", "not_kaudp", flip(frame, 2, 0x03)),
        ("cut-to-27", "Within the nonce.", "not_kaudp", frame[:27]),
        ("cut-to-59", "One byte short.", "not_kaudp", frame[:-1]),
        ("of-61-bytes", "One byte too long.", "not_kaudp", frame + b"\0"),
        (
            "of-other-session",
            "It names another handshake.",
            "unknown_session",
            Asked(other_session).frame(),
        ),
        (
            "under-another-psk",
            "Sealed under another PSK.",
            "bad_tag",
            Asked(psk=fixed("cookie psk", 32)).frame(),
        ),
        (
            "to-another-init",
            "It answers an INIT with another tag.",
            "bad_tag",
            Asked(options=(pad(1),)).frame(),
        ),
        (
            "to-the-init-before",
            "It answers the INIT without the cookie.",
            "bad_tag",
            Asked(cookie=fixed("cookie", 16)).frame(),
        ),
        ("tag-zeroed", "The tag is all zeros.", "bad_tag", frame[:-16] + bytes(16)),
        (
            "unsealed",
            "The cookie in clear.",
            "bad_tag",
            frame[:28] + Asked().right_cookie() + bytes(16),
        ),
    ):
        yield received_test(f"received-{name}", "2-3 2-4 4.5-5", comment, Asked(), reason, datagram)
    for name, reason, offset, bit in (
        ("magic", "not_kaudp", 0, 0x01),
        ("type", "not_kaudp", 1, 0x04),
        ("session-id", "unknown_session", 11, 0x01),
        ("nonce-first", "bad_tag", 12, 0x80),
        ("nonce-last", "bad_tag", 27, 0x01),
        ("cookie-first", "bad_tag", 28, 0x01),
        ("cookie-last", "bad_tag", 43, 0x01),
        ("tag-first", "bad_tag", 44, 0x80),
        ("tag-last", "bad_tag", 59, 0x01),
    ):
        yield received_test(
            f"received-flipped-bit-in-{name}",
            "2-3 2-4 4.5-5",
            "One bit of a COOKIE was flipped on the way.",
            Asked(),
            reason,
            flip(frame, offset, bit),
        )


def cookie_secrets() -> Iterator[Json]:
    for name, comment, uses in (
        (
            "one",
            "One secret up to 120 s.",
            (("make", 0, 0), ("check", 60, 0, True), ("make", 120, 0), ("check", 120, 0, True)),
        ),
        (
            "two",
            "The second replaces the first, which is honoured for 120 s more.",
            (
                *(("make", 0, 0), ("make", 119, 0), ("make", 121, 1), ("check", 121, 0, True)),
                *(("check", 121, 1, True), ("check", 239, 0, True), ("check", 239, 1, True)),
                *(("check", 242, 0, False), ("check", 242, 1, True)),
            ),
        ),
        (
            "three",
            "Never are there more than two.",
            (
                *(("make", 0, 0), ("make", 121, 1), ("make", 242, 2), ("check", 243, 0, False)),
                *(("check", 243, 1, True), ("check", 243, 2, True)),
            ),
        ),
        (
            "unknown",
            "A cookie made before the present secrets is wrong.",
            (("make", 0, 0), ("make", 500, 1), ("make", 700, 2), ("check", 701, 0, False)),
        ),
    ):
        fields = ("use", "at", "secret", "right")
        listed = [dict(zip(fields, use, strict=False)) for use in uses]
        yield described(
            f"secrets-{name}",
            "4.5-3",
            comment,
            kind="secrets",
            uses=[use | {"at": use["at"] * SECOND} for use in listed],
        )


@dataclass(frozen=True)
class Asked:
    """An INIT with `cookie`, and the COOKIE that answers it under the secret, with the nonce."""

    source: Side = INITIATOR
    options: tuple[Json, ...] = ()
    cookie: bytes = bytes(16)
    psk: bytes = PSK
    key_id: bytes = default_key_id(PSK)
    sender_psk: bytes | None = None
    secret: bytes = fixed("cookie secret", 32)
    secrets: tuple[bytes, ...] = (fixed("cookie secret", 32),)
    nonce: bytes = fixed("cookie nonce", 16)

    def handshake(self) -> Handshake:
        return Handshake(
            initiator=self.source,
            psk=self.sender_psk or self.psk,
            key_id=self.key_id,
            cookie=self.cookie,
            init_options=self.options,
        )

    def right_cookie(self) -> bytes:
        proof = canonical_bytes(self.source.ip, self.source.port) + self.key_id
        return hmac_digest(self.secret, proof, "sha256")[:16]

    def cookie_key(self) -> bytes:
        salt = self.handshake().init()[-TAG_BYTES:] + self.nonce
        return HKDF(SHA256(), 32, salt=salt, info=b"kaudp/1 cookie").derive(self.psk)

    def head(self) -> bytes:
        return bytes([MAGIC, COOKIE, VERSION, SUITE]) + self.source.session_id + self.nonce

    def frame(self) -> bytes:
        sealed = AESGCM(self.cookie_key()).encrypt(bytes(12), self.right_cookie(), self.head())
        return self.head() + sealed


def asked_test(
    test_id: str,
    requirements: str,
    comment: str,
    asked: Asked,
    answer: str | None,
    reason: str | None = None,
    *,
    made_embryo: bool = False,
) -> Json:
    return described(
        test_id,
        requirements,
        comment,
        kind="asked",
        **verdict(reason),
        source={"ip": asked.source.ip, "port": asked.source.port},
        psk=asked.psk.hex(),
        key_id=asked.key_id.hex(),
        secrets=[secret.hex() for secret in asked.secrets],
        made_embryo=made_embryo,
        init=asked.handshake().init().hex(),
        answer=answer,
        nonce=asked.nonce.hex() if answer == "cookie" else None,
        cookie_frame=asked.frame().hex() if answer == "cookie" else None,
    )


def received_test(
    test_id: str,
    requirements: str,
    comment: str,
    asked: Asked,
    reason: str | None = None,
    datagram: bytes | None = None,
    *,
    under_way: bool = True,
) -> Json:
    held_one = any(asked.cookie)
    return described(
        test_id,
        requirements,
        comment,
        kind="received",
        **verdict(reason),
        psk=asked.psk.hex(),
        session_id=asked.source.session_id.hex(),
        ephemeral_private=asked.source.ephemeral.hex(),
        init=asked.handshake().init().hex(),
        under_way=under_way,
        frame=(asked.frame() if datagram is None else datagram).hex(),
        cookie=None if reason else asked.right_cookie().hex(),
        next_handshake=None if reason else ("at_retry" if held_one else "at_once"),
    )


# ---- phases.json: traffic keys that change (4.4) ----

PHASES = (
    "keys: secrets and traffic keys of phases 0 to 3, for each direction, from `s_i` and `s_r` of "
    "a handshake. frames: what comes to one side of a session, whose id is `session_id`, in the "
    "order of arrival, at times in ns since the handshake; a frame is sealed under `phase` with "
    "bit 0 of `flags` as it says; `begin`: the initiator begins the next phase; after each step "
    "the side opens the peer's newest frames under `receiving_phase` and seals its own under "
    "`sending_phase`. begin: whether an initiator begins the next phase (`begins`) when `phase`, "
    "in which it sends, has lasted `age` ns and sealed `sealed` frames, and a frame of the peer "
    "has come in under it or not (`heard`)."
)
LATE_PHASE = 30 * SECOND
NO_STATE = 7  # makes a body malformed


def phase_tests() -> Iterator[Json]:
    yield from phase_keys()
    yield from frames_to_responder()
    yield from frames_to_initiator()
    yield from phase_beginnings()


def phase_keys() -> Iterator[Json]:
    noise = Handshake().messages()[2]
    for name, secrets in (
        ("handshake", noise.split()),
        ("zeros", (bytes(32), bytes(32))),
        ("random", (fixed("secret", 32), fixed("other secret", 32))),
    ):
        sides = {}
        for side, secret in zip(("i", "r"), secrets, strict=True):
            chain = list(accumulate(range(3), lambda s, _: next_secret(s), initial=secret))
            sides[f"s_{side}"] = secret.hex()
            sides[f"secrets_{side}"] = [one.hex() for one in chain]
            sides[f"keys_{side}"] = [traffic_key(one).hex() for one in chain]
        yield described(
            f"keys-{name}", "4.4-4", "Each phase's secret makes the next.", kind="keys", **sides
        )


def frames_to_responder() -> Iterator[Json]:
    plain = [came(number, number // 10, number) for number in (1, 2, 10, 11, 20, 30, 31)]
    yield phase_test(
        "responder-in-order", "4.4-5 4.4-7 4.4-8", "Through phases 0 to 3.", "responder", plain
    )
    yield phase_test(
        "responder-first-frame-of-each",
        "4.4-7",
        "One frame is enough for a phase, whatever it is.",
        "responder",
        [came(1, 0), came(2, 1, 1), came(3, 2, 2, type=REPLY), came(4, 3, 3, type=CLOSE)],
    )
    yield phase_test(
        "responder-late-frames",
        "4.4-8",
        "Late frames of the phase before are opened; the phase does not go back.",
        "responder",
        [came(1, 0), came(5, 1, 1), came(2, 0, 2), came(4, 0, 30.999), came(6, 1, 31)],
    )
    yield phase_test(
        "responder-too-late",
        "4.4-8",
        "30 s after the newest phase came in, the one before is over.",
        "responder",
        [came(1, 0), came(5, 1, 1), came(4, 0, 31, reason="bad_tag"), came(6, 1, 31)],
    )
    yield phase_test(
        "responder-time-runs-from-the-first",
        "4.4-8",
        "The 30 s begin with the first frame of the newest phase, not with each.",
        "responder",
        [
            *(came(1, 0), came(5, 1, 1), came(8, 1, 20), came(3, 0, 30)),
            came(4, 0, 32, reason="bad_tag"),
        ],
    )
    yield phase_test(
        "responder-reordered-around-the-change",
        "4.4-8",
        "The newest phase is reordered too: its least number counts.",
        "responder",
        [
            *(came(1, 0), came(9, 1, 1), came(6, 1, 1.1), came(5, 0, 1.2)),
            *(came(7, 1, 1.3), came(3, 0, 1.4), came(8, 1, 1.5)),
        ],
    )
    yield phase_test(
        "responder-number-too-high-for-the-phase-before",
        "4.4-8",
        "A frame of the phase before, but its number is not below all those of the newest.",
        "responder",
        [
            *(came(1, 0), came(6, 1, 1), came(9, 1, 1.1), came(7, 0, 1.2, reason="bad_tag")),
            *(came(10, 0, 1.3, reason="bad_tag"), came(5, 0, 1.4)),
        ],
    )
    yield phase_test(
        "responder-replayed",
        "4.4-8 5.1-1",
        "Duplicates within both phases.",
        "responder",
        [
            *(came(1, 0), came(1, 0, 0.1, reason="replay"), came(5, 1, 1)),
            *(came(5, 1, 2, reason="replay"), came(1, 0, 3, reason="replay"), came(4, 0, 4)),
            came(4, 0, 5, reason="replay"),
        ],
    )
    yield phase_test(
        "responder-old-numbers",
        "4.4-8 5.1-1",
        "1024 below the highest is too old in the phase before as well.",
        "responder",
        [
            *(came(900, 0), came(2000, 1, 1), came(976, 0, 2, reason="replay")),
            came(977, 0, 3),
        ],
    )
    yield phase_test(
        "responder-two-phases-back",
        "4.4-8",
        "Only the phase before is kept: two back the bit says the newest phase.",
        "responder",
        [
            *(came(1, 0), came(10, 1, 1), came(20, 2, 2), came(2, 0, 3, reason="bad_tag")),
            *(came(11, 1, 4), came(21, 2, 5)),
        ],
    )
    yield phase_test(
        "responder-phase-skipped",
        "4.4-8",
        "No phase is skipped: two ahead the bit says the newest phase, three ahead the next.",
        "responder",
        [
            *(came(1, 0), came(2, 2, 1, reason="bad_tag"), came(3, 3, 2, reason="bad_tag")),
            *(came(4, 1, 3), came(5, 2, 4)),
        ],
    )
    yield phase_test(
        "responder-wrong-bit",
        "4.4-5 4.4-8",
        "A sender that sets the wrong bit is not heard.",
        "responder",
        [
            *(came(1, 0, flags=1, reason="bad_tag"), came(2, 0, 1)),
            *(came(3, 1, 2, flags=0, reason="bad_tag"), came(4, 1, 3)),
            *(came(5, 1, 4, flags=0, reason="bad_tag"), came(3, 0, 5, flags=1, reason="bad_tag")),
        ],
    )
    yield phase_test(
        "responder-reserved-flags",
        "3.6-3 4.4-8 5.1-2",
        "Refused, but its tag has verified: the next phase has come in, its number is taken.",
        "responder",
        [
            *(came(1, 0), came(2, 0, 1, flags=0x02, reason="reserved_flag")),
            *(came(2, 0, 1, reason="replay"), came(5, 1, 2, flags=0x03, reason="reserved_flag")),
            *(came(5, 1, 3, reason="replay"), came(4, 0, 4), came(6, 1, 5)),
            *(came(7, 1, 6, flags=0x80, reason="bad_tag"), came(7, 1, 7)),
        ],
    )
    yield phase_test(
        "responder-malformed",
        "3.1-7 4.4-7 4.4-8 5.1-2",
        "The first frame of a phase is malformed; its tag has verified all the same.",
        "responder",
        [
            *(came(1, 0), came(5, 1, 1, state=NO_STATE, reason="malformed")),
            *(came(4, 0, 2), came(6, 0, 3, reason="bad_tag"), came(6, 1, 4)),
            came(5, 1, 5, reason="replay"),
        ],
    )


def frames_to_initiator() -> Iterator[Json]:
    yield phase_test(
        "initiator-in-order",
        "4.4-6 4.4-8",
        "Each phase begins here; the responder follows.",
        "initiator",
        [
            *(came(1, 0), begun(40), came(2, 0, 40.1), came(3, 1, 40.2)),
            *(begun(80), came(4, 1, 80.1), came(5, 2, 80.2), begun(120), came(6, 3, 120.1)),
        ],
    )
    yield phase_test(
        "initiator-has-not-begun",
        "4.4-8",
        "A responder that goes ahead is not heard until the phase has begun here.",
        "initiator",
        [
            *(came(1, 0), came(2, 1, 1, reason="bad_tag"), came(3, 0, 2), begun(40)),
            *(came(4, 1, 41), came(5, 2, 42, reason="bad_tag"), came(5, 1, 43)),
        ],
    )
    yield phase_test(
        "initiator-late-frames",
        "4.4-8",
        "Late frames of the phase before, up to 30 s after the first of the newest one.",
        "initiator",
        [
            *(came(1, 0), begun(40), came(2, 0, 60), came(6, 1, 61), came(3, 0, 62)),
            *(came(4, 0, 90.999), came(5, 0, 91, reason="bad_tag"), came(7, 1, 92)),
        ],
    )
    yield phase_test(
        "initiator-waits-long",
        "4.4-8",
        "While nothing of the phase begun has come in, the one before stays the newest.",
        "initiator",
        [came(1, 0), begun(40), came(2, 0, 140), came(3, 0, 240), came(4, 1, 241), came(5, 1, 242)],
    )
    yield phase_test(
        "initiator-wrong-bit",
        "4.4-5 4.4-8",
        "The wrong bit, before and after the phase has begun.",
        "initiator",
        [
            *(came(1, 0), came(2, 0, 1, flags=1, reason="bad_tag"), begun(40)),
            *(came(3, 0, 41, flags=1, reason="bad_tag"), came(4, 1, 42, flags=0, reason="bad_tag")),
            *(came(5, 1, 43), came(4, 0, 44)),
        ],
    )
    yield phase_test(
        "initiator-reserved-flags",
        "3.6-3 4.4-8 5.1-2",
        "Refused, but the phase has come in.",
        "initiator",
        [
            *(came(1, 0), came(2, 0, 1, flags=0x40, reason="reserved_flag"), begun(40)),
            *(came(5, 1, 41, flags=0xFF, reason="reserved_flag"), came(4, 0, 42)),
            *(came(6, 0, 43, reason="bad_tag"), came(6, 1, 44)),
        ],
    )


def phase_beginnings() -> Iterator[Json]:
    interval, frames = 3600 * SECOND, 1000
    for name, comment, age, sealed, heard, begins in (
        ("young", "Neither time nor count.", SECOND, 1, True, False),
        ("interval-not-yet", "1 ns before the interval is over.", interval - 1, 5, True, False),
        ("interval", "The interval is over.", interval, 5, True, True),
        ("interval-unheard", "The peer was not heard in it.", interval, 5, False, False),
        ("count-not-yet", "One frame less.", 60 * SECOND, frames - 1, True, False),
        ("count", "Enough frames.", 60 * SECOND, frames, True, True),
        ("count-unheard", "The peer was not heard in it.", 60 * SECOND, frames, False, False),
        ("count-too-young", "It has not lasted 30 s.", LATE_PHASE - 1, 2 * frames, True, False),
        ("count-30-s", "It has lasted 30 s.", LATE_PHASE, frames, True, True),
        ("both", "Time and count.", 2 * interval, 2 * frames, True, True),
    ):
        for phase in (0, 1):
            yield described(
                f"begin-{name}-after-phase-{phase}",
                "4.4-6",
                comment,
                kind="begin",
                phase=phase,
                key_update_interval=interval,
                key_update_frames=frames,
                age=age,
                sealed=sealed,
                heard=heard,
                begins=begins,
            )


def begun(at: float) -> Json:
    return {"event": "begin", "at": round(at * 1000) * MILLISECOND}


def came(number: int, phase: int, at: float = 0, reason: str | None = None, **changed: int) -> Json:
    """Let a frame arrive `at` s; `reason` is what this file's author expects of it."""
    step = {"event": "frame", "at": round(at * 1000) * MILLISECOND, "packet_number": number}
    return step | {"phase": phase, "reason": reason, "changed": changed}


def phase_test(
    name: str, requirements: str, comment: str, role: str, steps: Iterable[Json]
) -> Json:
    receiver = PhaseReceiver(role)
    return described(
        name,
        requirements,
        comment,
        kind="frames",
        role=role,
        session_id=SESSION_ID.hex(),
        receiving_secret=receiver.secret.hex(),
        sending_secret=fixed("sending secret", 32).hex(),
        steps=[
            receiver.begin(step) if step["event"] == "begin" else receiver.receive(step)
            for step in steps
        ],
    )


class PhaseReceiver:
    """KA-4.4-6 to 8 with the tags really verified, to agree with what each step expects."""

    def __init__(self, role: str) -> None:
        self.secret = fixed("receiving secret", 32)
        self.initiates = role == "initiator"
        self.receiving = self.sending = 0
        self.came_in = 0
        self.numbers_of_newest: set[int] = set()
        self.seen: set[int] = set()

    def begin(self, step: Json) -> Json:
        assert self.initiates
        assert self.receiving == self.sending
        self.sending += 1
        return step | self.phases()

    def receive(self, step: Json) -> Json:
        frame = self.sealed(step, **step["changed"])
        reason = self.judge(frame, step["at"])
        assert reason == step["reason"], step
        return {
            **{name: step[name] for name in ("event", "at", "packet_number", "phase")},
            "flags": frame.flags,
            "frame": frame.datagram().hex(),
            **verdict(reason),
            **self.phases(),
        }

    def sealed(
        self, step: Json, type: int | None = None, flags: int | None = None, state: int = UP
    ) -> Frame:
        kind = type or (REPLY if self.initiates else PROBE)
        return Frame(
            kind,
            (close_reason(0),) if kind == CLOSE else (),
            packet_number=step["packet_number"],
            flags=step["phase"] % 2 if flags is None else flags,
            key=self.key(step["phase"]),
            body=NOTHING_RECEIVED | {"state": state},
        )

    def judge(self, frame: Frame, now: int) -> str | None:
        number = frame.packet_number
        phase = self.phase_to_open(frame.flags, number, now)
        if phase is None or frame.key != self.key(phase):
            return "bad_tag"
        if phase > self.receiving:
            self.receiving, self.came_in, self.numbers_of_newest = phase, now, set()
            if not self.initiates:
                self.sending = phase
        if phase == self.receiving:
            self.numbers_of_newest.add(number)
        if number in self.seen or number <= max(self.seen, default=0) - REPLAY_WINDOW:
            return "replay"
        self.seen.add(number)
        if frame.flags & ~1:
            return "reserved_flag"
        return None if UP <= frame.fields()["state"] <= CLOSED else "malformed"

    def phase_to_open(self, flags: int, number: int, now: int) -> int | None:
        if flags % 2 == self.receiving % 2:
            return self.receiving
        late = now - self.came_in < LATE_PHASE and number < min(self.numbers_of_newest, default=0)
        if self.receiving and late:
            return self.receiving - 1
        may_go_on = not self.initiates or self.sending > self.receiving
        return self.receiving + 1 if may_go_on else None

    def key(self, phase: int) -> bytes:
        secret = self.secret
        for _ in range(phase):
            secret = next_secret(secret)
        return traffic_key(secret)

    def phases(self) -> Json:
        return {"receiving_phase": self.receiving, "sending_phase": self.sending}


# ---- derivations.json: what is computed from keys and addresses ----

DERIVATIONS = (
    "`expected` is what `function` makes of `input`. cookie: the source address enters as its "
    "canonical bytes (9.2), and `frame` is the COOKIE that answers `init`."
)


def derivation_tests() -> Iterator[Json]:
    for name, psk in (("zeros", bytes(32)), ("ones", b"\xff" * 32), ("random", fixed("psk", 32))):
        yield derivation(
            "default_key_id",
            name,
            "4.1-5",
            "The default key id of a PSK.",
            {"psk": psk},
            {"key_id": default_key_id(psk)},
        )
    for name, key_id in (("zeros", bytes(16)), ("text", b"client-0017\0\0\0\0\0")):
        for master in (bytes(32), fixed("master secret", 32)):
            yield derivation(
                "client_psk",
                f"{name}-{master[:2].hex()}",
                "4.1-6",
                "The PSK of one client, from a server's master secret.",
                {"master_secret": master, "key_id": key_id},
                {"psk": client_psk(master, key_id)},
            )
    for name, secret in (("zeros", bytes(32)), ("random", fixed("secret", 32))):
        yield derivation(
            "traffic_key",
            name,
            "4.4-1",
            "Traffic key of a direction's secret, and the secret of the next phase.",
            {"secret": secret},
            {"key": traffic_key(secret), "next_secret": next_secret(secret)},
        )
    for name, ip, port in ADDRESSES:
        yield derivation(
            "address_hash",
            name,
            "9.2-4",
            "Hash of an address under the session id of the side that has it.",
            {"receiver_session_id": SESSION_ID, "ip": ip, "port": port},
            {
                "canonical": canonical_bytes(ip, port),
                "address_hash": address_hash(SESSION_ID, ip, port),
            },
        )
    yield derivation(
        "address_hash",
        "other-session",
        "9.2-4",
        "The same address has another hash under another session id.",
        {"receiver_session_id": NO_SESSION, "ip": "192.0.2.1", "port": 4711},
        {
            "canonical": canonical_bytes("192.0.2.1", 4711),
            "address_hash": address_hash(NO_SESSION, "192.0.2.1", 4711),
        },
    )
    for name, ip, port in ADDRESSES:
        yield cookie_derivation(name, Asked(replace(INITIATOR, ip=ip, port=port)))
    for name, asked in (
        ("other-port", Asked(replace(INITIATOR, port=INITIATOR.port + 1))),
        ("other-secret", Asked(secret=fixed("next cookie secret", 32))),
        ("other-nonce", Asked(nonce=fixed("other cookie nonce", 16))),
        ("other-key-id", Asked(key_id=b"client-0017\0\0\0\0\0")),
        ("other-psk", Asked(psk=fixed("cookie psk", 32))),
        ("init-with-cookie", Asked(cookie=fixed("cookie", 16))),
    ):
        yield cookie_derivation(name, asked)


ADDRESSES = (
    ("ipv4", "192.0.2.1", 4711),
    ("ipv6", "2001:db8::1", 4711),
    ("ipv4-mapped", "::ffff:192.0.2.1", 4711),
    ("ipv4-smallest", "0.0.0.0", 0),
    ("ipv4-greatest", "255.255.255.255", U16),
    ("ipv6-smallest", "::", 0),
    ("ipv6-greatest", "ffff" + ":ffff" * 7, U16),
)


def cookie_derivation(name: str, asked: Asked) -> Json:
    handshake = asked.handshake()
    return derivation(
        "cookie",
        name,
        "4.5-3 4.5-4",
        "A cookie and the frame that carries it.",
        {
            "secret": asked.secret,
            "ip": asked.source.ip,
            "port": asked.source.port,
            "psk": asked.psk,
            "key_id": asked.key_id,
            "init": handshake.init(),
            "nonce": asked.nonce,
        },
        {
            "cookie": asked.right_cookie(),
            "cookie_key": asked.cookie_key(),
            "aad": asked.head(),
            "frame": asked.frame(),
        },
    )


def derivation(
    function: str, case: str, requirements: str, comment: str, given: Json, expected: Json
) -> Json:
    test_id = f"{function.replace('_', '-')}-{case}"
    content = {"function": function, "input": in_hex(given), "expected": in_hex(expected)}
    return described(test_id, requirements, comment, **content)


def in_hex(values: Json) -> Json:
    return {name: v.hex() if isinstance(v, bytes) else v for name, v in values.items()}


def client_psk(master_secret: bytes, key_id: bytes) -> bytes:
    info = b"kaudp/1 client key" + key_id
    return HKDF(SHA256(), 32, salt=b"", info=info).derive(master_secret)


def traffic_key(secret: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, b"kaudp/1 key").derive(secret)


def next_secret(secret: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, b"kaudp/1 next").derive(secret)


# ---- cadence.json: J and F (8.2), and the schedules made of them ----

CADENCE = (
    "`expected` holds, in ns, what `function` yields for each of `r` in turn; where `seed` is "
    "given, r is random.Random(seed).getrandbits(32). J: J(interval, multiplier, r). F: "
    "F(interval, r). plan: planned times of an initiator's probes from RESPONSE on (8.2); the "
    "first probe needs no r, so `expected` is one longer. retry: spacings of the retries of INIT "
    "(4.2). down: spacings of the probes after the verdict (7.6), the first following the last "
    "one before it. admin_down: spacings of an initiator's probes in ADMIN_DOWN (8.10)."
)
HAND_CHOSEN_R = (0, 1, 0x1234_5678, 2**31, 0x9E37_79B9, 0xC0FF_EE11, 0xFFFF_0000, U32)
INTERVALS = (
    1 * MICROSECOND,
    7 * MICROSECOND,
    1 * MILLISECOND,
    33_333 * MICROSECOND,
    50 * MILLISECOND,
    300 * MILLISECOND,
    500 * MILLISECOND,
    1 * SECOND,
    1_234_567 * MICROSECOND,
    10 * SECOND,
    15 * SECOND,
    25 * SECOND,
    30 * SECOND,
    60 * SECOND,
    600 * SECOND,
    1800 * SECOND,
    U32 * MICROSECOND,
    8 * U32 * MICROSECOND,
)
# None is on the wire, where times are microseconds, but the divisions show best here.
TINY_INTERVALS = (1, 2, 3, 4, 5, 7, 999)
RETRY_INITIAL, RETRY_MAX, DOWN_BACKOFF_MAX = 500 * MILLISECOND, 30 * SECOND, 8


def cadence_tests() -> Iterator[Json]:
    for interval in (*TINY_INTERVALS, *INTERVALS):
        yield cadence_test("J", interval, 2, HAND_CHOSEN_R)
        yield cadence_test("F", interval, None, HAND_CHOSEN_R)
    for interval in INTERVALS:
        yield cadence_test("J", interval, 1, HAND_CHOSEN_R)
    for multiplier in (3, 5, 255):
        yield cadence_test("J", 10 * SECOND, multiplier, HAND_CHOSEN_R)
    for seed, interval in enumerate((50 * MILLISECOND, SECOND, 10 * SECOND, 25 * SECOND), start=1):
        r = drawn(seed, 24)
        for multiplier in (1, 3):
            yield cadence_test("J", interval, multiplier, r, seed)
            yield cadence_test("plan", interval, multiplier, r, seed)
            yield cadence_test("down", interval, multiplier, r[:8], seed)
            yield cadence_test("admin_down", interval, multiplier, r[:8], seed)
        yield cadence_test("F", interval, None, r, seed)
        yield cadence_test("retry", RETRY_INITIAL, 2, r[:12], seed)
    for r in (0, U32):
        yield cadence_test("retry", RETRY_INITIAL, 2, [r] * 9)
        yield cadence_test("down", 10 * SECOND, 3, [r] * 5)
        for multiplier in (1, 2):
            for interval in (10 * MILLISECOND, 33_333 * MICROSECOND, 1800 * SECOND):
                yield cadence_test("admin_down", interval, multiplier, [r] * 2)


def drawn(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.getrandbits(32) for _ in range(count)]


def cadence_test(
    function: str, interval: int, multiplier: int | None, r: Iterable[int], seed: int | None = None
) -> Json:
    requirements, comment, compute = {
        "J": ("8.2-4", "Jitter shortens the interval.", jitters),
        "F": ("8.2-2", "A fleet that starts together spreads over the interval.", first_offsets),
        "plan": ("8.2-1 8.2-2", "At once, then F, then J.", planned_times),
        "retry": ("4.2-2", "Doubled at each retry, up to 30 s.", retry_spacings),
        "down": ("7.6-1", "Doubled at each probe, up to 8 intervals.", down_spacings),
        "admin_down": ("8.10-3 8.2-4", "Every 8 intervals.", admin_down_spacings),
    }[function]
    r = list(r)
    name = [
        function.lower().replace("_", "-"),
        str(interval),
        f"m{multiplier}",
        f"seed{seed}",
        f"r{r[0]}",
    ]
    wanted = [True, True, multiplier is not None, seed is not None, len(set(r)) == 1]
    return described(
        "-".join(part for part, want in zip(name, wanted, strict=True) if want),
        requirements,
        comment,
        function=function,
        interval=interval,
        multiplier=multiplier,
        seed=seed,
        r=r,
        expected=compute(interval, multiplier, r),
    )


def jitter(interval: int, multiplier: int, r: int) -> int:
    if multiplier == 1:
        return (9 * interval) // 10 - (((3 * interval) // 20) * r) // 2**32
    return interval - ((interval // 4) * r) // 2**32


def first_offset(interval: int, r: int) -> int:
    return 1 + (interval * r) // 2**32


def jitters(interval: int, multiplier: int, r: list[int]) -> list[int]:
    return [jitter(interval, multiplier, one) for one in r]


def first_offsets(interval: int, _multiplier: None, r: list[int]) -> list[int]:
    return [first_offset(interval, one) for one in r]


def planned_times(interval: int, multiplier: int, r: list[int]) -> list[int]:
    spacings = [first_offset(interval, r[0]), *jitters(interval, multiplier, r[1:])]
    return list(accumulate(spacings, initial=0))


def retry_spacings(initial: int, multiplier: int, r: list[int]) -> list[int]:
    return [jitter(min(initial * 2**n, RETRY_MAX), multiplier, one) for n, one in enumerate(r)]


def down_spacings(interval: int, multiplier: int, r: list[int]) -> list[int]:
    return [
        jitter(min(2**n, DOWN_BACKOFF_MAX) * interval, multiplier, one) for n, one in enumerate(r)
    ]


def admin_down_spacings(interval: int, multiplier: int, r: list[int]) -> list[int]:
    return [jitter(8 * interval, multiplier, one) for one in r]


# ---- replay.json: the replay window (5.1) ----

REPLAY = (
    "Transport frames of one direction, in the order of arrival, all with a tag that verifies. "
    "Each is [packet number, accepted]; a frame that is not accepted is dropped as `replay`. In "
    "the end `highest` is the highest packet number received, `received_count` how many different "
    "ones were. Numbers beyond the legal range of 3.6 show the window's arithmetic."
)
REPLAY_WINDOW = 1024


def replay_tests() -> Iterator[Json]:
    window = range(5000 - REPLAY_WINDOW, 5002)
    for name, comment, numbers in (
        ("in-order", "Nothing is lost.", range(1, 41)),
        ("twice-each", "Each frame arrives twice.", [n for n in range(1, 21) for _ in (1, 2)]),
        ("sequence-twice", "The whole sequence arrives twice.", [*range(1, 21), *range(1, 21)]),
        ("backwards", "The newest arrives first.", [*range(40, 0, -1), *range(40, 0, -1)]),
        ("gaps-filled", "Odd ones first, then all.", [*range(1, 60, 2), *range(1, 61)]),
        ("first-is-high", "The first sets the window.", [5000, 5000, *window, 5001]),
        ("edge-from-start", "1 leaves the window with 1025.", [1, 1024, 1, 1025, 1, 2, 2, 1026, 2]),
        ("edge-unseen", "An unseen number leaves with 1025.", [1024, 1025, 1, 2, 2]),
        ("edge-exact", "1023 below is in, 1024 is out.", [3000, 1977, 1976, 1977, 1975, 1978]),
        ("jump-1023", "The old highest stays inside.", [10, 10 + 1023, 10, 9, 11, 11]),
        ("jump-1024", "The old highest just leaves.", [10, 10 + 1024, 10, 11, 11]),
        ("jump-1025", "The old highest is left behind.", [10, 10 + 1025, 10, 11, 12, 12]),
        ("jump-2047", "Nearly two windows.", [*range(1, 5), 4 + 2047, 4, 1027, 1028, 2050]),
        ("jump-2048", "Two windows.", [*range(1, 5), 4 + 2048, 1028, 1029, 1029, 2051, 2051]),
        (
            "jump-clears",
            "What was seen at the same places of the window before the jump is forgotten.",
            [*range(1, 1025), 5 * 1024, *range(4 * 1024 - 2, 4 * 1024 + 6), 5 * 1024 - 1],
        ),
        (
            "jump-inside-clears",
            "Places that a jump passes over are free, the others are not.",
            [*range(1, 1025), 1524, 1523, 1025, 501, 1024, 500, 1523, 1524],
        ),
        ("words", "Around 32 and 64 below.", [100, 68, 69, 67, 36, 37, 35, 68, 36, 164, 100, 36]),
        ("power-of-two", "Around 2^32.", [U32, 2**32, U32, 2**32 + 1, 2**32, 2**32 - 1023, 5]),
        (
            "greatest",
            "Up to 2^64-1.",
            [U64 - 1, U64, U64, U64 - 1, U64 - 1023, U64 - 1024, U64 - 1023, 1],
        ),
        ("far-jump", "From 1 to 2^64-1 at once.", [1, U64, 1, 2, U64 - 512, U64 - 512, U64]),
        ("far-jump-2-63", "To 2^63, then near it.", [7, 2**63, 2**63 - 1023, 2**63 - 1024, 7]),
        ("one", "A single frame.", [1]),
        ("one-high", "A single frame, not the first sent.", [U32]),
        (
            "every-place",
            "Each of the 1024 places is free once, then taken.",
            [2000, *range(977, 2000), *range(976, 2001)],
        ),
        (
            "edge-each-way",
            "1023 and 1024 below, while the highest moves by one.",
            [2000, 977, 976, 2001, 978, 977, 2002, 979, 978, 980, 980],
        ),
        ("jump-1", "The next number.", [1023, 1024, 1, 1, 1025, 2, 1, 1026, 3, 2]),
        ("jump-63-and-64", "Steps of a machine word.", [1, 64, 128, 191, 255, 1, 64, 128, 191]),
        (
            "far-jump-and-back",
            "What was received before a far jump is too old, seen or not.",
            [10, 12, 2**20, 10, 11, 2**20 - 1023, 2**20 - 1024, 2**20 - 1023],
        ),
        (
            "far-jumps",
            "Each jump leaves all behind.",
            [*range(1, 2**31, 2**27), 1 + 15 * 2**27, 2**31],
        ),
        (
            "ends-of-range",
            "The least number, then the greatest legal ones.",
            [1, U32, U32 - 1, U32 - 1023, U32 - 1024, U32, U32 - 1, 1],
        ),
        ("old-ones", "All are too old.", [100_000, 1, 2, 50_000, 98_976, 98_977, 99_999]),
    ):
        yield replay_test(name, comment, numbers)
    for seed, spread in ((1, 30), (2, 900), (3, 3000)):
        yield replay_test(
            f"random-{seed}",
            f"Reordered by up to {spread}, some lost, some repeated.",
            reordered(random.Random(seed), spread),
        )


def reordered(generator: random.Random, spread: int) -> list[int]:
    # random() alone, as Python promises the same sequence for no other method.
    sent = [n for n in range(1, 3 * spread, 1 + spread // 60) if generator.random() > 0.1]
    repeated = [number for number in sent if generator.random() < 0.2]
    return sorted(sent + repeated, key=lambda number: number + spread * generator.random())


def replay_test(name: str, comment: str, numbers: Iterable[int]) -> Json:
    seen: set[int] = set()
    packets = []
    for number in numbers:
        too_old = bool(seen) and number <= max(seen) - REPLAY_WINDOW
        accepted = number not in seen and not too_old
        packets.append([number, accepted])
        if accepted:
            seen.add(number)
    return described(
        name,
        "5.1-1",
        comment,
        window=REPLAY_WINDOW,
        packets=packets,
        highest=max(seen),
        received_count=len(seen),
    )


# ---- rtt.json: probe timeout (10.2) and jitter (10.1) ----

RTT = (
    "What `samples` (ns) lead to. pto: `steps` holds srtt, rttvar and PTO after each response "
    "time; `initial_pto` holds before the first. jitter: `steps` holds the interarrival jitter "
    "after each round-trip time; a div b is floored for a negative a too."
)
PTO_INITIAL, PTO_GRANULARITY, PTO_MAX = SECOND, 10 * MILLISECOND, 60 * SECOND


def rtt_tests() -> Iterator[Json]:
    for name, comment, samples in (
        ("none", "No sample yet.", []),
        ("one", "The first sample.", [30 * MILLISECOND]),
        ("one-odd", "Half of an odd number.", [30_000_001]),
        ("zero", "No time at all.", [0, 0, 0]),
        ("tiny", "Each division leaves a rest.", [1, 2, 3, 5, 8, 13, 21, 34, 55, 89]),
        ("constant", "The variation dies out.", [20 * MILLISECOND] * 40),
        ("growing", "A queue fills.", [n * 1_000_003 for n in range(10, 40)]),
        ("shrinking", "A queue drains.", [n * 1_000_003 for n in range(40, 10, -1)]),
        ("spike", "One late reply.", [15_000_123] * 6 + [2 * SECOND] + [15_000_123] * 12),
        ("alternating", "Two paths.", [10 * MILLISECOND, 90 * MILLISECOND] * 10),
        ("falling-to-zero", "From slow to no time at all.", [100_000_007] + [0] * 20),
        ("at-the-cap", "srtt + 4 rttvar is 60 s.", [20 * SECOND]),
        ("below-the-cap", "One step below 60 s.", [20 * SECOND - 1]),
        ("above-the-cap", "One step above 60 s.", [20 * SECOND + 1]),
        ("satellite-and-worse", "Minutes.", [90 * SECOND, 100 * SECOND, SECOND, SECOND]),
        ("random-1", "Uniform up to 200 ms.", random_samples(1, 200 * MILLISECOND, 40)),
        ("random-2", "Uniform up to 5 s.", random_samples(2, 5 * SECOND, 40)),
        ("random-3", "Uniform up to 40 ns.", random_samples(3, 40, 60)),
    ):
        yield pto_test(name, comment, samples)
        yield jitter_test(name, comment, samples)


def random_samples(seed: int, most: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [int(most * generator.random()) for _ in range(count)]


def pto_test(name: str, comment: str, samples: list[int]) -> Json:
    srtt = rttvar = 0
    steps = []
    for number, sample in enumerate(min(each, PTO_MAX) for each in samples):
        if number == 0:
            srtt, rttvar = sample, sample // 2
        else:
            rttvar = (3 * rttvar + abs(srtt - sample)) // 4
            srtt = (7 * srtt + sample) // 8
        pto = min(srtt + max(4 * rttvar, PTO_GRANULARITY), PTO_MAX)
        steps.append({"srtt": srtt, "rttvar": rttvar, "pto": pto})
    content = {"function": "pto", "samples": samples, "initial_pto": PTO_INITIAL, "steps": steps}
    return described(f"pto-{name}", "10.2-1", comment, **content)


def jitter_test(name: str, comment: str, samples: list[int]) -> Json:
    steps = []
    j = 0
    for number, sample in enumerate(samples):
        if number:
            j += (abs(sample - samples[number - 1]) - j) // 16
        steps.append({"jitter": j})
    content = {"function": "jitter", "samples": samples, "steps": steps}
    return described(f"jitter-{name}", "10.1-2", comment, **content)


# ---- carried.json: frames inside QUIC (14.1 to 14.3) ----

CARRIED = (
    "What a QUIC connection brings to a receiver that has chosen `session_id` on it: for the "
    "session that a transport frame is to name, which has received nothing yet and, unless "
    "`highest_sent` tells otherwise, has sent what `highest_received` names; or for the handshake "
    "that awaits a RESPONSE. The receiver's epoch is `epoch`. frame: one frame; where `carrier` "
    "is udp it came as a UDP payload instead, to a receiver whose session opens with "
    "`traffic_key`; `header` and `plaintext` (body or payload) are given where the frame is "
    "consumed, the fields in them where it is valid. datagram: the content of one DATAGRAM frame, "
    "beside an application that agreed on `context_id`, which is `prefix` on the wire, or on a "
    "connection of its own where that is null; `frame` is what follows the context id, null where "
    "the datagram does not begin with it, and what is not consumed is the application's, whole. "
    "streams: what the peer's streams bring, in this order, to a receiver whose peer is `peer`: "
    "cut anywhere, it yields `messages`, to be looked at as frames, leaves `application` to the "
    "application, and counts `malformed`; `ended` is end, reset or null."
)
SUITE_CARRIED = 0x00
CONTEXT_ID = 2**60 + 0x6B617564702F31
# Twins of what frames.json says of the bodies and options of sealed frames.
SAME_IN_CLEAR = (
    *("first-of-session", "fields-", "state-", "diagnostic-", "acknowledges-", "option-"),
    *("close-", "critical-option-", "probe-with-", "reply-with-"),
)
ABOUT_SEALING = {"KA-3.6-1", "KA-4.4-1"}


def carried_tests() -> Iterator[Json]:
    yield from carried_inits()
    yield from carried_responses()
    yield from carried_transport_frames()
    yield from carried_twins()
    yield from frames_of_the_wrong_kind()
    yield from carried_datagrams()
    yield from malformed_streams()
    yield from message_streams()
    yield from several_streams()


def carried_inits() -> Iterator[Json]:
    plain = Handshake()
    for name, requirements, comment, handshake in (
        ("plain", "14.1-1", "An INIT without options has 52 bytes.", plain),
        (
            "longest",
            "3.1-3 14.1-1",
            "512 bytes.",
            replace(plain, init_options=(pad(255), pad(201))),
        ),
        (
            "old-session",
            "4.3-5 14.1-1",
            "It names a session to continue.",
            replace(plain, old_session_id=fixed("session to continue", 8)),
        ),
        (
            "greatest-parameters",
            "3.3-1",
            "Every parameter has its greatest value.",
            replace(plain, init_parameters=GREATEST_PARAMETERS),
        ),
        (
            "smallest-parameters",
            "3.1-7",
            "Every parameter has its smallest value.",
            replace(plain, init_parameters=SMALLEST_PARAMETERS),
        ),
        (
            "unknown-features-and-option",
            "3.3-1 3.8-1",
            "A receiver ignores feature bits and skips options that it does not know.",
            replace(plain, init_parameters={"features": 0xFFFE}, init_options=(unknown(0x7F),)),
        ),
        (
            "16-options",
            "3.8-6",
            "As many options as there may be.",
            replace(plain, init_options=(pad(0),) * 16),
        ),
    ):
        payload = handshake.init_payload()
        yield carried_test(
            f"init-{name}", requirements, comment, carried_init(handshake), payload=payload
        )
    yield from heads_that_are_none("init", carried_init(plain), minimum=52)
    longer = carried_init(replace(plain, init_options=(pad(255), pad(202))))
    yield carried_test("init-513-bytes", "3.1-3", "Longer than any frame.", longer, "not_kaudp")
    yield carried_test(
        "init-reflected",
        "4.2-5",
        "The epoch is the receiver's own.",
        carried_init(replace(plain, initiator=replace(INITIATOR, epoch=RESPONDER.epoch))),
        "own_epoch",
    )
    for name, requirements, comment, _, tail in payload_faults():
        yield carried_test(
            f"init-{name}",
            f"{requirements} 14.1-4",
            comment,
            carried_init(replace(plain, init_tail=tail)),
            "not_kaudp",
        )
    for name in ("desired_interval_us", "suspicion_burst"):
        yield carried_test(
            f"init-{name.replace('_', '-')}-0",
            "3.1-7 14.1-4",
            "A parameter outside of its legal range.",
            carried_init(replace(plain, init_parameters={name: 0})),
            "not_kaudp",
        )


def carried_responses() -> Iterator[Json]:
    plain = Handshake(response_options=())
    for name, requirements, comment, handshake in (
        ("plain", "14.1-1", "A RESPONSE without options has 52 bytes.", plain),
        ("address-seen", "14.1-1", "It tells the initiator its address.", Handshake()),
        (
            "longest",
            "3.1-3 14.1-1",
            "512 bytes.",
            replace(plain, response_options=(pad(255), pad(201))),
        ),
        (
            "greatest-parameters",
            "3.3-1",
            "Every parameter has its greatest value.",
            replace(plain, response_parameters=GREATEST_PARAMETERS),
        ),
        (
            "smallest-parameters",
            "3.1-7",
            "Every parameter has its smallest value.",
            replace(plain, response_parameters=SMALLEST_PARAMETERS),
        ),
    ):
        payload = handshake.response_payload()
        yield carried_test(
            f"response-{name}", requirements, comment, carried_response(handshake), payload=payload
        )
    yield from heads_that_are_none("response", carried_response(plain), minimum=52)
    longer = carried_response(replace(plain, response_options=(pad(255), pad(202))))
    yield carried_test("response-513-bytes", "3.1-3", "Longer than any frame.", longer, "not_kaudp")
    yield carried_test(
        "response-of-unknown-session",
        "14.1-4",
        "The receiver has chosen no such session id.",
        carried_response(plain, fixed("unknown session", 8)),
        "unknown_session",
    )
    for name, requirements, comment, reason, tail in payload_faults():
        yield carried_test(
            f"response-{name}", requirements, comment, carried_response(plain) + tail, reason
        )
    for name in ("desired_interval_us", "suspicion_burst"):
        yield carried_test(
            f"response-{name.replace('_', '-')}-0",
            "3.1-7",
            "A parameter outside of its legal range.",
            carried_response(replace(plain, response_parameters={name: 0})),
            "malformed",
        )


def payload_faults() -> Iterator[tuple[str, str, str, str, bytes]]:
    """Give name, requirements, comment, reason and options of payloads that are to be dropped."""
    for name, requirements, comment, reason, tail in (
        (
            "critical-option",
            "3.8-2",
            "An option that must not be skipped.",
            "unknown_critical_option",
            [unknown(0x80, b"must")],
        ),
        ("close-reason", "3.8-5", "It belongs to CLOSE.", "malformed", [close_reason(0)]),
        ("option-twice", "3.8-3", "A known option twice.", "malformed", [pause(1), pause(1)]),
        ("17-options", "3.8-6", "One too many.", "malformed", [pad(0)] * 17),
    ):
        yield name, requirements, comment, reason, b"".join(map(option_bytes, tail))
    past_the_end = "An option runs past the end of the payload."
    yield "option-past-the-end", "3.8-3", past_the_end, "malformed", bytes([0x00, 1])


def carried_transport_frames() -> Iterator[Json]:
    for kind, name in ((PROBE, "probe"), (REPLY, "reply")):
        plain = CarriedFrame(kind)
        yield carried_frame(f"{name}-plain", "14.1-1", "48 bytes without options.", plain)
        yield carried_frame(
            f"{name}-longest",
            "3.1-3 14.1-1",
            "512 bytes.",
            replace(plain, options=(pad(255), pad(205))),
        )
    yield carried_frame("close-plain", "3.8-5 14.1-1", "A CLOSE has 52 bytes.", carried_closing())
    yield carried_frame(
        "close-longest",
        "3.1-3 3.8-5",
        "512 bytes.",
        replace(carried_closing(), options=(close_reason(0), pad(255), pad(201))),
    )
    for number in (1, 2**16, U32):
        yield carried_frame(
            f"packet-number-{number}",
            "14.1-1",
            "A legal packet number.",
            CarriedFrame(packet_number=number),
        )
    for number in (0, 2**32, 2**63, U64):
        yield carried_frame(
            f"packet-number-{number}",
            "3.6-4 14.1-4",
            "Out of the legal range of 3.6.",
            CarriedFrame(packet_number=number),
            "malformed",
        )
    for flags in (0x01, 0x02, 0x40, 0x80, 0xFF):
        yield carried_frame(
            f"flags-{flags:02x}",
            "3.6-3 14.1-4",
            "A reserved flag is set.",
            CarriedFrame(flags=flags),
            "reserved_flag",
        )
    yield from heads_that_are_none("probe", CarriedFrame().datagram(), minimum=48)
    yield from heads_that_are_none("close", carried_closing().datagram()[:48], minimum=48)
    for kind, name in ((PROBE, "probe"), (REPLY, "reply")):
        longer = CarriedFrame(kind, options=(pad(255), pad(206)))
        yield carried_frame(
            f"{name}-513-bytes", "3.1-3", "Longer than any frame.", longer, "not_kaudp"
        )
        stranger = CarriedFrame(kind, session_id=fixed("other session", 8))
        yield carried_frame(
            f"{name}-of-unknown-session",
            "14.1-4",
            "The receiver has chosen no such session id.",
            stranger,
            "unknown_session",
        )
    for name, options, reason in (
        ("16-options", (pad(0),) * 16, None),
        ("17-options", (pad(0),) * 17, "malformed"),
    ):
        yield carried_frame(
            f"probe-{name}", "3.8-6", "16 is the most.", CarriedFrame(options=options), reason
        )


def carried_twins() -> Iterator[Json]:
    """Say in clear what frames.json says sealed: header, then body."""
    for test in frame_tests():
        if test["plaintext"] is None or not test["id"].startswith(SAME_IN_CLEAR):
            continue
        if test["id"] == "option-longest-frame":
            continue
        numbers = [name for name in test["requirements"] if name not in ABOUT_SEALING]
        requirements = " ".join(name.removeprefix("KA-") for name in [*numbers, "KA-14.1-1"])
        context = {name: test[name] for name in ("highest_sent",) if name in test}
        yield carried_test(
            test["id"],
            requirements,
            test["comment"],
            bytes.fromhex(test["aad"] + test["plaintext"]),
            test["reason"],
            test.get("flags", ()),
            body=test["body"],
            options=test["options"],
            **context,
        )


def heads_that_are_none(name: str, frame: bytes, minimum: int) -> Iterator[Json]:
    for length in (0, 1, 3, 4, 11, 12, 19, 20, minimum - 1):
        yield carried_test(
            f"{name}-cut-to-{length}",
            "14.1-4",
            f"Shorter than {minimum} bytes.",
            frame[:length],
            "not_kaudp",
        )
    for at, requirements, field_name, values in (
        (0, "2-1", "magic", (0x00, 0x0A, 0xD0)),
        (1, "3.1-2", "type", (0x00, 0x03, 0x07, 0x0B, 0xFF)),
        (2, "3.1-1", "version", (0x01, 0x80, 0x82)),
    ):
        for value in values:
            yield carried_test(
                f"{name}-{field_name}-{value:02x}",
                f"{requirements} 14.1-4",
                "The first four bytes are those of no carried frame.",
                frame[:at] + bytes([value]) + frame[at + 1 :],
                "not_kaudp",
            )
    if frame[1] in (INIT, RESPONSE):
        for value in (0x01, 0x02, 0x80, 0xFF):
            yield carried_test(
                f"{name}-suite-{value:02x}",
                "3.1-4 14.1-4",
                "Inside QUIC the suite is 0.",
                frame[:3] + bytes([value]) + frame[4:],
                "not_kaudp",
            )


def frames_of_the_wrong_kind() -> Iterator[Json]:
    """Sealed frames inside QUIC, and carried ones outside of it."""
    sealed = Handshake(initiator=replace(INITIATOR, session_id=SESSION_ID))
    for name, frame in (("init", sealed.init()), ("response", sealed.response())):
        yield carried_test(
            f"sealed-{name}",
            "3.1-4 14.1-1",
            "A Noise message, of suite 1, has no place inside QUIC.",
            frame,
            "not_kaudp",
        )
    probe = Frame()
    # Taken for a body, each part of it is malformed.
    assert not UP <= probe.datagram()[20] <= CLOSED
    assert probe.datagram()[-16] < 0x80
    assert probe.datagram()[-15] > 14
    yield carried_test(
        "sealed-probe",
        "3.7-1 14.1-4",
        "Its header is that of a carried PROBE; what was sealed is no body.",
        probe.datagram(),
        "malformed",
    )
    cookie = bytes([MAGIC, COOKIE, VERSION, SUITE_CARRIED]) + SESSION_ID + fixed("cookie", 48)[:32]
    yield carried_test("cookie", "14.1-1", "There is no COOKIE.", cookie + bytes(16), "not_kaudp")
    padded = CarriedFrame(options=(pad(20),)).datagram()
    for name, comment, frame, reason in (
        ("init", "Outside of QUIC the suite is 1.", carried_init(Handshake()), "not_kaudp"),
        (
            "longest-init",
            "As long as any INIT, but of suite 0.",
            carried_init(Handshake(init_options=(pad(255), pad(201)))),
            "not_kaudp",
        ),
        (
            "response",
            "Outside of QUIC the suite is 1.",
            carried_response(Handshake(response_options=(pad(100),))),
            "not_kaudp",
        ),
        ("probe", "Shorter than any sealed frame.", CarriedFrame().datagram(), "not_kaudp"),
        ("padded-probe", "Long enough, but there is no tag in it.", padded, "bad_tag"),
    ):
        yield carried_test(
            f"udp-{name}",
            "2-3 3.1-4 14.1-2",
            comment,
            frame,
            reason,
            carrier="udp",
            traffic_key=TRAFFIC_KEY.hex(),
        )


def carried_datagrams() -> Iterator[Json]:
    probe = CarriedFrame().datagram()
    for context_id in (0, 63, 64, 2**14 - 1, 2**14, 2**30 - 1, 2**30, CONTEXT_ID, 2**62 - 1):
        yield datagram_test(
            f"context-{context_id}",
            "14.2-4",
            "The context id, then a frame.",
            context_id,
            varint(context_id) + probe,
            frame=probe,
        )
    prefix = varint(CONTEXT_ID)
    assert prefix == b"\xd0kaudp/1"
    for name, frame in (
        ("init", carried_init(Handshake())),
        ("close", carried_closing().datagram()),
        ("longest-probe", CarriedFrame(options=(pad(255), pad(205))).datagram()),
    ):
        yield datagram_test(
            f"default-context-{name}",
            "14.2-4",
            "Behind the default context id.",
            CONTEXT_ID,
            prefix + frame,
            frame=frame,
        )
    for name, comment, reason, frame in (
        ("empty", "Nothing follows.", "not_kaudp", b""),
        ("text", "Something else follows.", "not_kaudp", b"GET / HTTP/0.9\r\n" * 4),
        ("cut", "The frame is cut short.", "not_kaudp", probe[:47]),
        (
            "too-long",
            "513 bytes follow.",
            "not_kaudp",
            CarriedFrame(options=(pad(255), pad(206))).datagram(),
        ),
        ("twice", "The context id stands twice.", "not_kaudp", prefix + probe),
        (
            "of-unknown-session",
            "The session id is not the receiver's.",
            "unknown_session",
            CarriedFrame(session_id=fixed("other session", 8)).datagram(),
        ),
        (
            "with-wrong-state",
            "A carried frame by 14.1, though malformed.",
            "malformed",
            CarriedFrame(body={"state": 7}).datagram(),
        ),
        ("with-flags", "The same.", "reserved_flag", CarriedFrame(flags=1).datagram()),
    ):
        yield datagram_test(
            f"default-context-then-{name}",
            "14.1-4 14.2-4",
            comment,
            CONTEXT_ID,
            prefix + frame,
            reason,
            frame,
        )
    for name, comment, context_id, datagram in (
        ("empty", "No byte at all.", CONTEXT_ID, b""),
        ("cut-prefix", "A part of the context id.", CONTEXT_ID, prefix[:7]),
        ("frame-without-context", "A frame, but no context id.", CONTEXT_ID, probe),
        ("flipped-prefix", "Another context id.", CONTEXT_ID, flip(prefix, 7) + probe),
        ("http", "An HTTP datagram of stream 0.", CONTEXT_ID, bytes(1) + probe),
        ("other-context", "One context id for another.", 64, varint(65) + probe),
        ("cut-short-context", "Half of the context id.", 64, varint(64)[:1]),
    ):
        yield datagram_test(
            f"foreign-{name}",
            "14.2-4",
            comment,
            context_id,
            datagram,
            frame=None,
            foreign=True,
        )
    for name, comment, reason, datagram in (
        ("probe", "One frame and nothing else.", None, probe),
        ("prefixed", "A context id is not of such a connection.", "not_kaudp", prefix + probe),
        ("empty", "No byte at all.", "not_kaudp", b""),
    ):
        yield datagram_test(
            f"own-connection-{name}", "14.1-4", comment, None, datagram, reason, datagram
        )


def message_streams() -> Iterator[Json]:
    probe, reply, close = (
        frame.datagram() for frame in (CarriedFrame(), CarriedFrame(REPLY), carried_closing())
    )
    longest = CarriedFrame(options=(pad(255), pad(205))).datagram()
    prefix = varint(CONTEXT_ID)
    for name, comment, frames in (
        ("no-message", "Only the context id.", ()),
        ("one-probe", "The shortest message.", (probe,)),
        ("longest", "The longest message.", (longest,)),
        ("several", "One after the other.", (carried_init(Handshake()), probe, reply, close)),
        ("long-and-short", "Lengths of all sizes.", (longest, probe, longest, reply, probe)),
        ("no-frames", "Legal lengths; what is in them is not looked at.", (bytes(48), bytes(512))),
    ):
        for ended in (None, "end"):
            yield streams_test(
                f"stream-{name}{'-ended' if ended else ''}",
                "14.3-1",
                comment,
                [event(2, prefix + b"".join(map(message, frames)), ended)],
                frames,
            )
    for context_id in (0, 63, 64, 2**14 - 1, 2**14, 2**30 - 1, 2**30, 2**62 - 1):
        yield streams_test(
            f"stream-context-{context_id}",
            "14.3-1",
            "The stream begins with the context id.",
            [event(2, varint(context_id) + message(probe))],
            (probe,),
            context_id=context_id,
        )
    yield streams_test(
        "stream-of-server",
        "14.3-1",
        "The server's unidirectional streams are 3, 7, 11 and so on.",
        [event(7, prefix + message(probe))],
        (probe,),
        peer="server",
    )
    for name, comment, data, ended in (
        ("empty", "Nothing, and then its end.", b"", "end"),
        ("other", "It begins otherwise.", b"\x00" + fixed("stream", 30), None),
        ("cut-context", "It ends within the context id.", prefix[:7], "end"),
        ("last-byte-differs", "The context id but for its last byte.", flip(prefix, 7), None),
        ("reset-early", "Reset within the context id.", prefix[:3], "reset"),
        ("messages-only", "Messages without a context id.", message(probe), None),
    ):
        yield streams_test(
            f"stream-of-application-{name}",
            "14.3-2",
            comment,
            [event(2, data, ended)],
            (),
            [event(2, data, ended)],
        )
    for name, stream_id, peer in (
        ("bidirectional", 0, "client"),
        ("bidirectional-of-server", 1, "server"),
    ):
        data = prefix + message(probe)
        yield streams_test(
            f"stream-{name}",
            "14.3-1 14.3-2",
            "Frames are on unidirectional streams only.",
            [event(stream_id, data)],
            (),
            [event(stream_id, data)],
            peer=peer,
        )


def malformed_streams() -> Iterator[Json]:
    probe = CarriedFrame().datagram()
    prefix = varint(CONTEXT_ID)
    for length in (0, 1, 47, 513, 0x0B08, U16):
        yield streams_test(
            f"stream-length-{length}",
            "14.3-3",
            "No frame is that long; what follows is of no interest.",
            [event(2, prefix + message(probe) + struct.pack(">H", length) + message(probe) * 2)],
            (probe,),
            malformed=1,
        )
    yield streams_test(
        "stream-length-0-at-once",
        "14.3-3",
        "The first message has an illegal length.",
        [event(2, prefix + bytes(2)), event(2, message(probe))],
        (),
        malformed=1,
    )
    for name, tail in (
        ("length", message(probe)[:1]),
        ("length-and-no-more", message(probe)[:2]),
        ("frame", message(probe)[:30]),
        ("last-byte", message(probe)[:-1]),
    ):
        for ended in ("end", "reset"):
            yield streams_test(
                f"stream-{ended}-within-{name}",
                "14.3-3",
                "The stream ends within a message.",
                [event(2, prefix + message(probe) + tail, ended)],
                (probe,),
                malformed=1,
            )
        yield streams_test(
            f"stream-waits-within-{name}",
            "14.3-3",
            "The rest may still come.",
            [event(2, prefix + message(probe) + tail)],
            (probe,),
        )
    yield streams_test(
        "stream-reset-between-messages",
        "14.3-3",
        "The stream ends, but not within a message.",
        [event(2, prefix + message(probe), "reset")],
        (probe,),
    )
    yield streams_test(
        "stream-reset-after-illegal-length",
        "14.3-3",
        "The peer ends an abandoned stream: there is no second fault.",
        [event(2, prefix + struct.pack(">H", 513) + message(probe)), event(2, b"", "reset")],
        (),
        malformed=1,
    )


def several_streams() -> Iterator[Json]:
    first, second, third = (
        CarriedFrame(packet_number=number).datagram() for number in (101, 102, 103)
    )
    prefix = varint(CONTEXT_ID)
    text = b"the application's own"
    yield streams_test(
        "streams-newer-one-counts",
        "14.3-2",
        "The peer has opened another stream; the older one yields nothing any more.",
        [
            event(2, prefix + message(first)),
            event(6, prefix + message(second)),
            event(2, message(third)),
            event(6, message(third)),
        ],
        (first, second, third),
    )
    yield streams_test(
        "streams-older-one-late",
        "14.3-2",
        "The older stream arrives after the newer.",
        [event(6, prefix + message(second)), event(2, prefix + message(first))],
        (second,),
    )
    yield streams_test(
        "streams-older-until-newer-begins",
        "14.3-2",
        "A stream that is cut within the context id does not begin with it yet.",
        [
            event(2, prefix + message(first)),
            event(6, prefix[:5]),
            event(2, message(second)),
            event(6, prefix[5:] + message(third)),
        ],
        (first, second, third),
    )
    yield streams_test(
        "streams-between-applications",
        "14.3-2",
        "The application's streams are left alone.",
        [
            event(2, text),
            event(6, prefix + message(first)),
            event(10, prefix[:4]),
            event(2, text, "end"),
            event(6, message(second)),
            event(10, text, "reset"),
        ],
        (first, second),
        [event(2, text + text, "end"), event(10, prefix[:4] + text, "reset")],
    )
    yield streams_test(
        "streams-older-after-malformed-newer",
        "14.3-2 14.3-3",
        "The newer stream is abandoned at once; what the older one still says is no text.",
        [
            event(2, prefix + message(first)),
            event(6, prefix + bytes(2)),
            event(2, message(second)),
        ],
        (first,),
        malformed=1,
    )
    yield streams_test(
        "streams-application-resets-unsaid",
        "14.3-2",
        "The application's stream is reset before any byte of it came.",
        [event(6, prefix + message(first)), event(2, b"", "reset")],
        (first,),
        [event(2, b"", "reset")],
    )


class CarriedFrame(Frame):
    """A frame in clear."""

    def datagram(self) -> bytes:
        return self.header() + self.plaintext()


def carried_closing() -> CarriedFrame:
    return CarriedFrame(CLOSE, (close_reason(0),), body={"state": CLOSED})


def carried_init(handshake: Handshake) -> bytes:
    first_four = bytes([MAGIC, INIT, VERSION, SUITE_CARRIED])
    return first_four + handshake.initiator.session_id + handshake.init_plaintext()


def carried_response(handshake: Handshake, session_id: bytes = SESSION_ID) -> bytes:
    first_four = bytes([MAGIC, RESPONSE, VERSION, SUITE_CARRIED])
    return first_four + session_id + handshake.response_plaintext()


def varint(number: int) -> bytes:
    """RFC 9000, section 16: two bits tell whether it is 1, 2, 4 or 8 bytes long."""
    exponent = next(e for e in range(4) if number < 2 ** (8 * 2**e - 2))
    length = 2**exponent
    return (number | exponent << 8 * length - 2).to_bytes(length, "big")


def message(frame: bytes) -> bytes:
    return struct.pack(">H", len(frame)) + frame


def event(stream_id: int, data: bytes, ended: str | None = None) -> Json:
    return {"stream_id": stream_id, "data": data.hex(), "ended": ended}


def carried_frame(
    test_id: str, requirements: str, comment: str, frame: CarriedFrame, reason: str | None = None
) -> Json:
    fields = {} if reason else {"body": frame.fields(), "options": list(frame.options)}
    return carried_test(test_id, requirements, comment, frame.datagram(), reason, **fields)


def carried_test(
    test_id: str,
    requirements: str,
    comment: str,
    frame: bytes,
    reason: str | None = None,
    flags: Iterable[str] = (),
    **content: Any,
) -> Json:
    """`content` holds the fields of a valid frame, and what else the receiver is."""
    consumed = reason not in NOT_CONSUMED
    transport = len(frame) > 1 and frame[1] in (PROBE, REPLY, CLOSE)
    start = HEADER_BYTES if transport else 12
    read = {
        "header": (header_of(frame) if transport else carried_header(frame)) if consumed else None,
        "plaintext": frame[start:].hex() if consumed else None,
        "body": None,
        "options": None,
        "payload": None,
    }
    given = {"kind": "frame", **receiver(), "carrier": "quic", "frame": frame.hex()}
    return described(
        test_id, requirements, comment, flags, **(verdict(reason) | given | read | content)
    )


def receiver() -> Json:
    return {"session_id": SESSION_ID.hex(), "epoch": RESPONDER.epoch.hex()}


def carried_header(frame: bytes) -> Json:
    magic, kind, version, suite, session_id = struct.unpack_from(">BBBB8s", frame)
    first_four = {"magic": magic, "type": kind, "version": version, "suite": suite}
    return first_four | {"session_id": session_id.hex()}


def datagram_test(
    test_id: str,
    requirements: str,
    comment: str,
    context_id: int | None,
    datagram: bytes,
    reason: str | None = None,
    frame: bytes | None = None,
    *,
    foreign: bool = False,
) -> Json:
    """`foreign`: it does not begin with the context id, which the text counts nowhere."""
    judged = {"result": "invalid", "reason": None, "consumed": False} if foreign else None
    given = {
        "kind": "datagram",
        **receiver(),
        "context_id": context_id,
        "prefix": "" if context_id is None else varint(context_id).hex(),
        "datagram": datagram.hex(),
        "frame": None if frame is None else frame.hex(),
    }
    return described(test_id, requirements, comment, **((judged or verdict(reason)) | given))


def streams_test(
    test_id: str,
    requirements: str,
    comment: str,
    events: list[Json],
    messages: Iterable[bytes],
    application: Iterable[Json] = (),
    malformed: int = 0,
    context_id: int = CONTEXT_ID,
    peer: str = "client",
) -> Json:
    return described(
        test_id,
        requirements,
        comment,
        kind="streams",
        peer=peer,
        context_id=context_id,
        prefix=varint(context_id).hex(),
        events=events,
        messages=[one.hex() for one in messages],
        application=list(application),
        malformed=malformed,
    )


if __name__ == "__main__":
    sys.exit(main())
