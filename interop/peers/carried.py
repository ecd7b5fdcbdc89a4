"""Carried frames of kaudp (spec/kaudp.md, sections 3 and 14.1) and who answers which; no I/O.

Written from the specification alone. It shares nothing with the library on purpose: a mistake made
in both places would go unseen.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import struct
import time
from typing import Any

INIT, RESPONSE, PROBE, REPLY, CLOSE = 0x01, 0x02, 0x08, 0x09, 0x0A
ADDRESS_SEEN, CLOSE_REASON = 0x01, 0x05
UP, CLOSED = 1, 6

MAX_FRAME_BYTES = 512
MAX_OPTIONS = 16
# A side keeps this many sessions of a connection; each new INIT makes one.
MAX_SESSIONS = 8

_HEAD = struct.Struct(">4B8s")
_TRANSPORT = struct.Struct(">4B8sQ4B5I4s")
_PARAMETERS = struct.Struct(">IIIHH")
_OPTION_BYTES = {
    0x01: (7, 19),
    0x02: (16,),
    0x03: (4,),
    0x04: (4,),
    0x05: (2,),
    0x06: (8,),
    0x07: (8,),
}

Event = dict[str, Any]


class RefusedError(Exception):
    """What came is no frame, or not one to act on."""


def canonical(host: str, port: int) -> bytes:
    """The canonical bytes of an address (9.2)."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return struct.pack(">BH", address.version, port) + address.packed


def option(kind: int, value: bytes) -> bytes:
    return bytes((kind, len(value))) + value


def _check_parameters(data: bytes) -> None:
    desired, _, _, burst, _ = _PARAMETERS.unpack(data)
    if not (desired and burst):
        raise RefusedError("parameter out of range")


def _check_option(kind: int, value: bytes) -> None:
    if kind >= 0x80:
        raise RefusedError("unknown critical option")
    if kind in _OPTION_BYTES and len(value) not in _OPTION_BYTES[kind]:
        raise RefusedError("length of an option")
    if kind == ADDRESS_SEEN and (value[0], len(value)) not in ((4, 7), (6, 19)):
        raise RefusedError("family of an address")
    if kind == 0x02:
        _check_parameters(value)


def parse_options(data: bytes, closing: bool = False) -> dict[int, bytes]:
    """The options of a frame by type; of those that may stand twice, the last."""
    options: dict[int, bytes] = {}
    count = 0
    while data:
        count += 1
        if count > MAX_OPTIONS or len(data) < 2 or len(data) < 2 + data[1]:
            raise RefusedError("options")
        kind, value, data = data[0], data[2 : 2 + data[1]], data[2 + data[1] :]
        _check_option(kind, value)
        if kind in options and kind in _OPTION_BYTES:
            raise RefusedError("option stands twice")
        options[kind] = value
    if (CLOSE_REASON in options) != closing:
        raise RefusedError("close reason")
    return options


def _frame_type(frame: bytes) -> int:
    """The type of a carried frame whose length and first four bytes are legal (14.1)."""
    least = {INIT: 52, RESPONSE: 52, PROBE: 48, REPLY: 48, CLOSE: 48}
    kind = frame[1] if len(frame) > 1 else 0
    if kind not in least or not least[kind] <= len(frame) <= MAX_FRAME_BYTES:
        raise RefusedError("no frame")
    if frame[:4] != bytes((0x0B, kind, 0x81, 0x00)):
        raise RefusedError("no frame")
    return kind


class Session:
    """One side of a session: what it has sent and received, and its answers."""

    def __init__(self, own_id: bytes, peer_id: bytes) -> None:
        self.own_id = own_id
        self.peer_id = peer_id
        self.state = UP
        # Closed, and the other side knows: what still comes is ignored.
        self.over = False
        self.sent = 0
        self.confirmed = 0
        self.replies = 0
        self._origin = time.monotonic_ns()
        self._highest = 0
        self._highest_sent_time = 0
        self._highest_arrived = 0
        self._received_count = 0
        self._control_seen = 0

    def build(self, kind: int, address: bytes, options: bytes = b"") -> bytes:
        """The next frame, to a receiver whose canonical address is `address`."""
        self.sent += 1
        if kind == CLOSE:
            self.state = CLOSED
        now = self._now_us()
        hold = min(now - self._highest_arrived, 2**32 - 1) if self._highest else 0
        return (
            _TRANSPORT.pack(
                *(0x0B, kind, 0x81, 0, self.peer_id, self.sent),
                *(self.state, 0, 0, self._control_seen),
                *(now % 2**32, self._highest_sent_time, hold),
                *(self._highest, self._received_count),
                hashlib.sha256(self.peer_id + address).digest()[:4],
            )
            + options
        )

    def receive(self, frame: bytes, address: bytes) -> tuple[bytes | None, list[Event]]:
        """Accept a transport frame of this session; return the answer and what happened."""
        kind = frame[1]
        now = self._now_us()
        (_, _, _, _, _, number, state, _, control, _, sent, echo, hold, highest, _, _) = (
            _TRANSPORT.unpack_from(frame)
        )
        if not 1 <= number < 2**32:
            raise RefusedError("packet number")
        # QUIC drops replays (RFC 9000, section 12.3), so each frame that comes counts once.
        self._received_count += 1
        if number > self._highest:
            self._highest, self._highest_sent_time, self._highest_arrived = number, sent, now
            self._control_seen = control
        if not 1 <= state <= 6 or highest > self.sent:
            raise RefusedError("body")
        options = parse_options(frame[_TRANSPORT.size :], closing=kind == CLOSE)
        if self.over:
            return None, []
        if kind == CLOSE:
            self.state, self.over = CLOSED, True
            reason = int.from_bytes(options[CLOSE_REASON], "big")
            return self.build(REPLY, address), [{"event": "close", "reason": reason}]
        if state == CLOSED:
            self.over = True
            return None, []
        if kind == REPLY:
            # Only evidence gives a sample (10.1).
            rtt = (now - echo) % 2**32 - hold
            sampled = highest > self.confirmed and hold < 2**32 - 1 and rtt >= 0
            self.confirmed = max(self.confirmed, highest)
            self.replies += 1
            rtt_us = rtt if sampled else None
            return None, [{"event": "reply", "packet_number": number, "rtt_us": rtt_us}]
        seen = option(ADDRESS_SEEN, address)
        room = len(frame) >= _TRANSPORT.size + len(seen)
        answer = self.build(REPLY, address, seen if room else b"")
        return answer, [{"event": "probe", "packet_number": number}]

    def _now_us(self) -> int:
        return (time.monotonic_ns() - self._origin) // 1000


class _Side:
    """What both sides have in common: identity, parameters, sessions."""

    def __init__(self, desired_interval_us: int) -> None:
        self._ignored = 0
        self._instance_id, self._epoch = secrets.token_bytes(8), secrets.token_bytes(8)
        # Willing to be probed at any pace; 3 suspicion probes at once, then 100 ms apart.
        self._parameters = _PARAMETERS.pack(desired_interval_us, 0, 100_000, 3, 0)
        self._sessions: dict[bytes, Session] = {}

    def receive(self, frame: bytes, address: bytes) -> tuple[bytes | None, list[Event]]:
        """Take what came in a DATAGRAM frame; garbage is counted and changes nothing."""
        try:
            return self._receive(_frame_type(frame), frame, address)
        except RefusedError:
            self._ignored += 1
            return None, [{"event": "ignored", "total": self._ignored}]

    def _receive(self, kind: int, frame: bytes, address: bytes) -> tuple[bytes | None, list[Event]]:
        session = self._sessions.get(frame[4:12])
        if kind in (INIT, RESPONSE) or session is None:
            raise RefusedError("no session")
        return session.receive(frame, address)


class Responder(_Side):
    """The side of a connection that answers INIT."""

    def __init__(self) -> None:
        super().__init__(desired_interval_us=1_000_000)
        self._responses: dict[bytes, bytes] = {}
        self._begun: set[bytes] = set()

    def _receive(self, kind: int, frame: bytes, address: bytes) -> tuple[bytes | None, list[Event]]:
        if kind == INIT:
            return self._respond(frame, address), []
        answer, events = super()._receive(kind, frame, address)
        if kind == REPLY:
            # It counts as received; but this side never asks.
            return answer, []
        if kind == PROBE and frame[4:12] not in self._begun:
            self._begun.add(frame[4:12])
            events.insert(0, {"event": "session"})
        return answer, events

    def _respond(self, init: bytes, address: bytes) -> bytes:
        if init in self._responses:
            return self._responses[init]
        peer_id = _HEAD.unpack_from(init)[4]
        epoch = init[20:28]
        if epoch == self._epoch:
            raise RefusedError("reflection")
        _check_parameters(init[36:52])
        parse_options(init[52:])
        if len(self._sessions) == MAX_SESSIONS:
            self._begun.discard(next(iter(self._sessions)))
            del self._sessions[next(iter(self._sessions))]
            del self._responses[next(iter(self._responses))]
        session = Session(secrets.token_bytes(8), peer_id)
        self._sessions[session.own_id] = session
        response = (
            _HEAD.pack(0x0B, RESPONSE, 0x81, 0, peer_id)
            + (session.own_id + self._instance_id + self._epoch)
            + self._parameters
        )
        # A RESPONSE is never longer than its INIT (4.3), so ADDRESS_SEEN needs room there.
        seen = option(ADDRESS_SEEN, address)
        if len(response) + len(seen) <= len(init):
            response += seen
        self._responses[init] = response
        return response


class Initiator(_Side):
    """The side of a connection that sends INIT: one session, once."""

    def __init__(self, interval_us: int) -> None:
        super().__init__(desired_interval_us=interval_us)
        self.interval_us = interval_us
        self.session: Session | None = None
        self._id = secrets.token_bytes(8)
        # The same bytes at each retry. PAD makes room for ADDRESS_SEEN in the RESPONSE.
        self.init = (
            _HEAD.pack(0x0B, INIT, 0x81, 0, self._id)
            + (self._instance_id + self._epoch + bytes(8))
            + self._parameters
            + option(0x00, bytes(19))
        )

    def _receive(self, kind: int, frame: bytes, address: bytes) -> tuple[bytes | None, list[Event]]:
        if kind != RESPONSE:
            return super()._receive(kind, frame, address)
        if frame[4:12] != self._id or self.session is not None:
            raise RefusedError("not awaited")
        _check_parameters(frame[36:52])
        parse_options(frame[52:])
        min_receive_interval_us = int.from_bytes(frame[40:44], "big")
        self.interval_us = max(self.interval_us, min_receive_interval_us, 10_000)
        self.session = self._sessions[self._id] = Session(self._id, frame[12:20])
        return None, [{"event": "response"}]
