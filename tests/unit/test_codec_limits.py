"""wire/codec: the edges of what is a frame, and what a refusal says."""

import pytest
from construct import ConstructError, Struct

from kaudp.errors import DropReason, Refused
from kaudp.wire import codec, grammar
from kaudp.wire.codec import NO_OPTIONS, Body, InitPayload, Options, Parameters, ResponsePayload
from kaudp.wire.grammar import FrameType, OptionType

LEGAL = {
    FrameType.INIT: (132, 512),
    FrameType.RESPONSE: (100, 512),
    FrameType.COOKIE: (60, 60),
    FrameType.PROBE: (64, 512),
    FrameType.REPLY: (64, 512),
    FrameType.CLOSE: (64, 512),
}
LEGAL_CARRIED = {
    FrameType.INIT: (52, 512),
    FrameType.RESPONSE: (52, 512),
    FrameType.PROBE: (48, 512),
    FrameType.REPLY: (48, 512),
    FrameType.CLOSE: (48, 512),
}
BODY = codec.build_body(Body(1, 0, 0, 0, 0, 0, 0, 0, 0, 0))
PARAMETERS = Parameters(1, 2, 3, 4, 5)
INIT = InitPayload(bytes(8), bytes(8), bytes(8), PARAMETERS)


def is_ours(data: bytes, *, carried: bool) -> bool:
    try:
        kind = codec.classify_carried(data) if carried else codec.classify(data)
    except Refused as refused:
        assert refused.reason is DropReason.NOT_KAUDP
        assert not refused.consumed
        return False
    assert kind == data[1]
    return True


def frame(kind: int, size: int, suite: int) -> bytes:
    return bytes([0x0B, kind, 0x81, suite]) + bytes(size - 4)


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("kind", FrameType)
def test_each_type_has_its_legal_lengths(kind: FrameType, carried: bool) -> None:
    """KA-3.1-3 KA-3.1-5 KA-14.1-4: to the byte, as the tables of sections 3 and 14.1 say."""
    suite = 0x00 if carried else 0x01
    least, most = (LEGAL_CARRIED if carried else LEGAL).get(kind, (1, 0))
    for size in (4, 11, 12, 19, 20, 21, *range(40, 140), 511, 512, 513, 600):
        assert is_ours(frame(kind, size, suite), carried=carried) == (least <= size <= most), size


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("kind", FrameType)
def test_the_suite_counts_in_handshake_frames_only(kind: FrameType, carried: bool) -> None:
    """KA-3.1-4 KA-14.1-4: elsewhere that byte holds flags, judged after the tag (KA-3.6-3)."""
    if carried and kind is FrameType.COOKIE:
        return
    size = (LEGAL_CARRIED if carried else LEGAL)[kind][1]
    handshake = kind in (FrameType.INIT, FrameType.RESPONSE, FrameType.COOKIE)
    for suite in (0x00, 0x01, 0x02, 0xFF):
        expected = not handshake or suite == (0x00 if carried else 0x01)
        assert is_ours(frame(kind, size, suite), carried=carried) == expected


def test_what_is_too_short_for_any_look_is_not_ours() -> None:
    """KA-2-6 KA-12-1."""
    for size in range(20):
        for carried in (False, True):
            assert not is_ours(frame(0x08, 64, 0)[:size], carried=carried)


@pytest.mark.parametrize(
    ("plaintext", "frame_type", "says"),
    [
        (BODY[:27], FrameType.PROBE, "malformed: body is shorter than 28 bytes"),
        (b"", FrameType.PROBE, "malformed: body is shorter than 28 bytes"),
        (b"\x07\x09" + BODY[2:], FrameType.PROBE, "malformed: state 7"),
        (BODY, FrameType.CLOSE, "malformed: CLOSE_REASON goes with CLOSE"),
        (BODY + b"\x05\x02\x00\x00", FrameType.PROBE, "malformed: CLOSE_REASON goes with CLOSE"),
        (BODY + 2 * b"\x03\x04\x00\x00\x00\x01", FrameType.PROBE, "malformed: option pause_ms"),
        (BODY + b"\x80\x00", FrameType.PROBE, "unknown_critical_option: 128"),
        (BODY + b"\xff\x01\x00", FrameType.REPLY, "unknown_critical_option: 255"),
        (BODY + bytes(34), FrameType.PROBE, "malformed: more than 16 options"),
        (
            BODY + b"\x02\x10" + bytes(16),
            FrameType.PROBE,
            "malformed: a desired interval or a suspicion burst of zero",
        ),
    ],
)
def test_a_refused_body_says_why(plaintext: bytes, frame_type: FrameType, says: str) -> None:
    """KA-3.1-7 KA-3.7-1 KA-3.8-2 KA-3.8-3 KA-3.8-5 KA-3.8-6: `kaudp decode` shows it."""
    with pytest.raises(Refused) as refused:
        codec.parse_body(frame_type, plaintext)
    assert str(refused.value).startswith(says)
    assert refused.value.consumed


def test_a_refused_payload_says_why() -> None:
    """KA-3.8-5 KA-3.1-7."""
    closing = INIT._replace(options=Options(close_reason=1))
    with pytest.raises(Refused, match=r"^malformed: CLOSE_REASON goes with CLOSE$"):
        codec.parse_init_payload(codec.build_init_payload(closing))
    for wrong in (
        PARAMETERS._replace(desired_interval_us=0),
        PARAMETERS._replace(suspicion_burst=0),
    ):
        zero = codec.build_init_payload(INIT._replace(parameters=wrong))
        with pytest.raises(Refused) as refused:
            codec.parse_init_payload(zero)
        assert str(refused.value) == "malformed: a desired interval or a suspicion burst of zero"


def test_a_carried_init_that_is_not_whole_is_the_applications_and_says_why() -> None:
    """KA-14.1-4."""
    short = codec.build_carried(FrameType.INIT, b"12345678", codec.build_init_payload(INIT) + b"\0")
    with pytest.raises(Refused) as refused:
        codec.parse_carried_init(short)
    assert refused.value.reason is DropReason.NOT_KAUDP
    assert not refused.value.consumed
    assert str(refused.value).startswith("not_kaudp: malformed: ")


def test_carried_handshake_frames_survive() -> None:
    """KA-14.1-1: both kinds have the session id at the same place, and their payload in clear."""
    init = codec.build_carried(FrameType.INIT, b"12345678", codec.build_init_payload(INIT))
    assert init[:4] == b"\x0b\x01\x81\x00"
    assert codec.parse_carried_init(init) == (b"12345678", INIT)
    answer = ResponsePayload(b"abcdefgh", b"i" * 8, b"e" * 8, PARAMETERS)
    response = codec.build_carried(
        FrameType.RESPONSE, b"12345678", codec.build_response_payload(answer)
    )
    session_id, plaintext = codec.parse_carried(response)
    assert session_id == codec.answered_session_id(response) == b"12345678"
    assert codec.parse_response_payload(plaintext) == answer


def test_a_body_without_options_ends_with_its_fixed_part() -> None:
    """KA-3.6-1: an empty set of options takes no byte either."""
    body = Body(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert len(codec.build_body(body)) == codec.BODY_BYTES == 28
    assert codec.build_body(body._replace(options=Options())) == codec.build_body(body)
    assert codec.parse_body(FrameType.PROBE, codec.build_body(body)).options is NO_OPTIONS


def test_constants_of_the_layout() -> None:
    """KA-3.6-1 KA-3.1-6: what the rest of the library takes them to be."""
    assert (codec.TRANSPORT_HEADER_BYTES, codec.STEADY_FRAME_BYTES) == (20, 64)
    assert (codec.CARRIED_FRAME_BYTES, codec.INIT_PROLOGUE_BYTES, codec.MIN_INIT_BYTES) == (
        48,
        44,
        132,
    )


@pytest.mark.parametrize(
    ("kind", "value", "legal"),
    [
        (OptionType.ADDRESS_SEEN, bytes([4]) + bytes(6), True),
        (OptionType.ADDRESS_SEEN, bytes([6]) + bytes(18), True),
        (OptionType.ADDRESS_SEEN, bytes([6]) + bytes(6), False),
        (OptionType.ADDRESS_SEEN, bytes([4]) + bytes(18), False),
        (OptionType.ADDRESS_SEEN, bytes([5]) + bytes(6), False),
        (OptionType.PAUSE, bytes(3), False),
        (OptionType.PAUSE, bytes(5), False),
        (OptionType.PAUSE, bytes(4), True),
        (OptionType.PATH_CHALLENGE, bytes(7), False),
        (OptionType.PATH_RESPONSE, bytes(9), False),
    ],
)
def test_a_known_option_has_its_length(kind: OptionType, value: bytes, legal: bool) -> None:
    """KA-3.8-3."""
    data = BODY + bytes([kind, len(value)]) + value
    if legal:
        codec.parse_body(FrameType.PROBE, data)
        return
    with pytest.raises(Refused) as refused:
        codec.parse_body(FrameType.PROBE, data)
    assert refused.value.reason is DropReason.MALFORMED


@pytest.mark.parametrize("kind", FrameType)
def test_the_grammar_reads_and_writes_every_frame(kind: FrameType) -> None:
    """KA-3.1-6 KA-2-1 KA-3.1-1 KA-3.1-2 KA-3.1-4: and no frame of another type or version."""
    structure = grammar.FRAMES[kind]
    data = frame(kind, LEGAL[kind][0], 0x01)
    parsed = structure.parse(data)
    assert structure.build(parsed) == data
    handshake = kind in (FrameType.INIT, FrameType.RESPONSE, FrameType.COOKIE)
    places = (0, 1, 2, 3) if handshake else (0, 1, 2)
    for place in places:
        wrong = data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]
        with pytest.raises(ConstructError):
            structure.parse(wrong)


@pytest.mark.parametrize(
    ("structure", "kind"),
    [(grammar.CarriedInit, FrameType.INIT), (grammar.CarriedResponse, FrameType.RESPONSE)],
)
def test_the_grammar_of_carried_handshake_frames(structure: Struct, kind: FrameType) -> None:
    """KA-14.1-1 KA-3.1-4: suite 0, then the session id and the payload in clear."""
    data = codec.build_carried(kind, b"12345678", b"payload")
    parsed = structure.parse(data)
    assert (parsed.magic, parsed.type, parsed.version, parsed.suite) == (0x0B, kind, 0x81, 0x00)
    assert parsed.payload == b"payload"
    assert structure.build(parsed) == data
    for place in range(4):
        wrong = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(ConstructError):
            structure.parse(wrong)


def test_the_grammar_names_the_parts_of_an_address() -> None:
    """KA-3.1-6: by section 3.8's table, in this order."""
    parsed = grammar.Address.parse(bytes([4, 1, 2, 192, 0, 2, 1]))
    assert (parsed.family, parsed.port, parsed.address) == (4, 258, bytes([192, 0, 2, 1]))
    assert [field.name for field in grammar.Address.subcons] == ["family", "port", "address"]


def test_the_grammar_names_fields_as_the_text_does() -> None:
    """KA-3.1-6: a decoder shows these names."""

    def names(structure: Struct) -> str:
        return " ".join(field.name for field in structure.subcons)

    magic, transport = "magic type version", "receiver_session_id packet_number sealed_body"
    assert names(grammar.Transport) == f"{magic} flags {transport}"
    handshake = f"{magic} suite"
    assert names(grammar.Init) == (
        f"{handshake} sender_session_id key_id cookie ephemeral sealed_payload"
    )
    assert names(grammar.Response) == f"{handshake} receiver_session_id ephemeral sealed_payload"
    assert names(grammar.Cookie) == f"{handshake} receiver_session_id nonce sealed_cookie"
    assert names(grammar.CarriedInit) == f"{handshake} sender_session_id payload"
    assert names(grammar.CarriedResponse) == f"{handshake} receiver_session_id payload"
    options = {
        kind: names(value)
        for kind, value in grammar.OPTION_VALUES.items()
        if isinstance(value, Struct)
    }
    del options[OptionType.PARAMETERS], options[OptionType.ADDRESS_SEEN]
    assert options == {
        OptionType.PAUSE: "duration_ms",
        OptionType.SLOW_DOWN: "min_receive_interval_us",
        OptionType.CLOSE_REASON: "reason",
        OptionType.PATH_CHALLENGE: "data",
        OptionType.PATH_RESPONSE: "data",
        OptionType.NEXT_KEY: "key_id",
        OptionType.ADMIN: "down",
        OptionType.CLOCK: "utc_us",
    }
