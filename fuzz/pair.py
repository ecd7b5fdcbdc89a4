"""Two linked endpoints under one clock. After each verb the invariants are checked.

Time moves forward only, as `Endpoint` demands of its driver.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any, Final

from fuzz import invariants
from fuzz.invariants import Side
from fuzz.listener import Listener, Sent
from fuzz.reception import Reception
from kaudp import Config, DetectorKind, Endpoint, PresharedKey, Session, State
from kaudp.core.agreement import Told
from kaudp.core.paths import Address
from kaudp.units import MICROSECOND, MILLISECOND, SECOND
from kaudp.wire.grammar import MAGIC, MAX_FRAME_BYTES, SUITE_CARRIED, VERSION, FrameType
from kaudp.wire.suites import Carried

START: Final = 1_000 * SECOND
FIRST_KEY: Final = PresharedKey(bytes(range(32)))
SECOND_KEY: Final = PresharedKey(bytes(range(32, 64)))
KEYS: Final = (FIRST_KEY, SECOND_KEY)
CLIENT: Final = ("192.0.2.1", 1000)
SERVER: Final = ("198.51.100.1", 4711)
# The bits of a script's setting beyond configuration and delay.
MUTUAL: Final = 0x10
"""The client accepts too."""
FIRST_KEY_ONLY: Final = 0x20
CARRIED: Final = 0x40
REPEATS: Final = 0x80
COOKIES: Final = 0x100
"""Two bits: cookies are asked for never, always, from 2 embryos, from 1."""
PHASES: Final = 0x400
"""Traffic keys last for 2 frames and 30 s."""
CLOCKS: Final = 0x800
"""Both share their clocks."""
SERVER_FIRST: Final = 0x1000
"""The server's epoch is the lower one, and its randomness the other one's."""
MEETING: Final = 0x2000
"""Both connect at first."""
NOBODY_ACCEPTS: Final = 0x4000
# The bits that a configuration depends on.
CONFIGURED: Final = 0xF03
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
THRESHOLDS: Final = (256, 0, 2, 1)
# How far the clocks of client and server are from the time of day.
UTC: Final = {"client": 1_700_000_000 * SECOND, "server": 1_700_000_003 * SECOND}
DELAYS: Final = (20 * MILLISECOND, 0, MILLISECOND, 2 * SECOND)
# How many times the clock may stop for timers and deliveries, before it only jumps.
STOPS: Final = 300
STOPS_PER_RUN: Final = 40
# How many frames a script may flood with.
FLOODED: Final = 500

Log = Callable[[str], None]


class Pair:
    """A client that connects, a server that accepts, and what is on the wire between them."""

    def __init__(self, setting: int, log: Log | None) -> None:
        self.now = START
        self.delay = DELAYS[setting // 4 % 4]
        self.carried = Carried(repeats=bool(setting & REPEATS)) if setting & CARRIED else None
        self._setting = setting
        self._sink = log
        self.listener = Listener(in_clear=self.carried is not None)
        self.client = Side("client", CLIENT, self.listener)
        self.server = Side("server", SERVER, self.listener)
        self.sides = (self.client, self.server)
        self.identities: dict[str, bytes] = {}
        self._starts = 0
        for side in self.sides:
            self.start(side, identity=0)
        self.history: list[bytes] = []
        self.authentic: set[bytes] = set()
        self.forged: set[bytes] = set()
        self.undisturbed = True
        self._wire: list[tuple[Side, bytes, Address]] = []
        self._stops = STOPS
        self._flooded = FLOODED

    def start(self, side: Side, identity: int) -> None:
        """Make an endpoint for a side, under one of the instance ids that are its own."""
        setting, name = self._setting, side.name
        is_client = side is self.client
        accept: Any = bool(setting & MUTUAL) if is_client else not setting & NOBODY_ACCEPTS
        if accept and not is_client and setting & FIRST_KEY_ONLY and not self.carried:
            accept = _accepts_first_key
        seed = name if not setting & SERVER_FIRST else _other(self, side).name
        entropy = Random(f"{seed}/entropy/{self._starts // 2}")
        self.identities[name] = bytes([is_client]) + identity.to_bytes(7, "big")
        endpoint = Endpoint(
            _config(setting & CONFIGURED, is_client=is_client),
            keys=self.carried or {key.key_id: key for key in KEYS},
            rng=Random(f"{seed}/jitter/{self._starts // 2}"),
            entropy=entropy.randbytes,
            accept=accept,
            instance_id=self.identities[name],
            utc_offset=UTC[name],
            on_secrets=self.listener.learn,
        )
        self._starts += 1
        side.start(endpoint, entropy)

    def side(self, choice: int) -> Side:
        """Choose a side: even the server, odd the client."""
        return self.client if choice % 2 else self.server

    def source(self, side: Side, choice: int) -> Address:
        """Choose where a datagram to `side` comes from: at 0 from the other side's address."""
        return (_other(self, side).address, *STRANGERS)[choice % (1 + len(STRANGERS))]

    def floods(self, times: int) -> int:
        """Tell how many frames of a flood there may be."""
        granted = min(times, self._flooded)
        self._flooded -= granted
        return granted

    def connect(self, side: Side, key: int = 0) -> None:
        """Let the application of a side connect, as far as its own limit allows."""
        key_id = (self.carried or KEYS[key % len(KEYS)]).key_id
        if side.session_count < BOUNDS["max_sessions_per_key"]:
            address = _other(self, side).home
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
        frame = None
        if consumed:
            frame = self.listener.came_in(data, self.now, accepted=not reception.refused)
            side.ledger.note_received(data, source, frame, self.now)
        sent = self._settle(side)
        reception.check(consumed, frame, sent)

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
        for side, data, source in wire:
            if reach & (1 if side is self.server else 2):
                self.receive(side, data, source)
            else:
                self.undisturbed = False

    def _settle(self, side: Side) -> list[Sent]:
        """Take what a verb left behind and check what must hold after every verb."""
        config, now = side.context.config, self.now
        taken = list(side.endpoint.datagrams_to_send())
        for event in side.read_events():
            self._log(side, "tells", event)
        for data, address in taken:
            self._log(side, "sends", data, "to", address)
        sent = [self.listener.sent(data, address, config, now) for data, address in taken]
        if sent:
            side.ledger.note_sent(sent, side.known, now)
        invariants.check(side, now)
        other = _other(self, side)
        for data, address, _ in sent:
            self.history.append(data)
            self.authentic.add(data)
            side.note_chosen(data)
            if address not in other.cut:
                self._wire.append((other, data, side.address))
            side.probes += [now] * (data[1] == FrameType.PROBE)
        return sent

    def check_agreement(self) -> None:
        """Check what two sessions that are each other's peer must agree on."""
        for session in self.client.sessions:
            channel = session._channel
            peer = channel and self.server.context.routes.sessions.get(channel.remote_id)
            if not channel or not peer or self.forged & {channel.local_id, channel.remote_id}:
                continue
            if peer._channel is not None and peer._channel.remote_id == channel.local_id:
                _check_intervals(session, peer)
        if self.undisturbed:
            for side in self.sides:
                live = [one for one in side.sessions if one.state is not State.CLOSED]
                assert len(live) <= 1, f"KA-4.6-2: {side.name} has {live}"


def _check_intervals(one: Session, other: Session) -> None:
    """Spec: KA-8.8-2, KA-8.8-3."""
    if State.CLOSED in (one.state, other.state):
        return
    initiator, responder = (one, other) if one.initiator else (other, one)
    assert not responder.initiator, "KA-4.6-3: both sides are the initiator"
    expected = _interval(responder._terms.agreement.peer, responder._terms.agreement.own)
    probed = initiator._liveness.interval
    assert probed <= expected, f"KA-8.8-2: probes each {probed} ns where {expected} is expected"
    longest = responder._context.config.max_peer_interval_ms * MILLISECOND
    judged = responder._liveness.judged_interval
    assert judged == min(expected, longest), f"KA-8.8-2, KA-8.1-2: judges by {judged} ns"
    if one._terms.agreement.settled and other._terms.agreement.settled:
        same = one._liveness.interval == other._liveness.interval
        assert same, f"KA-8.8-3: T is {one._liveness.interval} and {other._liveness.interval}"


def _interval(wanted: Told, allowed: Told) -> int:
    """Give the longest T that the initiator may take what both told for."""
    agreed = max(wanted.most.desired_interval_us, allowed.most.min_receive_interval_us)
    return max(agreed * MICROSECOND, 10 * MILLISECOND)


def _other(pair: Pair, side: Side) -> Side:
    return pair.server if side is pair.client else pair.client


@cache
def _config(setting: int, *, is_client: bool) -> Config:
    config = replace(
        CONFIGS[setting % 4][not is_client],
        cookie_threshold=THRESHOLDS[setting // COOKIES % 4],
        share_clock=bool(setting & CLOCKS),
    )
    if setting & PHASES:
        config = replace(config, key_update_frames=2, key_update_interval_ms=600_000)
    return config


def _accepts_first_key(key_id: bytes, address: Address) -> bool:
    return key_id == FIRST_KEY.key_id
