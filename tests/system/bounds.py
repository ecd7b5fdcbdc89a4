"""What a configuration promises, in ns, and what chance allows; arithmetic only."""

import math

from kaudp import Config, DetectorKind
from tests.system.record import SECOND

MILLISECOND = SECOND // 1000

SLACK = 500 * MILLISECOND
"""For a loop that runs late on a busy machine; a timer may be 100 ms late and still judge."""

DOWN_BACKOFF_MAX = 8
MIN_UNANSWERED = 3
DOUBT = 1e-7
"""The chance that a true rate is taken for a wrong one, in one comparison."""


def interval(client: Config, server: Config) -> int:
    """Give T. Spec: KA-8.1-1."""
    return MILLISECOND * max(client.interval_ms, server.min_receive_interval_ms)


def suspicion(client: Config, server: Config, pto: int) -> int:
    """Give how long after a cut a side is SUSPECT at the latest. Spec: KA-7.3-1, KA-7.3-3."""
    return interval(client, server) + pto + SLACK


def detection(judge: Config, client: Config, server: Config, pto: int) -> int:
    """Give how long after a cut a side is DOWN at the latest. Spec: section 7.5.

    The base of the deadline is never later than the cut, and the suspicion that must last
    `min_suspicion` begins T + PTO after it at the latest.
    """
    period = interval(client, server)
    shortest = period + pto + judge.min_suspicion_ms * MILLISECOND
    return max(silence(judge, client, server) + pto, shortest) + SLACK


def silence(judge: Config, client: Config, server: Config) -> int:
    """Give the age of the last round trip below which there is no DOWN. Spec: KA-7.5-1."""
    if judge.detector is DetectorKind.DEADLINE:
        return MILLISECOND * judge.deadline_ms
    return judge.multiplier * interval(client, server)


def recovery(client: Config, server: Config, pto: int) -> int:
    """Give how long after mending a side that was DOWN is UP at the latest. Spec: section 7.6.

    The longest wait for the next probe, then one piece of evidence for each confirmation.
    """
    spacing = max(
        client.suspicion_interval_ms,
        server.suspicion_receive_interval_ms,
        server.suspicion_interval_ms,
        client.suspicion_receive_interval_ms,
    )
    confirmations = max(client.up_confirmations, server.up_confirmations)
    confirming = confirmations * (spacing * MILLISECOND + pto)
    return DOWN_BACKOFF_MAX * interval(client, server) + confirming + SLACK


def reunion(client: Config, server: Config, pto: int, outage: int) -> int:
    """Give how long after a restart the client is UP at the latest. Spec: KA-7.4-5, KA-4.2-2.

    The first INIT comes with the third probe of a suspicion; from then on the next one is never
    further away than the time that has passed since, and half a second.
    """
    spacing = client.suspicion_interval_ms * MILLISECOND
    first_init = interval(client, server) + pto + MIN_UNANSWERED * spacing
    return max(first_init, outage + SECOND // 2) + SLACK


def recognition(client: Config, server: Config, pto: int) -> int:
    """Give how long after its suspicion a client knows that a server which runs again restarted.

    INIT goes out with the third probe of the suspicion, so two spacings after the first, and is
    answered one round trip later. Spec: KA-7.4-2, KA-7.4-5, KA-7.4-6.
    """
    spacing = max(client.suspicion_interval_ms, server.suspicion_receive_interval_ms)
    return (MIN_UNANSWERED - 1) * max(spacing * MILLISECOND, pto) + pto + SLACK


def likely(trials: int, rate: float) -> range:
    """Give the counts that are likely where each trial hits with this rate, by exact tails."""
    if rate in (0, 1):
        return range(round(trials * rate), round(trials * rate) + 1)
    chances = [_chance(trials, hits, rate) for hits in range(trials + 1)]
    low = _reach(chances)
    high = trials - _reach(chances[::-1])
    return range(low, high + 1)


def _chance(trials: int, hits: int, rate: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return math.exp(ways + hits * math.log(rate) + (trials - hits) * math.log1p(-rate))


def _reach(chances: list[float]) -> int:
    """Tell how many of the chances from one end sum up to no more than half of DOUBT."""
    total = 0.0
    for count, chance in enumerate(chances):
        total += chance
        if total > DOUBT / 2:
            return count
    return len(chances)
