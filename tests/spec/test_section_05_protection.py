"""Section 5: replay, secrets, and closed sessions that linger."""

import logging

from kaudp.core.routes import LINGER
from kaudp.errors import DropReason
from kaudp.events import State
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import MasterKey, PresharedKey
from kaudp.wire.noise import Secrets
from tests.worlds import Pair, S, forge, of_type


def test_a_forged_number_does_not_move_the_window() -> None:
    """KA-5.1-2."""
    pair = Pair().up()
    window = pair.far._channel.window
    highest = window.highest
    _, probe, _ = of_type(pair.alice, FrameType.PROBE)[-1]
    forged = probe[:12] + (highest + 5000).to_bytes(8, "big") + probe[20:]
    assert not pair.world.inject(pair.bob, forged, pair.alice.address)
    assert window.highest == highest
    assert pair.bob.endpoint.counters == {DropReason.BAD_TAG: 1}


def test_a_frame_dropped_after_its_tag_counts_as_received() -> None:
    """KA-5.1-2: so that the peer's loss figure stays right, and a replay of it is one."""
    pair = Pair().up()
    count = pair.far._channel.window.count
    frame = forge(pair.session, FrameType.PROBE, pair.now, state=0)
    assert pair.world.inject(pair.bob, frame, pair.alice.address)
    assert pair.world.inject(pair.bob, frame, pair.alice.address)
    assert pair.bob.endpoint.counters == {DropReason.MALFORMED: 1, DropReason.REPLAY: 1}
    assert pair.far._channel.window.count == count + 1


def test_no_representation_shows_a_secret() -> None:
    """KA-5.2-1."""
    secret = bytes(range(65, 97))
    shown = [
        PresharedKey(secret),
        MasterKey(secret),
        Secrets(secret, secret),
        Pair().up().session,
    ]
    for thing in shown:
        text = f"{thing!r} {thing}"
        assert secret.hex() not in text
        assert secret.decode() not in text
        assert repr(secret) not in text


def test_nothing_is_logged_by_the_core() -> None:
    """KA-5.2-1: the core has no logger at all; nothing secret can get there."""
    root = logging.getLogger()
    before = set(root.manager.loggerDict)
    Pair().up()
    assert {name for name in set(root.manager.loggerDict) - before if "kaudp" in name} == set()


def test_a_closed_session_consumes_for_30_seconds() -> None:
    """KA-5.3-1 KA-2-5: without any other effect."""
    pair = Pair().up()
    late = [forge(pair.session, FrameType.PROBE, pair.now) for _ in range(2)]
    pair.far.close(pair.now)
    pair.run(2 * S)
    assert pair.bob.endpoint.quiet
    sent = len(pair.bob.sent)
    assert pair.world.inject(pair.bob, late[0], pair.alice.address)
    assert pair.bob.endpoint.counters[DropReason.LINGERING] == 1
    pair.run(LINGER)
    assert not pair.world.inject(pair.bob, late[1], pair.alice.address)
    assert pair.bob.endpoint.counters[DropReason.UNKNOWN_SESSION] == 1
    assert len(pair.bob.sent) == sent


def test_replaced_keys_linger_too() -> None:
    """KA-5.3-1: frames under the old keys do not reach the application."""
    pair = Pair().up()
    late = forge(pair.far, FrameType.PROBE, pair.now)
    pair.bob.endpoint._context.routes.sessions.clear()  # bob has forgotten: only INIT is answered
    pair.run_to(State.SUSPECT)
    pair.run_to(State.UP)
    assert pair.session.stats.handshakes == 2
    assert pair.world.inject(pair.alice, late, pair.bob.address)
    assert pair.alice.endpoint.counters[DropReason.LINGERING] == 1
