"""The golden vectors of what happens in a session against the code."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from kaudp.config import Config
from kaudp.core.channel import Channel
from kaudp.core.clocks import ClockOffset, DelayVariation, Exchange
from kaudp.core.control import Control
from kaudp.core.cookies import CookieJar
from kaudp.core.endpoint import Endpoint
from kaudp.core.rtt import PTO_GRANULARITY, ResponseTime
from kaudp.core.session import Session
from kaudp.core.terms import Terms
from kaudp.core.timers import Timer
from kaudp.errors import DropReason, Refused
from kaudp.units import MAX_UINT32, MICROSECOND, MILLISECOND, SECOND
from kaudp.wire import codec
from kaudp.wire.codec import Body, Options, Parameters
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import PresharedKey
from kaudp.wire.seal import NO_LIMITS, PhaseLimits, SessionKeys, next_secret, traffic_key
from tests.spec.test_vectors import expected_options, load
from tests.worlds import Pair, forge

Vector = dict[str, Any]


def vectors(
    name: str, kind: str, wanted: Callable[[Vector], bool] = lambda _: True
) -> pytest.MarkDecorator:
    chosen = [v for v in load(name) if v["kind"] == kind and wanted(v)]
    return pytest.mark.parametrize("vector", [pytest.param(v, id=v["id"]) for v in chosen])


def assert_refused(vector: Vector, refused: Refused) -> None:
    assert (refused.reason.value, refused.consumed) == (vector["reason"], vector["consumed"])


# ---- cookies ----


@vectors("cookies", "asked")
def test_inits_under_load(vector: Vector) -> None:
    """KA-4.5-2 KA-4.5-3 KA-4.5-4 KA-4.3-2 KA-2-4."""
    secrets = [bytes.fromhex(secret) for secret in vector["secrets"]]
    nonce = bytes.fromhex(vector["nonce"] or "")

    def entropy(length: int) -> bytes:
        if length == 32 and secrets:
            return secrets.pop()
        return nonce if length == 16 else bytes(range(length))

    psk = PresharedKey(bytes.fromhex(vector["psk"]), key_id=bytes.fromhex(vector["key_id"]))
    config = replace(Config.server(), cookie_threshold=int(vector["made_embryo"]))
    endpoint = Endpoint(config, keys=psk, rng=Random(1), entropy=entropy, accept=True)
    address, init, now = tuple(vector["source"].values()), bytes.fromhex(vector["init"]), 0
    while secrets:
        now += 121 * SECOND
        endpoint._cookies.cookie(address, psk.key_id, now)
    if vector["made_embryo"]:
        assert endpoint.receive_datagram(init, address, now)
    before = list(endpoint.datagrams_to_send())
    assert_consumed(vector, endpoint, init, address, now)
    answers = list(endpoint.datagrams_to_send())
    assert [to for _, to in answers] == [address] * (vector["answer"] is not None)
    match vector["answer"]:
        case "cookie":
            assert answers[0][0].hex() == vector["cookie_frame"]
        case "response":
            assert answers[0][0][1] == FrameType.RESPONSE
            assert not vector["made_embryo"] or answers == before


def assert_consumed(
    vector: Vector, endpoint: Endpoint, data: bytes, address: object, now: int
) -> None:
    consumed = endpoint.receive_datagram(data, address, now)
    counted = {} if vector["reason"] is None else {DropReason(vector["reason"]): 1}
    assert (consumed, endpoint.counters) == (vector["consumed"], counted)


@vectors("cookies", "received")
def test_received_cookies(vector: Vector) -> None:
    """KA-4.5-4 KA-4.5-5 KA-4.3-8: taken or refused, and used at once or at the next retry."""
    init, address = bytes.fromhex(vector["init"]), ("192.0.2.1", 4711)
    header = codec.parse_init_header(init)
    drawn = [bytes(8), bytes(8), header.sender_session_id]
    psk = PresharedKey(bytes.fromhex(vector["psk"]), key_id=header.key_id)
    endpoint = Endpoint(
        Config.wan(),
        keys=psk,
        rng=Random(1),
        entropy=lambda length: drawn.pop(0) if drawn else bytes([7]) * length,
    )
    session = endpoint.connect(address, 0, key_id=psk.key_id)
    attempt = session._initiation.attempt
    assert attempt is not None
    attempt.cookie, attempt._side.init = header.cookie, init
    if not vector["under_way"]:
        session.close(0)
    list(endpoint.datagrams_to_send())
    assert_consumed(vector, endpoint, bytes.fromhex(vector["frame"]), address, 1)
    held = [data[28:44].hex() for data, _ in endpoint.datagrams_to_send()]
    assert held == [vector["cookie"]] * (vector["next_handshake"] == "at_once")
    if vector["next_handshake"] == "at_retry":
        due = endpoint.next_timer()
        assert due is not None
        endpoint.handle_timer(due)
        ((data, _),) = endpoint.datagrams_to_send()
        assert data[28:44].hex() == vector["cookie"]


@vectors("cookies", "secrets")
def test_cookie_secrets(vector: Vector) -> None:
    """KA-4.5-3."""
    counter = iter(range(256))
    jar = CookieJar(lambda length: bytes([next(counter)]) * length)
    address, key_id = ("192.0.2.1", 4711), bytes(16)
    made: dict[int, bytes] = {}
    for use in vector["uses"]:
        if use["use"] == "make":
            cookie = jar.cookie(address, key_id, use["at"])
            assert made.setdefault(use["secret"], cookie) == cookie
        else:
            right = jar.is_right(made[use["secret"]], address, key_id, use["at"])
            assert right == use["right"]
    assert len(set(made.values())) == len(made)


# ---- phases ----


@vectors("phases", "keys")
def test_phase_keys(vector: Vector) -> None:
    """KA-4.4-4."""
    for side in ("i", "r"):
        secret = bytes.fromhex(vector[f"s_{side}"])
        secrets, keys = [], []
        for _ in range(4):
            secrets.append(secret.hex())
            keys.append(traffic_key(secret).hex())
            secret = next_secret(secret)
        assert (secrets, keys) == (vector[f"secrets_{side}"], vector[f"keys_{side}"])


def keys_of(vector: Vector) -> SessionKeys:
    return SessionKeys(
        bytes.fromhex(vector["sending_secret"]),
        bytes.fromhex(vector["receiving_secret"]),
        initiator=vector["role"] == "initiator",
    )


@vectors("phases", "frames")
def test_frames_of_phases(vector: Vector) -> None:
    """KA-4.4-5 KA-4.4-7 KA-4.4-8 KA-3.6-3 KA-5.1-2."""
    keys = keys_of(vector)
    channel = Channel(bytes.fromhex(vector["session_id"]), bytes(8), keys, 0)
    keys.flags(0, NO_LIMITS)
    for step in vector["steps"]:
        if step["event"] == "begin":
            assert keys.flags(step["at"], PhaseLimits(0, MAX_UINT32)) == step["sending_phase"] % 2
        elif step["result"] == "valid":
            take(channel, step)
        else:
            with pytest.raises(Refused) as refused:
                take(channel, step)
            assert_refused(step, refused.value)
        assert keys.flags(step["at"], NO_LIMITS) == step["sending_phase"] % 2
        assert (keys._receiving.number, keys.phase) == (
            step["receiving_phase"],
            step["sending_phase"],
        )


def take(channel: Channel, step: Vector) -> None:
    data = bytes.fromhex(step["frame"])
    codec.classify(data)
    header = codec.parse_transport_header(data)
    channel.accept(header, channel.unseal(header, data, step["at"]), step["at"])


@vectors("phases", "begin")
def test_beginning_a_phase(vector: Vector) -> None:
    """KA-4.4-6."""
    out, back = bytes(32), bytes([1]) * 32
    initiator = SessionKeys(out, back, initiator=True)
    responder = SessionKeys(back, out, initiator=False)
    now = begun = 0
    sealed = pass_frame(initiator, responder, now)
    for _ in range(vector["phase"]):
        pass_frame(responder, initiator, now)
        now = begun = now + 30 * SECOND
        initiator.flags(now, PhaseLimits(0, MAX_UINT32))
        sealed = pass_frame(initiator, responder, now)
    assert initiator.phase == vector["phase"]
    if vector["heard"]:
        pass_frame(responder, initiator, now)
    for _ in range(sealed, vector["sealed"]):
        initiator.seal(bytes(20), 1, b"")
    limits = PhaseLimits(vector["key_update_interval"], vector["key_update_frames"])
    initiator.flags(begun + vector["age"], limits)
    assert initiator.phase == vector["phase"] + vector["begins"]


def pass_frame(sender: SessionKeys, receiver: SessionKeys, now: int) -> int:
    """Let one frame come in, and tell how many that are."""
    number = now // SECOND + 1
    flags = sender.flags(now, NO_LIMITS)
    header = codec.build_transport_header(FrameType.PROBE, bytes(8), number, flags)
    data = sender.seal(header, number, bytes(28))
    assert receiver.unseal(codec.parse_transport_header(data), data, now) == bytes(28)
    return 1


# ---- negotiation and control ----

PARAMETERS = Parameters(1_000_000, 0, 100_000, 16, 0)
OPTION_FIELDS: dict[str, tuple[str, Any]] = {
    "PAD": ("pad", 4),
    "ADDRESS_SEEN": ("address_seen", bytes(7)),
    "PARAMETERS": ("parameters", PARAMETERS),
    "PAUSE": ("pause_ms", 60_000),
    "SLOW_DOWN": ("slow_down_us", 500_000),
    "PATH_CHALLENGE": ("path_challenge", bytes(8)),
    "PATH_RESPONSE": ("path_response", bytes(8)),
    "NEXT_KEY": ("next_key", bytes(16)),
    "ADMIN": ("admin", 1),
    "CLOCK": ("clock_us", 1),
}
CONTROL = ("PARAMETERS", "PAUSE", "SLOW_DOWN", "NEXT_KEY", "ADMIN")


def terms_of(vector: Vector, *, initiator: bool, desired: int, allowed: int) -> Terms:
    most = vector["max_peer_interval"] // MILLISECOND
    config = Config(max_peer_interval_ms=most, min_receive_interval_ms=0)
    wanted = PARAMETERS._replace(desired_interval_us=desired)
    permitted = PARAMETERS._replace(min_receive_interval_us=allowed)
    own, peer = (wanted, permitted) if initiator else (permitted, wanted)
    terms = Terms(config, own, initiator=initiator, now=0)
    terms.established(own, peer, 0)
    return terms


@vectors("negotiation", "agreed")
def test_intervals_agreed(vector: Vector) -> None:
    """KA-8.1-1 KA-8.1-2 KA-8.8-2."""
    desired, allowed = vector["initiator"], vector["responder"]
    # The text leaves open what an initiator judges by whose own wish exceeds its limit.
    within_limit = max(desired) * MICROSECOND <= vector["max_peer_interval"]
    for initiator in (False, True) if within_limit else (False,):
        agreement = terms_of(
            vector, initiator=initiator, desired=desired[0], allowed=allowed[0]
        ).agreement
        wants, allows = agreement._roles()
        for value in desired[1:]:
            wants.change(wants.newest._replace(desired_interval_us=value))
        for value in allowed[1:]:
            allows.change(allows.newest._replace(min_receive_interval_us=value))
        assert (agreement.interval, agreement.judged_interval) == (
            vector["probe_interval"],
            vector["judged_interval"],
        )


@vectors("negotiation", "settling")
def test_changes_are_settled(vector: Vector) -> None:
    """KA-8.8-1 KA-8.8-2 KA-8.8-3 KA-8.9-1."""
    terms = terms_of(
        vector,
        initiator=vector["role"] == "initiator",
        desired=vector["desired_interval_us"],
        allowed=vector["min_receive_interval_us"],
    )
    agreement, last_sent = terms.agreement, 0
    for step in vector["steps"]:
        match step["event"]:
            case "change":
                terms.control.version = (step["control_version"] - 2) % 255 + 1
                parameters = Parameters(**step["parameters"])
                terms.control.change(parameters=parameters)
                assert terms.control.version == step["control_version"]
                agreement.own.change(parameters)
            case "send":
                last_sent = step["packet_number"]
            case "receive":
                terms.confirmed_by(step["control_ack"])
                terms.peer_knows(step["highest_received"])
                options = expected_options(step["options"])
                terms.learn(step["control_version"], options, last_sent)
        assert (agreement.interval, agreement.judged_interval) == (
            step["probe_interval"],
            step["judged_interval"],
        )


@vectors("control", "receive")
def test_control_state_received(vector: Vector) -> None:
    """KA-8.6-2 KA-8.6-3."""
    control, highest = Control(), 0
    for step in vector["steps"]:
        taken = False
        if step["event"] == "frame":
            named = [OPTION_FIELDS[name] for name in step["options"] if name in OPTION_FIELDS]
            options = Options(**dict(named))
            if step["packet_number"] > highest:
                highest = step["packet_number"]
                taken = control.learn(step["control_version"], options, 0)
        else:
            highest = 0
            control.begin_anew(control.pending)
        assert (taken, control.acked) == (step["taken"], step["control_ack"])


def says_replies(vector: Vector) -> bool:
    return any(step["event"] == "reply" for step in vector["steps"])


@vectors("control", "send", lambda v: not says_replies(v))
def test_control_state_sent(vector: Vector) -> None:
    """KA-8.6-1."""
    control = Control()
    control.version = vector["control_version"]
    for step in vector["steps"]:
        match step["event"]:
            case "change":
                field, value = OPTION_FIELDS[step["option"]]
                control.change(**{field: value})
            case "receive":
                control.confirmed_by(step["control_ack"])
            case "probe":
                said = [
                    name
                    for name, (field, _) in OPTION_FIELDS.items()
                    if getattr(control.pending, field) is not None
                ]
                assert (control.version, said) == (step["control_version"], step["options"])


@vectors("control", "send", says_replies)
def test_control_state_in_replies(vector: Vector) -> None:
    """KA-8.3-3 KA-8.6-1: the replies of a session to probes of these lengths."""
    pair = Pair().up()
    session, address, now = pair.far, pair.alice.address, pair.now
    session._terms.control.version = vector["control_version"]
    for step in vector["steps"]:
        match step["event"]:
            case "change":
                field, value = OPTION_FIELDS[step["option"]]
                session._terms.control.change(**{field: value})
            case "receive":
                session._terms.control.confirmed_by(step["control_ack"])
            case "probe":
                session._probe(now)
                assert said(pair, FrameType.PROBE, now) == (
                    step["control_version"],
                    step["options"],
                )
            case "reply":
                padded = step["room"] - codec.STEADY_FRAME_BYTES
                for probe in probes_of(pair.session, padded, now):
                    assert len(probe) == step["room"]
                    assert pair.bob.endpoint.receive_datagram(probe, address, now)
                    expected = (step["control_version"], step["options"])
                    assert said(pair, FrameType.REPLY, now) == expected


@vectors("control", "spacing")
def test_repeated_control_state(vector: Vector) -> None:
    """KA-8.6-1: nothing is confirmed; a pause keeps all other probes away."""
    alice = replace(Config.lan(), interval_ms=vector["interval"] // MILLISECOND)
    bob = replace(Config.server(), min_receive_interval_ms=10)
    pair = Pair(alice=alice, bob=bob).up()
    assert pair.far._liveness.interval == vector["interval"]
    pair.far._liveness.response_time.pto = vector["pto"]
    endpoint, sent = pair.bob.endpoint, [pair.now]
    pair.far.pause(3600 * SECOND, pair.now)
    assert said(pair, FrameType.PROBE, pair.now) == (1, ["PAUSE"])
    for _ in vector["expected"]:
        due = endpoint.next_timer()
        assert due is not None
        endpoint.handle_timer(due)
        assert said(pair, FrameType.PROBE, due) == (1, ["PAUSE"])
        sent.append(due)
    assert [later - earlier for earlier, later in pairwise(sent)] == vector["expected"]


def probes_of(session: Session, padded: int, now: int) -> Iterator[bytes]:
    """Seal a probe with that many bytes of options, where options can have as many."""
    if padded == 0:
        yield forge(session, FrameType.PROBE, now)
    elif 2 <= padded <= 257:
        yield forge(session, FrameType.PROBE, now, Options(pad=padded - 2))


def said(pair: Pair, frame_type: FrameType, now: int) -> tuple[int, list[str]]:
    """Tell version and options of the control state in the one frame that bob sends."""
    ((data, _),) = pair.bob.endpoint.datagrams_to_send()
    body = opened(pair.session, data, now)
    assert data[1] == frame_type
    held = [name for name in CONTROL if getattr(body.options, OPTION_FIELDS[name][0]) is not None]
    return body.control_version, held


def opened(session: Session, data: bytes, now: int) -> Body:
    """Read a frame as this session would, without telling it."""
    channel = session._channel
    assert channel is not None
    header = codec.parse_transport_header(data)
    return codec.parse_body(FrameType(header.type), channel.unseal(header, data, now))


# ---- clocks and paths ----


@vectors("clocks", "offset")
def test_clock_offset(vector: Vector) -> None:
    """KA-10.3-1 KA-10.3-2."""
    clock = ClockOffset()
    between = (vector["peer_utc_us"] - vector["own_utc_us"]) * MICROSECOND
    for sample, step in zip(vector["samples"], vector["steps"], strict=True):
        clock.sample(Exchange(**{EXCHANGE[name]: time for name, time in sample.items()}))
        assert clock.offset is not None
        assert (clock.offset + between, clock.error) == (step["offset"], step["error"])


EXCHANGE = dict(zip(("t1", "t2", "t3", "t4"), Exchange._fields, strict=True))


@vectors("clocks", "variation")
def test_one_way_delay_variation(vector: Vector) -> None:
    """KA-10.3-3."""
    out, back = DelayVariation(), DelayVariation()
    for sample, step in zip(vector["samples"], vector["steps"], strict=True):
        out.sample(sample["t2"] - sample["t1"])
        back.sample(sample["t4"] - sample["t3"])
        assert (out.mean or 0, back.mean or 0) == (step["out"], step["in"])


@vectors("paths", "try")
def test_time_of_a_try(vector: Vector) -> None:
    """KA-9.3-4 KA-10.2-1."""
    response = ResponseTime()
    for sample in vector["samples"]:
        response.sample(sample)
    assert response.pto == vector["pto"]
    watched = WatchedSession(10 * SECOND)
    watched.session._liveness.response_time = response
    watched.receive_frame({"at": 0, "address": "b"})
    ends = watched.session.timers._deadlines[Timer.PATH]
    assert ends - watched.began == vector["try_time"]


ADDRESSES = {"a": ("192.0.2.1", 1000), "b": ("198.51.100.7", 7), "c": ("203.0.113.9", 9)}
NAMES = {address: name for name, address in ADDRESSES.items()}


@vectors("paths", "validation")
def test_path_validation(vector: Vector) -> None:
    """KA-9.3-1 KA-9.3-3 KA-9.3-4 KA-9.3-5: what a session does, and when."""
    watched = WatchedSession(vector["interval"])
    response = watched.session._liveness.response_time
    response.smoothed, response.variation = vector["try_time"] // 3, 0
    response.pto = response.smoothed + PTO_GRANULARITY
    for step in vector["steps"]:
        watched.run_until(step["at"])
        if step["event"] == "frame":
            watched.receive_frame(step)
        else:
            watched.receive_answer(step)
    watched.run_until(vector["steps"][-1]["at"] + 3 * vector["try_time"])

    def in_order(acts: list[Vector]) -> list[Vector]:
        return sorted(acts, key=lambda act: (act["at"], act["do"], act["address"]))

    assert in_order(watched.done) == in_order(vector["expected"])


class WatchedSession:
    """A responder's session at address a, whose peer is played by hand."""

    def __init__(self, interval: int) -> None:
        alice = replace(Config.wan(), interval_ms=interval // MILLISECOND)
        self.pair = Pair(alice=alice).up()
        self.session = self.pair.far
        assert self.session._liveness.interval == interval
        self.began = self.pair.now
        self.done: list[Vector] = []
        self.data: dict[tuple[int, str], bytes] = {}
        self.address_before = self.session.address
        self.tried_at = -1
        self.tries = 0
        self.late_numbers = iter(range(100, 200))
        self.numbers = iter(range(500, 600))
        # All that the peer has to confirm is confirmed: no sample changes the estimates later.
        self.receive_frame({"at": 0, "address": "a"})

    def run_until(self, at: int) -> None:
        endpoint = self.pair.bob.endpoint
        while (due := endpoint.next_timer()) is not None and due <= self.began + at:
            before = self.session._path.validation
            endpoint.handle_timer(due)
            self.note(before, due)

    def receive_frame(self, step: Vector) -> None:
        """Let the newest frame come in, long enough for any answer."""
        self.receive(step, FrameType.PROBE, next(self.numbers), Options(pad=255))

    def receive_answer(self, step: Vector) -> None:
        """Let a REPLY come in that is not the newest frame."""
        options = Options(path_response=self.data[step["try"], step["address"]])
        self.receive(step, FrameType.REPLY, next(self.late_numbers), options)

    def receive(self, step: Vector, kind: FrameType, number: int, options: Options) -> None:
        now, before = self.began + step["at"], self.session._path.validation
        channel = self.pair.session._channel
        assert channel is not None
        channel.last_sent = number - 1
        frame = forge(self.pair.session, kind, now, options)
        address = ADDRESSES[step["address"]]
        assert self.pair.bob.endpoint.receive_datagram(frame, address, now)
        self.note(before, now)

    def note(self, before: object, now: int) -> None:
        """Write down what the session has just done."""
        for data, address in list(self.pair.bob.endpoint.datagrams_to_send()):
            challenge = opened(self.pair.session, data, now).options.path_challenge
            if challenge is not None:
                self.note_challenge(challenge, NAMES[address], now)
        after = self.session._path.validation
        if before is not None and after is None:
            moved = self.session.address != self.address_before
            self.act("move" if moved else "stay", None, NAMES[self.session.address], now)
        self.address_before = self.session.address

    def note_challenge(self, challenge: bytes, name: str, now: int) -> None:
        self.tries += now != self.tried_at
        self.tried_at = now
        self.data[self.tries, name] = challenge
        self.act("challenge", self.tries, name, now)

    def act(self, what: str, number: int | None, name: str, now: int) -> None:
        self.done.append({"at": now - self.began, "do": what, "try": number, "address": name})
