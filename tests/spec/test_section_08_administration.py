"""Sections 6.3 and 8.10: taken down by an operator, and up again."""

from itertools import pairwise

import pytest

from kaudp.config import Config
from kaudp.core.states import TRANSITIONS
from kaudp.core.timers import Timer
from kaudp.errors import SessionStateError
from kaudp.events import SessionAdminDown, SessionSuspect, SessionUp, State
from kaudp.wire.codec import Options
from kaudp.wire.grammar import FrameType
from tests.lives import reconnect, restart
from tests.worlds import MS, Pair, S, forge, of_type

NO_NAT = {"nat_keepalive_ms": None}


def probes(pair: Pair, name: str = "alice", since: int = 0) -> list[int]:
    sent = of_type(pair.world.nodes[name], FrameType.PROBE)
    return [at for at, _, _ in sent if at > since]


def inits(pair: Pair, since: int) -> list[int]:
    return [at for at, _, _ in of_type(pair.alice, FrameType.INIT) if at > since]


def calm(**bob: int) -> Pair:
    """Without NAT keep-alive, so that every probe has its reason."""
    return Pair(alice=Config.wan(**NO_NAT), bob=Config.server(**bob)).up()


@pytest.mark.parametrize("by_alice", [True, False])
def test_each_side_reports_each_change_once(by_alice: bool) -> None:
    """KA-6.3-1 KA-6.3-2 KA-8.10-1 KA-8.10-2: down and up again, from either side."""
    pair = calm()
    own, other = (pair.session, pair.far) if by_alice else (pair.far, pair.session)
    own.admin_down(pair.now)
    pair.run(S)
    assert own.state is other.state is State.ADMIN_DOWN
    own.admin_up(pair.now)
    pair.run(2 * S)
    for node, by_peer in ((pair.alice, not by_alice), (pair.bob, by_alice)):
        assert node.kinds() == ["SessionUp", "SessionAdminDown", "SessionSuspect", "SessionUp"]
        _, down, suspect, up = node.events
        assert isinstance(down, SessionAdminDown)
        assert isinstance(suspect, SessionSuspect)
        assert isinstance(up, SessionUp)
        assert (down.previous, down.by_peer) == (State.UP, by_peer)
        assert (suspect.previous, up.previous) == (State.ADMIN_DOWN, State.SUSPECT)
