"""What can go wrong: a user's mistake (raised) and a refused datagram (counted)."""

from enum import Enum


class KaudpError(Exception):
    """A user's mistake; the message says what was expected and what was given."""


class ConfigError(KaudpError, ValueError):
    """A configuration value, or a combination of values, is not legal."""


class KeyFormatError(KaudpError, ValueError):
    """A pre-shared key, key id or master secret is malformed. Never shows the secret."""


class SessionStateError(KaudpError):
    """A verb was called on a session that can no longer do it."""


class QuicError(KaudpError):
    """A QUIC connection cannot carry heartbeats in the mode asked for."""


class DropReason(Enum):
    """Why a datagram was refused. Spec: section 12, one counter for each."""

    NOT_KAUDP = "not_kaudp"
    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_KEY = "unknown_key"
    NOT_ACCEPTING = "not_accepting"
    BAD_TAG = "bad_tag"
    LINGERING = "lingering"
    REPLAY = "replay"
    MALFORMED = "malformed"
    RESERVED_FLAG = "reserved_flag"
    UNKNOWN_CRITICAL_OPTION = "unknown_critical_option"
    ACK_OF_UNSENT = "ack_of_unsent"
    OWN_EPOCH = "own_epoch"
    REFUSED = "refused"
    SESSION_LIMIT = "session_limit"
    UNEXPECTED = "unexpected"
    COOKIE_SENT = "cookie_sent"
    CROSSED = "crossed"


class Refused(Exception):
    """A datagram was refused on the way in. Caught in one place, counted by `reason`.

    `consumed` says whether a tag verified first: then the datagram is ours although it is
    dropped, and the application does not see it.
    """

    def __init__(self, reason: DropReason, detail: str = "", *, consumed: bool = False) -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.consumed = consumed
