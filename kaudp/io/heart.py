"""An endpoint in an asyncio loop, whatever carries its datagrams; and what users hold of it."""

import asyncio
import contextlib
import select
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol, TypeVar

from kaudp.core.outbox import EventQueue
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.core.stats import Stats
from kaudp.core.totals import Tally, Totals
from kaudp.errors import DropReason
from kaudp.events import CloseReason, ConnectFailed, Event, QuicMode, SessionClosed, State
from kaudp.io.driver import Driver
from kaudp.io.sockets import READ_BATCH
from kaudp.units import SECOND
from kaudp.wire.keys import PresharedKey

CLOSE_TIMEOUT_S: Final = 2.0

EventCallback = Callable[[Event], object]


class Announcer:
    """Hands events to a callback, or keeps them for `events()`."""

    def __init__(self, on_event: EventCallback | None, max_events: int, totals: Totals) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._totals = totals
        self._events = EventQueue(max_events, totals.events_lost)
        self._news = asyncio.Event()
        self._closed = False
        self._ended = False

    @property
    def closed(self) -> bool:
        """Whether `close` is done."""
        return self._closed

    async def events(self) -> AsyncIterator[Event]:
        """Give the events as they come, to the end of the last session or of the endpoint."""
        while not self._ended:
            while event := self._events.take():
                self._ended = self._is_last(event)
                yield event
            if self._closed or self._ended:
                return
            self._news.clear()
            await self._news.wait()

    def _is_last(self, event: Event) -> bool:
        return False

    def _tell(self, event: Event) -> None:
        """Tell the application; its mistakes are the loop's to report and stop no heart."""
        if self._on_event is None:
            self._events.emit(event)
            self._news.set()
            return
        try:
            self._on_event(event)
        except Exception as error:
            message = "kaudp: exception in the application's on_event"
            self._loop.call_exception_handler({"message": message, "exception": error})


class Pollable(Protocol):
    """What may be asked whether something waits to be read."""

    def fileno(self) -> int:
        """Give the descriptor."""


class SessionVerbs:
    """What may be done to one of several sessions."""

    def close_session(
        self, session: Session, reason: CloseReason | int = CloseReason.NORMAL
    ) -> None:
        """End one session and tell its peer."""
        self.act_on(session, lambda now: session.close(now, reason))

    def pause_session(self, session: Session, seconds: float) -> None:
        """Ask one peer to expect nothing for a while; 0 ends a pause."""
        self.act_on(session, lambda now: session.pause(int(seconds * SECOND), now))

    def change_session_intervals(
        self,
        session: Session,
        *,
        interval_ms: int | None = None,
        min_receive_interval_ms: int | None = None,
    ) -> None:
        """Probe one peer, or allow it to probe, at another interval; see `IntervalChanged`."""
        self.act_on(
            session,
            lambda now: session.change_intervals(
                now, interval_ms=interval_ms, min_receive_interval_ms=min_receive_interval_ms
            ),
        )

    def slow_session_down(self, session: Session, min_receive_interval_ms: int) -> None:
        """Ask one initiator to probe no more often than this."""
        self.act_on(session, lambda now: session.slow_down(min_receive_interval_ms, now))

    def take_session_down(self, session: Session) -> None:
        """Take one session down, as an operator does: nobody is judged meanwhile."""
        self.act_on(session, session.admin_down)

    def take_session_up(self, session: Session) -> None:
        """Take one session up again."""
        self.act_on(session, session.admin_up)

    def change_session_key(self, session: Session, key: PresharedKey) -> None:
        """Go over to another pre-shared key without a gap; see `KeyChanged`. Over UDP only."""
        self.act_on(session, lambda now: session.change_key(key.key_id, now))

    def act_on(self, session: Session, verb: Callable[[int], object]) -> None:
        """Do something to a session that takes `now`, in ns."""
        raise NotImplementedError


class Heart(Announcer, SessionVerbs):
    """An endpoint in a loop. Everything that happens ends in `_settle`: send, tell, re-arm."""

    def __init__(self, driver: Driver, on_event: EventCallback | None, max_events: int) -> None:
        super().__init__(on_event, max_events, driver.endpoint.totals)
        self._driver = driver
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._timer_due: int | None = None
        self._deferrals = 0

    @property
    def counters(self) -> Counter[DropReason]:
        """Datagrams refused, by reason. Spec: section 12."""
        return self._totals.refused

    @property
    def unsent(self) -> Counter[str]:
        """Datagrams that the transport dropped, by its reason."""
        return self._totals.unsent

    def tally(self) -> Tally:
        """Count the sessions by state, and give a copy of the totals."""
        return self._driver.endpoint.tally()

    def states(self) -> list[State]:
        """Give the state of each session, of those still connecting too."""
        return self._driver.endpoint.states()

    @property
    def sessions(self) -> list[Session]:
        """The sessions that are established."""
        return self._driver.endpoint.sessions

    def act_on(self, session: Session, verb: Callable[[int], object]) -> None:
        """Do something to a session that takes `now`, in ns."""
        self._act(verb)

    def _act(self, verb: Callable[[int], object]) -> None:
        self._driver.act(verb)
        self._settle()

    def _settle(self) -> None:
        """Tell the events and re-arm the timer; what there was to send is sent."""
        for event in self._driver.events():
            self._notice(event)
            self._tell(event)
        self._news.set()
        self._rearm()

    def _rearm(self) -> None:
        """Set the loop's timer to the endpoint's next, unless it is set so already."""
        due = None if self._closed else self._driver.endpoint.next_timer()
        if self._timer is not None:
            if due == self._timer_due:
                return
            self._timer.cancel()
            self._timer = None
        self._timer_due = due
        delay = self._driver.timeout()
        if due is not None and delay is not None:
            self._timer = self._loop.call_later(delay, self._wake)

    def _notice(self, event: Event) -> None:
        """Let a kind of heart do something of its own about an event."""

    def _wake(self) -> None:
        """Run the timers; when late, let the loop read what waits first. Spec: KA-7.7-4."""
        if self._deferrals < READ_BATCH and self._driver.late() and self._readable():
            self._deferrals += 1
            self._timer, self._timer_due = self._loop.call_soon(self._wake), None
            return
        self._timer = None
        self._deferrals = 0
        self._driver.wake()
        self._settle()

    def _readable(self) -> bool:
        waits_in = self._read_from()
        if waits_in is None or waits_in.fileno() < 0 or not hasattr(select, "poll"):
            return False
        poller = select.poll()
        poller.register(waits_in, select.POLLIN)
        return bool(poller.poll(0))

    def _read_from(self) -> Pollable | None:
        """Give the socket that feeds this heart."""
        return None

    async def _shut(self, reason: CloseReason | int) -> None:
        """Close all sessions, tell the peers, and wait until they know or cannot be told."""
        if self._closed:
            return
        self._driver.close(reason)
        self._settle()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    while not self._driver.endpoint.quiet:
                        self._news.clear()
                        await self._news.wait()
        finally:
            self._closed = True
            self._settle()
            self._release()

    def _release(self) -> None:
        """Let go of what this heart holds."""


class Connection(Heart):
    """A heart of one session; made by `connect`."""

    _session: Session | None = None

    @property
    def session(self) -> Session:
        """The core's session."""
        assert self._session is not None, "a Connection is entered before it is used"  # noqa: S101
        return self._session

    @property
    def state(self) -> State:
        """The present state."""
        return self.session.state

    @property
    def stats(self) -> Stats:
        """What was measured so far."""
        return self.session.stats

    @property
    def address(self) -> Address:
        """Where the peer is."""
        return self.session.address

    @property
    def own_address(self) -> tuple[str, int] | None:
        """Our (host, port) as the peer sees it, None while it has not told; never by PING."""
        return self.session.own_address

    @property
    def mode(self) -> QuicMode | None:
        """How heartbeats travel inside QUIC; None over UDP, and while it is not known."""
        return None

    def pause(self, seconds: float) -> None:
        """Ask the peer to expect nothing for a while; 0 ends a pause."""
        self.pause_session(self.session, seconds)

    def change_intervals(
        self, *, interval_ms: int | None = None, min_receive_interval_ms: int | None = None
    ) -> None:
        """Probe, or allow to be probed, at another interval; see `IntervalChanged`."""
        self.change_session_intervals(
            self.session,
            interval_ms=interval_ms,
            min_receive_interval_ms=min_receive_interval_ms,
        )

    def admin_down(self) -> None:
        """Take the session down, as an operator does: nobody is judged meanwhile."""
        self.take_session_down(self.session)

    def admin_up(self) -> None:
        """Take the session up again."""
        self.take_session_up(self.session)

    def change_key(self, key: PresharedKey) -> None:
        """Go over to another pre-shared key without a gap; see `KeyChanged`. Over UDP only."""
        self.change_session_key(self.session, key)

    async def close(self, reason: CloseReason | int = CloseReason.NORMAL) -> None:
        """End the session, tell the peer, let go of what carried it."""
        await self._shut(reason)

    def _is_last(self, event: Event) -> bool:
        return isinstance(event, SessionClosed | ConnectFailed)


class Server(SessionVerbs, ABC):
    """What accepts sessions; made by `serve`."""

    @property
    @abstractmethod
    def sessions(self) -> list[Session]:
        """The sessions that are established."""

    @property
    @abstractmethod
    def counters(self) -> Counter[DropReason]:
        """Datagrams refused, by reason. Spec: section 12."""

    @property
    @abstractmethod
    def address(self) -> Any:  # noqa: ANN401
        """The socket address that the server is bound to."""

    @abstractmethod
    def tally(self) -> Tally:
        """Count the sessions by state, and give a copy of the totals."""

    @abstractmethod
    def events(self) -> AsyncIterator[Event]:
        """Give the events as they come, to the end of the server."""

    @abstractmethod
    async def close(self, reason: CloseReason | int = CloseReason.SHUTDOWN) -> None:
        """Close all sessions, tell their peers, close the socket."""


class Opening(Protocol):
    """What `opened` enters and leaves."""

    def _open(self) -> Awaitable[None]: ...

    def close(self) -> Awaitable[None]:
        """Close it."""


Opened = TypeVar("Opened", bound=Opening)


def opened(make: Callable[[], Opened]) -> AbstractAsyncContextManager[Opened]:
    """Make something in a running loop, open it, and close it at the end."""

    @contextlib.asynccontextmanager
    async def entered() -> AsyncIterator[Opened]:
        made = make()
        await made._open()
        try:
            yield made
        finally:
            await made.close()

    return entered()
