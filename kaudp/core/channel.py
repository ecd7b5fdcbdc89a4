"""One set of session keys in use: numbers, times and counts of both directions.

A session has one channel at a time and gets a new one with each handshake.
Spec: sections 3.6, 3.7, 5.1, 7.1 and 10.1.
"""

from typing import Final, NamedTuple

from kaudp.core.clocks import Exchange
from kaudp.core.replay import ReplayWindow
from kaudp.errors import DropReason, Refused
from kaudp.events import State
from kaudp.units import MAX_UINT32, MICROSECOND, SECOND
from kaudp.wire import codec
from kaudp.wire.codec import NO_OPTIONS, Body, Options, TransportHeader
from kaudp.wire.grammar import FrameType
from kaudp.wire.seal import NO_LIMITS, FrameKeys, PhaseLimits

OLD_PACKET_AGE: Final = 1200 * SECOND
PACKET_NUMBER_LIMIT: Final = 0xFFFF_FFF0
_HALF_WRAP: Final = 1 << 31


class Evidence(NamedTuple):
    """What a frame says about mine: `date` is when I sent the newest one it confirms, in ns.

    `fresh_number` is False where that packet is so old that its times have wrapped.
    """

    packet_number: int
    date: int
    rtt: int | None
    response_time: int
    is_new: bool
    fresh_number: bool


class Said(NamedTuple):
    """What a session says about itself in each frame."""

    state: State
    diagnostic: int
    control_version: int
    control_ack: int
    address_hash: int


class Channel:
    """Seals and opens the frames of one handshake's keys. Times in ns."""

    __slots__ = (
        "_arrival",
        "_birth",
        "_checkpoint",
        "_checkpoint_at",
        "_echo_time",
        "_keys",
        "_limits",
        "_old_number",
        "_peer_time",
        "_peer_time_at",
        "_sent_at",
        "confirmed",
        "last_sent",
        "local_id",
        "newest",
        "peer_count",
        "peer_highest",
        "remote_id",
        "window",
    )

    def __init__(
        self,
        local_id: bytes,
        remote_id: bytes,
        keys: FrameKeys,
        now: int,
        limits: PhaseLimits = NO_LIMITS,
    ) -> None:
        self.local_id = local_id
        self.remote_id = remote_id
        self.window = ReplayWindow()
        self.last_sent = 0
        self.newest = 0
        self.confirmed = 0
        self.peer_highest = 0
        self.peer_count = 0
        self._keys = keys
        self._limits = limits
        self._peer_time = 0
        self._peer_time_at = now
        self._birth = now
        self._echo_time = 0
        self._arrival = now
        self._old_number = 0
        self._checkpoint = 0
        self._checkpoint_at = now
        self._sent_at = now

    @property
    def steady_frame_bytes(self) -> int:
        """The length of a frame without options."""
        return self._keys.steady_frame_bytes

    @property
    def phase(self) -> int:
        """The phase of the keys that frames are sealed under now. Spec: section 4.4."""
        return self._keys.phase

    @property
    def exhausted(self) -> bool:
        """Tell whether only CLOSE may still go out under these keys. Spec: KA-4.4-3."""
        return self.last_sent >= PACKET_NUMBER_LIMIT

    def build(
        self, frame_type: FrameType, said: Said, now: int, options: Options = NO_OPTIONS
    ) -> bytes:
        """Seal the next frame, stamped with now. Spec: KA-3.7-3, KA-4.4-1, KA-4.4-2."""
        self._note_age(now)
        self.last_sent += 1
        self._sent_at = now
        newest = self.newest
        body = codec.pack_body(
            said.state,
            said.diagnostic,
            said.control_version,
            said.control_ack,
            (now - self._birth) // MICROSECOND & MAX_UINT32,
            self._echo_time,
            min((now - self._arrival) // MICROSECOND, MAX_UINT32) if newest else 0,
            newest,
            self.window.count,
            said.address_hash,
            options,
        )
        flags = self._keys.flags(now, self._limits)
        header = codec.build_transport_header(frame_type, self.remote_id, self.last_sent, flags)
        return self._keys.seal(header, self.last_sent, body)

    def unseal(self, header: TransportHeader, data: bytes, now: int) -> bytes:
        """Verify the tag and give the plaintext, or raise `Refused`."""
        return self._keys.unseal(header, data, now)

    def accept(self, header: TransportHeader, plaintext: bytes, now: int) -> tuple[Body, bool]:
        """Check a frame whose tag has verified; give its body and whether it is the newest.

        Raises `Refused`. Spec: KA-3.6-3, KA-3.6-4, KA-3.7-2, KA-5.1-1.
        """
        if not 1 <= header.packet_number <= MAX_UINT32:
            detail = f"packet number {header.packet_number}"
            raise Refused(DropReason.MALFORMED, detail, consumed=True)
        self.window.accept(header.packet_number)
        if header.flags & ~self._keys.flags_known:
            raise Refused(DropReason.RESERVED_FLAG, f"{header.flags:#04x}", consumed=True)
        body = codec.parse_body(header.type, plaintext)
        if body.highest_received > self.last_sent:
            raise Refused(DropReason.ACK_OF_UNSENT, str(body.highest_received), consumed=True)
        newest = header.packet_number > self.newest
        if newest:
            self.newest = header.packet_number
            self._echo_time = body.sent_time
            self._arrival = now
            self.peer_highest = body.highest_received
            self.peer_count = body.received_count
        return body, newest

    def evidence(self, frame_type: int, body: Body, now: int) -> Evidence | None:
        """Tell what a frame confirms, None if nothing. Spec: KA-7.1-3, KA-7.2-2, KA-10.1-1."""
        number = body.highest_received
        if not number:
            return None
        elapsed = self._microseconds(now)
        age = (elapsed - body.echo_time & MAX_UINT32) * MICROSECOND
        date = self._birth + elapsed * MICROSECOND - age
        rtt = age - body.hold_time * MICROSECOND
        held_too_long = body.hold_time == MAX_UINT32 or rtt < 0
        is_new = number > self.confirmed
        self.confirmed = max(self.confirmed, number)
        self._note_age(now)
        response_time = age if frame_type == FrameType.REPLY or held_too_long else rtt
        fresh_number = number > self._old_number
        return Evidence(
            number, date, None if held_too_long else rtt, response_time, is_new, fresh_number
        )

    def exchange(self, body: Body, evidence: Evidence, now: int) -> Exchange:
        """Give the four times of the round trip that the newest frame completes, in ns.

        Each is on its side's clock, from the instant that its `sent_time` counts from. KA-10.3-1.
        """
        peer_sent = self._whole_peer_time(body.sent_time, now) * MICROSECOND
        peer_received = peer_sent - body.hold_time * MICROSECOND
        return Exchange(evidence.date - self._birth, peer_received, peer_sent, now - self._birth)

    def _whole_peer_time(self, sent_time: int, now: int) -> int:
        """Unwrap the peer's 32-bit time: the nearest to what has passed here since the last.

        Both sides begin to count within a handshake. What was long on its way is not asked for.
        """
        expected = self._peer_time + (now - self._peer_time_at) // MICROSECOND
        ahead = (sent_time - expected + _HALF_WRAP & MAX_UINT32) - _HALF_WRAP
        self._peer_time, self._peer_time_at = expected + ahead, now
        return self._peer_time

    def _microseconds(self, now: int) -> int:
        return (now - self._birth) // MICROSECOND

    def _note_age(self, now: int) -> None:
        """Keep `_old_number`: every packet up to it was sent 20 minutes ago or earlier."""
        if now - self._sent_at >= OLD_PACKET_AGE:
            self._old_number = self.last_sent
        if now - self._checkpoint_at < OLD_PACKET_AGE:
            return
        self._old_number = max(self._old_number, self._checkpoint)
        self._checkpoint = self.last_sent
        self._checkpoint_at = now
