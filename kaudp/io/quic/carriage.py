"""All ways of frames in and out of one QUIC connection: events to frames, frames to aioquic.

What is a frame's and what the application's is sorted here; what a frame means is not.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.quic.events import (
    DatagramFrameReceived,
    PingAcknowledged,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

from kaudp.errors import DropReason
from kaudp.events import QuicMode
from kaudp.io.quic import internals
from kaudp.io.quic.carriers import Carrier, DatagramCarrier, PingCarrier, StreamCarrier
from kaudp.io.quic.streams import PeerStreams

STREAM_REFUSED: Final = 0
# Header, tag and framing of the QUIC packet around a frame, at most.
PACKET_OVERHEAD_BYTES: Final = 64
SILENCE_PARTS: Final = 8


class Taken(NamedTuple):
    """What an event of QUIC gave: frames and their carrier, and what is the application's.

    `otherwise` is the application's where the frames turn out not to be ours.
    """

    frames: Sequence[bytes] = ()
    carrier: Carrier | None = None
    passed: Sequence[QuicEvent] = ()
    otherwise: Sequence[QuicEvent] = ()
    refused: DropReason | None = None


NOTHING: Final = Taken()


class Carriage:
    """Sends by the carrier in use; takes frames from all that this side listens to.

    `dedicated` tells that no application shares the connection: then nothing is passed on.
    """

    def __init__(
        self, protocol: QuicConnectionProtocol, context_id: int, now: int, *, dedicated: bool
    ) -> None:
        preamble = encode_uint_var(context_id)
        quic = internals.connection_of(protocol)
        self.current: Carrier | None = None
        self._quic = quic
        self._dedicated = dedicated
        self._listens = False
        self._datagrams = DatagramCarrier(quic, preamble)
        self._stream = StreamCarrier(protocol, preamble)
        self._pings = PingCarrier(quic)
        self._refused: set[int] = set()
        self._unanswered_bytes = 0
        self._sent_at: dict[int, int] = {}
        self._heard_at = now
        peer_is_client = not quic.configuration.is_client
        self._peer_streams = PeerStreams(preamble, peer_is_client=peer_is_client)

    @property
    def mode(self) -> QuicMode | None:
        """The mode of the carrier in use."""
        return self.current.mode if self.current else None

    def use(self, mode: QuicMode) -> None:
        """Send in this mode from now on."""
        carriers: tuple[Carrier, ...] = (self._datagrams, self._stream, self._pings)
        self.current = next(carrier for carrier in carriers if carrier.mode is mode)

    def listen(self, *, own_alpn: bool) -> None:
        """Look for frames in datagrams and streams: the peer speaks kaudp.

        Where the ALPN is kaudp's own, datagrams need no context id. Spec: section 14.2.
        """
        self._listens = True
        self._peer_streams.leave(internals.open_streams(self._quic))
        if own_alpn:
            self._datagrams.prefix = b""

    def send(self, frame: bytes, now: int) -> str:
        """Hand a frame to QUIC; give why it was dropped, empty if it was not."""
        if self.current is None:
            return "no_carrier"
        kind = frame[1]
        dropped = "crowded" if self._crowded(kind, now) else self.current.send(frame)
        if not dropped:
            self._unanswered_bytes += len(frame) + PACKET_OVERHEAD_BYTES
            self._sent_at[kind] = now
        return dropped

    def heard(self, now: int) -> None:
        """Take note of a frame of the peer."""
        self._unanswered_bytes = 0
        self._heard_at = now

    def _crowded(self, kind: int, now: int) -> bool:
        """Tell whether a frame would take the room of those that follow. Spec: KA-14.6-3.

        Each kind of frame has its turn, so probes do not keep handshakes from going out.
        """
        if self._unanswered_bytes <= internals.congestion_window(self._quic) // 2:
            return False
        sent_at = self._sent_at.get(kind, self._heard_at)
        return SILENCE_PARTS * (now - sent_at) < now - self._heard_at

    def answer(self) -> bytes | None:
        """Take a frame that comes back at once, without the peer's doing."""
        return self._pings.answer()

    def take(self, event: QuicEvent) -> Taken:
        """Sort an event."""
        taker = _TAKERS.get(type(event))
        return Taken(passed=[event]) if taker is None else taker(self, event)

    def _ping(self, event: PingAcknowledged) -> Taken:
        if not self._pings.owns(event.uid):
            return Taken(passed=[event])
        frame = self._pings.acknowledged(event.uid)
        return NOTHING if frame is None else Taken([frame], self._pings)

    def _datagram(self, event: DatagramFrameReceived) -> Taken:
        """Spec: KA-14.2-4."""
        frame = self._datagrams.frame(event.data) if self._listens else None
        if frame is None:
            return Taken(passed=[event])
        return Taken([frame], self._datagrams, otherwise=[] if self._dedicated else [event])

    def _stream_event(self, event: StreamDataReceived | StreamReset) -> Taken:
        """Spec: KA-14.3-2."""
        if not self._listens:
            # Streams that nobody reads are dropped, in silence: a server may need them open.
            return NOTHING if self._dedicated else Taken(passed=[event])
        sorted_out = self._peer_streams.take(event)
        for stream_id in sorted_out.abandoned:
            self._refuse(stream_id)
        if sorted_out.begun and not self._quic.configuration.is_client:
            self._stream.renew()
        if self._dedicated and sorted_out.passed:
            return Taken(refused=self._refuse_foreign(event))
        return Taken(sorted_out.frames, self._stream, sorted_out.passed, refused=sorted_out.refused)

    def _refuse_foreign(self, event: StreamDataReceived | StreamReset) -> DropReason | None:
        """Stop a stream that is nobody's, and count it once."""
        known = event.stream_id in self._refused
        if isinstance(event, StreamReset) or event.end_stream:
            self._refused.discard(event.stream_id)
        elif not known:
            self._refused.add(event.stream_id)
            self._refuse(event.stream_id)
        return None if known else DropReason.UNEXPECTED

    def _stopped(self, event: StopSendingReceived) -> Taken:
        if self._stream.stopped(event.stream_id):
            return NOTHING
        return Taken(passed=[event])

    def _refuse(self, stream_id: int) -> None:
        """Let the peer know that nobody reads a stream, unless that is over."""
        with contextlib.suppress(ValueError):
            self._quic.stop_stream(stream_id, STREAM_REFUSED)


_TAKERS: Final[Mapping[type[QuicEvent], Callable[[Carriage, Any], Taken]]] = {
    DatagramFrameReceived: Carriage._datagram,
    PingAcknowledged: Carriage._ping,
    StopSendingReceived: Carriage._stopped,
    StreamDataReceived: Carriage._stream_event,
    StreamReset: Carriage._stream_event,
}
