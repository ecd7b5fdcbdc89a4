"""kaudp's events as qlog: into a file of their own, or into the trace of a QUIC connection.

The events are described in spec/qlog.md; the file is a JSON text sequence (RFC 7464) as
draft-ietf-quic-qlog-main-schema lays it out.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from itertools import count
from typing import IO, Any, Final, Self
from weakref import WeakKeyDictionary

from kaudp.core.session import Session
from kaudp.errors import ConfigError, DropReason
from kaudp.events import Event
from kaudp.io.clock import now_ns
from kaudp.units import MILLISECOND
from kaudp.wire.codec import TRANSPORT_TYPES, parse_transport_header
from kaudp.wire.grammar import FrameType

EVENT_SCHEMA: Final = "urn:kaudp:qlog:events-01"
_RECORD_SEPARATOR: Final = "\x1e"

Sink = Callable[[int, str, dict[str, Any]], object]


class Qlog:
    """Describes what happens and hands it to `sink(now, name, data)`."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._numbers = count(1)
        self._groups: WeakKeyDictionary[Session, str] = WeakKeyDictionary()

    def frame_sent(self, frame: bytes, now: int) -> None:
        """Note a frame that was handed to the transport."""
        self._sink(now, "frame_sent", _described(frame))

    def frame_received(
        self, frame: bytes, now: int, refusal: DropReason | None, *, consumed: bool
    ) -> None:
        """Note a datagram that came in: accepted, or refused and why; not the application's."""
        if not consumed and refusal is DropReason.NOT_KAUDP:
            return
        if refusal is None:
            self._sink(now, "frame_received", _described(frame))
            return
        data = _described(frame) if consumed else {"length": len(frame)}
        self._sink(now, "frame_dropped", {**data, "reason": refusal.value})

    def event(self, event: Event) -> None:
        """Note what the application is told."""
        data = {
            field.name: _plain(getattr(event, field.name))
            for field in fields(event)
            if field.name not in ("session", "time")
        }
        group = self._groups.get(event.session)
        if group is None:
            group = self._groups[event.session] = str(next(self._numbers))
        self._sink(event.time, event_name(type(event)), {"session": group, **data})


class QlogFile(Qlog):
    """A qlog file of kaudp events, to be closed or used in a `with`.

    `vantage_point` is "client", "server" or "unknown". What cannot be written later, as on a full
    disk, is counted in `lost`: a log stops no heart. Raises `ConfigError` when the file cannot
    be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, vantage_point: str = "unknown") -> None:
        super().__init__(self._write_event)
        self._started = now_ns()
        self.lost = 0
        try:
            self._file: IO[str] = open(path, "w", encoding="utf-8")  # noqa: SIM115, PTH123
            with self._closed_if_it_fails():
                self._write_record(_header(vantage_point))
        except OSError as error:
            raise ConfigError(
                f"qlog: expected a file that can be written, got {os.fspath(path)!r}: "
                f"{error.strerror}"
            ) from None

    def close(self) -> None:
        """Close the file; what comes after is not noted."""
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _closed_if_it_fails(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.close()
            raise

    def _write_event(self, now: int, name: str, data: dict[str, Any]) -> None:
        if self._file.closed:
            return
        elapsed = (now - self._started) / MILLISECOND
        try:
            self._write_record({"time": round(elapsed, 6), "name": f"kaudp:{name}", "data": data})
        except OSError:
            self.lost += 1

    def _write_record(self, record: dict[str, Any]) -> None:
        self._file.write(f"{_RECORD_SEPARATOR}{json.dumps(record, separators=(',', ':'))}\n")
        self._file.flush()


def event_name(kind: type[Event]) -> str:
    """Give the qlog name of a kind of event: SessionUp is session_up."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def _header(vantage_point: str) -> dict[str, Any]:
    return {
        "file_schema": "urn:ietf:params:qlog:file:sequential",
        "serialization_format": "application/qlog+json-seq",
        "title": "kaudp",
        "trace": {
            "vantage_point": {"name": "kaudp", "type": vantage_point},
            "event_schemas": [EVENT_SCHEMA],
            "common_fields": {
                "time_format": "relative_to_epoch",
                "reference_time": {
                    "clock_type": "monotonic",
                    "epoch": "unknown",
                    "wall_clock_time": datetime.now(UTC).isoformat(),
                },
            },
        },
    }


def _described(frame: bytes) -> dict[str, Any]:
    frame_type = FrameType(frame[1])
    described: dict[str, Any] = {"frame_type": frame_type.name.lower(), "length": len(frame)}
    if frame_type in TRANSPORT_TYPES:
        described["packet_number"] = parse_transport_header(frame).packet_number
    return described


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return repr(value)
