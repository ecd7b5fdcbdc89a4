"""Tell what kaudp makes of any bytes, one line of JSON for each file: a reference to differ from.

    python -m fuzz.judge fuzz/corpus/parser/*

The same bytes are taken for a datagram, for the body of each transport frame, for both handshake
payloads, for a frame that QUIC carries and for a stream of messages. Bytes are shown in hex; an
option that is absent is left out.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from kaudp.errors import DropReason, Refused
from kaudp.io.quic.carriers import Messages
from kaudp.wire import codec
from kaudp.wire.grammar import FrameType

HEADERS: Final[dict[FrameType, Callable[[bytes], Any]]] = {
    FrameType.INIT: codec.parse_init_header,
    FrameType.RESPONSE: codec.parse_response_header,
    FrameType.PROBE: codec.parse_transport_header,
    FrameType.REPLY: codec.parse_transport_header,
    FrameType.CLOSE: codec.parse_transport_header,
}


def judge(data: bytes) -> dict[str, Any]:
    """Give the verdict of every parser."""
    return {
        "datagram": _verdict(_datagram, data),
        "probe_body": _verdict(lambda plain: codec.parse_body(FrameType.PROBE, plain), data),
        "reply_body": _verdict(lambda plain: codec.parse_body(FrameType.REPLY, plain), data),
        "close_body": _verdict(lambda plain: codec.parse_body(FrameType.CLOSE, plain), data),
        "init_payload": _verdict(codec.parse_init_payload, data),
        "response_payload": _verdict(codec.parse_response_payload, data),
        "carried": _verdict(_carried, data),
        "messages": _verdict(_messages, data),
    }


def _datagram(data: bytes) -> dict[str, Any]:
    frame_type = codec.classify(data)
    if frame_type is FrameType.COOKIE:
        raise Refused(DropReason.NOT_KAUDP, "for a later draft")
    header = HEADERS[frame_type](data)
    return {"frame": frame_type.name} | header._asdict()


def _carried(data: bytes) -> dict[str, Any]:
    """Judge a whole frame without its session: that one exists is not asked."""
    frame_type = codec.classify_carried(data)
    if frame_type is FrameType.INIT:
        session_id, said = codec.parse_carried_init(data)
        return {"frame": frame_type.name, "session_id": session_id, "payload": said}
    if frame_type is FrameType.RESPONSE:
        session_id, payload = codec.parse_carried(data)
        answer = codec.parse_response_payload(payload)
        return {"frame": frame_type.name, "session_id": session_id, "payload": answer}
    header = codec.parse_transport_header(data)
    body = codec.parse_body(frame_type, data[codec.TRANSPORT_HEADER_BYTES :])
    return {"frame": frame_type.name} | header._asdict() | {"body": body}


def _messages(data: bytes) -> dict[str, Any]:
    """Cut what follows the context id of a stream; `inside` tells that a message is not whole."""
    messages = Messages()
    return {"messages": [one.hex() for one in messages.frames(data)], "inside": messages.inside}


def _verdict(parse: Callable[[bytes], Any], data: bytes) -> dict[str, Any]:
    try:
        return {"result": "valid", "fields": _shown(parse(data))}
    except Refused as refused:
        return {"result": "invalid", "reason": refused.reason.value}


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    fields = value._asdict() if hasattr(value, "_asdict") else value
    if isinstance(fields, dict):
        return {name: _shown(item) for name, item in fields.items() if item is not None}
    return value


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(json.dumps({"file": name} | judge(Path(name).read_bytes())))
