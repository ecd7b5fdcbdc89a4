"""Which mode fits a connection, and which interval. Pure functions. Spec: sections 14.5, 14.6."""

from dataclasses import replace
from typing import Final, NamedTuple

from kaudp.config import MAX_DETECTION_TIME, Config, DetectorKind
from kaudp.errors import ConfigError, QuicError
from kaudp.events import QUIC_ALPN, Mode, QuicMode
from kaudp.units import MILLISECOND

MIN_DATAGRAM_FRAME_BYTES: Final = 160
# RFC 9221, section 3: the value that accepts frames of any size.
MAX_DATAGRAM_FRAME_SIZE: Final = 65536
MIN_INTERVAL_MS: Final = 10
MIN_NAT_KEEPALIVE_MS: Final = 1_000
_MS_PER_S: Final = 1_000


class Choice(NamedTuple):
    """A mode and why it is that one."""

    mode: QuicMode
    why: str


def parse_mode(mode: Mode) -> QuicMode | None:
    """Read a mode; None stands for auto. Raises `ConfigError`."""
    if isinstance(mode, QuicMode):
        return mode
    if mode == "auto":
        return None
    try:
        return QuicMode(mode)
    except ValueError:
        raise ConfigError(
            f"mode: expected 'auto', 'datagram', 'stream' or 'ping', got {mode!r}"
        ) from None


def choose(
    asked: QuicMode | None, *, alpn: str | None, speaks_kaudp: bool, own: int, peer: int
) -> Choice:
    """Choose the mode of a connection. Spec: KA-14.2-1, KA-14.5-1, KA-14.5-2.

    `own` and `peer` are the longest DATAGRAM frames, in bytes, that each side advertises.
    Raises `QuicError` when the connection cannot do what was asked.
    """
    enough = min(own, peer) >= MIN_DATAGRAM_FRAME_BYTES
    if asked is QuicMode.DATAGRAM and not enough:
        raise QuicError(
            f"mode datagram: expected both sides to take DATAGRAM frames of "
            f"{MIN_DATAGRAM_FRAME_BYTES} bytes or more, got {own} on this side "
            f"(QuicConfiguration.max_datagram_frame_size) and {peer} on the peer's"
        )
    if asked is not None:
        return Choice(asked, "it was asked for")
    if alpn != QUIC_ALPN and not speaks_kaudp:
        return Choice(
            QuicMode.PING, f"ALPN is {alpn or 'none'}, so the peer is not known to speak kaudp"
        )
    if enough:
        return Choice(QuicMode.DATAGRAM, "both sides speak kaudp and take DATAGRAM frames")
    lacking = "this side" if own < MIN_DATAGRAM_FRAME_BYTES else "the peer"
    return Choice(QuicMode.STREAM, f"both sides speak kaudp, but {lacking} takes no DATAGRAM")


def fit(config: Config, *, idle_timeout_s: float, probe_timeout_s: float) -> Config:
    """Bring the intervals into what QUIC's own timers allow. Spec: KA-14.6-1, KA-14.6-4."""
    legal = _longest_legal_interval_ms(config)
    least = int(min(1.5 * probe_timeout_s * _MS_PER_S + 1, legal))
    most = int(max(MIN_INTERVAL_MS, min(idle_timeout_s / 2 * _MS_PER_S, legal)))
    interval = min(max(config.interval_ms, least), most)
    return replace(
        config,
        interval_ms=interval,
        min_receive_interval_ms=min(config.min_receive_interval_ms, most),
        deadline_ms=max(config.deadline_ms, interval),
        nat_keepalive_ms=max(MIN_NAT_KEEPALIVE_MS, min(config.nat_keepalive_ms or most, most)),
        allow_short_nat_keepalive=True,
    )


def _longest_legal_interval_ms(config: Config) -> int:
    """Tell how far QUIC, whose PTO a peer may raise, can stretch an interval. KA-11-1."""
    left = MAX_DETECTION_TIME // MILLISECOND - config.min_suspicion_ms
    return left if config.detector is DetectorKind.DEADLINE else left // config.multiplier
