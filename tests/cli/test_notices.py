"""Every event can be told, in words and as facts."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from kaudp import events
from kaudp.cli.notices import KINDS, event_facts, say_event
from kaudp.cli.output import Output
from kaudp.cli.wording import address_text, amount, share, span
from kaudp.events import (
    CloseReason,
    ConnectFailed,
    DownReason,
    Event,
    IntervalAdjusted,
    IntervalChanged,
    KeyChanged,
    KeyChangeFailed,
    ModeChosen,
    OwnAddressChanged,
    PeerAddressChanged,
    PeerPaused,
    PeerRestarted,
    QuicMode,
    RoundTrip,
    SessionAdminDown,
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
    State,
)
from kaudp.units import SECOND

SESSION: Any = SimpleNamespace(address=("192.0.2.1", 4711))
OLD, NEW = ("192.0.2.1", 4711), ("::ffff:192.0.2.2", 4712, 0, 0)
TOLD = [
    (SessionUp(SESSION, 0, State.CONNECTING), "UP: the handshake is done"),
    (SessionUp(SESSION, 0, State.DOWN), "UP: was DOWN"),
    (SessionSuspect(SESSION, 0, State.UP), "SUSPECT: "),
    (SessionHalfOpen(SESSION, 0), "HALF_OPEN: "),
    (SessionDown(SESSION, 0, DownReason.UNREACHABLE_REPORTED), "reported it unreachable"),
    (SessionClosed(SESSION, 0, CloseReason.SHUTDOWN, True), "CLOSED: SHUTDOWN, by the peer"),
    (SessionClosed(SESSION, 0, 0x8001, False), "CLOSED: 0x8001, by this side"),
    (SessionClosed(SESSION, 0, CloseReason.CARRIER_IDLE, False, "idle"), "by this side; idle"),
    (ConnectFailed(SESSION, 0, True), "unreachable"),
    (ConnectFailed(SESSION, 0, False, "TLS alert"), "CONNECT_FAILED: TLS alert"),
    (PeerRestarted(SESSION, 0), "PEER_RESTARTED: "),
    (PeerAddressChanged(SESSION, 0, OLD, NEW), "from 192.0.2.1:4711 to 192.0.2.2:4712"),
    (OwnAddressChanged(SESSION, 0, OLD, ("2001:db8::1", 9)), "sees us at [2001:db8::1]:9"),
    (OwnAddressChanged(SESSION, 0, OLD, None), "sees us at another address"),
    (PeerPaused(SESSION, 0, 2 * SECOND), "no judgement for 2 s"),
    (PeerPaused(SESSION, 0, 0), "the pause is over"),
    (ModeChosen(SESSION, 0, QuicMode.PING, "ALPN is h3"), "MODE: ping: ALPN is h3"),
    (SessionAdminDown(SESSION, 0, State.UP, True), "ADMIN_DOWN: taken down by an operator there"),
    (IntervalChanged(SESSION, 0, SECOND, 5 * SECOND), "from 1 s to 5 s"),
    (KeyChanged(SESSION, 0, b"a", b"b"), "KEY_CHANGED: now under key 62"),
    (KeyChangeFailed(SESSION, 0, b"b"), "no answer under key 62"),
    (IntervalAdjusted(SESSION, 0, 2 * SECOND, SECOND, "idle"), "warning: 1 s instead of 2 s: idle"),
]


def test_every_kind_of_event_has_words() -> None:
    assert {type(event) for event, _ in TOLD} == set(KINDS)
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type)]
    told_apart = {kind for kind in kinds if issubclass(kind, Event)} - {Event, RoundTrip}
    assert set(KINDS) == told_apart


@pytest.mark.parametrize(("event", "words"), TOLD, ids=lambda part: type(part).__name__)
def test_an_event_is_told(event: Event, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_event(event, Output(as_json=False), peer=True)
    line = capsys.readouterr().out
    assert " 192.0.2.1:4711 " in line
    assert words in line
    say_event(event, Output(as_json=True), peer=True)
    facts = json.loads(capsys.readouterr().out)
    assert (facts["event"], facts["peer"]) == (type(event).__name__, "192.0.2.1:4711")


def test_facts_are_plain_values() -> None:
    chosen = event_facts(ModeChosen(SESSION, 0, QuicMode.PING, "ALPN is h3"))
    assert (chosen["mode"], chosen["why"]) == ("ping", "ALPN is h3")
    adjusted = event_facts(IntervalAdjusted(SESSION, 0, 2 * SECOND, SECOND, "idle"))
    assert (adjusted["asked"], adjusted["interval"]) == (2, 1)
    nowhere: Any = SimpleNamespace(address=None)
    failed = event_facts(ConnectFailed(nowhere, 0, False, "TLS alert"))
    assert (failed["peer"], failed["detail"]) == (None, "TLS alert")


def test_values_are_written_for_people() -> None:
    assert [span(time) for time in (0, 7, 1_500, 2_000_000, 75_300_417_000)] == [
        "0 s",
        "7 ns",
        "1.5 µs",
        "2 ms",
        "75.300417 s",
    ]
    assert [share(part) for part in (None, 0.0, 0.0833, 1.0)] == ["-", "0%", "8.3%", "100%"]
    assert [amount(count, "frame") for count in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]
    assert address_text("a carrier's own") == "a carrier's own"
