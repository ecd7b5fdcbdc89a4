"""An observer of a world that knows what was sent and what arrived, and says what must not be.

It watches every step from outside: headers of frames, events, public statistics. Of the core's
private parts it reads only what names things: which ids the keys of a session have, and how many
embryos and lingering keys there are. Spec: each check names its requirement.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from kaudp.config import Config
from kaudp.core.handshake import EMBRYO_LIFETIME
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.events import Event, PeerAddressChanged, PeerPaused, SessionDown, SessionUp, State
from kaudp.sim.records import End, Record, Violation, violated
from kaudp.sim.world import Kind, Node, Step, World
from kaudp.units import SECOND
from kaudp.wire.grammar import FrameType

# How many of the newest frames are known byte for byte; what is older is behind every window.
REMEMBERED: Final = 50_000
# Timers of one node in one second: fast probes come every 5 ms at most often.
TIMERS_PER_SECOND: Final = 400
# Above what is received (KA-9.1-3).
AMPLIFICATION: Final = 3
ANSWER_OF: Final = {
    FrameType.INIT: FrameType.RESPONSE,
    FrameType.PROBE: FrameType.REPLY,
    FrameType.CLOSE: FrameType.REPLY,
}
TRANSPORT: Final = (FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE)

__all__ = ["Oracle", "Violation"]


class Sealed:
    """A transport frame as it was sent: whose, its number, and the newest it confirms."""

    __slots__ = ("accepted", "confirms", "end")

    def __init__(self, end: End, confirms: int) -> None:
        self.end = end
        self.confirms = confirms
        self.accepted = False


class Life:
    """One process of a node: its sessions, and the addresses that it has met."""

    def __init__(self, node: Node) -> None:
        self.endpoint = node.endpoint
        self.refusals = 0
        self.records: dict[Session, Record] = {}
        self.senders: dict[bytes, End] = {}
        self.validated: set[Address] = set()
        self.received: Counter[Address] = Counter()
        self.sent: Counter[Address] = Counter()
        self.second = 0
        self.timers = 0


class Oracle:
    """Watches a world; raises `Violation` at the step in which something is wrong."""

    def __init__(self, world: World, configs: dict[str, Config]) -> None:
        self.events: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.downs: list[tuple[Record, int]] = []
        self.forged: set[bytes] = set()
        self.ends: dict[bytes, End] = {}
        self._world = world
        self._configs = configs
        self._lives: dict[str, Life] = {}
        self._homes: dict[str, set[Address]] = {}
        self._sealed: OrderedDict[bytes, Sealed] = OrderedDict()
        self._initiators: dict[bytes, tuple[str, int]] = {}
        self._responses: dict[tuple[str, bytes], tuple[int, set[Address]]] = {}
        world.watchers.append(self.watch)

    # What the stage tells.

    def born(self, node: Node) -> None:
        """Take note of a new process."""
        self._lives[node.name] = Life(node)
        self.moved(node)

    def moved(self, node: Node) -> None:
        """Take note of where a node is."""
        self._homes.setdefault(node.name, set()).add(node.address)

    def chosen(self, node: Node, address: Address) -> None:
        """Take note of an address that the application named: it answers for that."""
        self._lives[node.name].validated.add(address)

    def excuse(self, node: Node, until: int) -> None:
        """Take note of a stall or pause until a time of the world."""
        shown = node.clock.read(until)
        for record in self._lives[node.name].records.values():
            record.excused(shown)

    def heard_application(self, session: Session, node: Node, now: int) -> None:
        """Take note of application traffic that was reported as received. Spec: KA-8.5-1."""
        record = self._lives[node.name].records[session]
        record.heard_maybe = now

    def record(self, session: Session, node: Node) -> Record:
        """Give what is known of a session."""
        return self._lives[node.name].records[session]

    def records(self) -> Iterable[Record]:
        """Give all records of the processes that live."""
        for life in self._lives.values():
            yield from life.records.values()

    def counterpart(self, record: Record) -> Record | None:
        """Find the other end of the keys in use."""
        end = record.end and self.ends.get(record.end.remote_id)
        return end.record if end else None

    # Steps.

    def watch(self, step: Step) -> None:
        """Check a step of a node."""
        life = self._lives[step.node.name]
        if step.kind is Kind.DATAGRAM:
            self._received(step, life)
        elif step.kind is Kind.VERB:
            self._discover(step, life)
        for event in step.events:
            self._told(event, step, life)
        for data, address in step.sent:
            self._sent(data, address, step, life)
        if step.kind is Kind.TIMER:
            self._check_timers(step, life)

    def tick(self) -> None:
        """Check what must have happened by now."""
        for node in self._world.nodes.values():
            if not node.alive or node.stalled_until > self._world.now:
                continue
            life, now = self._lives[node.name], self._world.local(node)
            self._check_bounds(node, life)
            for record in list(life.records.values()):
                record.check_patience(now)
                if record.state is State.CLOSED and now - record.since > 60 * SECOND:
                    del life.records[record.session]

    def _told(self, event: Event, step: Step, life: Life) -> None:
        self.events[type(event).__name__] += 1
        record = life.records.get(event.session)
        if record is None:
            violated("KA-6.3-2", f"{step.node.name} tells of an unknown session: {event}")
        before = record.state
        record.told_of(event, step.now)
        if isinstance(event, SessionUp) and record.first_up is None:
            record.first_up = self._world.now
        elif isinstance(event, SessionDown) and before is not State.DOWN:
            self.downs.append((record, self._world.now))
        elif isinstance(event, PeerPaused):
            record.excused(step.now + event.duration)
        elif (
            isinstance(event, PeerAddressChanged)
            and record.established_at != step.now
            and event.address not in self._homes.get(record.peer, ())
        ):
            violated("KA-9.1-2", f"{record} moves to {event.address}, where its peer never was")

    # Datagrams in.

    def _received(self, step: Step, life: Life) -> None:
        data, endpoint = step.data, step.node.endpoint
        life.received[step.source] += len(data)
        refusals = sum(endpoint.counters.values())
        refused, life.refusals = refusals != life.refusals, refusals
        if step.consumed and data in self.forged:
            violated("KA-2-3", f"{step.node.name} takes what nobody sealed: {data.hex()}")
        if not step.consumed and not refused:
            violated("KA-12-1", f"{step.node.name} drops without counting: {data.hex()}")
        if refused or not step.consumed:
            if step.sent or step.events:
                violated("KA-2-4", f"{step.node.name} acts on what it refused: {data.hex()}")
            if step.consumed:
                self._refused(data)
            return
        if data[1] == FrameType.RESPONSE or data[4:12] not in self.ends:
            self._discover(step, life)
        self._check_answer(step)
        if data[1] in TRANSPORT:
            self._accepted(step, life)

    def _refused(self, data: bytes) -> None:
        """Take note that what is refused once its tag verified is received too. KA-5.1-2."""
        end = self.ends.get(data[4:12])
        if end is not None and data in self._sealed:
            end.highest = max(end.highest, int.from_bytes(data[12:20], "big"))

    def _check_answer(self, step: Step) -> None:
        """Spec: KA-4.3-1, KA-8.3-1, KA-8.3-2, KA-8.3-3."""
        answers = [entry for entry in step.sent if entry[0][1] in ANSWER_OF.values()]
        due = ANSWER_OF.get(FrameType(step.data[1]))
        if [entry[0][1] for entry in answers] != ([] if due is None else [due]):
            violated("KA-8.3-1", f"{step.node.name} gives {len(answers)} answers")
        for answer, address in answers:
            if address != step.source:
                violated("KA-8.3-2", f"{step.node.name} answers to {address}, not {step.source}")
            if len(answer) > len(step.data):
                violated("KA-8.3-3", f"{step.node.name} answers {len(step.data)} by {len(answer)}")

    def _accepted(self, step: Step, life: Life) -> None:
        """Learn what an accepted frame proves. Spec: KA-5.1-1, KA-7.1-2, KA-7.1-3."""
        end = self.ends.get(step.data[4:12])
        sealed = self._sealed.get(step.data)
        if end is None or sealed is None:
            violated("KA-2-3", f"{step.node.name} accepts an unknown frame: {step.data.hex()}")
        if sealed.accepted:
            violated("KA-5.1-1", f"{end.record} accepts a frame twice")
        sealed.accepted = True
        end.accepted += 1
        end.record.accepted += 1
        end.highest = max(end.highest, int.from_bytes(step.data[12:20], "big"))
        self._learn(end, sealed.confirms, step, life)
        # What `Stats.probe_timeout` says, without making all of `Stats` for each frame.
        pto = end.record.session._liveness.pto
        if pto != end.record.pto:
            end.record.learn_pto(pto)

    def _learn(self, end: End, confirms: int, step: Step, life: Life) -> None:
        record, now = end.record, step.now
        date = end.sent_at[confirms - 1] if confirms else None
        if step.data[1] != FrameType.REPLY:
            record.heard(now, None)
        elif date is not None:
            record.heard(now, date)
        if date is None:
            return
        if end.sent_to[confirms - 1] == step.source:
            life.validated.add(step.source)
        if confirms > end.confirmed:
            end.confirmed = confirms
            record.evidence(date, now)

    # Datagrams out.

    def _sent(self, data: bytes, address: Address, step: Step, life: Life) -> None:
        kind = FrameType(data[1])
        self.frames[kind.name] += 1
        if kind is FrameType.INIT:
            self._initiators.setdefault(data[4:12], (step.node.name, step.now))
        elif kind is FrameType.RESPONSE:
            self._note_response(data[4:12], address, step)
        else:
            self._note_transport(data, kind, address, step, life)
        life.sent[address] += len(data)
        if (
            address not in life.validated
            and life.sent[address] > AMPLIFICATION * life.received[address]
        ):
            violated(
                "KA-9.1-3",
                f"{step.node.name} has sent {life.sent[address]} bytes to {address}, which is not "
                f"validated, for {life.received[address]} received",
            )

    def _note_response(self, initiator_id: bytes, address: Address, step: Step) -> None:
        """Remember when the oldest embryo of an INIT may have been made, and who was answered."""
        key = (step.node.name, initiator_id)
        first, addresses = self._responses.get(key, (step.now, set()))
        if step.now - first > EMBRYO_LIFETIME:
            first, addresses = step.now, set()
        addresses.add(address)
        self._responses[key] = (first, addresses)

    def _note_transport(
        self, data: bytes, kind: FrameType, address: Address, step: Step, life: Life
    ) -> None:
        """Spec: KA-4.4-2."""
        end = life.senders.get(data[4:12])
        if end is None:
            violated("KA-9.1-1", f"{step.node.name} sends to {data[4:12].hex()}, no session's id")
        number = int.from_bytes(data[12:20], "big")
        if number != len(end.sent_at) + 1:
            violated("KA-4.4-2", f"{end.record} sends {number} after {len(end.sent_at)}")
        end.sent_at.append(step.now)
        end.sent_to.append(address)
        end.record.sent += 1
        self._sealed[data] = Sealed(end, end.highest)
        if len(self._sealed) > REMEMBERED:
            self._sealed.popitem(last=False)
        if kind is FrameType.PROBE:
            end.record.probed(step.now)

    # Sessions.

    def _discover(self, step: Step, life: Life) -> None:
        """Notice new sessions, and new keys of old ones."""
        routes = step.node.endpoint._context.routes
        for session in routes.pending.values():
            if session not in life.records:
                config = self._configs[step.node.name]
                life.records[session] = Record(session, step.node.name, config, step.now)
        for local_id, session in routes.sessions.items():
            if local_id not in self.ends:
                self._establish(session, step, life)

    def _establish(self, session: Session, step: Step, life: Life) -> None:
        name, now = step.node.name, step.now
        record = life.records.get(session)
        if record is None:
            record = life.records[session] = Record(session, name, self._configs[name], now)
        channel: Any = session._channel
        end = End(record, channel.local_id, channel.remote_id)
        self.ends[end.local_id] = life.senders[end.remote_id] = end
        if session.initiator:
            _, date = self._initiators[channel.local_id]
            peer = next(who for who, first in self._responses if first == channel.local_id)
        else:
            peer, _ = self._initiators[channel.remote_id]
            date, answered = self._responses[name, channel.remote_id]
            if step.source in answered:
                life.validated.add(step.source)
        burst = self._configs[peer].suspicion_receive_burst
        record.established(end, date, peer, burst, now)

    # Bounds.

    def _check_timers(self, step: Step, life: Life) -> None:
        """Spec: KA-8.2-1, KA-8.2-3."""
        due = step.node.endpoint.next_timer()
        if due is not None and due <= step.now:
            violated("KA-8.2-3", f"{step.node.name}'s next timer is {step.now - due} ns ago")
        second = step.now // SECOND
        if second != life.second:
            life.second, life.timers = second, 0
        life.timers += 1
        if life.timers > TIMERS_PER_SECOND * (1 + len(life.records)):
            violated("KA-8.2-1", f"{step.node.name} runs its timers {life.timers} times in 1 s")

    def _check_bounds(self, node: Node, life: Life) -> None:
        """Spec: KA-4.3-3, KA-11-2."""
        config, context = self._configs[node.name], node.endpoint._context
        routes = context.routes
        bounded = {
            "sessions": (routes.per_key.total(), config.max_sessions),
            "sessions of a key": (
                max(routes.per_key.values(), default=0),
                config.max_sessions_per_key,
            ),
            "embryos": (len(routes.embryos), config.max_embryos),
            "lingering keys": (len(routes._lingering._entries), config.max_sessions),
            "events": (len(context.outbox.events), config.max_events),
        }
        for what, (count, most) in bounded.items():
            if count > most:
                violated("KA-11-2", f"{node.name} holds {count} {what}, expected at most {most}")
