"""The code and the reference model side by side: the same inputs, the same outputs expected.

`Twins` is one real `Endpoint` and one `spec.model.Side`. Their peer is the test itself, on real
keys: it can say what it likes, when it likes. Every jitter that is drawn in one step is the same r,
so the order of drawing is not compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from random import Random
from typing import Any

from kaudp.config import Config, DetectorKind
from kaudp.core.agreement import own_parameters
from kaudp.core.endpoint import Endpoint
from kaudp.core.paths import address_bytes
from kaudp.core.session import Session
from kaudp.errors import SessionStateError
from kaudp.events import DownReason, Event, State
from kaudp.units import MAX_UINT32, MILLISECOND
from kaudp.wire import codec
from kaudp.wire.codec import Body, InitPayload, Options, Parameters, ResponsePayload
from kaudp.wire.grammar import FrameType
from kaudp.wire.seal import NO_LIMITS, FrameKeys
from kaudp.wire.suites import initiate, open_init
from spec import model
from tests.worlds import KEY

PEER = ("192.0.2.7", 4000)
ELSEWHERE = (PEER, ("192.0.2.7", 4001), ("198.51.100.9", 4000))


class Draws(Random):
    """Gives the same r until told another."""

    r = 0

    def getrandbits(self, k: int) -> int:
        assert k == 32
        return self.r


@dataclass
class Handshake:
    """The peer's end of one exchange: its keys, and what it has sent and seen under them."""

    keys: FrameKeys
    local_id: bytes
    remote_id: bytes
    parameters: Parameters
    epoch: bytes
    last_sent: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    """`sent_time` of each frame that the core sent under these keys."""


def settings_of(config: Config, *, initiator: bool) -> model.Settings:
    """Say a configuration in the words of the model."""

    def ns(milliseconds: int | None) -> int | None:
        return None if milliseconds is None else milliseconds * MILLISECOND

    by_deadline = config.detector is DetectorKind.DEADLINE
    return model.Settings(
        initiator=initiator,
        own=model.Parameters(*own_parameters(config)),
        max_peer_interval=ns(config.max_peer_interval_ms) or 0,
        multiplier=None if by_deadline else config.multiplier,
        deadline=ns(config.deadline_ms) or 0,
        min_suspicion=ns(config.min_suspicion_ms) or 0,
        suspicion_interval=ns(config.suspicion_interval_ms) or 0,
        nat_keepalive=ns(config.nat_keepalive_ms),
        connect_timeout=ns(config.connect_timeout_ms),
        up_confirmations=config.up_confirmations,
        down_retention=ns(config.down_retention_ms) or 0,
        max_peer_pause=ns(config.max_peer_pause_ms) or 0,
        max_peer_admin_down=ns(config.max_peer_admin_down_ms) or 0,
        max_peer_pause_sum=ns(config.max_peer_pause_sum_ms) or 0,
        report_round_trips=config.report_round_trips,
    )


def options_of(options: Options) -> model.Options:
    """Say decoded options in the words of the model."""
    told = {
        name: value for name, value in options._asdict().items() if name in model.Options._fields
    }
    if told["parameters"] is not None:
        told["parameters"] = model.Parameters(*told["parameters"])
    return model.Options(**told)


def frame_of(data: bytes, body: Body, keys: int) -> model.Frame:
    """Say a decoded transport frame in the words of the model."""
    header = codec.parse_transport_header(data)
    return model.Frame(
        FrameType(header.type).name,
        keys,
        header.packet_number,
        len(data),
        *body[:-1],
        options_of(body.options),
    )


def event_of(event: Event) -> model.Event:
    """Say an event in the words of the model."""
    detail: list[Any] = []
    for name in event.__dataclass_fields__:
        value = getattr(event, name)
        if name in ("session", "time"):
            continue
        if isinstance(value, State):
            value = value.name
        elif isinstance(value, DownReason):
            value = value is DownReason.UNREACHABLE_REPORTED
        elif type(event).__name__ == "OwnAddressChanged" and value is not None:
            value = address_bytes(value)
        if name != "detail":
            detail.append(value)
    return model.Event(type(event).__name__, event.time, tuple(detail))


def facts_of(session: Session) -> dict[str, Any]:
    """Tell what `model.facts` tells, of a real session."""
    stats = session.stats
    return {
        "state": stats.state.name,
        "rx fact": stats.rx_at,
        "round-trip fact": stats.round_trip_at,
        "pto": stats.probe_timeout,
        "srtt": stats.rtt_smoothed,
        "jitter": stats.jitter,
        "rtt": stats.rtt_latest,
        "samples": stats.round_trips,
        "suspicions": stats.suspicions,
        "stalls": stats.stalls,
        "interval": stats.interval if stats.handshakes else None,
        "address": session.address,
    }


class Divergence(AssertionError):
    """The code and the model differ."""


class Twins:
    """One side of a session, twice. The verbs do a thing to both and compare what comes of it."""

    def __init__(
        self,
        config: Config,
        peer: Parameters,
        *,
        initiator: bool,
        start: int = 0,
        seed: int = 0,
    ) -> None:
        self.now = start
        self.config = config
        self.draws = Draws()
        self.entropy = Random(f"{seed}/core").randbytes
        self.random = Random(f"{seed}/peer").randbytes
        self.endpoint = Endpoint(
            config, keys=KEY, rng=self.draws, entropy=self.entropy, accept=True
        )
        self.peer = peer
        self.epoch = self.random(8)
        self.handshakes: list[Handshake] = []
        self.inits: list[bytes] = []
        self.datagrams: list[tuple[bytes, model.Frame]] = []
        self.waiting: list[tuple[Handshake, Parameters, int]] = []
        self.log: list[tuple[int, int, model.Input]] = []
        settings = settings_of(config, initiator=initiator)
        self.initiator = initiator
        self.side = model.new_side(settings, PEER, start)
        self.session: Session | None = None
        if initiator:
            self.session = self.endpoint.connect(PEER, self.now, key_id=KEY.key_id)
            self._step(model.Connect())

    # Verbs of the test.

    def time(self, now: int) -> None:
        """Let time come to `now`, and the timers do what is due."""
        self.now = now
        self.endpoint.handle_timer(now)
        self._step(model.TimePasses())

    def next_timer(self) -> int | None:
        """Tell when something is due."""
        return self.endpoint.next_timer()

    def apply(self, what: model.Input, verb: Callable[[Session], None]) -> None:
        """Let the application use a verb."""
        assert self.session is not None
        refused: list[model.Output] = []
        try:
            verb(self.session)
        except SessionStateError:
            refused = [model.Refused()]
        self._step(what, refused)

    def respond(
        self, attempt: int, parameters: Parameters | None = None, seen: bytes | None = None
    ) -> None:
        """Answer an INIT of the core."""
        parameters = parameters or self.peer
        opened = open_init(KEY, self.inits[attempt - 1])
        local_id = self.random(8)
        answer = ResponsePayload(
            local_id, b"instance", self.epoch, parameters, Options(address_seen=seen)
        )
        response, keys = opened.respond(answer, self.random, None)
        shake = Handshake(keys, local_id, opened.sender_session_id, parameters, self.epoch)
        accepted = attempt == self.side.attempt
        if accepted:
            self.handshakes.append(shake)
        told = model.Established(
            local_id, self.epoch, model.Parameters(*parameters), self.side.attempt_started
        )
        self._receive(response, PEER, model.ResponseIn(attempt, told, seen))
        if accepted and self.side.keys < len(self.handshakes):
            self.handshakes.pop()

    def init(self, parameters: Parameters | None = None, source: Any = PEER) -> None:
        """Send INIT to a responder, which answers and waits for a first frame."""
        parameters = parameters or self.peer
        old = self.handshakes[-1].remote_id if self.handshakes else bytes(8)
        local_id = self.random(8)
        payload = InitPayload(b"instance", self.epoch, old, parameters)
        side = initiate(KEY, local_id, payload, self.random)
        assert self.endpoint.receive_datagram(side.init, source, self.now)
        ((response, to),) = self.endpoint.datagrams_to_send()
        assert to == source
        answer, keys = side.complete(response, None)
        shake = Handshake(keys, local_id, answer.sender_session_id, parameters, self.epoch)
        self.waiting.append((shake, answer.parameters, self.now))

    def first_probe(self, source: Any = PEER, address: Any = PEER, **said: Any) -> None:
        """Let the newest handshake with a responder be proven by a first frame."""
        shake, announced, answered = self.waiting.pop()
        self.handshakes.append(shake)
        told = model.Established(
            shake.local_id, shake.epoch, model.Parameters(*shake.parameters), answered
        )
        data, frame = self.seal("PROBE", len(self.handshakes), **said)
        came = model.FrameIn(frame, source)
        self.endpoint.receive_datagram(data, source, self.now)
        if self.session is None:
            (self.session,) = self.endpoint.sessions
            # A responder's session begins with its first frame.
            self.side = model.new_side(self.side.settings, address, self.now)
        self._step(model.NewKeys(told, model.Parameters(*announced), answered, address, came))

    def seal(
        self,
        kind: str,
        keys: int,
        *,
        packet_number: int | None = None,
        options: Options = codec.NO_OPTIONS,
        **said: int,
    ) -> tuple[bytes, model.Frame]:
        """Seal a frame as the peer: the next packet number unless another is given."""
        shake = self.handshakes[keys - 1]
        number = shake.last_sent + 1 if packet_number is None else packet_number
        shake.last_sent = max(shake.last_sent, min(number, MAX_UINT32))
        fields = {
            "state": State.UP,
            "diagnostic": 0,
            "control_version": 0,
            "control_ack": 0,
            "sent_time": 0,
            "echo_time": 0,
            "hold_time": 0,
            "highest_received": 0,
            "received_count": 0,
            "address_hash": 1,
        }
        body = Body(**{**fields, **said}, options=options)
        flags = shake.keys.flags(self.now, NO_LIMITS)
        header = codec.build_transport_header(FrameType[kind], shake.remote_id, number, flags)
        data = shake.keys.seal(header, number, codec.build_body(body))
        return data, frame_of(data, body, keys)

    def frame(self, kind: str, keys: int, source: Any = PEER, **said: Any) -> None:
        """Let a frame of the peer come in."""
        data, frame = self.seal(kind, keys, **said)
        self.datagrams.append((data, frame))
        self._receive(data, source, model.FrameIn(frame, source))

    def again(self, data: bytes, frame: model.Frame, source: Any = PEER) -> None:
        """Let a datagram come in a second time."""
        self._receive(data, source, model.FrameIn(frame, source))

    # Both.

    def _receive(self, data: bytes, source: Any, what: model.Input) -> None:
        self.endpoint.receive_datagram(data, source, self.now)
        self._step(what)

    def _step(self, what: model.Input, refused: Sequence[model.Output] = ()) -> None:
        """Let the model do what the code has just done, and compare."""
        r = self.draws.r
        sent = self._sent()
        fresh = tuple(
            one.frame.options.path_challenge
            for one in sent
            if isinstance(one, model.Send) and one.frame.options.path_challenge is not None
        )
        self.side, outputs = model.step(self.side, what, self.now, repeat(r), iter(fresh))
        self.log.append((self.now, r, what))
        self._compare(
            "refusal", list(refused), [o for o in outputs if isinstance(o, model.Refused)]
        )
        self._compare(
            "frames", sent, [o for o in outputs if isinstance(o, (model.Send, model.SendInit))]
        )
        self._compare("events", self._events(), [o for o in outputs if isinstance(o, model.Event)])
        self._compare(
            "drops", self._drops(), [o.reason for o in outputs if isinstance(o, model.Dropped)]
        )
        if self.session is not None:
            self._compare("facts", facts_of(self.session), model.facts(self.side))
            self._compare("timers", self._timers(), self.side.timers)
            self._compare("next timer", self.endpoint.next_timer(), self.side.next_timer)

    def _compare(self, what: str, code: Any, said: Any) -> None:
        if code != said:
            raise Divergence(
                f"{what}: {difference(code, said)}\nafter\n  "
                + "\n  ".join(f"at {at} r={r:#x}: {brief(what)}" for at, r, what in self.log[-8:])
                + f"\ncode timers: {self._timers()}\nmodel timers: {self.side.timers}"
            )

    def _timers(self) -> dict[str, int]:
        if self.session is None:
            return {}
        return {timer.name: at for timer, at in self.session.timers._deadlines.items()}

    def _sent(self) -> list[model.Output]:
        return [self._decoded(data, to) for data, to in self.endpoint.datagrams_to_send()]

    def _decoded(self, data: bytes, to: Any) -> model.Output:
        if data[1] == FrameType.INIT:
            return self._decoded_init(data, to)
        header = codec.parse_transport_header(data)
        keys, shake = next(
            (number, shake)
            for number, shake in enumerate(self.handshakes, start=1)
            if shake.local_id == header.receiver_session_id
        )
        body = codec.parse_body(header.type, shake.keys.unseal(header, data, self.now))
        shake.seen[header.packet_number] = body.sent_time
        return model.Send(frame_of(data, body, keys), to)

    def _decoded_init(self, data: bytes, to: Any) -> model.SendInit:
        opened = open_init(KEY, data)
        if data not in self.inits:
            self.inits.append(data)
        named = opened.payload.old_session_id
        old = next(
            (
                number
                for number, shake in enumerate(self.handshakes, start=1)
                if shake.local_id == named
            ),
            None,
        )
        assert old is not None or named == bytes(8)
        parameters = model.Parameters(*opened.payload.parameters)
        return model.SendInit(self.inits.index(data) + 1, old, parameters, to)

    def _events(self) -> list[model.Event]:
        events = []
        while event := self.endpoint.next_event():
            events.append(event_of(event))
        return events

    def _drops(self) -> list[str]:
        drops = [
            reason.value for reason, count in self.endpoint.counters.items() for _ in range(count)
        ]
        self.endpoint.counters.clear()
        return drops


def difference(code: Any, said: Any) -> str:
    """Tell in which of their parts two values differ."""
    if type(code) is type(said) and isinstance(code, dict):
        parts = [(name, code.get(name), said.get(name)) for name in {**code, **said}]
    elif type(code) is type(said) and hasattr(code, "_fields"):
        parts = list(zip(code._fields, code, said, strict=True))
    elif isinstance(code, list) and isinstance(said, list) and len(code) == len(said):
        parts = list(zip(range(len(code)), code, said, strict=True))
    else:
        return f"code {brief(code)}, model {brief(said)}"
    return "; ".join(f"{name}: {difference(a, b)}" for name, a, b in parts if a != b)


def brief(value: Any) -> str:
    """Show a value of the model's, without what is absent from it."""
    if isinstance(value, list):
        return "[" + ", ".join(map(brief, value)) + "]"
    if not hasattr(value, "_fields"):
        return repr(value)
    shown = (
        f"{name}={brief(one)}"
        for name, one in zip(value._fields, value, strict=True)
        if one not in (None, model.Options())
    )
    return f"{type(value).__name__}({', '.join(shown)})"
