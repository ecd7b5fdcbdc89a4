"""The public names, pinned: adding one is a decision, removing one breaks users."""

import inspect

import kaudp
from kaudp.events import Event

PUBLIC = {
    *("AddressError", "Attachment", "CloseReason", "Config", "ConfigError", "ConnectFailed"),
    *("IntervalAdjusted", "ModeChosen", "QlogFile", "QuicError", "QuicMode", "attach_quic"),
    *("Connection", "DetectorKind", "DownReason", "Driver", "DropReason", "Endpoint", "Event"),
    *("KaudpError", "KeyFormatError", "KeySource", "MasterKey", "OwnAddressChanged"),
    *("PeerAddressChanged", "PeerPaused", "PeerRestarted", "PresharedKey", "RoundTrip", "Server"),
    *("Session", "SessionClosed", "SessionDown", "SessionHalfOpen", "SessionStateError"),
    *("IntervalChanged", "KeyChanged", "KeyChangeFailed", "SessionAdminDown"),
    *("SessionSuspect", "SessionUp", "State", "Stats", "attach", "connect", "serve"),
    *("KeylogFile", "Tally", "metrics_collector"),
}


def test_public_names() -> None:
    assert set(kaudp.__all__) == PUBLIC
    assert all(hasattr(kaudp, name) for name in PUBLIC)
    assert kaudp.__all__ == sorted(kaudp.__all__)


def test_public_names_are_documented() -> None:
    for name in PUBLIC - {"KeySource"}:
        thing = getattr(kaudp, name)
        assert inspect.getdoc(thing), name
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and callable(value):
                    assert inspect.getdoc(value), f"{name}.{member}"


def test_every_kind_of_event_is_public() -> None:
    kinds = {kind.__name__ for kind in Event.__subclasses__()}
    assert kinds <= PUBLIC


def test_signatures_of_the_core() -> None:
    shown = {
        name: str(inspect.signature(getattr(kaudp.Endpoint, name))).replace("'", "")
        for name in ("connect", "receive_datagram", "handle_timer", "next_timer", "next_event")
    }
    assert shown["connect"].startswith("(self, addr: ")
    assert "*, key_id: bytes) ->" in shown["connect"]
    assert shown["receive_datagram"].endswith("now: int) -> bool")
    assert shown["handle_timer"] == "(self, now: int) -> None"
    assert shown["next_timer"] == "(self) -> int | None"
    for verb in (
        *("close", "pause", "note_application_received", "note_application_sent"),
        *("change_intervals", "slow_down", "admin_down", "admin_up", "change_key"),
    ):
        assert "now" in inspect.signature(getattr(kaudp.Session, verb)).parameters
