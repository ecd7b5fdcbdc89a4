"""What must hold after every verb of an endpoint, whatever its peer and its application do.

It looks into private parts of the core where the public ones do not tell, and never changes them.
"""

from collections import deque
from dataclasses import fields
from enum import Enum
from itertools import chain
from typing import Any, Final

from kaudp import Endpoint, Session, State
from kaudp.config import Config
from kaudp.core.handshake import EMBRYO_LIFETIME
from kaudp.core.paths import Address
from kaudp.core.session import Context
from kaudp.core.states import TRANSITIONS
from kaudp.core.suspicion import SUSPICION_BUDGET_MAX
from kaudp.core.timers import Timer
from kaudp.core.totals import Totals
from kaudp.events import (
    ConnectFailed,
    Event,
    SessionClosed,
    SessionDown,
    SessionHalfOpen,
    SessionSuspect,
    SessionUp,
)
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.grammar import SUITE_CARRIED, FrameType

Sent = list[tuple[bytes, Address]]

CARRIED_RESPONSE: Final = bytes([FrameType.RESPONSE, SUITE_CARRIED])
ADDRESS_SEEN_BYTES: Final = 2 + 19
ANSWERS: Final = {FrameType.RESPONSE, FrameType.REPLY}
# Each kind of timer fires once per session at most; the third suspicion probe adds an INIT.
SENT_BY_TIMERS: Final = len(Timer) + 1
# From one PTO to one T, ever twice as far apart: 10 ms to 71 minutes.
PAUSE_RETRIES: Final = 20

STATE_TOLD: Final[dict[type[Event], State]] = {
    SessionUp: State.UP,
    SessionSuspect: State.SUSPECT,
    SessionHalfOpen: State.HALF_OPEN,
    SessionDown: State.DOWN,
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
    State.CLOSED: ({Timer.CLOSING}, {Timer.CLOSING}),
}


class Side:
    """An endpoint and what its application has been told."""

    def __init__(self, name: str, address: Address, endpoint: Endpoint) -> None:
        self.name = name
        self.address = address
        self.endpoint = endpoint
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
        routes = self.context.routes
        return list(dict.fromkeys(chain(routes.sessions.values(), routes.pending.values())))

    @property
    def known(self) -> list[Session]:
        """All sessions, also those that are finished, in the order of their making."""
        return list(dict.fromkeys((*self.least_interval, *self.sessions)))

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
        self._lost = lost
        self._told = {session: session.state for session in self.known}
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


class Reception:
    """One datagram at one side: the side before it, to be compared with the side after it."""

    def __init__(
        self, side: Side, data: bytes, source: Address, now: int, *, authentic: bool
    ) -> None:
        self._side = side
        self._data = data
        self._source = source
        self._now = now
        # What somebody sealed is nearly always taken, and then there is nothing to compare.
        self._before = None if authentic else _frozen_side(side, now)
        self._refused = side.endpoint.counters.copy()
        self._session = side.context.routes.sessions.get(data[4:12])
        self._closing = self._session is not None and self._session.state is State.CLOSED
        self._worn_out = self._session is not None and _worn_out(self._session)

    @property
    def refused(self) -> str:
        """Name the reason for which the datagram was refused, "" if it was accepted."""
        counted = self._side.endpoint.counters - self._refused
        return "".join(reason.value for reason in counted)

    def check(self, consumed: bool, sent: Sent) -> None:
        """Spec: KA-2-3, KA-2-4, KA-2-5."""
        if self._before is not None:
            assert not consumed, "KA-2-3: took what nobody sealed"
            after = _frozen_side(self._side, self._now)
            changed = [name for name in after if after[name] != self._before[name]]
            assert not changed, f"KA-2-4: what did not verify changed {changed}"
        if not consumed:
            assert not sent, "KA-2-4: sent on account of what did not verify"
        elif self.refused:
            assert not sent, "KA-2-5: answered what it refused"
        else:
            self._check_answers(sent)

    def _check_answers(self, sent: Sent) -> None:
        """Spec: KA-4.3-1, KA-8.3-1, KA-8.3-2, KA-8.3-3, KA-9.1-2."""
        answers = [item for item in sent if item[0][1] in ANSWERS]
        worn_out = self._session is not None and _worn_out(self._session)
        # One that has just used up its packet numbers may have had one left for the answer or not.
        due = {0, self._answers_due()} if worn_out else {self._answers_due()}
        assert len(answers) in due, f"KA-8.3-1: {len(answers)} answers"
        # A REPLY or RESPONSE, and one probe: to ask for the own address, or the first of a session;
        # a challenge to each address; and CLOSE when one of those took the last packet number.
        counted = [item for item in sent if item[0][1] != FrameType.CLOSE]
        validates = self._session is not None and self._session._path.validation is not None
        assert len(counted) <= (4 if validates else 2), f"{len(counted)} datagrams for one"
        for answer, address in answers:
            assert address == self._source, f"KA-8.3-2: answered to {address}"
            told = ADDRESS_SEEN_BYTES if answer[1:4:2] == CARRIED_RESPONSE else 0
            most = len(self._data) + told
            assert len(answer) <= most, "KA-8.3-3: an answer longer than its request"
            if answer[1] == FrameType.RESPONSE:
                assert answer[4:12] == self._data[4:12], "KA-4.3-1: answers another INIT"
        homes = {session.address for session in self._side.known}
        paths = [session._path.validation for session in self._side.known]
        homes |= {validation.address for validation in paths if validation is not None}
        for _, address in (item for item in sent if item not in answers):
            assert address in homes, f"KA-9.1-2: sent to {address}, which is no session's"

    def _answers_due(self) -> int:
        """Tell how many answers an accepted frame is to get. Spec: KA-4.4-3, KA-6.4-2."""
        session = self._session
        closed = session is not None and session.state is State.CLOSED
        if self._worn_out or (closed and self._data[1] == FrameType.PROBE):
            # The answer may have taken the last packet number, and so have closed the session.
            return int(not self._worn_out and session is not None and _worn_out(session))
        if self._closing:
            return int(self._data[1] == FrameType.CLOSE)
        return int(self._data[1] in (FrameType.INIT, FrameType.PROBE, FrameType.CLOSE))


def _worn_out(session: Session) -> bool:
    """Tell whether a session may send nothing but CLOSE."""
    return session._channel is not None and session._channel.exhausted


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


def check_timers_handled(side: Side, now: int, sent: Sent, *, was_quiet: bool) -> None:
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


def _most_probes(side: Side, session: Session, window: int) -> int:
    """Each handshake brings a new budget and a few probes at once, each own pause some retries."""
    intervals = window // side.least_interval[session] + 1
    handshakes = max(1, session.stats.handshakes)
    pauses = session._terms.control.version
    return handshakes * (SUSPICION_BUDGET_MAX + 4) + pauses * PAUSE_RETRIES + 6 * intervals


def _check_timers(session: Session, before: dict[Timer, int], now: int) -> None:
    """Spec: KA-7.3-1, KA-7.3-3, KA-7.4-1, KA-7.5-4, KA-7.6-1, KA-8.2-1, KA-8.7-1, KA-8.7-3."""
    armed = session.timers._deadlines
    for timer, at in armed.items():
        assert at > now or at == before.get(timer), f"KA-8.2-3: {timer!r} is set to the past"
    if Timer.PAUSE_END in armed and session.state is not State.CLOSED:
        assert not JUDGING & armed.keys(), f"KA-8.7-1: {session} judges in a pause"
        return
    missing = AWAKE[session.state][not session.initiator] - armed.keys()
    assert not missing, f"{session} waits for nothing: no {missing}"


def _check_bounds(side: Side, sessions: int) -> None:
    """Spec: KA-4.3-3, KA-11-2."""
    context, config = side.context, side.context.config
    assert side.session_count == sessions, "a session is counted and not reached"
    assert side.session_count <= config.max_sessions
    assert max(context.routes.per_key.values(), default=0) <= config.max_sessions_per_key
    assert len(context.routes.embryos) <= config.max_embryos
    assert len(context.outbox.events) <= config.max_events


# Everything that a session or an embryo remembers, as values that can be compared.


def _frozen_side(side: Side, now: int) -> dict[str, Any]:
    """Leave out what may change without a verified tag: refusals, and what has expired."""
    context = side.context
    embryos = context.routes.embryos.values()
    totals = side.endpoint.totals
    counted = [each.name for each in fields(totals) if each.name != "refused"]
    return {
        "sessions": _frozen(side.sessions),
        "embryos": _frozen([e for e in embryos if e.answered > now - EMBRYO_LIFETIME]),
        "events": side.heard + len(context.outbox.events),
        "next_timer": side.endpoint.next_timer(),
        "totals": [_frozen(getattr(totals, name)) for name in counted],
        "entropy": context.rng.getstate(),
    }


def _frozen(value: Any) -> Any:
    if value is None or isinstance(value, int | str | bytes | Enum):
        return value
    if isinstance(value, dict):
        return tuple((_frozen(key), _frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple | set | deque):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, Context | Config | Totals) or not type(value).__module__.startswith(
        "kaudp."
    ):
        return id(value)
    return tuple((name, _frozen(getattr(value, name))) for name in _attributes(value))


def _attributes(value: Any) -> list[str]:
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return slots + list(getattr(value, "__dict__", ()))
