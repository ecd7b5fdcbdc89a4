"""Section 8.6: control state, told until it is confirmed."""

import pytest

from kaudp.config import Config
from kaudp.core.timers import Timer
from kaudp.events import PeerPaused, PeerRestarted, State
from kaudp.wire.grammar import FrameType
from tests.lives import restart
from tests.worlds import MS, Pair, S, forge, of_type

NO_NAT = {"nat_keepalive_ms": None}


def calm(seed: object = 1) -> Pair:
    """Without NAT keep-alive, and a responder that never forgets."""
    bob = Config.server(down_retention_ms=86_400_000)
    return Pair(seed, alice=Config.wan(**NO_NAT), bob=bob).up()


def test_a_restarted_peers_pause_is_over() -> None:
    """KA-8.6-3 KA-8.7-1: what it asked for before is forgotten with its last version."""
    pair = calm()
    pair.far.pause(55 * S, pair.now)
    pair.run(2 * S)
    assert [e.duration for e in pair.alice.events if isinstance(e, PeerPaused)]
    restart(pair, pair.bob)
    pair.session._begin_attempt(pair.now)
    pair.run(S)
    assert [e for e in pair.alice.events if isinstance(e, PeerRestarted)]
    assert pair.session.timers.armed(Timer.PAUSE_END) is None
    pair.cut()
    pair.run_to(State.DOWN, limit=30 * S)


@pytest.mark.parametrize("change", ["parameters", "pause", "admin"])
def test_what_down_kept_back_is_told_afterwards(change: str) -> None:
    """KA-8.6-1: by a responder, which has no probes of its own to tell it with."""
    bob = Config.server(down_retention_ms=86_400_000, up_confirmations=1)
    pair = Pair(alice=Config.wan(**NO_NAT), bob=bob).up()
    pair.cut()
    pair.run_to(State.DOWN, pair.far)
    if change == "parameters":
        pair.far.change_intervals(pair.now, min_receive_interval_ms=7_000)
    elif change == "pause":
        pair.far.pause(3600 * S, pair.now)
    else:
        pair.session.admin_down(pair.now)
        pair.far._terms.control.change(admin=0)
    pair.run(100 * S)
    pair.session.timers.disarm(Timer.HANDSHAKE)
    assert pair.far._terms.control.waits
    before = len(of_type(pair.bob, FrameType.PROBE))
    pair.cut(cut=False)
    probe = forge(pair.session, FrameType.PROBE, pair.now)
    pair.world.inject(pair.bob, probe, pair.alice.address)
    pair.run(100 * MS)
    answer = forge(pair.session, FrameType.PROBE, pair.now)
    pair.world.inject(pair.bob, answer, pair.alice.address)
    pair.run(S)
    assert len(of_type(pair.bob, FrameType.PROBE)) > before
    assert not pair.far._terms.control.waits
