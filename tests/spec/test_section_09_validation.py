"""Section 9.3: path validation, by challenges to the new address and to the old one."""

import pytest

from kaudp.config import Config
from kaudp.core.paths import PATH_TRIES
from kaudp.core.timers import Timer
from kaudp.events import PeerAddressChanged, State
from kaudp.wire import codec
from kaudp.wire.codec import NO_OPTIONS, Body, Options
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import Carried
from tests.worlds import MS, Pair, S, forge, of_type

OLD = ("192.0.2.1", 1000)
NEW = ("192.0.2.1", 54_321)
NEWER = ("192.0.2.1", 54_322)
NO_NAT = {"nat_keepalive_ms": None}


def steady(seed: object = 1) -> Pair:
    """Long enough for PTO to be the shorter one: a try lasts three response times."""
    bob = Config.server(down_retention_ms=86_400_000)
    pair = Pair(seed, alice=Config.wan(**NO_NAT), bob=bob).up()
    pair.run(100 * S)
    pair.run(-pair.now % (100 * MS))
    return pair


def appear(pair: Pair, source: object, **said: int) -> bytes:
    """Let bob receive a newest frame of alice from somewhere."""
    probe = forge(pair.session, FrameType.PROBE, pair.now, **said)
    pair.world.inject(pair.bob, probe, source)
    return probe


def opened(pair: Pair, data: bytes) -> Body:
    header = codec.parse_transport_header(data)
    receiver = next(
        session
        for session in (pair.session, pair.far)
        if session._channel.local_id == header.receiver_session_id
    )
    return codec.parse_body(data[1], receiver._channel.unseal(header, data, pair.now))


def challenges(pair: Pair, name: str = "bob", since: int = 0) -> list[tuple[int, object, bytes]]:
    """Give (time, address, data) of each challenge that was sent under the present keys."""
    found = []
    for at, data, address in of_type(pair.world.nodes[name], FrameType.PROBE):
        if at >= since and len(data) > 64:
            challenge = opened(pair, data).options.path_challenge
            if challenge is not None:
                found.append((at, address, challenge))
    return found


def moves(pair: Pair, name: str = "bob") -> list[tuple[object, object]]:
    events = pair.world.nodes[name].events
    return [(e.previous, e.address) for e in events if isinstance(e, PeerAddressChanged)]


def answer(pair: Pair, data: bytes, source: object) -> None:
    """Let bob receive alice's answer to a challenge from somewhere."""
    reply = forge(pair.session, FrameType.REPLY, pair.now, Options(path_response=data))
    pair.world.inject(pair.bob, reply, source)


def a_try(pair: Pair) -> int:
    stats = pair.far.stats
    return max(stats.probe_timeout, 3 * (stats.rtt_smoothed or 0))


def test_a_real_move() -> None:
    """KA-9.1-2 KA-9.3-1 KA-9.3-4: both are asked, the new one answers, the session moves."""
    pair = steady()
    pair.world.move(pair.alice, NEW)
    appear(pair, NEW)
    began, lasts = pair.now, a_try(pair)
    asked = challenges(pair)
    assert sorted((at, address) for at, address, _ in asked) == [(began, OLD), (began, NEW)]
    assert asked[0][2] != asked[1][2]
    assert all(len(data) == 8 for _, _, data in asked)
    pair.run(lasts - 1)
    assert pair.far.address == OLD
    assert pair.far._path.validation.answered
    pair.run(1)
    assert pair.far.address == NEW
    assert moves(pair) == [(OLD, NEW)]
    pair.run(60 * S)
    assert len(challenges(pair)) == 2
    assert "SessionSuspect" not in pair.alice.kinds() + pair.bob.kinds()


def test_until_it_moves_replies_go_to_the_source_and_probes_to_the_old_address() -> None:
    """KA-9.1-2: and what comes from the new one counts as life."""
    pair = steady()
    pair.run(3 * S)
    appear(pair, NEW)
    assert pair.far.stats.rx_at == pair.now
    assert [to for _, _, to in of_type(pair.bob, FrameType.REPLY)][-1] == NEW
    pair.far.pause(S, pair.now)
    assert [to for _, _, to in pair.bob.sent if to == NEW]
    pair.run(0)
    assert pair.bob.sent[-1][2] == OLD


def test_a_forwarder_moves_nothing() -> None:
    """KA-9.3-3: the old address answers, so the session stays, at once."""
    pair = steady()
    appear(pair, NEW)
    (old_data,) = [data for _, to, data in challenges(pair) if to == OLD]
    (new_data,) = [data for _, to, data in challenges(pair) if to == NEW]
    answer(pair, new_data, NEW)
    assert pair.far._path.validation.answered
    answer(pair, old_data, NEW)  # wherever it comes from
    assert pair.far._path.validation is None
    assert pair.far.timers.armed(Timer.PATH) is None
    pair.run(60 * S)
    assert pair.far.address == OLD
    assert moves(pair) == []


def test_a_frame_from_the_old_address_ends_it() -> None:
    """KA-9.3-3: with the highest packet number; an older one does not."""
    pair = steady()
    late = forge(pair.session, FrameType.PROBE, pair.now)
    appear(pair, NEW)
    pair.world.inject(pair.bob, late, OLD)
    assert pair.far._path.validation is not None
    appear(pair, OLD)
    assert pair.far._path.validation is None
    assert pair.far.timers.armed(Timer.PATH) is None


def test_an_address_that_only_receives() -> None:
    """KA-9.3-4: three tries with fresh challenges, then the session stays."""
    pair = steady()
    pair.cut()
    began = pair.now
    probe = appear(pair, NEW)
    for _ in range(2):  # what it may receive in three tries
        appear(pair, NEW)
    pair.run(10 * S)
    asked = [entry for entry in challenges(pair) if entry[0] >= began]
    assert len(asked) == 2 * PATH_TRIES
    assert len({data for _, _, data in asked}) == 2 * PATH_TRIES
    times = sorted({at for at, _, _ in asked})
    assert [at - times[0] for at in times] == [0, a_try(pair), 2 * a_try(pair)]
    assert pair.far.address == OLD
    assert pair.far._path.validation is None
    assert len(probe) == 64


def test_lost_challenges_are_asked_again() -> None:
    """KA-9.3-4: the second try counts as well as the first."""
    pair = steady()
    pair.world.move(pair.alice, NEW)
    pair.world.cut("bob", "alice")
    for _ in range(2):  # one frame would not earn two challenges
        appear(pair, NEW)
    pair.run(a_try(pair) - 1)
    pair.world.cut("bob", "alice", cut=False)
    pair.run(a_try(pair))
    assert pair.far.address == OLD
    pair.run(10 * MS)
    assert moves(pair) == [(OLD, NEW)]


def test_a_lost_answer_to_the_first_try_may_come_in_the_second() -> None:
    """KA-9.3-4: an answer counts for the whole validation, not for its try alone."""
    pair = steady()
    pair.cut()
    appear(pair, NEW)
    (data,) = [data for _, to, data in challenges(pair) if to == NEW]
    pair.run(a_try(pair) + MS)
    answer(pair, data, NEWER)
    pair.run(a_try(pair))
    assert moves(pair) == [(OLD, NEW)]


def test_an_answer_to_another_validation_says_nothing() -> None:
    """KA-9.3-4: nor do data that nobody has sent."""
    pair = steady()
    pair.cut()
    appear(pair, NEW)
    (data,) = [data for _, to, data in challenges(pair) if to == NEW]
    appear(pair, OLD)
    pair.run(6 * S)
    began = pair.now
    appear(pair, NEW)
    assert challenges(pair, since=began)
    for wrong in (data, bytes(8), data[:7] + b"\0"):
        answer(pair, wrong, NEW)
    pair.run(10 * S)
    assert moves(pair) == []


def test_only_a_reply_answers() -> None:
    """KA-9.3-4: a PATH_RESPONSE in a PROBE means nothing."""
    pair = steady()
    pair.cut()
    appear(pair, NEW)
    (data,) = [data for _, to, data in challenges(pair) if to == NEW]
    probe = forge(pair.session, FrameType.PROBE, pair.now, Options(path_response=data))
    pair.world.inject(pair.bob, probe, NEW)
    pair.run(10 * S)
    assert moves(pair) == []


def test_one_validation_at_a_time_and_the_next_not_within_t() -> None:
    """KA-9.3-1 KA-9.3-5: however often the frames jump."""
    pair = steady()
    pair.cut()
    began = pair.now
    appear(pair, NEW)
    appear(pair, NEWER)
    assert {to for _, to, _ in challenges(pair, since=began)} == {OLD, NEW}
    appear(pair, OLD)
    ended = pair.now
    while pair.now < ended + 5 * S - 100 * MS:
        appear(pair, NEWER)
        pair.run(100 * MS)
    assert len(challenges(pair, since=began)) == 2
    pair.run(ended + 5 * S - pair.now)
    appear(pair, NEWER)
    assert {to for _, to, _ in challenges(pair, since=pair.now)} == {OLD, NEWER}


@pytest.mark.parametrize("arrives", [True, False])
def test_an_address_that_changes_again_meanwhile(arrives: bool) -> None:
    """KA-9.3-1 KA-9.3-5: found by the next validation, T later where the first moved nothing."""
    pair = steady()
    pair.world.move(pair.alice, NEW)
    pair.world.cut("bob", "alice", cut=not arrives)
    appear(pair, NEW)
    pair.world.cut("bob", "alice", cut=False)
    pair.world.move(pair.alice, NEWER)
    appear(pair, NEWER)
    pair.run(20 * S)
    assert moves(pair) == ([(OLD, NEW), (NEW, NEWER)] if arrives else [(OLD, NEWER)])
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()


def test_moves_one_after_the_other_need_no_wait() -> None:
    """KA-9.3-5: it is about validations that ended without a move."""
    pair = steady()
    for address in (NEW, NEWER, OLD):
        pair.world.move(pair.alice, address)
        appear(pair, address)
        pair.run(a_try(pair) + MS)
        assert pair.far.address == address


def test_the_budget_bounds_challenges() -> None:
    """KA-9.3-6 KA-7.4-4: an empty one leaves them out, and nothing moves unasked."""
    pair = steady()
    pair.cut()
    while pair.far._liveness.may_hasten(pair.now):
        pass
    began = pair.now
    appear(pair, NEW)
    pair.run(2 * S)
    assert challenges(pair, since=began) == []
    assert moves(pair) == []
    assert len(of_type(pair.bob, FrameType.REPLY)) > 0


def test_the_last_probe_of_the_budget_asks_the_old_address() -> None:
    """KA-9.3-6: so nothing moves on account of the budget."""
    pair = steady()
    while pair.far._liveness.may_hasten(pair.now):
        pass
    pair.far._liveness._budget._bucket._spent -= 1
    began = pair.now
    appear(pair, NEW)
    assert [to for _, to, _ in challenges(pair, since=began)] == [OLD]


def test_challenges_keep_to_three_times_what_came() -> None:
    """KA-9.3-6 KA-9.1-3: one frame of 64 bytes earns a reply and one challenge, no second."""
    pair = steady()
    pair.cut()
    began = pair.now
    appear(pair, NEW)
    pair.run(10 * S)
    to_new = [at for at, to, _ in challenges(pair, since=began) if to == NEW]
    to_old = [at for at, to, _ in challenges(pair, since=began) if to == OLD]
    assert len(to_new) == 1
    assert len(to_old) == 3
    got = sum(len(data) for _, data, to in pair.bob.sent if to == NEW)
    assert got == 64 + 74
    assert got <= 3 * 64


@pytest.mark.parametrize("pad", [None, 0, 5, 30])
def test_a_challenge_is_answered_within_its_length(pad: int | None) -> None:
    """KA-9.3-2 KA-8.3-3: with the same data, whatever else there is to say."""
    pair = steady()
    pair.far.pause(50 * S, pair.now)
    pair.far.admin_down(pair.now)
    data = bytes(range(100, 108))
    for source in (OLD, NEW):
        asking = Options(path_challenge=data, pad=pad)
        probe = forge(pair.session, FrameType.PROBE, pair.now, asking)
        pair.world.inject(pair.bob, probe, source)
        _, reply, to = of_type(pair.bob, FrameType.REPLY)[-1]
        assert to == source
        assert opened(pair, reply).options.path_response == data
        assert len(reply) <= len(probe)


@pytest.mark.parametrize("state", [State.SUSPECT, State.HALF_OPEN, State.DOWN])
def test_a_move_in_trouble(state: State) -> None:
    """KA-9.3-1 KA-9.3-4: a responder that suspects, or has given up, follows all the same."""
    pair = steady()
    pair.cut()
    pair.run_to(State.SUSPECT, pair.far)
    if state is State.HALF_OPEN:
        while pair.far.state is not State.HALF_OPEN:
            probe = forge(pair.session, FrameType.PROBE, pair.now)
            pair.world.inject(pair.bob, probe, OLD)
            pair.run(500 * MS)
    elif state is State.DOWN:
        pair.run_to(State.DOWN, pair.far)
        pair.run(300 * S)  # the budget is full again
    assert pair.far.state is state
    pair.session._initiation.drop(pair.now)
    pair.session.timers.disarm(Timer.HANDSHAKE)
    pair.world.move(pair.alice, NEW)
    pair.cut(cut=False)
    pair.run_to(State.UP, pair.far, limit=100 * S)
    pair.run_to(State.UP, limit=10 * S)
    pair.run(10 * S)
    assert moves(pair) == [(OLD, NEW)]
    assert pair.session.stats.handshakes == 1


def test_an_initiator_follows_its_responder() -> None:
    """KA-9.3-1 KA-9.3-4: neither role is bound to its address."""
    pair = steady()
    elsewhere = ("192.0.2.2", 7_777)
    pair.world._homes[elsewhere] = pair.bob
    pair.bob.address = elsewhere  # what it sends comes from there; both addresses lead to it
    pair.run(20 * S)
    assert moves(pair, "alice") == []  # the old one answers
    del pair.world._homes["192.0.2.2", 2000]
    probe = forge(pair.far, FrameType.PROBE, pair.now)
    pair.world.inject(pair.alice, probe, elsewhere)
    pair.run(10 * S)
    assert moves(pair, "alice") == [(("192.0.2.2", 2000), elsewhere)]
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()


def test_both_ends_move_at_once() -> None:
    """KA-9.3-4: while one of the addresses still leads somewhere they find each other."""
    pair = steady()
    elsewhere = ("192.0.2.2", 7_777)
    pair.world._homes[elsewhere] = pair.bob
    pair.bob.address = elsewhere
    pair.world.move(pair.alice, NEW)
    pair.run(6 * S)
    del pair.world._homes["192.0.2.2", 2000]
    pair.run(20 * S)
    assert moves(pair) == [(OLD, NEW)]
    assert moves(pair, "alice") == [(("192.0.2.2", 2000), elsewhere)]
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()
    assert pair.session.state is pair.far.state is State.UP


def test_a_challenge_is_no_probe_that_a_reply_is_awaited_for() -> None:
    """KA-7.3-1 KA-7.3-4: lost ones make nobody suspicious, at either side."""
    pair = steady()
    pair.cut()
    appear(pair, NEW)
    overdue = pair.far.timers.armed(Timer.OVERDUE)
    assert overdue == pair.now + 5 * S + pair.far.stats.probe_timeout
    pair.run(4 * S)
    assert pair.far.state is State.UP
    pair = steady()
    while pair.session._liveness.awaits_reply:
        pair.run(10 * MS)
    pair.cut()
    frame = forge(pair.far, FrameType.PROBE, pair.now)
    pair.world.inject(pair.alice, frame, ("192.0.2.2", 7_777))
    assert challenges(pair, "alice", since=pair.now)
    assert not pair.session._liveness.awaits_reply
    assert pair.session.timers.armed(Timer.OVERDUE) is None


def test_control_state_waits_beside_challenges() -> None:
    """KA-9.3-2 KA-8.6-1: a change that is told during a validation arrives, and the move too."""
    pair = steady()
    pair.world.move(pair.alice, NEW)
    appear(pair, NEW)
    pair.far.change_intervals(pair.now, min_receive_interval_ms=9_000)
    pair.session.change_intervals(pair.now, interval_ms=7_000)
    pair.run(30 * S)
    assert moves(pair) == [(OLD, NEW)]
    assert pair.session.stats.interval == pair.far.stats.interval == 9 * S
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()


def test_a_validation_in_a_pause_and_in_admin_down() -> None:
    """KA-9.3-1 KA-8.7-1 KA-8.10-3: binding changes show then as well."""
    for verb in ("pause", "admin"):
        pair = Pair(alice=Config.wan(nat_keepalive_ms=15_000)).up()
        pair.run(30 * S)
        if verb == "pause":
            pair.session.pause(55 * S, pair.now)
        else:
            pair.session.admin_down(pair.now)
        pair.run(S)
        pair.world.move(pair.alice, NEW)
        pair.run(40 * S)
        assert moves(pair) == [(OLD, NEW)]


def test_new_keys_end_a_validation() -> None:
    """KA-9.1-4 KA-9.3-4: they begin where RESPONSE went, and no old try moves them."""
    pair = steady()
    pair.session._begin_attempt(pair.now)
    pair.run(30 * MS)
    appear(pair, NEW)
    assert pair.far.timers.armed(Timer.PATH) is not None
    pair.run(31 * MS)
    assert pair.far.stats.handshakes == 2
    assert pair.far._path.validation is None
    assert pair.far.timers.armed(Timer.PATH) is None
    pair.run(10 * S)
    assert pair.far.address == OLD


def test_close_ends_a_validation() -> None:
    """KA-9.3-4 KA-6.4-1: nothing is asked any more."""
    pair = steady()
    pair.cut()
    appear(pair, NEW)
    pair.far.close(pair.now)
    began = pair.now
    pair.run(10 * S)
    assert {data[1] for at, data, _ in pair.bob.sent if at > began} == {FrameType.CLOSE}


def test_inside_quic_a_session_moves_at_once() -> None:
    """KA-14.8-2: by each newest frame, without a challenge; an older one moves nothing."""
    pair = Pair(key=Carried()).up()
    late = forge(pair.session, FrameType.PROBE, pair.now)
    appear(pair, NEW)
    assert pair.far.address == NEW
    pair.world.inject(pair.bob, late, OLD)
    assert pair.far.address == NEW
    appear(pair, NEWER)
    pair.run(0)
    assert moves(pair) == [(OLD, NEW), (NEW, NEWER)]
    assert all(len(data) == 48 for _, data, _ in of_type(pair.bob, FrameType.PROBE))
    assert pair.far._path.validation is None
    assert NO_OPTIONS.path_challenge is None
