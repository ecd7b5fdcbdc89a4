"""The handshakes that one session begins, one after the other: retries, cookies, names.

Times in ns. Spec: sections 4.2 and 4.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaudp.core import cadence
from kaudp.core.context import Context
from kaudp.core.handshake import (
    HANDSHAKE_RETRY_INITIAL,
    HANDSHAKE_RETRY_MAX,
    NO_SESSION,
    Attempt,
)
from kaudp.core.paths import Address
from kaudp.core.timers import Timer, TimerTable
from kaudp.errors import DropReason, Refused
from kaudp.wire.codec import NO_OPTIONS, InitPayload, Options, Parameters
from kaudp.wire.cookies import NO_COOKIE
from kaudp.wire.suites import Credential

if TYPE_CHECKING:
    from kaudp.core.session import Session


class Initiation:
    """What an initiator knows of its handshakes."""

    __slots__ = ("_context", "_cookie", "_renew", "_retry", "_timers", "attempt", "confirmed_id")

    def __init__(self, context: Context, timers: TimerTable) -> None:
        self.attempt: Attempt | None = None
        self.confirmed_id = NO_SESSION
        self._context = context
        self._timers = timers
        self._retry = HANDSHAKE_RETRY_INITIAL
        self._cookie = NO_COOKIE
        self._renew = False

    def begin(
        self,
        session: Session,
        credential: Credential,
        old_id: bytes,
        parameters: Parameters,
        now: int,
    ) -> None:
        """Start a handshake that names the session so far. Spec: KA-4.2-1, KA-7.4-5."""
        self.drop(now)
        context, identity = self._context, self._context.identity
        clock_us = identity.clock_us(now)
        options = NO_OPTIONS if clock_us is None else Options(clock_us=clock_us)
        told = InitPayload(identity.instance_id, identity.epoch, old_id, parameters, options)
        attempt = Attempt(context, credential, told, self._cookie, now)
        self.attempt = attempt
        self._renew = False
        context.routes.pending[attempt.session_id] = session
        self._transmit(attempt, session.address, now, now)

    def drop(self, now: int) -> None:
        """Give the handshake under way up, if there is one."""
        if self.attempt is not None:
            self._context.routes.spend(self.attempt, now)
            self.attempt = None
        self._timers.disarm(Timer.HANDSHAKE)

    def retry(self, address: Address, lifetime: int, planned: int, now: int) -> bool:
        """Send INIT again; False: it is time for a new handshake. Spec: KA-4.2-1, KA-4.2-2."""
        attempt = self.attempt
        if attempt is None:
            return False
        self.slow_down()
        if self._renew or now - attempt.started > lifetime:
            return False
        self._transmit(attempt, address, planned, now)
        return True

    def put_off(self, now: int) -> None:
        """Wait before the next handshake: the last was to no avail. Spec: KA-7.4-5."""
        self.slow_down()
        step = cadence.jittered(self._retry, 2, self._context.draw())
        self._timers.arm(Timer.HANDSHAKE, now + step)

    def slow_down(self) -> None:
        """Double the spacing of retries. Spec: KA-4.2-2."""
        self._retry = min(2 * self._retry, HANDSHAKE_RETRY_MAX)

    def worked(self, remote_id: bytes) -> bool:
        """Take note that the peer hears us under these keys; tell whether that is new."""
        self._retry = HANDSHAKE_RETRY_INITIAL
        if self.confirmed_id == remote_id:
            return False
        self.confirmed_id = remote_id
        return True

    def restart(self) -> None:
        """Begin anew with the schedule, as for another configuration."""
        self._retry = HANDSHAKE_RETRY_INITIAL

    def take_cookie(self, data: bytes) -> bool:
        """Keep the cookie of a COOKIE; tell whether to use it at once. KA-4.5-5. Raises `Refused`.

        Only for the first: nobody can make an initiator spin.
        """
        attempt = self.attempt
        if attempt is None:
            raise Refused(DropReason.UNEXPECTED)
        self._cookie = attempt.open_cookie(data)
        self._renew = True
        return attempt.cookie == NO_COOKIE

    def forget_cookie(self) -> None:
        """Spec: KA-4.5-6."""
        self._cookie = NO_COOKIE

    def _transmit(self, attempt: Attempt, address: Address, planned: int, now: int) -> None:
        attempt.transmissions += 1
        self._context.outbox.send(attempt.init, address)
        step = cadence.jittered(self._retry, 2, self._context.draw())
        self._timers.arm(Timer.HANDSHAKE, cadence.rearmed(planned, step, now))
