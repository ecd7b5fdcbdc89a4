"""Section 8.6: control state, told until it is confirmed."""

from itertools import pairwise

import pytest

from kaudp.config import Config
from kaudp.core.timers import Timer
from kaudp.events import IntervalChanged, PeerPaused, PeerRestarted, State
from kaudp.wire import codec
from kaudp.wire.codec import NO_OPTIONS, Body, Options
from kaudp.wire.grammar import FrameType
from tests.lives import reconnect, restart
from tests.worlds import MS, Pair, S, forge, of_type

NO_NAT = {"nat_keepalive_ms": None}


def calm(seed: object = 1) -> Pair:
    """Without NAT keep-alive, and a responder that never forgets."""
    bob = Config.server(down_retention_ms=86_400_000)
    return Pair(seed, alice=Config.wan(**NO_NAT), bob=bob).up()


def test_a_restarted_peers_pause_is_over() -> None:
    """KA-8.6-3 KA-8.7-1: what it asked for before is forgotten with its last version."""
    pair = calm()
    pair.far.pause(55 * S, pair.now)
    pair.run(2 * S)
    assert [e.duration for e in pair.alice.events if isinstance(e, PeerPaused)]
    restart(pair, pair.bob)
    pair.session._begin_attempt(pair.now)
    pair.run(S)
    assert [e for e in pair.alice.events if isinstance(e, PeerRestarted)]
    assert pair.session.timers.armed(Timer.PAUSE_END) is None
    pair.cut()
    pair.run_to(State.DOWN, limit=30 * S)


@pytest.mark.parametrize("change", ["parameters", "pause", "admin"])
def test_what_down_kept_back_is_told_afterwards(change: str) -> None:
    """KA-8.6-1: by a responder, which has no probes of its own to tell it with."""
    bob = Config.server(down_retention_ms=86_400_000, up_confirmations=1)
    pair = Pair(alice=Config.wan(**NO_NAT), bob=bob).up()
    pair.cut()
    pair.run_to(State.DOWN, pair.far)
    if change == "parameters":
        pair.far.change_intervals(pair.now, min_receive_interval_ms=7_000)
    elif change == "pause":
        pair.far.pause(3600 * S, pair.now)
    else:
        pair.session.admin_down(pair.now)
        pair.far._terms.control.change(admin=0)
    pair.run(100 * S)
    pair.session.timers.disarm(Timer.HANDSHAKE)
    assert pair.far._terms.control.waits
    before = len(of_type(pair.bob, FrameType.PROBE))
    pair.cut(cut=False)
    probe = forge(pair.session, FrameType.PROBE, pair.now)
    pair.world.inject(pair.bob, probe, pair.alice.address)
    pair.run(100 * MS)
    answer = forge(pair.session, FrameType.PROBE, pair.now)
    pair.world.inject(pair.bob, answer, pair.alice.address)
    pair.run(S)
    assert len(of_type(pair.bob, FrameType.PROBE)) > before
    assert not pair.far._terms.control.waits


def bodies(pair: Pair, name: str, since: int = 0) -> list[tuple[int, int, Body]]:
    """Open what a node sent under the keys in use: (time, type, body)."""
    own, other = (pair.session, pair.far) if name == "alice" else (pair.far, pair.session)
    opened = []
    types = (FrameType.PROBE, FrameType.REPLY)
    for at, data, _ in of_type(pair.world.nodes[name], *types):
        header = codec.parse_transport_header(data)
        if at >= since and header.receiver_session_id == own._channel.remote_id:
            plaintext = other._channel.unseal(header, data, pair.now)
            opened.append((at, data[1], codec.parse_body(data[1], plaintext)))
    return opened


def test_all_that_is_not_confirmed_goes_into_each_probe() -> None:
    """KA-8.6-1: also the older change, under the newest version."""
    pair = calm()
    pair.cut()
    began = pair.now
    pair.session.change_intervals(pair.now, interval_ms=7_000)
    pair.run(500 * MS)
    pair.session.pause(30 * S, pair.now)
    pair.run(S)
    pair.session.admin_down(pair.now)
    pair.run(2 * S)
    sent = [body for _, kind, body in bodies(pair, "alice", began) if kind == FrameType.PROBE]
    assert [body.control_version for body in sent] == sorted(body.control_version for body in sent)
    for body in sent:
        options = body.options
        assert options.parameters is not None
        assert (options.pause_ms is not None) is (body.control_version >= 2)
        assert (options.admin is not None) is (body.control_version >= 3)
    assert {body.control_version for body in sent} == {1, 2, 3}
    pair.cut(cut=False)
    pair.run(7 * S)
    assert pair.far.state is State.ADMIN_DOWN
    assert not pair.session._terms.control.waits
    after = pair.now
    pair.run(60 * S)
    assert all(body.options == NO_OPTIONS for _, _, body in bodies(pair, "alice", after))


def test_probing_for_confirmation_backs_off_to_the_interval() -> None:
    """KA-8.6-1 KA-7.3-4: by a responder in UP, one PTO apart at first, T at most."""
    pair = calm()
    pair.world.cut("bob", "alice")
    pair.far._liveness.suspend()  # suspicion would probe too
    pto, began = pair.far.stats.probe_timeout, pair.now
    pair.far.change_intervals(began, min_receive_interval_ms=200)
    pair.run(30 * S)
    times = [at for at, _, _ in of_type(pair.bob, FrameType.PROBE) if at >= began]
    steps = [b - a for a, b in pairwise(times)]
    assert times[0] == began
    assert steps[:4] == [pto, 2 * pto, 4 * pto, 8 * pto][: len(steps[:4])]
    assert steps[-1] == pair.far.stats.interval
    assert all(b == min(2 * a, pair.far.stats.interval) for a, b in pairwise(steps))


def test_a_reply_says_all_or_nothing() -> None:
    """KA-8.6-1 KA-8.3-3: as room allows, beside the answer to a challenge."""
    pair = calm()
    pair.cut()
    pair.far.pause(30 * S, pair.now)
    pair.far.admin_down(pair.now)
    pair.run(MS)
    whole, challenge = 6 + 3, bytes(range(8))
    for pad in range(30):
        for data in (None, challenge):
            probe = forge(
                pair.session, FrameType.PROBE, pair.now, Options(pad=pad, path_challenge=data)
            )
            pair.world.inject(pair.bob, probe, pair.alice.address)
            options = bodies(pair, "bob")[-1][2].options
            assert options.path_response == data
            told = options.pause_ms is not None, options.admin is not None
            assert told == ((True, True) if pad + 2 >= whole else (False, False))


def test_a_reply_without_room_neither_confirms_nor_takes_over() -> None:
    """KA-8.6-2: it shows the version, but it holds none of what that version says."""
    pair = calm()
    pair.far._terms.control.change(admin=1)  # told by nothing yet
    probe = forge(pair.session, FrameType.PROBE, pair.now)
    pair.world.inject(pair.bob, probe, pair.alice.address)
    reply = bodies(pair, "bob")[-1][2]
    assert (reply.control_version, reply.options) == (1, NO_OPTIONS)
    pair.run(100 * MS)
    assert pair.session._terms.control.acked == 0
    assert pair.session.state is State.UP
    pair.run(5 * S)
    assert pair.far._terms.control.waits
    pair.far._tell_control(pair.now)
    pair.run(S)
    assert not pair.far._terms.control.waits
    assert pair.session._terms.control.acked == 1
    assert pair.session.state is State.ADMIN_DOWN


def test_control_state_is_taken_from_the_newest_frame_only() -> None:
    """KA-8.6-2: an old frame with a lower number says nothing, whatever its version."""
    pair = calm()
    late = forge(
        pair.session, FrameType.PROBE, pair.now, Options(pause_ms=9_000), control_version=7
    )
    newer = forge(
        pair.session, FrameType.PROBE, pair.now, Options(pause_ms=3_000), control_version=8
    )
    for frame in (newer, late):
        assert pair.world.inject(pair.bob, frame, pair.alice.address)
    assert pair.far._terms.control.acked == 8
    pair.run(0)
    assert [e.duration for e in pair.bob.events if isinstance(e, PeerPaused)] == [3 * S]


def test_each_version_counts_once() -> None:
    """KA-8.6-2: repeated, it does not begin the pause anew."""
    pair = calm()
    for _ in range(3):
        frame = forge(
            pair.session, FrameType.PROBE, pair.now, Options(pause_ms=9_000), control_version=7
        )
        pair.world.inject(pair.bob, frame, pair.alice.address)
        pair.run(S)
    assert len([e for e in pair.bob.events if isinstance(e, PeerPaused)]) == 1
    assert pair.far._terms.control.acked == 7
    _, _, last = bodies(pair, "bob")[-1]
    assert last.control_ack == 7


def test_confirmation_is_by_the_newest_version_alone() -> None:
    """KA-8.6-1: the ack of the version before does not end the telling of this one."""
    pair = calm()
    pair.cut()
    pair.session.pause(30 * S, pair.now)
    pair.session.admin_down(pair.now)
    for ack, waits in ((0, True), (1, True), (3, True), (2, False)):
        frame = forge(pair.far, FrameType.REPLY, pair.now, control_ack=ack)
        pair.world.inject(pair.alice, frame, pair.bob.address)
        assert pair.session._terms.control.waits is waits


def test_versions_go_round_and_are_taken_over() -> None:
    """KA-8.6-1 KA-8.6-2: 255 is followed by 1, which is new to a peer that has seen 255."""
    pair = calm()
    pair.session._terms.control.version = pair.far._terms.control.acked = 254
    for version in (255, 1, 2):
        pair.session.pause(5 * S, pair.now)
        assert pair.session._terms.control.version == version
        pair.run(S)
        assert pair.far._terms.control.acked == version
        assert not pair.session._terms.control.waits
    assert len([e for e in pair.bob.events if isinstance(e, PeerPaused)]) == 3


def test_a_restarted_peer_is_told_anew() -> None:
    """KA-8.6-3: what lasts, and what the handshake tells is told by that."""
    pair = calm()
    pair.session.pause(300 * S, pair.now)
    pair.session.admin_down(pair.now)
    pair.session.change_intervals(pair.now, interval_ms=7_000)
    pair.run(S)
    assert not pair.session._terms.control.waits
    restart(pair, pair.bob)
    pair.session._begin_attempt(pair.now)
    pair.run(S)
    assert pair.session._terms.control.version == 1
    assert pair.far._terms.control.acked == pair.session._terms.control.version
    assert pair.far.state is State.ADMIN_DOWN
    (paused,) = [e for e in pair.bob.events if isinstance(e, PeerPaused)][-1:]
    assert paused.duration == 60 * S
    assert pair.far.stats.interval == 7 * S


def test_a_restarted_peers_versions_begin_anew() -> None:
    """KA-8.6-3: its version 1 is not taken for the one before it restarted."""
    pair = calm()
    pair.session.pause(2 * S, pair.now)
    pair.run(S)
    assert pair.far._terms.control.acked == 1
    far = pair.far
    reconnect(pair)
    pair.run(5 * S)
    assert pair.far is far
    assert far._terms.control.acked == 0
    pair.session.pause(4 * S, pair.now)
    pair.run(S)
    assert far._terms.control.acked == 1
    assert [e.duration for e in pair.bob.events if isinstance(e, PeerPaused)] == [2 * S, 4 * S]


def test_a_slow_down_lasts_through_a_restart() -> None:
    """KA-8.6-3 KA-8.9-1: a new process of the initiator is told by the handshake or anew."""
    pair = calm()
    pair.far.slow_down(12_000, pair.now)
    pair.run(6 * S)  # the next probe and its reply settle it
    assert pair.session.stats.interval == 12 * S
    reconnect(pair)
    pair.run(20 * S)
    assert pair.session.stats.interval == pair.far.stats.interval == 12 * S
    assert not [e for e in pair.bob.events if isinstance(e, IntervalChanged)][1:]
