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
from kaudp.events import CloseReason, Event
from kaudp.io.clock import now_ns
from kaudp.io.qlog import Qlog
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.keys import KeySource
from kaudp.wire.suites import Carried

EARLY_WAKE: Final = MILLISECOND

Transmit = Callable[[bytes, Address], object]


def production_endpoint(
    config: Config | None,
    keys: KeySource | Carried,
    accept: bool | AcceptHook = False,
    *,
    instance_id: bytes | None = None,
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
    )


class Driver:
    """Runs an endpoint over anything that can send a datagram.

    `transmit(data, addr)` sends at once or drops; a datagram on which it raises OSError is lost and
    counted in `unsent`. Feed what arrives to `receive`, call `wake` when
    `timeout` seconds have passed, read `events`. What happens is noted in each of `qlogs`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transmit: Transmit,
        *,
        clock: Callable[[], int] = now_ns,
        qlogs: Sequence[Qlog] = (),
    ) -> None:
        self.endpoint = endpoint
        self.qlogs = qlogs
        self.unsent = 0
        self._transmit = transmit
        self._read_clock = clock
        self._now = clock()

    def connect(self, addr: Address, *, key_id: bytes) -> Session:
        """Start a session and send its first INIT."""
        session = self.endpoint.connect(addr, self._clock(), key_id=key_id)
        self.flush()
        return session

    def receive(self, data: bytes, addr: Address) -> bool:
        """Take a datagram in. True: it was kaudp's. False: it is the application's."""
        before = self.endpoint.counters.copy() if self.qlogs else None
        consumed = self.endpoint.receive_datagram(data, addr, self._clock())
        if before is not None:
            refused = self.endpoint.counters - before
            for qlog in self.qlogs:
                qlog.frame_received(data, self._now, refused, consumed=consumed)
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
            for qlog in self.qlogs:
                qlog.event(event)
            yield event

    def close(self, reason: CloseReason | int = CloseReason.SHUTDOWN) -> None:
        """Close all sessions and tell their peers."""
        self.endpoint.close(self._clock(), reason)
        self.flush()

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
        for data, addr in self.endpoint.datagrams_to_send():
            for qlog in self.qlogs:
                qlog.frame_sent(data, self._now)
            try:
                self._transmit(data, addr)
            except OSError:
                self.unsent += 1
