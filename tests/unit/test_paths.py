"""core/paths: canonical addresses and the move to a new one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaudp.core.paths import OwnAddress, PeerPath, Seen, address_bytes, address_from_bytes
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


def test_a_path_moves_when_the_candidate_confirms_what_it_was_sent() -> None:
    """KA-9.1-2."""
    path = PeerPath("old")
    assert not path.received("new", 10)
    path.sent("new", 11)
    path.sent("new", 12)
    assert not path.received("new", 10)
    assert not path.received("new", 13), "that one went to the old address"
    assert path.received("new", 11)
    assert path.address == "new"


def test_an_answer_from_the_old_address_wins() -> None:
    """KA-9.1-2."""
    path = PeerPath("old")
    path.received("new", 10)
    path.sent("new", 11)
    path.received("old", 11)
    assert not path.received("new", 11)
    assert path.address == "old"


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
