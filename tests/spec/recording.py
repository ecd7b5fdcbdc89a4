"""What real sessions in a simulated world were told and did, in the words of the reference model.

`Recorder` writes JSON lines for `spec/replay.py`. It listens where the core is handed something,
and where it seals: so frames are written as they were before they were sealed.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from random import Random
from typing import Any, TextIO

import pytest

from kaudp.core.endpoint import Endpoint
from kaudp.core.session import Session
from kaudp.sim import Node
from kaudp.wire import codec
from kaudp.wire.codec import Body, ResponsePayload
from kaudp.wire.grammar import FrameType
from kaudp.wire.seal import SessionKeys
from kaudp.wire.suites import OpenedNoiseInit, open_init
from spec import model, replay
from tests.lockstep import event_of, facts_of, frame_of, settings_of
from tests.worlds import KEY


class RecordedDraws(Random):
    """Remembers what was drawn."""

    def __init__(self, inner: Random) -> None:
        super().__init__()
        self.inner = inner
        self.drawn: list[int] = []

    def getrandbits(self, k: int) -> int:
        self.drawn.append(self.inner.getrandbits(k))
        return self.drawn[-1]


class Recorder:
    """Writes a line for each input of each session of the nodes it watches."""

    def __init__(self, file: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = file
        self._patch = monkeypatch
        self._nodes: dict[Endpoint, str] = {}
        self._draws: dict[Endpoint, RecordedDraws] = {}
        self._sealed: dict[bytes, Body] = {}
        self._answers: dict[bytes, ResponsePayload] = {}
        self._names: dict[Session, str] = {}
        self._keys: dict[Session, list[tuple[bytes, bytes]]] = {}
        self._inits: dict[Session, list[bytes]] = {}
        self._busy = False
        self._listen_to_seals()
        self._listen_to_sessions()

    def watch(self, node: Node) -> None:
        """Record a node, from its start."""
        endpoint = node.endpoint
        self._nodes[endpoint] = node.name
        self._draws[endpoint] = RecordedDraws(endpoint._context.rng)
        endpoint._context.rng = self._draws[endpoint]
        receive = endpoint.receive_datagram

        def received(data: bytes, addr: Any, now: int) -> bool:
            return self._receive(endpoint, receive, data, addr, now)

        endpoint.receive_datagram = received  # type: ignore[method-assign]

    # What is heard.

    def _listen_to_seals(self) -> None:
        seal, respond = SessionKeys.seal, OpenedNoiseInit.respond

        def sealed(keys: SessionKeys, header: bytes, packet_number: int, body: bytes) -> bytes:
            frame = seal(keys, header, packet_number, body)
            self._sealed[frame] = codec.parse_body(header[1], body)
            return frame

        def answered(opened: Any, answer: ResponsePayload, *rest: Any) -> Any:
            response, keys = respond(opened, answer, *rest)
            self._answers[response] = answer
            return response, keys

        self._patch.setattr(SessionKeys, "seal", sealed)
        self._patch.setattr(OpenedNoiseInit, "respond", answered)

    def _listen_to_sessions(self) -> None:
        inputs: dict[str, Callable[..., tuple[model.Input, int]]] = {
            "handle_timer": lambda now: (model.TimePasses(), now),
            "begin": lambda now: (model.Connect(), now),
            "close": lambda now, reason=0: (model.Close(int(reason)), now),
            "pause": lambda duration, now: (model.Pause(duration), now),
            "note_unreachable": lambda now: (model.Hint(), now),
            "note_application_received": lambda now: (model.TrafficReceived(), now),
            "note_application_sent": lambda now: (model.TrafficSent(), now),
            "redirect": lambda address, now: (model.Redirect(address), now),
            "admin_down": lambda now: (model.Admin(True), now),
            "admin_up": lambda now: (model.Admin(False), now),
            "slow_down": lambda ms, now: (model.SlowDown(1000 * ms), now),
        }
        for name, make in inputs.items():
            self._listen_to_verb(name, getattr(Session, name), make)

    def _listen_to_verb(
        self, name: str, verb: Callable[..., None], make: Callable[..., tuple[model.Input, int]]
    ) -> None:
        @wraps(verb)
        def called(session: Session, *args: Any, **named: Any) -> None:
            if self._busy:
                verb(session, *args, **named)
                return
            what, now = make(*args, **named)
            with self._step(self._endpoint_of(session), what, now, session):
                verb(session, *args, **named)

        self._patch.setattr(Session, name, called)

    def _endpoint_of(self, session: Session) -> Endpoint:
        return next(one for one in self._nodes if one._context is session._context)

    def _receive(
        self, endpoint: Endpoint, receive: Callable[..., bool], data: bytes, addr: Any, now: int
    ) -> bool:
        found = self._input_of(endpoint, data, addr)
        if found is None:
            return receive(data, addr, now)
        what, session = found
        with self._step(endpoint, what, now, session):
            return receive(data, addr, now)

    def _input_of(
        self, endpoint: Endpoint, data: bytes, addr: Any
    ) -> tuple[model.Input, Session | None] | None:
        if data[1] == FrameType.RESPONSE:
            return self._response_in(endpoint, data)
        if data[1] not in (FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE):
            return None
        header = codec.parse_transport_header(data)
        for session, keys in self._keys.items():
            for number, (local_id, _) in enumerate(keys, start=1):
                if local_id == header.receiver_session_id:
                    frame = frame_of(data, self._sealed[data], number)
                    return model.FrameIn(frame, addr), session
        embryo = endpoint._context.routes.embryos.get(header.receiver_session_id)
        if embryo is None:
            return None
        told = model.Established(
            embryo.channel.remote_id,
            embryo.payload.epoch,
            model.Parameters(*embryo.payload.parameters),
            embryo.answered,
        )
        frame = frame_of(data, self._sealed[data], keys=0)
        said = model.Parameters(*embryo.told.parameters)
        address = embryo.address_proven_by(addr)
        first = model.FrameIn(frame, addr)
        return model.NewKeys(told, said, embryo.answered, address, first), None

    def _response_in(self, endpoint: Endpoint, data: bytes) -> tuple[model.Input, Session] | None:
        answer = self._answers[data]
        for session, inits in self._inits.items():
            for number, init in enumerate(inits, start=1):
                if init[4:12] == data[4:12]:
                    attempt = session._initiation.attempt
                    told = model.Established(
                        answer.sender_session_id,
                        answer.epoch,
                        model.Parameters(*answer.parameters),
                        attempt.started if attempt else 0,
                    )
                    return model.ResponseIn(number, told, answer.options.address_seen), session
        return None

    # What is written.

    @contextmanager
    def _step(
        self, endpoint: Endpoint, what: model.Input, now: int, session: Session | None
    ) -> Iterator[None]:
        outbox, draws = endpoint._context.outbox, self._draws[endpoint].drawn
        frames, events, drawn = len(outbox._datagrams), len(outbox.events._events), len(draws)
        drops = sum(endpoint.counters.values())
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if isinstance(what, model.NewKeys):
            session = self._holder(endpoint, what.told.remote_id)
        if session is None:
            return
        if session not in self._names:
            self._begin(endpoint, session, now)
        self._note_keys(session)
        if isinstance(what, model.NewKeys):
            frame = what.first.frame._replace(keys=len(self._keys[session]))
            what = what._replace(first=what.first._replace(frame=frame))
        self._write(
            session=self._names[session],
            now=now,
            input=what,
            draws=draws[drawn:],
            outputs=[
                *(self._output(session, *one) for one in outbox._datagrams[frames:]),
                *(event_of(one) for one in list(outbox.events._events)[events:]),
            ],
            dropped=sum(endpoint.counters.values()) - drops,
            facts=facts_of(session),
            timers={timer.name: at for timer, at in session.timers._deadlines.items()},
        )

    def _begin(self, endpoint: Endpoint, session: Session, now: int) -> None:
        self._names[session] = f"{self._nodes[endpoint]}/{len(self._names)}"
        settings = settings_of(endpoint._context.config, initiator=session.initiator)
        self._write(
            session=self._names[session],
            now=now,
            settings=settings,
            address=session.address,
        )

    def _holder(self, endpoint: Endpoint, remote_id: bytes) -> Session | None:
        """Find the session that an embryo's keys went to, None if they were refused."""
        for session in endpoint._context.routes.sessions.values():
            if session._channel is not None and session._channel.remote_id == remote_id:
                return session
        return None

    def _note_keys(self, session: Session) -> None:
        channel, keys = session._channel, self._keys.setdefault(session, [])
        if channel is not None and (channel.local_id, channel.remote_id) not in keys:
            keys.append((channel.local_id, channel.remote_id))

    def _output(self, session: Session, data: bytes, to: Any) -> model.Output:
        if data[1] == FrameType.INIT:
            return self._init_out(session, data, to)
        header = codec.parse_transport_header(data)
        remote_ids = [remote_id for _, remote_id in self._keys[session]]
        number = remote_ids.index(header.receiver_session_id) + 1
        return model.Send(frame_of(data, self._sealed[data], number), to)

    def _init_out(self, session: Session, data: bytes, to: Any) -> model.Output:
        inits = self._inits.setdefault(session, [])
        if data not in inits:
            inits.append(data)
        payload = open_init(KEY, data).payload
        remote_ids = [remote_id for _, remote_id in self._keys.get(session, [])]
        named = payload.old_session_id
        old = remote_ids.index(named) + 1 if named in remote_ids else None
        parameters = model.Parameters(*payload.parameters)
        return model.SendInit(inits.index(data) + 1, old, parameters, to)

    def _write(self, **line: Any) -> None:
        self._file.write(json.dumps(replay.plain(line)) + "\n")
