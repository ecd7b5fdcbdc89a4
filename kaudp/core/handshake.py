"""The two ends of a handshake before there is a session key in use.

Spec: section 4.
"""

from typing import Final

from kaudp.core.channel import Channel
from kaudp.core.paths import Address, address_bytes
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.codec import InitPayload, Options, Parameters, ResponsePayload
from kaudp.wire.grammar import SESSION_ID_BYTES
from kaudp.wire.suites import Credential, Entropy, OpenedInit, initiate

HANDSHAKE_RETRY_INITIAL: Final = 500 * MILLISECOND
HANDSHAKE_RETRY_MAX: Final = 30 * SECOND
HANDSHAKE_LIFETIME: Final = 60 * SECOND
EMBRYO_LIFETIME: Final = 30 * SECOND
MAX_EMBRYO_ADDRESSES: Final = 4
NO_SESSION: Final = bytes(SESSION_ID_BYTES)


class Identity:
    """What an endpoint says of itself in every handshake."""

    __slots__ = ("epoch", "instance_id", "parameters")

    def __init__(self, instance_id: bytes, epoch: bytes, parameters: Parameters) -> None:
        self.instance_id = instance_id
        self.epoch = epoch
        self.parameters = parameters


class Attempt:
    """An initiator's handshake under way: the INIT it repeats and what opens the answer.

    Spec: KA-4.2-1.
    """

    __slots__ = ("_side", "init", "session_id", "started", "transmissions")

    def __init__(
        self, credential: Credential, identity: Identity, old_id: bytes, entropy: Entropy, now: int
    ) -> None:
        self.session_id = entropy(SESSION_ID_BYTES)
        self.started = now
        self.transmissions = 0
        payload = InitPayload(identity.instance_id, identity.epoch, old_id, identity.parameters)
        self._side = initiate(credential, self.session_id, payload, entropy)
        self.init = self._side.init

    def complete(self, data: bytes, now: int) -> tuple[ResponsePayload, Channel]:
        """Open a RESPONSE, or raise `Refused` and go on waiting. Spec: KA-4.3-6."""
        payload, keys = self._side.complete(data)
        return payload, Channel(self.session_id, payload.sender_session_id, keys, now)


class Embryo:
    """A responder's answered INIT, before a transport frame proves that it was wanted.

    Spec: KA-4.3-2, KA-4.3-3.
    """

    __slots__ = (
        "_addresses",
        "answered",
        "channel",
        "credential",
        "identifier",
        "payload",
        "response",
    )

    def __init__(
        self,
        opened: OpenedInit,
        identity: Identity,
        entropy: Entropy,
        address: Address,
        now: int,
    ) -> None:
        local_id = entropy(SESSION_ID_BYTES)
        seen = Options(address_seen=address_bytes(address))
        answer = ResponsePayload(
            local_id, identity.instance_id, identity.epoch, identity.parameters, seen
        )
        self.response, keys = opened.respond(answer, entropy)
        self.channel = Channel(local_id, opened.sender_session_id, keys, now)
        self.identifier = opened.data
        self.credential = opened.credential
        self.payload = opened.payload
        self.answered = now
        self._addresses = [address]

    def answer(self, address: Address) -> bytes:
        """Give the RESPONSE, and take note of where it goes."""
        if address not in self._addresses and len(self._addresses) < MAX_EMBRYO_ADDRESSES:
            self._addresses.append(address)
        return self.response

    def address_proven_by(self, source: Address) -> Address:
        """Tell where a first frame from `source` proves that RESPONSE arrived. Spec: KA-9.1-4."""
        return source if source in self._addresses else self._addresses[0]
