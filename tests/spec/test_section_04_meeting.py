"""Section 4.6: endpoints that connect to each other more than once at the same time."""

from kaudp.events import State
from tests.worlds import KEY, Pair, S


def test_each_handshake_that_meets_another_makes_one_session() -> None:
    """KA-4.6-1, KA-4.6-2: of several with one address each is found by the one it meets."""
    pair = Pair(accept=False)
    ends = [(pair.alice, pair.bob), (pair.bob, pair.alice), (pair.bob, pair.alice)]
    for near, far in ends:
        near.endpoint.connect(far.address, pair.now, key_id=KEY.key_id)
    pair.run(5 * S)
    for node in (pair.alice, pair.bob):
        assert len(node.endpoint.sessions) == 2
        assert node.endpoint.states() == [State.UP] * 2
