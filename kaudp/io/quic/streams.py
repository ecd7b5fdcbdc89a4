"""The peer's unidirectional streams: which one is ours, and what the application gets of the rest.

Spec: section 14.3.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from aioquic.quic.events import QuicEvent, StreamDataReceived, StreamReset

from kaudp.errors import DropReason, Refused
from kaudp.io.quic.carriers import Messages

_INITIATED_BY_SERVER: Final = 1
_UNIDIRECTIONAL: Final = 2


class Taken(NamedTuple):
    """What an event gave: frames of ours, and the events that go on to the application.

    `begun` tells that a stream of ours has begun, `abandoned` names those that are no longer
    wanted, `refused` why something was dropped.
    """

    frames: list[bytes]
    passed: list[QuicEvent]
    abandoned: tuple[int, ...] = ()
    refused: DropReason | None = None
    begun: bool = False


class PeerStreams:
    """Sorts the peer's streams by what they begin with. Spec: KA-14.3-2, KA-14.3-3.

    Keeps less than a preamble of a stream that is undecided, and of others only the id while it
    is open.
    """

    def __init__(self, preamble: bytes, *, peer_is_client: bool) -> None:
        self._preamble = preamble
        self._kind = _UNIDIRECTIONAL | (0 if peer_is_client else _INITIATED_BY_SERVER)
        self._undecided: dict[int, bytes] = {}
        self._applications: set[int] = set()
        self._abandoned: set[int] = set()
        self._newest = -1
        self._open = False
        self._messages = Messages()

    def leave(self, stream_ids: Iterable[int]) -> None:
        """Leave streams that began before anybody looked to the application."""
        self._applications.update(each for each in stream_ids if each & 3 == self._kind)

    def take(self, event: StreamDataReceived | StreamReset) -> Taken:
        """Sort an event."""
        stream_id = event.stream_id
        if stream_id & 3 != self._kind or stream_id in self._applications:
            self._forget_ended(event)
            return Taken([], [event])
        if isinstance(event, StreamReset):
            return self._reset(event)
        if stream_id in self._abandoned:
            self._forget_ended(event)
            return Taken([], [])
        if stream_id == self._newest:
            return self._ours(stream_id, event.data, end=event.end_stream)
        return self._decide(event)

    def _decide(self, event: StreamDataReceived) -> Taken:
        stream_id = event.stream_id
        begun = self._undecided.pop(stream_id, b"") + event.data
        if begun.startswith(self._preamble):
            return self._begin(stream_id, begun[len(self._preamble) :], end=event.end_stream)
        if self._preamble.startswith(begun) and not event.end_stream:
            self._undecided[stream_id] = begun
            return Taken([], [])
        if not event.end_stream:
            self._applications.add(stream_id)
        return Taken([], [StreamDataReceived(begun, event.end_stream, stream_id)])

    def _begin(self, stream_id: int, data: bytes, *, end: bool) -> Taken:
        if stream_id < self._newest:
            return Taken([], [], self._abandon(stream_id, end=end))
        superseded = self._abandon(self._newest, end=not self._open)
        self._newest, self._open = stream_id, True
        self._messages = Messages()
        taken = self._ours(stream_id, data, end=end)
        return taken._replace(abandoned=(*superseded, *taken.abandoned), begun=True)

    def _ours(self, stream_id: int, data: bytes, *, end: bool) -> Taken:
        frames = []
        try:
            for frame in self._messages.frames(data):
                frames.append(frame)
        except Refused as refused:
            self._open = False
            return Taken(frames, [], self._abandon(stream_id, end=end), refused.reason)
        return Taken(frames, [], refused=self._end() if end else None)

    def _end(self) -> DropReason | None:
        """Take note of the end of our stream; within a message it is a fault."""
        self._open = False
        return DropReason.MALFORMED if self._messages.inside else None

    def _abandon(self, stream_id: int, *, end: bool) -> tuple[int, ...]:
        """Drop what is still to come of a stream; give it as one to be stopped."""
        if end:
            return ()
        self._abandoned.add(stream_id)
        return (stream_id,)

    def _reset(self, event: StreamReset) -> Taken:
        stream_id = event.stream_id
        if stream_id in self._abandoned:
            self._forget_ended(event)
            return Taken([], [])
        if stream_id == self._newest:
            return Taken([], [], refused=self._end() if self._open else None)
        begun = self._undecided.pop(stream_id, b"")
        held = [StreamDataReceived(begun, False, stream_id)] if begun else []
        return Taken([], [*held, event])

    def _forget_ended(self, event: StreamDataReceived | StreamReset) -> None:
        if isinstance(event, StreamReset) or event.end_stream:
            self._applications.discard(event.stream_id)
            self._abandoned.discard(event.stream_id)
