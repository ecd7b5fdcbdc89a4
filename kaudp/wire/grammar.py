"""THE layout of every kaudp/1 frame, written once.

Nothing here knows of keys, sessions or time. `codec` takes its fast formats from these
structures; the diagrams of spec/kaudp.md are compared with them by a test.
Spec: section 3; KA-3.1-6.
"""

from enum import IntEnum
from typing import Any, Final

from construct import (
    Bytes,
    Const,
    Construct,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    OneOf,
    Prefixed,
    RangeError,
    Struct,
    Subconstruct,
    Switch,
    Terminated,
    stream_iseof,
    this,
)

# The values let STUN, DTLS, TURN, RTP and QUIC leave a frame alone. Spec: KA-2-1, KA-2-2.
MAGIC: Final = 0x0B
VERSION: Final = 0x81
SUITE_CARRIED: Final = 0x00
SUITE_NNPSK0_25519_AESGCM_SHA256: Final = 0x01

SESSION_ID_BYTES: Final = 8
KEY_ID_BYTES: Final = 16
COOKIE_BYTES: Final = 16
COOKIE_NONCE_BYTES: Final = 16
EPHEMERAL_BYTES: Final = 32
TAG_BYTES: Final = 16
MAX_FRAME_BYTES: Final = 512
MAX_OPTIONS: Final = 16
KEY_PHASE: Final = 0x01


class FrameType(IntEnum):
    """The second byte of a frame. Spec: KA-3.1-2."""

    INIT = 0x01
    RESPONSE = 0x02
    COOKIE = 0x03
    PROBE = 0x08
    REPLY = 0x09
    CLOSE = 0x0A


class OptionType(IntEnum):
    """The first byte of an option; from CRITICAL up an unknown one voids the frame."""

    PAD = 0x00
    ADDRESS_SEEN = 0x01
    PARAMETERS = 0x02
    PAUSE = 0x03
    SLOW_DOWN = 0x04
    CLOSE_REASON = 0x05
    PATH_CHALLENGE = 0x06
    PATH_RESPONSE = 0x07
    NEXT_KEY = 0x08
    ADMIN = 0x09
    CLOCK = 0x0A


CRITICAL: Final = 0x80


class AddressFamily(IntEnum):
    """The first byte of an ADDRESS_SEEN option."""

    IPV4 = 4
    IPV6 = 6


class UntilEnd(Subconstruct):  # type: ignore[misc]
    """Repeat one construct to the end of the stream, MAX_OPTIONS times at most. Spec: KA-3.8-6.

    `GreedyRange` would take a malformed element for the end of the list.
    """

    def _parse(self, stream: Any, context: Any, path: str) -> list[Any]:  # noqa: ANN401
        elements: list[Any] = []
        while not stream_iseof(stream):
            if len(elements) == MAX_OPTIONS:
                raise RangeError(f"more than {MAX_OPTIONS} options", path=path)
            elements.append(self.subcon._parsereport(stream, context, path))
        return elements

    def _build(self, obj: Any, stream: Any, context: Any, path: str) -> Any:  # noqa: ANN401
        for element in obj:
            self.subcon._build(element, stream, context, path)
        return obj


def _handshake_header(
    frame_type: FrameType, suite: int = SUITE_NNPSK0_25519_AESGCM_SHA256
) -> tuple[Construct, ...]:
    return (
        "magic" / Const(MAGIC, Int8ub),
        "type" / Const(int(frame_type), Int8ub),
        "version" / Const(VERSION, Int8ub),
        "suite" / Const(suite, Int8ub),
    )


Init: Final = Struct(
    *_handshake_header(FrameType.INIT),
    "sender_session_id" / Bytes(SESSION_ID_BYTES),
    "key_id" / Bytes(KEY_ID_BYTES),
    "cookie" / Bytes(COOKIE_BYTES),
    "ephemeral" / Bytes(EPHEMERAL_BYTES),
    "sealed_payload" / GreedyBytes,
)

Response: Final = Struct(
    *_handshake_header(FrameType.RESPONSE),
    "receiver_session_id" / Bytes(SESSION_ID_BYTES),
    "ephemeral" / Bytes(EPHEMERAL_BYTES),
    "sealed_payload" / GreedyBytes,
)

Cookie: Final = Struct(
    *_handshake_header(FrameType.COOKIE),
    "receiver_session_id" / Bytes(SESSION_ID_BYTES),
    "nonce" / Bytes(COOKIE_NONCE_BYTES),
    "sealed_cookie" / Bytes(COOKIE_BYTES + TAG_BYTES),
)

Transport: Final = Struct(
    "magic" / Const(MAGIC, Int8ub),
    "type" / OneOf(Int8ub, [FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE]),
    "version" / Const(VERSION, Int8ub),
    "flags" / Int8ub,
    "receiver_session_id" / Bytes(SESSION_ID_BYTES),
    "packet_number" / Int64ub,
    "sealed_body" / GreedyBytes,
)

CarriedInit: Final = Struct(
    *_handshake_header(FrameType.INIT, SUITE_CARRIED),
    "sender_session_id" / Bytes(SESSION_ID_BYTES),
    "payload" / GreedyBytes,
)

CarriedResponse: Final = Struct(
    *_handshake_header(FrameType.RESPONSE, SUITE_CARRIED),
    "receiver_session_id" / Bytes(SESSION_ID_BYTES),
    "payload" / GreedyBytes,
)

Parameters: Final = Struct(
    "desired_interval_us" / Int32ub,
    "min_receive_interval_us" / Int32ub,
    "suspicion_interval_us" / Int32ub,
    "suspicion_burst" / Int16ub,
    "features" / Int16ub,
)

Address: Final = Struct(
    "family" / OneOf(Int8ub, [AddressFamily.IPV4, AddressFamily.IPV6]),
    "port" / Int16ub,
    "address" / Switch(this.family, {4: Bytes(4), 6: Bytes(16)}),
)

OPTION_VALUES: Final[dict[OptionType, Construct]] = {
    OptionType.PAD: GreedyBytes,
    OptionType.ADDRESS_SEEN: Address,
    OptionType.PARAMETERS: Parameters,
    OptionType.PAUSE: Struct("duration_ms" / Int32ub),
    OptionType.SLOW_DOWN: Struct("min_receive_interval_us" / Int32ub),
    OptionType.CLOSE_REASON: Struct("reason" / Int16ub),
    OptionType.PATH_CHALLENGE: Struct("data" / Bytes(8)),
    OptionType.PATH_RESPONSE: Struct("data" / Bytes(8)),
    OptionType.NEXT_KEY: Struct("key_id" / Bytes(KEY_ID_BYTES)),
    OptionType.ADMIN: Struct("down" / OneOf(Int8ub, [0, 1])),
    OptionType.CLOCK: Struct("utc_us" / Int64ub),
}

Option: Final = Struct(
    "type" / Int8ub,
    "value"
    / Prefixed(
        Int8ub,
        Struct(
            "content" / Switch(this._.type, OPTION_VALUES, default=GreedyBytes),
            Terminated,
        ),
    ),
)

Options: Final = UntilEnd(Option)

InitPayload: Final = Struct(
    "instance_id" / Bytes(8),
    "epoch" / Bytes(8),
    "old_session_id" / Bytes(SESSION_ID_BYTES),
    "parameters" / Parameters,
    "options" / Options,
)

ResponsePayload: Final = Struct(
    "sender_session_id" / Bytes(SESSION_ID_BYTES),
    "instance_id" / Bytes(8),
    "epoch" / Bytes(8),
    "parameters" / Parameters,
    "options" / Options,
)

Body: Final = Struct(
    "state" / Int8ub,
    "diagnostic" / Int8ub,
    "control_version" / Int8ub,
    "control_ack" / Int8ub,
    "sent_time" / Int32ub,
    "echo_time" / Int32ub,
    "hold_time" / Int32ub,
    "highest_received" / Int32ub,
    "received_count" / Int32ub,
    "address_hash" / Int32ub,
    "options" / Options,
)

FRAMES: Final[dict[FrameType, Struct]] = {
    FrameType.INIT: Init,
    FrameType.RESPONSE: Response,
    FrameType.COOKIE: Cookie,
    FrameType.PROBE: Transport,
    FrameType.REPLY: Transport,
    FrameType.CLOSE: Transport,
}
