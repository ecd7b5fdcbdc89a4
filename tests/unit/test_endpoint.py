"""core/endpoint: who is let in, who continues, and what the door says."""

from random import Random

import pytest

from kaudp.config import Config
from kaudp.core.endpoint import Endpoint
from kaudp.errors import DropReason, KeyFormatError, SessionStateError
from kaudp.events import CloseReason, State
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import Carried, open_init
from tests.worlds import KEY, MS, Pair, S, of_type

ONE, TWO = ("192.0.2.1", 1), ("192.0.2.2", 2)


def endpoint(
    seed: int, keys: object = KEY, config: Config | None = None, **how: object
) -> Endpoint:
    rng = Random(seed)
    return Endpoint(config or Config.server(), keys=keys, rng=rng, entropy=rng.randbytes, **how)


def first(sender: Endpoint) -> bytes:
    """Give the one datagram that waits."""
    ((data, _),) = sender.datagrams_to_send()
    return data


def init_of(seed: int, keys: object = KEY, **how: object) -> tuple[Endpoint, bytes]:
    client = endpoint(seed, keys, Config.wan(), **how)
    client.connect(TWO, 0, key_id=keys.key_id)
    return client, first(client)


def test_an_instance_id_is_kept_and_told() -> None:
    """KA-3.3-1: the sender's identity across restarts; the epoch is drawn at each start."""
    payloads = [
        open_init(KEY, init_of(seed, instance_id=b"12345678")[1]).payload for seed in (1, 2)
    ]
    assert [payload.instance_id for payload in payloads] == [b"12345678"] * 2
    assert payloads[0].epoch != payloads[1].epoch
    drawn = [open_init(KEY, init_of(seed)[1]).payload.instance_id for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_a_full_endpoint_lets_a_session_go_on_under_new_keys() -> None:
    """KA-4.3-5 KA-11-2: and lets no other in."""
    pair = Pair(bob=Config.server(max_sessions=1)).up()
    far = pair.far
    pair.session._begin_attempt(pair.now)
    pair.run(S)
    assert pair.session.stats.handshakes == far.stats.handshakes == 2
    assert pair.bob.endpoint.sessions == [far]
    assert not pair.bob.endpoint.counters[DropReason.SESSION_LIMIT]
    _, stranger = init_of(9)
    assert pair.bob.endpoint.receive_datagram(stranger, ONE, pair.now)
    assert pair.bob.endpoint.counters[DropReason.SESSION_LIMIT] == 1


def test_of_two_that_were_answered_only_one_gets_the_last_place() -> None:
    """KA-11-2 KA-2-5: the other's first PROBE verifies, so it is consumed, and nothing more."""
    server = endpoint(5, config=Config.server(max_sessions=1), accept=True)
    probes = []
    for seed in (1, 2):
        client, init = init_of(seed)
        assert server.receive_datagram(init, ONE, 0)
        assert client.receive_datagram(first(server), TWO, 0)
        probes.append(first(client))
    assert server.receive_datagram(probes[0], ONE, 0)
    assert first(server)[1] == FrameType.REPLY
    assert server.receive_datagram(probes[1], ONE, 0)
    assert server.counters == {DropReason.SESSION_LIMIT: 1}
    assert not list(server.datagrams_to_send())
    assert len(server.sessions) == 1


@pytest.mark.parametrize("end", ["close", "abandon"])
def test_an_endpoint_that_has_ended_accepts_no_more(end: str) -> None:
    """KA-14.7-1: nor what it had answered before."""
    server = endpoint(5, accept=True)
    client, init = init_of(1)
    assert server.receive_datagram(init, ONE, 0)
    assert client.receive_datagram(first(server), TWO, 0)
    probe = first(client)
    if end == "close":
        server.close(0)
    else:
        server.abandon(0, CloseReason.CARRIER_IDLE, by_peer=False)
    assert server.receive_datagram(init_of(2)[1], ONE, 0)
    assert not server.receive_datagram(probe, ONE, 0)
    assert server.counters == {DropReason.NOT_ACCEPTING: 1, DropReason.UNKNOWN_SESSION: 1}
    assert server.quiet


def test_each_carried_init_gets_its_own_answer() -> None:
    """KA-4.3-2 KA-14.1-4: inside QUIC too, and the same one the same answer again."""
    server = endpoint(5, Carried(), accept=True)
    answers = []
    for seed in (1, 2, 1):
        client, init = init_of(seed, Carried())
        assert server.receive_datagram(init, ONE, 0)
        answers.append(first(server))
        assert client.receive_datagram(answers[-1], TWO, 0)
    assert answers[0] == answers[2] != answers[1]


def test_an_endpoint_is_reconfigured_only_before_its_sessions_are_up() -> None:
    """KA-8.1-1: what was asked for anew is what the next INIT says."""
    client, _ = init_of(1)
    client.reconfigure(Config.wan(interval_ms=7_000), 5 * MS)
    said = open_init(KEY, first(client)).payload.parameters
    assert said.desired_interval_us == 7_000_000
    pair = Pair().up()
    for node in (pair.alice, pair.bob):
        with pytest.raises(SessionStateError) as error:
            node.endpoint.reconfigure(Config.wan(), pair.now)
        assert str(error.value) == "expected no established session, got one"


def test_an_embryo_is_in_the_way_of_a_new_configuration_too() -> None:
    """KA-4.3-3: its parameters were told."""
    server = endpoint(5, accept=True)
    server.receive_datagram(init_of(1)[1], ONE, 0)
    with pytest.raises(SessionStateError):
        server.reconfigure(Config.server(), 0)


def test_a_key_that_the_source_lacks_is_one_clear_error() -> None:
    """KA-4.1-2."""
    with pytest.raises(KeyFormatError) as error:
        endpoint(1).connect(TWO, 0, key_id=bytes(16))
    assert str(error.value) == f"expected a key id of the key source, got {'00' * 16}"


def test_an_unknown_key_leaves_the_datagram_to_the_application() -> None:
    """KA-2-3 KA-12-1."""
    server = endpoint(5, {}, accept=True)
    assert not server.receive_datagram(init_of(1)[1], ONE, 0)
    assert server.counters == {DropReason.UNKNOWN_KEY: 1}


def test_a_timer_that_is_not_due_does_nothing() -> None:
    """KA-8.2-3."""
    pair = Pair().up()
    due = pair.alice.endpoint.next_timer()
    assert due is not None
    before = len(of_type(pair.alice, FrameType.PROBE))
    pair.alice.endpoint.handle_timer(due - 1)
    assert pair.alice.endpoint.next_timer() == due
    assert not list(pair.alice.endpoint.datagrams_to_send())
    assert len(of_type(pair.alice, FrameType.PROBE)) == before
    assert pair.session.state is State.UP


def test_it_tells_why_it_refused_the_last_datagram() -> None:
    """KA-2-4 KA-12-1: None as soon as one was accepted."""
    server = endpoint(1, accept=True)
    _, init = init_of(2)
    assert not server.receive_datagram(b"something else", ONE, 0)
    assert server.refusal is DropReason.NOT_KAUDP
    assert server.receive_datagram(init, ONE, 0)
    assert server.refusal is None


def test_of_two_inits_that_meet_one_is_consumed_and_not_answered() -> None:
    """KA-4.6-1 KA-2-5: nor is the other let in once nobody waits for it any more."""
    met = []
    for seed, at, other in ((1, ONE, TWO), (2, TWO, ONE)):
        side = endpoint(seed, config=Config.wan())
        session = side.connect(other, 0, key_id=KEY.key_id)
        met.append((side, session, first(side), at))
    met.sort(key=lambda one: open_init(KEY, one[2]).payload.epoch)
    (low, waiting, low_init, low_at), (high, _, high_init, high_at) = met
    assert high.receive_datagram(low_init, low_at, 0)
    assert high.refusal is DropReason.CROSSED
    assert not list(high.datagrams_to_send())
    assert low.receive_datagram(high_init, high_at, 0)
    assert high.receive_datagram(first(low), low_at, 0)
    waiting.close(0)
    list(low.datagrams_to_send())
    assert low.receive_datagram(first(high), high_at, 0), "its tag verifies"
    assert low.refusal is DropReason.NOT_ACCEPTING
    assert not low.sessions
