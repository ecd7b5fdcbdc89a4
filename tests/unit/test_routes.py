"""core/routes: look-ups by id, what lingers, and the bounds."""

from typing import Any

import pytest

from kaudp.config import Config
from kaudp.core.handshake import EMBRYO_LIFETIME
from kaudp.core.routes import LINGER, Expiring, Routes
from tests.worlds import S


class Session:
    """What a session is to the routes."""

    def __init__(self, key_id: bytes = b"key") -> None:
        self.key_id = key_id
        self.connecting_at: tuple[bytes, bytes] | None = None
        self.peer_instance = b""


class Channel:
    def __init__(self, local_id: bytes) -> None:
        self.local_id = local_id


class Payload:
    def __init__(self, old_session_id: bytes) -> None:
        self.old_session_id = old_session_id


class Embryo:
    """What an embryo is to the routes."""

    def __init__(self, local_id: bytes, old: bytes = bytes(8), answered: int = 0) -> None:
        self.channel = Channel(local_id)
        self.identifier = b"INIT of " + local_id
        self.payload = Payload(old)
        self.answered = answered
        self.continues: Session | None = None
        self.epoch = b"one"

    def precedes_restart(self, later: "Embryo") -> bool:
        return self.epoch != later.epoch


class Attempt:
    def __init__(self, session_id: bytes) -> None:
        self.session_id = session_id


def routes(**limits: Any) -> Any:
    return Routes(Config.server(**limits))


def test_what_lingers_is_found_until_its_time_is_over() -> None:
    """KA-5.3-1."""
    kept: Expiring[str] = Expiring(10, 100)
    kept.add(b"a", "one", 5)
    assert kept.find(b"a", 104) == "one"
    assert kept.find(b"b", 50) is None
    assert kept.find(b"a", 105) is None
    assert kept.find(b"a", 50) is None, "it is forgotten, not hidden"


def test_at_the_bound_the_oldest_that_lingers_goes() -> None:
    """KA-11-2."""
    kept: Expiring[str] = Expiring(2, 100)
    for at, name in enumerate((b"a", b"b", b"c")):
        kept.add(name, name.decode(), at)
    assert [kept.find(name, 10) for name in (b"a", b"b", b"c")] == [None, "b", "c"]
    late: Expiring[str] = Expiring(2, 100)
    late.add(b"a", "a", 0)
    late.add(b"b", "b", 50)
    late.add(b"c", "c", 100)
    assert late.find(b"b", 100) == "b", "what is over makes room first"


def test_channels_and_attempts_linger_30_seconds() -> None:
    """KA-5.3-1 KA-4.3-8."""
    table = routes()
    channel, attempt = Channel(b"one"), Attempt(b"two")
    table.sessions[b"one"] = table.pending[b"two"] = Session()
    table.linger(channel, 7)
    table.spend(attempt, 7)
    assert not table.sessions
    assert not table.pending
    assert table.lingering(b"one", 6 + LINGER) is channel
    assert table.spent_attempt(b"two", 6 + LINGER) is attempt
    assert table.lingering(b"two", 8) is None
    assert table.lingering(b"one", 7 + LINGER) is None
    assert table.spent_attempt(b"two", 7 + LINGER) is None


@pytest.mark.parametrize("add", ["linger", "spend"])
def test_no_more_linger_than_there_may_be_sessions(add: str) -> None:
    """KA-11-2."""
    table = routes(max_sessions=2)
    for name in (b"a", b"b", b"c"):
        if add == "linger":
            table.linger(Channel(name), 0)
        else:
            table.pending[name] = Session()
            table.spend(Attempt(name), 0)
    find = table.lingering if add == "linger" else table.spent_attempt
    assert [find(name, 1) is not None for name in (b"a", b"b", b"c")] == [False, True, True]


def test_sessions_are_bounded_in_all_and_by_key() -> None:
    """KA-11-2."""
    table = routes(max_sessions=3, max_sessions_per_key=2)
    first, second, third = Session(b"one"), Session(b"one"), Session(b"two")
    table.add_session(first)
    assert not table.full(b"one")
    table.add_session(second)
    assert table.full(b"one")
    assert not table.full(b"two")
    table.add_session(third)
    assert table.full(b"two")
    table.remove_session(first)
    assert not table.full(b"one")
    table.add_session(first)
    assert table.full(b"two"), "three again"
    table.remove_session(first)
    table.remove_session(second)
    table.remove_session(third)
    assert not table.per_key, "a key without sessions leaves nothing behind"


def test_a_session_is_named_by_the_ids_it_was_given_last() -> None:
    """KA-4.3-5."""
    table, session = routes(), Session()
    table.rename(session, [], [b"a", b"b"])
    assert table.continued(b"a") is table.continued(b"b") is session
    table.rename(session, [b"a", b"b"], [b"b", b"c"])
    assert table.continued(b"a") is None
    assert table.continued(b"b") is table.continued(b"c") is session
    table.rename(session, [b"b", b"c"], [])
    assert not table.named


def test_a_chain_of_embryos_leads_to_the_session_that_they_continue() -> None:
    """KA-4.3-5: up to eight steps; a stranger's id leads nowhere."""
    table, session = routes(), Session()
    table.rename(session, [], [b"0"])
    for number in range(1, 10):
        table.add_embryo(Embryo(str(number).encode(), str(number - 1).encode()))
    assert table.continued(b"0") is session
    assert table.continued(b"1") is session
    assert table.continued(b"7") is session
    assert table.continued(b"8") is None
    assert table.continued(b"stranger") is None
    table.add_embryo(Embryo(b"x", b"nobody"))
    assert table.continued(b"x") is None


def test_an_embryo_is_found_by_its_init_and_its_id_for_30_seconds() -> None:
    """KA-4.3-2 KA-4.3-3."""
    table = routes()
    one, two = Embryo(b"one", answered=0), Embryo(b"two", answered=5 * S)
    table.add_embryo(one)
    table.add_embryo(two)
    assert table.embryo_of_init(one.identifier, EMBRYO_LIFETIME - 1) is one
    assert table.embryo_of_init(one.identifier, EMBRYO_LIFETIME) is None
    assert list(table.embryos) == [b"two"]
    assert table.embryo_of_init(two.identifier, EMBRYO_LIFETIME) is two
    table.remove_embryo(two)
    assert table.embryo_of_init(two.identifier, 0) is None
    assert not table.embryos


def test_the_oldest_embryo_gives_way() -> None:
    """KA-4.3-3."""
    table = routes(max_embryos=2)
    embryos = [Embryo(name) for name in (b"a", b"b", b"c")]
    for embryo in embryos:
        table.add_embryo(embryo)
    assert list(table.embryos) == [b"b", b"c"]
    assert table.embryo_of_init(embryos[0].identifier, 0) is None
    table.forget_embryos()
    assert [table.embryo_of_init(e.identifier, 0) for e in embryos] == [None] * 3
    assert not table.embryos


def test_a_first_handshake_is_found_by_its_address_and_key() -> None:
    """KA-4.6-1: whichever way the address is written; one at a time, until it is over."""
    table, session, later = routes(), Session(), Session()
    here, mapped = ("192.0.2.1", 5), ("::ffff:192.0.2.1", 5)
    table.connect_at(session, here)
    assert table.connecting_to(b"key", mapped) is session
    assert table.connecting_to(b"other", here) is None
    assert table.connecting_to(b"key", ("192.0.2.1", 6)) is None
    table.connect_at(session, "elsewhere")
    assert table.connecting_to(b"key", here) is None, "it went on at another address"
    assert table.connecting_to(b"key", "elsewhere") is session
    table.connect_at(later, "elsewhere")
    table.connected(session)
    assert table.connecting_to(b"key", "elsewhere") is later, "not the place of another"
    table.connected(later)
    table.connected(later)
    assert not table.connecting
    assert later.connecting_at is None


def test_sessions_with_an_instance_are_known_by_it() -> None:
    """KA-4.6-3 KA-4.7-1."""
    table, one, two = routes(), Session(), Session()
    for session in (one, two):
        table.add_session(session)
    table.know_peer(one, b"instance")
    table.know_peer(one, b"instance")
    table.know_peer(two, b"instance")
    assert table.sessions_with(b"key", b"instance") == [one, two]
    assert table.sessions_with(b"other", b"instance") == []
    table.know_peer(one, b"another")
    assert table.sessions_with(b"key", b"instance") == [two]
    assert table.sessions_with(b"key", b"another") == [one]
    table.forget_peer(two)
    table.forget_peer(two)
    assert two.peer_instance == b""
    table.remove_session(one)
    assert not table.peers, "an instance without sessions leaves nothing behind"


def test_a_session_takes_its_place_along_to_another_key() -> None:
    """KA-4.8-1 KA-11-2."""
    table, session = routes(max_sessions_per_key=1), Session(b"old")
    table.add_session(session)
    table.know_peer(session, b"instance")
    assert table.key_full(b"old")
    table.rekey(session, b"new")
    assert session.key_id == b"new"
    assert not table.key_full(b"old")
    assert table.key_full(b"new")
    assert table.per_key == {b"new": 1}
    assert table.sessions_with(b"old", b"instance") == []
    assert table.sessions_with(b"new", b"instance") == [session]


def test_embryos_answered_before_the_one_that_goes_on_expire() -> None:
    """KA-4.3-9: those of the same session, by its name or because they were made for it."""
    table, session, other = routes(), Session(), Session()
    table.rename(session, [], [b"s"])
    table.rename(other, [], [b"o"])
    older, chosen = Embryo(b"1", b"s", 5), Embryo(b"2", b"s", 7)
    same_time, later = Embryo(b"3", b"s", 7), Embryo(b"4", b"s", 8)
    anothers, named = Embryo(b"5", b"o", 1), Embryo(b"6", b"gone", 1)
    named.continues = session
    former = Embryo(b"7", b"o", 1)
    former.epoch = b"zero"
    for embryo in (older, chosen, same_time, later, anothers, named, former):
        table.add_embryo(embryo)
    table.expire_older(session, chosen)
    assert list(table.embryos.values()) == [chosen, later, anothers]
