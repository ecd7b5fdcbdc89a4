"""kaudp.io.qlog, and spec/qlog.md against it."""

import gc
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import kaudp
from kaudp.events import Event, SessionUp, State
from kaudp.io.qlog import EVENT_SCHEMA, Qlog, QlogFile, event_name
from kaudp.wire.grammar import FrameType
from tests.worlds import Pair, of_type

TEXT = (Path(__file__).parents[2] / "spec" / "qlog.md").read_text()
ROWS = dict(re.findall(r"^\| ([a-z_]+) \| ([a-z_, ]+) \|$", TEXT, re.M))


def noted() -> tuple[Qlog, list[tuple[int, str, dict[str, Any]]]]:
    """Give a log that keeps what it is told."""
    kept: list[tuple[int, str, dict[str, Any]]] = []
    return Qlog(lambda now, name, data: kept.append((now, name, data))), kept


def test_every_kind_of_event_is_described() -> None:
    shown = {name: set(data.split(", ")) for name, data in ROWS.items() if "session" in data}
    kinds = {
        event_name(kind): {field.name for field in fields(kind)} - {"time"}
        for kind in Event.__subclasses__()
    }
    assert shown == kinds


def test_frames_are_described_as_the_text_says() -> None:
    log, kept = noted()
    pair = Pair().up()
    for _, frame, _ in pair.alice.sent:
        log.frame_sent(frame, 5)
    (_, reply, _), *_ = of_type(pair.bob, FrameType.REPLY)
    log.frame_received(reply, 6, None, consumed=True)
    log.frame_received(reply, 7, kaudp.DropReason.REPLAY, consumed=True)
    log.frame_received(reply, 8, kaudp.DropReason.BAD_TAG, consumed=False)
    assert kept[0] == (5, "frame_sent", {"frame_type": "init", "length": 132})
    assert kept[-3] == (
        *(6, "frame_received"),
        {"frame_type": "reply", "length": 64, "packet_number": 1},
    )
    assert kept[-2][2]["reason"] == "replay"
    assert kept[-1][1:] == ("frame_dropped", {"length": 64, "reason": "bad_tag"})
    for _, name, data in kept:
        assert set(data) <= set(ROWS[name].split(", "))


def test_the_applications_datagrams_are_not_noted() -> None:
    log, kept = noted()
    log.frame_received(b"", 1, kaudp.DropReason.NOT_KAUDP, consumed=False)
    assert not kept


def test_sessions_are_told_apart() -> None:
    log, kept = noted()
    one, two = Pair().up().session, Pair(2).up().session
    for session in (one, two, one):
        log.event(SessionUp(session, 9, State.DOWN))
    assert [data["session"] for _, _, data in kept] == ["1", "2", "1"]
    assert kept[0] == (9, "session_up", {"session": "1", "previous": "down"})


def test_a_file_is_a_json_text_sequence_by_the_main_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlog"
    session = Pair().up().session
    with QlogFile(path, vantage_point="client") as log:
        log.event(SessionUp(session, 0, State.CONNECTING))
    log.event(SessionUp(session, 0, State.DOWN))
    records = path.read_text().split("\x1e")
    assert records[0] == ""
    header, event = (json.loads(record) for record in records[1:])
    assert all(record.endswith("\n") for record in records[1:])
    assert header["file_schema"] == "urn:ietf:params:qlog:file:sequential"
    assert header["serialization_format"] == "application/qlog+json-seq"
    trace = header["trace"]
    assert trace["vantage_point"] == {"name": "kaudp", "type": "client"}
    assert trace["event_schemas"] == [EVENT_SCHEMA]
    assert trace["common_fields"]["reference_time"]["epoch"] == "unknown"
    assert event["name"] == "kaudp:session_up"
    assert event["time"] < 0
    assert EVENT_SCHEMA in TEXT


def test_a_file_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(kaudp.ConfigError, match="expected a file that can be written, got"):
        QlogFile(tmp_path / "nowhere" / "a.sqlog")


def test_a_full_disk_stops_no_heart(tmp_path: Path) -> None:
    """What cannot be written is counted."""
    with QlogFile(tmp_path / "a.sqlog") as log:
        log._file.close()
        log._file = Path("/dev/full").open("w")  # noqa: SIM115
        log.event(SessionUp(Pair().up().session, 0, State.DOWN))
        assert log.lost == 1
    with pytest.raises(kaudp.ConfigError, match="No space left on device"):
        QlogFile("/dev/full")


def test_numbers_of_sessions_are_never_given_twice() -> None:
    log, kept = noted()
    for seed in range(3):
        log.event(SessionUp(Pair(seed).up().session, 9, State.DOWN))
        gc.collect()
    assert [data["session"] for _, _, data in kept] == ["1", "2", "3"]
