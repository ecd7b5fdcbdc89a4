"""io/metrics: real servers and connections, scraped over HTTP and read by Prometheus's parser."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import kaudp
from kaudp.errors import DropReason
from kaudp.io import metrics
from kaudp.io.metrics import Metrics, served
from tests.io.quic.pairs import client_configuration, server_configuration
from tests.io.test_udp import KEY, LAN, event_of, games, linked, run

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
KINDS = {kind.__name__ for kind in kaudp.Event.__subclasses__()}


def parsed(text: str) -> Samples:
    samples = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name.startswith("kaudp_")
    ]
    assert len(dict(samples)) == len(samples), "a series twice"
    return dict(samples)


def collected(collector: Metrics) -> Samples:
    """Collect without HTTP."""
    registry = CollectorRegistry()
    registry.register(collector)
    return parsed(generate_latest(registry).decode())


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def labels_of(samples: Samples, name: str, label: str) -> set[str]:
    return {dict(labels)[label] for each, labels in samples if each == name}


def sessions_in(samples: Samples) -> float:
    """Count the sessions in whatever state: on a busy machine one is suspected at times."""
    return sum(value for (name, _), value in samples.items() if name == "kaudp_sessions")


def counting(samples: Samples) -> Samples:
    """Give the samples that must never go back."""
    return {key: value for key, value in samples.items() if key[0] != "kaudp_sessions"}


@asynccontextmanager
async def scraped(*sources: Any) -> AsyncIterator[Callable[[], Any]]:
    """Serve metrics on a free port; give what fetches and parses them."""
    collector = kaudp.metrics_collector(*sources)
    async with served(collector, "127.0.0.1", 0) as (host, port):

        def fetch() -> Samples:
            with urlopen(f"http://{host}:{port}/metrics", timeout=5) as answer:
                assert answer.status == 200
                assert answer.headers["Content-Type"].startswith("text/plain")
                return parsed(answer.read().decode())

        yield lambda: asyncio.to_thread(fetch)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_scrape_shows_every_label_from_the_start() -> None:
    async def test() -> None:
        async with (
            kaudp.serve("udp://127.0.0.1:0", keys=KEY) as server,
            scraped(server) as scrape,
        ):
            samples = await scrape()
            assert labels_of(samples, "kaudp_datagrams_refused_total", "reason") == {
                reason.value for reason in DropReason
            }
            for name in ("kaudp_events_total", "kaudp_events_lost_total"):
                assert labels_of(samples, name, "kind") == KINDS
            assert labels_of(samples, "kaudp_sessions", "state") == {
                state.name.lower() for state in kaudp.State
            }
            singles = {name for name, labels in samples if not labels}
            assert singles == {
                "kaudp_datagrams_received_total",
                "kaudp_datagrams_sent_total",
                "kaudp_round_trip_seconds_count",
                "kaudp_round_trip_seconds_sum",
                "kaudp_stalls_total",
                "kaudp_suspicions_total",
            }
            assert value(samples, "kaudp_datagrams_unsent_total", reason="would_block") == 0
            assert set(samples.values()) == {0}

    run(test)


def test_both_ends_count_the_same_heartbeats() -> None:
    async def test() -> None:
        async with (
            linked() as (server, connection),
            scraped(server) as of_server,
            scraped(connection) as of_client,
        ):
            await until(lambda: connection.stats.round_trips >= 5)
            trips = connection.stats.round_trips
            client = await of_client()
            far = await of_server()
            assert sessions_in(client) == sessions_in(far) == 1
            assert value(client, "kaudp_round_trip_seconds_count") >= trips
            assert value(client, "kaudp_round_trip_seconds_bucket", le="+Inf") >= trips
            assert 0 < value(client, "kaudp_round_trip_seconds_sum") < 10
            # The server was asked later, on a lossless path.
            sent = value(client, "kaudp_datagrams_sent_total")
            assert trips < sent <= value(far, "kaudp_datagrams_received_total") + 1
            assert value(far, "kaudp_events_total", kind="SessionUp") >= 1

    run(test)


def test_a_histogram_is_cumulative() -> None:
    async def test() -> None:
        async with linked() as (_, connection):
            await until(lambda: connection.stats.round_trips >= 3)
            samples = collected(kaudp.metrics_collector(connection))
            buckets = sorted(
                (float(dict(labels)["le"]), count)
                for (name, labels), count in samples.items()
                if name == "kaudp_round_trip_seconds_bucket"
            )
            counts = [count for _, count in buckets]
            assert len(buckets) == 14
            assert counts == sorted(counts)
            assert counts[-1] == value(samples, "kaudp_round_trip_seconds_count") >= 3

    run(test)


SERVERS = {
    "udp": ("udp://127.0.0.1:0", {"keys": KEY}),
    "quic": ("quic://127.0.0.1:0", {"quic": True}),
    "both": ("udp://127.0.0.1:0", {"keys": KEY, "quic": True}),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_counters_never_go_back_when_sessions_end(kind: str) -> None:
    url, options = SERVERS[kind]
    if "quic" in options:
        options = {**options, "quic": server_configuration()}

    async def test() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(kaudp.serve(url, config=LAN, **options))
            scrape = await stack.enter_async_context(scraped(server))
            host, port = server.address[:2]
            calls: list[dict[str, Any]] = []
            if "keys" in options:
                calls.append({"url": f"udp://{host}:{port}", "key": KEY})
            if "quic" in options:
                calls.append({"url": f"quic://{host}:{port}", "quic": client_configuration()})
            series = [counting(await scrape())]
            for call in calls * 2:
                async with kaudp.connect(**call, config=LAN) as connection:
                    await until(lambda c=connection: c.stats.round_trips >= 2)
                    samples = await scrape()
                    assert sessions_in(samples) == 1
                    series.append(counting(samples))
                await until(lambda: not server.sessions)
                samples = await scrape()
                series.append(counting(samples))
                assert sessions_in(samples) == 0
            for before, after in pairwise(series):
                assert set(before) <= set(after)
                assert all(before[key] <= after[key] for key in before)
            last = series[-1]
            count = 2 * len(calls)
            assert value(last, "kaudp_events_total", kind="SessionUp") >= count
            assert value(last, "kaudp_events_total", kind="SessionClosed") == count
            modes = value(last, "kaudp_events_total", kind="ModeChosen")
            assert modes == 2 * ("quic" in options)
            assert value(last, "kaudp_datagrams_received_total") >= 3 * count
            assert value(last, "kaudp_datagrams_sent_total") >= 3 * count

    run(test)


def test_refusals_are_counted_by_reason() -> None:
    async def test() -> None:
        stranger = kaudp.PresharedKey(bytes(32))
        config = kaudp.Config.lan(max_sessions=1)
        async with (
            kaudp.serve("udp://127.0.0.1:0", keys=KEY, config=config) as server,
            scraped(server) as scrape,
        ):
            url = f"udp://127.0.0.1:{server.address[1]}"
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                for _ in range(7):
                    sock.sendto(b"not yours", server.address)
            async with (
                kaudp.connect(url, key=KEY, config=LAN) as first,
                kaudp.connect(url, key=stranger, config=LAN),
                kaudp.connect(url, key=KEY, config=LAN),
            ):
                await event_of(first, kaudp.SessionUp)
                counters = server.counters
                await until(lambda: counters[DropReason.SESSION_LIMIT] > 0)
                await until(lambda: counters[DropReason.UNKNOWN_KEY] > 0)
                samples = await scrape()
            name = "kaudp_datagrams_refused_total"
            assert value(samples, name, reason="not_kaudp") == 7
            assert value(samples, name, reason="unknown_key") >= 1
            assert value(samples, name, reason="session_limit") >= 1
            assert value(samples, name, reason="bad_tag") == 0

    run(test)


def test_every_reason_of_a_refusal_shows_with_its_count() -> None:
    """Each reason is provoked in the tests of its own requirement; here it must show."""

    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY) as server:
            for number, reason in enumerate(DropReason, start=1):
                server.counters[reason] += number
            samples = collected(kaudp.metrics_collector(server))
            for number, reason in enumerate(DropReason, start=1):
                name = "kaudp_datagrams_refused_total"
                assert value(samples, name, reason=reason.value) == number

    run(test)


def test_a_lost_peer_shows_as_suspicion_down_and_unsent() -> None:
    async def test() -> None:
        async with linked() as (server, connection), scraped(connection) as scrape:
            server._release()
            await event_of(connection, kaudp.SessionDown)
            samples = await scrape()
            assert value(samples, "kaudp_sessions", state="down") == 1
            suspicions = value(samples, "kaudp_suspicions_total")
            assert suspicions == value(samples, "kaudp_events_total", kind="SessionSuspect") >= 1
            assert value(samples, "kaudp_events_total", kind="SessionDown") == 1
            unsent = "kaudp_datagrams_unsent_total"
            assert value(samples, unsent, reason="ConnectionRefusedError") >= 1

    run(test)


def test_events_that_nobody_reads_are_counted_as_lost() -> None:
    async def test() -> None:
        config = kaudp.Config.lan(
            interval_ms=10, min_receive_interval_ms=10, max_events=16, report_round_trips=True
        )
        async with (
            kaudp.serve("udp://127.0.0.1:0", keys=KEY, config=config) as server,
            kaudp.connect(f"udp://127.0.0.1:{server.address[1]}", key=KEY, config=config) as one,
        ):
            await until(lambda: one.stats.round_trips >= 30)
            samples = collected(kaudp.metrics_collector(one))
            told = value(samples, "kaudp_events_total", kind="RoundTrip")
            lost = value(samples, "kaudp_events_lost_total", kind="RoundTrip")
            assert told == value(samples, "kaudp_round_trip_seconds_count")
            # 16 wait, SessionUp among them.
            assert told - lost == 15
            assert value(samples, "kaudp_events_lost_total", kind="SessionUp") == 0

    run(test)


def test_the_number_of_series_does_not_depend_on_who_connects() -> None:
    async def test() -> None:
        keys = [kaudp.PresharedKey(bytes([number]) * 32) for number in range(20)]
        table = {key.key_id: key for key in keys}
        async with (
            kaudp.serve("udp://127.0.0.1:0", keys=table) as server,
            scraped(server) as scrape,
            AsyncExitStack() as stack,
        ):
            before = await scrape()
            for key in keys:
                url = f"udp://127.0.0.1:{server.address[1]}"
                await stack.enter_async_context(kaudp.connect(url, key=key))
            await until(lambda: len(server.sessions) == len(keys))
            after = await scrape()
            assert set(after) == set(before)
            assert value(after, "kaudp_sessions", state="up") == len(keys)

    run(test)


def test_attachments_are_counted_and_several_sources_are_summed() -> None:
    async def test() -> None:
        async with games() as (server, client):
            client.heart.connect(server.transport.get_extra_info("sockname"), KEY)
            await until(lambda: bool(server.heart.sessions and client.heart.sessions))
            both = collected(kaudp.metrics_collector(server.heart, client.heart))
            assert sessions_in(both) == 2
            assert value(both, "kaudp_events_total", kind="SessionUp") >= 2

    run(test)


def test_numbers_are_read_in_the_loop_only() -> None:
    """A scrape from another thread never runs `tally` there."""

    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY) as server:
            collector = kaudp.metrics_collector(server)
            threads: list[threading.Thread] = []
            tally = server.tally

            def noted() -> kaudp.Tally:
                threads.append(threading.current_thread())
                return tally()

            server.tally = noted  # type: ignore[method-assign]
            await asyncio.to_thread(collected, collector)
            collected(collector)
            assert threads == [threading.current_thread()] * 2

    run(test)


def test_a_loop_that_does_not_answer_fails_the_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "ANSWER_TIMEOUT_S", 0.05)

    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY) as server:
            collector = kaudp.metrics_collector(server)
            failures: list[BaseException] = []

            def scrape() -> None:
                try:
                    list(collector.collect())
                except TimeoutError as error:
                    failures.append(error)

            thread = threading.Thread(target=scrape)
            thread.start()
            thread.join()  # Blocks the loop as long as the scrape waits for it.
            assert [str(error) for error in failures] == [
                "expected the loop of kaudp to answer within 0.05 s, got nothing"
            ]
            assert value(await asyncio.to_thread(collected, collector), "kaudp_stalls_total") == 0

    run(test)


def test_the_totals_stay_after_the_loop_has_ended() -> None:
    collectors: list[Metrics] = []

    async def test() -> None:
        async with linked() as (server, _):
            collectors.append(kaudp.metrics_collector(server))

    run(test)
    samples = collected(collectors[0])
    assert value(samples, "kaudp_events_total", kind="SessionUp") >= 1
    assert sessions_in(samples) == 0


def test_a_scrape_under_way_does_not_hold_up_the_end() -> None:
    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY) as server:
            begun = time.monotonic()
            collector = kaudp.metrics_collector(server)
            async with served(collector, "127.0.0.1", 0) as (host, port):
                with socket.create_connection((host, port)) as idle:
                    idle.sendall(b"GET /metrics HTTP/1.1\r\n")  # And never the rest.
            assert time.monotonic() - begun < 5

    run(test)


def test_a_taken_port_is_one_clear_error() -> None:
    async def test() -> None:
        async with kaudp.serve("udp://127.0.0.1:0", keys=KEY) as server:
            collector = kaudp.metrics_collector(server)
            async with served(collector, "127.0.0.1", 0) as (_, port):
                with pytest.raises(kaudp.AddressError, match=f"free local .* 127.0.0.1:{port}"):
                    async with served(collector, "127.0.0.1", port):
                        pass

    run(test)


def test_what_cannot_be_measured_is_one_clear_error() -> None:
    async def test() -> None:
        with pytest.raises(kaudp.ConfigError, match=r"expected what kaudp's .* got a str"):
            kaudp.metrics_collector("server")  # type: ignore[arg-type]

    run(test)
    with pytest.raises(kaudp.ConfigError, match="got no running loop"):
        kaudp.metrics_collector()


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "kaudp.io.metrics")
    with pytest.raises(kaudp.ConfigError, match=r"expected the extra kaudp\[metrics\]"):
        kaudp.metrics_collector()


def test_prometheus_is_not_imported_before_it_is_asked_for() -> None:
    code = "import sys, kaudp, kaudp.cli; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
