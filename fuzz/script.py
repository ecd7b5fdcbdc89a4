"""An input of the endpoint target as a script: what each byte means, to read and to write.

Two bytes of setting, then steps: the byte of the step, then its arguments in the order of
ARGUMENTS. Past its end a script reads as zeros, and a byte beyond a table wraps around, so every
byte string is a script and every small change of one is a small change of what happens.
"""

from collections.abc import Iterator
from enum import IntEnum, auto
from typing import Any, Final, NamedTuple

from kaudp.units import MICROSECOND, MILLISECOND, SECOND

DURATIONS: Final = (
    0,
    1,
    MICROSECOND,
    MILLISECOND,
    20 * MILLISECOND,
    100 * MILLISECOND,
    101 * MILLISECOND,
    500 * MILLISECOND,
    SECOND,
    3 * SECOND,
    6 * SECOND,
    10 * SECOND,
    30 * SECOND,
    61 * SECOND,
    600 * SECOND,
    1200 * SECOND,
    3600 * SECOND,
    4295 * SECOND,  # the 32-bit times of the wire have wrapped
    90_000 * SECOND,
)


class Step(IntEnum):
    """What may happen next."""

    RUN = 0
    """Time passes; timers fire on time; `reach` tells which directions deliver."""
    STALL = auto()
    """Time passes and nothing runs; then what is on the wire arrives, then timers fire late."""
    DELIVER = auto()
    """A datagram that was sent before arrives, perhaps again, from `source`."""
    DAMAGE = auto()
    """The same, but cut, longer or with a bit flipped."""
    STRANGER = auto()
    """Bytes of the script arrive."""
    SEAL = auto()
    """A body of the script's own arrives under keys of the session: a malicious peer."""
    TELL = auto()
    """A body with plausible fields and the script's options arrives under keys of the session."""
    INIT = auto()
    """A handshake of a malicious initiator begins."""
    RESPONSE = auto()
    """A malicious responder answers a handshake that waits."""
    APPLICATION = auto()
    """The application calls a verb."""
    DEAF = auto()
    """The application stops, or starts again, to read events."""
    COOKIE = auto()
    """A malicious responder asks for a cookie: for a handshake that waits, or one that is over."""
    MOVE = auto()
    """What a side sends comes from another address from now on; the one before may lead nowhere."""
    RESTART = auto()
    """An endpoint is gone without a word and starts anew at the same address."""
    FLOOD = auto()
    """A malicious peer probes far more often than agreed."""


class Verb(IntEnum):
    """What an application may call."""

    CONNECT = 0
    CLOSE = auto()
    CLOSE_ALL = auto()
    PAUSE = auto()
    RESUME = auto()
    REDIRECT = auto()
    UNREACHABLE = auto()
    RECEIVED = auto()
    SENT = auto()
    WEAR_OUT = auto()
    """The packet numbers of the session are nearly used up."""
    ABANDON = auto()
    """The QUIC connection that carried the frames has ended."""
    CHANGE_INTERVALS = auto()
    """The duration becomes `interval_ms` at the initiator, the least received at the responder."""
    SLOW_DOWN = auto()
    ADMIN_DOWN = auto()
    ADMIN_UP = auto()
    CHANGE_KEY = auto()
    """Go over to the other one of the two pre-shared keys."""


ARGUMENTS: Final[dict[Step, dict[str, str]]] = {
    Step.RUN: {"duration": "time", "reach": "byte"},
    Step.STALL: {"duration": "time", "reach": "byte"},
    Step.DELIVER: {"side": "byte", "back": "byte", "source": "byte"},
    Step.DAMAGE: {"side": "byte", "back": "byte", "source": "byte", "how": "byte", "at": "word"},
    Step.STRANGER: {"side": "byte", "source": "byte", "data": "bytes"},
    Step.SEAL: {
        "side": "byte",
        "channel": "byte",
        "source": "byte",
        "type": "byte",
        "flags": "byte",
        "ahead": "byte",
        "phase": "byte",
        "plaintext": "bytes",
    },
    Step.TELL: {
        "side": "byte",
        "channel": "byte",
        "source": "byte",
        "type": "byte",
        "ahead": "byte",
        "phase": "byte",
        "state": "byte",
        "control": "byte",
        "ack": "byte",
        "path": "byte",
        "unconfirmed": "byte",
        "age": "time",
        "hold": "time",
        "address_hash": "byte",
        "options": "bytes",
    },
    Step.INIT: {
        "side": "byte",
        "key": "byte",
        "source": "byte",
        "ephemeral": "byte",
        "session_id": "byte",
        "old": "byte",
        "instance": "byte",
        "epoch": "byte",
        "cookie": "byte",
        "parameters": "byte",
        "options": "bytes",
    },
    Step.RESPONSE: {
        "side": "byte",
        "attempt": "byte",
        "ephemeral": "byte",
        "instance": "byte",
        "epoch": "byte",
        "parameters": "byte",
        "options": "bytes",
    },
    Step.APPLICATION: {"side": "byte", "verb": "byte", "session": "byte", "duration": "time"},
    Step.DEAF: {"side": "byte"},
    Step.COOKIE: {
        "side": "byte",
        "attempt": "byte",
        "source": "byte",
        "nonce": "byte",
        "cookie": "byte",
    },
    Step.MOVE: {"side": "byte", "to": "byte", "cut": "byte"},
    Step.RESTART: {"side": "byte", "how": "byte"},
    Step.FLOOD: {"side": "byte", "channel": "byte", "state": "byte", "times": "byte"},
}


class Line(NamedTuple):
    """One step with its arguments by name."""

    step: Step
    arguments: dict[str, Any]

    def __str__(self) -> str:
        shown = (f"{name}={_shown(value)}" for name, value in self.arguments.items())
        return f"{self.step.name} {' '.join(shown)}"


class Reader:
    """Reads a script."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """Read one byte."""
        return int.from_bytes(self._take(1), "big")

    def setting(self) -> int:
        """Read the two bytes that begin a script, the lower one first."""
        return int.from_bytes(self._take(2), "little")

    def lines(self, limit: int) -> Iterator[Line]:
        """Read the steps, at most `limit` of them."""
        while self._at < len(self._data) and limit:
            step = Step(self.byte() % len(Step))
            kinds = ARGUMENTS[step].items()
            yield Line(step, {name: self._argument(kind) for name, kind in kinds})
            limit -= 1

    def _argument(self, kind: str) -> Any:
        if kind == "bytes":
            return self._take(int.from_bytes(self._take(2), "big") % 600)
        if kind == "word":
            return int.from_bytes(self._take(2).ljust(2, b"\0"), "big")
        return DURATIONS[self.byte() % len(DURATIONS)] if kind == "time" else self.byte()

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += count
        return taken


def write(setting: int, *lines: tuple[Step, dict[str, Any]]) -> bytes:
    """Write a script; arguments that are not given are zero."""
    return setting.to_bytes(2, "little") + b"".join(_written(step, given) for step, given in lines)


def _written(step: Step, given: dict[str, Any]) -> bytes:
    unknown = set(given) - set(ARGUMENTS[step])
    assert not unknown, f"{step.name} takes no {unknown}"
    arguments = ARGUMENTS[step].items()
    return bytes([step]) + b"".join(_encoded(kind, given.get(name)) for name, kind in arguments)


def _encoded(kind: str, value: Any) -> bytes:
    if kind == "bytes":
        return len(value or b"").to_bytes(2, "big") + (value or b"")
    if kind == "word":
        return (value or 0).to_bytes(2, "big")
    return bytes([DURATIONS.index(value or 0) if kind == "time" else value or 0])


def _shown(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
