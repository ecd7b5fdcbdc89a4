"""Events of a session in words and as facts."""

from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from typing import Any, Final, NamedTuple

from kaudp.cli.output import Output
from kaudp.cli.wording import address_text, seconds, span, time_of_day, wall_time
from kaudp.events import (
    CloseReason,
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
    QuicMode,
    SessionAdminDown,
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
    State,
)

_DURATIONS: Final = ("duration", "asked", "interval")


class Kind(NamedTuple):
    """How a kind of event is named, the state it tells of, and what there is to say of it."""

    label: str
    state: State | None
    detail: Callable[[Any], str]


def _up(event: SessionUp) -> str:
    if event.previous is State.CONNECTING:
        return "the handshake is done"
    return f"was {event.previous.name}; the peer lives and hears us"


def _closed(event: SessionClosed) -> str:
    reason = event.reason
    name = reason.name if isinstance(reason, CloseReason) else f"{reason:#06x}"
    closer = "by the peer" if event.by_peer else "by this side"
    return f"{name}, {closer}" + (f"; {event.detail}" if event.detail else "")


def _connect_failed(event: ConnectFailed) -> str:
    if event.detail:
        return event.detail
    hint = "; the network reported the address unreachable" if event.unreachable else ""
    return f"nobody answered the handshake{hint}"


def _own_address(event: OwnAddressChanged) -> str:
    where = "another address" if event.address is None else address_text(event.address)
    return f"the peer now sees us at {where}"


def _paused(event: PeerPaused) -> str:
    return f"no judgement for {span(event.duration)}" if event.duration else "the pause is over"


def _admin_down(event: SessionAdminDown) -> str:
    return f"taken down by an operator {'there' if event.by_peer else 'here'}"


def _interval(event: IntervalAdjusted) -> str:
    return f"warning: {span(event.interval)} instead of {span(event.asked)}: {event.why}"


KINDS: Final[dict[type[Event], Kind]] = {
    SessionUp: Kind("UP", State.UP, _up),
    SessionSuspect: Kind(
        "SUSPECT", State.SUSPECT, lambda _: "a sign of life is overdue; probing fast"
    ),
    SessionHalfOpen: Kind(
        "HALF_OPEN", State.HALF_OPEN, lambda _: "the peer is heard, but does not hear us"
    ),
    SessionDown: Kind("DOWN", State.DOWN, lambda event: event.reason.value),
    SessionClosed: Kind("CLOSED", State.CLOSED, _closed),
    ConnectFailed: Kind("CONNECT_FAILED", State.CLOSED, _connect_failed),
    PeerRestarted: Kind("PEER_RESTARTED", None, lambda _: "the peer started anew"),
    PeerAddressChanged: Kind(
        "PEER_ADDRESS_CHANGED",
        None,
        lambda event: f"from {address_text(event.previous)} to {address_text(event.address)}",
    ),
    OwnAddressChanged: Kind("OWN_ADDRESS_CHANGED", None, _own_address),
    PeerPaused: Kind("PEER_PAUSED", None, _paused),
    SessionAdminDown: Kind("ADMIN_DOWN", State.ADMIN_DOWN, _admin_down),
    IntervalChanged: Kind(
        "INTERVAL_CHANGED",
        None,
        lambda event: f"from {span(event.previous)} to {span(event.interval)}",
    ),
    KeyChanged: Kind("KEY_CHANGED", None, lambda event: f"now under key {event.key_id.hex()}"),
    KeyChangeFailed: Kind(
        "KEY_CHANGE_FAILED", None, lambda event: f"no answer under key {event.key_id.hex()}"
    ),
    ModeChosen: Kind("MODE", None, lambda event: f"{event.mode.value}: {event.why}"),
    IntervalAdjusted: Kind("INTERVAL_ADJUSTED", None, _interval),
}


def say_event(event: Event, output: Output, *, peer: bool) -> None:
    """Write a line about an event, with the session's peer where there are several sessions."""
    kind = KINDS[type(event)]
    words = [time_of_day(event.time)]
    if peer:
        words.append(address_text(event.session.address))
    words.append(f"{output.coloured(kind.label, kind.state)}: {kind.detail(event)}")
    output.say("event", " ".join(words), **event_facts(event))


def event_facts(event: Event) -> dict[str, Any]:
    """Give an event as plain values; durations in seconds."""
    peer = event.session.address
    facts: dict[str, Any] = {
        "time": wall_time(event.time).isoformat(timespec="milliseconds"),
        "peer": None if peer is None else address_text(peer),
        "event": type(event).__name__,
    }
    for field in fields(event)[2:]:
        value = getattr(event, field.name)
        both = isinstance(event, IntervalChanged)
        facts[field.name] = seconds(value) if both else _plain(field.name, value)
    return facts


def _plain(name: str, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, QuicMode):
        return value.value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if name in _DURATIONS:
        return seconds(value)
    if value is None or isinstance(value, int | str):
        return value
    return address_text(value)
