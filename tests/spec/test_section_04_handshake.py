"""Section 4: the handshake, and the keys it makes."""

import itertools
from random import Random

import pytest

from kaudp.config import Config
from kaudp.core import handshake
from kaudp.core.channel import PACKET_NUMBER_LIMIT
from kaudp.core.endpoint import Endpoint
from kaudp.core.timers import SWEEP_FROM
from kaudp.errors import ConfigError, DropReason, KeyFormatError, SessionStateError
from kaudp.events import CloseReason, ConnectFailed, SessionClosed, State
from kaudp.wire import codec, noise
from kaudp.wire.codec import InitPayload, Parameters
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import MasterKey, PresharedKey
from tests.worlds import KEY, MS, Pair, S, forge, of_type


def inits(pair: Pair) -> list[tuple[int, bytes]]:
    return [(at, data) for at, data, _ in of_type(pair.alice, FrameType.INIT)]


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(33), "x" * 32, None])
def test_a_key_is_exactly_32_bytes(secret: object) -> None:
    """KA-4.1-1: one error that says what was expected and never shows the secret."""
    with pytest.raises(KeyFormatError, match="32 bytes") as error:
        PresharedKey(secret)  # type: ignore[arg-type]
    assert "xxxx" not in str(error.value)


def test_several_keys_live_at_a_time() -> None:
    """KA-4.1-2: two clients with keys of their own, derived from one master secret."""
    pair = Pair()
    master = MasterKey(bytes(32))
    server = pair.world.add_node("server", Config.server(), master, accept=True)
    for name in ("carol", "dave"):
        key = master(name.encode().ljust(16))
        node = pair.world.add_node(name, Config.wan(), key)
        node.endpoint.connect(server.address, pair.now, key_id=key.key_id)
    pair.run(S)
    assert [s.key_id for s in server.endpoint.sessions] == [b"carol".ljust(16), b"dave".ljust(16)]


def test_a_key_used_twice_makes_other_traffic_keys() -> None:
    """KA-4.1-3: a restart cannot repeat a nonce, because the keys are new."""
    first, second = Pair("one").up(), Pair("two").up()
    nonce = bytes(12)
    sealed = [
        p.session._channel._keys._sending.aead.encrypt(nonce, b"", None) for p in (first, second)
    ]
    assert sealed[0] != sealed[1]


def test_a_retry_is_the_same_bytes_and_a_late_response_counts() -> None:
    """KA-4.2-1: the answer takes longer than three retries, and is taken."""
    pair = Pair(delay=2 * S)
    pair.run(3 * S)
    sent = inits(pair)
    assert len(sent) >= 3
    assert len({data for _, data in sent}) == 1
    pair.run(2 * S)
    assert pair.alice.kinds()[0] == "SessionUp"


def test_a_handshake_begins_anew_after_a_minute() -> None:
    """KA-4.2-1: other session id, other ephemeral."""
    pair = Pair(alice=Config.wan(connect_timeout_ms=None))
    pair.cut()
    pair.run(200 * S)
    sent = inits(pair)
    first_start = sent[0][0]
    changes = [at for (_, a), (at, b) in itertools.pairwise(sent) if a != b]
    assert changes[0] - first_start >= handshake.HANDSHAKE_LIFETIME
    assert len({data[4:12] for _, data in sent}) == len({data[44:76] for _, data in sent}) >= 3


def test_retries_back_off_with_jitter() -> None:
    """KA-4.2-2."""
    pair = Pair(alice=Config.wan(connect_timeout_ms=None))
    pair.cut()
    pair.run(300 * S)
    times = [at for at, _ in inits(pair)]
    retry = handshake.HANDSHAKE_RETRY_INITIAL
    for early, late in itertools.pairwise(times):
        assert 0.75 * retry < late - early <= retry
        retry = min(2 * retry, handshake.HANDSHAKE_RETRY_MAX)
    assert all(b - a <= handshake.HANDSHAKE_RETRY_MAX for a, b in itertools.pairwise(times))


def test_nobody_answers() -> None:
    """KA-4.2-3."""
    pair = Pair(alice=Config.wan(connect_timeout_ms=4_000))
    pair.cut()
    pair.run(60 * S)
    (event,) = pair.alice.events
    assert isinstance(event, ConnectFailed)
    assert event.time == 4 * S
    assert pair.session.state is State.CLOSED
    assert pair.alice.endpoint.quiet
    assert max(at for at, _ in inits(pair)) < 4 * S


def test_a_forged_init_costs_hashing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """KA-4.2-4."""
    pair = Pair()
    pair.cut()
    pair.run(MS)
    forged = bytearray(inits(pair)[0][1])
    forged[-1] ^= 1

    def fail(*_: object) -> bytes:
        raise AssertionError("X25519 was done for a forgery")

    monkeypatch.setattr(noise, "_exchange", fail)
    assert not pair.world.inject(pair.bob, bytes(forged), ("198.51.100.9", 9))
    assert pair.bob.endpoint.counters == {DropReason.BAD_TAG: 1}


def test_an_init_reflected_to_its_sender_is_dropped() -> None:
    """KA-4.2-5: also where that accepts sessions."""
    pair = Pair()
    eve = pair.world.add_node("eve", Config.wan(), KEY, accept=True)
    eve.endpoint.connect(("mirror", 1), pair.now, key_id=KEY.key_id)
    pair.run(MS)
    _, init, _ = eve.sent[0]
    assert pair.world.inject(eve, init, ("mirror", 1))
    assert eve.endpoint.counters == {DropReason.OWN_EPOCH: 1}
    assert len(eve.sent) == 1


def test_one_response_to_the_source_and_not_longer() -> None:
    """KA-4.3-1."""
    pair = Pair()
    pair.cut()
    pair.run(MS)
    init = inits(pair)[0][1]
    for host in ("198.51.100.9", "2001:db8::9"):
        before = len(pair.bob.sent)
        assert pair.world.inject(pair.bob, init, (host, 9))
        ((_, response, address),) = pair.bob.sent[before:]
        assert address == (host, 9)
        assert len(response) <= len(init)


def test_the_same_init_gets_the_same_response_without_x25519(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """KA-4.3-2: a replayed INIT costs hashing only while the embryo lives."""
    pair = Pair()
    pair.cut()
    pair.run(MS)
    init = inits(pair)[0][1]
    pair.world.inject(pair.bob, init, ("198.51.100.9", 9))
    monkeypatch.setattr(noise, "_exchange", lambda *_: 1 / 0)
    pair.world.inject(pair.bob, init, ("198.51.100.9", 9))
    assert pair.bob.sent[0][1] == pair.bob.sent[1][1]
    assert len(pair.bob.endpoint._context.routes.embryos) == 1


def test_embryos_expire_and_are_bounded() -> None:
    """KA-4.3-3: the oldest gives way; all are gone after ten seconds."""
    pair = Pair(bob=Config.server(max_embryos=3))
    routes = pair.bob.endpoint._context.routes
    firsts = []
    for number in range(5):
        node = pair.world.add_node(f"n{number}", Config.wan(), KEY)
        node.endpoint.connect(("nowhere", 1), pair.now, key_id=KEY.key_id)
        pair.world.run_for(MS)
        pair.world.inject(pair.bob, node.sent[0][1], node.address)
        firsts.append(next(reversed(routes.embryos)))
    assert list(routes.embryos) == firsts[2:]
    routes.expire_embryos(pair.now + handshake.EMBRYO_LIFETIME)
    assert not routes.embryos
    assert not routes._embryos_by_identifier


def test_an_init_makes_no_session() -> None:
    """KA-4.3-4: only the first transport frame does."""
    pair = Pair()
    pair.world.cut("bob", "alice")
    pair.run(5 * S)
    assert pair.bob.endpoint.sessions == []
    assert pair.bob.events == []
    pair.world.cut("bob", "alice", cut=False)
    pair.run(5 * S)
    assert pair.bob.kinds() == ["SessionUp"]


def test_a_frame_other_than_probe_does_not_wake_an_embryo() -> None:
    """KA-4.3-4."""
    pair = Pair()
    pair.world.link("alice", "bob")
    pair.run(45 * MS)
    pair.world.cut("alice", "bob")
    assert pair.session.state is State.UP
    close = forge(pair.session, FrameType.REPLY, pair.now)
    assert pair.world.inject(pair.bob, close, pair.alice.address)
    assert pair.bob.endpoint.counters == {DropReason.UNEXPECTED: 1}
    assert pair.bob.endpoint.sessions == []


def test_a_new_handshake_continues_the_session_it_names() -> None:
    """KA-4.3-5: the same two session objects go on under new keys; nobody is told of an end."""
    pair = Pair().up()
    far, old_ids = pair.far, (pair.session._channel.local_id, pair.far._channel.local_id)
    pair.session._begin_attempt(pair.now)
    pair.run(10 * S)
    assert pair.session.stats.handshakes == far.stats.handshakes == 2
    assert pair.far is far
    assert pair.session._channel.local_id != old_ids[0]
    assert far._channel.local_id != old_ids[1]
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp"]


def test_a_session_is_found_by_every_name_that_its_initiator_may_give_it() -> None:
    """KA-4.3-5: also by keys that only the initiator knows to work, after newer ones that fail.

    Seen in a soak in which 60 % of the frames of sessions were lost, and no handshake.
    """
    pair = Pair().up()
    far = pair.far
    pair.session._begin_attempt(pair.now)
    pair.run(70 * MS)
    pair.world.cut("alice", "bob")
    pair.run(20 * MS)
    named = pair.session._channel.remote_id
    assert pair.session._initiation.confirmed_id == named == far._channel.local_id
    pair.world.cut("alice", "bob", cut=False)
    pair.session._begin_attempt(pair.now)
    pair.run(45 * MS)
    pair.world.cut("bob", "alice")
    pair.run(20 * MS)
    assert far._channel.local_id != named
    assert pair.session._initiation.confirmed_id == named
    pair.world.cut("bob", "alice", cut=False)
    pair.session._begin_attempt(pair.now)
    pair.run(10 * S)
    assert pair.bob.endpoint.sessions == [far]
    assert pair.bob.kinds() == ["SessionUp"]


def test_a_wrong_response_does_not_end_the_waiting() -> None:
    """KA-4.3-6."""
    pair = Pair()
    pair.world.cut("bob", "alice")
    pair.run(100 * MS)
    forged = bytearray(of_type(pair.bob, FrameType.RESPONSE)[0][1])
    forged[60] ^= 1
    assert not pair.world.inject(pair.alice, bytes(forged), pair.bob.address)
    assert pair.alice.endpoint.counters == {DropReason.BAD_TAG: 1}
    pair.world.cut("bob", "alice", cut=False)
    pair.run(2 * S)
    assert pair.session.state is State.UP


def test_the_answer_to_a_retry_is_consumed() -> None:
    """KA-4.3-8: the application never sees a second RESPONSE, for 30 s."""
    pair = Pair(delay=400 * MS).up()
    first, *again = [data for _, data, _ in of_type(pair.bob, FrameType.RESPONSE)]
    assert again
    assert DropReason.UNKNOWN_SESSION not in pair.alice.endpoint.counters
    assert pair.alice.endpoint.counters[DropReason.UNEXPECTED] == len(again)
    pair.run(40 * S)
    assert not pair.world.inject(pair.alice, first, pair.bob.address)


def test_packet_numbers_never_repeat() -> None:
    """KA-4.4-2: over loss, suspicion, pauses and a close."""
    pair = Pair(loss=0.3).up()
    pair.run(300 * S)
    pair.session.close(pair.now)
    pair.run(S)
    for node in (pair.alice, pair.bob):
        frames = of_type(node, FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE)
        names = [data[4:20] for _, data, _ in frames]
        assert len(names) == len(set(names))


def test_exhausted_keys_end_the_session() -> None:
    """KA-4.4-3: with CLOSE, which still has numbers."""
    pair = Pair().up()
    pair.session._channel.last_sent = PACKET_NUMBER_LIMIT
    pair.bob.endpoint.sessions[0]._channel.confirmed = 0
    pair.run(10 * S)
    closed = [e for e in pair.alice.events if isinstance(e, SessionClosed)]
    assert [e.reason for e in closed] == [CloseReason.KEY_EXHAUSTED]
    assert [e.reason for e in pair.bob.events if isinstance(e, SessionClosed)] == [
        CloseReason.KEY_EXHAUSTED
    ]


def test_an_init_without_a_cookie_says_zero() -> None:
    """KA-4.5-1."""
    pair = Pair()
    pair.run(MS)
    assert inits(pair)[0][1][28:44] == bytes(16)


def test_an_endpoint_that_accepts_none_consumes_what_verifies() -> None:
    """KA-2-3: and does not answer."""
    pair = Pair(accept=False)
    pair.run(S)
    assert pair.bob.endpoint.counters[DropReason.NOT_ACCEPTING] >= 1
    assert pair.bob.sent == []


def test_the_accept_hook_is_asked_after_the_tag() -> None:
    asked = []

    def accept(key_id: bytes, address: object) -> bool:
        asked.append((key_id, address))
        return False

    pair = Pair(accept=accept)
    pair.run(100 * MS)
    assert asked == [(KEY.key_id, pair.alice.address)]
    assert pair.bob.sent == []
    assert pair.bob.endpoint.counters == {DropReason.REFUSED: 1}


def test_an_init_around_a_copied_ephemeral_gets_an_answer_of_its_own() -> None:
    """KA-4.3-2: another client's INIT, seen and hurried past it, does not block it."""
    master = MasterKey(bytes(32))
    pair = Pair()
    server = pair.world.add_node("server", Config.server(), master, accept=True)
    keys = [master(name.ljust(16)) for name in (b"victim", b"mallory")]
    ephemeral = bytes(range(32))
    inits = []
    for key in keys:
        prologue = codec.build_init_prologue(key.key_id[:8], key.key_id)
        payload = codec.build_init_payload(
            InitPayload(bytes(8), key.key_id[8:], bytes(8), Parameters(1, 1, 1, 3, 0))
        )
        message = noise.Initiator(key.secret, prologue, ephemeral).write_message_1(payload)
        inits.append(prologue + message)
    assert inits[0][44:76] == inits[1][44:76]
    for init in reversed(inits):
        assert pair.world.inject(server, init, ("192.0.2.7", 7))
    answered = [data[4:12] for _, data, _ in server.sent]
    assert answered == [keys[1].key_id[:8], keys[0].key_id[:8]]


def test_a_close_reaches_the_session_that_its_keys_continue() -> None:
    """KA-4.3-4: although the first PROBE under them was lost."""
    pair = Pair(bob=Config.server(down_retention_ms=86_400_000)).up()
    pair.cut()
    pair.run_to(State.SUSPECT)
    pair.run(300 * MS)
    init = inits(pair)[-1][1]
    pair.world.cut("bob", "alice", cut=False)
    pair.world.inject(pair.bob, init, pair.alice.address)
    pair.run(50 * MS)
    assert pair.session.state is State.UP
    pair.cut(cut=False)
    pair.session.close(pair.now)
    pair.run(S)
    assert pair.bob.kinds()[-1] == "SessionClosed"
    assert pair.bob.endpoint.quiet


def test_a_key_that_is_withdrawn_during_the_handshake() -> None:
    """KA-2-5: the first PROBE verifies under the embryo's keys, so it is consumed all the same."""
    pair = Pair()
    keys = {KEY.key_id: KEY}
    server = pair.world.add_node("server", Config.server(), keys, accept=True)
    session = pair.alice.endpoint.connect(server.address, pair.now, key_id=KEY.key_id)
    pair.run(25 * MS)
    keys.clear()
    pair.run(S)
    assert session.state is State.UP
    assert len(server.endpoint.sessions) == 1


def test_an_instance_id_of_a_wrong_size_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="an instance id of 8 bytes, got 3"):
        Endpoint(Config(), keys=KEY, rng=Random(1), entropy=bytes, instance_id=b"abc")


def test_an_endpoint_has_no_more_sessions_than_it_may() -> None:
    """KA-11-2: not by its own connects either."""
    pair = Pair(alice=Config.wan(max_sessions=1))
    with pytest.raises(SessionStateError, match="fewer sessions than max_sessions"):
        pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)


def test_closed_sessions_leave_nothing_behind() -> None:
    """KA-11-2: 500 connects and closes in a moment, at a server that allows four sessions."""
    pair = Pair(bob=Config.server(max_sessions=4), delay=MS)
    pair.session.close(pair.now)
    for _ in range(500):
        session = pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
        pair.run(3 * MS)
        session.close(pair.now)
        pair.run(3 * MS)
    routes = pair.bob.endpoint._context.routes
    assert pair.bob.endpoint.quiet
    assert len(routes._lingering._entries) <= 4
    assert len(pair.bob.endpoint._context.queue._heap) <= 2 * SWEEP_FROM


def test_a_session_is_continued_under_its_own_key_only() -> None:
    """KA-4.3-5: another client that names it gets a session of its own."""
    master = MasterKey(bytes(32))
    pair = Pair()
    server = pair.world.add_node("server", Config.server(), master, accept=True)
    sessions = []
    for name in (b"carol", b"mallory"):
        key = master(name.ljust(16))
        node = pair.world.add_node(name.decode(), Config.wan(), key)
        session = node.endpoint.connect(server.address, pair.now, key_id=key.key_id)
        if sessions:
            session._initiation.confirmed_id = sessions[0]._channel.remote_id
            session._begin_attempt(pair.now)
        sessions.append(session)
        pair.run(S)
    assert [s.key_id for s in server.endpoint.sessions] == [b.key_id for b in sessions]
    assert all(session.state is State.UP for session in sessions)
