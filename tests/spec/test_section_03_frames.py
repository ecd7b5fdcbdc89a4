"""Section 3: what only a running session shows of its frames; the rest is in the vectors."""

from kaudp.wire.grammar import FrameType
from tests.worlds import MS, Pair, S, forge, of_type


def test_steady_state_frames_have_64_bytes() -> None:
    """KA-3.6-1: probe and reply alike, for ever."""
    pair = Pair(loss=0.1).up()
    pair.run(600 * S)
    frames = of_type(pair.alice, FrameType.PROBE) + of_type(pair.bob, FrameType.REPLY)
    assert len(frames) > 200
    assert {len(data) for _, data, _ in frames} == {64}


def test_echo_and_hold_refer_to_the_highest_also_when_another_is_answered() -> None:
    """KA-3.7-3: two probes arrive in the wrong order; both replies speak of the second."""
    pair = Pair().up()
    channel, far = pair.session._channel, pair.far._channel
    early = forge(pair.session, FrameType.PROBE, pair.now)
    pair.run(5 * MS)
    late = forge(pair.session, FrameType.PROBE, pair.now)
    for datagram in (late, early):
        pair.run(10 * MS)
        pair.world.inject(pair.bob, datagram, pair.alice.address)
        assert far.window.highest == channel.last_sent
    pair.run(20 * MS)
    assert abs(pair.session.stats.rtt_latest - 30 * MS) < 2000
