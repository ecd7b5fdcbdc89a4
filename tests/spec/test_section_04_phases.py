"""Section 4.4: the phases of the traffic keys."""

from copy import copy
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.errors import DropReason, Refused
from kaudp.events import State
from kaudp.wire import codec, seal
from kaudp.wire.grammar import FrameType
from kaudp.wire.seal import NO_LIMITS, PHASE_LINGER, PhaseLimits, SessionKeys
from tests.worlds import MS, Pair, S, forge, of_type

TRANSPORT = (FrameType.PROBE, FrameType.REPLY, FrameType.CLOSE)
HASTY = {"key_update_interval_ms": 30_000}
NAME = bytes(8)
AT_ONCE = PhaseLimits(0, 0)


def phases_sent(node: Any) -> list[tuple[int, int]]:
    """Give (time, bit 0 of flags) of all transport frames of a node."""
    return [(at, data[3]) for at, data, _ in of_type(node, *TRANSPORT)]


def two_sides() -> tuple[SessionKeys, SessionKeys]:
    """Give the keys of an initiator and of its responder."""
    secrets = (bytes(32), bytes([1]) * 32)
    return seal.session_keys(secrets, initiator=True), seal.session_keys(secrets, initiator=False)


def frame(keys: SessionKeys, number: int, now: int, limits: PhaseLimits = NO_LIMITS) -> bytes:
    header = codec.build_transport_header(FrameType.PROBE, NAME, number, keys.flags(now, limits))
    return keys.seal(header, number, b"body")


def opens(keys: SessionKeys, data: bytes, now: int) -> bool:
    try:
        return keys.unseal(codec.parse_transport_header(data), data, now) == b"body"
    except Refused as refused:
        assert refused.reason is DropReason.BAD_TAG
        assert not refused.consumed
        return False


def in_phase_1(now: int = 31 * S) -> tuple[SessionKeys, SessionKeys]:
    """Give keys whose initiator has begun phase 1 with packet 10, all of it received."""
    initiator, responder = two_sides()
    assert opens(responder, frame(initiator, 1, 0), 0)
    assert opens(initiator, frame(responder, 1, 0), 0)
    assert opens(responder, frame(initiator, 10, now, AT_ONCE), now)
    assert opens(initiator, frame(responder, 2, now), now)
    assert initiator.phase == responder.phase == 1
    return initiator, responder


def test_each_phase_is_derived_from_the_one_before() -> None:
    """KA-4.4-4: by HKDF-Expand, both directions for themselves; checked with another HKDF."""

    def expand(secret: bytes, label: bytes) -> bytes:
        return HKDFExpand(SHA256(), 32, label).derive(secret)

    initiator, responder = two_sides()
    secrets = {"out": bytes(32), "home": bytes([1]) * 32}
    now = 0
    for phase in range(4):
        number = phase + 1
        ways = ((initiator, responder, "out"), (responder, initiator, "home"))
        for sender, receiver, way in ways:
            data = frame(sender, number, now, AT_ONCE if phase else NO_LIMITS)
            key = AESGCM(expand(secrets[way], b"kaudp/1 key"))
            assert key.decrypt(number.to_bytes(12, "big"), data[20:], data[:20]) == b"body"
            assert data[3] == phase % 2
            assert opens(receiver, data, now)
            secrets[way] = expand(secrets[way], b"kaudp/1 next")
        now += 31 * S


def test_the_phase_shows_in_bit_0_of_every_frame() -> None:
    """KA-4.4-5 KA-3.6-2: over four updates, and no other bit is ever set."""
    pair = Pair(alice=Config.wan(**HASTY)).up()
    pair.run(160 * S)
    assert pair.session.stats.key_phase == pair.far.stats.key_phase == 4
    for node in (pair.alice, pair.bob):
        bits = [bit for _, bit in phases_sent(node)]
        assert set(bits) == {0, 1}
        assert sum(a != b for a, b in pairwise(bits)) == 4


def test_a_phase_lasts_its_time_and_no_longer() -> None:
    """KA-4.4-6: the first frame at the limit or later is of the next phase, none before is."""
    pair = Pair(alice=Config.wan(key_update_interval_ms=40_000)).up()
    pair.run(200 * S)
    began, bit = phases_sent(pair.alice)[0]
    updates = 0
    for at, shown in phases_sent(pair.alice):
        due = at - began >= 40 * S
        assert (shown != bit) == due
        if due:
            began, bit = at, shown
            updates += 1
    assert updates == 4


def test_a_phase_holds_so_many_frames_but_lasts_30_s() -> None:
    """KA-4.4-6: 400 frames are 40 s at 100 ms; 2 would be a moment."""
    counts = {}
    for limit in (2, 400):
        pair = Pair(
            alice=Config.lan(key_update_frames=limit, interval_ms=100), bob=Config.lan()
        ).up()
        pair.run(40 * S)
        sent = phases_sent(pair.alice)
        first = next(number for number, (_, bit) in enumerate(sent) if bit)
        counts[limit] = first
        assert sent[first][0] - sent[0][0] >= 30 * S
        assert sent[first - 1][0] - sent[0][0] < 30 * S or limit == 400
    assert counts[400] == 400


def test_the_next_phase_waits_for_a_frame_of_the_peer_under_this_one() -> None:
    """KA-4.4-6: with the way home cut no second update follows the first, however long."""
    pair = Pair(alice=Config.wan(**HASTY)).up()
    pair.world.cut("bob", "alice")
    pair.run(300 * S)
    assert pair.session.stats.handshakes == 1
    assert pair.session.stats.key_phase == 1
    pair.world.cut("bob", "alice", cut=False)
    pair.run_to(State.UP)
    pair.run(15 * S)
    assert pair.session.stats.key_phase >= 1


def test_a_responder_never_begins_a_phase() -> None:
    """KA-4.4-6: its own limits mean nothing while it is not the initiator."""
    pair = Pair(bob=Config.server(key_update_frames=2, **HASTY)).up()
    pair.run(300 * S)
    assert pair.far.stats.key_phase == 0
    assert {bit for _, bit in phases_sent(pair.bob)} == {0}


def test_a_responder_goes_over_with_the_first_frame_that_it_opens() -> None:
    """KA-4.4-7: its very next frame, and not before."""
    initiator, responder = two_sides()
    assert opens(initiator, frame(responder, 1, 0), 0)
    assert opens(responder, frame(initiator, 1, 0), 0)
    next_one = frame(initiator, 2, 31 * S, AT_ONCE)
    assert next_one[3] == 1
    assert frame(responder, 2, 31 * S)[3] == 0
    assert opens(responder, next_one, 31 * S)
    assert frame(responder, 3, 31 * S)[3] == 1


def test_an_initiator_refuses_a_phase_that_it_did_not_begin() -> None:
    """KA-4.4-8: sealed by the responder's own secrets; it is left to the application."""
    pair = Pair().up()
    keys = pair.far._channel._keys
    keys._sending = keys._sending.following()
    rogue = forge(pair.far, FrameType.PROBE, pair.now)
    assert rogue[3] == 1
    assert not pair.world.inject(pair.alice, rogue, pair.bob.address)
    assert pair.alice.endpoint.counters == {DropReason.BAD_TAG: 1}
    assert pair.session.stats.key_phase == 0


def test_no_side_skips_a_phase() -> None:
    """KA-4.4-8: bit 0 tells phase n + 2 from n by the tag only, which fails."""
    initiator, responder = two_sides()
    assert opens(responder, frame(initiator, 1, 0), 0)
    initiator._sending = initiator._sending.following().following()
    assert not opens(responder, frame(initiator, 2, S), S)
    assert responder._receiving.number == 0


def test_late_frames_of_the_phase_before_are_opened_for_30_s() -> None:
    """KA-4.4-8: those before the first of the newest phase, whatever order they come in."""
    for at, good in ((31 * S, True), (61 * S - 1, True), (61 * S, False)):
        initiator, responder = two_sides()
        early, late = frame(initiator, 1, 0), [frame(initiator, n, S) for n in (2, 3, 4)]
        assert opens(responder, early, 0)
        assert opens(initiator, frame(responder, 1, 0), 0)
        assert opens(responder, frame(initiator, 5, 31 * S, AT_ONCE), 31 * S)
        assert [opens(responder, data, at) for data in reversed(late)] == [good] * 3
        assert opens(responder, frame(initiator, 6, at), at)
    assert PHASE_LINGER == 30 * S


def test_the_phase_before_ends_at_the_lowest_number_of_the_newest() -> None:
    """KA-4.4-8: the first to come in need not be the first that was sent."""
    initiator, responder = two_sides()
    stale = copy(initiator)
    stale._sending = copy(initiator._sending)
    assert opens(responder, frame(initiator, 1, 0), 0)
    assert opens(initiator, frame(responder, 1, 0), 0)
    fifth, ninth = (frame(initiator, n, 31 * S, AT_ONCE) for n in (5, 9))
    assert opens(responder, ninth, 31 * S)
    # Under the old key, a number of the gap may still come before any of the new phase has.
    assert opens(responder, frame(stale, 7, S), 31 * S)
    assert opens(responder, fifth, 31 * S)
    assert not opens(responder, frame(stale, 6, S), 31 * S)
    assert not opens(responder, frame(stale, 10, S), 31 * S)
    assert opens(responder, frame(stale, 4, S), 31 * S)


def test_late_replies_of_the_phase_before_reach_an_initiator() -> None:
    """KA-4.4-8: also while it has begun the next phase and nobody has answered in it yet."""
    initiator, responder = two_sides()
    assert opens(responder, frame(initiator, 1, 0), 0)
    late = [frame(responder, n, 0) for n in (1, 2, 3)]
    assert opens(initiator, late[0], 0)
    newest = frame(initiator, 2, 31 * S, AT_ONCE)
    assert opens(initiator, late[1], 31 * S)
    assert opens(responder, newest, 31 * S)
    assert opens(initiator, frame(responder, 4, 32 * S), 32 * S)
    assert opens(initiator, late[2], 32 * S)
    assert initiator.phase == responder.phase == 1


def test_a_tag_that_fails_begins_no_phase() -> None:
    """KA-4.4-8: the next one counts as come in once a tag has verified under it."""
    initiator, responder = in_phase_1()
    before = responder._receiving, responder._previous, responder._first_number
    forged = bytearray(frame(initiator, 11, 62 * S, AT_ONCE))
    assert forged[3] == 0
    forged[-1] ^= 1
    for _ in range(3):
        assert not opens(responder, bytes(forged), 62 * S)
    assert before == (responder._receiving, responder._previous, responder._first_number)
    assert responder.phase == 1


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_a_flood_with_flipped_phase_bits_costs_no_state(who: str) -> None:
    """KA-2-4 KA-4.4-8: of replayed and of invented frames; nothing is derived twice either."""
    pair = Pair(alice=Config.wan(**HASTY)).up()
    pair.run(75 * S)
    session = pair.session if who == "alice" else pair.far
    node = pair.world.nodes[who]
    frames = of_type(pair.bob if who == "alice" else pair.alice, *TRANSPORT)[-200:]
    keys = session._channel._keys

    def kept() -> tuple[Any, ...]:
        slots = {name: getattr(keys, name) for name in SessionKeys.__slots__}
        following = slots.pop("_following")
        deadlines = dict(session.timers._deadlines)
        return slots, following and following.number, deadlines, session.stats, len(node.sent)

    flip(pair, node, frames[-1][1], 2**31)
    before, counted = kept(), node.endpoint.counters[DropReason.BAD_TAG]
    following = keys._following
    for _, data, _ in frames:
        for number in (None, 1, 2**31):
            flip(pair, node, data, number)
    assert kept() == before
    assert keys._following is following
    assert node.endpoint.counters == {DropReason.BAD_TAG: counted + 3 * len(frames)}
    pair.run(100 * S)
    assert pair.session.stats.key_phase == pair.far.stats.key_phase == 5
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp"]


def flip(pair: Pair, node: Any, data: bytes, number: int | None = None) -> None:
    """Send a node a frame again, with the other phase bit and maybe another packet number."""
    forged = bytearray(data)
    forged[3] ^= 1
    if number is not None:
        forged[12:20] = number.to_bytes(8, "big")
    assert not pair.world.inject(node, bytes(forged), ("198.51.100.9", 9))


@pytest.mark.parametrize("lost", range(1, 5))
@pytest.mark.parametrize("way", ["out", "home"])
def test_frames_lost_around_an_update_delay_it_only(way: str, lost: int) -> None:
    """KA-4.4-6 KA-4.4-8: the first frames of the phase, or the answers to them, never arrive."""
    pair = Pair(alice=Config.wan(**HASTY)).up()
    node = pair.alice if way == "out" else pair.bob
    pair.world.run_until(phases_sent(pair.alice)[0][0] + 30 * S - 1)
    assert pair.session.stats.key_phase == 0
    pair.world.cut(*(("alice", "bob") if way == "out" else ("bob", "alice")))
    already = len(of_type(node, *TRANSPORT))
    while len(of_type(node, *TRANSPORT)) < already + lost:
        pair.run(MS)
    pair.world.cut("alice", "bob", cut=False)
    pair.world.cut("bob", "alice", cut=False)
    pair.run(60 * S)
    assert pair.session.stats.handshakes == 1
    assert pair.session.state is pair.far.state is State.UP
    assert pair.session.stats.key_phase >= 1
    assert pair.far.stats.key_phase == pair.session.stats.key_phase
    assert DropReason.BAD_TAG not in pair.alice.endpoint.counters
    assert DropReason.BAD_TAG not in pair.bob.endpoint.counters
    assert "SessionDown" not in pair.alice.kinds() + pair.bob.kinds()


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0, 30 * MS, 3 * S]),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.sampled_from([0.0, 0.2]),
    st.sampled_from([(Config.wan, Config.server), (Config.lan, Config.lan)]),
)
def test_updates_change_nothing_else(
    seed: int, spread: int, loss: float, duplicate: float, presets: Any
) -> None:
    """KA-4.4-6 KA-4.4-8: the same run with and without updates: same events, same counters.

    So nothing is lost and nobody is suspected on account of an update, in any order of arrival.
    """
    (near, far), end = presets, (130 if presets[0] == Config.wan else 75) * S
    how = {"spread": spread, "loss": loss, "duplicate": duplicate}
    with_updates = Pair(seed, alice=near(**HASTY), bob=far(), **how).run(end)
    without = Pair(seed, alice=near(), bob=far(), **how).run(end)
    for name in ("alice", "bob"):
        one, other = with_updates.world.nodes[name], without.world.nodes[name]
        assert [(e.time, type(e)) for e in one.events] == [(e.time, type(e)) for e in other.events]
        assert one.endpoint.counters == other.endpoint.counters
        assert [(at, len(data), to) for at, data, to in one.sent] == [
            (at, len(data), to) for at, data, to in other.sent
        ]
    if not loss:
        assert {bit for _, bit in phases_sent(with_updates.bob)} == {0, 1}


def test_new_keys_begin_in_phase_0() -> None:
    """KA-4.4-4: a handshake brings secrets of its own."""
    pair = Pair(alice=Config.wan(**HASTY)).up()
    pair.run(70 * S)
    assert pair.session.stats.key_phase == 2
    pair.session._begin_attempt(pair.now)
    pair.run(5 * S)
    assert pair.session.stats.key_phase == pair.far.stats.key_phase == 0
    pair.run(100 * S)
    assert pair.session.stats.key_phase == pair.far.stats.key_phase >= 2
    assert pair.alice.kinds() == pair.bob.kinds() == ["SessionUp"]


def test_numbers_go_on_and_a_replay_of_an_earlier_phase_is_none_of_ours() -> None:
    """KA-4.4-2 KA-5.1-1: what was captured two phases ago opens under no key that is left."""
    pair = Pair(alice=Config.wan(**HASTY)).up()
    first = of_type(pair.alice, FrameType.PROBE)[0][1]
    pair.run(35 * S)
    assert pair.far.stats.key_phase == 1
    assert pair.world.inject(pair.bob, first, pair.alice.address)
    assert pair.bob.endpoint.counters == {DropReason.REPLAY: 1}
    pair.run(35 * S)
    assert pair.far.stats.key_phase == 2
    assert not pair.world.inject(pair.bob, first, pair.alice.address)
    numbers = [int.from_bytes(data[12:20], "big") for _, data, _ in of_type(pair.alice, *TRANSPORT)]
    assert numbers == list(range(1, len(numbers) + 1))
