"""What must hold after every verb of an endpoint, whatever its peer and its application do.

It looks into private parts of the core where the public ones do not tell, and never changes them.
"""

from random import Random
from typing import Final

from fuzz.ledger import Ledger
from fuzz.listener import Listener, Sent
from kaudp import Endpoint, Session, State
from kaudp.core.paths import Address
from kaudp.core.session import Context
from kaudp.core.states import TRANSITIONS
from kaudp.core.suspicion import SUSPICION_BUDGET_MAX
from kaudp.core.timers import Timer
from kaudp.events import (
    ConnectFailed,
    Event,
    SessionAdminDown,
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
)
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.grammar import FrameType

# Each kind of timer fires once per session at most; the third suspicion probe adds an INIT.
SENT_BY_TIMERS: Final = len(Timer) + 1
# From one PTO to one T, ever twice as far apart: 10 ms to 71 minutes.
CONTROL_RETRIES: Final = 20

STATE_TOLD: Final[dict[type[Event], State]] = {
    SessionUp: State.UP,
    SessionSuspect: State.SUSPECT,
    SessionHalfOpen: State.HALF_OPEN,
    SessionDown: State.DOWN,
    SessionAdminDown: State.ADMIN_DOWN,
    SessionClosed: State.CLOSED,
    ConnectFailed: State.CLOSED,
}

JUDGING: Final = {Timer.OVERDUE, Timer.VERDICT, Timer.SUSPICION_PROBE}
# The timers without which a session in a state would do nothing any more: (initiator, responder).
AWAKE: Final[dict[State, tuple[set[Timer], set[Timer]]]] = {
    State.CONNECTING: ({Timer.HANDSHAKE}, set()),
    State.UP: ({Timer.PROBE}, {Timer.OVERDUE}),
    State.SUSPECT: ({Timer.SUSPICION_PROBE}, {Timer.SUSPICION_PROBE}),
    State.HALF_OPEN: ({Timer.PROBE, Timer.OVERDUE}, {Timer.PROBE, Timer.OVERDUE}),
    State.DOWN: ({Timer.PROBE}, {Timer.PROBE, Timer.EXPIRY}),
    State.ADMIN_DOWN: ({Timer.PROBE}, set()),
    State.CLOSED: ({Timer.CLOSING}, {Timer.CLOSING}),
}


class Side:
    """An endpoint and what its application has been told."""

    def __init__(self, name: str, address: Address, listener: Listener) -> None:
        self.name = name
        self.home = address
        self.address = address
        self.listener = listener
        self.cut: set[Address] = set()

    def start(self, endpoint: Endpoint, entropy: Random) -> None:
        """Begin with an endpoint that is new and knows nothing."""
        self.endpoint = endpoint
        self._entropy = entropy
        self.ledger = Ledger(self.listener)
        self.cookies: list[tuple[bytes, bytes, bytes, int]] = []
        self.deaf = False
        self.heard = 0
        self.deadlines: dict[Session, dict[Timer, int]] = {}
        self.probes: list[int] = []
        self.chosen: set[bytes] = set()
        self.least_interval: dict[Session, int] = {}
        self._told: dict[Session, State] = {}
        self._lost = 0

    @property
    def context(self) -> Context:
        """The inside of the endpoint."""
        return self.endpoint._context

    @property
    def sessions(self) -> list[Session]:
        """All sessions that are not finished, in the order of their making."""
        routes = self.endpoint._context.routes
        established = list(routes.sessions.values())
        if not routes.pending:
            return established
        return list(dict.fromkeys((*established, *routes.pending.values())))

    @property
    def known(self) -> list[Session]:
        """All sessions, also those that are finished, in the order of their making."""
        return list(dict.fromkeys((*self.least_interval, *self.sessions)))

    def drawn_entropy(self) -> object:
        """Give what changes when the endpoint draws secret bytes."""
        return self._entropy.getstate()

    def note_chosen(self, sent: bytes) -> None:
        """Keep the session ids that this side has told its peer in carried frames."""
        if sent[1] == FrameType.INIT:
            self.chosen.add(sent[4:12])
        elif sent[1] == FrameType.RESPONSE:
            self.chosen.add(sent[12:20])

    @property
    def session_count(self) -> int:
        """How many sessions the endpoint counts against its bound."""
        return self.context.routes.per_key.total()

    def read_events(self) -> list[Event]:
        """Read the events as an application does; they tell each change of state. KA-6.3-2."""
        if self.deaf:
            return []
        events = list(iter(self.endpoint.next_event, None))
        self.heard += len(events)
        lost = self.endpoint.events_lost.total()
        if lost == self._lost:
            for event in events:
                self._hear(event)
            for session in self.sessions:
                told = self._told.get(session, State.CONNECTING)
                assert told is session.state, f"KA-6.3-2: told {told!r}, is {session.state!r}"
        else:
            self._told = {session: session.state for session in self.known}
        self._lost = lost
        return events

    def _hear(self, event: Event) -> None:
        after = STATE_TOLD.get(type(event))
        if after is None:
            return
        before = self._told.get(event.session, State.CONNECTING)
        assert after is not before, f"KA-6.3-2: told {after!r} twice"
        assert after in TRANSITIONS[before].values(), f"KA-6.3-1: {before!r} to {after!r}"
        previous = getattr(event, "previous", before)
        assert previous is before, f"KA-6.3-2: {event} came from {before!r}"
        self._told[event.session] = after


def check(side: Side, now: int) -> None:
    """Check what holds after every verb."""
    sessions = side.sessions
    for session in sessions:
        _check_timers(session, side.deadlines.get(session, {}), now)
        interval = session._liveness.interval
        assert interval >= 10 * MILLISECOND, f"KA-8.1-1: T is {interval} ns"
        side.least_interval[session] = min(interval, side.least_interval.get(session, interval))
    side.deadlines = {session: dict(session.timers._deadlines) for session in sessions}
    _check_bounds(side, len(sessions))
    side.ledger.check(sessions, now)


def check_timers_handled(side: Side, now: int, sent: list[Sent], *, was_quiet: bool) -> None:
    """Check what holds after `handle_timer`."""
    at = side.endpoint.next_timer()
    assert at is None or at > now, f"KA-8.2-3: the next timer is {now - at} ns ago"
    assert not (was_quiet and sent), "KA-5.3-1: a session that is over sends"
    assert len(sent) <= SENT_BY_TIMERS * max(1, len(side.known)), "KA-8.2-1: made up for a pause"


def check_rate(side: Side) -> None:
    """Check that no peer made a side probe faster than budget and cadences allow. KA-7.4-4."""
    for window in (SECOND, 10 * SECOND, 100 * SECOND):
        most = sum(_most_probes(side, session, window) for session in side.known)
        for first, last in zip(side.probes, side.probes[most:], strict=False):
            assert last - first >= window, f"KA-7.4-4: over {most} probes in {window} ns"
    side.ledger.check_budget()


def _most_probes(side: Side, session: Session, window: int) -> int:
    """Each handshake brings a few probes at once, each change of the control state retries."""
    intervals = window // side.least_interval[session] + 1
    handshakes = max(1, session.stats.handshakes)
    told = session._terms.control.version + handshakes
    return SUSPICION_BUDGET_MAX + 4 * handshakes + told * CONTROL_RETRIES + 6 * intervals


def _check_timers(session: Session, before: dict[Timer, int], now: int) -> None:
    """Spec: KA-7.3-1, KA-7.3-3, KA-7.4-1, KA-7.5-4, KA-7.6-1, KA-8.2-1, KA-8.7-1, KA-8.7-3,
    KA-8.10-3.
    """
    armed = session.timers._deadlines
    for timer, at in armed.items():
        assert at > now or at == before.get(timer), f"KA-8.2-3: {timer!r} is set to the past"
    if session.state is State.ADMIN_DOWN:
        assert not JUDGING & armed.keys(), f"KA-8.10-3: {session} judges while taken down"
        assert session._terms.admin.down, f"KA-8.10-2: {session} is taken down by nobody"
    elif session.state is not State.CLOSED:
        assert not session._terms.admin.down, f"KA-8.10-2: {session} is not taken down"
    if Timer.PAUSE_END in armed and session.state is not State.CLOSED:
        late = armed[Timer.PAUSE_END] > max(session._terms.pause.until, now + 1)
        assert not late, f"KA-8.7-3: {session} does not judge after the pause"
        paused = session._terms.pause.until > now  # else the timer that ends it fires at once
        assert not paused or not JUDGING & armed.keys(), f"KA-8.7-1: {session} judges in a pause"
        return
    missing = AWAKE[session.state][not session.initiator] - armed.keys()
    assert not missing, f"{session} waits for nothing: no {missing}"


def _check_bounds(side: Side, sessions: int) -> None:
    """Spec: KA-4.3-3, KA-11-2."""
    context, config, count = side.context, side.context.config, side.session_count
    assert count == sessions, "a session is counted and not reached"
    assert count <= config.max_sessions
    assert max(context.routes.per_key.values(), default=0) <= config.max_sessions_per_key
    assert len(context.routes.embryos) <= config.max_embryos
    assert len(context.outbox.events) <= config.max_events
    lingering = (context.routes._lingering, context.routes._spent_attempts)
    assert all(len(kept._entries) <= config.max_sessions for kept in lingering)
    assert sum(map(len, context.routes.connecting.values())) <= count
    assert sum(map(len, context.routes.peers.values())) <= count
    assert len(context.routes.named) <= 2 * count
