"""Section 2: a socket shared with STUN, DTLS, TURN, RTP, QUIC and the application."""

import struct

import aioice.stun
import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import pull_quic_header
from hypothesis import given
from hypothesis import strategies as st

from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, MS, Pair, S, of_type


def everything_sent() -> list[bytes]:
    pair = Pair().up()
    pair.session.pause(10 * S, pair.now)
    pair.run(20 * S)
    pair.session.close(pair.now)
    pair.run(S)
    return [data for node in (pair.alice, pair.bob) for _, data, _ in node.sent]


FRAMES = everything_sent()


def test_the_frames_looked_at_are_of_all_types_sent() -> None:
    sent = {data[1] for data in FRAMES}
    assert sent == set(FrameType) - {FrameType.COOKIE}


@pytest.mark.parametrize("data", FRAMES, ids=lambda data: FrameType(data[1]).name)
def test_rfc_9443_gives_the_first_byte_to_nobody(data: bytes) -> None:
    """KA-2-1: 0-3 is STUN's, 16-19 ZRTP's, 20-63 DTLS's, 64-79 TURN's, the rest QUIC's, RTP's."""
    assert 4 <= data[0] <= 15
    assert data[0] == 0x0B


@pytest.mark.parametrize("data", FRAMES, ids=lambda data: FrameType(data[1]).name)
def test_stun_parsers_leave_it_alone(data: bytes) -> None:
    """KA-2-2."""
    assert data[2] & 0x80
    assert struct.unpack_from("!H", data, 2)[0] != len(data) - 20
    with pytest.raises(ValueError):
        aioice.stun.parse_message(data)


@pytest.mark.parametrize("data", FRAMES, ids=lambda data: FrameType(data[1]).name)
def test_quic_stacks_leave_it_alone(data: bytes) -> None:
    """KA-2-1: neither header form nor fixed bit are set."""
    assert data[0] & 0xC0 == 0
    with pytest.raises(ValueError, match="fixed bit"):
        pull_quic_header(Buffer(data=data), host_cid_length=8)


@given(st.binary(max_size=600))
def test_what_is_not_a_frame_is_the_applications(data: bytes) -> None:
    """KA-2-3 KA-2-4."""
    pair = PAIR
    before = snapshot(pair)
    assert not pair.bob.endpoint.receive_datagram(data, ("198.51.100.1", 5), pair.now)
    assert snapshot(pair) == before


@given(st.sampled_from(FRAMES), st.integers(0, 4095), st.integers(1, 255))
def test_a_damaged_frame_is_the_applications(data: bytes, place: int, change: int) -> None:
    """KA-2-3 KA-2-4: whichever byte is damaged, no tag verifies, and nothing happens."""
    damaged = bytearray(data)
    damaged[place % len(data)] ^= change
    before = snapshot(PAIR)
    for node in (PAIR.alice, PAIR.bob):
        assert not node.endpoint.receive_datagram(bytes(damaged), ("198.51.100.1", 5), PAIR.now)
    assert snapshot(PAIR) == before


def snapshot(pair: Pair) -> list[object]:
    """All that a datagram without a valid tag must leave alone."""
    seen: list[object] = []
    for node in (pair.alice, pair.bob):
        endpoint = node.endpoint
        routes = endpoint._context.routes
        seen += [
            [(session.stats, session.timers._deadlines) for session in endpoint.sessions],
            [session._channel.window.highest for session in endpoint.sessions],
            len(routes.embryos),
            len(routes.pending),
            endpoint.next_timer(),
            list(endpoint.datagrams_to_send()),
            endpoint.next_event(),
        ]
    return seen


PAIR = Pair("damaged").up()


def test_a_replay_is_consumed_and_not_answered() -> None:
    """KA-2-5."""
    pair = Pair().up()
    _, probe, _ = of_type(pair.alice, FrameType.PROBE)[0]
    sent = len(pair.bob.sent)
    assert pair.world.inject(pair.bob, probe, pair.alice.address)
    assert len(pair.bob.sent) == sent


def test_a_stranger_with_another_key_gets_no_answer() -> None:
    """KA-2-4."""
    pair = Pair()
    other = type(KEY).generate()
    stranger = pair.world.add_node("mallory", pair.session._context.config, other)
    stranger.endpoint.connect(pair.bob.address, pair.now, key_id=other.key_id)
    pair.run(500 * MS)
    assert not [data for _, data, address in pair.bob.sent if address == stranger.address]
