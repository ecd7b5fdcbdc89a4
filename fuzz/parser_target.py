"""The parser under any bytes.

Invariant: every parser of `kaudp.wire.codec` gives a value or raises `Refused`, nothing else.
Whatever parses builds again and parses to the same value. The codec and the construct grammar
accept the same bytes and see the same fields in them.
A stream gives the same messages however it is cut, and a peer's streams that are not ours come out
as they went in (streams.py).
Spec: sections 3, 12 and 14.1 to 14.3.
"""

from collections.abc import Callable
from typing import Any, Final

from construct import ConstructError

from fuzz.streams import check_messages, check_streams
from kaudp.errors import Refused
from kaudp.wire import codec, grammar
from kaudp.wire.grammar import FrameType, OptionType

TRANSPORT: Final = (FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE)
HANDSHAKE_PAYLOADS: Final = (
    (grammar.InitPayload, codec.parse_init_payload, codec.build_init_payload),
    (grammar.ResponsePayload, codec.parse_response_payload, codec.build_response_payload),
)

# The legal lengths of the sealed part, from the field tables of sections 3.2 to 3.6.
SEALED_BYTES: Final = {
    FrameType.INIT: (56, 436),
    FrameType.RESPONSE: (56, 468),
    FrameType.COOKIE: (32, 32),
    FrameType.PROBE: (44, 492),
    FrameType.REPLY: (44, 492),
    FrameType.CLOSE: (44, 492),
}
# The same of what follows the header of a carried frame, from 14.1.
CARRIED: Final = {
    FrameType.INIT: (grammar.CarriedInit, 40, 500),
    FrameType.RESPONSE: (grammar.CarriedResponse, 40, 500),
    FrameType.PROBE: (grammar.Transport, 28, 492),
    FrameType.REPLY: (grammar.Transport, 28, 492),
    FrameType.CLOSE: (grammar.Transport, 28, 492),
}


def parser(data: bytes) -> None:
    """Take the same bytes for a datagram, a body, a payload, a carried frame and for streams."""
    _check_datagram(data)
    _check_carried(data)
    check_messages(data)
    check_streams(data)
    body_seen = _seen(grammar.Body, data)
    for frame_type in TRANSPORT:
        _check_body(frame_type, data, body_seen)
    for structure, parse, build in HANDSHAKE_PAYLOADS:
        _check_payload(data, structure, parse, build)


# Datagrams.


def _check_datagram(data: bytes) -> None:
    frame_type = _accepted(codec.classify, data)
    frame = _frame_by_grammar(data)
    assert (frame_type is None) == (frame is None), f"codec {frame_type!r}, grammar {frame}"
    if frame is None:
        return
    assert frame_type == frame.type
    if frame_type in TRANSPORT:
        _check_transport_header(data, frame)
    elif frame_type is FrameType.INIT:
        _check_init_header(data, frame)
    elif frame_type is FrameType.RESPONSE:
        _check_response(data, frame)


def _frame_by_grammar(data: bytes) -> Any:
    """Give the frame that the grammar and the field tables see in a datagram, or None."""
    structure = grammar.FRAMES.get(data[1]) if len(data) > 1 else None
    frame = None if structure is None else _parsed(structure, data)
    if frame is None or structure.build(frame) != data:
        return None
    low, high = SEALED_BYTES[frame.type]
    return frame if low <= len(frame[structure.subcons[-1].name]) <= high else None


def _check_transport_header(data: bytes, frame: Any) -> None:
    header = codec.parse_transport_header(data)
    assert header == _named(type(header), frame)
    if not frame.flags:
        built = codec.build_transport_header(*header._replace(flags=header.type)[1:])
        assert built + frame.sealed_body == data


def _check_init_header(data: bytes, frame: Any) -> None:
    header = codec.parse_init_header(data)
    assert header == _named(type(header), frame)
    assert codec.sealed_payload_of(FrameType.INIT, data) == frame.sealed_payload
    if not any(frame.cookie):
        prologue = codec.build_init_prologue(header.sender_session_id, header.key_id)
        assert prologue + frame.ephemeral + frame.sealed_payload == data


def _check_response(data: bytes, frame: Any) -> None:
    header = codec.parse_response_header(data)
    assert header == _named(type(header), frame)
    assert codec.sealed_payload_of(FrameType.RESPONSE, data) == frame.sealed_payload
    assert codec.build_response(*header, frame.sealed_payload) == data


# Carried frames.


def _check_carried(data: bytes) -> None:
    """Spec: KA-14.1-1, KA-14.1-4."""
    frame_type = _accepted(codec.classify_carried, data)
    frame = _carried_by_grammar(data)
    assert (frame_type is None) == (frame is None), f"codec {frame_type!r}, grammar {frame}"
    if frame is None:
        return
    assert frame_type == frame.type
    if frame_type in TRANSPORT:
        _check_transport_header(data, frame)
        plaintext = data[codec.TRANSPORT_HEADER_BYTES :]
        _check_body(frame_type, plaintext, _seen(grammar.Body, plaintext))
        return
    session_id, payload = codec.parse_carried(data)
    assert [session_id, payload] == [
        value for name, value in frame.items() if name.endswith(("session_id", "payload"))
    ]
    assert codec.build_carried(frame_type, session_id, payload) == data
    assert codec.answered_session_id(data) == session_id
    _check_payload(payload, *HANDSHAKE_PAYLOADS[frame_type is FrameType.RESPONSE])


def _carried_by_grammar(data: bytes) -> Any:
    """Give the carried frame that the grammar and the field tables see, or None."""
    if len(data) < 2 or data[1] not in CARRIED:
        return None
    structure, low, high = CARRIED[FrameType(data[1])]
    frame = _parsed(structure, data)
    if frame is None or structure.build(frame) != data:
        return None
    return frame if low <= len(frame[structure.subcons[-1].name]) <= high else None


# Bodies and handshake payloads.


def _check_body(frame_type: FrameType, data: bytes, seen: dict[str, Any] | None) -> None:
    body = _accepted(lambda plaintext: codec.parse_body(frame_type, plaintext), data)
    if seen is not None and not _legal_body(frame_type, seen):
        seen = None
    assert (body is None) == (seen is None), f"{frame_type.name}: codec {body}, grammar {seen}"
    if body is None:
        return
    assert _shown(body) == seen
    built = codec.build_body(body)
    assert codec.parse_body(frame_type, built) == body
    assert _seen(grammar.Body, built) == seen
    assert built == data or len(data) > codec.BODY_BYTES


def _legal_body(frame_type: FrameType, seen: dict[str, Any]) -> bool:
    """Spec: KA-3.7-1, KA-3.8-5."""
    closes = OptionType.CLOSE_REASON in seen["options"]
    return 1 <= seen["state"] <= 6 and closes == (frame_type is FrameType.CLOSE)


def _check_payload(
    data: bytes, structure: Any, parse: Callable[[bytes], Any], build: Callable[[Any], bytes]
) -> None:
    payload = _accepted(parse, data)
    seen = _seen(structure, data)
    if seen is not None and not _legal_payload(seen):
        seen = None
    assert (payload is None) == (seen is None), f"codec {payload}, grammar {seen}"
    if payload is None:
        return
    assert _shown(payload) == seen
    built = build(payload)
    assert parse(built) == payload
    assert _seen(structure, built) == seen


def _legal_payload(seen: dict[str, Any]) -> bool:
    """Spec: KA-3.1-7, KA-3.8-5."""
    return _legal_parameters(seen["parameters"]) and OptionType.CLOSE_REASON not in seen["options"]


# The grammar's view of a plaintext, with the rules of section 3.8 that no layout can state.


def _seen(structure: Any, data: bytes) -> dict[str, Any] | None:
    """Parse by the grammar; give plain fields and the known options by type, or None."""
    parsed = _parsed(structure, data)
    if parsed is None:
        return None
    assert structure.build(parsed) == data, "the grammar does not build what it parsed"
    seen = _fields(parsed)
    options = _known_options(seen["options"])
    return None if options is None else seen | {"options": options}


def _known_options(parsed: list[Any]) -> dict[OptionType, Any] | None:
    """Apply KA-3.8-1 to KA-3.8-4 to an option list; None: the frame is to be dropped."""
    known: dict[OptionType, Any] = {}
    for option in parsed:
        if option.type not in set(OptionType):
            if option.type >= 0x80:
                return None
        elif option.type in known and option.type != OptionType.PAD:
            return None
        else:
            known[OptionType(option.type)] = _content(option.value.content)
    parameters = known.get(OptionType.PARAMETERS)
    return known if parameters is None or _legal_parameters(parameters) else None


def _content(content: Any) -> Any:
    return len(content) if isinstance(content, bytes) else _fields(content)


def _legal_parameters(parameters: dict[str, int]) -> bool:
    return parameters["desired_interval_us"] > 0 and parameters["suspicion_burst"] > 0


def _fields(container: Any) -> dict[str, Any]:
    """Give the fields of a construct container without its private ones."""
    return {
        name: _fields(value) if isinstance(value, dict) else value
        for name, value in container.items()
        if not name.startswith("_")
    }


# The codec's values in the same form.


def _shown(value: Any) -> dict[str, Any]:
    shown = value._asdict()
    if "parameters" in shown:
        shown["parameters"] = value.parameters._asdict()
    shown["options"] = {
        option_type: _shown_option(option_type, content)
        for option_type, content in zip(OptionType, value.options, strict=True)
        if content is not None
    }
    return shown


def _shown_option(option_type: OptionType, content: Any) -> Any:
    if option_type is OptionType.PAD:
        return content
    if option_type is OptionType.ADDRESS_SEEN:
        port = int.from_bytes(content[1:3], "big")
        return {"family": content[0], "port": port, "address": content[3:]}
    if option_type is OptionType.PARAMETERS:
        return content._asdict()
    (field,) = (subcon.name for subcon in grammar.OPTION_VALUES[option_type].subcons)
    return {field: content}


def _named(kind: Any, frame: Any) -> Any:
    """Fill a named tuple of the codec from the grammar's fields of the same names."""
    return kind(*(frame[name] for name in kind._fields))


def _accepted(parse: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return parse(data)
    except Refused:
        return None


def _parsed(structure: Any, data: bytes) -> Any:
    try:
        return structure.parse(data)
    except ConstructError:
        return None
