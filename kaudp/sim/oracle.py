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
from kaudp.core.session import CHALLENGE_OPTION_BYTES, Session
from kaudp.events import Event, PeerAddressChanged, PeerPaused, SessionDown, SessionUp, State
from kaudp.sim.records import CLOCK_DRIFT_PPM, End, Record, Violation, violated
from kaudp.sim.world import Kind, Node, Step, World
from kaudp.units import SECOND
from kaudp.wire.codec import STEADY_FRAME_BYTES
from kaudp.wire.grammar import KEY_PHASE, FrameType

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
# The only PROBE of this length is a path challenge (section 3.8).
CHALLENGE_BYTES: Final = STEADY_FRAME_BYTES + CHALLENGE_OPTION_BYTES
COOKIE_AT: Final = slice(28, 44)
TRANSPORT: Final = (FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE)

__all__ = ["Oracle", "Violation"]


class Sealed:
    """A transport frame as it was sent: whose, its phase, and the newest it confirms.

    `answers` tells which own challenge of the receiver it answers, by packet number.
    """

    __slots__ = ("accepted", "answers", "confirms", "end", "phase")

    def __init__(self, end: End, confirms: int, answers: int) -> None:
        self.end = end
        self.phase = end.phase
        self.confirms = confirms
        self.answers = answers
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
        self.embryos = 0
        self.second = 0
        self.timers = 0


class Oracle:
    """Watches a world; raises `Violation` at the step in which something is wrong."""

    def __init__(
        self, world: World, configs: dict[str, Config], utc_offsets: dict[str, int]
    ) -> None:
        self.events: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.downs: list[tuple[Record, int]] = []
        self.forged: set[bytes] = set()
        self.ends: dict[bytes, End] = {}
        self._world = world
        self._configs = configs
        self._utc_offsets = utc_offsets
        self._lives: dict[str, Life] = {}
        self._homes: dict[str, set[Address]] = {}
        self._sealed: OrderedDict[bytes, Sealed] = OrderedDict()
        self._initiators: dict[bytes, tuple[str, int]] = {}
        self._responses: dict[tuple[str, bytes], tuple[int, set[Address]]] = {}
        self._dropped: Counter[bytes] = Counter()
        self._responders: dict[bytes, list[str]] = {}
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
            for record in life.records.values():
                record.learn_terms(step.now)
        for event in step.events:
            self._told(event, step, life)
        for data, address in step.sent:
            self._sent(data, address, step, life)
        if step.kind is Kind.TIMER:
            self._check_timers(step, life)
        life.embryos = len(step.node.endpoint._context.routes.embryos)

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
        elif isinstance(event, PeerAddressChanged) and record.established_at != step.now:
            if event.address not in self._homes.get(record.peer, ()):
                violated("KA-9.1-2", f"{record} moves to {event.address}, where its peer never was")
            record.moves_to(event.address, step.now)

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
            if self._asks_for_cookie(step):
                self._check_cookie(step)
            elif step.sent or step.events:
                violated("KA-2-4", f"{step.node.name} acts on what it refused: {data.hex()}")
            self._refused(step, life)
            return
        if data[1] == FrameType.INIT:
            self._check_embryo(step, life)
        if data[1] == FrameType.RESPONSE or data[4:12] not in self.ends:
            self._discover(step, life)
        self._check_answer(step)
        if data[1] in TRANSPORT:
            self._accepted(step, life)

    def _refused(self, step: Step, life: Life) -> None:
        """Take note that what is refused once its tag verified is received too. KA-5.1-2."""
        data = step.data
        end, sealed = self.ends.get(data[4:12]), self._sealed.get(data)
        if sealed is None:
            return
        if end is None:
            embryos = step.node.endpoint._context.routes.embryos
            if step.consumed and data[4:12] in embryos and not sealed.accepted:
                sealed.accepted = True
                self._dropped[data[4:12]] += 1
            return
        if step.consumed:
            end.highest = max(end.highest, int.from_bytes(data[12:20], "big"))
            end.opens(sealed.phase, step.now)
            return
        record = end.record
        lives = life.records.get(record.session) is record and record.end is end
        if lives and record.state is not State.CLOSED and end.must_open(sealed.phase, step.now):
            violated("KA-4.4-8", f"{record} does not open a frame of phase {sealed.phase}")

    def _asks_for_cookie(self, step: Step) -> bool:
        kinds = [data[1] for data, _ in step.sent]
        came = step.data[1:2] == bytes([FrameType.INIT])
        return step.consumed and came and not step.events and kinds == [FrameType.COOKIE]

    def _check_cookie(self, step: Step) -> None:
        """Spec: KA-4.5-2."""
        (answer, address), name = step.sent[0], step.node.name
        if address != step.source or len(answer) > len(step.data):
            violated("KA-4.5-2", f"{name} sends a cookie to {address}, not {step.source}")
        embryos = len(step.node.endpoint._context.routes.embryos)
        if embryos < self._configs[name].cookie_threshold:
            violated("KA-4.5-2", f"{name} asks for a cookie with {embryos} embryos only")

    def _check_embryo(self, step: Step, life: Life) -> None:
        """Check that an INIT that made an embryo held a cookie where one was due. KA-4.5-2."""
        embryos = step.node.endpoint._context.routes.embryos
        newest = next(reversed(embryos.values()), None)
        if newest is None or newest.identifier != step.data or newest.answered != step.now:
            return
        before = min(len(embryos) - 1, life.embryos)
        asked = before >= self._configs[step.node.name].cookie_threshold
        if asked and not any(step.data[COOKIE_AT]):
            violated("KA-4.5-2", f"{step.node.name} keeps an embryo, its {before + 1}th, unasked")

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
        end.opens(sealed.phase, step.now)
        if sealed.answers:
            asked = end.sent_to[sealed.answers - 1]
            end.record.answered[asked] = end.sent_at[sealed.answers - 1]
            life.validated.add(asked)
        self._learn(end, sealed.confirms, step, life)
        end.record.learn_terms(step.now)
        if end.record.config.share_clock:
            self._check_clock(end.record, step)

    def _check_clock(self, record: Record, step: Step) -> None:
        """Compare with the true offset, of clocks that keep within the drift allowed."""
        own, peer = step.node, self._world.nodes[record.peer]
        if abs(own.clock.ppm - peer.clock.ppm) >= CLOCK_DRIFT_PPM:
            return
        utc, now = self._utc_offsets, self._world.now
        ahead = peer.clock.read(now) - own.clock.read(now) + utc[peer.name] - utc[own.name]
        record.check_clock(ahead, step.now)

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
        elif kind is not FrameType.COOKIE:
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
        if key not in self._responses:
            self._responders.setdefault(initiator_id, []).append(step.node.name)
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
        end.seals(data[3] & KEY_PHASE, step.now)
        end.sent_at.append(step.now)
        end.sent_to.append(address)
        end.record.sent += 1
        asked = step.data if kind is FrameType.REPLY else b""
        challenged = len(asked) == CHALLENGE_BYTES and asked[1] == FrameType.PROBE
        answers = int.from_bytes(asked[12:20], "big") if challenged else 0
        self._sealed[data] = Sealed(end, end.highest, answers)
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
        record.accepted += self._dropped[end.local_id]
        self.ends[end.local_id] = life.senders[end.remote_id] = end
        if session.initiator:
            _, date = self._initiators[channel.local_id]
            peer = self._responder(channel.local_id, channel.remote_id)
        else:
            peer, _ = self._initiators[channel.remote_id]
            date, answered = self._responses[name, channel.remote_id]
            if step.source in answered:
                life.validated.add(step.source)
        burst = self._configs[peer].suspicion_receive_burst
        record.established(end, date, peer, burst, now)

    def _responder(self, initiator_id: bytes, responder_id: bytes) -> str:
        """Tell who holds the other end: an INIT that was copied may have several answers."""
        names = self._responders[initiator_id]
        embryos = {name: self._lives[name].endpoint._context.routes.embryos for name in names}
        return next((name for name in names if responder_id in embryos[name]), names[0])

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
            "handshakes over": (len(routes._spent_attempts._entries), config.max_sessions),
            "events": (len(context.outbox.events), config.max_events),
        }
        for what, (count, most) in bounded.items():
            if count > most:
                violated("KA-11-2", f"{node.name} holds {count} {what}, expected at most {most}")
