"""A frame that QUIC carries, taken apart: as on UDP, but nothing in it is sealed.

Spec: section 14.1.
"""

from typing import Any, Final

from construct import Struct

from kaudp.cli.dissection import Dissection, check_length, pinpointed, read_section
from kaudp.core.channel import Channel
from kaudp.errors import DropReason, Refused
from kaudp.units import MAX_UINT32
from kaudp.wire import codec, grammar
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import _NO_KEYS as NO_KEYS

# The context id on the wire, where nothing else was agreed upon. Spec: section 14.2.
CONTEXT_ID: Final = b"\xd0kaudp/1"


def dissect_carried(data: bytes) -> Dissection:
    """Take a frame apart, a context id before it or not; never raises on account of `data`."""
    result = Dissection(len(data))
    try:
        _read(data.removeprefix(CONTEXT_ID), result)
    except Refused as refused:
        result.refusal = refused
    return result


def _read(frame: bytes, result: Dissection) -> None:
    kind = frame[1] if len(frame) > 1 else 0
    if kind == FrameType.COOKIE:
        raise Refused(
            DropReason.NOT_KAUDP,
            "header.type: expected 0x01 INIT, 0x02 RESPONSE, 0x08 PROBE, 0x09 REPLY or "
            "0x0a CLOSE inside QUIC, got 0x03 COOKIE",
        )
    header = _HEADERS.get(kind, _TRANSPORT_HEADER)
    read_section("header", header, frame, result, DropReason.NOT_KAUDP)
    frame_type = FrameType(kind)
    rest = frame[header.sizeof() :]
    least = header.sizeof() + codec.CARRIED_BODY_BYTES
    check_length(frame_type, len(frame), least, grammar.MAX_FRAME_BYTES)
    result.frame_type = frame_type
