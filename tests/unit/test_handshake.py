"""core/handshake: both ends before there is a session."""

from random import Random

import pytest

from kaudp.config import Config
from kaudp.core.handshake import MAX_EMBRYO_ADDRESSES, Attempt, Embryo, Identity
from kaudp.core.session import own_parameters
from kaudp.errors import DropReason, Refused
from kaudp.wire import codec
from kaudp.wire.codec import Options
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import open_init
from tests.worlds import KEY

ADDRESS = ("192.0.2.1", 1000)
ALICE = Identity(b"i-alice-", b"e-alice-", own_parameters(Config.wan()))
BOB = Identity(b"i-bob---", b"e-bob---", own_parameters(Config.server()))


def begun(seed: int = 1, old: bytes = b"old-----", now: int = 7) -> Attempt:
    return Attempt(KEY, ALICE, old, Random(seed).randbytes, now)


def answered(attempt: Attempt, address: object = ADDRESS) -> Embryo:
    return Embryo(open_init(KEY, attempt.init), BOB, Random(2).randbytes, address, 9)


def test_an_attempt_says_who_it_is_and_what_it_continues() -> None:
    """KA-4.2-1 KA-4.3-5."""
    attempt = begun()
    assert (attempt.started, attempt.transmissions) == (7, 0)
    opened = open_init(KEY, attempt.init)
    assert opened.sender_session_id == attempt.session_id
    assert opened.payload == (
        b"i-alice-",
        b"e-alice-",
        b"old-----",
        ALICE.parameters,
        codec.NO_OPTIONS,
    )


def test_each_attempt_is_fresh() -> None:
    """KA-4.2-1: a session id and an ephemeral key of its own."""
    entropy = Random(1).randbytes
    one, two = (Attempt(KEY, ALICE, bytes(8), entropy, 0) for _ in range(2))
    assert one.session_id != two.session_id
    headers = [codec.parse_init_header(attempt.init) for attempt in (one, two)]
    assert headers[0].ephemeral != headers[1].ephemeral


def test_the_answer_gives_both_ends_the_same_keys() -> None:
    """KA-4.3-1 KA-4.3-3: the embryo keeps what a session will need."""
    attempt = begun()
    embryo = answered(attempt)
    assert (embryo.identifier, embryo.credential, embryo.answered) == (attempt.init, KEY, 9)
    assert embryo.payload.old_session_id == b"old-----"
    payload, channel = attempt.complete(embryo.response, 11)
    assert payload[1:4] == (b"i-bob---", b"e-bob---", BOB.parameters)
    assert payload.options == Options(address_seen=bytes([4, 3, 232, 192, 0, 2, 1]))
    assert channel.local_id == embryo.channel.remote_id == attempt.session_id
    assert channel.remote_id == embryo.channel.local_id == payload.sender_session_id
    assert len({channel.local_id, channel.remote_id}) == 2


def test_a_wrong_answer_leaves_the_attempt_waiting() -> None:
    """KA-4.3-6."""
    attempt = begun()
    embryo = answered(attempt)
    with pytest.raises(Refused) as refused:
        attempt.complete(embryo.response[:-1] + b"\0", 11)
    assert refused.value.reason is DropReason.BAD_TAG
    assert attempt.complete(embryo.response, 12)[0].epoch == b"e-bob---"


def test_an_opaque_address_is_not_told() -> None:
    """KA-9.2-4: it has no canonical bytes, so RESPONSE holds no option."""
    attempt = begun()
    payload, _ = attempt.complete(answered(attempt, "opaque").response, 11)
    assert payload.options == codec.NO_OPTIONS


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
