"""A malicious peer: it holds the keys, or an end of the connection, so what it makes verifies.

Spec: section 15.

It takes the keys out of the endpoint that it attacks, so it needs no handshake of its own to be
right.
"""

from typing import Any, Final

from fuzz.invariants import Side
from fuzz.pair import KEYS, Pair
from kaudp.core.channel import Channel
from kaudp.core.handshake import NO_SESSION, Attempt
from kaudp.units import MAX_UINT32, MICROSECOND
from kaudp.wire import codec, noise, seal
from kaudp.wire.codec import Body, InitPayload, Parameters, ResponsePayload
from kaudp.wire.grammar import FrameType

FRAME_TYPES: Final = (FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE)
AHEAD: Final = (1, 2, 5, 1024, 100_000, 0, -1, -1023, -1024, MAX_UINT32, 1 << 40)
PARAMETERS: Final = (
    Parameters(5_000_000, 100_000, 20_000, 64, 0),
    Parameters(1, 0, 0, 1, 1),
    Parameters(MAX_UINT32, MAX_UINT32, MAX_UINT32, 0xFFFF, 0xFFFF),
    Parameters(100_000, 10_000, MAX_UINT32, 3, 1),
    Parameters(0, 0, 0, 0, 0),
)
# Public keys that X25519 takes to zero, and then a few private keys.
LOW_ORDER: Final = (bytes(32), bytes([1]) + bytes(31))


def sealed_frame(
    pair: Pair, side: Side, *, channel: int, type: int, flags: int, ahead: int, plaintext: bytes
) -> bytes | None:
    """Seal any plaintext for a channel of a side, or give None while it has none."""
    attacked = _channel(side, channel)
    if attacked is None:
        return None
    number = attacked.window.highest + AHEAD[ahead % len(AHEAD)]
    number = number if 0 <= number < 1 << 64 else 0
    frame_type = FRAME_TYPES[type % len(FRAME_TYPES)]
    header = bytearray(codec.build_transport_header(frame_type, attacked.local_id, number))
    header[3] = flags
    if pair.carried:
        return bytes(header) + plaintext
    keys = attacked._keys
    return _made(pair, seal.seal(keys._receiving.aead, bytes(header), number, plaintext))


def plausible_body(pair: Pair, side: Side, channel: int, told: dict[str, Any]) -> bytes:
    """Give a plaintext that fits the channel as far as `told` does not lie."""
    attacked = _channel(side, channel)
    if attacked is None:
        return b""
    elapsed = attacked._microseconds(pair.now)
    body = Body(
        state=told["state"] % 8,
        diagnostic=0,
        control_version=told["control"],
        control_ack=told["control"],
        sent_time=elapsed & MAX_UINT32,
        echo_time=(elapsed - told["age"] // MICROSECOND) & MAX_UINT32,
        hold_time=min(told["hold"] // MICROSECOND, MAX_UINT32),
        highest_received=(attacked.last_sent - told["unconfirmed"]) & MAX_UINT32,
        received_count=attacked.last_sent,
        address_hash=told["address_hash"],
    )
    return codec.build_body(body) + told["options"]


def init(
    pair: Pair,
    side: Side,
    *,
    key: int,
    ephemeral: int,
    session_id: int,
    old: int,
    parameters: int,
    options: bytes,
) -> bytes:
    """Build an INIT whose tag verifies, or one that QUIC carries."""
    psk = KEYS[key % len(KEYS)]
    payload = InitPayload(
        bytes(8), bytes([parameters]) * 8, _old_session_id(side, old), _parameters(parameters)
    )
    if pair.carried:
        said = codec.build_init_payload(payload) + options
        return codec.build_carried(FrameType.INIT, bytes([session_id]) * 8, said)
    prologue = codec.build_init_prologue(bytes([session_id]) * 8, psk.key_id)
    symmetric = noise._SymmetricState(psk.secret, prologue)
    public = _public(ephemeral)
    symmetric.mix_ephemeral(public)
    sealed = symmetric.encrypt_and_hash(codec.build_init_payload(payload) + options)
    return _made(pair, prologue + public + sealed)


def response(
    pair: Pair,
    side: Side,
    *,
    attempt: int,
    ephemeral: int,
    epoch: int,
    parameters: int,
    options: bytes,
) -> bytes | None:
    """Answer a handshake of a side that waits, or give None while it has none."""
    waiting = [session._initiation.attempt for session in side.context.routes.pending.values()]
    if not waiting:
        return None
    answered: Attempt = waiting[attempt % len(waiting)]
    payload = ResponsePayload(
        bytes([ephemeral]) * 8, bytes(8), bytes([epoch]) * 8, _parameters(parameters)
    )
    plaintext = codec.build_response_payload(payload) + options
    if pair.carried:
        return codec.build_carried(FrameType.RESPONSE, answered.session_id, plaintext)
    header = codec.parse_init_header(answered.init)
    if ephemeral < len(LOW_ORDER):  # there is no key that would seal the answer
        return codec.build_response(header.sender_session_id, LOW_ORDER[ephemeral], bytes(60))
    psk = next(psk for psk in KEYS if psk.key_id == header.key_id)
    responder = noise.Responder(psk.secret, answered.init[: codec.INIT_PROLOGUE_BYTES])
    responder.read_message_1(
        header.ephemeral, codec.sealed_payload_of(FrameType.INIT, answered.init)
    )
    public, sealed = responder.write_message_2(bytes([ephemeral]) * 32, plaintext)
    return _made(pair, codec.build_response(header.sender_session_id, public, sealed))


def _made(pair: Pair, datagram: bytes) -> bytes:
    pair.authentic.add(datagram)
    return datagram


def _channel(side: Side, choice: int) -> Channel | None:
    """Choose among the channels in use, those of embryos, and those that linger."""
    routes = side.context.routes
    channels = [session._channel for session in routes.sessions.values()]
    channels += [embryo.channel for embryo in routes.embryos.values()]
    channels += [channel for _, channel in routes._lingering._entries.values()]
    return channels[choice % len(channels)] if channels else None


def _old_session_id(side: Side, choice: int) -> bytes:
    ids = [NO_SESSION, *side.context.routes.sessions]
    return ids[choice % len(ids)]


def _parameters(choice: int) -> Parameters:
    return PARAMETERS[choice % len(PARAMETERS)]


def _public(choice: int) -> bytes:
    """Give an X25519 public key: nearly any 32 bytes are one."""
    return (*LOW_ORDER, bytes([choice]) * 32)[min(choice, 2)]
