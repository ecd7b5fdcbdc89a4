"""Two linked endpoints under one clock. After each verb the invariants are checked.

Time moves forward only, as `Endpoint` demands of its driver.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from fuzz import invariants
from fuzz.invariants import Reception, Side
from kaudp import Config, DetectorKind, Endpoint, PresharedKey
from kaudp.core.paths import Address
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.grammar import MAGIC, MAX_FRAME_BYTES, SUITE_CARRIED, VERSION, FrameType
from kaudp.wire.suites import Carried

START: Final = 1_000 * SECOND
FIRST_KEY: Final = PresharedKey(bytes(range(32)))
SECOND_KEY: Final = PresharedKey(bytes(range(32, 64)))
KEYS: Final = (FIRST_KEY, SECOND_KEY)
CLIENT: Final = ("192.0.2.1", 1000)
SERVER: Final = ("198.51.100.1", 4711)
# The bits of a script's setting beyond configuration, delay and who accepts.
CARRIED: Final = 0x40
REPEATS: Final = 0x80
# The shortest carried frames. Spec: section 14.1.
CARRIED_BYTES: Final = {
    FrameType.INIT: 52,
    FrameType.RESPONSE: 52,
    FrameType.PROBE: 48,
    FrameType.REPLY: 48,
    FrameType.CLOSE: 48,
}
STRANGERS: Final[tuple[Address, ...]] = (
    ("203.0.113.9", 53),
    ("2001:db8::1", 5),
    ("::ffff:192.0.2.1", 1000),
    "an address of another kind",
)

# Bounds so small that a script reaches them.
BOUNDS: Final = {
    "max_sessions": 4,
    "max_sessions_per_key": 3,
    "max_embryos": 3,
    "max_events": 16,
}
CONFIGS: Final = (
    (Config.wan(**BOUNDS), Config.server(**BOUNDS)),
    (
        Config.lan(application_traffic=True, report_round_trips=True, **BOUNDS),
        Config.lan(application_traffic=True, multiplier=1, **BOUNDS),
    ),
    (
        Config.mobile(detector=DetectorKind.DEADLINE, up_confirmations=1, **BOUNDS),
        Config.server(detector=DetectorKind.DEADLINE, down_retention_ms=0, **BOUNDS),
    ),
    (
        Config(
            interval_ms=10,
            min_suspicion_ms=0,
            suspicion_interval_ms=5,
            nat_keepalive_ms=1_000,
            allow_short_nat_keepalive=True,
            connect_timeout_ms=None,
            max_peer_pause_ms=3_600_000,
            max_peer_pause_sum_ms=3_600_000,
            **BOUNDS,
        ),
        Config(
            min_receive_interval_ms=0,
            up_confirmations=100,
            suspicion_receive_interval_ms=0,
            suspicion_receive_burst=3,
            down_retention_ms=86_400_000,
            **BOUNDS,
        ),
    ),
)
DELAYS: Final = (20 * MILLISECOND, 0, MILLISECOND, 2 * SECOND)
# How many times the clock may stop for timers and deliveries, before it only jumps.
STOPS: Final = 300
STOPS_PER_RUN: Final = 40

Log = Callable[[str], None]


class Pair:
    """A client that connects, a server that accepts, and what is on the wire between them."""

    def __init__(self, setting: int, log: Log | None) -> None:
        client_config, server_config = CONFIGS[setting % 4]
        self.now = START
        self.delay = DELAYS[setting // 4 % 4]
        mutual = bool(setting & 0x10)
        self.carried = Carried(repeats=bool(setting & REPEATS)) if setting & CARRIED else None
        keys = self.carried or {key.key_id: key for key in KEYS}
        client = _endpoint("client", client_config, keys, accept=mutual)
        accept = _accepts_first_key if setting & 0x20 and not self.carried else True
        server = _endpoint("server", server_config, keys, accept=accept)
        self.client = Side("client", CLIENT, client)
        self.server = Side("server", SERVER, server)
        self.sides = (self.client, self.server)
        self.history: list[bytes] = []
        self.authentic: set[bytes] = set()
        self._wire: list[tuple[Side, bytes]] = []
        self._stops = STOPS
        self._sink = log

    def side(self, choice: int) -> Side:
        """Choose a side: even the server, odd the client."""
        return self.client if choice % 2 else self.server

    def source(self, side: Side, choice: int) -> Address:
        """Choose where a datagram to `side` comes from: at 0 from the other side's address."""
        return (_other(self, side).address, *STRANGERS)[choice % (1 + len(STRANGERS))]

    def connect(self, side: Side, key: int = 0) -> None:
        """Let the application of a side connect, as far as its own limit allows."""
        key_id = (self.carried or KEYS[key % len(KEYS)]).key_id
        if side.session_count < BOUNDS["max_sessions_per_key"]:
            address = _other(self, side).address
            self.act(side, lambda end: end.connect(address, self.now, key_id=key_id))

    def act(self, side: Side, verb: Callable[[Endpoint], object]) -> None:
        """Call a verb of the application."""
        verb(side.endpoint)
        self._settle(side)

    def receive(self, side: Side, data: bytes, source: Address) -> None:
        """Let a datagram arrive."""
        self._log(side, "is given", data, "from", source)
        authentic = self._vouched(side, data) if self.carried else data in self.authentic
        reception = Reception(side, data, source, self.now, authentic=authentic)
        consumed = side.endpoint.receive_datagram(data, source, self.now)
        self._log(side, "takes it" if consumed else "leaves it", reception.refused)
        sent = self._settle(side)
        reception.check(consumed, sent)

    def _vouched(self, side: Side, data: bytes) -> bool:
        """Tell whether a carried frame stands for one whose tag verifies. Spec: KA-14.1-4."""
        least = CARRIED_BYTES.get(data[1] if len(data) > 1 else 0, MAX_FRAME_BYTES + 1)
        if not least <= len(data) <= MAX_FRAME_BYTES or data[::2][:2] != bytes([MAGIC, VERSION]):
            return False
        if data[1] in (FrameType.INIT, FrameType.RESPONSE) and data[3] != SUITE_CARRIED:
            return False
        return data[1] == FrameType.INIT or data[4:12] in side.chosen

    def tick(self, side: Side) -> None:
        """Let timers fire."""
        was_quiet = side.endpoint.quiet
        side.endpoint.handle_timer(self.now)
        sent = self._settle(side)
        invariants.check_timers_handled(side, self.now, sent, was_quiet=was_quiet)

    def run(self, duration: int, reach: int) -> None:
        """Let time pass; bit 0 of `reach` delivers to the server, bit 1 to the client."""
        end = self.now + duration
        stops = min(STOPS_PER_RUN, self._stops)
        while stops and (at := self._next_stop()) <= end:
            stops -= 1
            self._stops -= 1
            self.now = max(self.now, at)
            self._deliver(reach)
            for side in self.sides:
                if (due := side.endpoint.next_timer()) is not None and due <= self.now:
                    self.tick(side)
        self.now = max(self.now, end)
        for side in self.sides:
            self.tick(side)

    def stall(self, duration: int, reach: int) -> None:
        """Let both sides stand still, then read their sockets, then handle their timers."""
        self.now += duration
        self._deliver(reach)
        for side in self.sides:
            self.tick(side)

    def _log(self, side: Side, *words: Any) -> None:
        if self._sink is not None:
            shown = [word.hex() if isinstance(word, bytes) else str(word) for word in words]
            self._sink(f"{(self.now - START) / SECOND:16.9f} {side.name} {' '.join(shown)}")

    def _next_stop(self) -> int:
        timers = [at for side in self.sides if (at := side.endpoint.next_timer()) is not None]
        if self._wire:
            timers.append(self.now + self.delay)
        return min(timers, default=self.now + SECOND * 10**9)

    def _deliver(self, reach: int) -> None:
        """Deliver what is on the wire now; what is sent in answer waits for the next time."""
        wire, self._wire = self._wire, []
        for side, data in wire:
            if reach & (1 if side is self.server else 2):
                self.receive(side, data, _other(self, side).address)

    def _settle(self, side: Side) -> list[bytes]:
        """Take what a verb left behind and check what must hold after every verb."""
        sent = list(side.endpoint.datagrams_to_send())
        for event in side.read_events():
            self._log(side, "tells", event)
        invariants.check(side, self.now)
        for data, address in sent:
            self._log(side, "sends", data, "to", address)
            self.history.append(data)
            self.authentic.add(data)
            side.note_chosen(data)
            self._wire.append((_other(self, side), data))
            side.probes += [self.now] * (data[1] == FrameType.PROBE)
        return sent


def _other(pair: Pair, side: Side) -> Side:
    return pair.server if side is pair.client else pair.client


def _accepts_first_key(key_id: bytes, address: Address) -> bool:
    return key_id == FIRST_KEY.key_id


def _endpoint(name: str, config: Config, keys: Any, *, accept: Any) -> Endpoint:
    return Endpoint(
        config,
        keys=keys,
        rng=Random(f"{name}/jitter"),
        entropy=Random(f"{name}/entropy").randbytes,
        accept=accept,
    )
