"""Write the seed corpora: parser inputs from the golden vectors, scripts for the endpoint target.

    python -m fuzz.make_corpus

The same vectors give the same files. Files under other names, such as crashes, stay as they are.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fuzz.pair import (
    CARRIED,
    CLOCKS,
    COOKIES,
    MEETING,
    MUTUAL,
    NOBODY_ACCEPTS,
    PHASES,
    REPEATS,
    SERVER_FIRST,
    THRESHOLDS,
)
from fuzz.script import Step, Verb, write
from fuzz.streams import BIDIRECTIONAL, END, PEER_IS_SERVER, PREAMBLES, RESET, STREAMS
from kaudp.units import MICROSECOND, MILLISECOND, SECOND
from kaudp.wire.grammar import FrameType

ROOT: Final = Path(__file__).parent
CORPUS: Final = ROOT / "corpus"
VECTORS: Final = ROOT.parent / "spec" / "vectors"

# The kinds of bytes in a vector file, by the ending of the corpus file.
FRAME_PARTS: Final = {"frame": "frame", "plaintext": "body"}
HANDSHAKE_PARTS: Final = {
    "init": "init",
    "response": "response",
    "init_plaintext": "init-payload",
    "response_plaintext": "response-payload",
}
FRAME_TYPES: Final = (FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE)
INIT_PAYLOAD_BYTES: Final = 40

BOTH: Final = 3
TO_SERVER: Final = 1
TO_CLIENT: Final = 2
ON_CLIENT: Final = 1


def main() -> None:
    """Write all files."""
    for name, data in files():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def files() -> Iterator[tuple[str, bytes]]:
    """Give (path below the corpus, content) of each file."""
    for name, data in _unique(_parser_inputs()):
        yield f"parser/{name}", data
    for name, data in _unique(_endpoint_inputs()):
        yield f"endpoint/{name}", data


def _unique(inputs: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    seen: set[bytes] = set()
    for name, data in inputs:
        if data not in seen:
            seen.add(data)
            yield name, data


def _parser_inputs() -> Iterator[tuple[str, bytes]]:
    for vectors, parts in (("frames", FRAME_PARTS), ("handshake", HANDSHAKE_PARTS)):
        for test in _tests(vectors):
            for part, ending in parts.items():
                if test.get(part) is not None:
                    yield f"{test['id']}.{ending}", bytes.fromhex(test[part])
    for test in _tests("derivations"):
        if test["function"] == "cookie":
            yield f"{test['id']}.cookie", bytes.fromhex(test["expected"]["frame"])
    for test in _tests("cookies"):
        if test["kind"] == "asked":
            yield f"{test['id']}.init", bytes.fromhex(test["init"])
        elif test["kind"] == "received":
            yield f"{test['id']}.cookie", bytes.fromhex(test["frame"])
    yield from _carried_parser_inputs()


def _carried_parser_inputs() -> Iterator[tuple[str, bytes]]:
    for test in _tests("carried"):
        if test["kind"] == "frame":
            yield f"{test['id']}.carried", bytes.fromhex(test["frame"])
        elif test["kind"] == "datagram":
            yield f"{test['id']}.quic-datagram", bytes.fromhex(test["datagram"])
        else:
            yield from _streams(test)


def _streams(test: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Give a stream of messages by itself, and the events as streams.py reads them."""
    prefix = bytes.fromhex(test["prefix"])
    if len(test["events"]) == 1:
        data = bytes.fromhex(test["events"][0]["data"])
        yield f"{test['id']}.messages", data.removeprefix(prefix)
    if prefix == PREAMBLES[0]:
        setting = PEER_IS_SERVER if test["peer"] == "server" else 0
        yield f"{test['id']}.streams", bytes([setting]) + b"".join(map(_event, test["events"]))


def _event(event: dict[str, Any]) -> bytes:
    """Write an event of a stream as streams.py reads it, in pieces of 255 bytes."""
    stream_id, data = event["stream_id"], bytes.fromhex(event["data"])
    head = stream_id // 4 % STREAMS | (0 if stream_id & 2 else BIDIRECTIONAL)
    pieces = [data[at : at + 255] for at in range(0, len(data), 255)] or [b""]
    written = [bytes([head, len(piece)]) + piece for piece in pieces]
    ends = {None: 0, "end": END, "reset": RESET}[event["ended"]]
    return b"".join(written[:-1]) + bytes([head | ends]) + written[-1][1:]


def _endpoint_inputs() -> Iterator[tuple[str, bytes]]:
    for test in _tests("frames"):
        if test["plaintext"] is not None:
            yield f"seal-{test['id']}", _sealed(test)
        elif test["reason"] == "not_kaudp":
            frame = bytes.fromhex(test["frame"])
            yield f"stranger-{test['id']}", write(0, UP, (Step.STRANGER, {"data": frame}))
    for test in _tests("handshake"):
        if test["result"] == "valid":
            options = bytes.fromhex(test["init_plaintext"])[INIT_PAYLOAD_BYTES:]
            yield f"init-{test['id']}", write(0, (Step.INIT, {"options": options}), SHORT)
    for test in _tests("derivations"):
        if test["function"] == "cookie":
            frame = bytes.fromhex(test["expected"]["frame"])
            yield f"stranger-{test['id']}", write(0, (Step.STRANGER, {"data": frame}), UP)
    for name, script in SCENARIOS.items():
        yield f"scenario-{name}", script
    for name, script in FOUND.items():
        yield f"found-{name}", script
    yield from _carried_endpoint_inputs()


def _carried_endpoint_inputs() -> Iterator[tuple[str, bytes]]:
    for name in CARRIED_TOO:
        script = SCENARIOS[name]
        yield f"carried-{name}", _carried(script)
    for test in _tests("carried"):
        if test["kind"] == "frame" and test["carrier"] == "quic" and "init" in test["id"]:
            frame = bytes.fromhex(test["frame"])
            script = write(CARRIED, UP, (Step.STRANGER, {"data": frame}))
            yield f"carried-stranger-{test['id']}", script
    for test in _tests("frames"):
        if test["reason"] in ("malformed", "reserved_flag", "unknown_critical_option"):
            yield f"carried-{test['id']}", _carried(_sealed(test))
    yield "carried-abandoned", write(CARRIED | REPEATS, UP, _call(Verb.ABANDON, ON_CLIENT), SHORT)
    yield (
        "carried-abandoned-by-peer",
        write(CARRIED, UP, _call(Verb.ABANDON, session=1), SHORT, SHORT),
    )
    yield (
        "carried-abandoned-while-connecting",
        write(CARRIED, _call(Verb.ABANDON, ON_CLIENT), UP, _call(Verb.CONNECT, ON_CLIENT), UP),
    )
    yield (
        "carried-abandoned-while-closing",
        write(CARRIED, UP, _call(Verb.CLOSE, ON_CLIENT), _call(Verb.ABANDON, ON_CLIENT), SHORT),
    )


def _carried(script: bytes) -> bytes:
    """Play a script inside QUIC: its setting begins with the lower byte."""
    return bytes([script[0] | CARRIED]) + script[1:]


def _sealed(test: dict[str, Any]) -> bytes:
    header = test["header"]
    frame = {
        "type": FRAME_TYPES.index(header["type"]),
        "flags": header["flags"],
        "plaintext": bytes.fromhex(test["plaintext"]),
    }
    to_client = frame | {"side": ON_CLIENT}
    # At this cadence both have sent what the vectors confirm within a second.
    return write(1, UP, (Step.SEAL, frame), (Step.SEAL, to_client), UP)


def _tests(vectors: str) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = json.loads((VECTORS / f"{vectors}.json").read_text())["tests"]
    return tests


def _run(duration: int, reach: int = BOTH) -> tuple[Step, dict[str, Any]]:
    return Step.RUN, {"duration": duration, "reach": reach}


def _stall(duration: int, reach: int = BOTH) -> tuple[Step, dict[str, Any]]:
    return Step.STALL, {"duration": duration, "reach": reach}


def _call(verb: Verb, side: int = 0, **given: int) -> tuple[Step, dict[str, Any]]:
    return Step.APPLICATION, {"verb": verb, "side": side, **given}


UP: Final = _run(SECOND)
SHORT: Final = _run(10 * SECOND)
SILENCE: Final = _run(61 * SECOND, 0)
PAUSE_10_S: Final = bytes.fromhex("030400002710")
PAUSE_1_HOUR: Final = bytes.fromhex("03040036ee80")
CLOSE_REASON: Final = bytes.fromhex("05020000")
INTERVAL_1_US: Final = bytes.fromhex("0210 00000001 00000000 00000000 0001 0000")
SLOW_DOWN_1_S: Final = bytes.fromhex("0404 000f4240")
ADMIN_DOWN: Final = bytes.fromhex("090101")
ADMIN_UP: Final = bytes.fromhex("090100")
CLOCK_0: Final = bytes.fromhex("0a08 0000000000000000")
COOKIE_ALWAYS: Final = COOKIES * THRESHOLDS.index(0)
COOKIE_FROM_2: Final = COOKIES * THRESHOLDS.index(2)
PAUSED: Final = {"control": 1, "age": 1200 * SECOND, "options": PAUSE_10_S}

SCENARIOS: dict[str, bytes] = {
    "healthy": write(0, UP, SHORT, SHORT, SHORT),
    "healthy-lan": write(1, UP, SHORT),
    "healthy-fastest": write(3, UP, SHORT),
    "no-answer": write(0, _run(30 * SECOND, TO_SERVER)),
    "no-timeout": write(3, SILENCE, SILENCE, SILENCE),
    "down-and-back": write(0, UP, SILENCE, SHORT, SHORT),
    "down-and-back-later": write(0, UP, SILENCE, _run(600 * SECOND, 0), SHORT, SHORT),
    "down-fastest": write(3, UP, _run(10 * SECOND, 0), _run(10 * SECOND, 0), SHORT, SHORT),
    "down-deadline": write(2, UP, SILENCE, SILENCE, SHORT),
    "one-way-to-server": write(1, UP, _run(SECOND, TO_SERVER), _run(SECOND, TO_SERVER), SHORT),
    "one-way-to-client": write(1, UP, _run(SECOND, TO_CLIENT), _run(SECOND, TO_CLIENT), SHORT),
    "slow-link": write(12, UP, SHORT, SHORT, SHORT),
    "stalls": write(0, UP, _stall(3 * SECOND), _stall(30 * SECOND), _stall(600 * SECOND), SHORT),
    "stalls-without-network": write(0, UP, _stall(61 * SECOND, 0), _stall(61 * SECOND, 0), SHORT),
    "wire-times-wrap": write(0, UP, _stall(4295 * SECOND), UP, _stall(1200 * SECOND, 0), SHORT),
    "replayed": write(0, UP, *[(Step.DELIVER, {"back": back}) for back in range(6)]),
    "reflected": write(
        0x10, UP, *[(Step.DELIVER, {"back": back, "side": back % 2}) for back in range(12)]
    ),
    "damaged": write(
        0, UP, *[(Step.DAMAGE, {"how": 4 * at + at, "at": 7 * at, "back": at}) for at in range(9)]
    ),
    "rebound": write(
        0,
        UP,
        _run(6 * SECOND, 0),
        (Step.DELIVER, {"source": 1}),
        _run(MILLISECOND, TO_CLIENT),
        _run(6 * SECOND, 0),
        (Step.DELIVER, {"source": 1}),
        SHORT,
    ),
    "told-options": write(
        0,
        UP,
        *[
            (Step.TELL, {"state": 1, "side": side, "address_hash": 5, "options": options})
            for side in (0, 1)
            for options in (b"", bytes(23), bytes.fromhex("03040000ea60"), b"\x05\x02\0\0")
        ],
        SHORT,
    ),
    "told-lies": write(
        0,
        UP,
        *[
            (Step.TELL, {"state": 4, "age": age, "hold": hold, "ahead": 3, "type": 1})
            for age in (0, MICROSECOND, 30 * SECOND)
            for hold in (0, SECOND, 4295 * SECOND)
        ],
        SILENCE,
    ),
    "closed-by-client": write(0, UP, _call(Verb.CLOSE, ON_CLIENT), SHORT),
    "closed-by-server": write(0, UP, _call(Verb.CLOSE), SHORT),
    "closed-unheard": write(0, UP, _call(Verb.CLOSE), _run(10 * SECOND, 0), SHORT),
    "closed-crossing": write(0, UP, _call(Verb.CLOSE), _call(Verb.CLOSE, ON_CLIENT), SHORT),
    "closed-at-once": write(0, _call(Verb.CLOSE_ALL, ON_CLIENT), SHORT),
    "paused": write(0, UP, _call(Verb.PAUSE, ON_CLIENT, duration=30 * SECOND), SILENCE, SHORT),
    "paused-and-resumed": write(
        0, UP, _call(Verb.PAUSE, duration=30 * SECOND), SHORT, _call(Verb.RESUME), SHORT
    ),
    "paused-when-down": write(
        0, UP, SILENCE, _call(Verb.PAUSE, ON_CLIENT, duration=10 * SECOND), SILENCE, SHORT
    ),
    "paused-in-suspicion": write(
        0, UP, _run(6 * SECOND, 0), _call(Verb.PAUSE, ON_CLIENT, duration=SECOND), SILENCE
    ),
    "redirected": write(0, _call(Verb.REDIRECT, ON_CLIENT), UP, _call(Verb.REDIRECT), SHORT),
    "unreachable": write(0, UP, _call(Verb.UNREACHABLE, ON_CLIENT), SILENCE),
    "application-traffic": write(
        1, UP, _call(Verb.SENT, ON_CLIENT), _call(Verb.RECEIVED), SHORT, _call(Verb.SENT), SHORT
    ),
    "worn-out": write(
        0, UP, _call(Verb.WEAR_OUT), _call(Verb.WEAR_OUT, ON_CLIENT), SHORT, SHORT, SHORT
    ),
    "three-sessions": write(
        0, *[_call(Verb.CONNECT, ON_CLIENT, session=key) for key in (0, 1, 1)], UP, SHORT
    ),
    "more-embryos-than-fit": write(
        0, *[(Step.INIT, {"ephemeral": 8 + number}) for number in range(5)], UP
    ),
    "embryos-spoken-to": write(
        0,
        *[(Step.INIT, {"ephemeral": 8 + number, "source": number}) for number in range(3)],
        *[(Step.TELL, {"channel": number, "state": 1}) for number in range(3)],
        SHORT,
    ),
    "low-order": write(0, *[(Step.INIT, {"ephemeral": number}) for number in range(3)]),
    "refused-key": write(0x20, (Step.INIT, {"key": 1, "ephemeral": 9}), UP),
    "taken-over": write(
        0,
        UP,
        (Step.INIT, {"ephemeral": 9, "old": 1, "source": 1}),
        (Step.TELL, {"channel": 1, "state": 1, "source": 1}),
        SHORT,
    ),
    "lying-responder": write(
        0, *[(Step.RESPONSE, {"ephemeral": 9, "parameters": number}) for number in (4, 2)], SHORT
    ),
    "low-order-responder": write(
        0, *[(Step.RESPONSE, {"ephemeral": number}) for number in range(3)], SHORT
    ),
    "close-reason-in-handshake": write(
        0,
        (Step.INIT, {"ephemeral": 9, "options": CLOSE_REASON}),
        (Step.RESPONSE, {"ephemeral": 9, "options": CLOSE_REASON}),
        SHORT,
    ),
    "deaf": write(1, (Step.DEAF, {}), (Step.DEAF, {"side": ON_CLIENT}), UP, SHORT, SHORT, SHORT),
}

MINUTE: Final = _run(61 * SECOND)


def _moved(side: int, to: int, *, cut: bool) -> tuple[Step, dict[str, Any]]:
    return Step.MOVE, {"side": side, "to": to, "cut": int(cut)}


def _restarted(side: int, *, other: bool = False, connects: bool = False) -> Any:
    return Step.RESTART, {"side": side, "how": other + 2 * connects}


def _told(side: int, control: int, options: bytes, **given: Any) -> tuple[Step, dict[str, Any]]:
    return Step.TELL, {"side": side, "state": 1, "control": control, "options": options, **given}


SCENARIOS |= {
    "intervals-changed": write(
        1,
        UP,
        _call(Verb.CHANGE_INTERVALS, ON_CLIENT, duration=500 * MILLISECOND),
        SHORT,
        _call(Verb.CHANGE_INTERVALS, duration=SECOND),
        _call(Verb.CHANGE_INTERVALS, ON_CLIENT, duration=20 * MILLISECOND),
        SHORT,
        _call(Verb.CHANGE_INTERVALS, duration=20 * MILLISECOND),
        UP,
    ),
    "intervals-changed-unheard": write(
        0,
        UP,
        _call(Verb.CHANGE_INTERVALS, ON_CLIENT, duration=500 * MILLISECOND),
        _run(6 * SECOND, TO_SERVER),
        _call(Verb.CHANGE_INTERVALS, duration=3 * SECOND),
        _run(6 * SECOND, TO_CLIENT),
        SILENCE,
        SHORT,
        SHORT,
    ),
    "intervals-refused": write(
        0,
        UP,
        *[_call(Verb.CHANGE_INTERVALS, side, duration=90_000 * SECOND) for side in (0, 1)],
        _call(Verb.SLOW_DOWN, duration=90_000 * SECOND),
        _call(Verb.CHANGE_INTERVALS, ON_CLIENT, duration=MILLISECOND),
        SHORT,
    ),
    "slowed-down": write(
        1, UP, _call(Verb.SLOW_DOWN, duration=SECOND), SHORT, _call(Verb.SLOW_DOWN), SHORT
    ),
    "slowed-down-unheard": write(
        0, UP, _call(Verb.SLOW_DOWN, duration=10 * SECOND), _run(6 * SECOND, 0), MINUTE
    ),
    "probed-too-often": write(
        0,
        UP,
        *[
            step
            for apart in (MILLISECOND, 61 * SECOND, SECOND)
            for step in ((Step.FLOOD, {"state": 1, "times": 150}), _stall(apart))
        ],
        SHORT,
    ),
    "taken-down-by-client": write(
        0, UP, _call(Verb.ADMIN_DOWN, ON_CLIENT), MINUTE, _call(Verb.ADMIN_UP, ON_CLIENT), SHORT
    ),
    "taken-down-by-server": write(
        0, UP, _call(Verb.ADMIN_DOWN), MINUTE, _call(Verb.ADMIN_UP), SHORT, SHORT
    ),
    "taken-down-by-both": write(
        0,
        UP,
        _call(Verb.ADMIN_DOWN),
        _call(Verb.ADMIN_DOWN, ON_CLIENT),
        SHORT,
        _call(Verb.ADMIN_UP),
        _run(6 * SECOND, 0),
        _call(Verb.ADMIN_UP, ON_CLIENT),
        SHORT,
    ),
    "taken-down-for-ever": write(
        0,
        UP,
        _call(Verb.ADMIN_DOWN, ON_CLIENT),
        SHORT,
        *[_stall(3600 * SECOND)] * 5,
        _call(Verb.ADMIN_UP, ON_CLIENT),
        SHORT,
        _call(Verb.ADMIN_DOWN, ON_CLIENT),
        SHORT,
        _stall(90_000 * SECOND),
        SHORT,
    ),
    "taken-down-when-down": write(
        1, UP, SILENCE, _call(Verb.ADMIN_DOWN), _call(Verb.ADMIN_DOWN, ON_CLIENT), SHORT, SHORT
    ),
    "taken-down-in-a-pause": write(
        0,
        UP,
        _call(Verb.PAUSE, ON_CLIENT, duration=30 * SECOND),
        _call(Verb.ADMIN_DOWN),
        SHORT,
        _call(Verb.ADMIN_UP),
        MINUTE,
    ),
    "taken-down-and-restarted": write(
        0,
        UP,
        _call(Verb.ADMIN_DOWN),
        SHORT,
        _restarted(0),
        MINUTE,
        MINUTE,
        _call(Verb.ADMIN_UP, ON_CLIENT),
        SHORT,
    ),
    "key-changed": write(
        0,
        UP,
        _call(Verb.CHANGE_KEY, ON_CLIENT),
        SHORT,
        _call(Verb.CHANGE_KEY, ON_CLIENT),
        _run(MILLISECOND),
        SHORT,
    ),
    "key-changed-unheard": write(
        0,
        UP,
        _call(Verb.CHANGE_KEY, ON_CLIENT),
        *[_run(20 * MILLISECOND)] * 2,
        SILENCE,
        _run(600 * SECOND, 0),
        SHORT,
        SHORT,
    ),
    "key-changed-one-way": write(
        0,
        UP,
        _call(Verb.CHANGE_KEY, ON_CLIENT),
        SHORT,
        SILENCE,
        _run(61 * SECOND, TO_SERVER),
        MINUTE,
    ),
    "key-changed-for-a-cookie": write(
        COOKIE_ALWAYS, UP, _call(Verb.CHANGE_KEY, ON_CLIENT), SHORT, SHORT
    ),
    **{
        f"meeting{name}": write(MEETING | setting | first, UP, SHORT, SHORT)
        for name, setting in (("", MUTUAL), ("-none-accepts", NOBODY_ACCEPTS))
        for first in (0, SERVER_FIRST)
        for name in (name + ("-server-first" if first else ""),)
    },
    **{
        f"meeting-with-losses{name}": write(
            MEETING | MUTUAL | first,
            _run(500 * MILLISECOND, TO_SERVER),
            _run(SECOND, TO_CLIENT),
            UP,
            SHORT,
            SILENCE,
            SHORT,
        )
        for name, first in (("", 0), ("-server-first", SERVER_FIRST))
    },
    "meeting-answered-late": write(
        MEETING | MUTUAL | SERVER_FIRST,
        _run(20 * MILLISECOND, TO_CLIENT),
        _run(20 * MILLISECOND, TO_SERVER),
        *[(Step.DELIVER, {"back": back}) for back in range(4)],
        *[(Step.DELIVER, {"back": back, "side": ON_CLIENT}) for back in range(4)],
        SHORT,
    ),
    "meeting-for-cookies": write(MEETING | NOBODY_ACCEPTS | COOKIE_ALWAYS, UP, SHORT),
    "met-by-a-liar": write(
        NOBODY_ACCEPTS,
        *[
            (Step.INIT, {"side": ON_CLIENT, "ephemeral": 8 + epoch % 9, "epoch": epoch})
            for epoch in (0, 255)
        ],
        (Step.TELL, {"side": ON_CLIENT, "state": 1}),
        SHORT,
    ),
    "client-restarted": write(0, UP, _restarted(1, connects=True), SHORT, SHORT),
    "client-restarted-as-another": write(
        0, UP, _restarted(1, other=True, connects=True), SHORT, SILENCE
    ),
    "client-restarted-three-times": write(1, UP, *[_restarted(1, connects=True), UP] * 3, SHORT),
    "server-restarted": write(0, UP, _restarted(0), MINUTE),
    "server-restarted-as-another": write(0, UP, _restarted(0, other=True), MINUTE),
    "both-restarted": write(MUTUAL, UP, _restarted(0), _restarted(1, connects=True), SHORT, SHORT),
    "server-restarted-with-control-state": write(
        0,
        UP,
        _call(Verb.SLOW_DOWN, duration=10 * SECOND),
        _call(Verb.PAUSE, ON_CLIENT, duration=6 * SECOND),
        SHORT,
        _restarted(0),
        MINUTE,
        SHORT,
    ),
    "liar-restarts": write(
        0,
        UP,
        (Step.INIT, {"ephemeral": 9, "instance": 1, "epoch": 9}),
        (Step.TELL, {"channel": 1, "state": 1}),
        SHORT,
    ),
    "cookie-asked-for": write(COOKIE_ALWAYS, UP, SHORT),
    "cookie-asked-for-and-restarted": write(COOKIE_ALWAYS, UP, _restarted(0), MINUTE, SHORT),
    "cookie-asked-for-later": write(
        COOKIE_FROM_2,
        UP,
        *[(Step.INIT, {"ephemeral": 8 + number}) for number in range(3)],
        (Step.INIT, {"ephemeral": 12, "cookie": 1}),
        (Step.INIT, {"ephemeral": 13, "cookie": 1, "source": 1}),
        (Step.INIT, {"ephemeral": 14, "cookie": 7}),
        (Step.INIT, {"ephemeral": 12, "cookie": 1}),
        UP,
    ),
    "cookie-grows-old": write(
        COOKIE_ALWAYS,
        *[
            step
            for number in range(3)
            for step in (
                (Step.INIT, {"ephemeral": 8 + 2 * number}),
                _stall(61 * SECOND),
                _stall((61 if number == 1 else 600) * SECOND if number else 0),
                (Step.INIT, {"ephemeral": 9 + 2 * number, "cookie": 1}),
            )
        ],
    ),
    "cookie-forged": write(
        0,
        *[(Step.COOKIE, {"side": ON_CLIENT, "cookie": cookie}) for cookie in (0, 5, 6, 6)],
        _run(3 * SECOND, TO_SERVER),
        (Step.COOKIE, {"side": ON_CLIENT, "cookie": 7, "nonce": 1}),
        SHORT,
        (Step.COOKIE, {"side": ON_CLIENT, "cookie": 8}),
    ),
    "cookie-replayed": write(
        COOKIE_ALWAYS,
        _run(101 * MILLISECOND),
        *[(Step.DELIVER, {"side": ON_CLIENT, "back": back}) for back in range(8)],
        SHORT,
    ),
    "cookie-for-a-spent-handshake": write(
        0,
        *[(Step.COOKIE, {"side": ON_CLIENT, "cookie": 5 + at}) for at in range(2)],
        *[(Step.COOKIE, {"side": ON_CLIENT, "cookie": 9, "attempt": at}) for at in range(3)],
        UP,
        *[(Step.COOKIE, {"side": ON_CLIENT, "cookie": 9, "attempt": at}) for at in range(3)],
        SHORT,
    ),
    "phases": write(PHASES, UP, MINUTE, MINUTE, MINUTE, MINUTE),
    "phases-unheard": write(PHASES, *[_run(20 * MILLISECOND)] * 2, SILENCE, SHORT, MINUTE),
    "phases-with-losses": write(
        PHASES,
        UP,
        MINUTE,
        *[_run(10 * SECOND, reach) for reach in (TO_SERVER, BOTH, TO_CLIENT, BOTH)],
        SILENCE,
        SHORT,
        MINUTE,
    ),
    "phases-replayed": write(
        PHASES, UP, MINUTE, *[(Step.DELIVER, {"back": back}) for back in range(20)], MINUTE
    ),
    "phases-by-age": write(PHASES, UP, _stall(600 * SECOND), UP, _stall(3600 * SECOND), UP, SHORT),
    "phases-of-a-liar": write(
        PHASES,
        UP,
        *[
            (Step.TELL, {"side": side, "state": 1, "phase": phase})
            for phase in (1, 1, 2, 0, 1)
            for side in (0, 1)
        ],
        MINUTE,
        *[(Step.TELL, {"side": ON_CLIENT, "state": 1, "phase": phase}) for phase in (2, 1, 0)],
        SHORT,
    ),
    "rebound-silently": write(
        0, UP, _moved(ON_CLIENT, 1, cut=True), SHORT, SHORT, _moved(ON_CLIENT, 2, cut=True), MINUTE
    ),
    "forwarded": write(
        0, UP, _moved(ON_CLIENT, 1, cut=False), MINUTE, _moved(ON_CLIENT, 0, cut=False), SHORT
    ),
    "server-forwarded": write(
        0, UP, _moved(0, 1, cut=False), SHORT, _moved(0, 2, cut=True), MINUTE
    ),
    "rebound-for-ever": write(
        1, UP, *[_moved(ON_CLIENT, at, cut=True) for at in (1, 2)], SILENCE, SHORT, SHORT
    ),
    "forwarded-to-nowhere": write(
        0,
        UP,
        _moved(ON_CLIENT, 1, cut=False),
        _moved(ON_CLIENT, 0, cut=True),
        (Step.DELIVER, {"source": 1}),
        SHORT,
        MINUTE,
    ),
    "rebound-and-replayed": write(
        0,
        UP,
        *[(Step.TELL, {"state": 1, "source": 1 + at % 3}) for at in range(20)],
        SHORT,
    ),
    **{
        f"path-answered-by-liar-{name}": write(
            0,
            UP,
            (Step.TELL, {"state": 1, "source": 1}),
            *[
                (Step.TELL, {"state": 1, "type": 1, "source": source, "path": path})
                for source in (1, 2)
            ],
            SHORT,
            MINUTE,
        )
        for name, path in (("new", 1), ("old", 2), ("challenges", 3))
    },
    "path-of-nobody": write(0, UP, (Step.TELL, {"state": 1, "source": 1}), SILENCE),
    "path-beyond-the-budget": write(
        0,
        (Step.INIT, {"ephemeral": 9, "parameters": 1}),
        *[(Step.TELL, {"state": 1})] * 3,
        *[(Step.TELL, {"state": 1, "source": 1})] * 2,
        _run(SECOND, 0),
    ),
    "path-answered-falsely": write(
        0,
        UP,
        (Step.TELL, {"state": 1, "source": 1}),
        (Step.TELL, {"state": 1, "type": 1, "source": 1, "options": b"\x07\x08" + bytes(8)}),
        SILENCE,
    ),
    "clocks": write(CLOCKS, UP, SHORT, _restarted(0), MINUTE),
    "clocks-of-liars": write(
        CLOCKS,
        (Step.INIT, {"ephemeral": 9, "options": CLOCK_0}),
        (Step.TELL, {"state": 1, "hold": 4295 * SECOND}),
        (Step.RESPONSE, {"ephemeral": 9, "options": CLOCK_0}),
        (Step.TELL, {"side": ON_CLIENT, "state": 1, "age": SECOND}),
        SHORT,
    ),
    "told-control-state": write(
        0,
        UP,
        *[
            _told(side, version, options)
            for side in (0, 1)
            for version, options in (
                (1, INTERVAL_1_US),
                (1, SLOW_DOWN_1_S),
                (0, ADMIN_DOWN),
                (255, ADMIN_DOWN),
                (7, SLOW_DOWN_1_S + ADMIN_UP),
                (8, b"\x08\x10" + bytes(16)),
                (9, PAUSE_10_S + ADMIN_DOWN),
                (10, ADMIN_UP),
            )
        ],
        SHORT,
        MINUTE,
    ),
    "told-to-pause-again-and-again": write(
        0,
        UP,
        *[
            step
            for at in range(24)
            for step in (_told(0, 2 + at, PAUSE_1_HOUR), _stall(30 * SECOND))
        ],
    ),
    "told-to-be-down-again-and-again": write(
        0,
        UP,
        *[
            step
            for at in range(12)
            for step in (
                _told(0, 1 + 2 * at, ADMIN_DOWN),
                _stall(3600 * SECOND),
                _told(0, 2 + 2 * at, ADMIN_UP),
            )
        ],
    ),
    "control-state-confirmed-by-a-liar": write(
        0,
        UP,
        *[
            step
            for verb in (Verb.CHANGE_INTERVALS, Verb.CHANGE_KEY, Verb.PAUSE, Verb.ADMIN_DOWN)
            for step in (
                _call(verb, ON_CLIENT, duration=SECOND),
                _told(ON_CLIENT, 0, b"", ack=255),
                _told(ON_CLIENT, 0, b"", ack=0),
            )
        ],
        SHORT,
    ),
}

# What is played inside QUIC as well.
CARRIED_TOO: Final = (
    *("healthy", "healthy-fastest", "no-answer", "down-and-back", "one-way-to-server"),
    *("one-way-to-client", "stalls", "replayed", "reflected", "damaged", "rebound"),
    *("told-options", "told-lies", "closed-by-client", "closed-by-server", "closed-crossing"),
    *("paused", "worn-out", "three-sessions", "more-embryos-than-fit", "embryos-spoken-to"),
    *("taken-over", "lying-responder", "close-reason-in-handshake", "deaf"),
    *("intervals-changed", "slowed-down", "probed-too-often", "taken-down-by-client"),
    *("taken-down-by-both", "meeting", "client-restarted", "server-restarted", "phases"),
    *("key-changed", "rebound-silently", "path-answered-by-liar-new", "clocks"),
    *("told-control-state", "told-to-pause-again-and-again"),
)

# What broke an invariant once, cut down to what it takes.
FOUND: Final[dict[str, bytes]] = {
    # A closed session began a handshake and never ended.
    "redirect-after-close": write(
        0, _call(Verb.CLOSE_ALL, ON_CLIENT), _call(Verb.REDIRECT, ON_CLIENT)
    ),
    # Another INIT with the same ephemeral key, even under another PSK, got the first one's answer.
    "ephemeral-used-twice": write(
        0,
        (Step.INIT, {"ephemeral": 9}),
        (Step.INIT, {"ephemeral": 9, "key": 1, "session_id": 1, "source": 1}),
    ),
    # A peer that desired an interval of 1 us got it.
    "interval-of-1-us": write(
        3, (Step.INIT, {"ephemeral": 9, "parameters": 1}), (Step.TELL, {"state": 1}), UP
    ),
    # A responder whose pause ended in DOWN or HALF_OPEN never probed again.
    "pause-of-peer-ends-in-down": write(
        1,
        UP,
        _run(3 * SECOND, 0),
        (Step.TELL, {"state": 4} | PAUSED),
        _run(10 * SECOND, 0),
        _run(6 * SECOND, 0),
    ),
    "own-pause-ends-in-down": write(
        1, UP, _run(3 * SECOND, 0), _call(Verb.PAUSE, duration=3 * SECOND), _run(10 * SECOND, 0)
    ),
    "pause-ends-in-half-open": write(
        1,
        UP,
        *[_run(SECOND, TO_SERVER)] * 2,
        (Step.TELL, {"state": 2} | PAUSED),
        _run(10 * SECOND, 0),
        _run(6 * SECOND, 0),
    ),
    # The probe that asks for the own address met the end of the packet numbers: KeyError.
    "worn-out-when-address-changes": write(
        0,
        UP,
        (Step.TELL, {"side": ON_CLIENT, "state": 1}),
        _call(Verb.WEAR_OUT, ON_CLIENT),
        *[(Step.TELL, {"side": ON_CLIENT, "state": 1})] * 2,
        (Step.TELL, {"side": ON_CLIENT, "state": 1, "address_hash": 9}),
    ),
    "worn-out-when-closed-from-elsewhere": write(
        0,
        UP,
        (Step.TELL, {"side": ON_CLIENT, "state": 1}),
        _call(Verb.WEAR_OUT, ON_CLIENT),
        *[(Step.TELL, {"side": ON_CLIENT, "state": 1})] * 2,
        (
            Step.TELL,
            {
                "side": ON_CLIENT,
                "state": 1,
                "type": 2,
                "address_hash": 9,
                "options": CLOSE_REASON,
            },
        ),
    ),
    # A frame that said ADMIN was told twice, as it may bring evidence too.
    "taken-down-is-told-twice": write(0, UP, _told(0, 1, ADMIN_DOWN), _told(0, 2, ADMIN_UP)),
    # Nothing was probed any more when a pause ended in ADMIN_DOWN.
    "pause-ends-in-admin-down": write(
        0,
        UP,
        _call(Verb.PAUSE, ON_CLIENT, duration=61 * SECOND),
        _call(Verb.ADMIN_DOWN, ON_CLIENT),
        _run(61 * SECOND, 0),
        SHORT,
    ),
    # The restart of a peer that was taken down hid a change of state, ...
    "restarted-in-admin-down": write(
        0, UP, _call(Verb.ADMIN_DOWN, ON_CLIENT), UP, _restarted(ON_CLIENT, connects=True), SHORT
    ),
    # ... and where it had paused, it was not judged until that pause would have ended.
    "restarted-in-a-pause": write(
        0,
        UP,
        _call(Verb.PAUSE, ON_CLIENT, duration=61 * SECOND),
        UP,
        _restarted(ON_CLIENT, connects=True),
        SHORT,
    ),
    # A restart ended ADMIN_DOWN, and this side judged in a pause of its own.
    "restarted-in-both": write(
        0,
        UP,
        _call(Verb.PAUSE, duration=30 * SECOND),
        _call(Verb.ADMIN_DOWN, ON_CLIENT),
        UP,
        _restarted(ON_CLIENT, connects=True),
        SHORT,
    ),
    # Of two first handshakes with one address the older one was not found.
    "two-meet-two": write(
        MEETING | NOBODY_ACCEPTS, _call(Verb.CONNECT), _call(Verb.CONNECT, ON_CLIENT), UP, SHORT
    ),
}

if __name__ == "__main__":
    main()
