"""A world of endpoints, links and one clock. The same seed gives the same run.

It takes the driver's place with the same verbs; a node can stall, sleep, move, die and start anew,
has a clock of its own, and is spoken to by strangers.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from random import Random
from typing import Final, NamedTuple

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook, Endpoint
from kaudp.core.paths import Address
from kaudp.events import Event
from kaudp.sim.link import Conditions, Link
from kaudp.wire.keys import KeySource
from kaudp.wire.suites import Carried

# A driver reads so many datagrams before it lets a late timer judge (KA-7.7-4).
READ_BEFORE_TIMERS: Final = 64
# What waits in a socket while nobody reads it; the rest is lost.
SOCKET_DATAGRAMS: Final = 256
MILLION: Final = 1_000_000


class Kind(IntEnum):
    """What happens to a node in one step; among equal times in this order."""

    VERB = 0
    DATAGRAM = 1
    TIMER = 2


@dataclass(frozen=True, slots=True)
class Clock:
    """A node's clock: it shows the world's time, faster by `ppm` millionths, and `offset` ns."""

    ppm: int = 0
    offset: int = 0

    def read(self, time: int) -> int:
        """Tell what the clock shows at a time of the world."""
        return time + self.offset + (time * self.ppm // MILLION if self.ppm else 0)

    def reaches(self, shown: int) -> int:
        """Tell the first time of the world at which the clock shows this, or more."""
        if not self.ppm:
            return shown - self.offset
        time = (shown - self.offset) * MILLION // (MILLION + self.ppm) - 1
        while self.read(time) < shown:
            time += 1
        return time


TRUE_CLOCK: Final = Clock()


class Node:
    """One endpoint in a world. With `keep` it holds everything that it said."""

    def __init__(
        self,
        name: str,
        address: Address,
        endpoint: Endpoint,
        *,
        clock: Clock = TRUE_CLOCK,
        keep: bool = True,
    ) -> None:
        self.name = name
        self.address = address
        self.endpoint = endpoint
        self.clock = clock
        self.keep = keep
        self.events: list[Event] = []
        self.sent: list[tuple[int, bytes, Address]] = []
        self.stalled_until = 0
        self.asleep = False
        self.alive = True
        self.lives = 1
        self.backlog: list[tuple[bytes, Address]] = []
        self.wakes_at: int | None = None

    def kinds(self) -> list[str]:
        """Name the kinds of the events so far, in order."""
        return [type(event).__name__ for event in self.events]


class Step(NamedTuple):
    """What happened to a node at once, and what came of it. `now` is what its clock shows."""

    node: Node
    now: int
    kind: Kind
    verb: str
    data: bytes
    source: Address
    consumed: bool
    sent: list[tuple[bytes, Address]]
    events: list[Event]


Watcher = Callable[[Step], None]
_Queued = tuple[int, int, int, "Node | None", bytes, Address, Callable[[], object] | None]


class World:
    """Nodes, a link for each direction of each pair, and time in ns from `start`.

    Each of `watchers` is told of every step.
    """

    def __init__(
        self,
        seed: object,
        *,
        start: int = 0,
        conditions: Conditions | None = None,
        keep: bool = True,
    ) -> None:
        self.seed = seed
        self.started = self.now = start
        self.nodes: dict[str, Node] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self.watchers: list[Watcher] = []
        self._keep = keep
        self._conditions = conditions or Conditions()
        self._homes: dict[Address, Node] = {}
        self._queue: list[_Queued] = []
        self._serial = 0

    def add_node(
        self,
        name: str,
        config: Config,
        keys: KeySource | Carried,
        *,
        accept: bool | AcceptHook = False,
        address: Address | None = None,
    ) -> Node:
        """Add an endpoint; its address is ("name", 1) unless given."""
        endpoint = Endpoint(
            config,
            keys=keys,
            rng=Random(f"{self.seed}/{name}/jitter"),
            entropy=Random(f"{self.seed}/{name}/entropy").randbytes,
            accept=accept,
        )
        return self.add_endpoint(name, endpoint, address or (name, 1))

    def add_endpoint(
        self, name: str, endpoint: Endpoint, address: Address, clock: Clock = TRUE_CLOCK
    ) -> Node:
        """Add a node that runs an endpoint which was made elsewhere."""
        node = Node(name, address, endpoint, clock=clock, keep=self._keep)
        self.nodes[name] = node
        self._homes[address] = node
        return node

    def link(self, source: str, target: str) -> Link:
        """Give the link of one direction, made on first use."""
        key = (source, target)
        if key not in self.links:
            rng = Random(f"{self.seed}/{source}>{target}")
            self.links[key] = Link(self._conditions, rng)
        return self.links[key]

    def cut(self, source: str, target: str, *, cut: bool = True) -> None:
        """Cut, or mend, one direction."""
        self.link(source, target).cut = cut

    def cut_both(self, one: str, other: str, *, cut: bool = True) -> None:
        """Cut, or mend, both directions."""
        self.cut(one, other, cut=cut)
        self.cut(other, one, cut=cut)

    def at(self, time: int, action: Callable[[], object]) -> None:
        """Do something at a time."""
        self._push(time, Kind.VERB, None, action=action)

    def home(self, address: Address) -> Node | None:
        """Tell who is at an address now."""
        return self._homes.get(address)

    def local(self, node: Node) -> int:
        """Tell what a node's clock shows now."""
        return node.clock.read(self.now)

    def act(self, node: Node, verb: str, call: Callable[[int], object]) -> None:
        """Let a node's application call a verb; `call` takes the node's time."""
        now = self.local(node)
        call(now)
        self._settle(node, now, Kind.VERB, verb)

    def stall(self, node: Node, duration: int) -> None:
        """Let a node's loop stand still: what arrives waits in its socket."""
        node.stalled_until = self.now + duration

    def suspend(self, node: Node, duration: int) -> None:
        """Let a node's machine sleep: what arrives is lost, its clock goes on."""
        self.stall(node, duration)
        node.asleep = True
        self.at(self.now + duration, lambda: self._awaken(node))

    def awaken(self, node: Node) -> None:
        """End a stall or a sleep now."""
        node.stalled_until = self.now
        node.asleep = False

    def move(self, node: Node, address: Address) -> None:
        """Give a node another address; the old one leads nowhere."""
        self._homes.pop(node.address, None)
        node.address = address
        self._homes[address] = node

    def kill(self, node: Node) -> None:
        """End a node's process: nobody is told, and nobody is at its address."""
        node.alive = False
        node.backlog.clear()
        self.awaken(node)
        self._homes.pop(node.address, None)

    def revive(self, node: Node, endpoint: Endpoint, address: Address) -> None:
        """Start a node's process anew, with a new endpoint."""
        node.alive = True
        node.lives += 1
        node.endpoint = endpoint
        node.wakes_at = None
        self.move(node, address)

    def inject(self, node: Node, data: bytes, source: Address) -> bool:
        """Hand a node a datagram that no node sent."""
        return self._receive(node, data, source)

    def deliver(self, node: Node, data: bytes, source: Address, delay: int = 0) -> None:
        """Put a datagram that no node sent on its way to where a node is now."""
        self._push(self.now + delay, Kind.DATAGRAM, node, data, source)

    def run_for(self, duration: int) -> None:
        """Let time pass."""
        self.run_until(self.now + duration)

    def run_until(self, end: int) -> None:
        """Let time pass up to `end`."""
        queue = self._queue
        self._settle_all()
        while queue and queue[0][0] <= end:
            self.now = max(self.now, queue[0][0])
            self._step()
        self.now = max(self.now, end)

    def _push(
        self,
        time: int,
        kind: Kind,
        node: Node | None,
        data: bytes = b"",
        source: Address = None,
        action: Callable[[], object] | None = None,
    ) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (time, kind, self._serial, node, data, source, action))

    def _step(self) -> None:
        """Do all that is due now: actions, arrivals, and then the nodes that they concern."""
        queue, now = self._queue, self.now
        concerned: dict[Node, None] = {}
        while queue and queue[0][0] <= now:
            time, kind, _, node, data, source, action = heapq.heappop(queue)
            if node is None:
                if action is not None:
                    action()
                self._settle_all()
                continue
            if kind == Kind.DATAGRAM:
                if node.alive and not node.asleep and len(node.backlog) < SOCKET_DATAGRAMS:
                    node.backlog.append((data, source))
            elif node.wakes_at == time:
                node.wakes_at = None
            concerned[node] = None
        for node in concerned:
            if node.alive:
                self._run(node)

    def _run(self, node: Node) -> None:
        """Drain the socket first, then let the timers judge. Spec: KA-7.7-4."""
        if node.stalled_until > self.now:
            self._schedule(node)
            return
        if node.backlog:
            waiting, node.backlog = node.backlog, []
            for data, source in waiting[:READ_BEFORE_TIMERS]:
                self._receive(node, data, source)
            self._wake(node)
            for data, source in waiting[READ_BEFORE_TIMERS:]:
                self._receive(node, data, source)
        else:
            self._wake(node)
        self._schedule(node)

    def _receive(self, node: Node, data: bytes, source: Address) -> bool:
        now = node.clock.read(self.now)
        consumed = node.endpoint.receive_datagram(data, source, now)
        self._flush(node, now, Kind.DATAGRAM, "", data, source, consumed)
        return consumed

    def _wake(self, node: Node) -> None:
        due = node.endpoint.next_timer()
        if due is None:
            return
        now = node.clock.read(self.now)
        if due <= now:
            node.endpoint.handle_timer(now)
            self._flush(node, now, Kind.TIMER, "", b"", None, False)

    def _settle_all(self) -> None:
        """Take out what verbs called from outside have caused."""
        for node in self.nodes.values():
            if node.alive:
                self._settle(node, self.local(node), Kind.VERB, "")

    def _settle(self, node: Node, now: int, kind: Kind, verb: str) -> None:
        self._flush(node, now, kind, verb, b"", None, False)
        self._schedule(node)

    def _flush(
        self,
        node: Node,
        now: int,
        kind: Kind,
        verb: str,
        data: bytes,
        source: Address,
        consumed: bool,
    ) -> None:
        endpoint = node.endpoint
        sent = list(endpoint.datagrams_to_send())
        events: list[Event] = []
        while event := endpoint.next_event():
            events.append(event)
        if sent:
            self._send(node, sent)
        if node.keep:
            node.events += events
        if self.watchers and (verb or sent or events or kind is not Kind.VERB):
            step = Step(node, now, kind, verb, data, source, consumed, sent, events)
            for watcher in self.watchers:
                watcher(step)

    def _send(self, node: Node, sent: list[tuple[bytes, Address]]) -> None:
        for data, target_address in sent:
            if node.keep:
                node.sent.append((self.now, data, target_address))
            target = self._homes.get(target_address)
            if target is None:
                continue
            for arrival in self.link(node.name, target.name).arrivals(self.now):
                self._push(arrival, Kind.DATAGRAM, target, data, node.address)

    def _schedule(self, node: Node) -> None:
        """Queue a node's next wake-up, unless an earlier one is queued, which then looks again."""
        due = node.endpoint.next_timer()
        if node.backlog:
            at = node.stalled_until
        elif due is None:
            return
        else:
            at = max(node.clock.reaches(due), node.stalled_until)
        if node.wakes_at is None or at < node.wakes_at:
            node.wakes_at = at
            self._push(at, Kind.TIMER, node)

    def _awaken(self, node: Node) -> None:
        """End a sleep that has not been ended, or prolonged, otherwise."""
        if node.stalled_until <= self.now:
            node.asleep = False
