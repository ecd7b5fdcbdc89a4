"""A world in motion: a plan's nodes, the applications that use them, storms of faults and calms.

In a storm faults come as the plan says. In a calm everything is mended, and after a while every
session whose two processes live has to be UP.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, Final

from kaudp.core.endpoint import Endpoint
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.errors import SessionStateError
from kaudp.events import ConnectFailed, KeyChanged, SessionClosed, State
from kaudp.sim.link import Link
from kaudp.sim.oracle import Oracle
from kaudp.sim.plan import DAY, NodePlan, Plan, log_uniform
from kaudp.sim.records import Record, violated
from kaudp.sim.world import Node, Step, World
from kaudp.units import SECOND, milliseconds
from kaudp.wire.keys import PresharedKey

INTERVALS_PER_TICK: Final = 2
LONGEST_PAUSE: Final = 120 * SECOND
# With fewer sessions or embryos than that a server may rightly refuse its clients.
ENOUGH: Final = 16

Tap = Callable[[bytes, Node], None]


@dataclass(slots=True)
class Relation:
    """What one application wants: a session of `caller` with `target`."""

    caller: str
    target: str
    key: PresharedKey
    session: Session | None = None
    start: int = 0


class Stage:
    """Runs a plan. `run` raises what is wrong."""

    def __init__(self, plan: Plan, faults: dict[str, Callable[["Stage"], None]]) -> None:
        self.plan = plan
        self.rng = Random(f"kaudp faults {plan.seed}")
        self.world = World(plan.seed, start=plan.start, conditions=plan.conditions, keep=False)
        self.faults: Counter[str] = Counter()
        self.lived: Counter[str] = Counter()
        self.fault_watchers: list[Callable[[str], None]] = []
        self.taps: list[tuple[tuple[str, str], Tap]] = []
        self.recorded: list[tuple[bytes, str]] = []
        self.downs_without_outage = 0
        self.keys = [PresharedKey(secret) for secret in plan.keys]
        self.plans = {node.name: node for node in plan.nodes}
        self.oracle = Oracle(
            self.world,
            {node.name: node.config for node in plan.nodes},
            {node.name: node.utc_offset for node in plan.nodes},
        )
        self.world.watchers.append(self._watch)
        self._faults = faults
        self._storms = 0
        self._stormy = False
        self._outages: dict[str, int] = {}
        self._used: set[Address] = set()
        self._leaving: dict[str, Endpoint] = {}
        self._downs_seen = 0
        self._longest_delay = plan.conditions.delay + plan.conditions.spread
        self.relations = [
            Relation(node.name, target, self.keys[key])
            for node in plan.nodes
            for target, key in node.calls
        ]
        self._draw_starts()

    def _draw_starts(self) -> None:
        """Draw when applications connect at first; two that call each other often do at once."""
        for relation in self.relations:
            relation.start = self.plan.start + self.rng.randrange(self.interval)
            for other in self.relations:
                meet = (other.caller, other.target) == (relation.target, relation.caller)
                if meet and other.start and self.rng.random() < 0.8:
                    apart = 3 * self.plan.conditions.delay
                    relation.start = other.start + self.rng.choice([0, self.rng.randrange(apart)])

    @property
    def end(self) -> int:
        """When the world ends."""
        return self.plan.start + self.plan.duration

    @property
    def interval(self) -> int:
        """The longest probe interval of the world."""
        return self.plan.interval

    def run(self) -> None:
        """Let the world run from its beginning to its end."""
        for node in self.plan.nodes:
            self._begin(node)
        for name, mean in self.plan.faults.items():
            self._plan_fault(name, mean)
        self._tick()
        while self.world.now < self.end:
            self._storm()
            self._calm()

    # What faults and verbs need.

    def length(self) -> int:
        """Draw how long a fault lasts: around the time that detection takes."""
        return int(log_uniform(self.rng, 0.05, 30) * self.interval)

    def later(self, delay: int, action: Callable[[], object]) -> None:
        """Do something later, unless the storm is over by then: a calm has mended it."""
        storm = self._storms

        def act() -> None:
            if self._stormy and self._storms == storm:
                action()

        self.world.at(self.world.now + delay, act)

    def node(self) -> Node:
        """Draw a node whose process lives."""
        return self.rng.choice([node for node in self.world.nodes.values() if node.alive])

    def pair(self) -> tuple[str, str]:
        """Draw two nodes that have to do with each other, in either order."""
        relation = self.rng.choice(self.relations)
        pair = (relation.caller, relation.target)
        return pair if self.rng.random() < 0.5 else pair[::-1]

    def session(self) -> tuple[Session, Node] | None:
        """Draw an established session that is not closed, and its node."""
        found = [
            (session, node)
            for node in self.world.nodes.values()
            if node.alive and node.stalled_until <= self.world.now
            for session in dict.fromkeys(node.endpoint.sessions)
            if session.state is not State.CLOSED
        ]
        return self.rng.choice(found) if found else None

    def outage(self, length: int, *names: str) -> None:
        """Take note that nodes, or links ("a>b"), are out for a while: a DOWN then is true."""
        for name in names:
            until = self.world.now + length
            self._outages[name] = max(self._outages.get(name, 0), until)

    def worsen(self, link: Link, length: int, **changes: Any) -> None:  # noqa: ANN401
        """Change what a link is like for a while."""
        link.conditions = replace(link.conditions, **changes)
        conditions = link.conditions
        self._longest_delay = max(self._longest_delay, conditions.delay + conditions.spread)

        def mend() -> None:
            link.conditions = self.plan.conditions

        self.later(length, mend)

    def crash(self, node: Node, length: int) -> None:
        """End a process; start it anew after a while."""
        self.outage(length, node.name)
        for record in self._records_of(node):
            self._ended(record)
        self.world.kill(node)
        self.later(length, lambda: self.start_again(node))

    def leave(self, node: Node, delay: int) -> None:
        """End a process that has closed all its sessions, in a while; a calm does it at once."""
        endpoint = self._leaving[node.name] = node.endpoint

        def die() -> None:
            if node.alive and node.endpoint is endpoint:
                self.crash(node, self.length())

        self.later(delay, die)

    def start_again(self, node: Node) -> None:
        """Start a process anew, as a rule where it was; its applications connect again."""
        if node.alive:
            return
        address = node.address
        taken = self.world.home(address) is not None
        if taken or self.rng.random() < 0.2:
            address = self.fresh_address(node)
        self.world.revive(node, self._endpoint(self.plans[node.name], node.lives + 1), address)
        self.oracle.born(node)
        for relation in self.relations:
            if relation.caller == node.name:
                relation.session = None
                self._connect(relation)

    def move(self, node: Node, address: Address) -> None:
        """Give a node another address, without its knowing."""
        self.outage(0, node.name)
        self.world.move(node, address)
        self.oracle.moved(node)

    def fresh_address(self, node: Node, *, same_host: bool = False) -> Address:
        """Draw an address that nobody has had."""
        host = self.plans[node.name].host
        if not same_host:
            host = f"198.51.{self.rng.randrange(256)}.{self.rng.randrange(1, 255)}"
        while True:
            address = (host, self.rng.randrange(1024, 65536))
            if self.world.home(address) is None and address not in self._used:
                self._used.add(address)
                return address

    def keys_of(self, name: str) -> list[PresharedKey]:
        """Give the keys that a node holds."""
        return [self.keys[number] for number in sorted(self.plans[name].keys)]

    def refuses_strangers(self, node: Node) -> bool:
        """Tell whether nobody whom a node calls accepts others than those it knows."""
        calls = self.plans[node.name].calls
        return not any(self.plans[target].accepts for target, _ in calls)

    def take_up(self, session: Session, node: Node, now: int) -> None:
        """Let an operator take a session up again."""
        self.oracle.record(session, node).administered(now, down=False)
        session.admin_up(now)

    def redirect(self, relation: Relation) -> None:
        """Let an application find its peer's new address, as by its name."""
        session, node = relation.session, self.world.nodes[relation.caller]
        target = self.world.nodes[relation.target]
        if session is None or not node.alive or session.state is State.CLOSED:
            return
        if session.address != target.address and target.alive:
            self.oracle.chosen(node, target.address)
            self.world.act(node, "redirect", lambda now: session.redirect(target.address, now))

    # The applications.

    def _begin(self, node_plan: NodePlan) -> None:
        endpoint = self._endpoint(node_plan, 1)
        address = (node_plan.host, node_plan.port)
        node = self.world.add_endpoint(node_plan.name, endpoint, address, node_plan.clock)
        self.oracle.born(node)
        for relation in self.relations:
            if relation.caller == node.name:
                self.world.at(relation.start, partial(self._connect, relation))

    def _endpoint(self, node_plan: NodePlan, life: int) -> Endpoint:
        name = f"{self.plan.seed}/{node_plan.name}/{life}"
        return Endpoint(
            node_plan.config,
            keys={self.keys[number].key_id: self.keys[number] for number in node_plan.keys},
            rng=Random(f"{name}/jitter"),
            entropy=Random(f"{name}/entropy").randbytes,
            accept=node_plan.accepts,
            instance_id=node_plan.identity,
            utc_offset=node_plan.utc_offset,
        )

    def _connect(self, relation: Relation) -> None:
        node, target = self.world.nodes[relation.caller], self.world.nodes[relation.target]
        held = relation.session is not None and relation.session.state is not State.CLOSED
        if held or not node.alive or node.stalled_until > self.world.now:
            return
        self.oracle.chosen(node, target.address)

        def connect(now: int) -> None:
            key_id = relation.key.key_id
            try:
                relation.session = node.endpoint.connect(target.address, now, key_id=key_id)
            except SessionStateError:
                relation.session = None  # as many sessions as its configuration allows

        self.world.act(node, "connect", connect)

    def _watch(self, step: Step) -> None:
        """Record what may be replayed, reconnect what has closed, and judge what went DOWN."""
        if self.plan.faults.keys() & _RECORDING:
            self._record(step)
        for event in step.events:
            if isinstance(event, SessionClosed | ConnectFailed):
                self._closed(event.session, step.node)
            elif isinstance(event, KeyChanged):
                self._under_another_key(event)
        downs = self.oracle.downs
        while self._downs_seen < len(downs):
            self._judge_down(*downs[self._downs_seen])
            self._downs_seen += 1

    def _closed(self, session: Session, node: Node) -> None:
        self._ended(self.oracle.record(session, node))
        for relation in self.relations:
            if relation.session is session:
                delay = SECOND + self.rng.randrange(self.interval)
                self.world.at(self.world.now + delay, partial(self._connect, relation))

    def _under_another_key(self, event: KeyChanged) -> None:
        """Let an application use the newest key also for its next session."""
        for relation in self.relations:
            if relation.session is event.session:
                relation.key = next(key for key in self.keys if key.key_id == event.key_id)

    def _record(self, step: Step) -> None:
        for data, address in step.sent:
            target = self.world.home(address)
            if target is None:
                continue
            for (source, to), tap in list(self.taps):
                if (source, to) == (step.node.name, target.name):
                    tap(data, target)
            entry = (data, target.name)
            if len(self.recorded) < MOST_RECORDED:
                self.recorded.append(entry)
            else:
                self.recorded[self.rng.randrange(MOST_RECORDED)] = entry

    def _judge_down(self, record: Record, at: int) -> None:
        """Tell a DOWN that has an outage behind it from one by loss and delay alone."""
        since = at - 2 * (record.wait + record.detection_bound)
        one, other = record.node, record.peer
        names = (one, other, f"{one}>{other}", f"{other}>{one}")
        if all(self._outages.get(name, -1) < since for name in names):
            self.downs_without_outage += 1

    def _ended(self, record: Record) -> None:
        """Count how long a session lived, at the side that began it."""
        if record.initiator and record.established_at >= 0 and record.first_up is not None:
            self.lived[record.node] += self.world.now - record.first_up
            record.first_up = None

    def _records_of(self, node: Node) -> Iterator[Record]:
        return (record for record in self.oracle.records() if record.node == node.name)

    # Storm and calm.

    def _plan_fault(self, name: str, mean: int) -> None:
        at = self.world.now + 1 + int(self.rng.expovariate(1) * mean)
        self.world.at(at, lambda: self._fault(name, mean))

    def _fault(self, name: str, mean: int) -> None:
        if self._stormy:
            self.faults[name] += 1
            for watcher in self.fault_watchers:
                watcher(name)
            self._faults[name](self)
        self._plan_fault(name, mean)

    def _storm(self) -> None:
        self._storms += 1
        self._stormy = True
        longest = max(self.plan.duration / 2, 100 * self.interval)
        length = int(log_uniform(self.rng, 50 * self.interval, longest))
        self.world.run_until(min(self.world.now + length, self.end))

    def _calm(self) -> None:
        """Mend everything, wait as long as a return may take, and see that all came back."""
        self._stormy = False
        self._mend()
        bound = max((record.return_bound for record in self.oracle.records()), default=0)
        waiting = 2 * self._longest_delay + LONGEST_PAUSE + self.interval
        self.world.run_for(waiting)
        for relation in self.relations:
            self._connect(relation)
        self.world.run_for(bound)
        for relation in self.relations:
            self._check_return(relation)

    def _mend(self) -> None:
        self.taps.clear()
        for link in self.world.links.values():
            link.cut = False
            link.conditions = self.plan.conditions
        for node in self.world.nodes.values():
            if self._leaving.get(node.name) is node.endpoint:
                self.crash(node, 0)
            if node.alive:
                self.world.awaken(node)
            else:
                self.start_again(node)
        for record in [record for record in self.oracle.records() if record.own_admin]:
            if record.state is not State.CLOSED:
                node = self.world.nodes[record.node]
                take_up = partial(self.take_up, record.session, node)
                self.world.act(node, "admin_up", take_up)
        for relation in self.relations:
            self._connect(relation)
            self.redirect(relation)
        self._longest_delay = self.plan.conditions.delay + self.plan.conditions.spread

    def _check_return(self, relation: Relation) -> None:
        """Spec: KA-4.2-2, KA-7.6-1, KA-7.6-2, KA-7.6-3."""
        configs = [self.plans[name].config for name in (relation.caller, relation.target)]
        if any(min(config.max_sessions, config.max_embryos) < ENOUGH for config in configs):
            return
        session, node = relation.session, self.world.nodes[relation.caller]
        if self._met_another_life(session, node):
            return
        if session is None or session.state is not State.UP:
            violated("KA-7.6-2", f"{relation.caller} to {relation.target}: {session} in a calm")
        record = self.oracle.record(session, node)
        record.check_counts()
        other = self.oracle.counterpart(record)
        if other is None or other.state is not State.UP:
            violated("KA-7.6-2", f"{record} is UP in a calm, but its other end is {other}")
        other.check_counts()
        record.check_agreement(other)

    def _met_another_life(self, session: Session | None, node: Node) -> bool:
        """Tell whether this side leaves it to the peer, which may have begun anew, to come back.

        Of two that met (4.6) the responder keeps its session until that expires.
        """
        if session is None or session.initiator or self.refuses_strangers(node):
            return False
        return session.state is not State.UP

    def _tick(self) -> None:
        """Look, ever again, at what must have happened by now."""
        self.oracle.tick()
        shortest = min(node.config.interval_ms for node in self.plan.nodes if node.calls)
        step = max(INTERVALS_PER_TICK * milliseconds(shortest), SECOND)
        self.world.at(self.world.now + step, self._tick)

    def finish(self) -> None:
        """Count the sessions that still live."""
        for record in list(self.oracle.records()):
            self._ended(record)

    @property
    def session_days(self) -> float:
        """How many days of sessions there were, each session counted once."""
        return sum(self.lived.values()) / DAY


MOST_RECORDED: Final = 256
_RECORDING: Final = frozenset({"replay", "flip", "truncate", "hoard", "copy"})
