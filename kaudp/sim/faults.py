"""What may go wrong in a world, and what an application may do: one entry each.

A fault takes the stage and does its work at once; what it must undo later it hands to
`Stage.later`. A verb takes the stage, a session that is established, its node and that one's time.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from kaudp.config import Config
from kaudp.core.agreement import own_parameters
from kaudp.core.handshake import NO_SESSION
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.errors import ConfigError
from kaudp.sim.stage import LONGEST_PAUSE, Stage
from kaudp.sim.world import Node
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.codec import NO_OPTIONS, InitPayload
from kaudp.wire.cookies import NO_COOKIE
from kaudp.wire.grammar import MAGIC, VERSION
from kaudp.wire.suites import initiate

Verb = Callable[[Stage, Session, Node, int], None]
Fault = Callable[[Stage], None]

LONGEST_DELAY: Final = 10 * SECOND
STRANGE_PORT: Final = 6666


# Paths.


def _cut(stage: Stage, *links: tuple[str, str]) -> None:
    length = stage.length()
    for source, target in links:
        stage.outage(length, f"{source}>{target}")
        stage.world.cut(source, target)
    stage.later(length, lambda: _mend(stage, *links))


def _mend(stage: Stage, *links: tuple[str, str]) -> None:
    for source, target in links:
        stage.world.cut(source, target, cut=False)


def cut_one_way(stage: Stage) -> None:
    """Let nothing through in one direction."""
    _cut(stage, stage.pair())


def cut_both_ways(stage: Stage) -> None:
    """Let nothing through between two nodes."""
    one, other = stage.pair()
    _cut(stage, (one, other), (other, one))


def isolate(stage: Stage) -> None:
    """Take a node's network away."""
    name = stage.node().name
    others = [other for other in stage.world.nodes if other != name]
    _cut(stage, *((name, other) for other in others), *((other, name) for other in others))


def lose(stage: Stage) -> None:
    """Lose datagrams of one direction, each by chance."""
    stage.worsen(stage.world.link(*stage.pair()), 10 * stage.length(), loss=stage.plan.strength)


def burst(stage: Stage) -> None:
    """Lose datagrams of one direction in bursts."""
    begins, ends = stage.plan.strength / 10, stage.rng.choice([0.05, 0.2, 0.5])
    link = stage.world.link(*stage.pair())
    stage.worsen(link, 10 * stage.length(), burst_begins=begins, burst_ends=ends)


def delay(stage: Stage) -> None:
    """Slow a direction down."""
    most = min(LONGEST_DELAY, 2 * stage.interval)
    link = stage.world.link(*stage.pair())
    stage.worsen(link, 5 * stage.length(), delay=stage.rng.randrange(MILLISECOND, most))


def reorder(stage: Stage) -> None:
    """Hold each datagram of a direction back for a while of its own."""
    most = min(LONGEST_DELAY, 2 * stage.interval)
    spread = int(most * stage.plan.strength)
    stage.worsen(stage.world.link(*stage.pair()), 5 * stage.length(), spread=spread)


def duplicate(stage: Stage) -> None:
    """Deliver datagrams of one direction twice."""
    link = stage.world.link(*stage.pair())
    stage.worsen(link, 10 * stage.length(), duplicate=stage.plan.strength)


# Nodes.


def rebind(stage: Stage) -> None:
    """Let a node's NAT give it another port."""
    node = stage.node()
    stage.move(node, stage.fresh_address(node, same_host=True))


def move(stage: Stage) -> None:
    """Give a node another address altogether."""
    node = stage.node()
    stage.move(node, stage.fresh_address(node))


def rebind_unheard(stage: Stage) -> None:
    """Let a node's NAT give it another port, at which nothing reaches it for a while."""
    name, other = stage.pair()
    node = stage.world.nodes[name]
    if node.alive:
        _cut(stage, (other, name))
        stage.move(node, stage.fresh_address(node, same_host=True))


def stall(stage: Stage) -> None:
    """Let a node's loop stand still; its socket goes on."""
    node, length = stage.node(), stage.length()
    stage.outage(length, node.name)
    stage.world.stall(node, length)
    stage.oracle.excuse(node, stage.world.now + length)


def suspend(stage: Stage) -> None:
    """Let a node's machine sleep, for long."""
    node, length = stage.node(), 10 * stage.length()
    stage.outage(length, node.name)
    stage.world.suspend(node, length)
    stage.oracle.excuse(node, stage.world.now + length)


def crash(stage: Stage) -> None:
    """Let a process die without a word, and begin anew after a while."""
    if sum(node.alive for node in stage.world.nodes.values()) > 1:
        stage.crash(stage.node(), stage.length())


def shut_down(stage: Stage) -> None:
    """Let a process say goodbye to all, and begin anew after a while."""
    if sum(node.alive for node in stage.world.nodes.values()) <= 1:
        return
    node = stage.node()
    if node.stalled_until > stage.world.now:
        return
    stage.world.act(node, "close_all", node.endpoint.close)
    stage.leave(node, stage.rng.randrange(5 * SECOND))


def find_again(stage: Stage) -> None:
    """Let applications look their peers' names up again."""
    for relation in stage.relations:
        if stage.world.nodes[relation.caller].stalled_until <= stage.world.now:
            stage.redirect(relation)


# Strangers.


def garbage(stage: Stage) -> None:
    """Send random bytes, or such that begin like a frame."""
    data = stage.rng.randbytes(stage.rng.randrange(1, 600))
    if stage.rng.random() < 0.7:
        kind = stage.rng.choice([1, 2, 3, 8, 9, 10])
        data = bytes([MAGIC, kind, VERSION, stage.rng.choice([0, 0, 1])]) + data[4:]
    _forge(stage, data, stage.node())


def flip(stage: Stage) -> None:
    """Send a recorded datagram with one bit changed."""
    for data, name in _recorded(stage, 1):
        at = stage.rng.randrange(8 * len(data))
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        _forge(stage, bytes(changed), stage.world.nodes[name])


def truncate(stage: Stage) -> None:
    """Send a recorded datagram with its end cut off, or with more at its end."""
    for data, name in _recorded(stage, 1):
        longer = data + stage.rng.randbytes(stage.rng.randrange(1, 20))
        changed = data[: stage.rng.randrange(len(data))] if stage.rng.random() < 0.7 else longer
        _forge(stage, changed, stage.world.nodes[name])


def replay(stage: Stage) -> None:
    """Send recorded datagrams, to whom they were sent or to another, from anywhere."""
    for data, name in _recorded(stage, stage.rng.choice([1, 5, 30])):
        node = stage.world.nodes[name] if stage.rng.random() < 0.8 else stage.node()
        stage.world.deliver(node, data, _anywhere(stage), stage.rng.randrange(SECOND))


def hoard(stage: Stage) -> None:
    """Cut a direction, keep what is sent, and let it come later in another order."""
    link, length = stage.pair(), stage.length()
    held: list[tuple[bytes, Node]] = []
    tap = (link, lambda data, node: held.append((data, node)))
    stage.taps.append(tap)
    _cut(stage, link)
    stage.outage(length, f"{link[0]}>{link[1]}")

    def release() -> None:
        stage.taps.remove(tap)
        stage.rng.shuffle(held)
        source = stage.world.nodes[link[0]].address
        for data, node in held[: stage.rng.randrange(1 + len(held))]:
            stage.world.deliver(node, data, source, stage.rng.randrange(SECOND))

    stage.later(length, release)


def copy(stage: Stage) -> None:
    """Copy what passes on a path, faster than the original."""
    source = _anywhere(stage)
    tap = (stage.pair(), lambda data, node: stage.world.deliver(node, data, source))
    stage.taps.append(tap)
    stage.later(stage.length(), lambda: stage.taps.remove(tap))


def flood(stage: Stage) -> None:
    """Send INITs of somebody who holds a key that others hold too, from many addresses."""
    rng, node = stage.rng, stage.node()
    key = rng.choice(stage.keys_of(node.name))
    for _ in range(rng.choice([1, 5, 40])):
        told = InitPayload(
            rng.randbytes(8), rng.randbytes(8), NO_SESSION, own_parameters(Config()), NO_OPTIONS
        )
        init = initiate(key, rng.randbytes(8), told, rng.randbytes, NO_COOKIE).init
        source = (f"203.0.113.{rng.randrange(10, 250)}", rng.randrange(1024, 65536))
        stage.world.deliver(node, init, source, rng.randrange(SECOND))


def _recorded(stage: Stage, count: int) -> list[tuple[bytes, str]]:
    return [stage.rng.choice(stage.recorded) for _ in range(count)] if stage.recorded else []


def _forge(stage: Stage, data: bytes, node: Node) -> None:
    stage.oracle.forged.add(data)
    stage.world.deliver(node, data, _anywhere(stage))


def _anywhere(stage: Stage) -> Address:
    """Draw a source: a stranger's own address, or, forged, that of a node."""
    if stage.rng.random() < 0.5:
        return "203.0.113.9", STRANGE_PORT + stage.rng.randrange(3)
    return stage.node().address


# What applications do with a session. A new verb of the core is one entry in VERBS.


def pause(stage: Stage, session: Session, node: Node, now: int) -> None:
    """Ask for a pause."""
    _pause(stage, session, min(stage.length(), LONGEST_PAUSE), now)


def resume(stage: Stage, session: Session, node: Node, now: int) -> None:
    """End a pause, or what was none: silence is measured anew in either case."""
    _pause(stage, session, 0, now)


def _pause(stage: Stage, session: Session, length: int, now: int) -> None:
    for node in stage.world.nodes.values():
        stage.oracle.excuse(node, stage.world.now + length)
    session.pause(length, now)


def close(stage: Stage, session: Session, node: Node, now: int) -> None:
    """Close a session; its initiator's application connects again."""
    session.close(now, stage.rng.choice([0, 1, 2, 0x8001]))


def hint(stage: Stage, session: Session, node: Node, now: int) -> None:
    """Pass an ICMP error on."""
    session.note_unreachable(now)


def change_intervals(stage: Stage, session: Session, node: Node, now: int) -> None:
    """Probe, or allow to be probed, at another pace."""
    config, slowest = stage.plans[node.name].config, 2 * stage.interval // MILLISECOND
    wanted = min(slowest, int(config.interval_ms * stage.rng.choice([0.6, 1, 1.5, 2])))
    least = stage.rng.choice([None, config.min_receive_interval_ms, _slower(stage, session)])
    with suppress(ConfigError):  # no pair of a configuration goes with every other
        session.change_intervals(now, interval_ms=wanted, min_receive_interval_ms=least)
        stage.oracle.record(session, node).told_intervals(wanted, least)


def slow_down(stage: Stage, session: Session, node: Node, now: int) -> None:
    """Ask the initiator for fewer probes."""
    if session.initiator:
        return
    least = _slower(stage, session)
    with suppress(ConfigError):
        session.slow_down(least, now)
        stage.oracle.record(session, node).told_intervals(None, least)


def _slower(stage: Stage, session: Session) -> int:
    """Draw an interval in ms, as a rule longer than the one agreed on."""
    now_ms, slowest = session.stats.interval // MILLISECOND, 2 * stage.interval // MILLISECOND
    return min(slowest, int(now_ms * stage.rng.choice([0.5, 1.3, 2])))


def admin_down(stage: Stage, session: Session, node: Node, now: int) -> None:
    """Take a session down, as an operator does."""
    stage.oracle.record(session, node).administered(now, down=True)
    session.admin_down(now)


def admin_up(stage: Stage, session: Session, node: Node, now: int) -> None:
    """Take a session up again."""
    stage.take_up(session, node, now)


def change_key(stage: Stage, session: Session, node: Node, now: int) -> None:
    """Go over to another key, which the peer may not know."""
    others = [key for key in stage.keys_of(node.name) if key.key_id != session.key_id]
    if not session.initiator or not others or stage.refuses_strangers(node):
        return
    key_id = stage.rng.choice(others).key_id
    session.change_key(key_id, now)
    stage.oracle.record(session, node).new_key = key_id


VERBS: Final[dict[str, Verb]] = {
    verb.__name__: verb
    for verb in (
        pause,
        resume,
        close,
        hint,
        change_intervals,
        slow_down,
        admin_down,
        admin_up,
        change_key,
    )
}


def _as_fault(name: str, verb: Verb) -> Fault:
    def fault(stage: Stage) -> None:
        found = stage.session()
        if found is not None:
            session, node = found
            stage.world.act(node, name, lambda now: verb(stage, session, node, now))

    return fault


def traffic(stage: Stage) -> None:
    """Run the application's own traffic through a session for a while."""
    found = stage.session()
    if found is None:
        return
    session, node = found
    record = stage.oracle.record(session, node)
    other = stage.oracle.counterpart(record)
    if other is None or other.state.name == "CLOSED":
        return
    peer = stage.world.nodes[other.node]
    end = stage.world.now + stage.length()
    step = max(stage.interval // stage.rng.choice([1, 3, 10]), 10 * MILLISECOND)

    def run() -> None:
        _application_datagram(stage, session, node, other.session, peer)
        if stage.world.now < end:
            stage.later(step, run)

    run()


def _application_datagram(
    stage: Stage, session: Session, node: Node, far: Session, peer: Node
) -> None:
    world = stage.world
    if not node.alive or node.stalled_until > world.now or node.endpoint is None:
        return
    if session not in node.endpoint.sessions:
        return
    world.act(node, "sent", session.note_application_sent)

    def arrive() -> None:
        if peer.alive and peer.stalled_until <= world.now and far in peer.endpoint.sessions:
            world.act(peer, "received", far.note_application_received)
            stage.oracle.heard_application(far, peer, world.local(peer))

    for arrival in world.link(node.name, peer.name).arrivals(world.now):
        stage.later(arrival - world.now, arrive)


FAULTS: Final[dict[str, Fault]] = {
    fault.__name__: fault
    for fault in (
        cut_one_way,
        cut_both_ways,
        isolate,
        lose,
        burst,
        delay,
        reorder,
        duplicate,
        rebind,
        rebind_unheard,
        move,
        stall,
        suspend,
        crash,
        shut_down,
        find_again,
        garbage,
        flip,
        truncate,
        replay,
        hoard,
        copy,
        flood,
        traffic,
    )
} | {name: _as_fault(name, verb) for name, verb in VERBS.items()}
