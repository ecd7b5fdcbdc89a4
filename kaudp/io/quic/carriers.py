"""The three ways in which a frame travels in a QUIC connection, out and in.

They queue in aioquic and drop what must not wait; who flushes is the attachment.
Spec: sections 14.2 to 14.4.
"""

import contextlib
from collections.abc import Iterator
from itertools import count
from typing import Final, Protocol

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import size_uint_var
from aioquic.quic.connection import QuicConnection

from kaudp.errors import DropReason, Refused
from kaudp.events import QuicMode
from kaudp.io.quic import internals
from kaudp.io.quic.acknowledgements import AcknowledgingPeer
from kaudp.wire import codec
from kaudp.wire.grammar import MAX_FRAME_BYTES, FrameType

# 2^60 + "kaudp/1": no quarter stream id of HTTP datagrams is as large. Spec: section 14.2.
CONTEXT_ID: Final = 2**60 + int.from_bytes(b"kaudp/1", "big")
MAX_CONTEXT_ID: Final = 2**62 - 1
LENGTH_BYTES: Final = 2
# No application's own ping has such a uid: those are addresses of objects. Each carrier has a
# range of its own, so one that is detached leaves nothing for the next to mistake.
_PING_UID_BITS: Final = 64
_ping_ranges = count(1)


class Carrier(Protocol):
    """A way out for frames."""

    mode: QuicMode

    def send(self, frame: bytes) -> str:
        """Hand a frame to QUIC; give why it was dropped, empty if it was not."""


class DatagramCarrier:
    """Frames in DATAGRAM frames, behind `prefix`. Spec: section 14.2."""

    mode = QuicMode.DATAGRAM

    def __init__(self, quic: QuicConnection, prefix: bytes) -> None:
        self.prefix = prefix
        self._quic = quic
        self._last: bytes | None = None

    def send(self, frame: bytes) -> str:
        """Queue a frame. Spec: KA-14.2-1 to KA-14.2-3."""
        datagram = self.prefix + frame
        size = 1 + size_uint_var(len(datagram)) + len(datagram)
        if size > min(internals.peer_datagram_limit(self._quic), internals.packet_room(self._quic)):
            return "too_long"
        waiting = internals.waiting_datagrams(self._quic)
        if waiting and any(datagram is self._last for datagram in waiting):
            return "would_block"
        self._last = datagram
        self._quic.send_datagram_frame(datagram)
        return ""

    def frame(self, datagram: bytes) -> bytes | None:
        """Cut the frame out of a datagram, None where it does not begin as ours."""
        if not datagram.startswith(self.prefix):
            return None
        return datagram[len(self.prefix) :] if self.prefix else datagram


class StreamCarrier:
    """Frames as messages on a unidirectional stream. Spec: section 14.3."""

    mode = QuicMode.STREAM

    def __init__(self, protocol: QuicConnectionProtocol, preamble: bytes) -> None:
        self._protocol = protocol
        self._quic = internals.connection_of(protocol)
        self._preamble = preamble
        self._stream_id: int | None = None

    def send(self, frame: bytes) -> str:
        """Queue a frame. Spec: KA-14.3-1, KA-14.3-4."""
        message = len(frame).to_bytes(LENGTH_BYTES, "big") + frame
        if self._stream_id is None:
            self._stream_id = self._next_stream_id()
            message = self._preamble + message
        elif internals.stream_waits(self._quic, self._stream_id):
            return "would_block"
        try:
            self._quic.send_stream_data(self._stream_id, message)
        except (RuntimeError, ValueError):
            # The peer has stopped the stream, and aioquic has not told yet. The next frame opens
            # another.
            self._stream_id = None
            return "stream_stopped"
        return ""

    def renew(self) -> None:
        """Let the next frame begin another stream: the peer has begun one. Spec: KA-14.3-6."""
        if self._stream_id is not None:
            with contextlib.suppress(RuntimeError, ValueError):
                self._quic.send_stream_data(self._stream_id, b"", end_stream=True)
            self._stream_id = None

    def _next_stream_id(self) -> int:
        """Choose a stream that is free; one that the application holds unwritten is its own."""
        stream_id = self._quic.get_next_available_stream_id(is_unidirectional=True)
        if internals.reserved_stream(self._protocol, stream_id):
            self._quic.send_stream_data(stream_id, b"")
            stream_id = self._quic.get_next_available_stream_id(is_unidirectional=True)
        return stream_id

    def stopped(self, stream_id: int) -> bool:
        """Take note that the peer wants no more of a stream; the next frame opens another."""
        if stream_id != self._stream_id:
            return False
        self._stream_id = None
        return True


class PingCarrier:
    """PINGs, whose acknowledgements stand for replies. Spec: section 14.4."""

    mode = QuicMode.PING

    def __init__(self, quic: QuicConnection) -> None:
        self._quic = quic
        self._peer = AcknowledgingPeer()
        self._range = next(_ping_ranges)
        self._answer: bytes | None = None

    def send(self, frame: bytes) -> str:
        """Send a PING where the frame asks for an answer. Spec: KA-14.4-1, KA-14.4-3."""
        ping = self._peer.ask(frame)
        if ping is not None:
            self._quic.send_ping((self._range << _PING_UID_BITS) + ping)
        elif frame[1] == FrameType.CLOSE:
            self._answer = self._peer.closed(frame)
        return ""

    def owns(self, uid: int) -> bool:
        """Tell whether a PING was a heartbeat."""
        return uid >> _PING_UID_BITS == self._range

    def acknowledged(self, uid: int) -> bytes | None:
        """Give the frame that an acknowledgement stands for."""
        return self._peer.acknowledged(uid - (self._range << _PING_UID_BITS))

    def answer(self) -> bytes | None:
        """Take what the peer answers at once."""
        answer, self._answer = self._answer, None
        return answer


class Messages:
    """Cuts a stream of ours into frames as its bytes come. Spec: KA-14.3-3."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def inside(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    def frames(self, data: bytes) -> Iterator[bytes]:
        """Give the frames that are whole. Raises `Refused` at a length that is none."""
        self._buffer += data
        while len(self._buffer) >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
            if not codec.CARRIED_FRAME_BYTES <= length <= MAX_FRAME_BYTES:
                raise Refused(DropReason.MALFORMED, f"a message of {length} bytes")
            if len(self._buffer) < LENGTH_BYTES + length:
                return
            frame = bytes(self._buffer[LENGTH_BYTES : LENGTH_BYTES + length])
            del self._buffer[: LENGTH_BYTES + length]
            yield frame
