"""kaudp: authenticated heartbeats for UDP and QUIC services.

Keeps NAT bindings open and tells, quickly and truthfully, whether the peer is alive, on the
application's own socket. The protocol is specified in spec/kaudp.md.
"""

from kaudp.config import Config, DetectorKind
from kaudp.core.endpoint import Endpoint
from kaudp.core.session import Session
from kaudp.core.stats import Stats
from kaudp.core.totals import Tally
from kaudp.errors import (
    ConfigError,
    DropReason,
    KaudpError,
    KeyFormatError,
    QuicError,
    SessionStateError,
)
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
from kaudp.io.driver import Driver
from kaudp.io.entrance import attach_quic, connect, metrics_collector, serve
from kaudp.io.heart import Connection, Server
from kaudp.io.keylog import KeylogFile
from kaudp.io.qlog import QlogFile
from kaudp.io.sockets import AddressError
from kaudp.io.udp import Attachment, attach
from kaudp.wire.keys import KeySource, MasterKey, PresharedKey

__version__ = "0.1.0"

__all__ = [
    "AddressError",
    "Attachment",
    "CloseReason",
    "Config",
    "ConfigError",
    "ConnectFailed",
    "Connection",
    "DetectorKind",
    "DownReason",
    "Driver",
    "DropReason",
    "Endpoint",
    "Event",
    "IntervalAdjusted",
    "IntervalChanged",
    "KaudpError",
    "KeyChangeFailed",
    "KeyChanged",
    "KeyFormatError",
    "KeySource",
    "KeylogFile",
    "MasterKey",
    "ModeChosen",
    "OwnAddressChanged",
    "PeerAddressChanged",
    "PeerPaused",
    "PeerRestarted",
    "PresharedKey",
    "QlogFile",
    "QuicError",
    "QuicMode",
    "RoundTrip",
    "Server",
    "Session",
    "SessionAdminDown",
    "SessionClosed",
    "SessionDown",
    "SessionHalfOpen",
    "SessionStateError",
    "SessionSuspect",
    "SessionUp",
    "State",
    "Stats",
    "Tally",
    "attach",
    "attach_quic",
    "connect",
    "metrics_collector",
    "serve",
]
