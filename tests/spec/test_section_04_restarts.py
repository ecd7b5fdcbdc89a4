"""Section 4.7: an initiator that restarts, and what an instance id is worth."""

from typing import Any

import pytest

from kaudp.config import Config
from kaudp.core.endpoint import Endpoint
from kaudp.errors import DropReason
from kaudp.events import PeerAddressChanged, PeerRestarted, State
from kaudp.sim import Node, World
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import PresharedKey
from tests.worlds import KEY, MS, Pair, S, of_type

INSTANCE = b"client 1"
OTHER = PresharedKey(bytes(range(32, 64)))


def restarted(pair: Pair, name: str, address: Any, instance: bytes | None = INSTANCE) -> Node:
    """Add a client of a given instance id, as its next process is; it knows nothing of before."""
    node = pair.world.add_node(
        name,
        Config.wan(connect_timeout_ms=None),
        {k.key_id: k for k in (KEY, OTHER)},
        address=address,
    )
    if instance is not None:
        node.endpoint._context.identity.instance_id = instance
    return node


def killed(pair: Pair, name: str = "alice") -> None:
    """Stop a client without a word."""
    node = pair.world.nodes.pop(name)
    del pair.world._homes[node.address]


def served(bob: Config | None = None, **how: Any) -> Pair:
    """Give a pair whose client has an instance id that lasts."""
    pair = Pair(bob=bob, **how)
    pair.session.close(pair.now)
    pair.alice.endpoint._context.identity.instance_id = INSTANCE
    pair.alice.events.clear()
    pair.session = pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    return pair.up()


@pytest.mark.parametrize("address", [("192.0.2.1", 1000), ("192.0.2.9", 9)])
@pytest.mark.parametrize("limits", [{}, {"max_sessions_per_key": 1}, {"max_sessions": 1}])
@pytest.mark.parametrize("silence", [0, 8, 40])
def test_a_client_that_restarts_goes_on_with_its_session(
    address: tuple[str, int], limits: dict[str, int], silence: int
) -> None:
    """KA-4.7-1 KA-7.4-6: the same object at the server, whatever its state, wherever it is.

    No bound on sessions stands in the way, since there is none more.
    """
    pair = served(Config.server(**limits))
    far = pair.far
    pair.bob.events.clear()
    killed(pair)
    pair.run(silence * S)
    again = restarted(pair, "again", address)
    pair.bob.events.clear()
    session = again.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    before = far.state
    pair.run(S)
    assert session.state is State.UP
    assert pair.far is far
    assert far.state is State.UP
    assert far.address == address
    assert far.stats.handshakes == 2
    moved = [PeerAddressChanged] if address[0] == "192.0.2.9" else []
    came_up = [] if before is State.UP else ["SessionUp"]
    assert sorted(pair.bob.kinds()) == sorted(
        ["PeerRestarted", *came_up, *[kind.__name__ for kind in moved]]
    )
    (event,) = [e for e in pair.bob.events if isinstance(e, PeerRestarted)]
    assert event.session is far
    assert again.kinds() == ["SessionUp"]
    assert pair.bob.endpoint._context.routes.per_key == {KEY.key_id: 1}


def test_the_application_is_not_asked_about_a_session_that_it_has() -> None:
    """KA-4.7-1: the hook is asked about the first of them."""
    asked = []
    pair = served(accept=lambda _, address: asked.append(address) or len(asked) < 3)
    asked_before = len(asked)
    killed(pair)
    again = restarted(pair, "again", ("192.0.2.9", 9))
    again.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(S)
    assert again.kinds() == ["SessionUp"]
    assert len(asked) == asked_before


def test_another_instance_is_another_session() -> None:
    """KA-4.7-1: under the same key and from the same address, the old one's process being gone."""
    pair = served()
    far = pair.far
    killed(pair)
    other = restarted(pair, "other", ("192.0.2.1", 1000), b"client 2")
    other.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(S)
    assert len(pair.bob.endpoint.sessions) == 2
    assert pair.bob.endpoint.sessions[0] is far
    assert far.stats.handshakes == 1
    assert "PeerRestarted" not in pair.bob.kinds()


def test_another_instance_meets_the_bound() -> None:
    """KA-11-2 KA-4.7-1: only who restarts has a session already."""
    pair = served(Config.server(max_sessions_per_key=1))
    other = restarted(pair, "other", ("192.0.2.9", 9), b"client 2")
    session = other.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(S)
    assert session.state is State.CONNECTING
    assert pair.bob.endpoint.counters[DropReason.SESSION_LIMIT] >= 1


def test_the_same_instance_under_another_key_is_another_session() -> None:
    """KA-4.7-1: an instance id is no secret, a key is."""
    pair = Pair()
    keys = {k.key_id: k for k in (KEY, OTHER)}
    server = pair.world.add_node("server", Config.server(), keys, accept=True)
    sessions = []
    for number, key in enumerate((KEY, OTHER)):
        node = restarted(pair, f"n{number}", (f"192.0.2.{10 + number}", 9))
        sessions.append(node.endpoint.connect(server.address, pair.now, key_id=key.key_id))
        pair.run(S)
    assert len(server.endpoint.sessions) == 2
    assert [s.stats.handshakes for s in server.endpoint.sessions] == [1, 1]
    assert server.kinds() == ["SessionUp", "SessionUp"]


def test_a_second_connect_of_one_process_is_another_session() -> None:
    """KA-4.7-1: the same instance with the same epoch has not restarted."""
    pair = served()
    second = pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(S)
    assert second.state is pair.session.state is State.UP
    assert len(pair.bob.endpoint.sessions) == 2
    assert "PeerRestarted" not in pair.bob.kinds()


def test_of_several_old_sessions_the_longest_unheard_goes_on() -> None:
    """KA-4.7-1: one after the other, until none of the old process is left; then a new one."""
    pair = served()
    more = []
    for _ in range(2):
        more.append(pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id))
        pair.run(S)
    assert all(session.state is State.UP for session in more)
    killed(pair)
    old = list(pair.bob.endpoint.sessions)
    expected = sorted(old, key=lambda session: session.stats.rx_at)
    assert len({session.stats.rx_at for session in old}) == 3
    again = restarted(pair, "again", ("192.0.2.9", 9))
    for number in range(4):
        again.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
        pair.run(S)
        continued = [session for session in old if session.address == again.address]
        assert set(continued) == set(expected[: number + 1])
        assert len(pair.bob.endpoint.sessions) == max(3, number + 1)
    assert pair.bob.kinds().count("PeerRestarted") == 3


def test_a_replayed_init_restarts_nobody() -> None:
    """KA-4.3-4 KA-4.7-1: the INIT of a process that is gone, however often, touches no session."""
    pair = served()
    old_init = of_type(pair.alice, FrameType.INIT)[-1][1]
    killed(pair)
    again = restarted(pair, "again", ("192.0.2.9", 9))
    session = again.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(S)
    pair.bob.events.clear()
    far, handshakes = pair.far, pair.far.stats.handshakes
    for number in range(20):
        pair.world.inject(pair.bob, old_init, ("198.51.100.9", 1 + number))
        pair.run(5 * S)
    assert pair.far is far
    assert far.stats.handshakes == handshakes
    assert pair.bob.events == []
    assert session.state is State.UP


def test_both_sides_of_a_restart_have_one_session_also_under_loss() -> None:
    """KA-4.7-1: first PROBEs are lost, so that several handshakes are needed."""
    for seed in range(10):
        pair = served(Config.server(down_retention_ms=600_000), seed=seed)
        killed(pair)
        again = restarted(pair, "again", ("192.0.2.9", 9))
        for ways in (("again", "bob"), ("bob", "again")):
            link = pair.world.link(*ways)
            link.conditions = type(link.conditions)(loss=0.5)
        session = again.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
        pair.run(60 * S)
        for ways in (("again", "bob"), ("bob", "again")):
            link = pair.world.link(*ways)
            link.conditions = type(link.conditions)()
        pair.run(60 * S)
        assert session.state is pair.far.state is State.UP, seed
        assert pair.bob.kinds().count("PeerRestarted") == 1


def test_a_session_that_the_server_closed_is_not_continued() -> None:
    """KA-4.7-1: though it waits for its CLOSE to be confirmed."""
    pair = served()
    old = pair.far
    killed(pair)
    old.close(pair.now)
    again = restarted(pair, "again", ("192.0.2.9", 9))
    session = again.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(100 * MS)
    assert session.state is State.UP
    assert old.state is State.CLOSED
    assert "PeerRestarted" not in pair.bob.kinds()


def test_a_server_that_restarts_is_reported_too() -> None:
    """KA-7.4-6: to the client, whose session goes on."""
    pair = served()
    killed(pair, "bob")
    again = pair.world.add_node("bob2", Config.server(), KEY, accept=True, address=pair.bob.address)
    pair.alice.events.clear()
    pair.run(30 * S)
    assert pair.session.state is State.UP
    assert "PeerRestarted" in pair.alice.kinds()
    assert again.kinds() == ["SessionUp"]


def test_an_instance_id_is_drawn_at_each_start() -> None:
    """KA-4.2-9: where the user gives none; the epoch is apart from it."""
    identities = []
    for seed in range(20):
        node = World(seed).add_node("one", Config(), KEY)
        identity = node.endpoint._context.identity
        identities += [identity.instance_id, identity.epoch]
    assert all(len(value) == 8 for value in identities)
    assert len(set(identities)) == 40


def test_an_instance_id_that_is_given_is_told() -> None:
    """KA-4.2-9: also zero is one."""
    for given in (INSTANCE, bytes(8)):
        pair = Pair()
        pair.alice.endpoint = Endpoint(
            Config.wan(),
            keys=KEY,
            rng=pair.alice.endpoint._context.rng,
            entropy=pair.alice.endpoint._context.entropy,
            instance_id=given,
        )
        pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
        pair.run(2 * S)
        assert pair.far.peer_instance == given
