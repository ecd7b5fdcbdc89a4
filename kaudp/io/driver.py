"""The driver: one endpoint, one transport, one clock; for asyncio and plain sockets alike."""

import os
from collections.abc import Callable, Iterator, Sequence
from random import Random
from time import time_ns
from typing import Final

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook, Endpoint
from kaudp.core.liveness import LATE_TIMER
from kaudp.core.paths import Address
from kaudp.core.session import Session
from kaudp.core.totals import Totals
from kaudp.events import CloseReason, Event
from kaudp.io.clock import now_ns
from kaudp.io.logs import Refusals, log_event
from kaudp.io.qlog import Qlog
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.keys import KeySource
from kaudp.wire.suites import Carried, OnSecrets

EARLY_WAKE: Final = MILLISECOND

Transmit = Callable[[bytes, Address], object]


def production_endpoint(
    config: Config | None,
    keys: KeySource | Carried,
    accept: bool | AcceptHook = False,
    *,
    instance_id: bytes | None = None,
    totals: Totals | None = None,
    on_secrets: OnSecrets | None = None,
) -> Endpoint:
    """Make an endpoint that draws its randomness from the operating system."""
    return Endpoint(
        config or Config(),
        keys=keys,
        rng=Random(os.urandom(16)),
        entropy=os.urandom,
        accept=accept,
        instance_id=instance_id,
        utc_offset=time_ns() - now_ns(),
        totals=totals,
        on_secrets=on_secrets,
    )


class Driver:
    """Runs an endpoint over anything that can send a datagram.

    `transmit(data, addr)` sends at once or drops; a datagram on which it raises OSError is lost and
    counted in `unsent`; it gives False for one that it dropped and counted itself. Feed what
    arrives to `receive`, call `wake` when `timeout` seconds have passed, read `events`. What
    happens is noted in each of `qlogs`, and logged; refused datagrams by way of `refusals`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transmit: Transmit,
        *,
        clock: Callable[[], int] = now_ns,
        qlogs: Sequence[Qlog] = (),
        refusals: Refusals | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.qlogs = qlogs
        self.refusals = refusals or Refusals()
        self._transmit = transmit
        self._read_clock = clock
        self._now = clock()

    @property
    def unsent(self) -> int:
        """How many datagrams were lost on the way to the network."""
        return self.endpoint.totals.unsent.total()

    def connect(self, addr: Address, *, key_id: bytes) -> Session:
        """Start a session and send its first INIT."""
        session = self.endpoint.connect(addr, self._clock(), key_id=key_id)
        self.flush()
        return session

    def receive(self, data: bytes, addr: Address) -> bool:
        """Take a datagram in. True: it was kaudp's. False: it is the application's."""
        consumed = self.endpoint.receive_datagram(data, addr, self._clock())
        refusal = self.endpoint.refusal
        if refusal is not None:
            self.refusals.note(refusal, addr, self._now)
        for qlog in self.qlogs:
            qlog.frame_received(data, self._now, refusal, consumed=consumed)
        if consumed:
            self.flush()
        return consumed

    def wake(self) -> None:
        """Do what is due. A wake that is a little early counts as on time."""
        due = self.endpoint.next_timer()
        if due is None:
            return
        now = self._clock()
        if now < due <= now + EARLY_WAKE:
            self._now = due
        self.endpoint.handle_timer(self._now)
        self.flush()

    def late(self) -> bool:
        """Tell whether a timer is so late that the socket should be read first. KA-7.7-4."""
        due = self.endpoint.next_timer()
        return due is not None and self._clock() - due > LATE_TIMER

    def timeout(self) -> float | None:
        """Tell in how many seconds `wake` is due; None: never."""
        due = self.endpoint.next_timer()
        return None if due is None else max(0, due - self._clock()) / SECOND

    def events(self) -> Iterator[Event]:
        """Take the events that wait."""
        while event := self.endpoint.next_event():
            self.note(event)
            yield event

    def note(self, event: Event) -> None:
        """Note an event in the qlogs and the log."""
        log_event(event)
        for qlog in self.qlogs:
            qlog.event(event)

    def close(self, reason: CloseReason | int = CloseReason.SHUTDOWN) -> None:
        """Close all sessions and tell their peers."""
        self.endpoint.close(self._clock(), reason)
        self.flush()
        self.refusals.flush()

    def act(self, verb: Callable[[int], object]) -> None:
        """Do something that takes `now`, such as `lambda now: session.pause(duration, now)`."""
        verb(self._clock())
        self.flush()

    @property
    def now(self) -> int:
        """The time last given to the core, in ns."""
        return self._now

    def _clock(self) -> int:
        """Read the clock; never before what was given to the core."""
        self._now = max(self._now, self._read_clock())
        return self._now

    def flush(self) -> None:
        """Hand to the transport what the endpoint has to send. KA-8.3-4."""
        totals = self.endpoint.totals
        for data, addr in self.endpoint.datagrams_to_send():
            for qlog in self.qlogs:
                qlog.frame_sent(data, self._now)
            try:
                dropped = self._transmit(data, addr) is False
            except OSError as error:
                totals.unsent[type(error).__name__] += 1
            else:
                totals.sent += not dropped
