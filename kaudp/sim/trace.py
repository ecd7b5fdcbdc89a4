"""Everything that happened in a world, as JSON lines: for people, and for a reference model.

The first lines hold the plan: keys, settings and clocks. Then comes a line for each step of each
node. What the dice gave is not told: it shows in what was sent and when. Times are ns: `world` of
the world, `now` of the node's own clock, which is what the core was given.
"""

import json
from dataclasses import asdict, fields
from enum import Enum
from typing import Any, Final, TextIO

from kaudp.core.session import Session
from kaudp.events import Event
from kaudp.sim.stage import Stage
from kaudp.sim.world import Kind, Node, Step
from kaudp.wire import codec
from kaudp.wire.grammar import KEY_PHASE, FrameType
from kaudp.wire.seal import unseal
from kaudp.wire.suites import open_init

VERSION: Final = 1


class Trace:
    """Writes what happens to a file."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._names: dict[Session, str] = {}
        self._meanings: dict[bytes, dict[str, Any]] = {}
        self._phases: dict[bytes, dict[int, Any]] = {}

    def begin(self, stage: Stage) -> None:
        """Write the plan, and from now on every step."""
        self._stage = stage
        plan = stage.plan
        self._write(
            "world",
            version=VERSION,
            seed=plan.seed,
            start=plan.start,
            duration=plan.duration,
            family=plan.family,
            faults=plan.faults,
            keys=[{"key_id": key.key_id, "secret": key.secret} for key in stage.keys],
        )
        for node in plan.nodes:
            self._write(
                "node",
                node=node.name,
                config=asdict(node.config),
                clock=asdict(node.clock),
                accepts=node.accepts,
                keys=[key.key_id for key in stage.keys_of(node.name)],
                instance_id=node.identity,
                utc_offset=node.utc_offset,
            )
        stage.world.watchers.insert(0, self.take)
        stage.fault_watchers.append(self._fault)

    def take(self, step: Step) -> None:
        """Write a step."""
        node, stage = step.node, self._stage
        self._note_keys(step)
        for data, _ in step.sent:
            self._note_meaning(data, node)
        came = {}
        if step.kind is Kind.DATAGRAM:
            came = {
                "from": _plain(step.source),
                "consumed": step.consumed,
                **self._frame(step.data),
            }
        self._write(
            "step",
            world=stage.world.now,
            now=step.now,
            node=node.name,
            life=node.lives,
            address=_plain(node.address),
            kind=step.kind.name.lower(),
            verb=step.verb or None,
            came=came or None,
            events=[self._event(event) for event in step.events],
            sent=[{"to": _plain(to), **self._frame(data)} for data, to in step.sent],
            sessions=self._sessions(node),
            next_timer=node.endpoint.next_timer(),
            drops={reason.value: count for reason, count in node.endpoint.counters.items()},
        )

    def _fault(self, name: str) -> None:
        self._write("fault", world=self._stage.world.now, fault=name)

    def _write(self, record: str, /, **facts: Any) -> None:  # noqa: ANN401
        self._file.write(json.dumps({"type": record, **_plain(facts)}) + "\n")

    def _sessions(self, node: Node) -> list[dict[str, Any]]:
        routes = node.endpoint._context.routes
        found = dict.fromkeys([*routes.pending.values(), *routes.sessions.values()])
        return [self._session(session, node) for session in found]

    def _session(self, session: Session, node: Node) -> dict[str, Any]:
        channel, stats = session._channel, session.stats
        return {
            "session": self._name(session, node),
            "initiator": session.initiator,
            "state": session.state.name,
            "peer": session.address,
            "local_id": channel and channel.local_id,
            "remote_id": channel and channel.remote_id,
            "interval": stats.interval,
            "probe_timeout": stats.probe_timeout,
            "rx_at": stats.rx_at,
            "round_trip_at": stats.round_trip_at,
            "timers": {timer.name: at for timer, at in session.timers._deadlines.items()},
        }

    def _name(self, session: Session, node: Node) -> str:
        return self._names.setdefault(session, f"{node.name}/{node.lives}/{len(self._names)}")

    def _event(self, event: Event) -> dict[str, Any]:
        told = {
            field.name: _plain(getattr(event, field.name))
            for field in fields(event)
            if field.name != "session"
        }
        return {
            "event": type(event).__name__,
            "session": self._names.get(event.session),
            **told,
        }

    def _frame(self, data: bytes) -> dict[str, Any]:
        return {"hex": data.hex(), **self._meanings.get(data, {})}

    def _note_meaning(self, data: bytes, node: Node) -> None:
        """Remember what a frame says, opened by who sealed it."""
        kind = FrameType(data[1])
        meaning: dict[str, Any] = {"frame": kind.name}
        if kind is FrameType.INIT:
            key_id = codec.parse_init_header(data).key_id
            key = next(key for key in self._stage.keys if key.key_id == key_id)
            meaning["payload"] = _plain(open_init(key, data).payload._asdict())
        elif kind is FrameType.RESPONSE:
            meaning["payload"] = self._response(data, node)
        elif kind is FrameType.COOKIE:
            meaning["payload"] = {"nonce": codec.parse_cookie(data).nonce.hex()}
        else:
            meaning["body"] = self._body(data)
        self._meanings[data] = meaning

    def _response(self, data: bytes, node: Node) -> dict[str, Any] | None:
        for embryo in node.endpoint._context.routes.embryos.values():
            if embryo.response == data:
                return {"sender_session_id": embryo.channel.local_id.hex()}
        return None

    def _body(self, data: bytes) -> dict[str, Any]:
        """Open an own transport frame by the key that sealed it."""
        header = codec.parse_transport_header(data)
        aead = self._phases[header.receiver_session_id][header.flags & KEY_PHASE]
        body = codec.parse_body(header.type, unseal(aead, header.packet_number, data))
        return {"packet_number": header.packet_number, **_plain(body._asdict())}

    def _note_keys(self, step: Step) -> None:
        """Remember the keys in use by the id that their frames carry."""
        sessions = [*step.node.endpoint.sessions, *(event.session for event in step.events)]
        for session in sessions:
            channel: Any = session._channel
            if channel is not None:
                phase = channel._keys._sending
                phases = self._phases.setdefault(channel.remote_id, {})
                phases[phase.number & KEY_PHASE] = phase.aead


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Make a value of JSON's kinds; bytes become hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
