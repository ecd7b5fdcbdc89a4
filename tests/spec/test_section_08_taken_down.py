"""Section 8.10: what an operator takes down, where a pause and a restart meet it."""

import pytest

from kaudp.config import Config
from kaudp.events import PeerRestarted, SessionAdminDown, SessionSuspect, SessionUp, State
from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, Pair, S, of_type


def test_being_taken_down_by_the_peer_is_told_once() -> None:
    """KA-6.3-2, KA-8.10-2: the frame that says so is also evidence."""
    pair = Pair().up()
    pair.session.admin_down(pair.now)
    pair.run(10 * S)
    pair.session.admin_up(pair.now)
    pair.run(10 * S)
    told = [type(event) for event in pair.bob.events]
    assert told[-3:] == [SessionAdminDown, SessionSuspect, SessionUp]
    previous = [event.previous for event in pair.bob.events[-3:]]
    assert previous == [State.UP, State.ADMIN_DOWN, State.SUSPECT]


def test_a_session_taken_down_in_a_pause_is_probed_after_it() -> None:
    """KA-8.10-3: the end of the pause does not end the probing."""
    pair = Pair(alice=Config.wan(nat_keepalive_ms=None)).up()
    pair.session.pause(50 * S, pair.now)
    pair.run(S)
    pair.session.admin_down(pair.now)
    pair.run(50 * S)
    ended = pair.now
    pair.run(100 * S)
    probes = [at for at, *_ in of_type(pair.alice, FrameType.PROBE) if at > ended]
    assert len(probes) >= 2
    assert pair.session.state is State.ADMIN_DOWN


@pytest.mark.parametrize("own_pause", [0, 40 * S])
def test_a_restarted_peer_is_neither_down_nor_paused_any_more(own_pause: int) -> None:
    """KA-6.3-2, KA-7.4-6, KA-8.7-1, KA-8.7-3, KA-8.10-5: what it said before is forgotten."""
    pair = Pair().up()
    far = pair.far
    pair.session.pause(50 * S, pair.now)
    pair.session.admin_down(pair.now)
    pair.run(S)
    if own_pause:
        far.pause(own_pause, pair.now)
    paused = pair.now
    assert far.state is State.ADMIN_DOWN
    anew = pair.world.add_node("alice", Config.wan(), KEY, address=pair.alice.address)
    anew.endpoint._context.identity.instance_id = pair.alice.endpoint._context.identity.instance_id
    anew.endpoint._context.identity.epoch = bytes(8)
    anew.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(S)
    assert pair.far is far
    kinds = [type(event) for event in pair.bob.events]
    assert kinds[-3:] == [PeerRestarted, SessionSuspect, SessionUp]
    assert pair.bob.events[-1].previous is State.SUSPECT
    pair.cut()
    suspected = pair.run_to(State.SUSPECT, far)
    assert paused + own_pause <= suspected < paused + own_pause + 12 * S
