"""core/session: what its timers and events say, to the nanosecond."""

from kaudp.config import Config
from kaudp.core.timers import Timer
from kaudp.events import (
    ConnectFailed,
    OwnAddressChanged,
    PeerAddressChanged,
    SessionSuspect,
    State,
)
from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, MS, Pair, S, forge, of_type

TRAFFIC = {"application_traffic": True}


def test_traffic_that_is_reported_late_lets_the_probe_out_at_once() -> None:
    """KA-8.5-2: strictly later than now."""
    pair = Pair(alice=Config.wan(**TRAFFIC), bob=Config.server(**TRAFFIC)).up()
    late = pair.now + 60 * S
    pair.session.note_application_sent(late)
    assert pair.session.timers.armed(Timer.PROBE) == late + 1


def test_a_suspicion_tells_what_was_before() -> None:
    """KA-6.3-2."""
    pair = Pair().up()
    pair.cut()
    pair.run_to(State.SUSPECT)
    (event,) = (each for each in pair.alice.events if isinstance(each, SessionSuspect))
    assert event.previous is State.UP


def test_a_connect_that_was_redirected_meets_the_peer_there() -> None:
    """KA-4.6-1."""
    pair = Pair()
    routes = pair.alice.endpoint._context.routes
    assert routes.connecting_to(KEY.key_id, pair.bob.address) is pair.session
    pair.session.redirect(("192.0.2.9", 9), pair.now)
    assert routes.connecting_to(KEY.key_id, ("192.0.2.9", 9)) is pair.session
    assert routes.connecting_to(KEY.key_id, pair.bob.address) is None


def test_a_connect_that_fails_in_silence_was_not_unreachable() -> None:
    """KA-4.2-3."""
    pair = Pair(alice=Config.wan(connect_timeout_ms=5_000))
    pair.cut()
    pair.run(6 * S)
    (event,) = (each for each in pair.alice.events if isinstance(each, ConnectFailed))
    assert event.unreachable is False
    assert event.time == 5 * S


def test_a_responder_that_is_back_leaves_the_probing_to_its_peer() -> None:
    """KA-7.6-1 KA-8.2-1."""
    pair = Pair(bob=Config.server(down_retention_ms=86_400_000)).up()
    pair.cut()
    pair.run_to(State.DOWN, pair.far)
    assert pair.far.timers.armed(Timer.PROBE) is not None
    pair.cut(cut=False)
    pair.run_to(State.UP, pair.far)
    assert pair.far.timers.armed(Timer.PROBE) is None


def test_the_time_that_a_peer_held_a_reply_back_counts_as_its_response_time() -> None:
    """KA-10.1-1 KA-10.2-1: though not as its round-trip time."""
    pair = Pair(delay=10 * MS).up()
    before = pair.session.stats
    pair.world.cut("bob", "alice")
    began = pair.now
    while not (sent := [at for at, _, _ in of_type(pair.alice, FrameType.PROBE) if at >= began]):
        pair.run(MS)
    pair.run(15 * MS)
    held = pair.now - sent[0]
    reply = forge(pair.far, FrameType.REPLY, pair.now)
    assert pair.alice.endpoint.receive_datagram(reply, pair.bob.address, pair.now)
    after = pair.session.stats
    assert before.rtt_smoothed is not None
    assert after.rtt_smoothed is not None
    assert abs(after.rtt_smoothed - (7 * before.rtt_smoothed + held) // 8) < 1_000
    assert after.rtt_latest is not None
    assert after.rtt_latest < held


def test_new_keys_from_a_new_address_tell_both_sides_when() -> None:
    """KA-9.1-4 KA-9.2-1: the session is there, and RESPONSE says where it is."""
    pair = Pair().up()
    before, moved = pair.alice.address, ("192.0.2.77", 77)
    pair.world.move(pair.alice, moved)
    began = pair.now
    pair.session._begin_attempt(began)
    pair.run(S)
    (theirs,) = (each for each in pair.bob.events if isinstance(each, PeerAddressChanged))
    (ours,) = (each for each in pair.alice.events if isinstance(each, OwnAddressChanged))
    assert (theirs.previous, theirs.address) == (before, moved)
    assert (ours.previous, ours.address) == (before, moved)
    assert began < ours.time < theirs.time < began + S
