"""Spec section 14: what the core, the modes and the endings do; tests/io/quic has the wiring."""

from random import Random

import pytest
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived, StreamReset
from aioquic.quic.packet import QuicErrorCode
from hypothesis import given
from hypothesis import strategies as st

from kaudp.config import Config, DetectorKind
from kaudp.core.endpoint import Endpoint
from kaudp.core.session import Session
from kaudp.errors import DropReason, QuicError, Refused
from kaudp.events import (
    CloseReason,
    ConnectFailed,
    PeerRestarted,
    QuicMode,
    SessionClosed,
    SessionDown,
    State,
)
from kaudp.io.quic.acknowledgements import (
    MAX_HANDSHAKES,
    MAX_OUTSTANDING,
    AcknowledgingPeer,
)
from kaudp.io.quic.carriers import CONTEXT_ID, Messages
from kaudp.io.quic.endings import ending
from kaudp.io.quic.internals import Closing
from kaudp.io.quic.modes import choose, fit
from kaudp.io.quic.streams import PeerStreams
from kaudp.wire import codec
from kaudp.wire.grammar import FrameType
from kaudp.wire.suites import Carried
from tests.spec.test_text import section, table
from tests.worlds import MS, Pair, S, of_type

PREAMBLE = bytes([0xD0]) + b"kaudp/1"


def carried_pair(seed: object = 2, **conditions: float) -> Pair:
    """Give two endpoints whose frames a connection carries."""
    return Pair(seed, key=Carried(), **conditions)


def endpoint(seed: object = 1, *, accept: bool = False) -> Endpoint:
    return Endpoint(
        Config.lan(),
        keys=Carried(),
        rng=Random(f"{seed}/jitter"),
        entropy=Random(f"{seed}/entropy").randbytes,
        accept=accept,
    )


# 14.1 Carried frames.


def test_frames_inside_quic_have_no_tag() -> None:
    """KA-14.1-1: 48 bytes without options, the body in clear; INIT and RESPONSE of suite 0."""
    pair = carried_pair().up().run(20 * S)
    (_, init, _), *_ = of_type(pair.alice, FrameType.INIT)
    (_, response, _), *_ = of_type(pair.bob, FrameType.RESPONSE)
    assert init[:4] == bytes([0x0B, 1, 0x81, 0])
    assert response[:4] == bytes([0x0B, 2, 0x81, 0])
    assert response[4:12] == init[4:12]
    for node in (pair.alice, pair.bob):
        frames = of_type(node, FrameType.PROBE, FrameType.REPLY)
        assert len(frames) > 3
        for _, frame, _ in frames:
            assert len(frame) == 48
            body = codec.parse_body(frame[1], frame[20:])
            assert body.state == State.UP


def test_carried_and_sealed_frames_do_not_mix() -> None:
    """KA-14.1-1, KA-14.1-2: neither endpoint takes the other's frames for its own."""
    sealed, carried = Pair().up(), carried_pair().up()
    for pair, other in ((sealed, carried), (carried, sealed)):
        for frame in (pair.alice.sent[0][1], pair.bob.sent[0][1], pair.alice.sent[-1][1]):
            assert other.world.inject(other.bob, frame, other.alice.address) is False


def test_a_carried_frame_is_ours_only_with_a_session_id_of_ours() -> None:
    """KA-14.1-4: without it, or with another length or head, it is the application's."""
    pair = carried_pair().up()
    (_, probe, _), *_ = of_type(pair.alice, FrameType.PROBE)
    stranger = probe[:4] + bytes(8) + probe[12:]
    for frame in (stranger, probe[:47], b"", probe[:1], b"\x0c" + probe[1:], probe + bytes(465)):
        assert pair.world.inject(pair.bob, frame, pair.alice.address) is False
    assert pair.world.inject(pair.bob, probe, pair.alice.address) is True
    assert pair.bob.endpoint.counters[DropReason.REPLAY] == 1


@given(st.integers(12, 511), st.randoms(use_true_random=False))
def test_a_broken_init_is_the_applications(size: int, rng: Random) -> None:
    """KA-14.1-4: only a whole INIT is ours, for nothing else vouches for it."""
    responder = endpoint(accept=True)
    data = bytes([0x0B, 1, 0x81, 0]) + bytes(36) + rng.randbytes(size)
    assert responder.receive_datagram(data, ("192.0.2.1", 1), 0) is False
    assert not list(responder.datagrams_to_send())


def test_a_session_ends_with_its_connection_at_once() -> None:
    """KA-14.7-1: one event, nothing is sent, nothing is left."""
    pair = carried_pair().up()
    sent = len(pair.alice.sent)
    pair.alice.endpoint.abandon(
        pair.now, CloseReason.CARRIER_IDLE, by_peer=False, detail="idle timeout"
    )
    pair.run(60 * S)
    assert pair.alice.events[-1] == SessionClosed(
        pair.session, pair.alice.events[-1].time, CloseReason.CARRIER_IDLE, False, "idle timeout"
    )
    assert pair.alice.endpoint.quiet
    assert pair.alice.endpoint.next_timer() is None
    assert len(pair.alice.sent) == sent


def test_a_session_that_was_never_up_has_failed_to_connect() -> None:
    """KA-14.7-1."""
    alone = endpoint()
    session = alone.connect(("192.0.2.2", 1), 0, key_id=b"")
    alone.abandon(5, CloseReason.CARRIER_FAILED, by_peer=True, detail="TLS alert")
    assert alone.next_event() == ConnectFailed(session, 5, False, "TLS alert")
    assert alone.next_event() is None
    assert alone.quiet


def test_an_unconfirmed_close_ends_with_the_connection() -> None:
    """KA-14.7-1: and tells nothing a second time."""
    pair = carried_pair().up()
    pair.session.close(pair.now)
    assert not pair.alice.endpoint.quiet
    pair.alice.endpoint.abandon(pair.now, CloseReason.CARRIER_CLOSED, by_peer=True, detail="")
    pair.run(S)
    assert pair.alice.kinds().count("SessionClosed") == 1
    assert pair.alice.endpoint.quiet


def test_no_loss_is_reported_where_the_carrier_repeats() -> None:
    """KA-14.3-5."""
    counted = carried_pair(loss=0.3, seed=3).up().run(60 * S)
    assert counted.session.stats.loss_out
    assert counted.session.stats.loss_in
    repeated = Pair(key=Carried(repeats=True), seed=3, loss=0.3).up().run(60 * S)
    assert repeated.session.stats.loss_out is None
    assert repeated.session.stats.loss_in is None
    assert repeated.session.stats.sent == counted.session.stats.sent


# 14.2 and 14.3: the context id and the messages.


def test_the_default_context_id_is_no_quarter_stream_id() -> None:
    """KA-14.2-4: it is larger than any, and eight bytes on the wire."""
    assert (CONTEXT_ID | 3 << 62).to_bytes(8, "big") == PREAMBLE
    assert 2**60 <= CONTEXT_ID < 2**62
    assert CONTEXT_ID == 2**60 + 0x6B617564702F31


@given(st.lists(st.binary(min_size=48, max_size=512), max_size=6), st.data())
def test_messages_come_out_as_they_went_in(frames: list[bytes], data: st.DataObject) -> None:
    """KA-14.3-1: however the stream cuts them."""
    stream = b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames)
    messages, out = Messages(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        out += messages.frames(stream[:size])
        stream = stream[size:]
    assert out == frames
    assert not messages.inside


@pytest.mark.parametrize("length", [0, 1, 47, 513, 0xFFFF])
def test_a_message_of_no_frames_length_is_refused(length: int) -> None:
    """KA-14.3-3."""
    with pytest.raises(Refused) as refused:
        list(Messages().frames(length.to_bytes(2, "big")))
    assert refused.value.reason is DropReason.MALFORMED


def test_an_applications_stream_passes_unchanged() -> None:
    """KA-14.3-2: also one that begins as ours does, and whatever comes in one piece or many."""
    streams = PeerStreams(PREAMBLE, peer_is_client=True)
    assert streams.take(StreamDataReceived(PREAMBLE[:5], False, 2)).passed == []
    (late,) = streams.take(StreamDataReceived(b"!!", False, 2)).passed
    assert late == StreamDataReceived(PREAMBLE[:5] + b"!!", False, 2)
    (more,) = streams.take(StreamDataReceived(PREAMBLE, True, 2)).passed
    assert more == StreamDataReceived(PREAMBLE, True, 2)
    (short,) = streams.take(StreamDataReceived(PREAMBLE[:7], True, 6)).passed
    assert short == StreamDataReceived(PREAMBLE[:7], True, 6)
    bidirectional = StreamDataReceived(PREAMBLE, False, 0)
    assert streams.take(bidirectional).passed == [bidirectional]
    own = StreamDataReceived(PREAMBLE, False, 3)
    assert streams.take(own).passed == [own]
    streams.take(StreamDataReceived(PREAMBLE[:3], False, 10))
    held, reset = streams.take(StreamReset(7, 10)).passed
    assert held == StreamDataReceived(PREAMBLE[:3], False, 10)
    assert reset == StreamReset(7, 10)


def test_the_newest_heartbeat_stream_counts() -> None:
    """KA-14.3-2, KA-14.3-3: the one before is abandoned, and so is an older one that is late."""
    streams = PeerStreams(PREAMBLE, peer_is_client=True)
    message = (48).to_bytes(2, "big") + bytes(48)
    assert streams.take(StreamDataReceived(PREAMBLE + message, False, 6)).frames == [bytes(48)]
    newer = streams.take(StreamDataReceived(PREAMBLE + message, False, 10))
    assert (newer.frames, newer.abandoned, newer.begun) == ([bytes(48)], (6,), True)
    assert streams.take(StreamDataReceived(message, False, 6)) == ([], [], (), None, False)
    late = streams.take(StreamDataReceived(PREAMBLE + message, False, 2))
    assert (late.frames, late.abandoned) == ([], (2,))
    assert streams.take(StreamDataReceived(message, False, 10)).frames == [bytes(48)]


@pytest.mark.parametrize("end", [True, False])
def test_a_stream_cut_within_a_message_is_malformed(end: bool) -> None:
    """KA-14.3-3."""
    streams = PeerStreams(PREAMBLE, peer_is_client=True)
    streams.take(StreamDataReceived(PREAMBLE + b"\0", False, 2))
    cut = StreamDataReceived(b"\x30", True, 2) if end else StreamReset(0, 2)
    assert streams.take(cut).refused is DropReason.MALFORMED


# 14.4 Mode ping.


class Pinger:
    """A session in mode ping over a path that may lose acknowledgements, in virtual time."""

    def __init__(self, rtt: int = 20 * MS) -> None:
        self.carried = Carried(repeats=True)
        self.endpoint = Endpoint(
            Config.lan(),
            keys=self.carried,
            rng=Random("jitter"),
            entropy=Random("entropy").randbytes,
        )
        self.peer = AcknowledgingPeer()
        self.rtt = rtt
        self.now = 0
        self.cut = False
        self.in_flight: list[tuple[int, int]] = []
        self.events: list[object] = []
        self.pings = 0
        self.session: Session = self.endpoint.connect("peer", 0, key_id=b"")

    def run(self, duration: int) -> "Pinger":
        end = self.now + duration
        while self.now < end:
            self._step()
            self.now += MS
        return self

    def _step(self) -> None:
        while self.in_flight and self.in_flight[0][0] <= self.now and not self.cut:
            answer = self.peer.acknowledged(self.in_flight.pop(0)[1])
            if answer is not None:
                self.endpoint.receive_datagram(answer, "peer", self.now)
        self.endpoint.handle_timer(self.now)
        for frame, _ in self.endpoint.datagrams_to_send():
            ping = self.peer.ask(frame)
            if ping is not None:
                self.pings += 1
                self.in_flight.append((self.now + self.rtt, ping))
            elif frame[1] == FrameType.CLOSE:
                self.endpoint.receive_datagram(self.peer.closed(frame), "peer", self.now)
        while event := self.endpoint.next_event():
            self.events.append(event)


def test_acknowledgements_keep_a_session_up() -> None:
    """KA-14.4-1: each PING is one PROBE, and its acknowledgement the reply."""
    pinger = Pinger().run(10 * S)
    stats = pinger.session.stats
    assert pinger.session.state is State.UP
    assert stats.suspicions == 0
    assert 100 <= pinger.pings <= 140
    assert stats.round_trips >= pinger.pings - 3
    assert 20 * MS <= stats.rtt_min <= stats.rtt_max <= 22 * MS  # type: ignore[operator]


def test_without_acknowledgements_it_goes_down_within_the_bound_and_comes_up_again() -> None:
    """KA-14.4-1: misses, suspicion and verdict are those of section 7."""
    pinger = Pinger().run(2 * S)
    pinger.cut = True
    before = pinger.now
    pinger.run(S)
    (down,) = [event for event in pinger.events if isinstance(event, SessionDown)]
    assert 200 * MS <= down.time - before <= 500 * MS
    pinger.cut = False
    pinger.run(3 * S)
    assert pinger.session.state is State.UP
    assert not any(isinstance(event, PeerRestarted) for event in pinger.events)


@pytest.mark.parametrize("told", [0, 25 * MS])
def test_an_acknowledgement_that_is_kept_back_is_no_miss(told: int) -> None:
    """KA-14.4-4: where the peer has told how long it may do so."""
    pinger = Pinger()
    pinger.carried.answer_delay = told
    pinger.endpoint.reconfigure(Config.lan(), 0)
    rng = Random(7)
    for _ in range(300):
        pinger.rtt = 20 * MS + rng.choice([0, 0, 0, 0, 25 * MS])
        pinger.run(50 * MS)
    assert (pinger.session.stats.suspicions == 0) == (told > 0)
    assert pinger.session.state is not State.DOWN


def test_an_acknowledgement_proves_no_more_than_the_first_sending() -> None:
    """KA-14.4-2: QUIC repeats a lost PING in silence, so the whole wait counts as round trip."""
    pinger = Pinger().run(2 * S)
    pinger.cut = True
    pinger.run(100 * MS)
    sent_at = pinger.in_flight[0][0] - pinger.rtt
    pinger.cut = False
    pinger.run(5 * MS)
    assert pinger.session.stats.rtt_max >= pinger.now - 10 * MS - sent_at  # type: ignore[operator]


def test_late_acknowledgements_do_not_revive() -> None:
    """KA-14.4-2: those held back over the death prove only the past."""
    pinger = Pinger().run(2 * S)
    pinger.cut = True
    pinger.run(450 * MS)
    assert pinger.session.state is State.DOWN
    held = [ping for _, ping in pinger.in_flight][:3]
    for ping in held:
        answer = pinger.peer.acknowledged(ping)
        assert answer is not None
        pinger.endpoint.receive_datagram(answer, "peer", pinger.now)
    assert pinger.session.state is State.DOWN


def test_it_comes_up_again_although_every_ping_of_the_outage_is_acknowledged_late() -> None:
    """KA-14.4-1: QUIC sends them all again; those of handshakes given up mislead nobody."""
    pinger = Pinger().run(2 * S)
    for outage in (2 * S, 60 * S, 5 * S, 90 * S):
        pinger.cut = True
        pinger.run(outage)
        assert pinger.session.state is State.DOWN
        pinger.cut = False
        pinger.run(4 * S)
        assert pinger.session.state is State.UP
        before = pinger.session.stats.round_trips
        pinger.run(5 * S)
        assert pinger.session.stats.round_trips - before > 40
        assert pinger.session.state is State.UP


def test_what_waited_in_quic_teaches_nothing_of_the_path() -> None:
    """KA-14.6-2: after an outage PTO is what it was, so the next one is noticed as fast."""
    pinger = Pinger().run(5 * S)
    usual = pinger.session.stats.probe_timeout
    pinger.carried.longest_response = 100 * MS
    for _ in range(3):
        pinger.cut = True
        pinger.run(10 * S)
        pinger.cut = False
        pinger.run(5 * S)
    assert pinger.session.stats.rtt_max > 5 * S  # type: ignore[operator]
    assert pinger.session.stats.probe_timeout <= usual + MS


def test_closing_in_mode_ping_sends_nothing() -> None:
    """KA-14.4-3."""
    pinger = Pinger().run(2 * S)
    sent = pinger.pings
    pinger.session.close(pinger.now)
    pinger.run(5 * S)
    assert pinger.pings == sent
    assert pinger.endpoint.quiet


def test_an_older_acknowledgement_tells_nothing_new() -> None:
    """KA-14.4-1: QUIC acknowledges in any order."""
    pinger = Pinger().run(2 * S)
    pinger.cut = True
    pinger.run(250 * MS)
    older, newer = (ping for _, ping in pinger.in_flight[:2])
    assert pinger.peer.acknowledged(newer) is not None
    assert pinger.peer.acknowledged(older) is None


def test_handshakes_that_are_remembered_are_bounded() -> None:
    """KA-14.4-1: those not asked for the longest give way."""
    peer = AcknowledgingPeer()
    for seed in range(50):
        opened = endpoint(seed)
        opened.connect("peer", 0, key_id=b"")
        ((init, _),) = opened.datagrams_to_send()
        ping = peer.ask(init)
        assert ping is not None
        assert peer.acknowledged(ping) is not None
    assert len(peer._numbers) <= MAX_HANDSHAKES


def test_what_waits_for_acknowledgement_is_bounded() -> None:
    """KA-14.4-1: a path that is dead for long costs no memory."""
    peer = AcknowledgingPeer()
    opened = endpoint()
    opened.connect("peer", 0, key_id=b"")
    ((init, _),) = opened.datagrams_to_send()
    first = [peer.ask(init) for _ in range(MAX_OUTSTANDING + 10)]
    assert peer.acknowledged(first[0]) is None  # type: ignore[arg-type]
    assert peer.acknowledged(first[-1]) is not None  # type: ignore[arg-type]
    assert peer.acknowledged(first[-1]) is None  # type: ignore[arg-type]
    assert peer.acknowledged(12_345) is None


# 14.5 The choice.


@pytest.mark.parametrize(
    ("alpn", "speaks", "own", "peer", "mode"),
    [
        ("kaudp/1", False, 65536, 65536, QuicMode.DATAGRAM),
        ("kaudp/1", False, 160, 160, QuicMode.DATAGRAM),
        ("kaudp/1", False, 65536, 159, QuicMode.STREAM),
        ("kaudp/1", False, 0, 65536, QuicMode.STREAM),
        ("h3", False, 65536, 65536, QuicMode.PING),
        (None, False, 65536, 65536, QuicMode.PING),
        ("h3", True, 65536, 65536, QuicMode.DATAGRAM),
        ("h3", True, 65536, 0, QuicMode.STREAM),
    ],
)
def test_the_mode_that_fits(
    alpn: str | None, speaks: bool, own: int, peer: int, mode: QuicMode
) -> None:
    """KA-14.5-1, KA-14.5-2."""
    choice = choose(None, alpn=alpn, speaks_kaudp=speaks, own=own, peer=peer)
    assert choice.mode is mode
    assert choice.why
    assert [row[1] for row in table(section("14.5"), "condition")] == ["ping", "datagram", "stream"]


def test_what_is_asked_for_is_done_or_refused() -> None:
    """KA-14.2-1: no DATAGRAM to a peer that takes none, whoever asks."""
    for mode in (QuicMode.STREAM, QuicMode.PING):
        assert choose(mode, alpn="h3", speaks_kaudp=False, own=0, peer=0).mode is mode
    for own, peer in ((65536, 0), (0, 65536), (65536, 159)):
        with pytest.raises(QuicError, match=f"got {own} .* and {peer}"):
            choose(QuicMode.DATAGRAM, alpn="kaudp/1", speaks_kaudp=True, own=own, peer=peer)


# 14.6 The interval.


@pytest.mark.parametrize(
    ("asked_ms", "idle_s", "pto_s", "given_ms"),
    [
        (5_000, 60.0, 0.1, 5_000),
        (45_000, 60.0, 0.1, 30_000),
        (5_000, 4.0, 0.1, 2_000),
        (100, 60.0, 0.2, 301),
        (5_000, 0.09, 0.03, 45),
        (5_000, 0.001, 0.03, 10),
        (500_000, 1e300, 0.1, 500_000),
        (5_000, 1e300, 1e9, 599_666),
        (5_000, 60.0, 1e9, 30_000),
    ],
)
def test_the_interval_fits_quics_timers(
    asked_ms: int, idle_s: float, pto_s: float, given_ms: int
) -> None:
    """KA-14.6-1: at least 1.5 PTO, and then at most half the idle timeout."""
    config = Config(interval_ms=asked_ms, min_receive_interval_ms=60_000)
    fitted = fit(config, idle_timeout_s=idle_s, probe_timeout_s=pto_s)
    assert fitted.interval_ms == given_ms
    # KA-14.6-4.
    assert fitted.nat_keepalive_ms is not None
    assert fitted.nat_keepalive_ms <= max(1_000, min(25_000, idle_s / 2 * 1_000))
    assert fitted.min_receive_interval_ms <= max(10, idle_s / 2 * 1_000)


@given(
    st.integers(10, 7_000),
    st.integers(1, 255),
    st.sampled_from(DetectorKind),
    st.floats(0, 1e12),
    st.floats(0, 1e12),
)
def test_no_timers_of_quic_make_an_illegal_configuration(
    interval_ms: int, multiplier: int, detector: DetectorKind, idle_s: float, pto_s: float
) -> None:
    """KA-14.6-1: a peer can raise PTO, so nothing that it does may raise an error."""
    config = Config(
        interval_ms=interval_ms,
        max_peer_interval_ms=interval_ms,
        min_receive_interval_ms=0,
        multiplier=multiplier,
        detector=detector,
    )
    fit(config, idle_timeout_s=idle_s, probe_timeout_s=pto_s)


# 14.7 The end of a connection.


def terminated(code: int, frame_type: int | None, phrase: str = "") -> ConnectionTerminated:
    return ConnectionTerminated(code, frame_type, phrase)


@pytest.mark.parametrize(
    ("event", "closing", "alpn", "reason", "by_peer"),
    [
        (terminated(0, None), Closing.LOCAL, "h3", CloseReason.CARRIER_CLOSED, False),
        (terminated(7, None), Closing.LOCAL, "h3", CloseReason.CARRIER_CLOSED, False),
        (terminated(1, None), Closing.PEER, "kaudp/1", CloseReason.SHUTDOWN, True),
        (terminated(0x8001, None), Closing.PEER, "kaudp/1", 0x8001, True),
        (terminated(5, None), Closing.PEER, "kaudp/1", CloseReason.CARRIER_CLOSED, True),
        (terminated(1, None), Closing.PEER, "h3", CloseReason.CARRIER_CLOSED, True),
        (terminated(0, 0), Closing.PEER, "kaudp/1", CloseReason.CARRIER_CLOSED, True),
        (
            terminated(QuicErrorCode.INTERNAL_ERROR, 0, "Idle timeout"),
            Closing.NEITHER,
            "kaudp/1",
            CloseReason.CARRIER_IDLE,
            False,
        ),
        (
            terminated(QuicErrorCode.INTERNAL_ERROR, 0, "Idle timeout"),
            Closing.PEER,
            "kaudp/1",
            CloseReason.CARRIER_FAILED,
            True,
        ),
        (terminated(0x178, 6), Closing.PEER, None, CloseReason.CARRIER_FAILED, True),
        (terminated(0x12A, 6), Closing.LOCAL, None, CloseReason.CARRIER_FAILED, False),
        (terminated(0xFFFF_FFFF, 6), Closing.LOCAL, None, CloseReason.CARRIER_FAILED, False),
    ],
)
def test_the_reason_tells_what_ended_the_connection(
    event: ConnectionTerminated,
    closing: Closing,
    alpn: str | None,
    reason: CloseReason | int,
    by_peer: bool,
) -> None:
    """KA-14.7-1."""
    end = ending(event, closing, alpn)
    assert (end.reason, end.by_peer) == (reason, by_peer)
    assert end.detail
    rows = {row[1] for row in table(section("14.7"), "what ended the connection")}
    assert not isinstance(reason, CloseReason) or reason < 5 or reason.name in rows


def test_a_failure_is_named() -> None:
    """KA-14.7-1: in words that help, not in numbers."""
    assert "no_application_protocol" in ending(terminated(0x178, 6), Closing.PEER, None).detail
    assert "CONNECTION_REFUSED" in ending(terminated(2, 0), Closing.PEER, None).detail
    assert "'bad thing'" in ending(terminated(2, 0, "bad thing"), Closing.PEER, None).detail
    assert "0x1234" in ending(terminated(0x1234, 0), Closing.PEER, None).detail


def test_a_peer_cannot_claim_a_reason_that_is_never_on_the_wire() -> None:
    """KA-14.7-1: such a number stays a number."""
    pair = carried_pair().up()
    channel = pair.far._channel
    assert channel is not None
    said = pair.far._said(pair.alice.address)
    options = codec.Options(close_reason=int(CloseReason.CARRIER_IDLE))
    frame = channel.build(FrameType.CLOSE, said, pair.now, options)
    pair.world.inject(pair.alice, frame, pair.bob.address)
    event = pair.alice.events[-1]
    assert isinstance(event, SessionClosed)
    assert event.by_peer
    assert type(event.reason) is int
