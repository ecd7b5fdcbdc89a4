"""The golden vectors of spec/vectors against the code. They were made without it."""

import json
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.events import QuicEvent, StreamDataReceived, StreamReset
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.config import Config
from kaudp.core import cadence
from kaudp.core.channel import Channel
from kaudp.core.endpoint import Endpoint
from kaudp.core.handshake import HANDSHAKE_RETRY_MAX, Attempt
from kaudp.core.paths import address_bytes, address_hash
from kaudp.core.replay import ReplayWindow
from kaudp.core.rtt import PTO_INITIAL, ResponseTime, RoundTripTimes
from kaudp.errors import DropReason, Refused
from kaudp.io.quic.carriers import DatagramCarrier, Messages
from kaudp.io.quic.streams import PeerStreams
from kaudp.wire import codec, grammar
from kaudp.wire.codec import Body, InitPayload, Options, Parameters, ResponsePayload
from kaudp.wire.cookies import address_cookie, open_cookie, seal_cookie
from kaudp.wire.grammar import FrameType, OptionType
from kaudp.wire.keys import MasterKey, PresharedKey
from kaudp.wire.noise import Initiator, Responder
from kaudp.wire.seal import OneKey, next_secret, session_keys, traffic_key
from kaudp.wire.suites import Carried, NoiseInitiation, OpenedNoiseInit, open_init

FOLDER = Path(__file__).parents[2] / "spec" / "vectors"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "schema")


def load(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.json").read_text())["tests"]


def vectors(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", [pytest.param(v, id=v["id"]) for v in load(name)])


@pytest.mark.parametrize("name", NAMES)
def test_files_follow_the_schema(name: str) -> None:
    schema = json.loads((FOLDER / "schema.json").read_text())
    assert name in schema["properties"]["algorithm"]["enum"]
    jsonschema.validate(json.loads((FOLDER / f"{name}.json").read_text()), schema)


def unhexed(value: Any) -> Any:
    return bytes.fromhex(value) if isinstance(value, str) else value


# ---- frames ----


def receiving_channel(vector: dict[str, Any]) -> Channel:
    key = OneKey(AESGCM(bytes.fromhex(vector["traffic_key"])))
    channel = Channel(bytes.fromhex(vector["session_id"]), bytes(8), key, 0)
    channel.last_sent = vector.get("highest_sent", 0xFFFF_FFFF)
    return channel


def open_frame(vector: dict[str, Any]) -> Body:
    data = bytes.fromhex(vector["frame"])
    codec.classify(data)
    header = codec.parse_transport_header(data)
    channel = receiving_channel(vector)
    if header.receiver_session_id != channel.local_id:
        raise Refused(DropReason.UNKNOWN_SESSION)
    return channel.accept(header, channel.unseal(header, data, 0), 0)[0]


OPTION_FIELDS: dict[int, tuple[str, Callable[[Any], Any]]] = {
    OptionType.PAD: ("pad", lambda value: len(value) // 2),
    OptionType.ADDRESS_SEEN: (
        "address_seen",
        lambda value: (
            bytes([value["family"]])
            + value["port"].to_bytes(2, "big")
            + bytes.fromhex(value["address"])
        ),
    ),
    OptionType.PARAMETERS: ("parameters", lambda value: Parameters(**value)),
    OptionType.PAUSE: ("pause_ms", itemgetter("duration_ms")),
    OptionType.SLOW_DOWN: ("slow_down_us", itemgetter("min_receive_interval_us")),
    OptionType.CLOSE_REASON: ("close_reason", itemgetter("reason")),
    OptionType.PATH_CHALLENGE: ("path_challenge", lambda value: bytes.fromhex(value["data"])),
    OptionType.PATH_RESPONSE: ("path_response", lambda value: bytes.fromhex(value["data"])),
    OptionType.NEXT_KEY: ("next_key", lambda value: bytes.fromhex(value["key_id"])),
    OptionType.ADMIN: ("admin", itemgetter("down")),
    OptionType.CLOCK: ("clock_us", itemgetter("utc_us")),
}


def expected_options(listed: list[dict[str, Any]]) -> Options:
    known = [option for option in listed if option["type"] in OPTION_FIELDS]
    fields = [(*OPTION_FIELDS[option["type"]], option["value"]) for option in known]
    return Options(**{name: convert(value) for name, convert, value in fields})


def rebuilds(options: list[dict[str, Any]]) -> bool:
    """Whether a sender of this library would lay the options out in the same bytes."""
    types = [option["type"] for option in options]
    known = types == sorted(set(types)) and all(number in list(OptionType) for number in types)
    zero_pad = all(int(o["value"] or "0", 16) == 0 for o in options if o["type"] == OptionType.PAD)
    return known and zero_pad


@vectors("frames")
def test_frames(vector: dict[str, Any]) -> None:
    """KA-2-1 KA-2-2 KA-3.1-1 KA-3.1-2 KA-3.1-3 KA-3.1-6 KA-3.1-7 KA-3.6-1 to 4 KA-3.7-1 to 2.

    KA-3.8-1 to 5.
    """
    if vector["result"] == "invalid":
        with pytest.raises(Refused) as refused:
            open_frame(vector)
        assert (refused.value.reason.value, refused.value.consumed) == (
            vector["reason"],
            vector["consumed"],
        )
        return
    body = open_frame(vector)
    fields = {**vector["body"], "address_hash": int(vector["body"]["address_hash"], 16)}
    assert body == Body(**fields, options=expected_options(vector["options"]))


@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["id"]) for v in load("frames") if v["result"] == "valid"]
)
def test_valid_frames_build_to_the_same_bytes(vector: dict[str, Any]) -> None:
    """KA-4.4-1 KA-3.6-2: what is built from the fields is the vector's frame."""
    body = open_frame(vector)
    data = bytes.fromhex(vector["frame"])
    header = codec.parse_transport_header(data)
    built = codec.build_transport_header(
        FrameType(header.type), header.receiver_session_id, header.packet_number, header.flags
    )
    assert built == bytes.fromhex(vector["aad"])
    parsed = grammar.Body.parse(bytes.fromhex(vector["plaintext"]))
    assert tuple(parsed[name] for name in Body._fields[:-1]) == body[:-1]
    if rebuilds(vector["options"]):
        plaintext = codec.build_body(body)
        assert plaintext == bytes.fromhex(vector["plaintext"])
        key = AESGCM(bytes.fromhex(vector["traffic_key"]))
        assert built + key.encrypt(bytes.fromhex(vector["nonce"]), plaintext, built) == data


# ---- handshake ----


def psk_of(vector: dict[str, Any]) -> PresharedKey:
    return PresharedKey(bytes.fromhex(vector["psk"]), key_id=bytes.fromhex(vector["key_id"]))


def initiator_of(vector: dict[str, Any]) -> Initiator:
    init = bytes.fromhex(vector["init"])
    return Initiator(
        psk_of(vector).secret,
        init[: codec.INIT_PROLOGUE_BYTES],
        bytes.fromhex(vector["initiator"]["ephemeral_private"]),
    )


@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["id"]) for v in load("handshake") if v["result"] == "valid"]
)
def test_handshakes(vector: dict[str, Any]) -> None:
    """KA-4.2-6 KA-4.3-1 KA-4.4-4: every byte of both messages and all keys."""
    init, response = bytes.fromhex(vector["init"]), bytes.fromhex(vector["response"])
    initiator = initiator_of(vector)
    message_1 = initiator.write_message_1(bytes.fromhex(vector["init_plaintext"]))
    assert init == bytes.fromhex(vector["prologue"]) + message_1
    opened = open_init(psk_of(vector), init)
    assert opened.sender_session_id.hex() == vector["initiator"]["session_id"]
    assert opened.payload.epoch.hex() == vector["initiator"]["epoch"]
    assert opened.payload.old_session_id.hex() == vector["init_payload"]["old_session_id"]
    assert isinstance(opened, OpenedNoiseInit)
    sent = codec.build_response(
        opened.sender_session_id,
        *opened.noise.write_message_2(
            bytes.fromhex(vector["responder"]["ephemeral_private"]),
            bytes.fromhex(vector["response_plaintext"]),
        ),
    )
    assert sent == response
    assert len(response) <= len(init)
    response_header = codec.parse_response_header(response)
    sealed = codec.sealed_payload_of(FrameType.RESPONSE, response)
    plaintext, secrets = initiator.read_message_2(response_header.ephemeral, sealed)
    assert plaintext.hex() == vector["response_plaintext"]

    assert secrets == opened.noise.split()
    assert [part.hex() for part in secrets] == [vector["s_i"], vector["s_r"]]
    assert traffic_key(secrets.initiator_to_responder).hex() == vector["key_i"]
    assert traffic_key(secrets.responder_to_initiator).hex() == vector["key_r"]
    for frame, initiated in ((vector["probe"], False), (vector["reply"], True)):
        keys = session_keys(secrets, initiator=initiated)
        data = bytes.fromhex(frame["frame"])
        opened = keys.unseal(codec.parse_transport_header(data), data, 0)
        assert opened.hex() == frame["plaintext"]


@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["id"]) for v in load("handshake") if v["refused"] == "init"]
)
def test_refused_inits(vector: dict[str, Any]) -> None:
    """KA-2-4 KA-4.2-4: refused for the reason given, and nothing is answered or kept."""
    psk = psk_of(vector)
    identity = [bytes.fromhex(vector["responder"][name]) for name in ("epoch", "instance_id")]
    endpoint = Endpoint(
        Config.server(),
        keys=psk,
        rng=Random(1),
        entropy=lambda n: identity.pop() if identity else bytes(range(n)),
        accept=True,
    )
    consumed = endpoint.receive_datagram(bytes.fromhex(vector["init"]), ("192.0.2.1", 1), 0)
    assert consumed == vector["consumed"]
    assert endpoint.counters == {DropReason(vector["reason"]): 1}
    assert not list(endpoint.datagrams_to_send())
    assert endpoint.next_event() is None
    assert endpoint.quiet


@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["id"]) for v in load("handshake") if v["refused"] == "response"]
)
def test_refused_responses(vector: dict[str, Any]) -> None:
    """KA-4.3-6 KA-4.3-7: refused for the reason given, and the right one still counts."""
    noise = initiator_of(vector)
    noise.write_message_1(init_plain(vector))
    attempt = object.__new__(Attempt)
    attempt._side = object.__new__(NoiseInitiation)
    attempt._side.noise = noise
    attempt.session_id = bytes.fromhex(vector["initiator"]["session_id"])
    with pytest.raises(Refused) as refused:
        receive_response(attempt, bytes.fromhex(vector["response"]))
    assert (refused.value.reason.value, refused.value.consumed) == (
        vector["reason"],
        vector["consumed"],
    )


def init_plain(vector: dict[str, Any]) -> bytes:
    """Open the vector's own INIT; under the wrong PSK its content does not matter."""
    init = bytes.fromhex(vector["init"])
    responder = Responder(psk_of(vector).secret, init[:44])
    try:
        return responder.read_message_1(init[44:76], init[76:])
    except Refused:
        return bytes(40)


def receive_response(attempt: Attempt, data: bytes) -> None:
    codec.classify(data)
    if codec.parse_response_header(data).receiver_session_id != attempt.session_id:
        raise Refused(DropReason.UNKNOWN_SESSION)
    attempt.complete(data)


# ---- derivations, cadence, replay, estimates ----


@vectors("derivations")
def test_derivations(vector: dict[str, Any]) -> None:
    """KA-4.1-5 KA-4.1-6 KA-4.4-4 KA-4.5-3 KA-4.5-4 KA-9.2-4."""
    given = {name: unhexed(value) for name, value in vector["input"].items() if name != "ip"}
    expected = vector["expected"]
    match vector["function"]:
        case "default_key_id":
            assert PresharedKey(given["psk"]).key_id.hex() == expected["key_id"]
        case "client_psk":
            derived = MasterKey(given["master_secret"])(given["key_id"])
            assert derived.secret.hex() == expected["psk"]
            assert derived.key_id == given["key_id"]
        case "traffic_key":
            assert traffic_key(given["secret"]).hex() == expected["key"]
            assert next_secret(given["secret"]).hex() == expected["next_secret"]
        case "address_hash":
            address = (vector["input"]["ip"], given["port"])
            canonical = address_bytes(address)
            assert canonical is not None
            assert canonical.hex() == expected["canonical"]
            hashed = address_hash(given["receiver_session_id"], address)
            assert f"{hashed:08x}" == expected["address_hash"]
        case "cookie":
            canonical = address_bytes((vector["input"]["ip"], given["port"]))
            assert canonical is not None
            cookie = address_cookie(given["secret"], canonical, given["key_id"])
            assert cookie.hex() == expected["cookie"]
            session_id = codec.parse_init_header(given["init"]).sender_session_id
            sent = seal_cookie(given["psk"], given["init"], session_id, given["nonce"], cookie)
            assert sent.hex() == expected["frame"]
            assert open_cookie(given["psk"], given["init"], sent) == cookie
        case other:
            raise AssertionError(other)


@vectors("cadence")
def test_cadence(vector: dict[str, Any]) -> None:
    """KA-8.2-1 KA-8.2-2 KA-8.2-4 KA-4.2-2 KA-7.6-1 KA-8.10-3."""
    interval, multiplier, draws = vector["interval"], vector["multiplier"], vector["r"]
    if vector["seed"] is not None:
        rng = Random(vector["seed"])
        assert [rng.getrandbits(32) for _ in draws] == draws
    match vector["function"]:
        case "J":
            computed = [cadence.jittered(interval, multiplier, r) for r in draws]
        case "F":
            computed = [cadence.spread(interval, r) for r in draws]
        case "plan":
            computed = [0, cadence.spread(interval, draws[0])]
            for r in draws[1:]:
                step = cadence.jittered(interval, multiplier, r)
                computed.append(cadence.rearmed(computed[-1], step, computed[-1]))
        case "retry":
            retry = interval
            computed = []
            for r in draws:
                computed.append(cadence.jittered(retry, multiplier, r))
                retry = min(2 * retry, HANDSHAKE_RETRY_MAX)
        case "down":
            computed = [
                cadence.jittered(cadence.down_interval(interval, n), multiplier, r)
                for n, r in enumerate(draws)
            ]
        case "admin_down":
            step = cadence.DOWN_BACKOFF_MAX * interval
            computed = [cadence.jittered(step, multiplier, r) for r in draws]
        case other:
            raise AssertionError(other)
    assert computed == vector["expected"]


@vectors("replay")
def test_replay(vector: dict[str, Any]) -> None:
    """KA-5.1-1."""
    window = ReplayWindow()
    verdicts = []
    for number, _ in vector["packets"]:
        try:
            window.accept(number)
            verdicts.append([number, True])
        except Refused as refused:
            assert refused.reason is DropReason.REPLAY
            assert refused.consumed
            verdicts.append([number, False])
    assert verdicts == vector["packets"]
    assert (window.highest, window.count) == (vector["highest"], vector["received_count"])


@vectors("rtt")
def test_estimates(vector: dict[str, Any]) -> None:
    """KA-10.1-2 KA-10.2-1."""
    response, trips = ResponseTime(), RoundTripTimes()
    assert response.pto == PTO_INITIAL
    for sample, step in zip(vector["samples"], vector["steps"], strict=True):
        response.sample(sample)
        trips.sample(sample)
        if vector["function"] == "pto":
            found = {
                "srtt": response.smoothed,
                "rttvar": response.variation,
                "pto": response.pto,
            }
        else:
            found = {"jitter": trips.jitter}
        assert found == step


# ---- carried ----

HANDSHAKE_TYPES = (FrameType.INIT, FrameType.RESPONSE)
PEER = ("192.0.2.1", 1)
PARAMETERS = Parameters(10_000_000, 1_000_000, 100_000, 16, 0)


# Where the library does otherwise than the text, and what it does.
def carried(kind: str, *, valid: bool = False) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "vector",
        [
            pytest.param(v, id=v["id"])
            for v in load("carried")
            if v["kind"] == kind and (not valid or v["result"] == "valid")
        ],
    )


def carried_receiver(vector: dict[str, Any], frame: bytes) -> Endpoint:
    """Give an endpoint inside QUIC that waits for such a frame under the vector's session id."""
    drawn = [bytes(8), bytes.fromhex(vector["epoch"]), bytes.fromhex(vector["session_id"])]
    endpoint = Endpoint(
        Config.wan(),
        keys=Carried(),
        rng=Random(1),
        entropy=lambda n: drawn.pop(0),
        accept=True,
    )
    if frame[:2] == bytes([grammar.MAGIC, FrameType.INIT]):
        return endpoint
    session = endpoint.connect(PEER, 0, key_id=b"")
    if frame[1:2] != bytes([FrameType.RESPONSE]):
        said = ResponsePayload(b"the peer", bytes(8), b"another.", PARAMETERS)
        payload = codec.build_response_payload(said)
        response = codec.build_carried(FrameType.RESPONSE, drawn_id(vector), payload)
        assert endpoint.receive_datagram(response, PEER, 0)
        assert session._channel is not None
        session._channel.last_sent = vector.get("highest_sent", 0xFFFF_FFFF)
    list(endpoint.datagrams_to_send())
    while endpoint.next_event():
        pass
    return endpoint


def drawn_id(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["session_id"])


def assert_judged(vector: dict[str, Any], frame: bytes) -> Endpoint:
    endpoint = carried_receiver(vector, frame)
    consumed = endpoint.receive_datagram(frame, PEER, 1)
    counted = {} if vector["reason"] is None else {DropReason(vector["reason"]): 1}
    assert (consumed, endpoint.counters) == (vector["consumed"], counted)
    if vector["result"] == "invalid":
        assert not list(endpoint.datagrams_to_send())
        assert endpoint.next_event() is None
    return endpoint


@carried("frame")
def test_carried_frames(vector: dict[str, Any]) -> None:
    """KA-14.1-1 KA-14.1-2 KA-14.1-4: the endpoint takes what it should, and counts the rest."""
    frame = bytes.fromhex(vector["frame"])
    if vector["carrier"] == "udp":
        refused_on_udp(vector, frame)
        return
    endpoint = assert_judged(vector, frame)
    if vector["result"] == "valid" and frame[1] == FrameType.INIT:
        ((answer, _),) = endpoint.datagrams_to_send()
        assert answer[:12] == frame[:1] + bytes([FrameType.RESPONSE]) + frame[2:12]


def refused_on_udp(vector: dict[str, Any], frame: bytes) -> None:
    with pytest.raises(Refused) as refused:
        open_frame(vector)
    assert (refused.value.reason.value, refused.value.consumed) == (vector["reason"], False)
    endpoint = Endpoint(
        Config.server(), keys=PresharedKey(bytes(32)), rng=Random(1), entropy=bytes, accept=True
    )
    assert not endpoint.receive_datagram(frame, PEER, 0)


@carried("frame", valid=True)
def test_carried_frames_parse_and_build(vector: dict[str, Any]) -> None:
    """KA-14.1-1: every field, and the same bytes from them."""
    frame, plaintext = bytes.fromhex(vector["frame"]), bytes.fromhex(vector["plaintext"])
    frame_type, header = codec.classify_carried(frame), vector["header"]
    assert frame_type == header["type"]
    if frame_type in HANDSHAKE_TYPES:
        session_id, rest = codec.parse_carried(frame)
        assert (session_id.hex(), rest) == (header["session_id"], plaintext)
        assert codec.build_carried(frame_type, session_id, plaintext) == frame
        assert codec.answered_session_id(frame) == session_id
        assert parsed_payload(frame_type, rest) == expected_payload(frame_type, vector["payload"])
        return
    parsed = codec.parse_transport_header(frame)
    assert parsed.receiver_session_id.hex() == header["receiver_session_id"]
    assert (parsed.type, parsed.flags, parsed.packet_number) == (
        header["type"],
        header["flags"],
        header["packet_number"],
    )
    body = codec.parse_body(frame_type, frame[codec.TRANSPORT_HEADER_BYTES :])
    fields = {**vector["body"], "address_hash": int(vector["body"]["address_hash"], 16)}
    assert body == Body(**fields, options=expected_options(vector["options"]))
    if rebuilds(vector["options"]):
        built = codec.build_transport_header(frame_type, *parsed[2:], parsed.flags)
        assert built + codec.build_body(body) == frame


def parsed_payload(frame_type: FrameType, plaintext: bytes) -> InitPayload | ResponsePayload:
    if frame_type is FrameType.INIT:
        return codec.parse_init_payload(plaintext)
    return codec.parse_response_payload(plaintext)


def expected_payload(
    frame_type: FrameType, listed: dict[str, Any]
) -> InitPayload | ResponsePayload:
    kind = InitPayload if frame_type is FrameType.INIT else ResponsePayload
    ids = {name: bytes.fromhex(value) for name, value in listed.items() if isinstance(value, str)}
    parameters = Parameters(*(listed[name] for name in Parameters._fields))
    return kind(**ids, parameters=parameters, options=expected_options(listed["options"]))


@carried("datagram")
def test_carried_datagrams(vector: dict[str, Any]) -> None:
    """KA-14.2-4: what follows the context id is judged, and the rest is the application's."""
    prefix = bytes.fromhex(vector["prefix"])
    if vector["context_id"] is not None:
        assert encode_uint_var(vector["context_id"]) == prefix
    carrier = DatagramCarrier(None, prefix)  # type: ignore[arg-type]
    frame = carrier.frame(bytes.fromhex(vector["datagram"]))
    assert (None if frame is None else frame.hex()) == vector["frame"]
    if frame is not None:
        assert_judged(vector, frame)


Taken = tuple[list[str], dict[int, tuple[bytes, str | None]], int]


def stream_events(vector: dict[str, Any], draw: Random | None) -> Iterator[QuicEvent]:
    """Give the events whole, or cut into pieces."""
    for event in vector["events"]:
        stream_id, data = event["stream_id"], bytes.fromhex(event["data"])
        at = draw.randrange(1, 9) if draw else len(data)
        while at < len(data):
            yield StreamDataReceived(data[:at], False, stream_id)
            data = data[at:]
            at = draw.randrange(1, 60) if draw else len(data)
        if data or event["ended"] != "reset":
            yield StreamDataReceived(data, event["ended"] == "end", stream_id)
        if event["ended"] == "reset":
            yield StreamReset(0, stream_id)


def sorted_out(vector: dict[str, Any], draw: Random | None) -> Taken:
    """Let the library sort the streams: messages, what the application got, what was malformed."""
    streams = PeerStreams(
        bytes.fromhex(vector["prefix"]), peer_is_client=vector["peer"] == "client"
    )
    messages: list[str] = []
    application: dict[int, tuple[bytes, str | None]] = {}
    malformed = 0
    for event in stream_events(vector, draw):
        taken = streams.take(event)  # type: ignore[arg-type]
        messages += [frame.hex() for frame in taken.frames]
        malformed += taken.refused is DropReason.MALFORMED
        for passed in taken.passed:
            data, ended = application.get(passed.stream_id, (b"", None))  # type: ignore[attr-defined]
            assert ended is None
            if isinstance(passed, StreamDataReceived):
                data, ended = data + passed.data, "end" if passed.end_stream else None
            else:
                ended = "reset"
            application[passed.stream_id] = (data, ended)  # type: ignore[attr-defined]
    return messages, application, malformed


@carried("streams")
def test_carried_streams(vector: dict[str, Any]) -> None:
    """KA-14.3-1 KA-14.3-2 KA-14.3-3: the same, however the streams are cut."""
    assert encode_uint_var(vector["context_id"]) == bytes.fromhex(vector["prefix"])
    left = {
        event["stream_id"]: (bytes.fromhex(event["data"]), event["ended"])
        for event in vector["application"]
    }
    for draw in (None, *map(Random, range(8))):
        assert sorted_out(vector, draw) == (vector["messages"], left, vector["malformed"]), draw


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(v, id=v["id"])
        for v in load("carried")
        if v["kind"] == "streams" and len(v["events"]) == 1 and not v["application"]
    ],
)
@pytest.mark.parametrize("step", [1, 7, 50, 0xFFFF])
def test_messages_of_a_carried_stream(vector: dict[str, Any], step: int) -> None:
    """KA-14.3-3: what follows the context id is cut into messages."""
    (event,) = vector["events"]
    data = bytes.fromhex(event["data"]).removeprefix(bytes.fromhex(vector["prefix"]))
    messages, found, refused = Messages(), [], None
    try:
        for at in range(0, len(data), step):
            for frame in messages.frames(data[at : at + step]):
                found.append(frame.hex())
    except Refused as error:
        refused = error.reason
    assert found == vector["messages"]
    cut = refused is DropReason.MALFORMED or (event["ended"] is not None and messages.inside)
    assert cut == vector["malformed"]
