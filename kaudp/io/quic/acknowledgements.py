"""A stand-in for a kaudp responder: what acknowledgements of PING say, put into frames.

Bytes in, bytes out. A peer that only acknowledges is a peer that answers every probe and says
nothing of itself, so the core runs in ping mode as everywhere. Spec: section 14.4.
"""

from typing import Final, NamedTuple

from kaudp.events import State
from kaudp.wire import codec
from kaudp.wire.codec import Parameters, ResponsePayload
from kaudp.wire.grammar import SESSION_ID_BYTES, FrameType

MAX_OUTSTANDING: Final = 256
_SESSION_ID: Final = b"ping".rjust(SESSION_ID_BYTES, b"\0")
_PARAMETERS: Final = Parameters(1, 0, 0, 0xFFFF, 0)


class _Asked(NamedTuple):
    """What the frame that went out as a PING said."""

    frame_type: int
    session_id: bytes
    packet_number: int = 0
    sent_time: int = 0
    control_version: int = 0


class AcknowledgingPeer:
    """Turns frames into PINGs, and acknowledgements of those into the frames that answer."""

    def __init__(self) -> None:
        self._asked: dict[int, _Asked] = {}
        self._pings = 0
        self._session_id = b""
        self._packet_number = 0
        self._highest = 0

    def ask(self, frame: bytes) -> int | None:
        """Give the number of the PING to send for a frame, None where none is due."""
        if frame[1] == FrameType.INIT:
            asked = _Asked(FrameType.INIT, codec.parse_carried(frame)[0])
        elif frame[1] == FrameType.PROBE:
            body = codec.parse_body(FrameType.PROBE, frame[codec.TRANSPORT_HEADER_BYTES :])
            number = codec.parse_transport_header(frame).packet_number
            asked = _Asked(
                FrameType.PROBE, self._session_id, number, body.sent_time, body.control_version
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
        if asked.frame_type == FrameType.INIT:
            return self._response(asked)
        if asked.session_id != self._session_id or asked.packet_number <= self._highest:
            return None
        self._highest = asked.packet_number
        return self._frame(FrameType.REPLY, State.UP, asked.sent_time, asked.control_version)

    def closed(self) -> bytes:
        """Give the confirmation of a CLOSE: nobody need be told."""
        return self._frame(FrameType.REPLY, State.CLOSED, 0, 0)

    def _response(self, asked: _Asked) -> bytes:
        self._session_id = asked.session_id
        self._packet_number = self._highest = 0
        answer = ResponsePayload(_SESSION_ID, bytes(8), bytes(8), _PARAMETERS)
        payload = codec.build_response_payload(answer)
        return codec.build_carried(FrameType.RESPONSE, asked.session_id, payload)

    def _frame(
        self, frame_type: FrameType, state: State, echo_time: int, control_ack: int
    ) -> bytes:
        self._packet_number += 1
        header = codec.build_transport_header(frame_type, self._session_id, self._packet_number)
        body = codec.pack_body(
            state=state,
            diagnostic=0,
            control_version=0,
            control_ack=control_ack,
            sent_time=0,
            echo_time=echo_time,
            hold_time=0,
            highest_received=self._highest,
            received_count=self._highest,
            address_hash=0,
        )
        return header + body
