"""Section 4.5: what a responder asks for before it keeps anything."""

import hashlib
import hmac
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.config import Config
from kaudp.core import handshake
from kaudp.core.cookies import COOKIE_SECRET_LIFETIME, CookieJar
from kaudp.core.endpoint import Endpoint
from kaudp.core.paths import Address, address_bytes
from kaudp.errors import DropReason
from kaudp.events import ConnectFailed, State
from kaudp.wire import noise
from kaudp.wire.codec import classify, parse_init_header
from kaudp.wire.cookies import NO_COOKIE, address_cookie, seal_cookie
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import MasterKey
from tests.worlds import KEY, MS, Pair, S, of_type

ALWAYS = Config.server(cookie_threshold=0)
SOURCE = ("198.51.100.9", 9)


def sent_inits(pair: Pair) -> list[tuple[int, bytes]]:
    return [(at, data) for at, data, _ in of_type(pair.alice, FrameType.INIT)]


def cookie_in(init: bytes) -> bytes:
    return parse_init_header(init).cookie


def first_init(pair: Pair) -> bytes:
    """Give alice's first INIT, which nobody has received."""
    pair.cut()
    pair.run(MS)
    return sent_inits(pair)[0][1]


def kept(endpoint: Endpoint) -> tuple[Any, ...]:
    """Give what an endpoint keeps on account of handshakes."""
    routes = endpoint._context.routes
    return (
        *(list(routes.embryos), list(routes._embryos_by_identifier), list(routes.sessions)),
        *(list(routes.pending), dict(routes.per_key), list(routes.peers), list(routes.connecting)),
        *(len(routes._lingering._entries), len(routes._spent_attempts._entries)),
        *(endpoint.next_timer(), len(endpoint._context.outbox.events)),
    )


def test_a_handshake_with_a_cookie_takes_one_round_trip_more() -> None:
    """KA-4.5-2 KA-4.5-5: no cookie at first, COOKIE, the cookie at once, and UP."""
    pair = Pair(bob=ALWAYS).up()
    (first_at, first), (second_at, second) = sent_inits(pair)
    assert first_at == 0
    assert second_at == 40 * MS
    assert cookie_in(first) == NO_COOKIE != cookie_in(second)
    assert len(of_type(pair.bob, FrameType.COOKIE)) == 1
    assert len(of_type(pair.bob, FrameType.RESPONSE)) == 1
    assert pair.alice.events[0].time == 80 * MS
    assert pair.bob.endpoint.counters == {DropReason.COOKIE_SENT: 1}
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp"]


def test_a_new_handshake_holds_the_cookie() -> None:
    """KA-4.5-5: another session id and another ephemeral, since one key never seals twice."""
    pair = Pair(bob=ALWAYS).up()
    one, two = (parse_init_header(data) for _, data in sent_inits(pair))
    assert one.sender_session_id != two.sender_session_id
    assert one.ephemeral != two.ephemeral


def test_a_responder_below_the_threshold_asks_for_nothing() -> None:
    """KA-4.5-2: the third embryo is the last that is to be had without a cookie."""
    pair = Pair(bob=Config.server(cookie_threshold=3))
    pair.cut()
    for number in range(5):
        node = pair.world.add_node(f"n{number}", Config.wan(), KEY)
        node.endpoint.connect(("nowhere", 1), pair.now, key_id=KEY.key_id)
        pair.run(MS)
        assert pair.world.inject(pair.bob, node.sent[0][1], node.address)
    kinds = [classify(data) for _, data, _ in pair.bob.sent]
    assert kinds == [FrameType.RESPONSE] * 3 + [FrameType.COOKIE] * 2
    assert len(pair.bob.endpoint._context.routes.embryos) == 3


def test_an_embryo_that_exists_answers_under_load_too() -> None:
    """KA-4.5-2 KA-4.3-2: a retry of an INIT that was answered needs no cookie."""
    pair = Pair(bob=Config.server(cookie_threshold=1))
    init = first_init(pair)
    for _ in range(2):
        assert pair.world.inject(pair.bob, init, SOURCE)
    first, second = (data for _, data, _ in pair.bob.sent)
    assert first == second
    assert classify(first) is FrameType.RESPONSE


def test_nothing_is_kept_of_who_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """KA-4.5-2: no embryo, no count, no timer, no X25519, no question to the application."""
    asked: list[Address] = []
    pair = Pair(bob=ALWAYS, accept=lambda _, address: asked.append(address) or True)
    init = first_init(pair)
    monkeypatch.setattr(noise, "_exchange", lambda *_: 1 / 0)
    before = kept(pair.bob.endpoint)
    for number in range(200):
        assert pair.world.inject(pair.bob, init, ("198.51.100.9", 1 + number))
    assert kept(pair.bob.endpoint) == before
    assert pair.bob.endpoint.counters == {DropReason.COOKIE_SENT: 200}
    assert asked == []


def test_one_cookie_to_the_source_and_smaller_than_what_it_answers() -> None:
    """KA-4.5-2: 60 bytes."""
    pair = Pair(bob=ALWAYS)
    init = first_init(pair)
    for source in (SOURCE, ("2001:db8::9", 9), "an address of another kind"):
        before = len(pair.bob.sent)
        assert pair.world.inject(pair.bob, init, source)
        ((_, answer, to),) = pair.bob.sent[before:]
        assert to == source
        assert classify(answer) is FrameType.COOKIE
        assert len(answer) == 60 < len(init)
        assert answer[4:12] == init[4:12]


def test_only_an_init_whose_tag_verifies_is_answered() -> None:
    """KA-4.5-2: every other flipped bit draws nothing and is left to the application."""
    pair = Pair(bob=ALWAYS)
    init = first_init(pair)
    for bit in range(len(init) * 8):
        forged = bytearray(init)
        forged[bit // 8] ^= 1 << bit % 8
        assert not pair.world.inject(pair.bob, bytes(forged), SOURCE)
    assert pair.bob.sent == []
    assert DropReason.COOKIE_SENT not in pair.bob.endpoint.counters


def test_the_cookie_is_made_as_the_text_says() -> None:
    """KA-4.5-3 KA-4.5-4: computed here by hand from the secret, with the IPv4-mapped form."""
    pair = Pair(bob=ALWAYS)
    init = first_init(pair)
    pair.world.inject(pair.bob, init, SOURCE)
    pair.world.inject(pair.bob, init, ("::ffff:198.51.100.9", 9, 0, 0))
    secret = pair.bob.endpoint._cookies._secret
    canonical = bytes([4]) + (9).to_bytes(2, "big") + bytes([198, 51, 100, 9])
    expected = hmac.digest(secret, canonical + KEY.key_id, "sha256")[:16]
    for _, data, _ in pair.bob.sent:
        assert pair.session._initiation.attempt.open_cookie(data) == expected
    assert len(secret) == 32
    nonce = pair.bob.sent[0][1][12:28]
    assert nonce != pair.bob.sent[1][1][12:28]
    prk = hmac.digest(init[-16:] + nonce, KEY.secret, hashlib.sha256)
    key = hmac.digest(prk, b"kaudp/1 cookie\x01", hashlib.sha256)
    frame = pair.bob.sent[0][1]
    assert AESGCM(key).decrypt(bytes(12), frame[28:], frame[:28]) == expected


def test_a_cookie_is_good_for_its_source_and_key_only() -> None:
    """KA-4.5-3: from another port, host or key it is none."""
    master = MasterKey(bytes(32))
    pair = Pair()
    server = pair.world.add_node("server", ALWAYS, master, accept=True)
    jar = server.endpoint._cookies
    carol, dave = (master(name.ljust(16)).key_id for name in (b"carol", b"dave"))
    cookie = jar.cookie(SOURCE, carol, 0)
    assert jar.is_right(cookie, SOURCE, carol, 0)
    assert not jar.is_right(cookie, SOURCE, dave, 0)
    assert not jar.is_right(cookie, ("198.51.100.9", 10), carol, 0)
    assert not jar.is_right(cookie, ("198.51.100.8", 9), carol, 0)
    assert not jar.is_right(NO_COOKIE, SOURCE, carol, 0)


def test_a_source_that_changes_at_its_nat_gets_another_cookie() -> None:
    """KA-4.5-3 KA-4.5-5: each INIT comes from another port than the one before, then no more."""
    pair = Pair(bob=ALWAYS)
    pair.run(30 * MS)
    pair.world.move(pair.alice, ("192.0.2.1", 1001))
    # COOKIE went to the old port; the retry from the new one draws another, as the next does.
    pair.run(500 * MS)
    pair.world.move(pair.alice, ("192.0.2.1", 1002))
    pair.run(5 * S)
    assert pair.session.state is State.UP
    assert pair.far.address == ("192.0.2.1", 1002)
    cookies = [cookie_in(data) for _, data in sent_inits(pair)]
    assert len(set(cookies)) == 3
    assert pair.alice.kinds()[0] == "SessionUp"


def test_the_secret_is_replaced_after_120_s_and_honoured_to_240_s() -> None:
    """KA-4.5-3."""
    jar = Pair(bob=ALWAYS).bob.endpoint._cookies
    begin, life = 1000 * S, COOKIE_SECRET_LIFETIME
    assert life == 120 * S
    cookie = jar.cookie(SOURCE, KEY.key_id, begin)
    assert jar.cookie(SOURCE, KEY.key_id, begin + life) == cookie
    replaced_at = begin + life + 1
    newer = jar.cookie(SOURCE, KEY.key_id, replaced_at)
    assert newer != cookie
    for now in (replaced_at, begin + 2 * life):
        assert jar.is_right(cookie, SOURCE, KEY.key_id, now)
        assert jar.is_right(newer, SOURCE, KEY.key_id, now)
    assert not jar.is_right(cookie, SOURCE, KEY.key_id, begin + 2 * life + 1)
    assert jar.is_right(newer, SOURCE, KEY.key_id, begin + 2 * life + 1)


def test_a_secret_that_was_not_used_for_long_is_honoured_no_more() -> None:
    """KA-4.5-3: the first use after a quiet hour does not bring an old cookie back."""
    jar = Pair(bob=ALWAYS).bob.endpoint._cookies
    cookie = jar.cookie(SOURCE, KEY.key_id, 0)
    assert not jar.is_right(cookie, SOURCE, KEY.key_id, 3600 * S)


def test_a_handshake_over_a_change_of_the_secret_succeeds() -> None:
    """KA-4.5-3: the cookie is drawn with the last of the old secret and shown to the new one."""
    pair = Pair(bob=ALWAYS, alice=Config.wan(connect_timeout_ms=None))
    pair.cut()
    pair.bob.endpoint._cookies.cookie(SOURCE, KEY.key_id, pair.now)
    # The retry before the change of the secret, at 119.98 s of its age, is let through.
    pair.run(COOKIE_SECRET_LIFETIME - 30 * MS)
    pair.cut(cut=False)
    pair.session._begin_attempt(pair.now)
    pair.run(S)
    assert pair.session.state is State.UP
    assert len(of_type(pair.bob, FrameType.COOKIE)) == 1
    assert pair.bob.endpoint._cookies._previous


def test_an_initiator_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """KA-4.5-5: a responder answers COOKIE for ever: one at once, the others by the retries."""
    pair = Pair(alice=Config.wan(connect_timeout_ms=None), bob=ALWAYS)
    monkeypatch.setattr(CookieJar, "is_right", lambda *_: False)
    pair.run(300 * S)
    times = [at for at, _ in sent_inits(pair)]
    assert times[1] == 40 * MS
    retry = handshake.HANDSHAKE_RETRY_INITIAL
    for early, late in pairwise(times[1:]):
        assert 0.75 * retry < late - early <= retry
        retry = min(2 * retry, handshake.HANDSHAKE_RETRY_MAX)
    # Every INIT is a new handshake with the newest cookie, and none is left behind.
    assert len({data[4:12] for _, data in sent_inits(pair)}) == len(times)
    assert len(pair.alice.endpoint._context.routes.pending) == 1
    assert pair.bob.endpoint.sessions == []


def test_cookies_for_ever_end_with_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """KA-4.2-3 KA-4.5-5: a new handshake does not put the timeout off."""
    pair = Pair(alice=Config.wan(connect_timeout_ms=4_000), bob=ALWAYS)
    monkeypatch.setattr(CookieJar, "is_right", lambda *_: False)
    pair.run(60 * S)
    (event,) = pair.alice.events
    assert isinstance(event, ConnectFailed)
    assert event.time == 4 * S
    assert pair.alice.endpoint.quiet


def test_many_cookies_to_one_init_make_one_handshake() -> None:
    """KA-4.5-5 KA-4.3-8: the copies find a handshake that was given up, and are consumed."""
    pair = Pair(bob=ALWAYS)
    init = first_init(pair)
    for _ in range(50):
        pair.world.inject(pair.bob, init, pair.alice.address)
    for _, data, _ in of_type(pair.bob, FrameType.COOKIE):
        assert pair.world.inject(pair.alice, data, pair.bob.address)
    assert len(sent_inits(pair)) == 2
    assert pair.alice.endpoint.counters == {DropReason.UNEXPECTED: 49}


@pytest.mark.parametrize("held", [False, True])
def test_a_cookie_for_another_init_is_none(held: bool) -> None:
    """KA-4.5-5: sealed under the right PSK, but not with the tag of this INIT; also by a replay."""
    pair = Pair(bob=ALWAYS)
    init = first_init(pair)
    pair.world.inject(pair.bob, init, pair.alice.address)
    ((_, cookie, _),) = pair.bob.sent
    if held:
        pair.world.inject(pair.alice, cookie, pair.bob.address)
        init = sent_inits(pair)[-1][1]
    attempt = pair.session._initiation.attempt
    other = bytearray(init)
    other[-1] ^= 1
    forged = seal_cookie(KEY.secret, bytes(other), init[4:12], bytes(16), b"c" * 16)
    assert not pair.world.inject(pair.alice, forged, pair.bob.address)
    assert pair.alice.endpoint.counters == {DropReason.BAD_TAG: 1}
    assert pair.session._initiation.attempt is attempt
    assert b"c" * 16 not in [cookie_in(data) for _, data in sent_inits(pair)]


def test_a_late_cookie_to_a_spent_handshake_is_consumed() -> None:
    """KA-4.3-8 KA-4.5-5: for 30 s after it was completed, without effect, if it verifies."""
    pair = Pair(bob=ALWAYS)
    init = first_init(pair)
    pair.world.inject(pair.bob, init, pair.alice.address)
    cookie = pair.bob.sent[0][1]
    pair.cut(cut=False)
    pair.session._begin_attempt(pair.now)
    pair.up()
    given_up = MS
    forged = bytearray(cookie)
    forged[-1] ^= 1
    before = len(pair.alice.sent), pair.session._channel.local_id, pair.alice.kinds()
    assert pair.world.inject(pair.alice, cookie, pair.bob.address)
    assert not pair.world.inject(pair.alice, bytes(forged), pair.bob.address)
    assert before == (len(pair.alice.sent), pair.session._channel.local_id, pair.alice.kinds())
    assert pair.alice.endpoint.counters == {DropReason.UNEXPECTED: 1, DropReason.BAD_TAG: 1}
    assert pair.session._initiation._cookie == NO_COOKIE
    pair.world.run_until(given_up + 30 * S - 1)
    assert pair.world.inject(pair.alice, cookie, pair.bob.address)
    pair.run(1)
    assert not pair.world.inject(pair.alice, cookie, pair.bob.address)


def test_a_late_cookie_is_consumed_after_a_connect_was_given_up() -> None:
    """KA-4.3-8: closed by its user while the answer was under way."""
    pair = Pair(bob=ALWAYS)
    init = first_init(pair)
    pair.world.inject(pair.bob, init, pair.alice.address)
    pair.session.close(pair.now)
    assert pair.world.inject(pair.alice, pair.bob.sent[0][1], pair.bob.address)
    assert pair.alice.endpoint.counters == {DropReason.UNEXPECTED: 1}
    assert len(sent_inits(pair)) == 1


def test_a_cookie_is_forgotten_with_the_response() -> None:
    """KA-4.5-6: the next handshake asks without one, and is asked again, at once."""
    pair = Pair(bob=ALWAYS).up()
    pair.session._begin_attempt(pair.now)
    began = pair.now
    pair.run(S)
    assert [cookie_in(data) == NO_COOKIE for _, data in sent_inits(pair)] == [
        *(True, False, True, False)
    ]
    assert [at - began for at, _ in sent_inits(pair)[2:]] == [0, 40 * MS]
    assert pair.session.stats.handshakes == 2


def test_a_cookie_is_forgotten_when_redirected() -> None:
    """KA-4.5-6: another responder is not shown the cookie of this one."""
    pair = Pair(bob=ALWAYS)
    pair.world.cut("alice", "bob", cut=False)
    pair.run(45 * MS)
    pair.cut()
    assert pair.session._initiation._cookie != NO_COOKIE
    carol = pair.world.add_node("carol", ALWAYS, KEY, accept=True)
    pair.session.redirect(carol.address, pair.now)
    pair.run(S)
    (_, shown, to), *_ = [entry for entry in pair.alice.sent if entry[2] == carol.address]
    assert to == carol.address
    assert cookie_in(shown) == NO_COOKIE
    assert pair.session.state is State.UP
    assert len(of_type(carol, FrameType.COOKIE)) == 1


def test_a_cookie_is_forgotten_when_the_peer_moves() -> None:
    """KA-4.5-6: by path validation too."""
    pair = Pair(bob=ALWAYS).up()
    pair.session._initiation._cookie = b"c" * 16
    pair.world.move(pair.bob, ("192.0.2.2", 2001))
    pair.far.pause(0, pair.now)
    pair.run(10 * S)
    assert pair.session.address == ("192.0.2.2", 2001)
    assert pair.session._initiation._cookie == NO_COOKIE


def test_a_good_client_gets_in_through_a_flood() -> None:
    """KA-4.5-2 KA-4.3-3: 300 INITs replayed from ever other addresses, twice as many as fit."""
    pair = Pair(bob=Config.server(max_embryos=64, cookie_threshold=32))
    pair.cut()
    inits = []
    for number in range(300):
        node = pair.world.add_node(f"n{number}", Config.wan(), KEY)
        node.endpoint.connect(("nowhere", 1), pair.now, key_id=KEY.key_id)
        inits.append(next(node.endpoint.datagrams_to_send())[0])
        node.endpoint.close(pair.now)
    pair.cut(cut=False)

    def flood(wave: int) -> None:
        for number, init in enumerate(inits):
            pair.world.inject(pair.bob, init, (f"198.51.{wave}.{number % 256}", 1 + number))

    for wave in range(20):
        pair.world.at(pair.now + wave * 50 * MS, lambda wave=wave: flood(wave))
    pair.run(MS)
    good = pair.world.add_node("good", Config.wan(), KEY, address=("203.0.113.7", 7))
    session = good.endpoint.connect(pair.bob.address, pair.now, key_id=KEY.key_id)
    pair.run(300 * MS)
    assert session.state is State.UP
    pair.run(10 * S)
    assert good.kinds() == ["SessionUp"]
    assert good.address in {session.address for session in pair.bob.endpoint.sessions}
    assert len(pair.bob.endpoint._context.routes.embryos) == 32


def test_an_address_without_canonical_bytes_has_a_cookie_too() -> None:
    """KA-4.5-3: as with `address_hash`, one that changes with the address."""
    assert address_bytes("somewhere") is None
    jar = Pair(bob=ALWAYS).bob.endpoint._cookies
    cookies = {jar.cookie(address, KEY.key_id, 0) for address in ("somewhere", "elsewhere")}
    assert len(cookies) == 2
    assert address_cookie(b"s", b"a", b"k") == hmac.digest(b"s", b"ak", "sha256")[:16]
