"""A world of endpoints, links and one clock. The same seed gives the same run.

It takes the driver's place with the same verbs; a node can stall, move and be spoken to by
strangers.
"""

import heapq
from collections.abc import Callable
from random import Random

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook, Endpoint
from kaudp.core.paths import Address
from kaudp.events import Event
from kaudp.sim.link import Conditions, Link
from kaudp.wire.keys import KeySource
from kaudp.wire.suites import Carried


class Node:
    """One endpoint in a world, with everything it said."""

    def __init__(self, name: str, address: Address, endpoint: Endpoint) -> None:
        self.name = name
        self.address = address
        self.endpoint = endpoint
        self.events: list[Event] = []
        self.sent: list[tuple[int, bytes, Address]] = []
        self.stalled_until = 0
        self.backlog: list[tuple[bytes, Address]] = []

    def kinds(self) -> list[str]:
        """Name the kinds of the events so far, in order."""
        return [type(event).__name__ for event in self.events]


class World:
    """Nodes, a link for each direction of each pair, and time in ns from `start`."""

    def __init__(
        self, seed: object, *, start: int = 0, conditions: Conditions | None = None
    ) -> None:
        self.seed = seed
        self.started = self.now = start
        self.nodes: dict[str, Node] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self._conditions = conditions or Conditions()
        self._homes: dict[Address, Node] = {}
        self._in_flight: list[tuple[int, int, bytes, Address, Node]] = []
        self._actions: list[tuple[int, int, Callable[[], object]]] = []
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
        node = Node(name, address or (name, 1), endpoint)
        self.nodes[name] = node
        self._homes[node.address] = node
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
        self._serial += 1
        heapq.heappush(self._actions, (time, self._serial, action))

    def stall(self, node: Node, duration: int) -> None:
        """Let a node's loop stand still: what arrives waits in its socket."""
        node.stalled_until = self.now + duration

    def move(self, node: Node, address: Address) -> None:
        """Give a node another address; the old one leads nowhere."""
        del self._homes[node.address]
        node.address = address
        self._homes[address] = node

    def inject(self, node: Node, data: bytes, source: Address) -> bool:
        """Hand a node a datagram that no node sent."""
        consumed = node.endpoint.receive_datagram(data, source, self.now)
        self._flush(node)
        return consumed

    def run_for(self, duration: int) -> None:
        """Let time pass."""
        self.run_until(self.now + duration)

    def run_until(self, end: int) -> None:
        """Let time pass up to `end`."""
        for node in self.nodes.values():
            self._flush(node)
        while (time := self._next_time()) is not None and time <= end:
            self.now = max(self.now, time)
            self._step()
        self.now = max(self.now, end)

    def _next_time(self) -> int | None:
        times = [queue[0][0] for queue in (self._in_flight, self._actions) if queue]
        times += [at for node in self.nodes.values() if (at := _wakes_at(node)) is not None]
        return min(times, default=None)

    def _step(self) -> None:
        while self._actions and self._actions[0][0] <= self.now:
            heapq.heappop(self._actions)[2]()
        while self._in_flight and self._in_flight[0][0] <= self.now:
            _, _, data, source, node = heapq.heappop(self._in_flight)
            node.backlog.append((data, source))
        for node in self.nodes.values():
            self._run(node)

    def _run(self, node: Node) -> None:
        """Drain the socket first, then let the timers judge. Spec: KA-7.7-4."""
        if node.stalled_until > self.now:
            return
        for data, source in node.backlog:
            node.endpoint.receive_datagram(data, source, self.now)
        node.backlog.clear()
        wakes = node.endpoint.next_timer()
        if wakes is not None and wakes <= self.now:
            node.endpoint.handle_timer(self.now)
        self._flush(node)

    def _flush(self, node: Node) -> None:
        for data, target_address in node.endpoint.datagrams_to_send():
            node.sent.append((self.now, data, target_address))
            target = self._homes.get(target_address)
            if target is None:
                continue
            for arrival in self.link(node.name, target.name).arrivals(self.now):
                self._serial += 1
                entry = (arrival, self._serial, data, node.address, target)
                heapq.heappush(self._in_flight, entry)
        while event := node.endpoint.next_event():
            node.events.append(event)


def _wakes_at(node: Node) -> int | None:
    """Tell when a node has something to do: a timer, or the end of a stall."""
    if node.backlog:
        return node.stalled_until
    at = node.endpoint.next_timer()
    return None if at is None else max(at, node.stalled_until)
