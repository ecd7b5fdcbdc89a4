"""What one session has measured: round trips, clocks, and what arrived each way. Times in ns.

Spec: section 10.
"""

from kaudp.core.channel import OLD_PACKET_AGE, Channel, Evidence
from kaudp.core.clocks import ClockOffset, DelayVariation
from kaudp.core.liveness import Liveness
from kaudp.core.rtt import RoundTripTimes
from kaudp.core.stats import DirectionCounts, Stats
from kaudp.units import MICROSECOND
from kaudp.wire.codec import Body


class Measurements:
    """Outlives the keys of a session; what counts from them begins anew with each handshake."""

    __slots__ = (
        "_channel",
        "_clock",
        "_clock_base",
        "_delay_in",
        "_delay_out",
        "_retired_in",
        "_retired_out",
        "handshakes",
        "round_trips",
        "sent",
    )

    def __init__(self) -> None:
        self.sent = 0
        self.handshakes = 0
        self.round_trips = RoundTripTimes()
        self._channel: Channel | None = None
        self._clock_base: int | None = None
        self._retired_out = DirectionCounts()
        self._retired_in = DirectionCounts()
        self._start_clocks()

    def new_keys(self, channel: Channel, own_us: int | None, peer_us: int | None) -> None:
        """Count under other keys from now on; each side's CLOCK, None untold. KA-10.3-2."""
        self._retired_out, self._retired_in = self._counts()
        self._channel = channel
        self.handshakes += 1
        self._start_clocks()
        self._clock_base = None
        if own_us is not None and peer_us is not None:
            self._clock_base = (peer_us - own_us) * MICROSECOND

    def learn(self, body: Body, evidence: Evidence | None, now: int) -> None:
        """Learn from the newest frame what its round trip tells. Spec: KA-10.3-1, KA-7.2-2."""
        if self._channel is None or evidence is None or evidence.rtt is None:
            return
        # The times of what is older may have gone round.
        if evidence.is_new and evidence.fresh_number and evidence.rtt < OLD_PACKET_AGE:
            exchange = self._channel.exchange(body, evidence, now)
            self._clock.sample(exchange)
            self._delay_out.sample(exchange.peer_received - exchange.sent)
            self._delay_in.sample(exchange.arrived - exchange.peer_sent)

    def stats(self, live: Liveness, *, unreachable: bool, counts_loss: bool) -> Stats:
        """Make the snapshot that the application sees. Spec: KA-10.1-3, KA-14.3-5."""
        out, home = self._counts()
        trips = self.round_trips
        return Stats(
            state=live.state,
            peer_state=live.peer_state,
            interval=live.interval,
            probe_timeout=live.pto,
            sent=self.sent,
            received=home.arrived,
            unreported=self.sent - out.sent,
            unreachable=unreachable,
            lost_out=out.lost,
            lost_in=home.lost,
            loss_out=out.loss if counts_loss else None,
            loss_in=home.loss if counts_loss else None,
            round_trips=trips.count,
            rtt_latest=trips.latest,
            rtt_min=trips.least,
            rtt_mean=trips.mean,
            rtt_max=trips.greatest,
            rtt_smoothed=live.response_time.smoothed,
            jitter=trips.jitter,
            delay_variation_out=self._delay_out.mean,
            delay_variation_in=self._delay_in.mean,
            clock_offset=self._clock_offset(),
            clock_error=None if self._clock_base is None else self._clock.error,
            key_phase=0 if self._channel is None else self._channel.phase,
            suspicions=live.suspicions,
            stalls=live.stalls,
            handshakes=self.handshakes,
            rx_at=live.rx_at,
            round_trip_at=live.round_trip_at,
        )

    def _start_clocks(self) -> None:
        """Compare clocks anew: times count from other instants under other keys."""
        self._clock = ClockOffset()
        self._delay_out = DelayVariation()
        self._delay_in = DelayVariation()

    def _clock_offset(self) -> int | None:
        """Tell how far the peer's time of day is ahead. Spec: KA-10.3-2."""
        offset = self._clock.offset
        if self._clock_base is None or offset is None:
            return None
        return self._clock_base + offset

    def _counts(self) -> tuple[DirectionCounts, DirectionCounts]:
        out = DirectionCounts(self._retired_out.sent, self._retired_out.arrived)
        home = DirectionCounts(self._retired_in.sent, self._retired_in.arrived)
        if self._channel is not None:
            out.add(self._channel.peer_highest, self._channel.peer_count)
            home.add(self._channel.window.highest, self._channel.window.count)
        return out, home
