"""A malicious peer: it holds the keys, or an end of the connection, so what it makes verifies.

Spec: section 15.

It takes the keys out of the endpoint that it attacks, so it needs no handshake of its own to be
right.
"""

from typing import Any, Final

from fuzz.invariants import Side
from fuzz.pair import KEYS, Pair
from kaudp import Session
from kaudp.core.channel import Channel
from kaudp.core.handshake import NO_SESSION, Attempt
from kaudp.units import MAX_UINT32, MICROSECOND
from kaudp.wire import codec, noise, seal
from kaudp.wire.codec import (
    Body,
    InitPayload,
    Options,
    Parameters,
    ResponsePayload,
    build_options,
)
from kaudp.wire.cookies import seal_cookie
from kaudp.wire.grammar import KEY_PHASE, FrameType

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
    pair: Pair,
    side: Side,
    *,
    channel: int,
    type: int,
    flags: int,
    ahead: int,
    phase: int,
    plaintext: bytes,
) -> bytes | None:
    """Seal any plaintext for a channel of a side, or give None while it has none."""
    attacked = _channel(side, channel)
    if attacked is None:
        return None
    pair.forged.add(attacked.local_id)
    number = attacked.window.highest + AHEAD[ahead % len(AHEAD)]
    number = number if 0 <= number < 1 << 64 else 0
    frame_type = FRAME_TYPES[type % len(FRAME_TYPES)]
    header = bytearray(codec.build_transport_header(frame_type, attacked.local_id, number))
    header[3] = flags
    if pair.carried:
        return bytes(header) + plaintext
    keys = _phase(attacked._keys, phase)
    header[3] ^= keys.number & KEY_PHASE
    return _made(pair, seal.seal(keys.aead, bytes(header), number, plaintext))


def _phase(keys: seal.SessionKeys, choice: int) -> seal.Phase:
    """Choose the phase of the newest frames, the one to come, or the one before."""
    phases = (keys._receiving, keys._receiving.following(), keys._previous or keys._receiving)
    return phases[choice % len(phases)]


def plausible_body(pair: Pair, side: Side, channel: int, told: dict[str, Any]) -> bytes:
    """Give a plaintext that fits the channel as far as `told` does not lie."""
    attacked = _channel(side, channel)
    if attacked is None:
        return b""
    elapsed = attacked._microseconds(pair.now)
    session = side.context.routes.sessions.get(attacked.local_id)
    version = session._terms.control.version if session else 0
    body = Body(
        state=told["state"] % 8,
        diagnostic=0,
        control_version=told["control"],
        control_ack=(version + told["ack"]) % 256,
        sent_time=elapsed & MAX_UINT32,
        echo_time=(elapsed - told["age"] // MICROSECOND) & MAX_UINT32,
        hold_time=min(told["hold"] // MICROSECOND, MAX_UINT32),
        highest_received=(attacked.last_sent - told["unconfirmed"]) & MAX_UINT32,
        received_count=attacked.last_sent,
        address_hash=told["address_hash"],
    )
    return codec.build_body(body) + told["options"] + _path_option(session, told["path"])


def _path_option(session: Session | None, choice: int) -> bytes:
    """Answer the newest challenge to the new address or to the old one, or challenge."""
    validation = session._path.validation if session else None
    if choice % 4 == 3:
        return build_options(Options(path_challenge=bytes([choice]) * 8))
    if validation is None or not choice % 4:
        return b""
    sent = validation._to_new if choice % 4 == 1 else validation._to_old
    return build_options(Options(path_response=sent[-1])) if sent else b""


def init(
    pair: Pair,
    side: Side,
    *,
    key: int,
    ephemeral: int,
    session_id: int,
    old: int,
    instance: int,
    epoch: int,
    cookie: int,
    parameters: int,
    options: bytes,
) -> bytes:
    """Build an INIT whose tag verifies, or one that QUIC carries."""
    psk = KEYS[key % len(KEYS)]
    identity = _identity(pair, side, instance)
    old_id = _old_session_id(side, old)
    payload = InitPayload(identity, bytes([epoch]) * 8, old_id, _parameters(parameters))
    if pair.carried:
        said = codec.build_init_payload(payload) + options
        return codec.build_carried(FrameType.INIT, bytes([session_id]) * 8, said)
    prologue = codec.build_init_prologue(bytes([session_id]) * 8, psk.key_id, _cookie(side, cookie))
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
    instance: int,
    epoch: int,
    parameters: int,
    options: bytes,
) -> bytes | None:
    """Answer a handshake of a side that waits, or give None while it has none."""
    waiting = [session._initiation.attempt for session in side.context.routes.pending.values()]
    if not waiting:
        return None
    answered: Attempt = waiting[attempt % len(waiting)]
    identity = _identity(pair, side, instance)
    payload = ResponsePayload(
        bytes([ephemeral]) * 8, identity, bytes([epoch]) * 8, _parameters(parameters)
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


def cookie(pair: Pair, side: Side, *, attempt: int, nonce: int, cookie: int) -> bytes | None:
    """Ask for a cookie in answer to a handshake of a side, under way or over."""
    routes = side.context.routes
    under_way = [session._initiation.attempt for session in routes.pending.values()]
    over = [spent for _, spent in routes._spent_attempts._entries.values()]
    attempts = [one for one in (*under_way, *over) if one is not None]
    if not attempts or pair.carried:
        return None
    answered = attempts[attempt % len(attempts)]
    secret = _secret(answered)
    content = bytes([cookie]) * 16
    nonce_bytes = bytes([nonce]) * 16
    made = seal_cookie(secret, answered.init, answered.session_id, nonce_bytes, content)
    return _made(pair, made)


def _secret(attempt: Attempt) -> bytes:
    return next(psk.secret for psk in KEYS if psk.key_id == attempt.credential.key_id)


def _identity(pair: Pair, side: Side, choice: int) -> bytes:
    """Give the instance id of the side's true peer, or another one."""
    name = (pair.server if side is pair.client else pair.client).name
    return pair.identities[name] if choice == 1 else bytes([choice]) * 8


def _cookie(side: Side, choice: int) -> bytes:
    """Give no cookie, one of those that the side has given, or a wrong one."""
    if choice == 1 and side.cookies:
        return side.cookies[-1][0]
    return bytes([choice]) * 16


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
