"""The two ends of a handshake before there is a session key in use.

Spec: section 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kaudp.core.channel import Channel
from kaudp.core.paths import Address, address_bytes
from kaudp.units import MICROSECOND, MILLISECOND, SECOND
from kaudp.wire.codec import InitPayload, Options, Parameters, ResponsePayload
from kaudp.wire.grammar import SESSION_ID_BYTES
from kaudp.wire.suites import Credential, OnSecrets, OpenedInit, initiate

if TYPE_CHECKING:
    from kaudp.core.context import Context
    from kaudp.core.session import Session

HANDSHAKE_RETRY_INITIAL: Final = 500 * MILLISECOND
HANDSHAKE_RETRY_MAX: Final = 30 * SECOND
HANDSHAKE_LIFETIME: Final = 60 * SECOND
EMBRYO_LIFETIME: Final = 30 * SECOND
KEY_CHANGE_TIMEOUT: Final = 60 * SECOND
MAX_EMBRYO_ADDRESSES: Final = 4
NO_SESSION: Final = bytes(SESSION_ID_BYTES)


class Identity:
    """What an endpoint says of itself in every handshake.

    `utc_offset` leads from the core's time to that of day, in ns; None: it is not told.
    """

    __slots__ = ("epoch", "instance_id", "utc_offset")

    def __init__(self, instance_id: bytes, epoch: bytes, utc_offset: int | None) -> None:
        self.instance_id = instance_id
        self.epoch = epoch
        self.utc_offset = utc_offset

    def clock_us(self, now: int) -> int | None:
        """Tell the content of CLOCK for a `sent_time` that counts from now. Spec: KA-10.3-2."""
        return None if self.utc_offset is None else (now + self.utc_offset) // MICROSECOND

    def precedes(self, epoch: bytes) -> bool:
        """Tell which of two initiators that met responds: the lower epoch. Spec: KA-4.6-1."""
        return self.epoch < epoch


class Attempt:
    """An initiator's handshake under way: the INIT it repeats and what opens the answer.

    Spec: KA-4.2-1.
    """

    __slots__ = (
        "_context",
        "_side",
        "cookie",
        "credential",
        "session_id",
        "started",
        "told",
        "transmissions",
    )

    def __init__(
        self,
        context: Context,
        credential: Credential,
        told: InitPayload,
        cookie: bytes,
        now: int,
    ) -> None:
        self.credential = credential
        self.told = told
        self.session_id = context.entropy(SESSION_ID_BYTES)
        self.started = now
        self.transmissions = 0
        self.cookie = cookie
        self._context = context
        self._side = initiate(credential, self.session_id, told, context.entropy, cookie)

    @property
    def init(self) -> bytes:
        """The INIT."""
        return self._side.init

    def open_cookie(self, data: bytes) -> bytes:
        """Open a COOKIE that answers this INIT, or raise `Refused`. Spec: KA-4.5-5."""
        return self._side.open_cookie(data)

    def complete(
        self, data: bytes, on_secrets: OnSecrets | None = None
    ) -> tuple[ResponsePayload, Channel]:
        """Open a RESPONSE, or raise `Refused` and go on waiting. Spec: KA-4.3-6."""
        payload, keys = self._side.complete(data, on_secrets)
        channel = Channel(
            self.session_id, payload.sender_session_id, keys, self.started, self._context.limits
        )
        return payload, channel


class Embryo:
    """A responder's answered INIT, before a transport frame proves that it was wanted.

    `continues` is the session that the INIT named. `admitted` tells that it may become a session of
    its own, not only continue one that was known.
    Spec: KA-4.3-2, KA-4.3-3.
    """

    __slots__ = (
        "_addresses",
        "admitted",
        "answered",
        "channel",
        "continues",
        "credential",
        "identifier",
        "payload",
        "response",
        "told",
    )

    def __init__(
        self,
        opened: OpenedInit,
        context: Context,
        parameters: Parameters,
        address: Address,
        now: int,
        *,
        continues: Session | None,
        admitted: bool,
    ) -> None:
        identity = context.identity
        local_id = context.entropy(SESSION_ID_BYTES)
        options = Options(
            address_seen=address_bytes(address),
            clock_us=None if opened.payload.options.clock_us is None else identity.clock_us(now),
        )
        self.told = ResponsePayload(
            local_id, identity.instance_id, identity.epoch, parameters, options
        )
        self.response, keys = opened.respond(self.told, context.entropy, context.on_secrets)
        self.channel = Channel(local_id, opened.sender_session_id, keys, now, context.limits)
        self.identifier = opened.data
        self.credential = opened.credential
        self.payload = opened.payload
        self.answered = now
        self.admitted = admitted
        self.continues = continues
        self._addresses = [address]

    def answer(self, address: Address) -> bytes:
        """Give the RESPONSE, and take note of where it goes."""
        if address not in self._addresses and len(self._addresses) < MAX_EMBRYO_ADDRESSES:
            self._addresses.append(address)
        return self.response

    def precedes_restart(self, later: Embryo) -> bool:
        """Tell whether the peer has restarted between this and a later embryo. Spec: KA-4.3-9."""
        before, after = self.payload, later.payload
        same = self.credential == later.credential and before.instance_id == after.instance_id
        return same and before.epoch != after.epoch

    def address_proven_by(self, source: Address) -> Address:
        """Tell where a first frame from `source` proves that RESPONSE arrived. Spec: KA-9.1-4."""
        return source if source in self._addresses else self._addresses[0]
