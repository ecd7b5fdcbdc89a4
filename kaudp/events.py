"""What an endpoint tells the application. Frozen values; no behaviour.

Every event carries the session it is about and the time of the core, in integer nanoseconds on
the scale of the `now` that the driver passes in.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Final, Literal

QUIC_ALPN: Final = "kaudp/1"


class State(IntEnum):
    """The state of a session; the values are those of the wire. Spec: section 6.1."""

    CONNECTING = 0
    UP = 1
    SUSPECT = 2
    HALF_OPEN = 3
    DOWN = 4
    ADMIN_DOWN = 5
    CLOSED = 6


class DownReason(Enum):
    """Why a session went DOWN."""

    DETECTION_TIME_EXPIRED = "detection time expired"
    UNREACHABLE_REPORTED = "detection time expired, and the network reported it unreachable"


class CloseReason(IntEnum):
    """Why a session closed. 0x8000 to 0xFFFF are the application's own. Spec: section 6.4."""

    NORMAL = 0
    SHUTDOWN = 1
    ADMINISTRATIVE = 2
    PROTOCOL_ERROR = 3
    KEY_EXHAUSTED = 4
    EXPIRED = 5
    CONNECT_FAILED = 6
    CARRIER_CLOSED = 7
    CARRIER_IDLE = 8
    CARRIER_RESET = 9
    CARRIER_FAILED = 10


class QuicMode(Enum):
    """How heartbeats travel inside a QUIC connection. Spec: section 14."""

    DATAGRAM = "datagram"
    STREAM = "stream"
    PING = "ping"


Mode = QuicMode | Literal["auto", "datagram", "stream", "ping"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to `session` at `time` (ns)."""

    session: Any
    time: int


@dataclass(frozen=True, slots=True)
class SessionUp(Event):
    """The peer is alive and hears us; `previous` is CONNECTING the first time."""

    previous: State


@dataclass(frozen=True, slots=True)
class SessionSuspect(Event):
    """A reply or a probe is overdue; fast probing has begun. Most suspicions end in UP."""

    previous: State


@dataclass(frozen=True, slots=True)
class SessionHalfOpen(Event):
    """The peer is heard, but does not confirm hearing us: the path is one-way."""


@dataclass(frozen=True, slots=True)
class SessionDown(Event):
    """The peer is gone, or no path to it works. Probing goes on with back-off."""

    reason: DownReason


@dataclass(frozen=True, slots=True)
class SessionClosed(Event):
    """The session is over; nothing follows. `by_peer` tells who closed it.

    `reason` is a `CloseReason`, or an int from 0x8000 of the application's own. `detail`
    describes the end of a QUIC connection in words.
    """

    reason: CloseReason | int
    by_peer: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ConnectFailed(Event):
    """Nobody answered the handshake in time; a wrong key is among the possible causes.

    `unreachable` tells whether the network reported the address unreachable meanwhile (a hint);
    `detail` what a QUIC connection failed for.
    """

    unreachable: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class PeerRestarted(Event):
    """A new handshake met another epoch: the peer started anew and knows nothing of before."""


@dataclass(frozen=True, slots=True)
class PeerAddressChanged(Event):
    """The session moved to another address of the peer, confirmed from there."""

    previous: Any
    address: Any


@dataclass(frozen=True, slots=True)
class OwnAddressChanged(Event):
    """The peer sees us at another address: a NAT rebound. (host, port), None if untold."""

    previous: tuple[str, int] | None
    address: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class PeerPaused(Event):
    """The peer asks not to be judged for `duration` ns from `time`; 0 ends a pause."""

    duration: int


@dataclass(frozen=True, slots=True)
class SessionAdminDown(Event):
    """An operator took the session down, here or (`by_peer`) there; nobody is judged meanwhile."""

    previous: State
    by_peer: bool


@dataclass(frozen=True, slots=True)
class IntervalChanged(Event):
    """Both sides have agreed on another probe interval, in ns. Spec: section 8.8."""

    previous: int
    interval: int


@dataclass(frozen=True, slots=True)
class KeyChanged(Event):
    """The session goes on under another pre-shared key. Spec: KA-4.8-3."""

    previous: bytes
    key_id: bytes


@dataclass(frozen=True, slots=True)
class KeyChangeFailed(Event):
    """The peer did not answer under the new key; the session stays under the old. KA-4.8-1."""

    key_id: bytes


@dataclass(frozen=True, slots=True)
class ModeChosen(Event):
    """Heartbeats travel in this mode of QUIC, and why. Spec: KA-14.5-1."""

    mode: QuicMode
    why: str


@dataclass(frozen=True, slots=True)
class IntervalAdjusted(Event):
    """A warning: QUIC's timers do not allow the interval asked for; both in ns. KA-14.6-1."""

    asked: int
    interval: int
    why: str


@dataclass(frozen=True, slots=True)
class RoundTrip(Event):
    """A round-trip time sample in ns; only with `Config.report_round_trips`.

    `packet_number` is that of the newest own frame the sample confirms: a gap is a loss.
    """

    packet_number: int
    rtt: int
