"""A frame that QUIC carries, taken apart: as on UDP, but nothing in it is sealed.

Spec: section 14.1.
"""

from typing import Final, NamedTuple

from construct import Struct

from kaudp.cli.dissection import Dissection, check_length, pinpointed, read_section
from kaudp.core.channel import Channel
from kaudp.errors import DropReason, Refused
from kaudp.units import MAX_UINT32
from kaudp.wire import codec, grammar
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import NO_KEYS

# The context id on the wire, where nothing else was agreed upon. Spec: section 14.2.
CONTEXT_ID: Final = b"\xd0kaudp/1"


class _Layout(NamedTuple):
    """A header, and the structure of what comes after it in clear."""

    header: Struct
    rest_name: str
    rest: Struct

    @property
    def least_bytes(self) -> int:
        """The length of a frame without options."""
        return int(self.header.sizeof() + _without_last(self.rest).sizeof())


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
        raise Refused(DropReason.NOT_KAUDP, "header.type: expected no COOKIE inside QUIC, got one")
    # A type that does not exist is refused by the grammar, with the reason.
    layout = _LAYOUTS.get(kind, _TRANSPORT)
    read_section("header", layout.header, frame, result, DropReason.NOT_KAUDP)
    frame_type = FrameType(kind)
    check_length(frame_type, len(frame), layout.least_bytes, grammar.MAX_FRAME_BYTES)
    result.frame_type = frame_type
    rest = frame[layout.header.sizeof() :]
    # No tag and no session id vouch for INIT: only a whole one is kaudp's. KA-14.1-4.
    reason = DropReason.NOT_KAUDP if frame_type is FrameType.INIT else DropReason.MALFORMED
    read_section(layout.rest_name, layout.rest, rest, result, reason)
    with pinpointed(result):
        _check(frame_type, frame, rest)


def _check(frame_type: FrameType, frame: bytes, rest: bytes) -> None:
    """Refuse what a receiver refuses that has sent everything."""
    if frame_type is FrameType.RESPONSE:
        codec.parse_response_payload(rest)
    elif frame_type is FrameType.INIT:
        try:
            codec.parse_init_payload(rest)
        except Refused as refused:
            raise Refused(DropReason.NOT_KAUDP, str(refused)) from None
    else:
        header = codec.parse_transport_header(frame)
        channel = Channel(b"", header.receiver_session_id, NO_KEYS, 0)
        channel.last_sent = MAX_UINT32
        channel.accept(header, rest, 0)


def _without_last(structure: Struct) -> Struct:
    return Struct(*structure.subcons[:-1])


_TRANSPORT: Final = _Layout(_without_last(grammar.Transport), "body", grammar.Body)
_LAYOUTS: Final = {
    int(FrameType.INIT): _Layout(
        _without_last(grammar.CarriedInit), "payload", grammar.InitPayload
    ),
    int(FrameType.RESPONSE): _Layout(
        _without_last(grammar.CarriedResponse), "payload", grammar.ResponsePayload
    ),
}
