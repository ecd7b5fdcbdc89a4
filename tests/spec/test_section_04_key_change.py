"""Section 4.8: the pre-shared key of a running session is changed."""

from typing import Any

import pytest

from kaudp.config import Config
from kaudp.core.endpoint import Endpoint
from kaudp.core.handshake import KEY_CHANGE_TIMEOUT
from kaudp.errors import DropReason, KeyFormatError, SessionStateError
from kaudp.events import KeyChanged, KeyChangeFailed, State
from kaudp.wire.codec import Options
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import PresharedKey
from tests.worlds import KEY, MS, Pair, S, forge, of_type

NEW = PresharedKey(bytes(range(32, 64)))
THIRD = PresharedKey(bytes(range(64, 96)))
KEYS = {key.key_id: key for key in (KEY, NEW, THIRD)}


class Rotation(Pair):
    """A pair of which each side has a key table of its own, KEY in use."""

    def __init__(self, seed: object = 1, *, bob_knows: Any = KEYS, **how: Any) -> None:
        super().__init__(seed, **how)
        self.keys = {"alice": dict(KEYS), "bob": dict(bob_knows)}
        for node in (self.alice, self.bob):
            node.endpoint._context.key = self.keys[node.name].get


def changed(pair: Pair) -> list[KeyChanged]:
    return [e for node in (pair.alice, pair.bob) for e in node.events if isinstance(e, KeyChanged)]


def assert_under(pair: Pair, key: PresharedKey) -> None:
    """Both are UP under a key, hear each other, and count under it only."""
    assert pair.session.key_id == pair.far.key_id == key.key_id
    round_trips = pair.session.stats.round_trips
    pair.run(30 * S)
    assert pair.session.state is pair.far.state is State.UP
    assert pair.session.stats.round_trips >= round_trips + 5
    for node in (pair.alice, pair.bob):
        assert node.endpoint._context.routes.per_key == {key.key_id: 1}


def test_a_peer_that_restarts_before_it_confirms_is_told_of_the_key_anew() -> None:
    """KA-4.8-1: what it had not confirmed is forgotten with it, but not the change."""
    pair = Rotation().up()
    pair.world.cut_both("alice", "bob")
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(S)
    context = pair.bob.endpoint._context
    pair.bob.endpoint = Endpoint(
        context.config, keys=KEYS, rng=context.rng, entropy=context.entropy, accept=True
    )
    pair.world.cut_both("alice", "bob", cut=False)
    pair.run(60 * S)
    assert_under(pair, NEW)


def test_a_session_goes_over_to_a_new_key() -> None:
    """KA-4.8-1 KA-4.8-3: announced, confirmed, shaken hands; both report it, nobody leaves UP."""
    pair = Rotation().up()
    far, ids = pair.far, (pair.session._channel.local_id, pair.far._channel.local_id)
    began = pair.now
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(39 * MS)
    assert far.announced_key == NEW.key_id
    assert len(of_type(pair.alice, FrameType.INIT)) == 1
    pair.run(S)
    assert len(of_type(pair.alice, FrameType.INIT)) == 2
    assert pair.far is far
    assert [(e.previous, e.key_id) for e in changed(pair)] == [(KEY.key_id, NEW.key_id)] * 2
    assert all(e.time <= began + 100 * MS for e in changed(pair))
    assert ids != (pair.session._channel.local_id, far._channel.local_id)
    assert far.announced_key is None
    assert_under(pair, NEW)
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp", "KeyChanged"]
    assert pair.session.stats.suspicions == far.stats.suspicions == 0


def test_the_old_key_may_go_when_the_session_is_under_the_new() -> None:
    """KA-4.8-1: suspicion and handshakes need the new one only, at both sides."""
    pair = Rotation().up()
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(S)
    for keys in pair.keys.values():
        del keys[KEY.key_id]
    far = pair.far
    pair.cut()
    pair.run(40 * S)
    pair.cut(cut=False)
    pair.run(30 * S)
    assert pair.far is far
    pair.session._begin_attempt(pair.now)
    pair.run(S)
    assert far.stats.handshakes == pair.session.stats.handshakes >= 3
    assert_under(pair, NEW)
    assert DropReason.UNKNOWN_KEY not in pair.bob.endpoint.counters


def test_there_and_back_again() -> None:
    """KA-4.8-1: to a third key and to the first."""
    pair = Rotation().up()
    far = pair.far
    for key in (NEW, THIRD, KEY):
        pair.session.change_key(key.key_id, pair.now)
        pair.run(S)
        assert pair.far is far
        assert_under(pair, key)
    assert len(changed(pair)) == 6
    assert set(pair.alice.kinds()) == {"SessionUp", "KeyChanged"}


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.6])
def test_under_loss_it_takes_longer_only(loss: float) -> None:
    """KA-4.8-1 KA-4.8-3: one session, one report at each side, whatever was lost."""
    for seed in range(12):
        pair = Rotation(seed, bob=Config.server(down_retention_ms=600_000)).up()
        far = pair.far
        pair.condition(loss=loss)
        pair.session.change_key(NEW.key_id, pair.now)
        pair.run(50 * S)
        pair.condition(loss=0.0)
        pair.run(100 * S)
        kinds = pair.alice.kinds() + pair.bob.kinds()
        if kinds.count("KeyChangeFailed"):
            assert pair.session.key_id == KEY.key_id
            continue
        assert pair.far is far, (seed, loss)
        assert kinds.count("KeyChanged") == 2, (seed, loss)
        assert_under(pair, NEW)


@pytest.mark.parametrize("way", ["alice", "bob"])
@pytest.mark.parametrize("kind", [FrameType.PROBE, FrameType.REPLY, FrameType.INIT])
def test_whichever_frame_of_the_change_is_lost(way: str, kind: FrameType) -> None:
    """KA-4.8-1 KA-4.3-4: NEXT_KEY, its confirmation, INIT, RESPONSE or the first PROBE."""
    for delay in range(0, 140, 10):
        pair = Rotation().up()
        far = pair.far
        pair.session.change_key(NEW.key_id, pair.now)
        pair.run(delay * MS)
        pair.world.cut(way, "bob" if way == "alice" else "alice")
        pair.run(35 * MS)
        pair.cut(cut=False)
        pair.run(20 * S)
        assert pair.far is far
        assert len(changed(pair)) == 2
        assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()
        assert_under(pair, NEW)


def test_a_long_cut_in_the_midst_of_a_change() -> None:
    """KA-4.8-1 KA-4.3-5: the embryo is gone; the session is found by what was announced."""
    pair = Rotation(bob=Config.server(down_retention_ms=86_400_000)).up()
    far = pair.far
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(70 * MS)
    pair.world.cut("alice", "bob")
    pair.run(40 * MS)
    assert pair.session.key_id == NEW.key_id
    assert far.key_id == KEY.key_id
    pair.cut()
    pair.run(120 * S)
    pair.cut(cut=False)
    pair.run(60 * S)
    assert pair.far is far
    assert_under(pair, NEW)
    assert len(changed(pair)) == 2


def test_a_responder_without_the_key_leaves_the_session_as_it_is() -> None:
    """KA-4.8-1: after 60 s that is reported; nobody suspects, and the handshake ends."""
    pair = Rotation(bob_knows={KEY.key_id: KEY}).up()
    pair.session.change_key(NEW.key_id, pair.now)
    began = pair.now
    pair.run(200 * S)
    (failed,) = [e for e in pair.alice.events if isinstance(e, KeyChangeFailed)]
    assert failed.key_id == NEW.key_id
    # Announced and confirmed in one round trip.
    assert failed.time == began + 40 * MS + KEY_CHANGE_TIMEOUT
    assert KEY_CHANGE_TIMEOUT == 60 * S
    assert pair.alice.kinds() == ["SessionUp", "KeyChangeFailed"]
    assert pair.bob.kinds() == ["SessionUp"]
    assert pair.session.stats.suspicions == pair.far.stats.suspicions == 0
    assert max(at for at, _, _ in of_type(pair.alice, FrameType.INIT)) < failed.time
    assert not pair.alice.endpoint._context.routes.pending
    assert_under(pair, KEY)


def test_a_key_that_arrives_too_late_changes_nothing() -> None:
    """KA-4.8-1: the session stays under the old one, until it is asked to change again."""
    pair = Rotation(bob_knows={KEY.key_id: KEY}).up()
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(61 * S)
    pair.keys["bob"][NEW.key_id] = NEW
    pair.run(100 * S)
    assert_under(pair, KEY)
    assert changed(pair) == []
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(S)
    assert_under(pair, NEW)


def test_a_key_that_arrives_in_time_is_found_by_a_later_handshake() -> None:
    """KA-4.8-1 KA-4.2-1: each handshake of the 60 s is one under the new key."""
    pair = Rotation(bob_knows={KEY.key_id: KEY}).up()
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(30 * S)
    assert len({data[4:12] for _, data, _ in of_type(pair.alice, FrameType.INIT)}) > 2
    pair.keys["bob"][NEW.key_id] = NEW
    pair.run(28 * S)
    assert_under(pair, NEW)


def test_a_restarted_peer_is_found_after_a_change_that_failed() -> None:
    """KA-4.8-1 KA-7.4-5: handshakes under the old key go on as before."""
    pair = Rotation(bob_knows={KEY.key_id: KEY}).up()
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(70 * S)
    pair.bob.endpoint.close(pair.now)
    del pair.world.nodes["bob"], pair.world._homes[pair.bob.address]
    pair.world.cut("bob", "alice")
    pair.world.add_node("again", Config.server(), KEY, accept=True, address=pair.bob.address)
    pair.run(60 * S)
    assert pair.session.state is State.UP
    assert "PeerRestarted" in pair.alice.kinds()


def test_a_change_outlives_suspicion_and_a_redirect() -> None:
    """KA-4.8-1: the handshake under way stays one under the new key."""
    pair = Rotation().up()
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(39 * MS)
    pair.world.cut("alice", "bob")
    pair.run(10 * MS)
    assert pair.session._changing_key
    pair.world.move(pair.bob, ("192.0.2.2", 2001))
    pair.session.redirect(pair.bob.address, pair.now)
    pair.cut(cut=False)
    pair.run(20 * S)
    assert len(changed(pair)) == 2
    assert "KeyChangeFailed" not in pair.alice.kinds()
    assert_under(pair, NEW)


def test_the_last_word_counts() -> None:
    """KA-4.8-1 KA-4.8-2: changed once more while the first change is under way."""
    for wait in (0, 10, 30, 45, 70, 90, 200):
        pair = Rotation().up()
        far = pair.far
        pair.session.change_key(NEW.key_id, pair.now)
        pair.run(wait * MS)
        pair.session.change_key(THIRD.key_id, pair.now)
        pair.run(5 * S)
        assert pair.far is far, wait
        assert_under(pair, THIRD)
        assert not {"SessionDown", "KeyChangeFailed"} & set(pair.alice.kinds() + pair.bob.kinds())


def test_back_to_the_present_key_during_a_change_is_refused() -> None:
    """KA-4.8-1: one clear error for each wrong use."""
    pair = Rotation()
    with pytest.raises(SessionStateError):
        pair.session.change_key(NEW.key_id, pair.now)
    pair.up()
    with pytest.raises(KeyFormatError, match="another key id"):
        pair.session.change_key(KEY.key_id, pair.now)
    with pytest.raises(KeyFormatError, match="another key id"):
        pair.session.change_key(bytes(16), pair.now)
    with pytest.raises(SessionStateError, match="initiator's side"):
        pair.far.change_key(NEW.key_id, pair.now)
    pair.session.close(pair.now)
    with pytest.raises(SessionStateError):
        pair.session.change_key(NEW.key_id, pair.now)


@pytest.mark.parametrize("announced", [None, THIRD.key_id])
def test_a_thief_of_another_key_continues_no_session(announced: bytes | None) -> None:
    """KA-4.8-2: who holds NEW sees the ids in the frames, and gets a session of its own."""
    pair = Rotation().up()
    far = pair.far
    if announced:
        # The session has announced a third key, to which it has not changed yet.
        data = forge(
            pair.session, FrameType.PROBE, pair.now, Options(next_key=announced), control_version=1
        )
        assert pair.world.inject(pair.bob, data, pair.alice.address)
        assert far.announced_key == announced
    thief = pair.world.add_node("thief", Config.wan(), NEW)
    session = thief.endpoint.connect(pair.bob.address, pair.now, key_id=NEW.key_id)
    session._initiation.confirmed_id = far._channel.local_id
    session._begin_attempt(pair.now)
    pair.run(10 * S)
    assert len(pair.bob.endpoint.sessions) == 2
    assert far.stats.handshakes == 1
    assert far.key_id == KEY.key_id
    assert far.address == pair.alice.address
    assert changed(pair) == []
    assert pair.session.state is far.state is State.UP


def test_the_old_key_continues_nothing_after_the_change() -> None:
    """KA-4.8-2: a thief of the old key, which is still in the table, gets a session of its own."""
    pair = Rotation().up()
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(S)
    far = pair.far
    thief = pair.world.add_node("thief", Config.wan(), KEY)
    session = thief.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    session._initiation.confirmed_id = far._channel.local_id
    session._begin_attempt(pair.now)
    pair.run(10 * S)
    assert len(pair.bob.endpoint.sessions) == 2
    assert far.stats.handshakes == 2
    assert far.key_id == NEW.key_id
    assert far.address == pair.alice.address


def test_only_the_newest_announcement_counts() -> None:
    """KA-4.8-2: a key announced before another one continues nothing any more."""
    pair = Rotation().up()
    far = pair.far
    for version, key in enumerate((NEW, THIRD), 1):
        data = forge(
            pair.session,
            FrameType.PROBE,
            pair.now,
            Options(next_key=key.key_id),
            control_version=version,
        )
        pair.world.inject(pair.bob, data, pair.alice.address)
    pair.session._begin_attempt(pair.now, NEW)
    pair.run(S)
    assert far.key_id == KEY.key_id
    assert far.stats.handshakes == 1
    assert len(pair.bob.endpoint.sessions) == 2


def test_a_session_takes_its_place_in_the_count_along() -> None:
    """KA-4.8-3 KA-11-2: room under the old key is free again, and the new key's is bounded."""
    pair = Rotation(bob=Config.server(max_sessions_per_key=1)).up()
    routes = pair.bob.endpoint._context.routes
    assert routes.full(KEY.key_id)
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(S)
    assert routes.full(NEW.key_id)
    assert not routes.full(KEY.key_id)
    other = pair.world.add_node("other", Config.wan(), KEYS)
    session = other.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(S)
    assert session.state is State.UP
    session.change_key(NEW.key_id, pair.now)
    pair.run(65 * S)
    assert "KeyChangeFailed" in other.kinds()
    assert session.state is State.UP
    assert routes.per_key == {KEY.key_id: 1, NEW.key_id: 1}


def test_a_session_that_ends_under_a_new_key_leaves_nothing_behind() -> None:
    """KA-11-2: neither under the new nor under the old one, also in the midst of a change."""
    for wait in (0, 30, 50, 70, 90, 200):
        pair = Rotation().up()
        pair.session.change_key(NEW.key_id, pair.now)
        pair.run(wait * MS)
        pair.session.close(pair.now)
        pair.run(61 * S)
        for node in (pair.alice, pair.bob):
            routes = node.endpoint._context.routes
            assert node.endpoint.quiet
            assert not (routes.sessions or routes.named or routes.peers or routes.pending), wait
            assert node.endpoint.next_timer() is None
        assert pair.bob.kinds()[-1] == pair.alice.kinds()[-1] == "SessionClosed"


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_rotation_with_many_sessions_running(loss: float) -> None:
    """KA-4.8-1 to KA-4.8-3: add the key, change twenty sessions, remove the old one."""
    pair = Rotation("rotation", bob_knows={KEY.key_id: KEY}, loss=loss)
    clients = [pair.alice]
    sessions = [pair.session]
    for number in range(19):
        node = pair.world.add_node(f"n{number}", Config.wan(connect_timeout_ms=None), KEYS)
        clients.append(node)
        sessions.append(node.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id))
    pair.run(20 * S)
    assert len(pair.bob.endpoint.sessions) == 20
    fars = list(pair.bob.endpoint.sessions)
    pair.keys["bob"][NEW.key_id] = NEW
    for session in sessions:
        session.change_key(NEW.key_id, pair.now)
        pair.run(200 * MS)
    pair.run(55 * S)
    assert pair.bob.endpoint._context.routes.per_key == {NEW.key_id: 20}
    del pair.keys["bob"][KEY.key_id]
    pair.run(120 * S)
    assert set(pair.bob.endpoint.sessions) == set(fars)
    assert pair.bob.kinds().count("KeyChanged") == 20
    for node in (*clients, pair.bob):
        assert not {"SessionDown", "SessionHalfOpen", "SessionClosed"} & set(node.kinds())
        if not loss:
            assert set(node.kinds()) == {"SessionUp", "KeyChanged"}
    assert all(session.state is State.UP for session in (*sessions, *fars))
    assert {session.key_id for session in (*sessions, *fars)} == {NEW.key_id}


def test_a_responder_that_accepts_no_others_lets_its_sessions_change() -> None:
    """KA-4.8-1 KA-4.3-5: a handshake that continues a session is no stranger's."""
    pair = Rotation().up()
    pair.bob.endpoint._accept = False
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(S)
    assert_under(pair, NEW)


def test_a_change_under_load_needs_a_cookie() -> None:
    """KA-4.5-5 KA-4.8-1: the handshake that follows COOKIE is under the new key too."""
    pair = Rotation(bob=Config.server(cookie_threshold=0)).up()
    pair.session.change_key(NEW.key_id, pair.now)
    pair.run(S)
    assert_under(pair, NEW)
    assert pair.bob.endpoint.counters[DropReason.COOKIE_SENT] == 2
