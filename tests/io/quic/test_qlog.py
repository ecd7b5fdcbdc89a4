"""kaudp in qlog: in the trace of aioquic's connection, and in a file of its own."""

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aioquic.quic.logger import QuicLogger

import kaudp
from kaudp.io.qlog import EVENT_SCHEMA
from tests.io.quic.pairs import (
    CONTEXT,
    HEARTS,
    KEY,
    client_configuration,
    event_of,
    linked,
    paired,
    really,
    server_configuration,
    until,
    virtually,
)

RECORD_SEPARATOR = b"\x1e"


def kaudp_events(logger: QuicLogger) -> list[dict[str, Any]]:
    (trace,) = logger.to_dict()["traces"]
    return [event for event in trace["events"] if event["name"].startswith("kaudp:")]


def records(path: Path) -> list[dict[str, Any]]:
    """Parse a JSON text sequence, RFC 7464: RS, a JSON text, a line feed."""
    first, *texts = path.read_bytes().split(RECORD_SEPARATOR)
    assert first == b""
    assert all(text.endswith(b"\n") and text.count(b"\n") == 1 for text in texts)
    parsed = [json.loads(text) for text in texts]
    assert all(isinstance(record, dict) for record in parsed)
    return parsed


def check_header(header: dict[str, Any], vantage_point: str) -> None:
    """By draft-ietf-quic-qlog-main-schema: a QlogFileSeq and its TraceSeq."""
    assert header["file_schema"] == "urn:ietf:params:qlog:file:sequential"
    assert header["serialization_format"] == "application/qlog+json-seq"
    trace = header["trace"]
    assert trace["vantage_point"]["type"] == vantage_point
    assert trace["event_schemas"] == [EVENT_SCHEMA]
    common = trace["common_fields"]
    assert common["time_format"] == "relative_to_epoch"
    reference = common["reference_time"]
    assert (reference["clock_type"], reference["epoch"]) == ("monotonic", "unknown")
    assert datetime.fromisoformat(reference["wall_clock_time"]).tzinfo is not None


def check_events(events: list[dict[str, Any]]) -> None:
    assert events
    times = [event["time"] for event in events]
    assert times == sorted(times)
    assert min(times) >= 0
    for event in events:
        assert set(event) == {"time", "name", "data"}
        assert event["name"].startswith("kaudp:")
        assert isinstance(event["data"], dict)


def names(events: list[dict[str, Any]]) -> set[str]:
    return {event["name"].removeprefix("kaudp:") for event in events}


@pytest.mark.parametrize("mode", ["datagram", "stream", "ping"])
@virtually
async def test_heartbeats_and_events_stand_in_the_trace_of_the_connection(mode: str) -> None:
    logger, far_logger = QuicLogger(), QuicLogger()
    far = None if mode == "ping" else HEARTS
    async with paired(
        {"quic_logger": logger}, {"quic_logger": far_logger}, near={**HEARTS, "mode": mode}, far=far
    ) as pair:
        await pair.up(5)
        pair.network.lose = lambda data, source, target: True
        await until(lambda: pair.client.heard_of(kaudp.SessionDown))
        pair.network.lose = lambda data, source, target: False
        await until(lambda: pair.client.attached.state is kaudp.State.UP)
        sent = pair.client.attached.stats.sent
        pair.client.close()
    events = kaudp_events(logger)
    assert names(events) >= {
        "mode_chosen",
        "session_up",
        "session_suspect",
        "session_down",
        "session_closed",
        "frame_sent",
        "frame_received",
    }
    transport = [e for e in events if e["name"] == "kaudp:frame_sent"]
    assert len([e for e in transport if "packet_number" in e["data"]]) == sent
    (chosen,) = (e for e in events if e["name"] == "kaudp:mode_chosen")
    assert chosen["data"]["mode"] == mode
    assert events[-1]["name"] == "kaudp:session_closed"
    assert events[-1]["data"]["reason"] == "carrier_closed"
    assert json.loads(json.dumps(logger.to_dict()))["traces"]
    if far is not None:
        assert names(kaudp_events(far_logger)) >= {"mode_chosen", "session_up", "frame_sent"}


@virtually
async def test_what_is_dropped_stands_there_with_its_reason() -> None:
    logger = QuicLogger()
    async with paired(server={"quic_logger": logger}) as pair:
        await pair.up()
        pair.client.send_datagram(CONTEXT + b"\x0b\x08\x81\x00" + bytes(44))
        pair.client.send_datagram(CONTEXT + b"the application's")
        pair.client.send_datagram(b"the application's")
        await until(lambda: len(pair.server.datagrams) == 3)
        dropped = [e for e in kaudp_events(logger) if e["name"] == "kaudp:frame_dropped"]
        assert [e["data"] for e in dropped] == [{"length": 48, "reason": "unknown_session"}]


@virtually
async def test_the_end_by_idle_timeout_stands_in_a_file_of_kaudps_own(tmp_path: Path) -> None:
    """aioquic has ended its trace before it tells, as spec/qlog.md says."""
    logger = QuicLogger()
    brief = {"idle_timeout": 1.0}
    path = tmp_path / "own.qlog"
    with kaudp.QlogFile(path) as own:
        near = {**HEARTS, "qlog": own}
        async with paired({**brief, "quic_logger": logger}, brief, near=near) as pair:
            await pair.up()
            pair.network.lose = lambda data, source, target: True
            await until(lambda: pair.client.heard_of(kaudp.SessionClosed))
    assert "session_closed" not in names(kaudp_events(logger))
    (closed,) = [event for event in records(path)[1:] if event["name"] == "kaudp:session_closed"]
    assert closed["data"]["reason"] == "carrier_idle"


@virtually
async def test_attaching_without_a_trace_notes_nothing_and_works() -> None:
    logger = QuicLogger()
    async with paired({"quic_logger": logger}, near=None) as pair:
        await asyncio.sleep(0.2)
        assert kaudp_events(logger) == []
        await pair.works()


@really
async def test_a_file_for_a_connection_over_udp(tmp_path: Path) -> None:
    lan = kaudp.Config.lan()
    near, far = tmp_path / "near.qlog", tmp_path / "far.qlog"
    async with kaudp.serve("udp://127.0.0.1:0", keys=KEY, config=lan, qlog=far) as server:
        url = f"udp://127.0.0.1:{server.address[1]}"
        async with kaudp.connect(url, key=KEY, config=lan, qlog=near) as connection:
            await until(lambda: connection.stats.round_trips >= 3)
    for path, point in ((near, "client"), (far, "server")):
        header, *events = records(path)
        check_header(header, point)
        check_events(events)
        assert names(events) >= {"frame_sent", "frame_received", "session_up", "session_closed"}
        sorts = {e["data"]["frame_type"] for e in events if e["name"] == "kaudp:frame_sent"}
        assert sorts >= ({"init", "probe", "close"} if point == "client" else {"response", "reply"})


@virtually
async def test_a_file_for_a_connection_over_quic_and_its_trace() -> None:
    """Both at once: each has all of it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        near, far = Path(folder, "near.qlog"), Path(folder, "far.qlog")
        logger = QuicLogger()
        async with kaudp.serve(
            "quic://127.0.0.1:0", quic=server_configuration(), qlog=far
        ) as server:
            url = f"quic://127.0.0.1:{server.address[1]}"
            async with kaudp.connect(
                url,
                quic=client_configuration(quic_logger=logger),
                config=kaudp.Config.lan(),
                qlog=near,
            ) as connection:
                await event_of(connection, kaudp.SessionUp)
                await until(lambda: connection.stats.round_trips >= 3)
        for path, point in ((near, "client"), (far, "server")):
            header, *events = records(path)
            check_header(header, point)
            check_events(events)
            assert names(events) >= {"mode_chosen", "session_up", "session_closed", "frame_sent"}
        _, *events = records(near)
        assert [e["name"] for e in events] == [e["name"] for e in kaudp_events(logger)]


@virtually
async def test_sessions_are_told_apart() -> None:
    """A server's file holds the events of all its sessions."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "far.qlog")
        async with kaudp.serve(
            "quic://127.0.0.1:0", quic=server_configuration(), qlog=path
        ) as server:
            url = f"quic://127.0.0.1:{server.address[1]}"
            for _ in range(2):
                async with kaudp.connect(url, quic=client_configuration()) as connection:
                    await event_of(connection, kaudp.SessionUp)
                    await event_of(server, kaudp.SessionUp)
        _, *events = records(path)
        ups = [e["data"]["session"] for e in events if e["name"] == "kaudp:session_up"]
        assert len(set(ups)) == 2


@virtually
async def test_attach_quic_takes_an_open_file() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "own.qlog")
        with kaudp.QlogFile(path, vantage_point="client") as qlog:
            async with paired(near={**HEARTS, "qlog": qlog}) as pair:
                await pair.up()
        header, *events = records(path)
        check_header(header, "client")
        check_events(events)
        assert "session_up" in names(events)


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(kaudp.ConfigError, match="qlog: expected a file that can be written"):
        kaudp.QlogFile(tmp_path / "missing" / "file.qlog")


@virtually
async def test_linked_sides_are_up() -> None:
    """The harness itself."""
    async with linked() as (server, connection):
        assert connection.state is server.sessions[0].state is kaudp.State.UP
