"""An application and heartbeats in one QUIC connection, interleaved at random.

Whatever the application sends, in whatever order and pieces, arrives as it was sent: KA-14.2-4,
KA-14.3-2, KA-14.5-2. What is a carried frame is decided here anew, from what went over the wire.
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from aioquic.quic.logger import QuicLogger
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import kaudp
from kaudp.wire.grammar import FrameType
from tests.io.quic.pairs import (
    CONTEXT,
    HEADER,
    HEARTS,
    Application,
    Pair,
    frames_received,
    paired,
    run_virtually,
    until,
)

MAX_DATAGRAM = 1_150
PIECES = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Datagram(NamedTuple):
    """A datagram of the application; a copy of a heartbeat, with a byte changed, if `of` is set."""

    side: int
    data: bytes
    of: int | None = None
    at: int = 0
    flip: int = 0


class Stream(NamedTuple):
    """A stream of the application, in pieces; it ends, is reset, or stays open."""

    side: int
    unidirectional: bool
    pieces: list[bytes]
    end: str


class Ping(NamedTuple):
    """A ping of the application."""

    side: int


class Wait(NamedTuple):
    """Time for heartbeats."""

    seconds: float


SIDES = st.integers(0, 1)
DATA = st.one_of(
    st.just(b""),
    st.just(CONTEXT),
    st.binary(max_size=64),
    st.binary(max_size=600).map(lambda tail: CONTEXT + tail),
    st.binary(min_size=44, max_size=600).map(lambda tail: CONTEXT + HEADER + tail),
    st.binary(min_size=1, max_size=80).map(lambda tail: b"\x0b" + tail),
    st.integers(MAX_DATAGRAM - 2, MAX_DATAGRAM).map(bytes),
    st.integers(0, 8).map(lambda size: CONTEXT[:size]),
    st.tuples(st.sampled_from([1, 2, 3, 8, 9, 10]), st.integers(0, 520)).map(
        lambda told: CONTEXT + bytes([0x0B, told[0], 0x81, 0]) + bytes(told[1])
    ),
)
DATAGRAMS = st.one_of(
    st.builds(Datagram, SIDES, DATA),
    st.builds(
        Datagram, SIDES, st.just(b""), st.integers(0, 5), st.integers(0, 75), st.integers(0, 254)
    ),
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """Draw what a stream of the application may hold: it does not begin with the context id."""
    begun = CONTEXT[: draw(st.integers(0, 7))]
    rest = draw(st.binary(max_size=40))
    if (begun + rest).startswith(CONTEXT):
        rest = b"\0" + rest
    return begun + rest


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    payload = draw(payloads())
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    bounds = [0, *cuts, len(payload)]
    pieces = [payload[a:b] for a, b in itertools.pairwise(bounds)]
    end = draw(st.sampled_from(["fin", "reset", "open"] if payload else ["fin"]))
    return Stream(draw(SIDES), draw(st.booleans()), pieces, end)


ACTIONS = st.lists(
    st.one_of(
        DATAGRAMS,
        DATAGRAMS,
        streams(),
        st.builds(Ping, SIDES),
        st.builds(Wait, st.sampled_from([0.0, 0.001, 0.02, 0.15])),
    ),
    max_size=14,
)


class Expected:
    """Follows what each side of the application sends, and what of it has to arrive."""

    def __init__(self, pair: Pair) -> None:
        self.sides: list[Application] = list(pair)
        self.heartbeats: list[list[bytes]] = [[], []]
        self.own: list[list[bytes]] = [[], []]
        self.streams: dict[tuple[int, int], tuple[bytes, str]] = {}
        self.pings: list[asyncio.Task[None]] = []
        self.from_application = False
        self.hearts_listen = True
        for number, side in enumerate(self.sides):
            self._spy(number, side)

    def _spy(self, number: int, side: Application) -> None:
        send: Callable[[bytes], None] = side.quic.send_datagram_frame

        def send_datagram_frame(data: bytes) -> None:
            if not self.from_application:
                self.heartbeats[number].append(data)
            send(data)

        side.quic.send_datagram_frame = send_datagram_frame  # type: ignore[method-assign]

    async def do(self, action: Any) -> None:
        match action:
            case Datagram():
                self._datagram(action)
            case Stream():
                await self._stream(action)
            case Ping():
                self.pings.append(asyncio.ensure_future(self.sides[action.side].ping()))
            case Wait():
                await asyncio.sleep(action.seconds)

    def _datagram(self, action: Datagram) -> None:
        data = action.data
        sent = self.heartbeats[action.side]
        if action.of is not None and sent:
            copy = bytearray(sent[-1 - action.of % len(sent)])
            copy[action.at % len(copy)] ^= 1 + action.flip % 255
            data = bytes(copy)
        self.own[action.side].append(data)
        self.from_application = True
        self.sides[action.side].quic.send_datagram_frame(data)
        self.from_application = False
        self.sides[action.side].transmit()

    async def _stream(self, action: Stream) -> None:
        side = self.sides[action.side]
        stream_id = side.quic.get_next_available_stream_id(is_unidirectional=action.unidirectional)
        for number, piece in enumerate(action.pieces):
            last = action.end == "fin" and number == len(action.pieces) - 1
            side.send_stream(piece, stream_id=stream_id, end=last)
            await asyncio.sleep(0.003)
        if action.end == "reset":
            # What was not sent yet a reset takes back; all of it is on its way by now.
            await asyncio.sleep(0.05)
            side.quic.reset_stream(stream_id, 7)
            side.transmit()
        self.streams[action.side, stream_id] = b"".join(action.pieces), action.end

    def chosen(self, receiver: int) -> set[bytes]:
        """Give the session ids that a side has chosen, as it told on the wire."""
        ids = set()
        for datagram in self.heartbeats[receiver]:
            frame = datagram[len(CONTEXT) :]
            if frame[1] == FrameType.INIT:
                ids.add(frame[4:12])
            elif frame[1] == FrameType.RESPONSE:
                ids.add(frame[12:20])
        return ids

    def is_frame(self, data: bytes, receiver: int) -> bool | None:
        """Tell by KA-14.1-4 whether a datagram is a carried frame; None: an INIT, not judged."""
        frame = data[len(CONTEXT) :]
        if not data.startswith(CONTEXT) or not 48 <= len(frame) <= 512:
            return False
        if frame[0] != 0x0B or frame[2] != 0x81:
            return False
        if frame[1] in (FrameType.INIT, FrameType.RESPONSE):
            if frame[3] != 0 or len(frame) < 52:
                return False
            return None if frame[1] == FrameType.INIT else frame[4:12] in self.chosen(receiver)
        return frame[1] in (8, 9, 10) and frame[4:12] in self.chosen(receiver)

    def check(self) -> None:
        for number, side in enumerate(self.sides):
            other = 1 - number
            judged = [(data, self.is_frame(data, number)) for data in self.own[other]]
            doubtful = [data for data, verdict in judged if verdict is None]
            # An application that posed as a heart and began a session gets the answer.
            doubtful += [data for data in self.heartbeats[other] if not self.is_frame(data, number)]
            arrived = [data for data in side.datagrams if data not in doubtful]
            assert arrived == [data for data, verdict in judged if verdict is False]
        for (sender, stream_id), (payload, end) in self.streams.items():
            receiver = self.sides[1 - sender]
            # What may yet become the context id is held back until it is decided.
            undecided = end == "open" and stream_id & 2 and CONTEXT.startswith(payload)
            held = undecided and self.hearts_listen
            assert bytes(receiver.streams[stream_id]) == (b"" if held else payload)
            assert (stream_id in receiver.ended) == (end == "fin")
            assert (stream_id in receiver.resets) == (end == "reset")
        for number, side in enumerate(self.sides):
            known = {stream for sender, stream in self.streams if sender != number}
            assert {stream for stream in side.streams if side.streams[stream]} <= known
            assert set(side.resets) <= known
            assert not side.terminated
        for ping in self.pings:
            ping.result()


def interleave(actions: list[Any], near: dict[str, Any], far: dict[str, Any]) -> None:
    async def test() -> None:
        async with paired(near=None, far=None) as pair:
            expected = Expected(pair)
            pair.server.attach(**far)
            pair.client.attach(**near)
            for action in actions:
                await expected.do(action)
            await asyncio.sleep(1)
            expected.check()
            frames = [action for action in actions if isinstance(action, Datagram)]
            if all(action.of is None and action.data[8:10] != b"\x0b\x01" for action in frames):
                # Nobody posed as a heart, so both still beat.
                for side in pair:
                    assert side.attached.state is kaudp.State.UP
                    assert not side.heard_of(kaudp.SessionDown)

    run_virtually(test)


@PIECES
@given(ACTIONS)
@example([Wait(0.1), Datagram(0, b"", 0, 0, 1), Datagram(1, b"", 0, 12, 1)])
@example([Wait(0.1), Stream(0, True, [CONTEXT[:3], CONTEXT[3:7], b""], "fin")])
def test_nothing_of_the_application_is_lost_changed_or_eaten_in_mode_datagram(
    actions: list[Any],
) -> None:
    """KA-14.2-4 KA-14.3-2: beside heartbeats in DATAGRAM frames."""
    interleave(actions, HEARTS, HEARTS)


@PIECES
@given(ACTIONS)
@example([Wait(0.1), Stream(1, True, [CONTEXT[:7], b"", b"x"], "open"), Datagram(0, CONTEXT)])
@example([Stream(0, True, [CONTEXT[:5]], "reset"), Wait(0.1)])
def test_nothing_of_the_application_is_lost_changed_or_eaten_in_mode_stream(
    actions: list[Any],
) -> None:
    """KA-14.2-4 KA-14.3-2: beside heartbeats on streams."""
    interleave(actions, {**HEARTS, "mode": "stream"}, HEARTS)


@PIECES
@given(ACTIONS)
@example([Wait(0.1), Datagram(0, CONTEXT + HEADER + bytes(44)), Ping(0), Ping(1)])
def test_an_unaware_peer_gets_all_of_the_application_and_beside_it_ping(
    actions: list[Any],
) -> None:
    """KA-14.5-2: what the peer's application gets, and which frames its QUIC stack saw."""

    async def test() -> None:
        logger = QuicLogger()
        async with paired(server={"quic_logger": logger}, near=None, far=None) as pair:
            expected = Expected(pair)
            before = len(frames_received(logger))
            pair.client.attach(config=kaudp.Config.lan())
            for action in actions:
                await expected.do(action)
            await asyncio.sleep(1)
            # Nothing is a frame where nobody listens.
            expected.hearts_listen = False
            expected.is_frame = lambda data, receiver: False  # type: ignore[method-assign]
            expected.check()
            assert expected.heartbeats == [[], []]
            assert pair.client.attached.state is kaudp.State.UP
            allowed = {"ping", "ack", "padding", "new_connection_id", "retire_connection_id"}
            for kind, names in (
                (Datagram, {"datagram"}),
                (
                    Stream,
                    {"stream", "reset_stream", "max_data", "max_streams", "max_stream_data"},
                ),
            ):
                if any(isinstance(action, kind) for action in actions):
                    allowed |= names
            seen = frames_received(logger)[before:]
            assert seen.count("ping") >= 3
            assert set(seen) <= allowed

    run_virtually(test)


@pytest.mark.parametrize("mode", ["datagram", "stream"])
def test_a_changed_heartbeat_is_told_from_a_real_one(mode: str) -> None:
    """KA-14.2-4: each byte up to the session id decides; what follows it is kaudp's to judge."""

    async def test() -> None:
        async with paired(near=None, far=None) as pair:
            expected = Expected(pair)
            pair.server.attach(**HEARTS)
            pair.client.attach(**HEARTS)
            await pair.up()
            probe = next(d for d in expected.heartbeats[0] if d[9] == FrameType.PROBE)
            for at in range(len(CONTEXT) + 12):
                copy = bytearray(probe)
                copy[at] ^= 0x40
                pair.client.send_datagram(bytes(copy))
                wanted = [] if at == len(CONTEXT) + 3 else [bytes(copy)]
                pair.server.datagrams.clear()
                await until(lambda: pair.server.datagrams, 0.1) if wanted else None
                await asyncio.sleep(0.02)
                assert pair.server.datagrams == wanted, at

    run_virtually(test)
