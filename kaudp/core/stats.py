"""A snapshot of what a session has measured."""

from dataclasses import dataclass

from kaudp.events import State


@dataclass(frozen=True, slots=True)
class Stats:
    """What a session knows of its path. Durations in ns; None where nothing is known yet.

    Loss is cumulative, over what was sent up to the newest packet the receiver reported; "out" is
    from here to the peer. A handshake in suspicion starts the count anew from the last report, so
    what was lost just before it does not show there: `unreported` counts own frames that no report
    covers. Where QUIC repeats what is lost (modes stream and ping) loss is None: it shows as delay.
    `unreachable` tells whether the network reported an error since the last evidence (a
    hint). Delay variation is that of one way, each for itself. `clock_offset` is how far the peer's
    time of day is ahead of ours, give or take `clock_error`; both sides must share theirs.
    Spec: section 10, KA-10.1-3, KA-10.3-3.
    """

    state: State
    peer_state: State
    interval: int
    probe_timeout: int
    sent: int
    received: int
    unreported: int
    unreachable: bool
    lost_out: int
    lost_in: int
    loss_out: float | None
    loss_in: float | None
    round_trips: int
    rtt_latest: int | None
    rtt_min: int | None
    rtt_mean: int | None
    rtt_max: int | None
    rtt_smoothed: int | None
    jitter: int
    delay_variation_out: int | None
    delay_variation_in: int | None
    clock_offset: int | None
    clock_error: int | None
    key_phase: int
    suspicions: int
    stalls: int
    handshakes: int
    rx_at: int
    round_trip_at: int


@dataclass(slots=True)
class DirectionCounts:
    """Frames counted in one direction: how many were sent, and how many of those arrived."""

    sent: int = 0
    arrived: int = 0

    def add(self, sent: int, arrived: int) -> None:
        """Add what one channel counted."""
        self.sent += sent
        self.arrived += min(arrived, sent)

    @property
    def lost(self) -> int:
        """How many did not arrive."""
        return self.sent - self.arrived

    @property
    def loss(self) -> float | None:
        """The part that did not arrive, 0 to 1."""
        return self.lost / self.sent if self.sent else None
