"""How a session's frames are protected: by Noise under a pre-shared key, or by what carries them.

Each suite knows how the two sides of a handshake are written and what seals the frames after it;
the core runs both alike. Spec: sections 4 and 14.1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from kaudp.errors import DropReason, Refused
from kaudp.units import MAX_UINT32, SECOND
from kaudp.wire import codec
from kaudp.wire.codec import InitPayload, ResponsePayload, TransportHeader
from kaudp.wire.cookies import NO_COOKIE, open_cookie, seal_cookie
from kaudp.wire.grammar import COOKIE_NONCE_BYTES, FrameType
from kaudp.wire.keys import PresharedKey
from kaudp.wire.noise import Initiator, Responder, Secrets
from kaudp.wire.seal import FrameKeys, PhaseLimits, session_keys

EPHEMERAL_SECRET_BYTES: Final = 32

Entropy = Callable[[int], bytes]
OnSecrets = Callable[[bytes, bytes], object]


@dataclass(slots=True)
class Carried:
    """Stands for a key where a QUIC connection has authenticated the peer. Spec: section 14.

    `repeats` tells that the carrier now in use sends again what is lost: no loss is reported
    then. A response later than `longest_response` has waited in the carrier; `answer_delay` is how
    long the peer may keep one back. Times in ns. `silence` is what `ConnectFailed` says of it.
    Spec: KA-14.3-5, KA-14.4-4, KA-14.6-2, KA-14.8-2.
    """

    validates_path: ClassVar[bool] = True
    repeats: bool = False
    silence: str = ""
    longest_response: int = MAX_UINT32 * SECOND
    answer_delay: int = 0
    key_id: bytes = b""


Credential = PresharedKey | Carried
CredentialLookup = Callable[[bytes], Credential | None]


class Initiation(Protocol):
    """The initiator's side of a handshake: the INIT it sends, and what reads the answer."""

    init: bytes

    def open_cookie(self, data: bytes) -> bytes:
        """Give the cookie that a COOKIE brings, or raise `Refused`."""

    def complete(
        self, data: bytes, on_secrets: OnSecrets | None
    ) -> tuple[ResponsePayload, FrameKeys]:
        """Read a RESPONSE, or raise `Refused` and stay as it was."""


class OpenedInit(Protocol):
    """An INIT that was verified, byte for byte and as what it says, and what answers it."""

    data: bytes
    credential: Credential
    sender_session_id: bytes
    payload: InitPayload

    def respond(
        self, answer: ResponsePayload, entropy: Entropy, on_secrets: OnSecrets | None
    ) -> tuple[bytes, FrameKeys]:
        """Write the RESPONSE. Raises `Refused`."""


def initiate(
    credential: Credential,
    session_id: bytes,
    payload: InitPayload,
    entropy: Entropy,
    cookie: bytes = NO_COOKIE,
) -> Initiation:
    """Begin a handshake."""
    if isinstance(credential, Carried):
        return CarriedInitiation(session_id, payload)
    return NoiseInitiation(credential, session_id, payload, entropy, cookie)


def open_init(credential: Credential, data: bytes) -> OpenedInit:
    """Verify an INIT, or raise `Refused`; by hashing alone where there is a key. KA-4.2-4."""
    if isinstance(credential, Carried):
        return OpenedCarriedInit(credential, data)
    return OpenedNoiseInit(credential, data)


class NoiseInitiation:
    """Noise's messages in INIT and RESPONSE, from the initiator's side. Spec: 4.2, 4.3."""

    __slots__ = ("_psk", "init", "noise")

    def __init__(
        self,
        psk: PresharedKey,
        session_id: bytes,
        payload: InitPayload,
        entropy: Entropy,
        cookie: bytes,
    ) -> None:
        self._psk = psk
        prologue = codec.build_init_prologue(session_id, psk.key_id, cookie)
        self.noise = Initiator(psk.secret, prologue, entropy(EPHEMERAL_SECRET_BYTES))
        self.init = prologue + self.noise.write_message_1(codec.build_init_payload(payload))

    def open_cookie(self, data: bytes) -> bytes:
        """Give the cookie that a COOKIE brings, or raise `Refused`. Spec: KA-4.5-5."""
        return open_cookie(self._psk.secret, self.init, data)

    def complete(
        self, data: bytes, on_secrets: OnSecrets | None
    ) -> tuple[ResponsePayload, FrameKeys]:
        """Open RESPONSE, or raise `Refused`. Spec: KA-4.3-6."""
        header = codec.parse_response_header(data)
        sealed = codec.sealed_payload_of(FrameType.RESPONSE, data)
        plaintext, secrets = self.noise.read_message_2(header.ephemeral, sealed)
        payload = codec.parse_response_payload(plaintext)
        if on_secrets is not None:
            _tell(on_secrets, secrets, header.receiver_session_id, payload.sender_session_id)
        return payload, session_keys(secrets, initiator=True)


class OpenedNoiseInit:
    """An INIT whose Noise tag has verified. Spec: KA-4.2-4."""

    __slots__ = ("_psk", "cookie", "credential", "data", "noise", "payload", "sender_session_id")

    def __init__(self, psk: PresharedKey, data: bytes) -> None:
        header = codec.parse_init_header(data)
        self._psk = psk
        self.cookie = header.cookie
        self.noise = Responder(psk.secret, data[: codec.INIT_PROLOGUE_BYTES])
        sealed = codec.sealed_payload_of(FrameType.INIT, data)
        plaintext = self.noise.read_message_1(header.ephemeral, sealed)
        self.credential: Credential = psk
        self.data = data
        self.sender_session_id = header.sender_session_id
        self.payload = codec.parse_init_payload(plaintext)

    def ask_for_cookie(self, cookie: bytes, entropy: Entropy) -> bytes:
        """Write the COOKIE that brings the initiator this cookie. Spec: KA-4.5-4."""
        nonce = entropy(COOKIE_NONCE_BYTES)
        return seal_cookie(self._psk.secret, self.data, self.sender_session_id, nonce, cookie)

    def respond(
        self, answer: ResponsePayload, entropy: Entropy, on_secrets: OnSecrets | None
    ) -> tuple[bytes, FrameKeys]:
        """Seal the RESPONSE, or raise `Refused`. Spec: KA-4.3-7."""
        plaintext = codec.build_response_payload(answer)
        message = self.noise.write_message_2(entropy(EPHEMERAL_SECRET_BYTES), plaintext)
        response = codec.build_response(self.sender_session_id, *message)
        secrets = self.noise.split()
        if on_secrets is not None:
            _tell(on_secrets, secrets, self.sender_session_id, answer.sender_session_id)
        return response, session_keys(secrets, initiator=False)


def _tell(on_secrets: OnSecrets, secrets: Secrets, initiator: bytes, responder: bytes) -> None:
    """Tell the secret of each direction under the session id that its frames bear."""
    on_secrets(responder, secrets.initiator_to_responder)
    on_secrets(initiator, secrets.responder_to_initiator)


class NoKeys:
    """Frames in clear: the connection around them protects them. Spec: KA-14.1-1."""

    steady_frame_bytes = codec.CARRIED_FRAME_BYTES
    flags_known = 0
    phase = 0

    def flags(self, now: int, limits: PhaseLimits) -> int:
        """Give the flags of a frame: there are none."""
        return 0

    def seal(self, header: bytes, packet_number: int, body: bytes) -> bytes:
        """Give a whole transport frame."""
        return header + body

    def unseal(self, header: TransportHeader, data: bytes, now: int) -> bytes:
        """Give the body of a transport frame."""
        return data[codec.TRANSPORT_HEADER_BYTES :]


NO_KEYS: Final = NoKeys()


class CarriedInitiation:
    """An exchange of parameters in clear, from the initiator's side. Spec: section 14.1."""

    __slots__ = ("init",)

    def __init__(self, session_id: bytes, payload: InitPayload) -> None:
        plaintext = codec.build_init_payload(payload)
        self.init = codec.build_carried(FrameType.INIT, session_id, plaintext)

    def open_cookie(self, data: bytes) -> bytes:
        """Refuse: QUIC has validated the address."""
        raise Refused(DropReason.NOT_KAUDP, "no cookies inside QUIC")

    def complete(
        self, data: bytes, on_secrets: OnSecrets | None
    ) -> tuple[ResponsePayload, FrameKeys]:
        """Read RESPONSE, or raise `Refused`."""
        _, plaintext = codec.parse_carried(data)
        return codec.parse_response_payload(plaintext), NO_KEYS


class OpenedCarriedInit:
    """An INIT that a QUIC connection carried. Spec: section 14.1."""

    __slots__ = ("credential", "data", "payload", "sender_session_id")

    def __init__(self, credential: Carried, data: bytes) -> None:
        self.credential: Credential = credential
        self.data = data
        self.sender_session_id, self.payload = codec.parse_carried_init(data)

    def respond(
        self, answer: ResponsePayload, entropy: Entropy, on_secrets: OnSecrets | None
    ) -> tuple[bytes, FrameKeys]:
        """Write the RESPONSE."""
        plaintext = codec.build_response_payload(answer)
        return codec.build_carried(FrameType.RESPONSE, self.sender_session_id, plaintext), NO_KEYS
