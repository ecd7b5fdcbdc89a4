"""What the end of a QUIC connection means for the sessions in it. Spec: section 14.7."""

from typing import Final, NamedTuple

from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import AlertDescription

from kaudp.events import QUIC_ALPN, CloseReason
from kaudp.io.quic.internals import Closing

APPLICATION_REASONS: Final = range(0x8000, 0x10000)
_CRYPTO_ERRORS: Final = range(0x100, 0x200)
_IDLE: Final = "Idle timeout"


class Ending(NamedTuple):
    """The reason of `SessionClosed`, whose doing it was, and what happened in words."""

    reason: CloseReason | int
    by_peer: bool
    detail: str


RESET: Final = Ending(
    CloseReason.CARRIER_RESET, True, "stateless reset: the peer has lost the connection"
)


def ending(event: ConnectionTerminated, closing: Closing, alpn: str | None) -> Ending:
    """Tell what a connection's end means. Spec: KA-14.7-1."""
    by_peer = closing is Closing.PEER
    if closing is Closing.NEITHER and event.reason_phrase == _IDLE:
        return Ending(CloseReason.CARRIER_IDLE, False, "idle timeout of the QUIC connection")
    detail = f"QUIC connection closed {_closer(closing)}: {_described(event)}"
    if event.frame_type is not None:
        clean = event.error_code == QuicErrorCode.NO_ERROR
        reason = CloseReason.CARRIER_CLOSED if clean else CloseReason.CARRIER_FAILED
        return Ending(reason, by_peer, detail)
    if by_peer and alpn == QUIC_ALPN and event.error_code <= CloseReason.KEY_EXHAUSTED:
        return Ending(CloseReason(event.error_code), True, detail)
    if by_peer and alpn == QUIC_ALPN and event.error_code in APPLICATION_REASONS:
        return Ending(event.error_code, True, detail)
    return Ending(CloseReason.CARRIER_CLOSED, by_peer, detail)


def error_code(reason: CloseReason | int) -> int:
    """Give the application error code that tells a peer a reason; 0 for what it may not hear."""
    told = reason <= CloseReason.KEY_EXHAUSTED or reason in APPLICATION_REASONS
    return int(reason) if told else 0


def _closer(closing: Closing) -> str:
    return {
        Closing.PEER: "by the peer",
        Closing.LOCAL: "by this side",
        Closing.NEITHER: "without a word",
    }[closing]


def _described(event: ConnectionTerminated) -> str:
    if event.frame_type is None:
        name = f"application error code {event.error_code:#x}"
    elif event.error_code in _CRYPTO_ERRORS:
        name = f"TLS alert {_alert(event.error_code - _CRYPTO_ERRORS.start)}"
    else:
        name = _transport_error(event.error_code)
    return f"{name}, {event.reason_phrase!r}" if event.reason_phrase else name


def _alert(code: int) -> str:
    try:
        return AlertDescription(code).name
    except ValueError:
        return str(code)


def _transport_error(code: int) -> str:
    try:
        return QuicErrorCode(code).name
    except ValueError:
        return f"error code {code:#x}"
