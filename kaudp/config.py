"""What a user may set. Frozen values; no behaviour but the check that they are legal."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any, Final

from kaudp.errors import ConfigError
from kaudp.units import MAX_UINT32, SECOND, milliseconds

MAX_DETECTION_TIME: Final = 1800 * SECOND
NAT_KEEPALIVE_FLOOR_MS: Final = 15_000


class DetectorKind(Enum):
    """Which rule gives the deadline of a verdict. Spec: section 7.5."""

    FIXED_MULTIPLIER = "fixed_multiplier"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings of an endpoint; durations are whole milliseconds.

    Raises `ConfigError` for a value out of its range or values that contradict each other.
    Start from a preset, `Config.lan()`, `.wan()`, `.mobile()` or `.server()`, and name what
    differs: `Config.wan(interval_ms=2_000)`.
    """

    interval_ms: int = 5_000
    """How often this side wants to probe, 10 to 3,600,000 ms. KA-8.1-1."""

    min_receive_interval_ms: int = 100
    """How often this side is willing to be probed, 0 to 3,600,000 ms. KA-8.1-1."""

    max_peer_interval_ms: int = 60_000
    """The longest probe interval this side judges by, 10 to 3,600,000 ms. KA-8.1-2."""

    detector: DetectorKind = DetectorKind.FIXED_MULTIPLIER
    """The rule for the verdict. Section 7.5."""

    multiplier: int = 3
    """Intervals without evidence until DOWN (fixed multiplier), 1 to 255. Section 7.5."""

    deadline_ms: int = 30_000
    """Time without evidence until DOWN (deadline), 100 to 1,800,000 ms. Section 7.5."""

    min_suspicion_ms: int = 1_000
    """The shortest suspicion that may end in DOWN, 0 to 600,000 ms. KA-7.5-1."""

    suspicion_interval_ms: int = 100
    """The smallest spacing of own probes in suspicion, 5 to 60,000 ms. KA-7.4-2."""

    suspicion_receive_interval_ms: int = 20
    """The smallest spacing of the peer's probes in suspicion, 0 to 60,000 ms. KA-7.4-2."""

    suspicion_receive_burst: int = 64
    """How many suspicion probes the peer may send at once, 3 to 65,535. KA-7.4-4."""

    nat_keepalive_ms: int | None = 25_000
    """Probe when none was sent for this long, 15,000 to 3,600,000 ms; None: off. KA-8.4-1."""

    allow_short_nat_keepalive: bool = False
    """Allow `nat_keepalive_ms` below 15,000, down to 1,000. KA-8.4-2."""

    connect_timeout_ms: int | None = 10_000
    """Give up a first handshake after this, 100 to 3,600,000 ms; None: never. KA-4.2-3."""

    up_confirmations: int = 3
    """Pieces of evidence that lead from DOWN to UP, 1 to 100. KA-7.6-2."""

    down_retention_ms: int = 300_000
    """How long a responder keeps a session that is DOWN, 0 to 86,400,000 ms. KA-7.6-4."""

    max_peer_pause_ms: int = 60_000
    """The longest pause of the peer that is honoured, 0 to 3,600,000 ms. KA-8.7-2."""

    max_peer_pause_sum_ms: int = 300_000
    """All of the peer's pauses in an hour, 0 to 3,600,000 ms. KA-8.7-2."""

    max_peer_admin_down_ms: int = 14_400_000
    """How long in 24 hours the peer may be taken down, 0 to 86,400,000 ms. KA-8.10-4."""

    application_traffic: bool = False
    """This side reports authenticated application traffic. KA-8.5-1."""

    report_round_trips: bool = False
    """Emit a `RoundTrip` event for each round-trip time sample. KA-10.1-1."""

    share_clock: bool = False
    """Tell peers the time of day of our clock, for `Stats.clock_offset`. KA-10.3-2."""

    key_update_interval_ms: int = 86_400_000
    """Change traffic keys after this, 30,000 to 604,800,000 ms. KA-4.4-6."""

    key_update_frames: int = 1_048_576
    """Change traffic keys after so many frames, 2 to 4,294,967,295. KA-4.4-6."""

    max_sessions: int = 10_000
    """Sessions of this endpoint, 1 to 10,000,000. KA-11-2."""

    max_sessions_per_key: int = 10_000
    """Sessions of one pre-shared key, 1 to 10,000,000. KA-11-2."""

    max_embryos: int = 1_024
    """Handshakes answered and not yet confirmed, 1 to 1,000,000. KA-4.3-3."""

    cookie_threshold: int = 256
    """Handshakes waiting from which a cookie is asked for, 0 to 1,000,000; above `max_embryos`:
    never. KA-4.5-2."""

    max_events: int = 4_096
    """Events that wait to be read, 16 to 1,000,000. KA-11-3."""

    def __post_init__(self) -> None:
        """Check every value. Raises `ConfigError`."""
        for field in fields(self):
            _check(field.name, getattr(self, field.name))
        self._check_together()

    @classmethod
    def lan(cls, **changes: Any) -> "Config":  # noqa: ANN401
        """Preset for one site without NAT: 100 ms interval, DOWN after 300 ms."""
        return replace(_LAN, **_known(changes))

    @classmethod
    def wan(cls, **changes: Any) -> "Config":  # noqa: ANN401
        """Preset for the Internet, and the default: 5 s interval, DOWN after 15 s."""
        return replace(_WAN, **_known(changes))

    @classmethod
    def mobile(cls, **changes: Any) -> "Config":  # noqa: ANN401
        """Preset for phones: 15 s interval, handovers of 3 s ridden out, DOWN after 45 s."""
        return replace(_MOBILE, **_known(changes))

    @classmethod
    def server(cls, **changes: Any) -> "Config":  # noqa: ANN401
        """Preset for the responder of many: at most a probe a second from each, no keep-alive."""
        return replace(_SERVER, **_known(changes))

    def _check_together(self) -> None:
        keepalive = self.nat_keepalive_ms
        if (
            keepalive is not None
            and keepalive < NAT_KEEPALIVE_FLOOR_MS
            and not self.allow_short_nat_keepalive
        ):
            raise ConfigError(
                f"nat_keepalive_ms: expected {NAT_KEEPALIVE_FLOOR_MS} or more (RFC 8085), or "
                f"allow_short_nat_keepalive=True beside it, got {keepalive}"
            )
        if self.max_peer_interval_ms < self.min_receive_interval_ms:
            raise ConfigError(
                "max_peer_interval_ms: expected at least min_receive_interval_ms "
                f"({self.min_receive_interval_ms}), got {self.max_peer_interval_ms}"
            )
        if self.max_peer_pause_sum_ms < self.max_peer_pause_ms:
            raise ConfigError(
                f"max_peer_pause_sum_ms: expected at least max_peer_pause_ms "
                f"({self.max_peer_pause_ms}), got {self.max_peer_pause_sum_ms}"
            )
        interval = max(self.interval_ms, self.max_peer_interval_ms)
        by_deadline = self.detector is DetectorKind.DEADLINE
        intervals, deadline = (1, self.deadline_ms) if by_deadline else (self.multiplier, 0)
        wait = max(milliseconds(intervals * interval), milliseconds(deadline))
        wait += milliseconds(self.min_suspicion_ms)
        if by_deadline and self.deadline_ms < self.interval_ms:
            raise ConfigError(
                f"deadline_ms: expected at least interval_ms ({self.interval_ms}), "
                f"got {self.deadline_ms}"
            )
        if wait > MAX_DETECTION_TIME:
            raise ConfigError(
                "expected a detection time of at most 1,800 s (KA-11-1), got "
                f"{wait // SECOND} s from multiplier {self.multiplier} and the greater of "
                f"interval_ms and max_peer_interval_ms, {interval}"
            )


_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "interval_ms": (10, 3_600_000),
    "min_receive_interval_ms": (0, 3_600_000),
    "max_peer_interval_ms": (10, 3_600_000),
    "multiplier": (1, 255),
    "deadline_ms": (100, 1_800_000),
    "min_suspicion_ms": (0, 600_000),
    "suspicion_interval_ms": (5, 60_000),
    "suspicion_receive_interval_ms": (0, 60_000),
    "suspicion_receive_burst": (3, 65_535),
    "nat_keepalive_ms": (1_000, 3_600_000),
    "connect_timeout_ms": (100, 3_600_000),
    "up_confirmations": (1, 100),
    "down_retention_ms": (0, 86_400_000),
    "max_peer_pause_ms": (0, 3_600_000),
    "max_peer_pause_sum_ms": (0, 3_600_000),
    "max_peer_admin_down_ms": (0, 86_400_000),
    "key_update_interval_ms": (30_000, 604_800_000),
    "key_update_frames": (2, MAX_UINT32),
    "cookie_threshold": (0, 1_000_000),
    "max_sessions": (1, 10_000_000),
    "max_sessions_per_key": (1, 10_000_000),
    "max_embryos": (1, 1_000_000),
    "max_events": (16, 1_000_000),
}
_OPTIONAL: Final = frozenset({"nat_keepalive_ms", "connect_timeout_ms"})


def _check(name: str, value: object) -> None:
    if name == "detector":
        if not isinstance(value, DetectorKind):
            raise ConfigError(f"detector: expected a DetectorKind, got {value!r}")
        return
    bounds = _RANGES.get(name)
    if bounds is None:
        if not isinstance(value, bool):
            raise ConfigError(f"{name}: expected True or False, got {value!r}")
        return
    if value is None and name in _OPTIONAL:
        return
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        none = " or None" if name in _OPTIONAL else ""
        raise ConfigError(f"{name}: expected a whole number {low} to {high}{none}, got {value!r}")


def _known(changes: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(Config)}
    unknown = sorted(set(changes) - names)
    if unknown:
        raise ConfigError(f"expected fields of Config, got {', '.join(unknown)}")
    return changes


_WAN: Final = Config()
_LAN: Final = Config(
    interval_ms=100,
    min_receive_interval_ms=10,
    max_peer_interval_ms=10_000,
    min_suspicion_ms=0,
    suspicion_interval_ms=40,
    suspicion_receive_interval_ms=5,
    nat_keepalive_ms=None,
)
_MOBILE: Final = Config(interval_ms=15_000, min_suspicion_ms=3_000, suspicion_interval_ms=250)
_SERVER: Final = Config(
    min_receive_interval_ms=1_000,
    nat_keepalive_ms=None,
    down_retention_ms=60_000,
)
