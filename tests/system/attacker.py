"""Who sits on the router: sees and copies all that passes, and sends with any source.

On SIGUSR1 it floods the server at ten times the rate of good datagrams that it measures first; on
the next one it stops and tells what it sent and what came back. There are two floods, of all kinds
in turn, then of handshakes alone. Linux only, root only.
"""

import argparse
import asyncio
import ipaddress
import os
import random
import signal
import socket
import struct
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import kaudp
from kaudp.wire.codec import InitPayload, Parameters
from kaudp.wire.suites import initiate
from tests.system.telling import now, tell

STRANGERS = ipaddress.ip_network("10.9.0.0/16")
TIMES = 10
MEASURED_S = 5.0
TICK_S = 0.005
TICK_MOST = 50
LAST_ANSWERS_S = 1.0
"""So much time the server has to read and answer what waits in its socket."""

# A frame's bytes by spec/kaudp.md, section 3; what they are to mean to the server is tested there.
MAGIC, VERSION, SUITE = 0x0B, 0x81, 0x01
INIT, RESPONSE, COOKIE, PROBE = 0x01, 0x02, 0x03, 0x08
TRANSPORT = (PROBE, 0x09, 0x0A)
TRANSPORT_HEADER_BYTES = 20
TRANSPORT_BYTES = 64
INIT_BYTES = 132
MAX_FRAME_BYTES = 512
AMPLIFICATION = 3

ANSWERED = "ANSWERED"
VALID_INITS = ("init replayed", "init of a member")

INITS_KEPT = 1_000
FRAMES_KEPT = 1_000
SOURCES_KEPT = 1 << 16

# Linux numbers that Python does not name.
_SO_RCVBUFFORCE = 33
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800
_PACKET_OUTGOING = 4
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_TAP_BYTES = 16 << 20
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")

Source = tuple[bytes, int]


class Shot(NamedTuple):
    """One datagram, where it is to come from, and why the server will refuse it; None: not."""

    data: bytes
    source: Source
    reason: kaudp.DropReason | None


class Wire:
    """The link to the server: what passes there is copied, and anything can be put onto it."""

    def __init__(self, device: str, host: str, port: int) -> None:
        self.inits: deque[bytes] = deque(maxlen=INITS_KEPT)
        self.frames: deque[tuple[bytes, Source]] = deque(maxlen=FRAMES_KEPT)
        self.good = 0
        self.heard: Callable[[bytes, Source], None] = lambda data, source: None
        self._server = ipaddress.ip_address(host).packed
        self._host, self._port, self._device = host, port, device
        # One socket: a packet socket is not shown what it has sent itself.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _TAP_BYTES)
        self._socket.bind((device, _ETH_P_ALL))
        self._unseen = 0
        self._hardware = b""

    def fileno(self) -> int:
        """Give the descriptor to wait on."""
        return self._socket.fileno()

    @property
    def unseen(self) -> int:
        """How many packets passed that the tap had no room for."""
        _, drops = struct.unpack("II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._unseen += drops
        return self._unseen

    def read(self) -> None:
        """Copy what has passed since."""
        while True:
            try:
                packet, address = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            if address[1] == _ETH_P_IP and packet[9] == socket.IPPROTO_UDP:
                self._pass(packet, outgoing=address[2] == _PACKET_OUTGOING)

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def send(self, shot: Shot) -> None:
        """Put one datagram onto the wire."""
        address, port = shot.source
        udp = _UDP.pack(port, self._port, _UDP.size + len(shot.data), 0)
        length = _IP.size + len(udp) + len(shot.data)
        fields = (0x45, 0, length, 0, 0, 64, socket.IPPROTO_UDP)
        checksum = _checksum(_IP.pack(*fields, 0, address, self._server))
        header = _IP.pack(*fields, checksum, address, self._server)
        to = (self._device, _ETH_P_IP, 0, 0, self._hardware)
        self._socket.sendto(header + udp + shot.data, to)

    def locate(self) -> None:
        """Find out the server's hardware address, which those who talked to it have asked for."""
        rows = [line.split() for line in Path("/proc/net/arp").read_text().splitlines()]
        (found,) = (row[3] for row in rows if row[0] == self._host)
        self._hardware = bytes.fromhex(found.replace(":", ""))

    def _pass(self, packet: bytes, *, outgoing: bool) -> None:
        start = 4 * (packet[0] & 0x0F)
        source_port, port, length, _ = _UDP.unpack_from(packet, start)
        data = packet[start + _UDP.size : start + length]
        if not outgoing and source_port == self._port:
            self.heard(data, (packet[16:20], port))
        elif outgoing and port == self._port and data[:1] == bytes([MAGIC]):
            self.good += 1
            if data[1] == INIT:
                self.inits.append(data)
            elif data[1] in TRANSPORT:
                self.frames.append((data, (packet[12:16], source_port)))


class Arsenal:
    """What it sends, by kind; `frames` and `inits` of the wire are what it has to work with."""

    def __init__(self, wire: Wire, key: kaudp.PresharedKey) -> None:
        self._wire = wire
        self._key = key
        self._rng = random.Random(1)
        self.kinds: dict[str, Callable[[], Shot]] = {
            "random": self._random,
            "disguised": self._disguised,
            "forged": self._forged,
            "replayed": self._replayed,
            "truncated": self._truncated,
            "extended": self._extended,
            "init forged": self._init_forged,
            "init replayed": self._init_replayed,
            "init of a member": self._init_of_a_member,
        }

    def stranger(self) -> Source:
        """Give an address and a port that nobody has."""
        number = self._rng.randrange(1, STRANGERS.num_addresses - 1)
        return STRANGERS[number].packed, self._rng.randrange(1024, 1 << 16)

    def _random(self) -> Shot:
        data = self._rng.randbytes(self._rng.randrange(1, 1200))
        return Shot(data, self.stranger(), kaudp.DropReason.NOT_KAUDP)

    def _disguised(self) -> Shot:
        """A frame's first bytes and legal length, random beyond that."""
        kind = self._rng.choice((INIT, RESPONSE, *TRANSPORT))
        fourth = 0 if kind in TRANSPORT else SUITE
        rest = self._rng.randbytes(self._rng.randrange(INIT_BYTES - 4, MAX_FRAME_BYTES - 3))
        unknown = kaudp.DropReason.UNKNOWN_KEY if kind == INIT else kaudp.DropReason.UNKNOWN_SESSION
        return Shot(bytes((MAGIC, kind, VERSION, fourth)) + rest, self.stranger(), unknown)

    def _forged(self) -> Shot:
        """A live session's id under a packet number to come; often from the client's address."""
        data, source = self._frame()
        number = int.from_bytes(data[12:20], "big") + self._rng.randrange(1, 1000)
        header = data[:12] + number.to_bytes(8, "big")
        body = self._rng.randbytes(TRANSPORT_BYTES - TRANSPORT_HEADER_BYTES)
        return Shot(header + body, source, kaudp.DropReason.BAD_TAG)

    def _replayed(self) -> Shot:
        return Shot(*self._frame(), kaudp.DropReason.REPLAY)

    def _truncated(self) -> Shot:
        data, source = self._frame()
        short = data[: self._rng.randrange(1, len(data))]
        return Shot(short, source, _reason_by_length(short))

    def _extended(self) -> Shot:
        data, source = self._frame()
        more = self._rng.randbytes(self._rng.randrange(1, MAX_FRAME_BYTES))
        return Shot(data + more, source, _reason_by_length(data + more))

    def _init_forged(self) -> Shot:
        data = self._rng.choice(self._wire.inits)
        forged = data[:-1] + bytes([data[-1] ^ 1])
        return Shot(forged, self.stranger(), kaudp.DropReason.BAD_TAG)

    def _init_replayed(self) -> Shot:
        return Shot(self._rng.choice(self._wire.inits), self.stranger(), None)

    def _init_of_a_member(self) -> Shot:
        """One who holds the key, too; every other one names a session of another."""
        continued = self._rng.choice((bytes(8), self._rng.choice(self._wire.frames)[0][4:12]))
        parameters = Parameters(1_000_000, 100_000, 20_000, 64, 0)
        payload = InitPayload(os.urandom(8), os.urandom(8), continued, parameters)
        init = initiate(self._key, os.urandom(8), payload, os.urandom).init
        return Shot(init, self.stranger(), None)

    def _frame(self) -> tuple[bytes, Source]:
        """Take a frame of late, with its own source or a stranger's."""
        data, source = self._rng.choice(self._wire.frames)
        return data, self._rng.choice((source, self.stranger()))


class Tally:
    """What was sent, and what came back to whom."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.due: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.bytes_sent = 0
        self.bytes_back = 0
        self.exceeding = 0
        self.amplified = 0
        self.addresses: set[bytes] = set()
        self._accounts: OrderedDict[Source, Account] = OrderedDict()

    def note_sent(self, kind: str, shot: Shot) -> None:
        """Take note of a datagram: its source may be sent as many bytes."""
        self.sent[kind] += 1
        self.due[ANSWERED if shot.reason is None else shot.reason.name] += 1
        self.bytes_sent += len(shot.data)
        self.addresses.add(shot.source[0])
        self._account(shot.source).sent += len(shot.data)
        if len(self._accounts) > SOURCES_KEPT:
            self._accounts.popitem(last=False)

    def note_heard(self, data: bytes, source: Source) -> None:
        """Take note of what the server sends to a stranger."""
        if ipaddress.ip_address(source[0]) not in STRANGERS:
            return
        self.answers[f"{data[1]:#04x}"] += 1
        self.bytes_back += len(data)
        account = self._account(source)
        account.back += len(data)
        account.answered += 0 if data[1] == PROBE else len(data)
        self.exceeding += account.answered > account.sent
        self.amplified += account.back > AMPLIFICATION * account.sent

    def _account(self, source: Source) -> "Account":
        return self._accounts.setdefault(source, Account())


@dataclass(slots=True)
class Account:
    """How many bytes came from a source, were answers to it, and went to it in all.

    What is no answer is a probe, such as a path challenge.
    """

    sent: int = 0
    answered: int = 0
    back: int = 0


async def attack(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Listen, and flood when told to."""
    parts = urlsplit(given.url)
    wire = Wire(given.device, str(parts.hostname), int(parts.port or 0))
    loop = asyncio.get_running_loop()
    loop.add_reader(wire, wire.read)
    turn = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, turn.set)
    tell("Ready", now())
    flooding = asyncio.create_task(flood_twice(wire, given.key, turn))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((flooding, stopped), return_when=asyncio.FIRST_COMPLETED)
    for task in (flooding, stopped):
        task.cancel()
    loop.remove_reader(wire)
    wire.close()
    with suppress(asyncio.CancelledError):
        await flooding


async def flood_twice(wire: Wire, key: kaudp.PresharedKey, turn: asyncio.Event) -> None:
    """Flood with all kinds, then with handshakes; each turn begins one or ends it."""
    await turn.wait()
    wire.locate()
    good_rate = await measure(wire)
    arsenal = Arsenal(wire, key)
    for kinds in ((*arsenal.kinds,), VALID_INITS):
        await turn.wait()
        turn.clear()
        flood = Flood(wire, arsenal, kinds, good_rate)
        await flood.shoot(turn)
        turn.clear()
        await asyncio.sleep(LAST_ANSWERS_S)
        flood.tell()


async def measure(wire: Wire) -> float:
    """Give the good datagrams a second."""
    before, since = wire.good, asyncio.get_running_loop().time()
    await asyncio.sleep(MEASURED_S)
    return (wire.good - before) / (asyncio.get_running_loop().time() - since)


class Flood:
    """Some kinds in turn at a steady rate."""

    def __init__(
        self, wire: Wire, arsenal: Arsenal, kinds: tuple[str, ...], good_rate: float
    ) -> None:
        self._wire = wire
        self._kinds = [(kind, arsenal.kinds[kind]) for kind in kinds]
        self._tally = Tally()
        self._good_rate = good_rate
        self._loop = asyncio.get_running_loop()
        self._seconds = 0.0
        wire.heard = self._tally.note_heard

    async def shoot(self, turn: asyncio.Event) -> None:
        """Send what is due by the clock, but never more than a socket's buffer takes at once."""
        began = self._loop.time()
        tell("FloodBegins", now(), good_rate=self._good_rate)
        sent = 0
        while not turn.is_set():
            due = int((self._loop.time() - began) * TIMES * self._good_rate) - sent
            for _ in range(min(due, TICK_MOST)):
                kind, make = self._kinds[sent % len(self._kinds)]
                shot = make()
                self._wire.send(shot)
                self._tally.note_sent(kind, shot)
                sent += 1
            self._seconds = self._loop.time() - began
            await asyncio.sleep(TICK_S)

    def tell(self) -> None:
        """Print the tally."""
        tally = self._tally
        tell(
            "FloodEnds",
            now(),
            seconds=self._seconds,
            sent=tally.sent,
            addresses=len(tally.addresses),
            due=tally.due,
            answers=tally.answers,
            bytes_sent=tally.bytes_sent,
            bytes_back=tally.bytes_back,
            exceeding=tally.exceeding,
            amplified=tally.amplified,
            unseen=self._wire.unseen,
        )


def _reason_by_length(data: bytes) -> kaudp.DropReason:
    """Tell why a transport frame of another length is refused: it is none, or its tag is wrong."""
    legal = TRANSPORT_BYTES <= len(data) <= MAX_FRAME_BYTES
    return kaudp.DropReason.BAD_TAG if legal else kaudp.DropReason.NOT_KAUDP


def _checksum(header: bytes) -> int:
    """Give the checksum of an IPv4 header (RFC 791, section 3.1)."""
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
