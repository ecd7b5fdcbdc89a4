"""What the value of a field means, for people. Named by the fields of the grammar."""

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final

from kaudp.cli.wording import amount, span
from kaudp.events import CloseReason, State
from kaudp.units import MAX_UINT32, MICROSECOND, MILLISECOND
from kaudp.wire.grammar import (
    CRITICAL,
    KEY_PHASE,
    SUITE_CARRIED,
    SUITE_NNPSK0_25519_AESGCM_SHA256,
    AddressFamily,
    FrameType,
    OptionType,
)

_DIAGNOSTICS: Final = {
    0: "nothing to say",
    1: "detection time expired",
    2: "the path is one-way",
}
_SUITES: Final = {
    SUITE_CARRIED: "carried: in clear, inside QUIC",
    SUITE_NNPSK0_25519_AESGCM_SHA256: "NNpsk0_25519_AESGCM_SHA256",
}
_HEXADECIMAL: Final = {
    "magic": 2,
    "type": 2,
    "version": 2,
    "suite": 2,
    "flags": 2,
    "features": 4,
    "address_hash": 8,
}


def shown(name: str, value: Any) -> str:  # noqa: ANN401
    """Write a value the way it is usually read."""
    if isinstance(value, bytes):
        return amount(len(value), "byte") if name.startswith("sealed") else value.hex() or "(empty)"
    if name in _HEXADECIMAL:
        return f"0x{value:0{_HEXADECIMAL[name]}x}"
    return str(value)


def meaning(name: str, value: Any) -> str:  # noqa: ANN401
    """Say what a value stands for; empty where there is nothing to add."""
    explain = _MEANINGS.get(name)
    return "" if explain is None else explain(value)


def option_name(option_type: int) -> str | None:
    """Name a type of option, None where it is not known."""
    try:
        return OptionType(option_type).name
    except ValueError:
        return None


def unknown_option(option_type: int) -> str:
    """Say what becomes of an option of unknown type."""
    fate = "voids the frame" if option_type >= CRITICAL else "skipped"
    return f"unknown option 0x{option_type:02x}, {fate}"


def _member(kind: type[IntEnum], otherwise: str) -> Callable[[int], str]:
    def name(value: int) -> str:
        try:
            return kind(value).name
        except ValueError:
            return otherwise

    return name


def _microseconds(value: int) -> str:
    return span(value * MICROSECOND)


def _clock(value: int) -> str:
    return f"{_microseconds(value)} on the session's clock"


def _flags(value: int) -> str:
    if value & ~KEY_PHASE:
        return "reserved bits are set"
    return "an odd phase of the keys" if value else ""


def _time_of_day(value: int) -> str:
    try:
        return datetime.fromtimestamp(value / 1_000_000, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return "beyond all calendars"


def _hold_time(value: int) -> str:
    return "that long or longer" if value == MAX_UINT32 else _microseconds(value)


def _pause(value: int) -> str:
    return span(value * MILLISECOND) if value else "the pause ends"


def _close_reason(value: int) -> str:
    return _member(CloseReason, "the application's own" if value >= 0x8000 else "unassigned")(value)


_MEANINGS: Final[Mapping[str, Callable[[Any], str]]] = {
    "type": _member(FrameType, "no type"),
    "version": lambda value: f"kaudp/{value & 0x7F}",
    "suite": lambda value: _SUITES.get(value, "unknown"),
    "flags": _flags,
    "cookie": lambda value: "" if any(value) else "none",
    "old_session_id": lambda value: "" if any(value) else "none",
    "desired_interval_us": _microseconds,
    "min_receive_interval_us": _microseconds,
    "suspicion_interval_us": _microseconds,
    "features": lambda value: "reports application traffic" if value & 1 else "",
    "state": _member(State, "no state"),
    "diagnostic": lambda value: _DIAGNOSTICS.get(value, "unassigned"),
    "sent_time": _clock,
    "echo_time": _clock,
    "hold_time": _hold_time,
    "highest_received": lambda value: "" if value else "none",
    "family": _member(AddressFamily, "unknown"),
    "address": lambda value: str(ipaddress.ip_address(value)),
    "duration_ms": _pause,
    "down": lambda value: "taken down" if value else "up again",
    "utc_us": _time_of_day,
    "reason": _close_reason,
}
