"""The two ends of a handshake before there is a session key in use.

Spec: section 4.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from kaudp.core.channel import Channel
from kaudp.core.paths import Address, address_bytes
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire import codec
from kaudp.wire.codec import InitHeader, InitPayload, Options, Parameters, ResponsePayload
from kaudp.wire.grammar import SESSION_ID_BYTES, FrameType
from kaudp.wire.keys import PresharedKey
from kaudp.wire.noise import Initiator, Responder
from kaudp.wire.seal import session_keys

HANDSHAKE_RETRY_INITIAL: Final = 500 * MILLISECOND
HANDSHAKE_RETRY_MAX: Final = 30 * SECOND
HANDSHAKE_LIFETIME: Final = 60 * SECOND
EMBRYO_LIFETIME: Final = 30 * SECOND
MAX_EMBRYO_ADDRESSES: Final = 4
NO_SESSION: Final = bytes(SESSION_ID_BYTES)

Entropy = Callable[[int], bytes]


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

    __slots__ = ("_noise", "init", "session_id", "started", "transmissions")

    def __init__(
        self, psk: PresharedKey, identity: Identity, old_id: bytes, entropy: Entropy, now: int
    ) -> None:
        self.session_id = entropy(SESSION_ID_BYTES)
        self.started = now
        self.transmissions = 0
        payload = InitPayload(identity.instance_id, identity.epoch, old_id, identity.parameters)
        prologue = codec.build_init_prologue(self.session_id, psk.key_id)
        self._noise = Initiator(psk.secret, prologue, entropy(32))
        message = self._noise.write_message_1(codec.build_init_payload(payload))
        self.init = prologue + message

    def complete(self, data: bytes, now: int) -> tuple[ResponsePayload, Channel]:
        """Open a RESPONSE, or raise `Refused` and go on waiting. Spec: KA-4.3-6."""
        header = codec.parse_response_header(data)
        sealed = codec.sealed_payload_of(FrameType.RESPONSE, data)
        plaintext, secrets = self._noise.read_message_2(header.ephemeral, sealed)
        payload = codec.parse_response_payload(plaintext)
        keys = session_keys(secrets, initiator=True)
        return payload, Channel(self.session_id, payload.sender_session_id, keys, now)


class Embryo:
    """A responder's answered INIT, before a transport frame proves that it was wanted.

    Spec: KA-4.3-2, KA-4.3-3.
    """

    __slots__ = ("_addresses", "answered", "channel", "identifier", "payload", "psk", "response")

    def __init__(
        self,
        opened: "OpenedInit",
        identity: Identity,
        entropy: Entropy,
        address: Address,
        now: int,
    ) -> None:
        header, noise = opened.header, opened.noise
        local_id = entropy(SESSION_ID_BYTES)
        answer = ResponsePayload(
            local_id, identity.instance_id, identity.epoch, identity.parameters
        )
        seen = Options(address_seen=address_bytes(address))
        plaintext = codec.build_response_payload(answer._replace(options=seen))
        ephemeral, sealed = noise.write_message_2(entropy(32), plaintext)
        self.response = codec.build_response(header.sender_session_id, ephemeral, sealed)
        keys = session_keys(noise.split(), initiator=False)
        self.channel = Channel(local_id, header.sender_session_id, keys, now)
        self.identifier = opened.data
        self.psk = opened.psk
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


class OpenedInit(NamedTuple):
    """An INIT whose tag has verified."""

    psk: PresharedKey
    data: bytes
    header: InitHeader
    payload: InitPayload
    noise: Responder


def open_init(psk: PresharedKey, data: bytes) -> OpenedInit:
    """Verify an INIT by hashing alone, or raise `Refused`. Spec: KA-4.2-4."""
    header = codec.parse_init_header(data)
    noise = Responder(psk.secret, data[: codec.INIT_PROLOGUE_BYTES])
    plaintext = noise.read_message_1(
        header.ephemeral, codec.sealed_payload_of(FrameType.INIT, data)
    )
    return OpenedInit(psk, data, header, codec.parse_init_payload(plaintext), noise)
