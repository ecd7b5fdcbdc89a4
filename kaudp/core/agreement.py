"""What both sides told of their parameters, and the intervals that follow from it.

While a change is not settled, the shortest interval of old and new is probed by and the longest
is judged by. Times in ns. Spec: sections 8.1 and 8.8.
"""

from typing import Final

from kaudp.config import Config
from kaudp.units import MAX_UINT32, MICROSECOND, MILLISECOND, milliseconds
from kaudp.wire.codec import Parameters

MIN_INTERVAL: Final = 10 * MILLISECOND


def own_parameters(config: Config) -> Parameters:
    """Give what a configuration says in a handshake. Spec: KA-3.3-1."""
    microseconds = MILLISECOND // 1000
    return Parameters(
        min(config.interval_ms * microseconds, MAX_UINT32),
        min(config.min_receive_interval_ms * microseconds, MAX_UINT32),
        min(config.suspicion_receive_interval_ms * microseconds, MAX_UINT32),
        config.suspicion_receive_burst,
        int(config.application_traffic),
    )


class Told:
    """What one side told, and what of it the other may still go by."""

    __slots__ = ("least", "most", "newest")

    def __init__(self, parameters: Parameters) -> None:
        self.newest = self.least = self.most = parameters

    @property
    def settled(self) -> bool:
        """Whether both sides know the newest."""
        return self.least == self.most

    def change(self, parameters: Parameters) -> None:
        """Take new parameters beside the old ones; features stay. Spec: KA-8.8-1."""
        self.newest = parameters._replace(features=self.newest.features)
        self.least = Parameters(*map(min, self.least, self.newest))
        self.most = Parameters(*map(max, self.most, self.newest))

    def remember(self, before: "Told") -> None:
        """Go on by what was told before, beside this."""
        self.least = Parameters(*map(min, self.least, before.least))
        self.most = Parameters(*map(max, self.most, before.most))

    def settle(self) -> None:
        """Forget what was before. Spec: KA-8.8-3."""
        self.least = self.most = self.newest


class Agreement:
    """The parameters of both sides of a session. Before a handshake the peer's are our own."""

    __slots__ = ("_most_interval", "initiator", "own", "peer")

    def __init__(self, config: Config, own: Parameters, *, initiator: bool) -> None:
        self.initiator = initiator
        self.own = Told(own)
        self.peer = Told(own)
        self._most_interval = milliseconds(config.max_peer_interval_ms)

    def established(self, told: Parameters, peer: Parameters) -> None:
        """Take over what a handshake told; a later own change is still to be settled.

        A responder knows what an initiator told only with its first PROBE. Spec: KA-8.8-3.
        """
        before, self.own, self.peer = self.own, Told(told), Told(peer)
        if self.initiator:
            self.own.remember(before)
        if before.newest != told:
            self.own.change(before.newest)

    @property
    def settled(self) -> bool:
        """Whether both sides compute the same."""
        return self.own.settled and self.peer.settled

    @property
    def interval(self) -> int:
        """T to probe by. Spec: KA-8.1-1, KA-8.8-2."""
        wanted, allowed = self._roles()
        return _interval(wanted.least, allowed.least)

    @property
    def judged_interval(self) -> int:
        """T to judge by. Spec: KA-8.1-2, KA-8.8-2."""
        wanted, allowed = self._roles()
        own_us = self.own.most.desired_interval_us if self.initiator else 0
        most = max(self._most_interval, own_us * MICROSECOND)
        return min(_interval(wanted.most, allowed.most), most)

    @property
    def suspicion_interval(self) -> int:
        """The least spacing that the peer allows in suspicion. Spec: KA-7.4-2."""
        return min(self.peer.newest.suspicion_interval_us * MICROSECOND, self.judged_interval)

    @property
    def suspicion_burst(self) -> int:
        """How many suspicion probes the peer allows at once. Spec: KA-7.4-4."""
        return self.peer.newest.suspicion_burst

    @property
    def traffic_replaces_probes(self) -> bool:
        """Whether both sides report application traffic. Spec: KA-8.5-1."""
        return bool(self.own.newest.features & self.peer.newest.features & 1)

    def _roles(self) -> tuple[Told, Told]:
        return (self.own, self.peer) if self.initiator else (self.peer, self.own)


def _interval(wanted: Parameters, allowed: Parameters) -> int:
    agreed = MICROSECOND * max(wanted.desired_interval_us, allowed.min_receive_interval_us)
    return max(agreed, MIN_INTERVAL)
