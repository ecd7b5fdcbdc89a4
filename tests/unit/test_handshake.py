"""core/handshake: both ends before there is a session."""

from random import Random

import pytest

from kaudp.config import Config
from kaudp.core.agreement import own_parameters
from kaudp.core.context import Context
from kaudp.core.handshake import MAX_EMBRYO_ADDRESSES, Attempt, Embryo, Identity
from kaudp.core.routes import LINGER
from kaudp.core.totals import Totals
from kaudp.errors import DropReason, Refused
from kaudp.wire import codec
from kaudp.wire.codec import NO_OPTIONS, InitPayload, Options
from kaudp.wire.cookies import NO_COOKIE
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import open_init
from tests.worlds import KEY, S

ADDRESS = ("192.0.2.1", 1000)
ALICE = Identity(b"i-alice-", b"e-alice-", None)
BOB = Identity(b"i-bob---", b"e-bob---", 1_780_000_000 * S)
WAN, SERVER = own_parameters(Config.wan()), own_parameters(Config.server())
SAID = InitPayload(b"i-alice-", b"e-alice-", b"old-----", WAN)


def context(identity: Identity, seed: int = 1) -> Context:
    draw = Random(seed)
    return Context(
        Config.wan(), identity, {KEY.key_id: KEY}.get, draw, draw.randbytes, LINGER, Totals(), None
    )


def begun(told: InitPayload = SAID, cookie: bytes = NO_COOKIE) -> Attempt:
    return Attempt(context(ALICE), KEY, told, cookie, 7)


def answered(attempt: Attempt, address: object = ADDRESS) -> Embryo:
    opened, bob = open_init(KEY, attempt.init), context(BOB, 2)
    return Embryo(opened, bob, SERVER, address, 9, continues=None, admitted=True)


def test_an_attempt_says_who_it_is_and_what_it_continues() -> None:
    """KA-4.2-1 KA-4.3-5."""
    attempt = begun()
    assert (attempt.started, attempt.transmissions) == (7, 0)
    opened = open_init(KEY, attempt.init)
    assert opened.sender_session_id == attempt.session_id
    assert opened.payload == attempt.told == SAID
    assert codec.parse_init_header(attempt.init).cookie == attempt.cookie == NO_COOKIE
    with_a_cookie = begun(cookie=b"a cookie 16 long")
    assert codec.parse_init_header(with_a_cookie.init).cookie == with_a_cookie.cookie


def test_each_attempt_is_fresh() -> None:
    """KA-4.2-1: a session id and an ephemeral key of its own."""
    alice = context(ALICE)
    one, two = (Attempt(alice, KEY, SAID, NO_COOKIE, 0) for _ in range(2))
    assert one.session_id != two.session_id
    headers = [codec.parse_init_header(attempt.init) for attempt in (one, two)]
    assert headers[0].ephemeral != headers[1].ephemeral


def test_the_answer_gives_both_ends_the_same_keys() -> None:
    """KA-4.3-1 KA-4.3-3: the embryo keeps what a session will need."""
    attempt = begun()
    embryo = answered(attempt)
    assert (embryo.identifier, embryo.credential, embryo.answered) == (attempt.init, KEY, 9)
    assert embryo.payload.old_session_id == b"old-----"
    payload, channel = attempt.complete(embryo.response, None)
    assert payload == embryo.told
    assert payload[1:4] == (b"i-bob---", b"e-bob---", SERVER)
    assert payload.options == Options(address_seen=bytes([4, 3, 232, 192, 0, 2, 1]))
    assert channel.local_id == embryo.channel.remote_id == attempt.session_id
    assert channel.remote_id == embryo.channel.local_id == payload.sender_session_id
    assert len({channel.local_id, channel.remote_id}) == 2


def test_a_wrong_answer_leaves_the_attempt_waiting() -> None:
    """KA-4.3-6."""
    attempt = begun()
    embryo = answered(attempt)
    with pytest.raises(Refused) as refused:
        attempt.complete(embryo.response[:-1] + b"\0")
    assert refused.value.reason is DropReason.BAD_TAG
    assert attempt.complete(embryo.response)[0].epoch == b"e-bob---"


def test_an_opaque_address_is_not_told() -> None:
    """KA-9.2-4: it has no canonical bytes, so RESPONSE holds no option."""
    attempt = begun()
    payload, _ = attempt.complete(answered(attempt, "opaque").response)
    assert payload.options == NO_OPTIONS


def test_new_keys_begin_where_response_was_sent() -> None:
    """KA-9.1-4 KA-4.3-2: at the first frame's source if the answer went there too."""
    embryo = answered(begun(), "one")
    assert embryo.address_proven_by("one") == "one"
    assert embryo.address_proven_by("two") == "one"
    first = embryo.response
    assert embryo.answer("two") == first, "the same bytes again"
    assert embryo.address_proven_by("two") == "two"
    assert embryo.address_proven_by("three") == "one"


def test_an_embryo_remembers_four_addresses() -> None:
    """KA-9.1-4 KA-11-2: the fifth gets its answer, and proves the first."""
    embryo = answered(begun(), 0)
    for address in (0, 1, 1, 2, 3, 4):
        embryo.answer(address)
    proven = [embryo.address_proven_by(address) for address in range(6)]
    assert proven == [0, 1, 2, 3, 0, 0]
    assert MAX_EMBRYO_ADDRESSES == 4


def test_init_and_response_are_frames() -> None:
    """KA-4.3-1: and the answer is not longer than the question."""
    attempt = begun()
    embryo = answered(attempt, ("2001:db8::1", 9))
    assert codec.classify(attempt.init) is FrameType.INIT
    assert codec.classify(embryo.response) is FrameType.RESPONSE
    assert len(embryo.response) <= len(attempt.init)


def test_a_responder_tells_its_clock_where_the_initiator_did() -> None:
    """KA-10.3-2: the time of day of the instant that its times count from, in us."""
    untold, _ = begun().complete(answered(begun()).response)
    assert untold.options.clock_us is None
    asked = begun(SAID._replace(options=Options(clock_us=1)))
    told, _ = asked.complete(answered(asked).response)
    assert told.options.clock_us == 1_780_000_000_000_000
    assert BOB.clock_us(2_999) == 1_780_000_000_000_002
    assert ALICE.clock_us(2_999) is None


def test_the_lower_epoch_responds() -> None:
    """KA-4.6-1."""
    assert ALICE.precedes(b"e-bob---")
    assert not BOB.precedes(b"e-alice-")
    assert not BOB.precedes(b"e-bob---")


def test_the_secrets_are_told_with_the_id_that_their_frames_bear() -> None:
    """KA-4.4-4: those of one direction by the id of its receiver, alike at both sides."""
    told: list[dict[bytes, bytes]] = [{}, {}]
    attempt, bob = begun(), context(BOB, 2)
    bob.on_secrets = told[0].__setitem__
    opened = open_init(KEY, attempt.init)
    embryo = Embryo(opened, bob, SERVER, ADDRESS, 9, continues=None, admitted=False)
    attempt.complete(embryo.response, told[1].__setitem__)
    assert told[0] == told[1]
    assert set(told[0]) == {attempt.session_id, embryo.channel.local_id}
    assert len(set(told[0].values())) == 2
