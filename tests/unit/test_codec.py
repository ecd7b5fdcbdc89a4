"""wire/codec: the fast path is the grammar's, and the parser is total."""

import struct

import pytest
from construct import ConstructError
from hypothesis import given
from hypothesis import strategies as st

from kaudp.errors import DropReason, Refused
from kaudp.wire import codec, grammar
from kaudp.wire.codec import Body, InitPayload, Options, Parameters, ResponsePayload
from kaudp.wire.grammar import FrameType, OptionType
from tests.spec.diagrams import fields

U32 = st.integers(0, 2**32 - 1)
POSITIVE_U32 = st.integers(1, 2**32 - 1)
PARAMETERS = st.builds(
    Parameters, POSITIVE_U32, U32, U32, st.integers(1, 65535), st.integers(0, 65535)
)
ADDRESSES = st.builds(
    lambda port, ip: bytes([4 if len(ip) == 4 else 6]) + port.to_bytes(2, "big") + ip,
    st.integers(0, 65535),
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16),
)
EIGHT = st.binary(min_size=8, max_size=8)


def options(close_reason: st.SearchStrategy[int | None]) -> st.SearchStrategy[Options]:
    return st.builds(
        Options,
        pad=st.none() | st.integers(0, 255),
        address_seen=st.none() | ADDRESSES,
        parameters=st.none() | PARAMETERS,
        pause_ms=st.none() | U32,
        slow_down_us=st.none() | U32,
        close_reason=close_reason,
        path_challenge=st.none() | EIGHT,
        path_response=st.none() | EIGHT,
        next_key=st.none() | st.binary(min_size=16, max_size=16),
        admin=st.none() | st.integers(0, 1),
        clock_us=st.none() | st.integers(0, 2**64 - 1),
    )


def bodies(close_reason: st.SearchStrategy[int | None]) -> st.SearchStrategy[Body]:
    byte = st.integers(0, 255)
    return st.builds(
        Body,
        st.integers(1, 6),
        byte,
        byte,
        byte,
        U32,
        U32,
        U32,
        U32,
        U32,
        U32,
        options(close_reason),
    )


@pytest.mark.parametrize(
    ("fast", "structure"),
    [
        (codec._INIT_HEADER, grammar.Init),
        (codec._RESPONSE_HEADER, grammar.Response),
        (codec._TRANSPORT_HEADER, grammar.Transport),
        (codec._BODY, grammar.Body),
    ],
)
def test_fast_formats_are_as_wide_as_the_grammar(fast: struct.Struct, structure: object) -> None:
    """KA-3.1-6."""
    assert fast.size == sum(width for _, width in fields(structure) if width is not None)


def test_no_field_says_how_long_echoed_data_is() -> None:
    """KA-3.1-5: Heartbleed."""
    for structure in (*grammar.FRAMES.values(), grammar.Body, grammar.InitPayload):
        assert not [name for name, _ in fields(structure) if "length" in name or "size" in name]


@given(bodies(st.none()))
def test_a_body_survives_build_and_parse(body: Body) -> None:
    """KA-3.1-6."""
    for frame_type in (FrameType.PROBE, FrameType.REPLY):
        assert codec.parse_body(frame_type, codec.build_body(body)) == body


@given(bodies(st.integers(0, 65535)))
def test_a_close_survives_build_and_parse(body: Body) -> None:
    """KA-3.8-5."""
    assert codec.parse_body(FrameType.CLOSE, codec.build_body(body)) == body


@given(EIGHT, EIGHT, EIGHT, PARAMETERS, options(st.none()))
def test_handshake_payloads_survive(
    one: bytes, two: bytes, three: bytes, parameters: Parameters, chosen: Options
) -> None:
    """KA-3.1-6 KA-3.3-1: unknown feature bits are kept apart, not refused."""
    init = InitPayload(one, two, three, parameters, chosen)
    assert codec.parse_init_payload(codec.build_init_payload(init)) == init
    response = ResponsePayload(one, two, three, parameters, chosen)
    assert codec.parse_response_payload(codec.build_response_payload(response)) == response


@given(st.binary(max_size=600))
def test_the_parser_is_total(data: bytes) -> None:
    """KA-12-1: every byte string is a value or a `Refused`, by every door."""
    for parse in (
        codec.classify,
        codec.parse_init_payload,
        codec.parse_response_payload,
        lambda bytes_: codec.parse_body(FrameType.PROBE, bytes_),
        lambda bytes_: codec.parse_body(FrameType.CLOSE, bytes_),
    ):
        try:
            parse(data)
        except Refused as refused:
            assert refused.reason in DropReason


LEGAL_BODY = codec.build_body(Body(1, 0, 0, 0, 0, 0, 0, 0, 0, 0))


@given(st.binary(max_size=200))
def test_codec_and_grammar_accept_the_same_options(data: bytes) -> None:
    """KA-3.8-1 KA-3.8-2 KA-3.8-3: but for the rules that are not layout."""
    try:
        parsed = grammar.Options.parse(data)
    except ConstructError:
        with pytest.raises(Refused):
            codec.parse_body(FrameType.PROBE, LEGAL_BODY + data)
        return
    try:
        codec.parse_body(FrameType.PROBE, LEGAL_BODY + data)
    except Refused as refused:
        kinds = [option.type for option in parsed]
        known = [kind for kind in kinds if kind in list(OptionType) and kind != OptionType.PAD]
        assert (
            refused.reason is DropReason.UNKNOWN_CRITICAL_OPTION
            or len(known) != len(set(known))
            or OptionType.CLOSE_REASON in kinds
            or OptionType.PARAMETERS in kinds
        )


def test_state_and_type_rules() -> None:
    """KA-3.7-1 KA-3.8-5."""
    for state in (0, 7, 255):
        with pytest.raises(Refused, match="state"):
            codec.parse_body(FrameType.PROBE, bytes([state]) + LEGAL_BODY[1:])
    with pytest.raises(Refused, match="CLOSE_REASON goes with CLOSE"):
        codec.parse_body(FrameType.CLOSE, LEGAL_BODY)


def test_a_wrong_suite_is_not_ours() -> None:
    """KA-3.1-4 KA-3.1-1 KA-3.1-2 KA-3.1-3."""
    good = codec.build_init_prologue(bytes(8), bytes(16)) + bytes(88)
    assert codec.classify(good) is FrameType.INIT
    for place, value in ((0, 0x0C), (1, 0x00), (1, 0x04), (1, 0x0B), (2, 0x82), (3, 0x02)):
        with pytest.raises(Refused) as refused:
            codec.classify(good[:place] + bytes([value]) + good[place + 1 :])
        assert refused.value.reason is DropReason.NOT_KAUDP
    for wrong in (good[:131], good + bytes(512 - 131)):
        with pytest.raises(Refused):
            codec.classify(wrong)


def test_no_more_than_16_options() -> None:
    """KA-3.8-6: what a frame costs to parse is bounded."""
    codec.parse_body(FrameType.PROBE, LEGAL_BODY + bytes(2) * 16)
    with pytest.raises(Refused, match="more than 16 options"):
        codec.parse_body(FrameType.PROBE, LEGAL_BODY + bytes(2) * 17)
