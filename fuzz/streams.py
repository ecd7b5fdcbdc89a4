"""What the parser target makes of bytes as messages of a stream and as all streams of a peer.

As streams: one byte of setting, then events. An event is a byte that tells stream, end and what
goes before its data, a byte of length, and the data; so every byte string is a run of events.
A second, plain reading of section 14.3 tells what is to come out.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from aioquic.quic.events import StreamDataReceived, StreamReset

from kaudp.errors import DropReason, Refused
from kaudp.io.quic.carriers import Messages
from kaudp.io.quic.streams import PeerStreams, Taken

# The default context id, and one of each other length.
PREAMBLES: Final = (b"\xd0kaudp/1", b"\x25", b"\x66\x25", b"\x9a\x66\x25\x00")
PEER_IS_SERVER: Final = 0x04
STREAMS: Final = 8
BIDIRECTIONAL: Final = 0x08
END: Final = 0x10
RESET: Final = 0x20
PREAMBLE: Final = 0x40
MESSAGE: Final = 0x80
MESSAGE_BYTES: Final = range(48, 513)

Event = StreamDataReceived | StreamReset


class Split(NamedTuple):
    """What a stream of messages holds up to a point; `rest` is the beginning of one more."""

    messages: list[bytes]
    fault: bool
    rest: bytes


def split(data: bytes) -> Split:
    """Cut whole bytes into messages. Spec: KA-14.3-1, KA-14.3-3."""
    messages: list[bytes] = []
    while len(data) >= 2:
        length = int.from_bytes(data[:2], "big")
        if length not in MESSAGE_BYTES:
            return Split(messages, True, data)
        if len(data) < 2 + length:
            break
        messages.append(data[2 : 2 + length])
        data = data[2 + length :]
    return Split(messages, False, data)


def check_messages(data: bytes) -> None:
    """Cut a stream anywhere: the messages are the same."""
    wanted = split(data)
    for pieces in ([data], _cut(data)):
        messages, found, fault = Messages(), [], False
        try:
            for piece in pieces:
                for frame in messages.frames(piece):
                    found.append(frame)
        except Refused as refused:
            assert refused.reason is DropReason.MALFORMED
            fault = True
        assert (found, fault) == wanted[:2], "KA-14.3-3: other messages than the stream's"
        assert fault or messages.inside == bool(wanted.rest)


def _cut(data: bytes) -> Iterator[bytes]:
    """Cut into pieces whose sizes the bytes themselves tell."""
    at = 0
    while at < len(data):
        size = 1 + data[at] % 61
        yield data[at : at + size]
        at += size


def check_streams(data: bytes) -> None:
    """Play the events that `data` is, and compare with the plain reading of each."""
    setting = data[0] if data else 0
    preamble = PREAMBLES[setting % len(PREAMBLES)]
    peer_is_client = not setting & PEER_IS_SERVER
    model = Model(preamble, kind=2 if peer_is_client else 3)
    streams = PeerStreams(preamble, peer_is_client=peer_is_client)
    for event in _events(data[1:], preamble, model.kind):
        if model.possible(event):
            taken = streams.take(event)
            _compare(event, model.take(event), taken)
            for stream_id in taken.abandoned:  # QUIC raises at one that it has forgotten
                assert not model.ended(stream_id), "KA-12-1: stops a stream that has ended"


def _events(data: bytes, preamble: bytes, kind: int) -> Iterator[Event]:
    while len(data) > 1:
        head, size = data[0], data[1]
        said, data = data[2 : 2 + size], data[2 + size :]
        stream_id = 4 * (head % STREAMS) + (kind - 2 if head & BIDIRECTIONAL else kind)
        if head & MESSAGE:
            said = len(said).to_bytes(2, "big") + said
        if head & PREAMBLE:
            said = preamble + said
        if said or not head & RESET or head & END:
            yield StreamDataReceived(said, bool(head & END), stream_id)
        if head & RESET:
            yield StreamReset(0, stream_id)


class Expected(NamedTuple):
    """What is to come of an event: messages, bytes for the application, a fault."""

    messages: list[bytes]
    passed: bytes | None
    fault: bool


class Stream:
    """One stream of the peer: all that it said, and what of it has gone where."""

    def __init__(self) -> None:
        self.said = b""
        self.passed = 0
        self.messages = 0
        self.ended = False
        self.faulty = False


class Model:
    """Reads section 14.3 anew from all that a stream has said, at each event."""

    def __init__(self, preamble: bytes, kind: int) -> None:
        self.kind = kind
        self._preamble = preamble
        self._streams: dict[int, Stream] = {}
        self._newest = -1

    def possible(self, event: Event) -> bool:
        """Tell whether QUIC would tell this: nothing follows an end."""
        stream = self._streams.get(event.stream_id)
        return stream is None or not stream.ended

    def ended(self, stream_id: int) -> bool:
        """Tell whether a stream has ended: QUIC may have forgotten it."""
        return self._streams[stream_id].ended

    def take(self, event: Event) -> Expected:
        """Tell what is to come of an event."""
        stream = self._streams.setdefault(event.stream_id, Stream())
        ends = isinstance(event, StreamReset) or event.end_stream
        if isinstance(event, StreamDataReceived):
            stream.said += event.data
        stream.ended = ends
        begun = stream.said.startswith(self._preamble)
        if event.stream_id & 3 == self.kind and begun:
            return self._ours(event.stream_id, stream, ends=ends)
        waits = event.stream_id & 3 == self.kind and self._preamble.startswith(stream.said)
        if waits and not ends:
            return Expected([], None, False)
        passed, stream.passed = stream.said[stream.passed :], len(stream.said)
        return Expected([], passed, False)

    def _ours(self, stream_id: int, stream: Stream, *, ends: bool) -> Expected:
        if stream_id < self._newest or stream.faulty:
            return Expected([], None, False)
        self._newest = stream_id
        found = split(stream.said[len(self._preamble) :])
        new, stream.messages = found.messages[stream.messages :], len(found.messages)
        stream.faulty = found.fault
        return Expected(new, None, found.fault or (ends and bool(found.rest)))


def _compare(event: Event, expected: Expected, taken: Taken) -> None:
    """Spec: KA-14.3-2, KA-14.3-3."""
    assert taken.frames == expected.messages, "KA-14.3-2: other messages than the newest stream's"
    assert taken.refused is (DropReason.MALFORMED if expected.fault else None), "KA-14.3-3"
    if expected.passed is None:
        assert not taken.passed, "KA-14.3-2: gave the application what is not its own"
        return
    assert taken.passed, "KA-14.3-2: kept what is the application's"
    assert all(passed.stream_id == event.stream_id for passed in taken.passed)
    told = [passed for passed in taken.passed if isinstance(passed, StreamDataReceived)]
    assert b"".join(passed.data for passed in told) == expected.passed, "KA-14.3-2: other bytes"
    if isinstance(event, StreamReset):
        assert taken.passed[-1] == event, "KA-14.3-2: kept a reset"
    else:
        assert told[-1].end_stream == event.end_stream, "KA-14.3-2: another end"
