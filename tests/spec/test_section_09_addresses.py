"""Section 9: addresses that change, on both sides."""

import pytest

from kaudp.config import Config
from kaudp.core.channel import PACKET_NUMBER_LIMIT
from kaudp.events import OwnAddressChanged, PeerAddressChanged, State
from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, MS, Pair, S, forge, of_type

REBOUND = ("192.0.2.1", 54_321)


def test_a_session_survives_a_nat_rebinding() -> None:
    """KA-9.1-1 KA-9.2-1 KA-9.2-2: same session, reported on both sides, nobody suspected."""
    pair = Pair().up()
    far = pair.far
    pair.world.move(pair.alice, REBOUND)
    pair.run(20 * S)
    assert pair.far is far
    assert far.address == REBOUND
    (moved,) = [e for e in pair.bob.events if isinstance(e, PeerAddressChanged)]
    assert (moved.previous, moved.address) == (("192.0.2.1", 1000), REBOUND)
    (own,) = [e for e in pair.alice.events if isinstance(e, OwnAddressChanged)]
    assert (own.previous, own.address) == (("192.0.2.1", 1000), REBOUND)
    assert pair.session.own_address == REBOUND
    assert "SessionSuspect" not in pair.alice.kinds() + pair.bob.kinds()


def test_a_session_moves_only_when_the_new_address_has_answered() -> None:
    """KA-9.1-2: one frame from elsewhere, copied on the path, does not move it."""
    pair = Pair().up()
    elsewhere = ("198.51.100.66", 6)
    probe = forge(pair.session, FrameType.PROBE, pair.now)
    pair.world.inject(pair.bob, probe, elsewhere)
    assert pair.far.address == pair.alice.address
    pair.run(30 * S)
    assert pair.far.address == pair.alice.address
    assert not [e for e in pair.bob.events if isinstance(e, PeerAddressChanged)]


def test_a_late_frame_from_the_old_address_moves_nothing() -> None:
    """KA-9.1-2: only the highest packet number so far counts."""
    pair = Pair().up()
    late = forge(pair.session, FrameType.PROBE, pair.now)
    pair.world.move(pair.alice, REBOUND)
    pair.run(20 * S)
    assert pair.far.address == REBOUND
    pair.world.inject(pair.bob, late, ("192.0.2.1", 1000))
    assert pair.far.address == REBOUND


def test_a_new_address_gets_no_more_than_it_gave() -> None:
    """KA-9.1-3: even while the responder is suspicious and probes fast."""
    pair = Pair().up()
    victim = ("198.51.100.66", 6)
    given = 0
    for _ in range(3):
        probe = forge(pair.session, FrameType.PROBE, pair.now)
        given += len(probe)
        pair.world.inject(pair.bob, probe, victim)
    pair.cut()
    pair.run(60 * S)
    got = sum(len(data) for _, data, address in pair.bob.sent if address == victim)
    assert got <= 3 * given
    assert of_type(pair.bob, FrameType.PROBE)


def test_a_session_begins_where_the_response_went() -> None:
    """KA-9.1-3: the first transport frame, sent from elsewhere, is answered there, no more."""
    pair = Pair()
    pair.run(45 * MS)
    pair.cut()
    (_, probe, _) = of_type(pair.alice, FrameType.PROBE)[0]
    pair.world.inject(pair.bob, probe, ("198.51.100.66", 6))
    assert pair.far.address == pair.alice.address
    pair.run(30 * S)
    stray = [data for _, data, address in pair.bob.sent if address == ("198.51.100.66", 6)]
    assert sum(map(len, stray)) <= 3 * len(probe)


def test_a_responder_reports_its_own_address_without_probing() -> None:
    """KA-9.2-1."""
    pair = Pair().up()
    probe = forge(pair.session, FrameType.PROBE, pair.now, address_hash=1)
    pair.world.inject(pair.bob, probe, pair.alice.address)
    (own,) = [e for e in pair.bob.events if isinstance(e, OwnAddressChanged)]
    assert own.address is None
    assert of_type(pair.bob, FrameType.PROBE) == []


def test_icmp_is_a_hint_never_a_judgement() -> None:
    """KA-9.2-3: it hastens a probe, within the budget; forged ICMP convicts nobody."""
    pair = Pair().up()
    pair.run(S)
    before = len(of_type(pair.alice, FrameType.PROBE))
    for _ in range(1000):
        pair.session.note_unreachable(pair.now)
        pair.run(50 * MS)
        assert pair.session.state is State.UP
    assert "SessionSuspect" not in pair.alice.kinds()
    assert len(of_type(pair.alice, FrameType.PROBE)) - before <= 64 + 2 * 10 + 15


@pytest.mark.parametrize("family", ["4", "6"])
def test_the_response_tells_the_initiators_address(family: str) -> None:
    pair = Pair()
    if family == "6":
        pair.world.move(pair.alice, ("2001:db8::1", 1000))
    pair.run(S)
    assert pair.session.own_address == pair.alice.address


def test_a_redirect_goes_on_elsewhere() -> None:
    """A name that now leads to another machine with the same key."""
    pair = Pair().up()
    pair.world.move(pair.bob, "nowhere")
    pair.cut()
    pair.run_to(State.DOWN)
    elsewhere = ("192.0.2.99", 2000)
    pair.world.add_node("bob2", Config.server(), KEY, accept=True, address=elsewhere)
    pair.session.redirect(("192.0.2.99", 2000), pair.now)
    pair.run_to(State.UP, limit=10 * S)
    assert pair.session.address == ("192.0.2.99", 2000)


def test_a_redirect_while_connecting() -> None:
    pair = Pair(alice=Config.wan())
    pair.world.move(pair.bob, ("192.0.2.99", 2000))
    pair.run(3 * S)
    pair.session.redirect(("192.0.2.99", 2000), pair.now)
    pair.run_to(State.UP, limit=2 * S)


def test_a_session_begins_where_its_first_frame_and_the_response_agree() -> None:
    """KA-9.1-4: INIT was copied and came first from a stolen source."""
    pair = Pair()
    victim = ("198.51.100.66", 6)
    pair.run(MS)
    init = of_type(pair.alice, FrameType.INIT)[0][1]
    pair.world.inject(pair.bob, init, victim)
    pair.run(S)
    assert pair.far.address == pair.alice.address
    pair.cut()
    pair.run(60 * S)
    assert len([data for _, data, address in pair.bob.sent if address == victim]) == 1


def test_a_redirect_after_the_end_does_nothing() -> None:
    pair = Pair()
    pair.session.close(pair.now)
    pair.session.redirect(("192.0.2.99", 1), pair.now)
    pair.run(5 * S)
    assert pair.alice.sent == [] or {to for _, _, to in pair.alice.sent} == {pair.bob.address}
    assert not pair.alice.endpoint._context.routes.pending


def test_exhausted_keys_and_a_changed_address_at_once() -> None:
    """KA-12-1 KA-4.4-3: the question for the new address cannot be sent, and nothing raises."""
    pair = Pair().up()
    pair.session._channel.last_sent = PACKET_NUMBER_LIMIT
    frame = forge(pair.far, FrameType.PROBE, pair.now, address_hash=1)
    assert pair.world.inject(pair.alice, frame, pair.bob.address)
    assert pair.alice.kinds().count("SessionClosed") == 1


def test_a_late_frame_says_nothing_new_of_our_address() -> None:
    """KA-9.2-1: only the highest packet number so far counts."""
    pair = Pair().up()
    late = forge(pair.far, FrameType.PROBE, pair.now, address_hash=1)
    newer = forge(pair.far, FrameType.PROBE, pair.now)
    for frame in (newer, late):
        assert pair.world.inject(pair.alice, frame, pair.bob.address)
    pair.run(S)
    assert not [e for e in pair.alice.events if isinstance(e, OwnAddressChanged)]
