"""core/paths: canonical addresses and the move to a new one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaudp.core.paths import (
    OwnAddress,
    PeerPath,
    Seen,
    Validation,
    address_bytes,
    address_from_bytes,
    address_hash,
)
from kaudp.io.sockets import UdpAddress


@given(st.ip_addresses(), st.integers(0, 65535))
def test_canonical_bytes_survive(ip: object, port: int) -> None:
    """KA-9.2-4."""
    canonical = address_bytes((str(ip), port))
    assert canonical is not None
    mapped = getattr(ip, "ipv4_mapped", None)
    assert address_from_bytes(canonical) == (str(mapped or ip), port)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("::ffff:192.0.2.1", 5), ("192.0.2.1", 5)),
        (("fe80::1%eth0", 5, 0, 2), ("fe80::1", 5)),
        (UdpAddress(("192.0.2.1", 5), 0, 8, b"local"), ("192.0.2.1", 5)),
    ],
)
def test_the_same_address_in_other_words(one: object, two: object) -> None:
    assert address_bytes(one) == address_bytes(two)


@pytest.mark.parametrize("address", ["name", 5, None, (), ("name", 1), ("192.0.2.1", 70_000), b"x"])
def test_an_opaque_address_has_no_canonical_bytes(address: object) -> None:
    assert address_bytes(address) is None


def test_one_validation_at_a_time() -> None:
    """KA-9.3-1 KA-9.3-5."""
    path = PeerPath("old")
    assert not path.newest_came_from("old", 64, 0)
    assert path.newest_came_from("new", 64, 0)
    assert not path.newest_came_from("newer", 64, 1)
    path.end_validation(not_before=10)
    assert not path.newest_came_from("newer", 64, 9)
    assert path.newest_came_from("newer", 64, 10)


def test_a_new_address_gets_three_times_what_came_from_it() -> None:
    """KA-9.1-3 KA-9.3-6."""
    path = PeerPath("old")
    path.newest_came_from("new", 64, 0)
    validation = path.validation
    assert validation is not None
    assert validation.allows(192)
    assert not validation.allows(193)
    path.sent("new", 60)
    path.sent("new", 40)
    path.sent("old", 1000)
    assert not validation.allows(93)
    path.received("new", 64)
    path.received("old", 1000)
    assert validation.allows(284)
    assert not validation.allows(285)


def test_an_address_answers_by_the_challenge_that_was_sent_there() -> None:
    """KA-9.3-3 KA-9.3-4."""
    validation = Validation("new", 64)
    validation.challenged(b"to old", old=True)
    validation.challenged(b"to new", old=False)
    validation.challenged(b"to new again", old=False)
    assert not validation.old_answers(b"guessed")
    assert not validation.answered
    assert not validation.old_answers(b"to new")
    assert validation.answered
    assert validation.old_answers(b"to old")


def test_own_address() -> None:
    """KA-9.2-1 KA-9.2-2."""
    own = OwnAddress()
    assert own.learn(1, 0, None) is Seen.SAME
    assert own.learn(1, 0, None) is Seen.SAME
    assert own.learn(2, 0, None) is Seen.CHANGED
    own.asked(7)
    assert own.learn(2, 6, None) is Seen.SAME
    assert own.learn(2, 7, b"there") is Seen.ANSWERED
    assert own.learn(2, 8, None) is Seen.SAME
    own.restart()
    assert own.learn(9, 0, None) is Seen.SAME


def test_an_answer_that_got_lost_is_asked_for_again() -> None:
    """KA-9.2-2: three times at most."""
    own = OwnAddress()
    own.learn(1, 0, None)
    assert own.learn(2, 1, None) is Seen.CHANGED
    for number in (7, 9):
        own.asked(number)
        assert own.learn(2, number, None) is Seen.CHANGED
    own.asked(11)
    assert own.learn(2, 11, None) is Seen.ANSWERED
    assert own.learn(2, 12, None) is Seen.SAME


def test_canonical_bytes_by_example() -> None:
    """KA-9.2-4: family, port, address; an IPv4-mapped address is IPv4."""
    assert address_bytes(("192.0.2.1", 258)) == bytes([4, 1, 2, 192, 0, 2, 1])
    assert address_bytes(("::ffff:192.0.2.1", 258)) == bytes([4, 1, 2, 192, 0, 2, 1])
    assert address_bytes(("2001:db8::1", 258)) == bytes([6, 1, 2]) + bytes.fromhex(
        "20010db8000000000000000000000001"
    )


def test_the_hash_changes_with_the_address_and_its_receiver() -> None:
    """KA-9.2-4: the first 4 bytes of SHA-256, also for an opaque address."""
    known = hashlib.sha256(b"receiver" + bytes([4, 1, 2, 192, 0, 2, 1])).digest()
    assert address_hash(b"receiver", ("192.0.2.1", 258)) == int.from_bytes(known[:4], "big")
    opaque = [address_hash(one, two) for one in (b"receiver", b"another") for two in ("a", "b")]
    assert len(set(opaque)) == 4
    assert all(0 < number < 2**32 for number in opaque)


def test_a_validation_that_ended_leaves_the_address_as_it_was() -> None:
    """KA-9.3-1 KA-9.3-5: without a time to wait for, the next may begin at once."""
    path = PeerPath("old")
    path.newest_came_from("one", 64, 5)
    path.end_validation()
    assert path.validation is None
    assert path.address == "old"
    assert path.newest_came_from("two", 50, 5)
    assert path.validation is not None
    assert (path.validation.address, path.validation.received) == ("two", 50)
    assert (path.validation.sent, path.validation.tries) == (0, 0)


def test_nothing_is_counted_while_nothing_is_validated() -> None:
    """KA-9.1-3."""
    path = PeerPath("old")
    path.sent("new", 1000)
    path.received("new", 1000)
    path.newest_came_from("new", 64, 0)
    assert path.validation is not None
    assert (path.validation.sent, path.validation.received) == (0, 64)


def test_a_new_key_makes_new_hashes() -> None:
    """KA-9.2-1: under new keys nothing has changed yet, and nothing is asked."""
    own = OwnAddress()
    own.learn(1, 0, None)
    own.asked(5)
    own.restart()
    assert own.learn(2, 0, None) is Seen.SAME
    assert own.learn(3, 4, None) is Seen.CHANGED
    own.asked(6)
    assert own.learn(3, 5, b"early") is Seen.ANSWERED, "it was told unasked"
    assert own.learn(3, 6, None) is Seen.SAME
    own.asked(9)
    assert own.learn(3, 9, None) is Seen.CHANGED, "the first of three tries"
