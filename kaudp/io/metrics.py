"""What endpoints count, for Prometheus: the extra `kaudp[metrics]`.

No label names a session, a peer or a key: the number of series does not depend on who connects.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import Any, Final, Protocol, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kaudp.core.totals import ROUND_TRIP_BOUNDS, Tally, Totals
from kaudp.errors import ConfigError, DropReason
from kaudp.events import Event, State
from kaudp.io.sockets import AddressError
from kaudp.units import SECOND

ANSWER_TIMEOUT_S: Final = 2.0

_BUCKETS: Final = [*(str(bound / SECOND) for bound in ROUND_TRIP_BOUNDS), "+Inf"]
_STATES: Final = [state.name.lower() for state in State]
_REASONS: Final = [reason.value for reason in DropReason]
_USUAL_UNSENT: Final = ["would_block"]
_KINDS: Final = sorted({kind.__name__ for kind in Event.__subclasses__()})

Labelled = TypeVar("Labelled", CounterMetricFamily, GaugeMetricFamily)


class Tallied(Protocol):
    """What can be counted: what `connect`, `serve`, `attach` and `attach_quic` give."""

    def tally(self) -> Tally:
        """Count the sessions by state, and give a copy of the totals."""


class Metrics(Collector):
    """A collector of prometheus_client over all of `sources`; made in the loop they run in.

    It may be asked from any thread: the numbers are read in the loop. Where the loop does not
    answer in time, `collect` raises `TimeoutError`, and the scrape fails. Raises `ConfigError`.
    """

    def __init__(self, *sources: Tallied) -> None:
        for source in sources:
            if not callable(getattr(source, "tally", None)):
                raise ConfigError(
                    "expected what kaudp's connect, serve, attach or attach_quic give, "
                    f"got a {type(source).__name__}"
                )
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigError(
                "expected to be called in the running loop of what is measured, got no running loop"
            ) from None
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """Name the metrics, so that a registry need not collect them for that."""
        return _families(Tally(Counter(), Totals()))

    def collect(self) -> Iterable[Metric]:
        """Give the metrics as they are now."""
        return _families(self._tally())

    def _tally(self) -> Tally:
        """Have the loop count, from whatever thread; a loop that is closed changes nothing more."""
        if self._loop.is_closed() or asyncio._get_running_loop() is self._loop:
            return self._sum()
        asked = asyncio.run_coroutine_threadsafe(self._answer(), self._loop)
        try:
            return asked.result(ANSWER_TIMEOUT_S)
        except TimeoutError:
            asked.cancel()
            raise TimeoutError(
                f"expected the loop of kaudp to answer within {ANSWER_TIMEOUT_S:g} s, got nothing"
            ) from None

    async def _answer(self) -> Tally:
        return self._sum()

    def _sum(self) -> Tally:
        sessions: Counter[State] = Counter()
        totals = Totals()
        for source in self._sources:
            tally = source.tally()
            sessions += tally.sessions
            totals += tally.totals
        return Tally(sessions, totals)


@asynccontextmanager
async def served(collector: Collector, host: str, port: int) -> AsyncIterator[Any]:
    """Serve the metrics, and those of the process, over HTTP; give the socket address.

    Port 0 stands for a free one. Raises `AddressError`.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        server, thread = await asyncio.to_thread(start_http_server, port, host, registry)
    except OSError as error:
        raise AddressError(
            f"expected a free local address for metrics, got {host}:{port}: {error.strerror}"
        ) from None
    try:
        yield server.server_address
    finally:
        # Not in the loop: a scrape under way waits for it.
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()


def _families(tally: Tally) -> Iterator[Metric]:
    totals = tally.totals
    yield _labelled(
        GaugeMetricFamily(
            "kaudp_sessions", "Sessions by state, those still connecting too.", labels=["state"]
        ),
        _STATES,
        {state.name.lower(): count for state, count in tally.sessions.items()},
    )
    yield CounterMetricFamily(
        "kaudp_datagrams_received", "Datagrams accepted.", value=totals.received
    )
    yield _labelled(
        CounterMetricFamily(
            "kaudp_datagrams_refused",
            "Datagrams refused; not_kaudp are the application's where it shares the socket.",
            labels=["reason"],
        ),
        _REASONS,
        {reason.value: count for reason, count in totals.refused.items()},
    )
    yield CounterMetricFamily(
        "kaudp_datagrams_sent", "Datagrams handed to the transport.", value=totals.sent
    )
    yield _labelled(
        CounterMetricFamily(
            "kaudp_datagrams_unsent", "Datagrams that the transport dropped.", labels=["reason"]
        ),
        _USUAL_UNSENT,
        totals.unsent,
    )
    yield _labelled(
        CounterMetricFamily("kaudp_events", "Events, by kind.", labels=["kind"]),
        _KINDS,
        totals.events,
    )
    yield _labelled(
        CounterMetricFamily(
            "kaudp_events_lost",
            "Events that gave way to newer ones before anybody read them.",
            labels=["kind"],
        ),
        _KINDS,
        totals.events_lost,
    )
    yield CounterMetricFamily(
        "kaudp_suspicions",
        "Suspicions: something was overdue, fast probes went out.",
        value=totals.suspicions,
    )
    yield CounterMetricFamily(
        "kaudp_stalls", "Own stalls that were taken out of a peer's silence.", value=totals.stalls
    )
    yield _round_trips(totals)


def _labelled(family: Labelled, always: Sequence[str], counts: Mapping[str, int]) -> Labelled:
    """Fill in the counts; a series that is not there before it counts would hide its first."""
    for value in [*always, *sorted(set(counts).difference(always))]:
        family.add_metric([value], counts.get(value, 0))
    return family


def _round_trips(totals: Totals) -> Metric:
    return HistogramMetricFamily(
        "kaudp_round_trip_seconds",
        "Round-trip times of heartbeats, all samples.",
        buckets=list(zip(_BUCKETS, accumulate(totals.round_trips), strict=True)),
        sum_value=totals.round_trip_time / SECOND,
    )
