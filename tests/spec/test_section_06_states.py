"""Section 6: states and the ways to close."""

import itertools

import pytest

from kaudp.config import Config
from kaudp.core.session import CLOSE_TRANSMISSIONS
from kaudp.errors import SessionStateError
from kaudp.events import CloseReason, SessionClosed, State
from kaudp.wire.grammar import FrameType
from tests.worlds import MS, Pair, S, forge, of_type


def test_each_change_is_reported_once_and_in_order() -> None:
    """KA-6.3-2: through a cut and the return from it."""
    pair = Pair(bob=Config.server(down_retention_ms=3_600_000)).up()
    pair.cut()
    pair.run_to(State.DOWN)
    pair.run_to(State.DOWN, pair.far)
    pair.cut(cut=False)
    pair.run_to(State.UP)
    pair.run_to(State.UP, pair.far)
    pair.session.close(pair.now)
    pair.run(S)
    expected = ["SessionUp", "SessionSuspect", "SessionDown", "SessionUp", "SessionClosed"]
    for node in (pair.alice, pair.bob):
        assert node.kinds() == expected
        times = [event.time for event in node.events]
        assert times == sorted(times)
        assert all(event.session is node.events[0].session for event in node.events)


def test_close_tells_the_peer_and_is_confirmed() -> None:
    """KA-6.4-1 KA-6.4-2: one CLOSE, one REPLY, no more."""
    pair = Pair().up()
    sent = len(pair.bob.sent)
    pair.session.close(pair.now, CloseReason.ADMINISTRATIVE)
    pair.run(5 * S)
    assert len(of_type(pair.alice, FrameType.CLOSE)) == 1
    assert [data[1] for _, data, _ in pair.bob.sent[sent:]] == [FrameType.REPLY]
    ours, theirs = pair.alice.events[-1], pair.bob.events[-1]
    assert isinstance(ours, SessionClosed)
    assert isinstance(theirs, SessionClosed)
    assert (ours.reason, ours.by_peer) == (CloseReason.ADMINISTRATIVE, False)
    assert (theirs.reason, theirs.by_peer) == (CloseReason.ADMINISTRATIVE, True)
    assert pair.alice.endpoint.quiet
    assert pair.bob.endpoint.quiet


def test_close_is_sent_three_times_when_nobody_confirms() -> None:
    """KA-6.4-1: one PTO apart."""
    pair = Pair().up()
    pair.cut()
    pto = pair.session.stats.probe_timeout
    pair.session.close(pair.now)
    pair.run(60 * S)
    times = [at for at, _, _ in of_type(pair.alice, FrameType.CLOSE)]
    assert len(times) == CLOSE_TRANSMISSIONS
    assert [b - a for a, b in itertools.pairwise(times)] == [pto, pto]
    assert pair.alice.endpoint.quiet


def test_both_may_close_at_once() -> None:
    """KA-6.4-1: a CLOSE confirms a CLOSE."""
    pair = Pair().up()
    pair.session.close(pair.now)
    pair.far.close(pair.now)
    pair.run(5 * S)
    assert pair.alice.endpoint.quiet
    assert pair.bob.endpoint.quiet
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp", "SessionClosed"]


def test_both_closing_with_one_close_lost() -> None:
    """KA-6.4-2: a CLOSE that comes after our own is answered too."""
    pair = Pair().up()
    pair.world.cut("alice", "bob")
    pair.session.close(pair.now)
    pair.far.close(pair.now)
    pair.run(25 * MS)
    assert of_type(pair.alice, FrameType.REPLY)
    pair.world.cut("alice", "bob", cut=False)
    pair.run(5 * S)
    assert pair.alice.endpoint.quiet
    assert pair.bob.endpoint.quiet


def test_a_closed_endpoint_accepts_no_more() -> None:
    pair = Pair()
    pair.bob.endpoint.close(pair.now)
    pair.run(S)
    assert pair.bob.endpoint.quiet
    assert pair.bob.sent == []


def test_closing_twice_does_nothing() -> None:
    pair = Pair().up()
    pair.session.close(pair.now)
    pair.session.close(pair.now)
    pair.run(S)
    assert pair.alice.kinds().count("SessionClosed") == 1


def test_closing_while_connecting() -> None:
    pair = Pair()
    pair.session.close(pair.now)
    pair.run(5 * S)
    assert pair.alice.kinds() == ["SessionClosed"]
    assert pair.alice.endpoint.quiet


@pytest.mark.parametrize("reason", [0x8000, 0xFFFF])
def test_an_application_has_close_reasons_of_its_own(reason: int) -> None:
    pair = Pair().up()
    pair.session.close(pair.now, reason)
    pair.run(S)
    assert pair.bob.events[-1].reason == reason


@pytest.mark.parametrize("reason", [-1, 5, 7, 0x7FFF, 0x10000, CloseReason.EXPIRED])
def test_a_wrong_close_reason_is_a_clear_error(reason: int) -> None:
    pair = Pair().up()
    with pytest.raises(
        SessionStateError, match="expected a CloseReason up to KEY_EXHAUSTED, or 0x8000"
    ):
        pair.session.close(pair.now, reason)


def test_an_endpoint_closes_all_its_sessions() -> None:
    pair = Pair().up()
    pair.bob.endpoint.close(pair.now)
    pair.run(100 * MS)
    assert pair.bob.endpoint.quiet
    assert pair.alice.events[-1].reason is CloseReason.SHUTDOWN


def test_an_ordinary_frame_does_not_confirm_a_close() -> None:
    """KA-6.4-1: it was under way when we closed."""
    pair = Pair().up()
    pair.cut()
    pair.session.close(pair.now)
    probe = forge(pair.far, FrameType.PROBE, pair.now)
    assert pair.world.inject(pair.alice, probe, pair.bob.address)
    pair.run(S)
    assert len(of_type(pair.alice, FrameType.CLOSE)) > 1
