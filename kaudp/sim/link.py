"""One direction of a path: loss, bursts, delay, duplication, cuts. All drawn from one rng."""

from dataclasses import dataclass
from random import Random

from kaudp.units import MILLISECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What a link does to a datagram. Probabilities 0 to 1, times in ns.

    A datagram is lost with `loss` while the link is good and always while it is bad; it turns bad
    with `burst_begins` and good again with `burst_ends` at each datagram (Gilbert's model).
    `spread` adds a uniform delay, which also reorders.
    """

    delay: int = 20 * MILLISECOND
    spread: int = 0
    loss: float = 0.0
    burst_begins: float = 0.0
    burst_ends: float = 1.0
    duplicate: float = 0.0


class Link:
    """Carries datagrams one way. `cut` may be set at any time."""

    __slots__ = ("_bad", "_rng", "conditions", "cut")

    def __init__(self, conditions: Conditions, rng: Random) -> None:
        self.conditions = conditions
        self.cut = False
        self._rng = rng
        self._bad = False

    def arrivals(self, now: int) -> list[int]:
        """Tell when copies of a datagram sent now arrive: none, one or two times."""
        conditions = self.conditions
        draw = self._rng.random
        self._bad = draw() >= conditions.burst_ends if self._bad else self._begins(draw())
        lost = self._bad or draw() < conditions.loss
        copies = 2 if draw() < conditions.duplicate else 1
        times = [now + conditions.delay + int(draw() * conditions.spread) for _ in range(copies)]
        return [] if lost or self.cut else times

    def _begins(self, drawn: float) -> bool:
        return drawn < self.conditions.burst_begins
