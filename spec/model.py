"""The reference model of one side of a session: `step(side, input) -> (side, outputs)`.

Written from the text of `kaudp.md`, to be read beside it; it imports nothing of kaudp. It covers
the replay window (5.1), the states (6), liveness (7), cadence and control state (8), addresses (9)
and what a reply tells (10.1, 10.2). Cryptography is left out: a frame given to it is authentic, and
a session id is known. Each rule stands under its requirement's id, in the order of the text.

How to read it: `Side` is all that a side knows. `step` copies it, does what the input says and what
follows, and gives the copy back with the frames, events and drops that come of it. A method
`when_...` is what the text says on an input, `on_...` on a timer. Times are integer nanoseconds.
"Reading:" marks a choice where the text leaves one.

`tests/property/test_lockstep.py` runs it beside the code; `spec/replay.py` feeds it recorded steps.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

US, MS, S = 1_000, 1_000_000, 1_000_000_000
MAX32 = 2**32 - 1
Address = Hashable

# Section 11.
REPLAY_WINDOW = 1024
HANDSHAKE_LIFETIME = 60 * S
LINGER = 30 * S
HANDSHAKE_RETRY_INITIAL = 500 * MS
HANDSHAKE_RETRY_MAX = 30 * S
PTO_INITIAL = 1 * S
PTO_GRANULARITY = 10 * MS
PTO_MAX = 60 * S
BLIND_PROBE_SPACING = 3 * S
SUSPICION_PROBES_BEFORE_GROWTH = 32
SUSPICION_GROWTH_DIVISOR = 8
SUSPICION_BUDGET_MAX = 64
MIN_UNANSWERED = 3
HALF_OPEN_PROBES = 3
MIN_INTERVAL = 10 * MS
LATE_TIMER = 100 * MS
STALL_WINDOW = 600 * S
PAUSE_WINDOW = 3600 * S
ADMIN_WINDOW = 86400 * S
OLD_PACKET_AGE = 1200 * S
DOWN_BACKOFF_MAX = 8
CLOSE_TRANSMISSIONS = 3
PACKET_NUMBER_LIMIT = 4294967280
PATH_TRIES = 3
SLOW_DOWN_BURST = 128
SLOW_DOWN_REFILL = 4
SLOW_DOWN_SPACING = 60 * S
STEADY_FRAME_BYTES = 64
ADDRESS_QUERIES = 3
MAX_UNCONFIRMED = 254  # KA-8.6-4

CONNECTING, UP, SUSPECT, HALF_OPEN, DOWN, ADMIN_DOWN, CLOSED = STATES = (
    "CONNECTING",
    "UP",
    "SUSPECT",
    "HALF_OPEN",
    "DOWN",
    "ADMIN_DOWN",
    "CLOSED",
)
NORMAL, KEY_EXHAUSTED, EXPIRED = 0, 4, 5

# 6.3, the transition table; what is not here does not change the state.
TRANSITIONS = {
    (CONNECTING, "ESTABLISHED"): UP,
    (CONNECTING, "EXPIRED"): CLOSED,
    (CONNECTING, "CLOSE"): CLOSED,
    (UP, "OVERDUE"): SUSPECT,
    (UP, "CLOSE"): CLOSED,
    (UP, "ADMIN_DOWN"): ADMIN_DOWN,
    (SUSPECT, "ESTABLISHED"): UP,
    (SUSPECT, "CONFIRMED"): UP,
    (SUSPECT, "VERDICT_DOWN"): DOWN,
    (SUSPECT, "VERDICT_HALF_OPEN"): HALF_OPEN,
    (SUSPECT, "CLOSE"): CLOSED,
    (SUSPECT, "ADMIN_DOWN"): ADMIN_DOWN,
    (HALF_OPEN, "ESTABLISHED"): UP,
    (HALF_OPEN, "CONFIRMED"): UP,
    (HALF_OPEN, "OVERDUE"): SUSPECT,
    (HALF_OPEN, "CLOSE"): CLOSED,
    (HALF_OPEN, "ADMIN_DOWN"): ADMIN_DOWN,
    (DOWN, "ESTABLISHED"): UP,
    (DOWN, "RECOVERED"): UP,
    (DOWN, "EXPIRED"): CLOSED,
    (DOWN, "CLOSE"): CLOSED,
    (DOWN, "ADMIN_DOWN"): ADMIN_DOWN,
    (ADMIN_DOWN, "CLOSE"): CLOSED,
    (ADMIN_DOWN, "ADMIN_UP"): SUSPECT,
}

# The timers; of those that are due at one time the first of this list goes first.
TIMERS = (
    "PROBE",
    "OVERDUE",
    "SUSPICION_PROBE",
    "VERDICT",
    "NAT_KEEPALIVE",
    "HANDSHAKE",
    "CONTROL",
    "PAUSE_END",
    "EXPIRY",
    "CLOSING",
    "PATH",
    "ADMIN_END",
)
JUDGEMENTS = ("OVERDUE", "VERDICT", "SUSPICION_PROBE")


# What goes in and comes out.


class Parameters(NamedTuple):
    """3.3; in microseconds."""

    desired_interval_us: int
    min_receive_interval_us: int
    suspicion_interval_us: int
    suspicion_burst: int
    features: int = 0


class Options(NamedTuple):
    """3.8; None where one is absent. `pad` counts bytes of content."""

    pad: int | None = None
    address_seen: bytes | None = None
    parameters: Parameters | None = None
    pause_ms: int | None = None
    slow_down_us: int | None = None
    close_reason: int | None = None
    path_challenge: Any = None
    path_response: Any = None
    next_key: bytes | None = None
    admin: int | None = None

    def length(self) -> int:
        """Bytes on the wire."""
        fixed = (None, None, 16, 4, 4, 2, 8, 8, 16, 1)
        total = 0
        for value, size in zip(self, fixed, strict=True):
            if value is not None:
                total += 2 + (size or (value if isinstance(value, int) else len(value)))
        return total


NOTHING = Options()
CONTROL = ("parameters", "pause_ms", "slow_down_us", "next_key", "admin")


class Frame(NamedTuple):
    """An authentic transport frame, come in or to be sent; `length` is the datagram's.

    `keys` counts the handshakes: the frame is sealed under the keys of that one.
    """

    type: str
    keys: int
    packet_number: int
    length: int
    state: int
    diagnostic: int
    control_version: int
    control_ack: int
    sent_time: int
    echo_time: int
    hold_time: int
    highest_received: int
    received_count: int
    address_hash: int
    options: Options = Options()


class Send(NamedTuple):
    """A transport frame to `to`."""

    frame: Frame
    to: Address


class SendInit(NamedTuple):
    """INIT of the handshake `attempt`, which names the keys `old` (None: no session)."""

    attempt: int
    old: int | None
    parameters: Parameters | None
    to: Address


class Event(NamedTuple):
    """What the application is told."""

    kind: str
    time: int
    detail: tuple[Any, ...] = ()


class Refused(NamedTuple):
    """The application may not do that now."""


class Dropped(NamedTuple):
    """A frame was refused for this reason (12)."""

    reason: str


Output = Send | SendInit | Event | Dropped | Refused


class Established(NamedTuple):
    """What a handshake told: the peer's id, epoch and parameters.

    `origin` is the instant from which this side's `sent_time` counts.
    """

    remote_id: bytes
    epoch: bytes
    parameters: Parameters
    origin: int


class FrameIn(NamedTuple):
    """A frame came from `source`."""

    frame: Frame
    source: Address


class ResponseIn(NamedTuple):
    """An authentic RESPONSE to the handshake `attempt`."""

    attempt: int
    told: Established
    address_seen: bytes | None = None


class NewKeys(NamedTuple):
    """The first PROBE, or CLOSE, under the keys of an embryo of this responder came in.

    `answered` is when RESPONSE was first sent, `said` what it told of this side's parameters,
    `address` where the keys begin (KA-9.1-4).
    """

    told: Established
    said: Parameters
    answered: int
    address: Address
    first: FrameIn


class TimePasses(NamedTuple):
    """Time has come to do what is due."""


class Connect(NamedTuple):
    """The application connects."""


class Close(NamedTuple):
    """The application closes."""

    reason: int = NORMAL


class Pause(NamedTuple):
    """The application pauses; 0 ends a pause."""

    duration: int


class Hint(NamedTuple):
    """An ICMP error came."""


class TrafficReceived(NamedTuple):
    """The application reports authenticated traffic of the peer."""


class TrafficSent(NamedTuple):
    """The application reports traffic to the peer."""


class Redirect(NamedTuple):
    """The application goes on at another address of the peer."""

    address: Address


class SetParameters(NamedTuple):
    """The application changes what this side wants and allows."""

    parameters: Parameters


class SlowDown(NamedTuple):
    """The application asks to be probed less often."""

    min_receive_interval_us: int


class Admin(NamedTuple):
    """An operator takes the session down, or up again."""

    down: bool


Input = (
    FrameIn
    | ResponseIn
    | NewKeys
    | TimePasses
    | Connect
    | Close
    | Pause
    | Hint
    | TrafficReceived
    | TrafficSent
    | Redirect
    | SetParameters
    | SlowDown
    | Admin
)


@dataclass(frozen=True)
class Settings:
    """What the user set; ns where it is a time."""

    initiator: bool
    own: Parameters
    max_peer_interval: int = 60 * S
    multiplier: int | None = 3
    deadline: int = 30 * S
    min_suspicion: int = 1 * S
    suspicion_interval: int = 100 * MS
    nat_keepalive: int | None = 25 * S
    connect_timeout: int | None = 10 * S
    up_confirmations: int = 3
    down_retention: int = 300 * S
    max_peer_pause: int = 60 * S
    max_peer_pause_sum: int = 300 * S
    max_peer_admin_down: int = 86400 * S
    report_round_trips: bool = False


class Path(NamedTuple):
    """A validation under way (9.3): of which address, and what was sent there and answered."""

    address: Address
    bytes_in: int
    bytes_out: int = 0
    tries: int = 0
    answered: bool = False
    asked_new: tuple[Any, ...] = ()
    asked_old: tuple[Any, ...] = ()


@dataclass
class Side:
    """All that a side of one session knows."""

    settings: Settings
    address: Address
    now: int
    state: str = CONNECTING
    finished: bool = False
    timers: dict[str, int] = field(default_factory=dict)
    # 4: the handshake under way and the keys in use.
    retry: int = HANDSHAKE_RETRY_INITIAL
    attempts: int = 0
    attempt: int | None = None
    attempt_started: int = 0
    attempt_says: tuple[int | None, Parameters | None] = (None, None)
    attempt_transmissions: int = 0
    keys: int = 0
    keys_with_evidence: int | None = None
    keys_on_trial: bool = False
    told: Established | None = None
    ended: tuple[tuple[str, int, int], ...] = ()
    last_sent: int = 0
    last_sent_at: int = 0
    mark: int = 0
    mark_at: int = 0
    old_number: int = 0
    # 5.1, 3.7: what came in under these keys.
    window: frozenset[int] = frozenset()
    window_highest: int = 0
    received_count: int = 0
    highest_received: int = 0
    highest_sent_time: int = 0
    highest_arrived: int = 0
    confirmed: int = 0
    # 6.4
    diagnostic: int = 0
    close_reason: int = 0
    close_transmissions: int = 0
    # 7.1 to 7.3
    rx_at: int = 0
    round_trip_at: int = 0
    silence_from: int = 0
    awaited: int | None = None
    last_probe: int = 0
    last_probe_at: int = 0
    peer_state: str = UP
    unreachable: bool = False
    # 7.4, 7.5
    suspicion_began: int | None = None
    suspicion_base: int = 0
    suspicion_probes: int = 0
    third_probe_pto: int = 0
    budget_spent: int = 0
    budget_since: int = 0
    suspicions: int = 0
    # 7.6
    down_at: int = 0
    down_probes: int = 0
    recovered: int = 0
    # 7.7
    judge_not_before: int = 0
    excused_at: int = 0
    excuses: tuple[tuple[int, int, int], ...] = ()
    stalls: int = 0
    # 8.6 to 8.10
    own: tuple[Parameters, ...] = ()
    peer: tuple[Parameters, ...] = ()
    control_version: int = 0
    control_ack: int = 0
    control_ack_first_in: int | None = None
    unconfirmed: Options = NOTHING
    control_changes: int = 0
    control_spacing: int = 0
    own_pause_until: int = 0
    own_pause_lapses: bool = False
    peer_pause_until: int = 0
    peer_pauses: tuple[tuple[int, int, int], ...] = ()
    held: bool = False
    interval_told: int = 0
    interval_planned_by: int = 0
    steady_probes: int = 0
    steady_probes_since: int = 0
    slow_down_at: int | None = None
    own_down: bool = False
    peer_down_since: int | None = None
    peer_downs: tuple[tuple[int, int, int], ...] = ()
    # 9.3
    path: Path | None = None
    path_not_before: int | None = None
    # 9.2
    own_address: bytes | None = None
    seen_hash: int | None = None
    query: int = 0
    queries: int = 0
    # 10
    srtt: int | None = None
    rttvar: int = 0
    rtt_latest: int | None = None
    rtt_samples: int = 0
    jitter: int = 0

    @property
    def pto(self) -> int:
        """KA-10.2-1."""
        if self.srtt is None:
            return PTO_INITIAL
        return min(self.srtt + max(4 * self.rttvar, PTO_GRANULARITY), PTO_MAX)

    @property
    def next_timer(self) -> int | None:
        """When something is due; None: never."""
        return min(self.timers.values(), default=None)


NONE_FRESH: Iterator[Any] = iter(())


def new_side(settings: Settings, address: Address, now: int) -> Side:
    """A side before anything has happened."""
    return Side(
        settings,
        address,
        now,
        rx_at=now,
        round_trip_at=now,
        silence_from=now,
        last_probe_at=now,
        budget_since=now,
        own_pause_until=now,
        peer_pause_until=now,
        steady_probes_since=now,
        excused_at=now,
        judge_not_before=now,
        own=(settings.own,),
    )


def step(
    side: Side, what: Input, now: int, draws: Iterator[int], fresh: Iterator[Any] = NONE_FRESH
) -> tuple[Side, list[Output]]:
    """Do what follows from an input at `now`.

    `draws` gives the uniform 32-bit integers r of 8.2, `fresh` the data of the path challenges that
    are sent, in this order.
    """
    doing = _Step(side, now, draws, fresh)
    doing.do(what)
    return doing.s, doing.out


# 8.2, and the like: plain arithmetic.


def J(interval: int, multiplier: int, r: int) -> int:  # noqa: N802
    """KA-8.2-4."""
    if multiplier == 1:
        return 9 * interval // 10 - ((3 * interval // 20 * r) >> 32)
    return interval - ((interval // 4 * r) >> 32)


def F(interval: int, r: int) -> int:  # noqa: N802
    """KA-8.2-4."""
    return 1 + ((interval * r) >> 32)


def canonical(address: Any) -> bytes:
    """9.2: family, port and address."""
    host = ipaddress.ip_address(address[0])
    if isinstance(host, ipaddress.IPv6Address):
        host = host.ipv4_mapped or host
    return bytes([host.version]) + address[1].to_bytes(2, "big") + host.packed


def address_hash(receiver_session_id: bytes, address: Address) -> int:
    """KA-9.2-4."""
    digest = hashlib.sha256(receiver_session_id + canonical(address)).digest()
    return int.from_bytes(digest[:4], "big")


def taken(spent: int, since: int, most: int, each: int, now: int) -> tuple[bool, int, int]:
    """Take one of a bucket that holds `most` and gets one back after each `each`.

    It lacked `spent` at `since`; tell whether there was one, and both anew.
    """
    refilled = (now - since) // max(1, each)
    if refilled >= spent:
        spent, since = 0, now
    else:
        spent, since = spent - refilled, since + refilled * max(1, each)
    return (True, spent + 1, since) if spent < most else (False, spent, since)


Grants = tuple[tuple[int, int, int], ...]


def granted(grants: Grants, window: int, limit: int, now: int) -> tuple[Grants, int]:
    """What of `limit` is left of what may be granted in any `window`."""
    kept = tuple(grant for grant in grants if grant[1] > now - window)
    return kept, max(0, limit - sum(amount for _, _, amount in kept))


def grant(grants: Grants, amount: int, window: int, now: int) -> Grants:
    """Take note of a grant.

    Reading: grants of one 64th of the window may be kept as one, dated at the last of them.
    """
    if not amount:
        return grants
    if grants and now - grants[-1][0] < window // 64:
        opened, _, before = grants[-1]
        return (*grants[:-1], (opened, now, before + amount))
    return (*grants, (now, now, amount))


class _Evidence(NamedTuple):
    date: int
    sample: int | None
    response_time: int
    is_new: bool
    is_fresh: bool
    is_old_number: bool


class _Step:
    """One step: `s` is the copy it works on."""

    def __init__(self, side: Side, now: int, draws: Iterator[int], fresh: Iterator[Any]) -> None:
        self.s = replace(side, now=now, timers=dict(side.timers))
        self.now = now
        self.out: list[Output] = []
        self._draws = draws
        self._fresh = fresh

    def do(self, what: Input) -> None:
        handler = getattr(self, f"when_{type(what).__name__}")
        handler(*what)
        self.close_when_exhausted()

    # Small things.

    def r(self) -> int:
        return next(self._draws)

    def arm(self, timer: str, at: int) -> None:
        self.s.timers[timer] = at

    def arm_later(self, timer: str, at: int) -> None:
        """KA-8.2-3: strictly later than now."""
        self.arm(timer, max(at, self.now + 1))

    def disarm(self, *timers: str) -> None:
        for timer in timers:
            self.s.timers.pop(timer, None)

    def tell(self, kind: str, *detail: Any) -> None:
        self.out.append(Event(kind, self.now, detail))

    def after(self, planned: int, interval: int) -> int:
        """KA-8.2-1, KA-8.2-3: from the planned time, or from now if that is past."""
        due = planned + interval
        return due if due > self.now else self.now + max(interval, 1)

    # 8.1, 8.8: the interval.

    def intervals(self) -> list[int]:
        """KA-8.1-1, KA-8.8-2: T by each old and new value of both sides that is not settled."""
        s = self.s
        wanting, allowing = (s.own, s.peer) if s.settings.initiator else (s.peer, s.own)
        return [
            max(one.desired_interval_us * US, other.min_receive_interval_us * US, MIN_INTERVAL)
            for one in wanting
            for other in allowing
        ] or [s.settings.own.desired_interval_us * US]

    def interval(self) -> int:
        """T for probing: the shortest."""
        return min(self.intervals())

    def judged_interval(self) -> int:
        """KA-8.1-2: T for judging: the longest, as far as this side expects it at all."""
        s = self.s
        most = s.settings.max_peer_interval
        if s.settings.initiator:
            most = max(most, *(one.desired_interval_us * US for one in s.own))
        return min(max(self.intervals()), most)

    def m(self) -> int:
        """8.2: with the deadline detector m is 2."""
        return self.s.settings.multiplier or 2

    def detector_wait(self) -> int:
        """7.5: what the detector adds to b; also its longest wait."""
        settings = self.s.settings
        if settings.multiplier is None:
            return settings.deadline
        return settings.multiplier * self.judged_interval()

    def longest_wait(self) -> int:
        """7.2: L."""
        s = self.s
        least = self.judged_interval() + 2 * s.pto + s.settings.min_suspicion
        return max(self.detector_wait(), least)

    # 4.2: the initiator's handshakes, as far as a session sees them.

    def when_Connect(self) -> None:  # noqa: N802
        timeout = self.s.settings.connect_timeout
        if timeout is not None:
            self.arm("EXPIRY", self.now + timeout)  # KA-4.2-3
        self.begin_attempt()

    def begin_attempt(self) -> None:
        """KA-4.2-1, KA-7.4-5."""
        s = self.s
        self.give_up_attempt()
        s.attempts += 1
        s.attempt = s.attempts
        s.attempt_started = self.now
        s.attempt_transmissions = 0
        names = s.keys_with_evidence or s.keys or None
        s.attempt_says = (names, s.own[-1])  # Reading: the present keys, where none had evidence.
        self.send_init(self.now)

    def send_init(self, planned: int) -> None:
        """KA-4.2-1, KA-4.2-2: the same each time. Reading: spaced from the planned times."""
        s = self.s
        assert s.attempt is not None
        s.attempt_transmissions += 1
        self.out.append(SendInit(s.attempt, *s.attempt_says, s.address))
        self.arm("HANDSHAKE", self.after(planned, J(s.retry, 2, self.r())))

    def on_HANDSHAKE(self, planned: int) -> None:  # noqa: N802
        """KA-4.2-1, KA-4.2-2."""
        s = self.s
        if s.attempt is None:
            self.begin_attempt()  # KA-7.4-5: the INIT that waited for a retry's time.
            return
        s.retry = min(2 * s.retry, HANDSHAKE_RETRY_MAX)
        if self.now - s.attempt_started > self.handshake_lifetime():
            self.begin_attempt()
        else:
            self.send_init(planned)

    def handshake_lifetime(self) -> int:
        """KA-4.2-1: 60 s, or L if that is less and the session has been up."""
        if not self.s.keys:
            return HANDSHAKE_LIFETIME
        return min(HANDSHAKE_LIFETIME, self.longest_wait())

    def linger(self, kind: str, number: int) -> None:
        """KA-4.3-8, KA-5.3-1: for 30 s what still comes is known, and dropped."""
        self.s.ended = (*self.s.ended, (kind, number, self.now + LINGER))

    def reason_for(self, kind: str, number: int, known: str) -> str:
        """Why a frame to what has ended is dropped."""
        lingers = any(
            self.now < until for one, n, until in self.s.ended if (one, n) == (kind, number)
        )
        return known if lingers else "unknown_session"

    def give_up_attempt(self) -> None:
        if self.s.attempt is not None:
            self.linger("handshake", self.s.attempt)
        self.s.attempt = None
        self.disarm("HANDSHAKE")

    def when_ResponseIn(  # noqa: N802
        self, attempt: int, told: Established, address_seen: bytes | None
    ) -> None:
        """KA-4.2-7, KA-4.3-8, KA-8.2-2, KA-10.2-2."""
        s = self.s
        if attempt != s.attempt:
            self.out.append(Dropped(self.reason_for("handshake", attempt, "unexpected")))
            return
        if self.now - s.attempt_started > self.handshake_lifetime():
            self.out.append(Dropped("unexpected"))
            return
        if s.attempt_transmissions == 1:
            self.learn_response_time(self.now - s.attempt_started)
        if address_seen is not None:
            self.learn_own_address_told(address_seen)
        said = s.attempt_says[1]
        assert said is not None
        self.end_path()
        restarted = self.new_keys(told)
        self.establish(told, said, s.attempt_started, restarted)
        self.probe()
        self.arm("PROBE", self.now + F(self.interval(), self.r()))

    def when_NewKeys(  # noqa: N802
        self, told: Established, said: Parameters, answered: int, address: Address, first: FrameIn
    ) -> None:
        """KA-4.3-4, KA-4.3-5, KA-9.1-4: a responder's session begins, or goes on under new keys."""
        s = self.s
        began, previous = s.keys == 0, s.address
        s.address = address
        self.end_path()
        restarted = self.new_keys(told)
        newest = self.let_in(first.frame)
        assert newest is not None
        self.establish(told, said, answered, restarted)
        if not began and previous != address:
            self.tell("PeerAddressChanged", previous, address)
        self.accept(first.frame, first.source, newest)

    def new_keys(self, told: Established) -> bool:
        """4.3: new keys begin a new numbering. Tell whether the peer has restarted."""
        s = self.s
        restarted = s.told is not None and s.told.epoch != told.epoch
        if s.keys:
            self.linger("keys", s.keys)
        s.told = told
        s.highest_sent_time, s.highest_arrived = 0, told.origin
        s.keys += 1
        s.keys_on_trial = True
        s.last_sent = s.window_highest = s.received_count = s.highest_received = s.confirmed = 0
        s.last_sent_at = s.mark_at = told.origin
        s.mark = s.old_number = 0
        s.window = frozenset()
        s.seen_hash = None
        s.query = s.queries = 0
        s.control_ack, s.control_ack_first_in = 0, None  # KA-8.6-3
        return restarted

    def establish(self, told: Established, said: Parameters, dated: int, restarted: bool) -> None:
        """6.2: ESTABLISHED. `said` is what this side told, `dated` when that was.

        KA-8.8-1, KA-8.8-3. Reading: what the peer's side of a handshake told is settled at once.
        """
        s = self.s
        self.give_up_attempt()
        newest = s.own[-1]
        before_said = s.own if s.settings.initiator else ()
        s.own = tuple(dict.fromkeys(one for one in (*before_said, said) if one != newest))
        s.own += (newest,)
        s.peer = (told.parameters,)
        self.begin_control_anew(said)
        if restarted:
            self.forget_peer()
        before = s.state
        s.rx_at = s.silence_from = self.now
        s.round_trip_at = dated if s.keys == 1 else max(s.round_trip_at, dated)  # KA-7.1-4
        s.awaited = None
        self.enter("ESTABLISHED")
        self.end_suspicion()
        self.rearm_overdue()
        if before == CONNECTING:
            s.interval_told = self.interval()
        s.interval_planned_by = self.interval()
        self.report(before)
        if s.unconfirmed != NOTHING:
            self.tell_control()
        self.agree()

    def begin_control_anew(self, said: Parameters) -> None:
        """KA-8.6-3. Reading: of the parameters, only what the handshake did not tell.

        Reading: a pause lasts while there is a whole millisecond of it to tell.
        """
        s = self.s
        changed = s.own[-1] if s.own[-1] != said else None
        s.unconfirmed = s.unconfirmed._replace(parameters=changed, slow_down_us=None)
        if s.own_pause_until - self.now >= MS:
            s.unconfirmed = s.unconfirmed._replace(pause_ms=0)
        if s.own_down:
            s.unconfirmed = s.unconfirmed._replace(admin=1)
        s.control_version = s.control_changes = int(s.unconfirmed != NOTHING)

    def forget_peer(self) -> None:
        """KA-7.4-6, 8.7, KA-8.10-5: the peer has restarted."""
        s = self.s
        self.tell("PeerRestarted")
        s.peer_pause_until = self.now
        self.peer_is_up()
        if s.state == ADMIN_DOWN and not self.is_taken_down():
            s.awaited = None
            self.enter("ADMIN_UP")
            self.report(ADMIN_DOWN)
        if self.is_paused():
            self.arm("PAUSE_END", s.own_pause_until)
            return
        self.disarm("PAUSE_END")
        if not self.is_taken_down():
            self.measure_silence_anew()

    # 5.1 and 3.7: what is let in.

    def when_FrameIn(self, frame: Frame, source: Address) -> None:  # noqa: N802
        s = self.s
        if s.finished or frame.keys != s.keys:
            self.out.append(Dropped(self.reason_for("keys", frame.keys, "lingering")))
            return
        newest = self.let_in(frame)
        if newest is None:
            return
        if s.state == CLOSED:
            self.when_closing(frame, source)
        else:
            self.accept(frame, source, newest)

    def let_in(self, frame: Frame) -> bool | None:
        """Tell whether a frame has the highest packet number so far, None if it is dropped."""
        s = self.s
        refused = self.refusal(frame)
        if refused:
            self.out.append(Dropped(refused))
            return None
        newest = frame.packet_number > s.highest_received
        if newest:  # KA-3.7-3
            s.highest_received = frame.packet_number
            s.highest_sent_time = frame.sent_time
            s.highest_arrived = self.now
        return newest

    def refusal(self, frame: Frame) -> str | None:
        s = self.s
        number = frame.packet_number
        if not 1 <= number <= MAX32:
            return "malformed"  # KA-3.6-4
        if number in s.window or number <= s.window_highest - REPLAY_WINDOW:
            return "replay"  # KA-5.1-1
        s.window_highest = max(s.window_highest, number)  # KA-5.1-2
        oldest = s.window_highest - REPLAY_WINDOW
        s.window = frozenset(n for n in (*s.window, number) if n > oldest)
        s.received_count += 1
        if not 1 <= frame.state <= 6:
            return "malformed"  # KA-3.7-1
        if (frame.type == "CLOSE") == (frame.options.close_reason is None):
            return "malformed"  # KA-3.8-5
        if frame.highest_received > s.last_sent:
            return "ack_of_unsent"  # KA-3.7-2
        return None

    def accept(self, frame: Frame, source: Address, newest: bool) -> None:
        """What an accepted frame does: to the facts, to what is known of the peer; the answer."""
        before = self.s.state
        self.count_bytes(source, bytes_in=frame.length)
        self.learn_that_keys_work(frame)
        self.learn_settled(frame)
        self.weigh(frame)
        self.report(before)
        if newest:
            self.learn_peer(frame, source)
        if frame.type == "PROBE":
            self.reply(frame, source)
            self.meter(frame)
        elif frame.type == "REPLY":
            self.learn_answer(frame)
        elif frame.type == "CLOSE":
            self.when_closed_by_peer(frame, source)

    def learn_peer(self, frame: Frame, source: Address) -> None:
        s = self.s
        s.peer_state = STATES[frame.state]
        if s.state == HALF_OPEN:
            self.rearm_overdue()  # KA-7.3-5
        self.learn_source(frame, source)
        self.learn_own_address(frame)
        self.learn_control(frame)

    # 6.3: states.

    def enter(self, what: str) -> None:
        """KA-6.3-1."""
        before = self.s.state
        self.s.state = TRANSITIONS.get((before, what), before)
        if self.s.state != before:
            self.end_suspicion()

    def end_suspicion(self) -> None:
        self.s.suspicion_began = None
        self.disarm(*JUDGEMENTS)

    def report(self, before: str) -> None:
        """KA-6.3-2, and what begins or ends with the state."""
        s = self.s
        if s.state == before:
            return
        if s.state == UP:
            self.give_up_attempt()  # KA-7.4-5
            self.disarm("EXPIRY")
            s.diagnostic = 0
            self.tell("SessionUp", before)
        elif s.state == SUSPECT:
            self.tell("SessionSuspect", before)
            return  # Its probes are those of the suspicion.
        elif s.state == HALF_OPEN:
            self.give_up_attempt()
            s.diagnostic = 2
            self.tell("SessionHalfOpen")
        elif s.state == DOWN:
            s.diagnostic = 1
            self.tell("SessionDown", s.unreachable)
            if not s.settings.initiator:  # KA-7.6-4
                self.arm_later("EXPIRY", self.now + s.settings.down_retention)
        elif s.state == ADMIN_DOWN:
            self.give_up_attempt()
            self.disarm("EXPIRY")
            self.tell("SessionAdminDown", before, not s.own_down)
        self.plan_probe(self.now)
        if before == DOWN and s.unconfirmed != NOTHING:
            s.control_spacing = s.pto  # KA-8.6-1: it goes on where DOWN broke it off.
            self.arm_later("CONTROL", self.now)

    # 6.4: closing.

    def when_Close(self, reason: int) -> None:  # noqa: N802
        """KA-6.4-1."""
        s = self.s
        if s.state == CLOSED:
            return
        self.end("CLOSE")
        self.tell("SessionClosed", reason, False)
        if not s.keys:
            self.finish()
            return
        s.close_reason = reason
        self.send_close()

    def send_close(self) -> None:
        s = self.s
        s.close_transmissions += 1
        self.send("CLOSE", Options(close_reason=s.close_reason), s.address)
        self.arm("CLOSING", self.now + s.pto)

    def on_CLOSING(self, planned: int) -> None:  # noqa: N802
        """KA-6.4-1. Reading: the last CLOSE, too, is given one PTO to be confirmed."""
        if self.s.close_transmissions < CLOSE_TRANSMISSIONS:
            self.send_close()
        else:
            self.finish()

    def when_closing(self, frame: Frame, source: Address) -> None:
        """KA-6.4-1, KA-6.4-2. Reading: while CLOSE waits to be confirmed no PROBE is answered."""
        if frame.type == "CLOSE":
            self.send("REPLY", Options(), source)
        elif STATES[frame.state] != CLOSED:
            self.out.append(Dropped("lingering"))
            return
        self.finish()

    def when_closed_by_peer(self, frame: Frame, source: Address) -> None:
        """KA-6.4-2."""
        self.end("CLOSE")
        self.send("REPLY", Options(), source)
        self.tell("SessionClosed", frame.options.close_reason, True)
        self.finish()

    def on_EXPIRY(self, planned: int) -> None:  # noqa: N802
        """KA-4.2-3, KA-7.6-4."""
        before = self.s.state
        self.end("EXPIRED")
        if before == CONNECTING:
            self.tell("ConnectFailed", self.s.unreachable)
        else:
            self.tell("SessionClosed", EXPIRED, False)
        self.finish()

    def end(self, what: str) -> None:
        self.give_up_attempt()
        self.enter(what)
        self.s.timers.clear()

    def finish(self) -> None:
        self.s.finished = True
        if self.s.keys:
            self.linger("keys", self.s.keys)
        self.s.timers.clear()

    def close_when_exhausted(self) -> None:
        """KA-4.4-3."""
        if self.s.last_sent >= PACKET_NUMBER_LIMIT and self.s.state != CLOSED:
            self.when_Close(KEY_EXHAUSTED)

    # 7.1, 7.2: the two facts and evidence.

    def weigh(self, frame: Frame) -> None:
        s = self.s
        evidence = self.evidence(frame)
        if evidence is not None and evidence.is_new:
            s.keys_with_evidence = s.keys
            s.retry = HANDSHAKE_RETRY_INITIAL
            if not evidence.is_old_number:
                self.measure(frame, evidence)
        fresh = evidence is not None and evidence.is_fresh
        if evidence is not None and evidence.is_new and fresh:
            self.confirm(frame.highest_received, evidence.date)
        elif frame.type != "REPLY" or fresh:
            self.hear()  # KA-7.1-2
        else:
            self.rearm_overdue()  # PTO may be another.

    def evidence(self, frame: Frame) -> _Evidence | None:
        """7.1, 10.1, 10.2: what a frame says of the newest of mine that it confirms.

        Reading: freshness is judged by the L from before this evidence's own sample.
        """
        s = self.s
        assert s.told is not None
        number = frame.highest_received
        if not number:
            return None
        present = (self.now - s.told.origin) // US
        age = (present - frame.echo_time) % 2**32 * US
        date = s.told.origin + present * US - age  # KA-7.1-3
        sample: int | None = age - frame.hold_time * US  # KA-10.1-1
        if frame.hold_time == MAX32 or sample < 0:
            sample = None
        is_new = number > s.confirmed
        s.confirmed = max(s.confirmed, number)
        self.note_age()
        old = number <= s.old_number  # KA-7.2-2
        fresh = not old and self.now - date <= self.longest_wait()  # KA-7.2-1
        response_time = age if frame.type == "REPLY" or sample is None else sample
        return _Evidence(date, sample, response_time, is_new, fresh, old)

    def note_age(self) -> None:
        """KA-7.2-2: every frame up to `old_number` was sent 20 minutes ago or earlier.

        Reading: a mark, set anew every 20 minutes, tells that to within 20 minutes.
        """
        s = self.s
        if self.now - s.last_sent_at >= OLD_PACKET_AGE:
            s.old_number = s.last_sent
        if self.now - s.mark_at >= OLD_PACKET_AGE:
            s.old_number = max(s.old_number, s.mark)
            s.mark, s.mark_at = s.last_sent, self.now

    def hear(self) -> None:
        """KA-7.1-2."""
        self.s.rx_at = self.now
        self.rearm_overdue()

    def confirm(self, number: int, date: int) -> None:
        """KA-7.1-2, KA-7.1-3, KA-7.2-3: fresh evidence."""
        s = self.s
        s.unreachable = False
        s.rx_at = self.now
        s.round_trip_at = max(s.round_trip_at, date)
        if number >= s.last_probe:
            s.awaited = None  # KA-7.3-1: no probe since.
        elif s.awaited is not None:
            s.awaited = self.now  # KA-7.3-2
        if s.state == DOWN:
            self.count_recovery(date)
        else:
            self.enter("CONFIRMED")
        if s.state == ADMIN_DOWN:
            self.give_up_attempt()  # KA-8.10-5
        self.rearm_overdue()

    # 7.3: what is overdue.

    def rearm_overdue(self) -> None:
        """When the reply or the peer is overdue, and not before judgements may be passed.

        Reading: an OVERDUE that a frame finds more than 100 ms late is handled late (KA-7.7-1).
        """
        s = self.s
        if s.held:
            return
        missed = s.timers.get("OVERDUE")
        if missed is not None:
            self.excuse(missed)
        if s.state == UP:
            at = self.overdue_in_up()
        elif s.state == HALF_OPEN:
            at = self.overdue_in_half_open()
        else:
            return
        if at is None:
            self.disarm("OVERDUE")
        else:
            self.arm_later("OVERDUE", max(at, s.judge_not_before))

    def overdue_in_up(self) -> int | None:
        s, t = self.s, self.judged_interval()
        due = [] if s.awaited is None else [s.awaited + s.pto]  # KA-7.3-1
        if not s.settings.initiator:  # KA-7.3-3
            due.append(max(s.rx_at, s.silence_from) + t + s.pto)
            lag = 4 * t if self.traffic_counts() else 2 * t
            due.append(max(s.round_trip_at, s.silence_from) + lag + 2 * s.pto)
        return min(due, default=None)

    def overdue_in_half_open(self) -> int:
        """KA-7.3-5, which alone counts there."""
        s = self.s
        intervals = 24 if s.peer_state == DOWN else 3
        heard = max(s.rx_at, s.silence_from)
        return heard + intervals * self.judged_interval() + s.pto

    def on_OVERDUE(self, planned: int) -> None:  # noqa: N802
        """KA-7.4-1."""
        s = self.s
        if self.now < s.judge_not_before:  # KA-7.7-1
            self.arm("OVERDUE", s.judge_not_before)
            self.probe_unless_done()
            return
        before = s.state
        base = self.base()
        self.enter("OVERDUE")
        self.suspect(base)
        s.suspicions += 1
        self.report(before)
        self.on_SUSPICION_PROBE(planned)

    def base(self) -> int:
        """7.5: b, the round-trip fact, or the rx fact in HALF_OPEN; KA-7.7-2, KA-8.7-3."""
        s = self.s
        return max(s.rx_at if s.state == HALF_OPEN else s.round_trip_at, s.silence_from)

    # 7.4: suspicion.

    def suspect(self, base: int) -> None:
        s = self.s
        s.suspicion_began = self.now
        s.suspicion_base = base
        s.suspicion_probes = 0

    def on_SUSPICION_PROBE(self, planned: int) -> None:  # noqa: N802
        """KA-7.4-1 to KA-7.4-5."""
        s = self.s
        at = s.last_probe_at + self.judged_interval()
        if not self.take_from_budget() and at > self.now:
            self.arm("SUSPICION_PROBE", at)  # KA-7.4-4
            return
        self.probe()
        s.suspicion_probes += 1
        self.arm("SUSPICION_PROBE", self.now + self.suspicion_spacing())
        if s.suspicion_probes == MIN_UNANSWERED:
            s.third_probe_pto = self.now + s.pto
            self.arm_verdict()
            if s.settings.initiator:
                self.look_for_restarted_peer()

    def spacing(self) -> int:
        """KA-7.4-2."""
        s = self.s
        return max(
            s.settings.suspicion_interval,
            BLIND_PROBE_SPACING if s.srtt is None else s.srtt,
            min(s.peer[-1].suspicion_interval_us * US, self.judged_interval()) if s.peer else 0,
        )

    def suspicion_spacing(self) -> int:
        """KA-7.4-2, KA-7.4-3."""
        s = self.s
        assert s.suspicion_began is not None
        least = self.spacing()
        if s.suspicion_probes < SUSPICION_PROBES_BEFORE_GROWTH:
            return least
        return max(least, (self.now - s.suspicion_began) // SUSPICION_GROWTH_DIVISOR)

    def take_from_budget(self) -> bool:
        """KA-7.4-4."""
        s = self.s
        burst = s.peer[-1].suspicion_burst if s.peer else 0
        most = max(MIN_UNANSWERED, min(burst, SUSPICION_BUDGET_MAX))
        got, s.budget_spent, s.budget_since = taken(
            s.budget_spent, s.budget_since, most, self.judged_interval() // 2, self.now
        )
        return got

    def look_for_restarted_peer(self) -> None:
        """KA-7.4-5. Reading: the first time waited is 1 s, since 500 ms doubled."""
        s = self.s
        if not s.keys_on_trial:
            self.begin_attempt()
            return
        s.retry = min(2 * s.retry, HANDSHAKE_RETRY_MAX)
        self.arm("HANDSHAKE", self.now + J(s.retry, 2, self.r()))

    # 7.5: the verdict.

    def arm_verdict(self) -> None:
        """KA-7.5-1."""
        s = self.s
        assert s.suspicion_began is not None
        deadline = s.suspicion_base + self.detector_wait()
        at = max(deadline, s.suspicion_began + s.settings.min_suspicion, s.third_probe_pto)
        self.arm("VERDICT", max(at, s.judge_not_before))

    def on_VERDICT(self, planned: int) -> None:  # noqa: N802
        """KA-7.5-2, KA-7.5-5."""
        s = self.s
        assert s.suspicion_began is not None
        if self.now < s.judge_not_before:  # KA-7.7-1
            self.arm_verdict()
            self.probe_unless_done()
            return
        before = s.state
        recent = self.now - s.rx_at <= self.judged_interval() + s.pto
        if s.rx_at >= s.suspicion_began or recent:
            self.enter("VERDICT_HALF_OPEN")
            self.rearm_overdue()
        else:
            self.enter("VERDICT_DOWN")
            s.down_at = self.now
            s.down_probes = s.recovered = 0
        self.report(before)
        self.probe()

    # 7.6: after DOWN.

    def count_recovery(self, date: int) -> None:
        """KA-7.6-2, KA-7.6-3."""
        s = self.s
        if date <= s.down_at - US:
            return
        s.recovered += 1
        s.down_probes = 0
        if s.recovered >= s.settings.up_confirmations:
            self.enter("RECOVERED")
        elif s.recovered == 1:
            self.arm("PROBE", self.now + self.spacing())

    # 7.7: own stall.

    def excuse(self, planned: int) -> None:
        """KA-7.7-1 to KA-7.7-3."""
        s = self.s
        lateness = self.now - max(planned, s.excused_at)
        if lateness <= LATE_TIMER:
            return
        limit = self.longest_wait()
        cost = max(min(lateness, limit), s.pto)
        s.excuses, left = granted(s.excuses, STALL_WINDOW, limit, self.now)
        if min(cost, left) < s.pto:
            return
        s.excuses = grant(s.excuses, min(cost, left), STALL_WINDOW, self.now)
        s.stalls += 1
        s.excused_at = self.now
        s.judge_not_before = self.now + s.pto
        if s.awaited is not None:
            s.awaited = self.now
        self.move_base(lateness if cost <= left else left)

    def move_base(self, by: int) -> None:
        """KA-7.7-2."""
        s = self.s
        if s.suspicion_began is None:
            s.silence_from = min(self.now, self.base() + by)
            return
        s.suspicion_base = min(self.now, s.suspicion_base + by)
        s.suspicion_began = min(self.now, s.suspicion_began + by)
        if "VERDICT" in s.timers:
            self.arm_verdict()

    def probe_unless_done(self) -> None:
        """KA-7.7-1: instead of a judgement. Reading: one probe for all that were due."""
        if self.s.last_probe_at != self.now:
            self.probe()

    # 8.2: the cadence.

    def when_TimePasses(self) -> None:  # noqa: N802
        s = self.s
        while (at := s.next_timer) is not None and at <= self.now:
            timer = next(name for name in TIMERS if s.timers.get(name) == at)
            del s.timers[timer]
            self.excuse(at)
            getattr(self, f"on_{timer}")(at)

    def on_PROBE(self, planned: int) -> None:  # noqa: N802
        """KA-8.7-1: not in a pause. KA-8.10-5."""
        s = self.s
        if self.is_paused():
            return
        unanswered = s.state == ADMIN_DOWN and s.awaited is not None and s.settings.initiator
        if unanswered and s.attempt is None:
            self.begin_attempt()
        if self.plan_probe(planned):
            self.probe()

    def plan_probe(self, planned: int) -> bool:
        """KA-7.6-1, KA-7.6-3, KA-8.2-1: when to probe after `planned`, if at all."""
        s, r = self.s, self.r()
        if s.state == DOWN:
            if s.recovered and self.now - s.round_trip_at > self.interval():
                s.recovered = 0
            if s.recovered and self.take_from_budget():
                self.arm("PROBE", self.now + self.spacing())
                return True
            s.down_probes += 1
        interval = self.probe_interval()
        if interval is None:
            self.disarm("PROBE")
            return False
        self.arm("PROBE", self.after(planned, J(interval, self.m(), r)))
        return True

    def probe_interval(self) -> int | None:
        """KA-7.3-4, KA-7.5-4, KA-7.6-1, KA-8.10-3: what is jittered; None: no probes by T."""
        s, t = self.s, self.interval()
        if s.state == DOWN:
            return t * min(2 ** (s.down_probes - 1), DOWN_BACKOFF_MAX)
        if s.state == ADMIN_DOWN and s.settings.initiator:
            return 8 * t
        if s.state == HALF_OPEN or (s.state == UP and s.settings.initiator):
            return t
        return None

    # 8.3: frames out.

    def probe(self, options: Options = NOTHING) -> None:
        """A PROBE to the session's address, with all control state that is not confirmed."""
        s = self.s
        if not self.send("PROBE", self.with_control(options), s.address):
            return
        s.last_probe, s.last_probe_at = s.last_sent, self.now
        if s.awaited is None:  # KA-7.3-1
            s.awaited = self.now
            self.rearm_overdue()
        self.rearm_nat_keepalive()

    def challenge(self, to: Address, data: Any) -> None:
        """KA-9.3-1. Reading: a challenge puts neither T (7.4) nor NAT keep-alive off."""
        self.send("PROBE", Options(path_challenge=data), to)

    def reply(self, frame: Frame, source: Address) -> None:
        """KA-8.3-1 to KA-8.3-3."""
        room = frame.length - STEADY_FRAME_BYTES
        options = Options()
        if frame.options.path_challenge is not None:
            options = options._replace(path_response=frame.options.path_challenge)  # KA-9.3-2
        with_control = self.with_control(options)
        if with_control.length() <= room:  # KA-8.6-1
            options = with_control
        with_address = options._replace(address_seen=canonical(source))
        challenged = frame.options.path_challenge is not None
        plain = options._replace(path_response=None) == NOTHING
        if plain and room - 10 * challenged >= 2 + 19:  # KA-9.2-2
            options = with_address
        self.send("REPLY", options, source)
        self.rearm_nat_keepalive()

    def send(self, kind: str, options: Options, to: Address) -> bool:
        """Stamp and number a frame. KA-3.7-3, KA-4.4-2, KA-4.4-3."""
        s = self.s
        assert s.told is not None
        if s.last_sent >= PACKET_NUMBER_LIMIT and kind != "CLOSE":
            return False
        self.note_age()
        s.last_sent += 1
        s.last_sent_at = self.now
        named = s.highest_received > 0
        frame = Frame(
            kind,
            s.keys,
            s.last_sent,
            STEADY_FRAME_BYTES + options.length(),
            STATES.index(s.state),
            s.diagnostic,
            s.control_version,
            s.control_ack,
            (self.now - s.told.origin) // US % 2**32,
            s.highest_sent_time if named else 0,
            min((self.now - s.highest_arrived) // US, MAX32) if named else 0,
            s.highest_received,
            s.received_count,
            address_hash(s.told.remote_id, to),
            options,
        )
        self.out.append(Send(frame, to))
        self.count_bytes(to, bytes_out=frame.length)
        return True

    # 8.4

    def rearm_nat_keepalive(self) -> None:
        """KA-8.4-1: a PROBE was sent or answered."""
        keepalive = self.s.settings.nat_keepalive
        if keepalive is not None and self.s.state != CLOSED:
            self.arm("NAT_KEEPALIVE", self.now + J(keepalive, 2, self.r()))

    def on_NAT_KEEPALIVE(self, planned: int) -> None:  # noqa: N802
        self.probe()

    # 8.5

    def traffic_counts(self) -> bool:
        """KA-8.5-1."""
        s = self.s
        return bool(s.peer and s.own[-1].features & s.peer[-1].features & 1)

    def when_TrafficReceived(self) -> None:  # noqa: N802
        """KA-8.5-1."""
        if self.traffic_counts() and self.s.state != CLOSED:
            self.hear()

    def when_TrafficSent(self) -> None:  # noqa: N802
        """KA-8.5-2, which is a MAY; one r for both terms."""
        s = self.s
        if self.traffic_counts() and s.settings.initiator and s.state == UP:
            r, t = self.r(), self.interval()
            due = min(s.last_probe_at + J(2 * t, self.m(), r), self.now + J(t, self.m(), r))
            self.arm_later("PROBE", due)

    # 8.6: control state.

    def with_control(self, options: Options) -> Options:
        """KA-8.6-1: all of it that is not confirmed; of a pause the time that remains (8.7)."""
        s = self.s
        for name in CONTROL:
            value = getattr(s.unconfirmed, name)
            if name == "pause_ms" and value is not None:
                value = min(max(0, s.own_pause_until - self.now) // MS, MAX32)
            if value is not None:
                options = options._replace(**{name: value})
        return options

    def is_restless(self) -> bool:
        """KA-8.6-4: nothing more can be changed now."""
        if self.s.control_changes < MAX_UNCONFIRMED:
            return False
        self.out.append(Refused())
        return True

    def change_control(self, **items: Any) -> None:
        """KA-8.6-1."""
        s = self.s
        s.control_changes += 1
        s.control_version = s.control_version % 255 + 1
        s.unconfirmed = s.unconfirmed._replace(**items)

    def tell_control(self) -> None:
        """KA-8.6-1: at once, and again."""
        self.s.control_spacing = self.s.pto
        self.on_CONTROL(self.now)

    def on_CONTROL(self, planned: int) -> None:  # noqa: N802
        """KA-8.6-1."""
        s = self.s
        if s.unconfirmed != NOTHING and s.state != DOWN:
            self.probe()
            self.arm_later("CONTROL", self.now + s.control_spacing)
            s.control_spacing = min(2 * s.control_spacing, max(self.interval(), s.pto))

    def learn_control(self, frame: Frame) -> None:
        """KA-8.6-1, KA-8.6-2, KA-8.6-5, from a frame with the highest packet number."""
        s = self.s
        if frame.control_version == 0 and s.peer_down_since is not None:
            self.learn_admin(False)
        if frame.control_ack == s.control_version and s.control_changes:
            told, s.unconfirmed = s.unconfirmed, Options()
            s.control_changes = 0
            if told.parameters is not None or told.slow_down_us is not None:  # KA-8.8-3
                s.own = s.own[-1:]
                self.agree()
        holds = any(getattr(frame.options, name) is not None for name in CONTROL)
        if not holds or frame.control_version in (0, s.control_ack):
            return
        s.control_ack = frame.control_version
        s.control_ack_first_in = s.last_sent + 1
        told = frame.options
        if told.parameters is not None:
            self.change_peer(told.parameters)
        if told.slow_down_us is not None:  # KA-8.9-1
            self.change_peer(s.peer[-1]._replace(min_receive_interval_us=told.slow_down_us))
        if told.pause_ms is not None:
            self.learn_pause(told.pause_ms)
        if told.admin is not None:
            self.learn_admin(bool(told.admin))
        self.agree()

    # 8.7: pause.

    def is_paused(self) -> bool:
        return max(self.s.own_pause_until, self.s.peer_pause_until) > self.now

    def when_Pause(self, duration: int) -> None:  # noqa: N802
        s = self.s
        if self.is_restless():
            return
        s.own_pause_until = self.now + duration
        s.own_pause_lapses = duration > 0
        self.change_control(pause_ms=0)
        self.begin_pause()
        self.tell_control()

    def learn_pause(self, duration_ms: int) -> None:
        """KA-8.7-2. Reading: what an earlier pause covers is not charged twice."""
        s = self.s
        asked = min(duration_ms * MS, s.settings.max_peer_pause)
        covered = min(asked, max(0, s.peer_pause_until - self.now))
        limit = s.settings.max_peer_pause_sum
        s.peer_pauses, left = granted(s.peer_pauses, PAUSE_WINDOW, limit, self.now)
        more = min(asked - covered, left)
        s.peer_pauses = grant(s.peer_pauses, more, PAUSE_WINDOW, self.now)
        s.peer_pause_until = self.now + covered + more
        self.begin_pause()
        self.tell("PeerPaused", covered + more)

    def begin_pause(self) -> None:
        """KA-8.7-1."""
        self.hold_judgement()
        self.arm_later("PAUSE_END", max(self.s.own_pause_until, self.s.peer_pause_until))

    def hold_judgement(self) -> None:
        """KA-8.7-1, KA-8.10-3."""
        self.s.held = True
        self.disarm(*JUDGEMENTS)

    def on_PAUSE_END(self, planned: int) -> None:  # noqa: N802
        """KA-8.7-3, and the end of 8.7."""
        s = self.s
        if self.is_paused():
            self.arm("PAUSE_END", max(s.own_pause_until, s.peer_pause_until))
            return
        if s.own_pause_lapses and s.own_pause_until <= self.now:
            s.unconfirmed = s.unconfirmed._replace(pause_ms=None)
        self.judge_again()

    def judge_again(self) -> None:
        """KA-8.7-3, KA-8.10-6, unless something else forbids it."""
        s = self.s
        if self.is_paused():
            return
        if not self.is_taken_down():
            self.measure_silence_anew()
        self.plan_probe(self.now)
        if s.state == SUSPECT:
            self.on_SUSPICION_PROBE(self.now)
        elif s.settings.initiator and self.take_from_budget():
            self.probe()

    def measure_silence_anew(self) -> None:
        """KA-8.7-3, KA-8.10-6."""
        s = self.s
        s.held = False
        s.silence_from = self.now
        s.awaited = None
        if s.state == SUSPECT:
            self.suspect(self.now)
        self.rearm_overdue()

    # 8.8: change of parameters.

    def when_SetParameters(self, parameters: Parameters) -> None:  # noqa: N802
        """KA-8.8-1. A SLOW_DOWN that is not confirmed is a part of them."""
        if self.is_restless():
            return
        self.change_own(parameters)
        self.change_control(parameters=self.s.own[-1], slow_down_us=None)
        self.agree()
        self.tell_control()

    def change_own(self, parameters: Parameters) -> None:
        """KA-8.8-1, KA-8.8-2: the old ones count, too, until it is settled."""
        s = self.s
        changed = parameters._replace(features=s.own[-1].features)
        s.own = (*(one for one in s.own if one != changed), changed)

    def change_peer(self, parameters: Parameters) -> None:
        """KA-8.8-1, KA-8.8-2."""
        s = self.s
        changed = parameters._replace(features=s.peer[-1].features)
        s.peer = (*(one for one in s.peer if one != changed), changed)

    def learn_that_keys_work(self, frame: Frame) -> None:
        """KA-8.8-3: evidence under the new keys.

        Reading: where a later change waits, all that was before counts until that is confirmed.
        """
        s = self.s
        if not s.keys_on_trial or frame.highest_received <= s.confirmed:
            return
        s.keys_on_trial = False
        if s.unconfirmed.parameters is None and s.unconfirmed.slow_down_us is None:
            s.own = s.own[-1:]
        self.agree()

    def learn_settled(self, frame: Frame) -> None:
        """KA-8.8-3: the peer knows that we know its change."""
        s = self.s
        first_in = s.control_ack_first_in
        if first_in is not None and frame.highest_received >= first_in:
            s.control_ack_first_in = None
            s.peer = s.peer[-1:]
            self.agree()

    def agree(self) -> None:
        """KA-8.8-2, KA-8.8-4: go by what both sides told."""
        s = self.s
        if "VERDICT" in s.timers:
            self.arm_verdict()
        self.rearm_overdue()
        t = self.interval()
        if t < s.interval_planned_by:
            self.hasten_probe()
        s.interval_planned_by = t
        if len(s.own) == len(s.peer) == 1 and t != s.interval_told:
            previous, s.interval_told = s.interval_told, t
            s.silence_from = self.now
            self.rearm_overdue()
            self.tell("IntervalChanged", previous, t)

    def hasten_probe(self) -> None:
        """KA-8.8-2: where T is less, no probe is later than by the new T from now."""
        s, r = self.s, self.r()
        if s.state == DOWN and s.recovered:  # KA-7.6-3
            return
        interval = self.probe_interval()
        if interval is not None and s.timers.get("PROBE", 0) > self.now + interval:
            self.arm("PROBE", self.now + J(interval, self.m(), r))

    # 8.9: slow down.

    def when_SlowDown(self, min_receive_interval_us: int) -> None:  # noqa: N802
        """KA-8.9-1."""
        if self.is_restless():
            return
        asked = self.s.own[-1]._replace(min_receive_interval_us=min_receive_interval_us)
        self.change_own(asked)
        self.change_control(slow_down_us=min_receive_interval_us)
        self.agree()
        self.tell_control()

    def meter(self, frame: Frame) -> None:
        """KA-8.9-2. Reading: only a responder's `min_receive_interval_us` says anything (8.1)."""
        s = self.s
        steady = frame.length == STEADY_FRAME_BYTES and STATES[frame.state] in (UP, HALF_OPEN)
        if s.settings.initiator or not steady:
            return
        t = self.interval()
        held, s.steady_probes, s.steady_probes_since = taken(
            s.steady_probes,
            s.steady_probes_since,
            SLOW_DOWN_BURST,
            min(t, S) // SLOW_DOWN_REFILL,
            self.now,
        )
        lately = s.slow_down_at is not None and self.now - s.slow_down_at < SLOW_DOWN_SPACING
        if not held and not lately:
            s.slow_down_at = self.now
            if s.control_changes < MAX_UNCONFIRMED:
                self.when_SlowDown(t // US)

    # 8.10: taken down by an operator.

    def is_taken_down(self) -> bool:
        """KA-8.10-2."""
        return self.s.own_down or self.s.peer_down_since is not None

    def when_Admin(self, down: bool) -> None:  # noqa: N802
        """KA-8.10-1."""
        if self.s.own_down == down or self.is_restless():
            return
        self.s.own_down = down
        self.change_control(admin=int(down))
        self.follow_administration()
        self.tell_control()

    def learn_admin(self, down: bool) -> None:
        """KA-8.10-4."""
        s = self.s
        if not down:
            self.peer_is_up()
        elif s.peer_down_since is None:
            limit = s.settings.max_peer_admin_down
            s.peer_downs, left = granted(s.peer_downs, ADMIN_WINDOW, limit, self.now)
            if left:
                s.peer_down_since = self.now
                self.arm("ADMIN_END", self.now + left)
        self.follow_administration()

    def peer_is_up(self) -> None:
        s = self.s
        if s.peer_down_since is None:
            return
        limit = s.settings.max_peer_admin_down
        s.peer_downs, left = granted(s.peer_downs, ADMIN_WINDOW, limit, self.now)
        lasted = min(self.now - s.peer_down_since, left)
        s.peer_downs = grant(s.peer_downs, lasted, ADMIN_WINDOW, self.now)
        s.peer_down_since = None

    def on_ADMIN_END(self, planned: int) -> None:  # noqa: N802
        """KA-8.10-4."""
        self.peer_is_up()
        self.follow_administration()

    def follow_administration(self) -> None:
        """KA-8.10-2, KA-8.10-6."""
        s = self.s
        before = s.state
        if self.is_taken_down() == (before == ADMIN_DOWN):
            return
        s.awaited = None
        if self.is_taken_down():
            self.enter("ADMIN_DOWN")
            self.hold_judgement()
            self.report(before)
        else:
            self.enter("ADMIN_UP")
            self.report(before)
            self.judge_again()

    # 9.3: path validation.

    def learn_source(self, frame: Frame, source: Address) -> None:
        """KA-9.3-1, KA-9.3-3, KA-9.3-5, on a frame with the highest packet number."""
        s = self.s
        if source == s.address:
            if s.path is not None:
                self.stay()
            return
        too_soon = s.path_not_before is not None and self.now < s.path_not_before
        if s.path is None and not too_soon:
            s.path = Path(source, bytes_in=frame.length)
            self.try_path()

    def count_bytes(self, address: Address, bytes_in: int = 0, bytes_out: int = 0) -> None:
        """KA-9.1-3."""
        s = self.s
        if s.path is not None and s.path.address == address:
            s.path = s.path._replace(
                bytes_in=s.path.bytes_in + bytes_in, bytes_out=s.path.bytes_out + bytes_out
            )

    def try_path(self) -> None:
        """KA-9.3-1, KA-9.3-4, KA-9.3-6."""
        s = self.s
        assert s.path is not None
        s.path = s.path._replace(tries=s.path.tries + 1)
        length = STEADY_FRAME_BYTES + Options(path_challenge=b"8 bytes.").length()
        if self.take_from_budget():
            data = next(self._fresh)
            s.path = s.path._replace(asked_old=(*s.path.asked_old, data))
            self.challenge(s.address, data)
        allowed = s.path.bytes_out + length <= 3 * s.path.bytes_in
        if allowed and self.take_from_budget():
            data = next(self._fresh)
            s.path = s.path._replace(asked_new=(*s.path.asked_new, data))
            self.challenge(s.path.address, data)
        self.arm("PATH", self.now + max(s.pto, 3 * (s.srtt or 0)))

    def learn_answer(self, frame: Frame) -> None:
        """KA-9.3-3, and the end of 9.3."""
        s = self.s
        data = frame.options.path_response
        if s.path is None or data is None:
            return
        if data in s.path.asked_old:
            self.stay()
        elif data in s.path.asked_new:
            s.path = s.path._replace(answered=True)

    def on_PATH(self, planned: int) -> None:  # noqa: N802
        """KA-9.3-4."""
        s = self.s
        if s.path is None:
            return
        if s.path.answered:
            previous, s.address = s.address, s.path.address
            self.end_path()
            self.tell("PeerAddressChanged", previous, s.address)
        elif s.path.tries < PATH_TRIES:
            self.try_path()
        else:
            self.stay()

    def stay(self) -> None:
        """KA-9.3-3, KA-9.3-5."""
        self.end_path()
        self.s.path_not_before = self.now + self.interval()

    def end_path(self) -> None:
        self.s.path = self.s.path_not_before = None
        self.disarm("PATH")

    # 9.2: the address seen.

    def learn_own_address(self, frame: Frame) -> None:
        """KA-9.2-1, KA-9.2-2."""
        s = self.s
        changed = s.seen_hash not in (None, frame.address_hash)
        s.seen_hash = frame.address_hash
        told = frame.options.address_seen
        if s.query:
            if told is None and frame.highest_received < s.query:
                return
            if told is None and s.queries < ADDRESS_QUERIES:
                changed = True
            else:
                s.query = s.queries = 0
                self.report_own_address(told)
                return
        if not changed:
            return
        if s.settings.initiator and self.take_from_budget():
            self.probe(Options(pad=19))
            s.query = s.last_sent
            s.queries += 1
        else:
            s.query = s.queries = 0
            self.report_own_address(None)

    def learn_own_address_told(self, told: bytes) -> None:
        """KA-9.2-1: ADDRESS_SEEN in a RESPONSE."""
        if self.s.own_address is None:
            self.s.own_address = told
        elif self.s.own_address != told:
            self.report_own_address(told)

    def report_own_address(self, told: bytes | None) -> None:
        previous, self.s.own_address = self.s.own_address, told
        self.tell("OwnAddressChanged", previous, told)

    def when_Hint(self) -> None:  # noqa: N802
        """KA-9.2-3."""
        s = self.s
        s.unreachable = True
        at = self.now + self.spacing()
        planned = s.timers.get("PROBE")
        if s.state == UP and planned is not None and planned > at and self.take_from_budget():
            self.arm("PROBE", at)

    def when_Redirect(self, address: Address) -> None:  # noqa: N802
        s = self.s
        if s.state == CLOSED:
            return
        s.address = address
        self.end_path()
        if s.attempt is not None or not s.keys:
            self.begin_attempt()

    # 10: what a reply tells.

    def measure(self, frame: Frame, evidence: _Evidence) -> None:
        """KA-10.1-1, KA-10.1-2, 10.2."""
        s = self.s
        if evidence.sample is not None:
            if s.rtt_latest is not None:
                s.jitter += (abs(evidence.sample - s.rtt_latest) - s.jitter) // 16
            s.rtt_latest = evidence.sample
            s.rtt_samples += 1
            if s.settings.report_round_trips:
                self.tell("RoundTrip", frame.highest_received, evidence.sample)
        self.learn_response_time(evidence.response_time)

    def learn_response_time(self, sample: int) -> None:
        """KA-10.2-1: 60 s at most."""
        s = self.s
        sample = min(sample, PTO_MAX)
        if s.srtt is None:
            s.srtt, s.rttvar = sample, sample // 2
        else:
            s.rttvar = (3 * s.rttvar + abs(s.srtt - sample)) // 4
            s.srtt = (7 * s.srtt + sample) // 8


def facts(side: Side) -> dict[str, Any]:
    """What can be seen of a side from outside."""
    return {
        "state": side.state,
        "rx fact": side.rx_at,
        "round-trip fact": side.round_trip_at,
        "pto": side.pto,
        "srtt": side.srtt,
        "jitter": side.jitter,
        "rtt": side.rtt_latest,
        "samples": side.rtt_samples,
        "suspicions": side.suspicions,
        "stalls": side.stalls,
        "interval": _Step(side, side.now, iter(()), iter(())).interval() if side.keys else None,
        "address": side.address,
    }
