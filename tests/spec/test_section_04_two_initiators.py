"""Section 4.6: two endpoints that connect to each other."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.core.endpoint import Endpoint
from kaudp.core.session import Session
from kaudp.errors import DropReason
from kaudp.events import State
from kaudp.sim import Conditions, Node, World
from kaudp.sim.link import Link
from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, MS, S, forge, of_type

PATIENT = {"connect_timeout_ms": 60_000}


class Scripted(Link):
    """A link whose first datagrams have delays of their own, in ms; None: lost."""

    __slots__ = ("script",)

    def __init__(self, script: list[int | None], link: Link) -> None:
        super().__init__(link.conditions, link._rng)
        self.script = list(script)

    def arrivals(self, now: int) -> list[int]:
        if not self.script or self.cut:
            return super().arrivals(now)
        delay = self.script.pop(0)
        return [] if delay is None else [now + delay * MS]


class Meeting:
    """low and high connect to each other; low has the lower epoch, so it is to respond."""

    def __init__(
        self,
        seed: object = 1,
        *,
        accept: tuple[Any, Any] = (False, False),
        config: Config | None = None,
        **conditions: Any,
    ) -> None:
        self.world = World(seed, conditions=Conditions(**conditions))
        one, other = (
            self.world.add_node(name, config or Config.wan(**PATIENT), KEY, address=(host, 1000))
            for name, host in (("one", "192.0.2.1"), ("other", "192.0.2.2"))
        )
        self.low, self.high = sorted((one, other), key=epoch)
        for node, accepts in zip((self.low, self.high), accept, strict=True):
            node.endpoint._accept = accepts

    def connect(self, node: Node, after: int = 0) -> None:
        """Let a node connect to the other one, in `after` ns, unless it has a session then."""
        peer = self.high if node is self.low else self.low

        def connect() -> None:
            if not node.endpoint.sessions:
                node.endpoint.connect(peer.address, self.world.now, key_id=KEY.key_id)

        self.world.at(self.world.now + after, connect)

    def script(self, source: Node, *delays: int | None) -> None:
        target = self.high if source is self.low else self.low
        link = self.world.link(source.name, target.name)
        self.world.links[source.name, target.name] = Scripted(list(delays), link)

    def run(self, duration: int) -> "Meeting":
        self.world.run_for(duration)
        return self

    def session(self, node: Node) -> Session:
        (session,) = node.endpoint.sessions
        return session

    def assert_one_session(self) -> None:
        """Both are UP under the same keys, in opposite roles, and hear each other."""
        low, high = self.session(self.low), self.session(self.high)
        assert low.state is high.state is State.UP
        assert low._channel.local_id == high._channel.remote_id
        assert high._channel.local_id == low._channel.remote_id
        assert {low.initiator, high.initiator} == {True, False}
        for node in (self.low, self.high):
            routes = node.endpoint._context.routes
            assert not routes.pending
            assert not routes.connecting
            assert len(routes.sessions) == sum(routes.per_key.values()) == 1
        before = [s.stats.round_trips for s in (low, high)]
        suspicions = [s.stats.suspicions for s in (low, high)]
        self.run(60 * S)
        assert low.initiator or high.stats.round_trips > before[1]
        assert high.initiator or low.stats.round_trips > before[0]
        assert [s.stats.suspicions for s in (low, high)] == suspicions


def epoch(node: Node) -> bytes:
    return node.endpoint._context.identity.epoch


@pytest.mark.parametrize("accept", [(False, False), (True, True), (False, True), (True, False)])
@pytest.mark.parametrize("lead", [-60, -30, -20, -1, 0, 1, 20, 30, 60])
def test_two_that_connect_get_one_session(accept: tuple[bool, bool], lead: int) -> None:
    """KA-4.6-1 KA-4.6-2 KA-4.6-3: whoever is first, by less or more than the way is long."""
    meeting = Meeting(accept=accept)
    meeting.connect(meeting.low, max(0, lead) * MS)
    meeting.connect(meeting.high, max(0, -lead) * MS)
    meeting.run(5 * S)
    meeting.assert_one_session()
    for node in (meeting.low, meeting.high):
        assert node.kinds() == ["SessionUp"]


def test_the_lower_epoch_answers_and_responds() -> None:
    """KA-4.6-1 KA-4.6-2: the session that its connect gave is established, as responder."""
    meeting = Meeting()
    meeting.connect(meeting.low)
    meeting.connect(meeting.high)
    meeting.run(S)
    assert len(of_type(meeting.low, FrameType.RESPONSE)) == 1
    assert of_type(meeting.high, FrameType.RESPONSE) == []
    assert meeting.high.endpoint.counters[DropReason.CROSSED] >= 1
    assert meeting.high.endpoint.counters[DropReason.NOT_ACCEPTING] == 0
    assert not meeting.session(meeting.low).initiator
    assert meeting.session(meeting.high).initiator
    (event,) = meeting.low.events
    assert event.session is meeting.session(meeting.low)
    assert not meeting.low.endpoint._context.routes.pending


def test_an_init_under_another_key_or_from_elsewhere_meets_nothing() -> None:
    """KA-4.6-1: who accepts none answers only the peer it connects to, under the same key."""
    meeting = Meeting()
    meeting.connect(meeting.low)
    meeting.connect(meeting.high)
    meeting.world.cut_both("one", "other")
    meeting.run(MS)
    ((_, init, _),) = of_type(meeting.high, FrameType.INIT)
    assert meeting.world.inject(meeting.low, init, ("192.0.2.2", 1001))
    assert meeting.low.endpoint.counters == {DropReason.NOT_ACCEPTING: 1}
    assert of_type(meeting.low, FrameType.RESPONSE) == []
    assert meeting.world.inject(meeting.low, init, meeting.high.address)
    assert len(of_type(meeting.low, FrameType.RESPONSE)) == 1


def test_holes_are_punched_from_both_sides() -> None:
    """KA-4.6-1 KA-4.6-2: NATs drop what comes in before something went out; none accepts."""
    meeting = Meeting()
    meeting.world.cut_both("one", "other")
    meeting.connect(meeting.low)
    meeting.connect(meeting.high, 3 * S)
    meeting.run(4 * S)
    meeting.world.cut_both("one", "other", cut=False)
    meeting.run(30 * S)
    meeting.assert_one_session()


@pytest.mark.parametrize("accept", [(False, False), (True, True)])
def test_a_crossing_survives_losses(accept: tuple[bool, bool]) -> None:
    """KA-4.6-1 to KA-4.6-3: any of the first three frames of either side are lost."""
    for lead in (0, 30, 50):
        for lost in range(64):
            meeting = Meeting(accept=accept)
            fates = [None if lost >> bit & 1 else 20 for bit in range(6)]
            meeting.script(meeting.low, *fates[:3])
            meeting.script(meeting.high, *fates[3:])
            meeting.connect(meeting.low)
            meeting.connect(meeting.high, lead * MS)
            meeting.run(120 * S)
            assert_settled(meeting)


FATES = st.lists(st.one_of(st.none(), st.integers(1, 400)), max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32),
    FATES,
    FATES,
    st.integers(-500, 500),
    st.tuples(st.booleans(), st.booleans()),
)
def test_whatever_the_order_of_crossing_both_are_up(
    seed: int,
    there: list[int | None],
    back: list[int | None],
    lead: int,
    accept: tuple[bool, bool],
) -> None:
    """KA-4.6-1 to KA-4.6-3: delays, loss and reordering of the first frames of both sides."""
    meeting = Meeting(seed, accept=accept)
    meeting.script(meeting.low, *there)
    meeting.script(meeting.high, *back)
    meeting.connect(meeting.low, max(0, lead) * MS)
    meeting.connect(meeting.high, max(0, -lead) * MS)
    meeting.run(150 * S)
    assert_settled(meeting)


def assert_settled(meeting: Meeting) -> None:
    """Nobody hangs or was convicted; every session has its counterpart at the other side."""
    low, high = meeting.low.endpoint.sessions, meeting.high.endpoint.sessions
    for node in (meeting.low, meeting.high):
        assert not {"SessionDown", "SessionHalfOpen", "ConnectFailed"} & set(node.kinds())
        assert not node.endpoint._context.routes.pending
        assert not node.endpoint._context.routes.connecting
    assert all(session.state is State.UP for session in (*low, *high))
    names = {(s._channel.local_id, s._channel.remote_id): s.initiator for s in low}
    peers = {(s._channel.remote_id, s._channel.local_id): not s.initiator for s in high}
    assert names == peers
    assert len(names) == 1


def test_a_reflected_init_is_no_peer() -> None:
    """KA-4.2-5 KA-4.6-1: also while a first handshake with that very address is under way."""
    meeting = Meeting(accept=(True, True))
    meeting.connect(meeting.low)
    meeting.world.cut_both("one", "other")
    meeting.run(MS)
    ((_, init, _),) = meeting.low.sent
    assert meeting.world.inject(meeting.low, init, meeting.high.address)
    assert meeting.low.endpoint.counters == {DropReason.OWN_EPOCH: 1}
    assert len(meeting.low.sent) == 1


def test_reflected_frames_open_nothing() -> None:
    """KA-2-3 KA-4.6-3: PROBE, REPLY, CLOSE and RESPONSE thrown back at their sender are not its."""
    meeting = Meeting(accept=(True, True))
    meeting.connect(meeting.low)
    meeting.connect(meeting.high)
    meeting.run(20 * S)
    for node in (meeting.low, meeting.high):
        before = len(node.sent), [s.stats for s in node.endpoint.sessions], node.kinds()
        for _, data, to in list(node.sent):
            if data[1] != FrameType.INIT:
                assert not meeting.world.inject(node, data, to)
        assert before == (len(node.sent), [s.stats for s in node.endpoint.sessions], node.kinds())
    meeting.assert_one_session()


@pytest.mark.parametrize("accept", [(False, False), (True, True)])
def test_roles_last_over_suspicion_and_a_new_handshake(accept: tuple[bool, bool]) -> None:
    """KA-4.6-2 KA-7.4-5: the initiator's handshake continues the session, whoever accepts."""
    meeting = Meeting(accept=accept)
    meeting.connect(meeting.low)
    meeting.connect(meeting.high)
    meeting.run(5 * S)
    low, high = meeting.session(meeting.low), meeting.session(meeting.high)
    meeting.world.cut_both("one", "other")
    meeting.run(60 * S)
    assert low.state is high.state is State.DOWN
    meeting.world.cut_both("one", "other", cut=False)
    meeting.run(60 * S)
    meeting.assert_one_session()
    assert meeting.session(meeting.low) is low
    assert meeting.session(meeting.high) is high
    assert not low.initiator
    high._begin_attempt(meeting.world.now)
    before = high.stats.handshakes
    meeting.run(5 * S)
    assert low.stats.handshakes == high.stats.handshakes == before + 1
    meeting.assert_one_session()


def test_of_two_that_are_up_already_the_lower_takes_the_keys_of_the_other() -> None:
    """KA-4.6-3: both answered before they connected, and both got a RESPONSE."""
    meeting = Meeting(accept=(True, True))
    low, high = both_up_by_response(meeting)
    of_high = forge(high, FrameType.PROBE, meeting.world.now)
    of_low = forge(low, FrameType.PROBE, meeting.world.now)
    keys = high._channel
    assert meeting.world.inject(meeting.high, of_low, meeting.low.address)
    assert meeting.high.endpoint.counters == {DropReason.CROSSED: 1}
    assert high._channel is keys
    assert high.initiator
    assert meeting.world.inject(meeting.low, of_high, meeting.high.address)
    assert low._channel.remote_id == keys.local_id
    assert not low.initiator
    meeting.world.cut_both("one", "other", cut=False)
    meeting.run(5 * S)
    meeting.assert_one_session()


def both_up_by_response(meeting: Meeting) -> tuple[Session, Session]:
    """Let both answer an INIT of the other, connect, and be UP by RESPONSE, unheard."""
    meeting.world.cut_both("one", "other")
    meeting.connect(meeting.low)
    meeting.connect(meeting.high)
    meeting.run(MS)
    nodes = (meeting.low, meeting.high)
    waiting = [next(iter(n.endpoint._context.routes.pending.values())) for n in nodes]
    inits = [of_type(node, FrameType.INIT)[0][1] for node in nodes]
    for node, init, peer in ((nodes[1], inits[0], nodes[0]), (nodes[0], inits[1], nodes[1])):
        connecting = dict(node.endpoint._context.routes.connecting)
        node.endpoint._context.routes.connecting.clear()
        assert meeting.world.inject(node, init, peer.address)
        node.endpoint._context.routes.connecting.update(connecting)
    for node, peer in (nodes, nodes[::-1]):
        ((_, response, _),) = of_type(peer, FrameType.RESPONSE)
        assert meeting.world.inject(node, response, peer.address)
    assert all(session.state is State.UP for session in waiting)
    return waiting[0], waiting[1]


def test_an_init_that_was_answered_is_answered_again() -> None:
    """KA-4.3-2 KA-4.6-1: also when the side that answered it connects itself meanwhile."""
    meeting = Meeting(accept=(False, True))
    meeting.script(meeting.high, None)
    meeting.connect(meeting.low)
    meeting.run(100 * MS)
    meeting.world.cut("other", "one")
    meeting.world.cut("one", "other")
    meeting.connect(meeting.high)
    meeting.run(MS)
    init = of_type(meeting.low, FrameType.INIT)[0][1]
    assert meeting.world.inject(meeting.high, init, meeting.low.address)
    first, second = (data for _, data, _ in of_type(meeting.high, FrameType.RESPONSE))
    assert first == second
    assert meeting.high.endpoint.counters[DropReason.CROSSED] == 0
    meeting.world.cut_both("one", "other", cut=False)
    meeting.run(20 * S)
    meeting.assert_one_session()


def test_a_second_connect_of_the_same_peer_is_another_session() -> None:
    """KA-4.6-3: when the first is established and confirmed, nothing crosses any more."""
    meeting = Meeting(accept=(True, True))
    meeting.connect(meeting.low)
    meeting.run(10 * S)
    first = meeting.session(meeting.low)
    meeting.high.endpoint.connect(meeting.low.address, meeting.world.now, key_id=KEY.key_id)
    meeting.run(10 * S)
    assert len(meeting.low.endpoint.sessions) == len(meeting.high.endpoint.sessions) == 2
    assert meeting.low.endpoint.counters[DropReason.CROSSED] == 0
    assert first.initiator
    states = [s.state for node in (meeting.low, meeting.high) for s in node.endpoint.sessions]
    assert states == [State.UP] * 4


@pytest.mark.parametrize("hook", [False, True])
def test_an_embryo_of_a_connect_that_was_given_up_is_no_way_in(hook: bool) -> None:
    """KA-4.6-1 KA-4.6-2: who accepts none has no session with a peer it no longer connects to."""
    meeting = Meeting(accept=((lambda *_: False) if hook else False, False))
    meeting.connect(meeting.low)
    meeting.connect(meeting.high)
    meeting.run(25 * MS)
    assert len(of_type(meeting.low, FrameType.RESPONSE)) == 1
    (waiting,) = meeting.low.endpoint._context.routes.pending.values()
    waiting.close(meeting.world.now)
    meeting.run(10 * S)
    assert meeting.low.kinds() == ["SessionClosed"]
    assert meeting.low.endpoint.sessions == []


@pytest.mark.parametrize("accept", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("instance", [None, b"client 1"])
@pytest.mark.parametrize("who", ["low", "high"])
@pytest.mark.parametrize("silence", [0, 3, 40])
@pytest.mark.parametrize("lower", [False, True])
def test_one_of_two_that_met_restarts_and_connects_again(
    accept: tuple[bool, bool], instance: bytes | None, who: str, silence: int, lower: bool
) -> None:
    """KA-4.6-1 KA-4.7-1: responder or initiator, with a lower or a higher epoch than before.

    The other one's session goes on, except where it cannot know who it is and either accepts
    others too or, as a responder, has no cause to look for its peer itself.
    """
    meeting = Meeting(accept=accept)
    node = meeting.low if who == "low" else meeting.high
    other = meeting.high if who == "low" else meeting.low
    old = node.endpoint._context
    old.identity.instance_id = instance or b"whatever"
    meeting.connect(meeting.low)
    meeting.connect(meeting.high)
    meeting.run(5 * S)
    left = meeting.session(other)
    node.endpoint = Endpoint(
        old.config,
        keys=KEY,
        rng=old.rng,
        entropy=old.entropy,
        accept=node.endpoint._accept,
        instance_id=instance,
    )
    node.endpoint._context.identity.epoch = bytes(8) if lower else b"\xff" * 8
    node.events.clear()
    meeting.run(silence * S)
    meeting.connect(node)
    meeting.run(50 * S)
    if who == "high" and not instance and not other.endpoint._accept:
        assert node.kinds() == []
        assert other.endpoint.counters[DropReason.NOT_ACCEPTING]
        return
    assert "SessionUp" in node.kinds()
    assert not {"ConnectFailed", "SessionDown"} & set(node.kinds())
    assert all(session.state is State.UP for session in node.endpoint.sessions)
    if instance or not other.endpoint._accept:
        assert meeting.session(other) is left
        assert other.kinds().count("PeerRestarted") == 1
        meeting.assert_one_session()


def test_a_closed_crossing_leaves_nothing_behind() -> None:
    """KA-4.6-2 KA-11-2: no count, no route, no timer."""
    meeting = Meeting()
    meeting.connect(meeting.low)
    meeting.connect(meeting.high)
    meeting.run(5 * S)
    meeting.session(meeting.low).close(meeting.world.now)
    meeting.run(5 * S)
    for node in (meeting.low, meeting.high):
        routes = node.endpoint._context.routes
        assert node.endpoint.quiet
        assert not (routes.sessions or routes.named or routes.peers or routes.connecting)
        assert node.endpoint.next_timer() is None
        assert node.kinds() == ["SessionUp", "SessionClosed"]
