"""What a world is to be, drawn from its seed: nodes, settings, links, and which faults it knows.

Swarm testing: a world that knew every fault at full strength would see the same few things again
and again, so each seed also draws which faults are enabled, and how strong they are.
"""

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from kaudp.config import Config, DetectorKind
from kaudp.sim.link import Conditions
from kaudp.sim.world import TRUE_CLOCK, Clock
from kaudp.units import MILLISECOND, SECOND

HOUR: Final = 3600 * SECOND
DAY: Final = 24 * HOUR
# What one world may cost, in probes of all its sessions, and how long it lasts at most.
PROBES_PER_WORLD: Final = 8_000
LONGEST_WORLD: Final = 30 * DAY
SHORTEST_WORLD: Final = 300 * SECOND

# How often each family of settings is drawn. The long intervals carry most of the days.
FAMILIES: Final = {"lan": 2, "wan": 4, "mobile": 3, "slow": 3, "rare": 4, "drawn": 5}
_FORGETFUL: Final[dict[str, Any]] = {
    "connect_timeout_ms": None,
    "down_retention_ms": 5_000,
    "max_peer_admin_down_ms": 60_000,
    "max_sessions": 10_000,
    "max_embryos": 1_024,
}
_SLOW_INTERVALS_MS: Final = {
    "slow": (30_000, 45_000, 60_000),
    "rare": (120_000, 300_000, 500_000),
}


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One process: its settings, whom it serves, and whom it calls by which key.

    `keys` tells which keys it holds, `identity` its instance id if that outlives a restart, and
    `utc_offset` what leads from its clock to its time of day.
    """

    name: str
    host: str
    port: int
    config: Config
    clock: Clock
    accepts: bool
    calls: tuple[tuple[str, int], ...]
    keys: frozenset[int] = frozenset()
    identity: bytes | None = None
    utc_offset: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole world before it begins. Times in ns; `faults` tells the mean time between two."""

    seed: int
    family: str
    duration: int
    start: int
    interval: int
    nodes: tuple[NodePlan, ...]
    keys: tuple[bytes, ...]
    conditions: Conditions
    faults: dict[str, int]
    strength: float


def draw_plan(seed: int, fault_names: list[str], family: str | None = None) -> Plan:
    """Draw the plan of a seed's world, of a family that may be given."""
    rng = Random(f"kaudp world {seed}")
    drawn = rng.choices(list(FAMILIES), weights=list(FAMILIES.values()))[0]
    family = family or drawn
    keys = tuple(rng.randbytes(32) for _ in range(rng.randrange(2, 8)))
    nodes = _nodes(rng, family, len(keys))
    interval = rng.choice([_interval(node, nodes) for node in nodes if node.calls])
    duration = _duration(nodes)
    return Plan(
        seed=seed,
        family=family,
        duration=duration,
        start=rng.choice([0, 1, rng.randrange(2**40), rng.randrange(2**62)]),
        interval=interval,
        nodes=nodes,
        keys=keys,
        conditions=_conditions(rng, interval),
        faults=_faults(rng, fault_names, interval, duration),
        strength=log_uniform(rng, 0.05, 1.0),
    )


def _nodes(rng: Random, family: str, keys: int) -> tuple[NodePlan, ...]:
    """Draw 2 to 10 endpoints: servers, peers that also call, clients, and friends."""
    servers = rng.choice([1, 1, 1, 2])
    callers = rng.randrange(1, 8 - servers + 1)
    skewed = rng.random() < 0.5
    nodes = [_node(rng, f"server{i}", family, skewed, (), accepts=True) for i in range(servers)]
    for number in range(callers):
        targets = rng.sample(nodes, rng.choice([1, 1, 1, min(2, len(nodes))]))
        calls = tuple((target.name, rng.randrange(keys)) for target in targets if target.accepts)
        peer = rng.random() < 0.2
        calls = calls or (("server0", rng.randrange(keys)),)
        name = f"{'peer' if peer else 'client'}{number}"
        nodes.append(_node(rng, name, family, skewed, calls, accepts=peer))
    first = nodes[0]
    peers = [node for node in nodes if node.name.startswith("peer")]
    if peers and rng.random() < 0.7:
        # The two call each other, at times under one key.
        known = next((key for target, key in peers[0].calls if target == first.name), 0)
        key = known if rng.random() < 0.5 else rng.randrange(keys)
        nodes[0] = replace(first, calls=((peers[0].name, key),))
    if rng.random() < 0.25:
        nodes += _friends(rng, family, skewed, rng.randrange(keys))
    return tuple(
        replace(
            node,
            host=f"192.0.2.{number + 1}",
            port=1000 * (number + 1),
            keys=_keys_of(rng, node, nodes, keys),
            identity=node.identity or (rng.randbytes(8) if rng.random() < 0.5 else None),
            utc_offset=rng.randrange(2**60),
        )
        for number, node in enumerate(nodes)
    )


def _friends(rng: Random, family: str, skewed: bool, key: int) -> list[NodePlan]:
    """Draw two who call each other and accept nobody else, as behind NATs. Spec: section 4.6.

    A session that one of them has lost keeps the other's from coming back: so nothing is kept for
    long, and both are known again after a restart (KA-4.7-1).
    """
    return [
        replace(
            node,
            config=replace(node.config, **_FORGETFUL),
            identity=rng.randbytes(8),
        )
        for name, other in (("friend0", "friend1"), ("friend1", "friend0"))
        for node in [_node(rng, name, family, skewed, ((other, key),), accepts=False)]
    ]


def _keys_of(rng: Random, node: NodePlan, nodes: list[NodePlan], keys: int) -> frozenset[int]:
    """Draw which keys a node holds: at least those by which it calls and is called."""
    called = [key for other in nodes for target, key in other.calls if target == node.name]
    needed = {*called, *(key for _, key in node.calls)}
    drawn = {key for key in range(keys) if rng.random() < 0.7}
    return frozenset(needed | drawn or {0})


def _node(
    rng: Random,
    name: str,
    family: str,
    skewed: bool,
    calls: tuple[tuple[str, int], ...],
    *,
    accepts: bool,
) -> NodePlan:
    server = accepts and not calls
    config = _config(rng, family, server=server)
    ppm, offset = rng.randrange(-200, 201), rng.choice([0, rng.randrange(2**50)])
    return NodePlan(
        name, "", 0, config, Clock(ppm, offset) if skewed else TRUE_CLOCK, accepts, calls
    )


def _config(rng: Random, family: str, *, server: bool) -> Config:
    """Draw settings: a preset as it is, or changed; a server takes what its clients wish."""
    if family == "lan":
        config = Config.lan() if not server or rng.random() < 0.5 else Config.server()
    elif family == "drawn" and not server:
        config = Config.wan(interval_ms=rng.choice([2_000, 5_000, 10_000, 20_000]))
    elif server:
        config = Config.server()
    else:
        config = Config.mobile() if family == "mobile" else Config.wan()
    config = replace(config, **_of_keys(rng))
    if family in _SLOW_INTERVALS_MS:
        return replace(config, **_slow(rng, _SLOW_INTERVALS_MS[family]))
    if family == "drawn" or rng.random() < 0.3:
        return _changed(rng, config, server=server)
    return config


def _slow(rng: Random, intervals_ms: tuple[int, ...]) -> dict[str, Any]:
    """Draw settings where nothing hurries: no NAT needs to be kept open."""
    return {
        "interval_ms": rng.choice(intervals_ms),
        "max_peer_interval_ms": max(intervals_ms),
        "nat_keepalive_ms": None,
        "min_suspicion_ms": rng.choice([0, 1_000, 5_000]),
        "down_retention_ms": rng.choice([60_000, 900_000, 7_200_000]),
    }


def _of_keys(rng: Random) -> dict[str, Any]:
    """Draw what goes with any interval: phases of keys, cookies, clocks, an operator's time."""
    changes: dict[str, Any] = {
        "key_update_frames": rng.choice([2, 10, 100]),
        "key_update_interval_ms": rng.choice([30_000, 600_000, 3_600_000]),
        "cookie_threshold": rng.choice([0, 0, 1, 4]),
        "share_clock": True,
        "max_peer_admin_down_ms": rng.choice([0, 5_000, 60_000, 1_800_000]),
        "suspicion_receive_burst": rng.choice([3, 8]),
        "up_confirmations": rng.choice([8, 30]),
    }
    return {name: value for name, value in changes.items() if rng.random() < 0.4}


def _changed(rng: Random, config: Config, *, server: bool) -> Config:
    """Change some settings, each to a value that stands for its range."""
    changes: dict[str, Any] = {
        "multiplier": rng.choice([1, 2, 3, 3, 4, 5, 8]),
        "min_suspicion_ms": rng.choice([0, 0, 300, 1_000, 3_000, 20_000]),
        "suspicion_interval_ms": rng.choice([10, 40, 100, 250, 1_000, 5_000]),
        "suspicion_receive_interval_ms": rng.choice([0, 5, 20, 500, 30_000]),
        "suspicion_receive_burst": rng.choice([3, 4, 8, 64, 1_000]),
        "up_confirmations": rng.choice([1, 2, 3, 3, 8]),
        "down_retention_ms": rng.choice([0, 5_000, 60_000, 300_000, 7_200_000]),
        "connect_timeout_ms": rng.choice([None, 2_000, 10_000, 60_000]),
        "nat_keepalive_ms": rng.choice([None, 15_000, 25_000]),
        "application_traffic": rng.random() < 0.5,
        "max_peer_pause_ms": rng.choice([0, 5_000, 60_000]),
        "max_sessions": rng.choice([1, 4, 16, 10_000]),
        "max_embryos": rng.choice([1, 2, 8, 1_024]),
        "max_events": rng.choice([16, 64, 4_096]),
    }
    if not server:
        changes["interval_ms"] = config.interval_ms * rng.choice([1, 2, 3]) // rng.choice([1, 2])
        if rng.random() < 0.3:
            changes["detector"] = DetectorKind.DEADLINE
            changes["deadline_ms"] = max(changes["interval_ms"], rng.choice([1_000, 30_000]))
    kept = [name for name in changes if rng.random() < 0.4 or name in ("detector", "deadline_ms")]
    chosen = {name: changes[name] for name in kept}
    if "detector" in chosen:
        chosen["interval_ms"] = changes["interval_ms"]
    return replace(config, **chosen)


def _interval(node: NodePlan, nodes: tuple[NodePlan, ...]) -> int:
    """Tell the longest probe interval of what a node calls. Spec: KA-8.1-1."""
    least = {other.name: other.config.min_receive_interval_ms for other in nodes}
    return max(
        max(node.config.interval_ms, least[target]) * MILLISECOND for target, _ in node.calls
    )


def _duration(nodes: tuple[NodePlan, ...]) -> int:
    rate = sum(len(node.calls) / _interval(node, nodes) for node in nodes if node.calls)
    return min(max(int(PROBES_PER_WORLD / rate), SHORTEST_WORLD), LONGEST_WORLD)


def _conditions(rng: Random, interval: int) -> Conditions:
    """Draw what all links are like while nothing goes wrong."""
    delay = int(log_uniform(rng, 0.2, 300) * MILLISECOND)
    delay = min(delay, interval // 5)
    return Conditions(delay=delay, spread=rng.choice([0, 0, delay // 10, delay]))


def _faults(rng: Random, names: list[str], interval: int, duration: int) -> dict[str, int]:
    """Draw which faults there are, and the mean time from one of a kind to the next."""
    share = rng.choice([0.1, 0.3, 0.5, 0.9])
    enabled = [name for name in names if rng.random() < share] or [rng.choice(names)]
    rarest = max(duration // 4, 100 * interval)
    return {name: int(log_uniform(rng, 60 * interval, rarest)) for name in enabled}


def log_uniform(rng: Random, low: float, high: float) -> float:
    """Draw from low to high, each order of magnitude as likely as the next."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))
