"""Properties of handshakes over drawn worlds: loss, key changes, cookies, phases and restarts."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.core.endpoint import Endpoint
from kaudp.core.session import Session
from kaudp.errors import SessionStateError
from kaudp.events import State
from kaudp.sim import Conditions, Node
from kaudp.wire.keys import PresharedKey
from tests.worlds import KEY, MS, Pair, S

KEYS = [KEY, *(PresharedKey(bytes([number]) * 32) for number in (1, 2))]
TABLE = {key.key_id: key for key in KEYS}
INSTANCE = b"client 1"

SEEDS = st.integers(0, 2**32)
ACTIONS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 40_000)),
    st.tuples(st.just("run"), st.integers(1, 200)),
    st.tuples(st.just("cut"), st.sampled_from(["out", "home", "both", "none"])),
    st.tuples(st.just("loss"), st.sampled_from([0.0, 0.2, 0.5])),
    st.tuples(st.just("key"), st.integers(0, 2)),
    st.tuples(st.just("move"), st.integers(1001, 1003)),
    st.tuples(st.just("redirect")),
    st.tuples(st.just("handshake")),
    st.tuples(st.just("restart")),
)
PLOTS = st.lists(ACTIONS, max_size=10)


class Client:
    """A pair whose client has an instance id, keys to change to, and may restart."""

    def __init__(self, seed: int, bob: Config, accept: Any = True) -> None:
        self.config = Config.wan(connect_timeout_ms=None, key_update_interval_ms=30_000)
        self.pair = Pair(seed, alice=self.config, bob=bob, accept=accept)
        self.lives = 0
        for node in (self.pair.alice, self.pair.bob):
            node.endpoint._context.key = TABLE.get
        self.restart()

    @property
    def alice(self) -> Node:
        return self.pair.alice

    @property
    def session(self) -> Session:
        return self.pair.session

    def restart(self) -> None:
        """Begin a new process: the same instance id and key, another epoch, no memory."""
        pair, self.lives = self.pair, self.lives + 1
        key = pair.session.key_id
        entropy = pair.alice.endpoint._context.entropy
        pair.alice.endpoint = Endpoint(
            self.config,
            keys=TABLE,
            rng=pair.alice.endpoint._context.rng,
            entropy=entropy,
            instance_id=INSTANCE,
        )
        pair.alice.events.clear()
        pair.session = pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=key)

    def perform(self, action: tuple[Any, ...]) -> None:
        pair = self.pair
        match action:
            case ("run", milliseconds):
                pair.run(milliseconds * MS)
            case ("cut", which):
                pair.world.cut("alice", "bob", cut=which in ("out", "both"))
                pair.world.cut("bob", "alice", cut=which in ("home", "both"))
            case ("loss", loss):
                pair.condition(loss=loss)
            case ("key", number) if KEYS[number].key_id != pair.session.key_id:
                try:
                    pair.session.change_key(KEYS[number].key_id, pair.now)
                except SessionStateError:
                    assert pair.session.state is State.CONNECTING
            case ("move", port):
                pair.world.move(pair.alice, ("192.0.2.1", port))
            case ("redirect",):
                pair.session.redirect(pair.bob.address, pair.now)
            case ("handshake",) if pair.session.state is not State.CONNECTING:
                pair.session._begin_attempt(pair.now)
            case ("restart",):
                self.restart()

    def settle(self) -> None:
        """Mend the path and give everything time."""
        for source, target in (("alice", "bob"), ("bob", "alice")):
            link = self.pair.world.link(source, target)
            link.cut = False
            link.conditions = Conditions()
        self.pair.run(240 * S)


@settings(max_examples=150, deadline=None)
@given(SEEDS, PLOTS, st.sampled_from([0, 2, 256]), st.booleans())
def test_a_client_has_one_session_in_the_end(
    seed: int, plot: list[tuple[Any, ...]], threshold: int, bounded: bool
) -> None:
    """KA-4.3-5 KA-4.5-2 KA-4.7-1 KA-4.8-1 KA-4.8-3: whatever was lost, changed or restarted.

    The newest process is UP with the one session that the server has of it, under the same key and
    in the same phase; nothing is left under way, and the path is quiet.
    """
    server = Config.server(cookie_threshold=threshold, down_retention_ms=86_400_000)
    client = Client(seed, replace(server, max_sessions_per_key=3 if bounded else 10_000))
    for action in [("run", 1000), *plot]:
        client.perform(action)
    client.settle()
    pair, session = client.pair, client.session
    far = [
        one
        for one in pair.bob.endpoint.sessions
        if one._channel.local_id == session._channel.remote_id
    ]
    assert session.state is State.UP
    assert [one.state for one in far] == [State.UP]
    assert far[0].key_id == session.key_id
    assert far[0]._channel.remote_id == session._channel.local_id
    for node in (pair.alice, pair.bob):
        routes = node.endpoint._context.routes
        assert not routes.pending
        assert not routes.connecting
        assert routes.per_key == count_by_key(routes)
    suspicions = session.stats.suspicions, far[0].stats.suspicions
    pair.run(100 * S)
    assert (session.stats.suspicions, far[0].stats.suspicions) == suspicions
    assert session.stats.key_phase == far[0].stats.key_phase >= 1


def count_by_key(routes: Any) -> dict[bytes, int]:
    counted: dict[bytes, int] = {}
    for session in {*routes.sessions.values(), *routes.pending.values()}:
        counted[session.key_id] = counted.get(session.key_id, 0) + 1
    return counted
