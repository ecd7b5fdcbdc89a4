"""What happens, for `logging`: the logger "kaudp", silent until the application asks for it.

No line holds a secret. What a stranger can cause is logged at DEBUG only, and in bounded number.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, Final

from kaudp.core.paths import Address
from kaudp.errors import DropReason
from kaudp.events import (
    ConnectFailed,
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
    SessionAdminDown,
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
)
from kaudp.units import SECOND

LOGGER: Final = logging.getLogger("kaudp")
LOGGER.addHandler(logging.NullHandler())

REFUSALS_SPACING: Final = SECOND

# A round trip is a number, not news: it has no level.
LEVELS: Final[Mapping[type[Event], int]] = {
    ConnectFailed: logging.WARNING,
    KeyChangeFailed: logging.WARNING,
    PeerRestarted: logging.WARNING,
    SessionDown: logging.WARNING,
    SessionHalfOpen: logging.WARNING,
    IntervalAdjusted: logging.INFO,
    IntervalChanged: logging.INFO,
    KeyChanged: logging.INFO,
    SessionAdminDown: logging.INFO,
    OwnAddressChanged: logging.INFO,
    PeerAddressChanged: logging.INFO,
    SessionClosed: logging.INFO,
    SessionUp: logging.INFO,
    ModeChosen: logging.DEBUG,
    PeerPaused: logging.DEBUG,
    SessionSuspect: logging.DEBUG,
}


def log_event(event: Event) -> None:
    """Log an event with its peer and the public id of the key."""
    level = LEVELS.get(type(event))
    if level is None or not LOGGER.isEnabledFor(level):
        return
    session = event.session
    LOGGER.log(
        level,
        "%s peer=%s key_id=%s%s",
        type(event).__name__,
        _plain(session.address),
        session.key_id.hex() or "none",
        "".join(
            f" {field.name}={_plain(getattr(event, field.name))}"
            for field in fields(event)
            if field.name not in ("session", "time")
        ),
    )


class Refusals:
    """Logs refused datagrams at DEBUG: for each reason a line a second at most, with their number.

    Endpoints that serve as one share theirs.
    """

    def __init__(self) -> None:
        self._waiting: Counter[DropReason] = Counter()
        self._logged_at: dict[DropReason, int] = {}

    def note(self, reason: DropReason, address: Address, now: int) -> None:
        """Count a datagram; log the count if the last line of this reason is a second old."""
        if not LOGGER.isEnabledFor(logging.DEBUG):
            return
        self._waiting[reason] += 1
        logged_at = self._logged_at.get(reason)
        if logged_at is None or now - logged_at >= REFUSALS_SPACING:
            self._logged_at[reason] = now
            self._log(reason, f", the last from {_plain(address)}")

    def flush(self) -> None:
        """Log the counts that wait."""
        for reason in list(self._waiting):
            self._log(reason, "")

    def _log(self, reason: DropReason, source: str) -> None:
        count = self._waiting.pop(reason)
        LOGGER.debug("datagrams refused: %d %s%s", count, reason.value, source)


def _plain(value: Any) -> str:  # noqa: ANN401
    """Write a value as one word, or between quotation marks."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, tuple) and len(value) in (2, 4):
        host, port = value[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    if value is None or isinstance(value, int):
        return str(value)
    return repr(value)
