"""Endpoints that live more than once, for tests of restarts."""

from random import Random

from kaudp.core.endpoint import Endpoint
from kaudp.core.session import Session
from kaudp.sim import Node
from tests.worlds import KEY, Pair


def restart(pair: Pair, node: Node, *, accept: bool = True) -> Endpoint:
    """Let a node's process end without a word and start anew: same instance, another epoch."""
    before = node.endpoint._context
    life = f"{pair.world.seed}/{node.name}/{before.identity.epoch.hex()}"
    node.backlog.clear()
    node.endpoint = Endpoint(
        before.config,
        keys=KEY,
        rng=Random(f"{life}/jitter"),
        entropy=Random(f"{life}/entropy").randbytes,
        accept=accept,
        instance_id=before.identity.instance_id,
    )
    return node.endpoint


def reconnect(pair: Pair) -> Session:
    """Restart alice, who connects again."""
    pair.session = restart(pair, pair.alice, accept=False).connect(
        pair.bob.address, pair.now, key_id=KEY.key_id
    )
    return pair.session
