"""A stand-in for a kaudp responder: what acknowledgements of PING say, put into frames.

Bytes in, bytes out. A peer that only acknowledges is a peer that answers every probe and says
nothing of itself, so the core runs in ping mode as everywhere. Spec: section 14.4.
"""

from typing import Final, NamedTuple

from kaudp.events import State
from kaudp.wire import codec
from kaudp.wire.codec import Parameters, ResponsePayload
from kaudp.wire.grammar import FrameType

MAX_OUTSTANDING: Final = 256
MAX_HANDSHAKES: Final = 16
_PARAMETERS: Final = Parameters(1, 0, 0, 0xFFFF, 0)


class _Asked(NamedTuple):
    """What the frame that went out as a PING said."""

    frame_type: int
    session_id: bytes
    packet_number: int = 0
    sent_time: int = 0
    control_version: int = 0


class _Numbers:
    """How far the frames of one handshake have come."""

    __slots__ = ("highest", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.highest = 0


class AcknowledgingPeer:
    """Turns frames into PINGs, and acknowledgements of those into the frames that answer.

    It takes the initiator's id of each handshake for its own, so frames of one that was given up
    cannot be taken for those of another.
    """

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._pings = 0
        self._numbers: dict[bytes, _Numbers] = {}

    def ask(self, frame: bytes) -> int | None:
        """Give the number of the PING to send for a frame, None where none is due."""
        if frame[1] == FrameType.INIT:
            asked = _Asked(FrameType.INIT, codec.parse_carried(frame)[0])
        elif frame[1] == FrameType.PROBE:
            body = codec.parse_body(FrameType.PROBE, frame[codec.TRANSPORT_HEADER_BYTES :])
            header = codec.parse_transport_header(frame)
            asked = _Asked(
                FrameType.PROBE,
                header.receiver_session_id,
                header.packet_number,
                body.sent_time,
                body.control_version,
            )
        else:
            return None
        if len(self._asked) >= MAX_OUTSTANDING:
            del self._asked[next(iter(self._asked))]
        self._pings += 1
        self._asked[self._pings] = asked
        return self._pings

    def acknowledged(self, ping: int) -> bytes | None:
        """Give the answer that an acknowledgement stands for, None where it tells nothing new.

        It echoes the time at which the PING was first queued, however often QUIC then sent it.
        Spec: KA-14.4-2.
        """
        asked = self._asked.pop(ping, None)
        if asked is None:
            return None
        numbers = self._numbers_of(asked.session_id)
        if asked.frame_type == FrameType.INIT:
            return _response(asked.session_id)
        if asked.packet_number <= numbers.highest:
            return None
        numbers.highest = asked.packet_number
        return _reply(asked.session_id, numbers, State.UP, asked.sent_time, asked.control_version)

    def closed(self, frame: bytes) -> bytes:
        """Give the confirmation of a CLOSE: nobody need be told."""
        session_id = codec.parse_transport_header(frame).receiver_session_id
        return _reply(session_id, self._numbers_of(session_id), State.CLOSED, 0, 0)

    def _numbers_of(self, session_id: bytes) -> _Numbers:
        """Find the numbers of a handshake; those that were not asked for the longest give way."""
        numbers = self._numbers.pop(session_id, None) or _Numbers()
        if len(self._numbers) >= MAX_HANDSHAKES:
            del self._numbers[next(iter(self._numbers))]
        self._numbers[session_id] = numbers
        return numbers


def _response(session_id: bytes) -> bytes:
    payload = ResponsePayload(session_id, bytes(8), bytes(8), _PARAMETERS)
    plaintext = codec.build_response_payload(payload)
    return codec.build_carried(FrameType.RESPONSE, session_id, plaintext)


def _reply(
    session_id: bytes, numbers: _Numbers, state: State, echo_time: int, control_ack: int
) -> bytes:
    numbers.sent += 1
    header = codec.build_transport_header(FrameType.REPLY, session_id, numbers.sent)
    body = codec.pack_body(
        state=state,
        diagnostic=0,
        control_version=0,
        control_ack=control_ack,
        sent_time=0,
        echo_time=echo_time,
        hold_time=0,
        highest_received=numbers.highest,
        received_count=numbers.highest,
        address_hash=0,
    )
    return header + body
