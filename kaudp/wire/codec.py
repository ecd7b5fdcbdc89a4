"""Bytes to messages and back. No keys, no sessions, no time.

Steady-state frames take a fast path whose formats are read off the construct grammar; whatever
has options, and both handshake payloads, go through the grammar itself.
Spec: section 3.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from construct import Bytes, ConstructError, FormatField, Struct, Subconstruct

from kaudp.errors import DropReason, Refused
from kaudp.wire import grammar
from kaudp.wire.grammar import CRITICAL, TAG_BYTES, FrameType, OptionType

TRANSPORT_TYPES: Final = frozenset({FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE})
MIN_STATE: Final = 1
MAX_STATE: Final = 6


def fixed_format(structure: Struct) -> struct.Struct:
    """Give the `struct` format of the leading fixed fields of a construct structure."""
    return struct.Struct(">" + "".join(_formats(structure)))


def _formats(structure: Struct) -> list[str]:
    formats: list[str] = []
    for field in structure.subcons:
        construct = field
        while isinstance(construct, Subconstruct):
            construct = construct.subcon
        if isinstance(construct, Struct):
            formats += _formats(construct)
        elif isinstance(construct, FormatField):
            formats.append(construct.fmtstr.lstrip(">"))
        elif isinstance(construct, Bytes):
            formats.append(f"{construct.length}s")
        else:
            break
    return formats


_INIT_HEADER: Final = fixed_format(grammar.Init)
_RESPONSE_HEADER: Final = fixed_format(grammar.Response)
_TRANSPORT_HEADER: Final = fixed_format(grammar.Transport)
_CARRIED_HEADER: Final = fixed_format(grammar.CarriedInit)
_COOKIE: Final = fixed_format(grammar.Cookie)
_BODY: Final = fixed_format(
    Struct(*[field for field in grammar.Body.subcons if field.name != "options"])
)

TRANSPORT_HEADER_BYTES: Final = _TRANSPORT_HEADER.size
BODY_BYTES: Final = _BODY.size
STEADY_FRAME_BYTES: Final = TRANSPORT_HEADER_BYTES + BODY_BYTES + TAG_BYTES
CARRIED_FRAME_BYTES: Final = TRANSPORT_HEADER_BYTES + BODY_BYTES
INIT_PROLOGUE_BYTES: Final = _INIT_HEADER.size - grammar.EPHEMERAL_BYTES
COOKIE_HEADER_BYTES: Final = _COOKIE.size - grammar.COOKIE_BYTES - TAG_BYTES
_PARAMETERS_BYTES: Final = int(grammar.Parameters.sizeof())
_INIT_PAYLOAD_BYTES: Final = 8 + 8 + grammar.SESSION_ID_BYTES + _PARAMETERS_BYTES
MIN_INIT_BYTES: Final = _INIT_HEADER.size + _INIT_PAYLOAD_BYTES + TAG_BYTES

_FRAME_TYPES: Final[Mapping[int, FrameType]] = {int(kind): kind for kind in FrameType}
_MIN_BYTES: Final[Mapping[int, int]] = {
    FrameType.INIT: MIN_INIT_BYTES,
    FrameType.RESPONSE: _RESPONSE_HEADER.size + _INIT_PAYLOAD_BYTES + TAG_BYTES,
    FrameType.COOKIE: int(grammar.Cookie.sizeof()),
    FrameType.PROBE: STEADY_FRAME_BYTES,
    FrameType.REPLY: STEADY_FRAME_BYTES,
    FrameType.CLOSE: STEADY_FRAME_BYTES,
}
_MIN_CARRIED_BYTES: Final[Mapping[int, int]] = {
    FrameType.INIT: _CARRIED_HEADER.size + _INIT_PAYLOAD_BYTES,
    FrameType.RESPONSE: _CARRIED_HEADER.size + _INIT_PAYLOAD_BYTES,
    FrameType.PROBE: CARRIED_FRAME_BYTES,
    FrameType.REPLY: CARRIED_FRAME_BYTES,
    FrameType.CLOSE: CARRIED_FRAME_BYTES,
}
_MAX_BYTES: Final[Mapping[int, int]] = {FrameType.COOKIE: int(grammar.Cookie.sizeof())}
_HANDSHAKE_TYPES: Final = frozenset({FrameType.INIT, FrameType.RESPONSE, FrameType.COOKIE})


class Parameters(NamedTuple):
    """What one side wants and allows, in microseconds. Spec: section 3.3."""

    desired_interval_us: int
    min_receive_interval_us: int
    suspicion_interval_us: int
    suspicion_burst: int
    features: int


class Options(NamedTuple):
    """The known options of a frame; None where one is absent. Spec: section 3.8.

    `address_seen` is in canonical bytes (spec section 9.2); `pad` counts zero bytes of content.
    """

    pad: int | None = None
    address_seen: bytes | None = None
    parameters: Parameters | None = None
    pause_ms: int | None = None
    slow_down_us: int | None = None
    close_reason: int | None = None
    path_challenge: bytes | None = None
    path_response: bytes | None = None
    next_key: bytes | None = None
    admin: int | None = None
    clock_us: int | None = None


NO_OPTIONS: Final = Options()


class Body(NamedTuple):
    """The encrypted part of a transport frame. Spec: section 3.7."""

    state: int
    diagnostic: int
    control_version: int
    control_ack: int
    sent_time: int
    echo_time: int
    hold_time: int
    highest_received: int
    received_count: int
    address_hash: int
    options: Options = NO_OPTIONS


class TransportHeader(NamedTuple):
    """The visible part of a transport frame. Spec: section 3.6."""

    type: int
    flags: int
    receiver_session_id: bytes
    packet_number: int


class InitHeader(NamedTuple):
    """The visible part of INIT. Spec: section 3.2."""

    sender_session_id: bytes
    key_id: bytes
    cookie: bytes
    ephemeral: bytes


class ResponseHeader(NamedTuple):
    """The visible part of RESPONSE. Spec: section 3.4."""

    receiver_session_id: bytes
    ephemeral: bytes


class CookieFrame(NamedTuple):
    """COOKIE. Spec: section 3.5."""

    receiver_session_id: bytes
    nonce: bytes
    sealed_cookie: bytes


class InitPayload(NamedTuple):
    """What the initiator says inside Noise message 1. Spec: section 3.3."""

    instance_id: bytes
    epoch: bytes
    old_session_id: bytes
    parameters: Parameters
    options: Options = NO_OPTIONS


class ResponsePayload(NamedTuple):
    """What the responder says inside Noise message 2. Spec: section 3.4."""

    sender_session_id: bytes
    instance_id: bytes
    epoch: bytes
    parameters: Parameters
    options: Options = NO_OPTIONS


def classify(data: bytes) -> FrameType:
    """Tell the frame type from the length and the first four bytes, or raise `Refused`.

    Spec: KA-2-6, KA-3.1-1, KA-3.1-2, KA-3.1-3, KA-3.1-4, KA-3.1-5.
    """
    size = len(data)
    if size < TRANSPORT_HEADER_BYTES or data[0] != grammar.MAGIC or data[2] != grammar.VERSION:
        raise Refused(DropReason.NOT_KAUDP)
    frame_type = _FRAME_TYPES.get(data[1])
    if frame_type is None:
        raise Refused(DropReason.NOT_KAUDP)
    longest = _MAX_BYTES.get(data[1], grammar.MAX_FRAME_BYTES)
    if not _MIN_BYTES[data[1]] <= size <= longest:
        raise Refused(DropReason.NOT_KAUDP)
    if frame_type in _HANDSHAKE_TYPES and data[3] != grammar.SUITE_NNPSK0_25519_AESGCM_SHA256:
        raise Refused(DropReason.NOT_KAUDP)
    return frame_type


def classify_carried(data: bytes) -> FrameType:
    """Tell the type of a carried frame as `classify` does, or raise `Refused`. KA-14.1-4."""
    size = len(data)
    if size < _CARRIED_HEADER.size or data[0] != grammar.MAGIC or data[2] != grammar.VERSION:
        raise Refused(DropReason.NOT_KAUDP)
    frame_type = _FRAME_TYPES.get(data[1])
    minimum = _MIN_CARRIED_BYTES.get(data[1])
    if frame_type is None or minimum is None or not minimum <= size <= grammar.MAX_FRAME_BYTES:
        raise Refused(DropReason.NOT_KAUDP)
    if frame_type in _HANDSHAKE_TYPES and data[3] != grammar.SUITE_CARRIED:
        raise Refused(DropReason.NOT_KAUDP)
    return frame_type


def parse_carried(data: bytes) -> tuple[bytes, bytes]:
    """Split INIT or RESPONSE as QUIC carries it: the session id, the payload in clear."""
    return _CARRIED_HEADER.unpack_from(data)[4], data[_CARRIED_HEADER.size :]


def parse_carried_init(data: bytes) -> tuple[bytes, InitPayload]:
    """Read INIT as QUIC carries it: the session id and the payload, or raise `Refused`.

    No tag and no session id vouch for it, so only a whole one is ours. Spec: KA-14.1-4.
    """
    session_id, plaintext = parse_carried(data)
    try:
        return session_id, parse_init_payload(plaintext)
    except Refused as refused:
        raise Refused(DropReason.NOT_KAUDP, str(refused)) from None


def build_carried(frame_type: FrameType, session_id: bytes, payload: bytes) -> bytes:
    """Build INIT or RESPONSE as QUIC carries it. Spec: KA-14.1-1."""
    header = _CARRIED_HEADER.pack(
        grammar.MAGIC, frame_type, grammar.VERSION, grammar.SUITE_CARRIED, session_id
    )
    return header + payload


def parse_transport_header(data: bytes) -> TransportHeader:
    """Split the header off a datagram that `classify` took for a transport frame."""
    _, frame_type, _, flags, session_id, packet_number = _TRANSPORT_HEADER.unpack_from(data)
    return TransportHeader(frame_type, flags, session_id, packet_number)


def build_transport_header(
    frame_type: FrameType, session_id: bytes, packet_number: int, flags: int = 0
) -> bytes:
    """Build the 20 bytes of header of a transport frame. Spec: KA-3.6-2."""
    return _TRANSPORT_HEADER.pack(
        grammar.MAGIC, frame_type, grammar.VERSION, flags, session_id, packet_number
    )


def parse_init_header(data: bytes) -> InitHeader:
    """Split the header off a datagram that `classify` took for INIT."""
    return InitHeader(*_INIT_HEADER.unpack_from(data)[4:])


def build_init_prologue(
    session_id: bytes, key_id: bytes, cookie: bytes = bytes(grammar.COOKIE_BYTES)
) -> bytes:
    """Build bytes 0 to 43 of INIT. Spec: KA-4.5-1."""
    header = _INIT_HEADER.pack(
        grammar.MAGIC,
        FrameType.INIT,
        grammar.VERSION,
        grammar.SUITE_NNPSK0_25519_AESGCM_SHA256,
        session_id,
        key_id,
        cookie,
        bytes(grammar.EPHEMERAL_BYTES),
    )
    return header[:INIT_PROLOGUE_BYTES]


def parse_response_header(data: bytes) -> ResponseHeader:
    """Split the header off a datagram that `classify` took for RESPONSE."""
    return ResponseHeader(*_RESPONSE_HEADER.unpack_from(data)[4:])


def answered_session_id(data: bytes) -> bytes:
    """Give the session id of a RESPONSE or COOKIE: it stands at the same place in all kinds."""
    return data[4 : _CARRIED_HEADER.size]


def build_response(session_id: bytes, ephemeral: bytes, sealed_payload: bytes) -> bytes:
    """Build a RESPONSE frame."""
    header = _RESPONSE_HEADER.pack(
        grammar.MAGIC,
        FrameType.RESPONSE,
        grammar.VERSION,
        grammar.SUITE_NNPSK0_25519_AESGCM_SHA256,
        session_id,
        ephemeral,
    )
    return header + sealed_payload


def build_cookie_header(session_id: bytes, nonce: bytes) -> bytes:
    """Build bytes 0 to 27 of COOKIE. Spec: section 3.5."""
    frame = _COOKIE.pack(
        grammar.MAGIC,
        FrameType.COOKIE,
        grammar.VERSION,
        grammar.SUITE_NNPSK0_25519_AESGCM_SHA256,
        session_id,
        nonce,
        bytes(grammar.COOKIE_BYTES + TAG_BYTES),
    )
    return frame[:COOKIE_HEADER_BYTES]


def parse_cookie(data: bytes) -> CookieFrame:
    """Split a datagram that `classify` took for COOKIE."""
    return CookieFrame(*_COOKIE.unpack(data)[4:])


def sealed_payload_of(frame_type: FrameType, data: bytes) -> bytes:
    """Give the sealed part of an INIT or RESPONSE frame."""
    header = _INIT_HEADER if frame_type is FrameType.INIT else _RESPONSE_HEADER
    return data[header.size :]


def parse_body(frame_type: int, plaintext: bytes) -> Body:
    """Parse the body of a transport frame whose tag has verified, or raise `Refused`.

    Spec: KA-3.7-1, KA-3.8-1 to KA-3.8-5.
    """
    try:
        fields = _BODY.unpack_from(plaintext)
    except struct.error:
        raise _malformed("body is shorter than 28 bytes") from None
    options = NO_OPTIONS
    if len(plaintext) > BODY_BYTES:
        options = _parse_options(plaintext[BODY_BYTES:])
    if not MIN_STATE <= fields[0] <= MAX_STATE:
        raise _malformed(f"state {fields[0]}")
    if (options.close_reason is None) == (frame_type == FrameType.CLOSE):
        raise _malformed("CLOSE_REASON goes with CLOSE")
    return Body._make((*fields, options))


def build_body(body: Body) -> bytes:
    """Build the plaintext of a transport frame. Spec: KA-3.6-1."""
    return pack_body(*body)


def pack_body(
    state: int,
    diagnostic: int,
    control_version: int,
    control_ack: int,
    sent_time: int,
    echo_time: int,
    hold_time: int,
    highest_received: int,
    received_count: int,
    address_hash: int,
    options: Options = NO_OPTIONS,
) -> bytes:
    """Build the same of the fields of a `Body`, in order."""
    fixed = _BODY.pack(
        state,
        diagnostic,
        control_version,
        control_ack,
        sent_time,
        echo_time,
        hold_time,
        highest_received,
        received_count,
        address_hash,
    )
    return fixed if options is NO_OPTIONS else fixed + build_options(options)


def parse_init_payload(plaintext: bytes) -> InitPayload:
    """Parse the decrypted payload of INIT, or raise `Refused`."""
    parsed = _parse(grammar.InitPayload, plaintext)
    return InitPayload(
        parsed.instance_id,
        parsed.epoch,
        parsed.old_session_id,
        _parameters(parsed.parameters),
        _payload_options(parsed.options),
    )


def build_init_payload(payload: InitPayload) -> bytes:
    """Build the plaintext payload of INIT."""
    return _build(grammar.InitPayload, payload)


def parse_response_payload(plaintext: bytes) -> ResponsePayload:
    """Parse the decrypted payload of RESPONSE, or raise `Refused`."""
    parsed = _parse(grammar.ResponsePayload, plaintext)
    return ResponsePayload(
        parsed.sender_session_id,
        parsed.instance_id,
        parsed.epoch,
        _parameters(parsed.parameters),
        _payload_options(parsed.options),
    )


def build_response_payload(payload: ResponsePayload) -> bytes:
    """Build the plaintext payload of RESPONSE."""
    return _build(grammar.ResponsePayload, payload)


def build_options(options: Options) -> bytes:
    """Build an option list. Spec: KA-3.8-4."""
    return bytes(grammar.Options.build(_option_list(options)))


def _parse_options(data: bytes) -> Options:
    return _options(_parse(grammar.Options, data))


def _parse(structure: Any, data: bytes) -> Any:  # noqa: ANN401
    try:
        return structure.parse(data)
    except ConstructError as error:
        raise _malformed(str(error).splitlines()[-1]) from None


def _build(structure: Any, payload: InitPayload | ResponsePayload) -> bytes:  # noqa: ANN401
    fields = payload._asdict()
    fields["parameters"] = payload.parameters._asdict()
    fields["options"] = _option_list(payload.options)
    return bytes(structure.build(fields))


def _payload_options(parsed: list[Any]) -> Options:
    """Gather the options of a handshake payload. Spec: KA-3.8-5."""
    options = _options(parsed)
    if options.close_reason is not None:
        raise _malformed("CLOSE_REASON goes with CLOSE")
    return options


def _malformed(detail: str) -> Refused:
    return Refused(DropReason.MALFORMED, detail, consumed=True)


def _parameters(parsed: Any) -> Parameters:  # noqa: ANN401
    """Check what the grammar cannot say. Spec: KA-3.1-7."""
    parameters = Parameters(*(parsed[name] for name in Parameters._fields))
    if not parameters.desired_interval_us or not parameters.suspicion_burst:
        raise _malformed("a desired interval or a suspicion burst of zero")
    return parameters


def _options(parsed: list[Any]) -> Options:
    """Gather a parsed option list. Spec: KA-3.8-1, KA-3.8-2, KA-3.8-3."""
    values: dict[str, Any] = {}
    for option in parsed:
        name = _OPTION_FIELDS.get(option.type)
        if name is None:
            if option.type >= CRITICAL:
                raise Refused(DropReason.UNKNOWN_CRITICAL_OPTION, str(option.type), consumed=True)
            continue
        if name in values and option.type != OptionType.PAD:
            raise _malformed(f"option {name} stands twice")
        values[name] = _option_value(option.type, option.value.content)
    return Options(**values)


_OPTION_FIELDS: Final[Mapping[int, str]] = {
    OptionType.PAD: "pad",
    OptionType.ADDRESS_SEEN: "address_seen",
    OptionType.PARAMETERS: "parameters",
    OptionType.PAUSE: "pause_ms",
    OptionType.SLOW_DOWN: "slow_down_us",
    OptionType.CLOSE_REASON: "close_reason",
    OptionType.PATH_CHALLENGE: "path_challenge",
    OptionType.PATH_RESPONSE: "path_response",
    OptionType.NEXT_KEY: "next_key",
    OptionType.ADMIN: "admin",
    OptionType.CLOCK: "clock_us",
}


def _option_value(option_type: int, content: Any) -> Any:  # noqa: ANN401
    if option_type == OptionType.PAD:
        return len(content)
    if option_type == OptionType.ADDRESS_SEEN:
        return grammar.Address.build(content)
    if option_type == OptionType.PARAMETERS:
        return _parameters(content)
    (value,) = (content[name] for name in content if not name.startswith("_"))
    return value


def _option_list(options: Options) -> list[dict[str, Any]]:
    return [
        {"type": option_type, "value": {"content": _option_content(option_type, value)}}
        for option_type, value in zip(OptionType, options, strict=True)
        if value is not None
    ]


def _option_content(option_type: OptionType, value: Any) -> Any:  # noqa: ANN401
    if option_type is OptionType.PAD:
        return bytes(value)
    if option_type is OptionType.ADDRESS_SEEN:
        return grammar.Address.parse(value)
    if option_type is OptionType.PARAMETERS:
        return value._asdict()
    (field,) = (subcon.name for subcon in grammar.OPTION_VALUES[option_type].subcons)
    return {field: value}
