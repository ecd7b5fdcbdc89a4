"""wire/noise against PyPI's `noiseprotocol`, an implementation that knows nothing of kaudp."""

import warnings
from random import Random

import pytest

from kaudp.errors import DropReason, Refused
from kaudp.wire.noise import PROTOCOL_NAME, Initiator, Responder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from noise.connection import Keypair, NoiseConnection

RNG = Random(1)
PSK, PROLOGUE = RNG.randbytes(32), RNG.randbytes(44)


def theirs(role: str, ephemeral: bytes) -> "NoiseConnection":
    connection = NoiseConnection.from_name(PROTOCOL_NAME)
    connection.set_psks(psk=PSK)
    connection.set_prologue(PROLOGUE)
    connection.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
    getattr(connection, f"set_as_{role}")()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the fixed ephemeral key that a test needs
        connection.start_handshake()
    return connection


def theirs_secrets(connection: "NoiseConnection", *, initiator: bool) -> tuple[bytes, bytes]:
    protocol = connection.noise_protocol
    outward = protocol.cipher_state_encrypt.k
    homeward = protocol.cipher_state_decrypt.k
    return (outward, homeward) if initiator else (homeward, outward)


@pytest.mark.parametrize("seed", range(20))
def test_as_initiator(seed: int) -> None:
    """KA-4.2-6: our message 1 is read, their message 2 is read, the secrets agree."""
    rng = Random(seed)
    payloads = rng.randbytes(rng.randrange(80)), rng.randbytes(rng.randrange(80))
    ours, peer = Initiator(PSK, PROLOGUE, rng.randbytes(32)), theirs("responder", rng.randbytes(32))
    assert bytes(peer.read_message(ours.write_message_1(payloads[0]))) == payloads[0]
    message = bytes(peer.write_message(payloads[1]))
    plaintext, secrets = ours.read_message_2(message[:32], message[32:])
    assert plaintext == payloads[1]
    assert secrets == theirs_secrets(peer, initiator=False)


@pytest.mark.parametrize("seed", range(20))
def test_as_responder(seed: int) -> None:
    """KA-4.2-6: their message 1 is read, our message 2 is read, the secrets agree."""
    rng = Random(seed)
    payloads = rng.randbytes(rng.randrange(80)), rng.randbytes(rng.randrange(80))
    ours, peer = Responder(PSK, PROLOGUE), theirs("initiator", rng.randbytes(32))
    message = bytes(peer.write_message(payloads[0]))
    assert ours.read_message_1(message[:32], message[32:]) == payloads[0]
    ephemeral, sealed = ours.write_message_2(rng.randbytes(32), payloads[1])
    assert bytes(peer.read_message(ephemeral + sealed)) == payloads[1]
    assert ours.split() == theirs_secrets(peer, initiator=True)


def test_a_failed_message_2_leaves_the_initiator_waiting() -> None:
    """KA-4.3-6."""
    ours, peer = Initiator(PSK, PROLOGUE, bytes(32)), Responder(PSK, PROLOGUE)
    message = ours.write_message_1(b"one")
    peer.read_message_1(message[:32], message[32:])
    ephemeral, sealed = peer.write_message_2(RNG.randbytes(32), b"two")
    for damaged in ((ephemeral, bytes(len(sealed))), (bytes(32), sealed), (sealed[:32], sealed)):
        with pytest.raises(Refused) as refused:
            ours.read_message_2(*damaged)
        assert refused.value.reason is DropReason.BAD_TAG
    assert ours.read_message_2(ephemeral, sealed)[0] == b"two"


LOW_ORDER = bytes(32)


def test_a_low_order_key_is_refused_by_each_side_in_its_way() -> None:
    """KA-4.3-7: X25519 gives all zeros; a responder's INIT has verified, so it is consumed."""
    waiting = Initiator(PSK, PROLOGUE, bytes(range(32)))
    waiting.write_message_1(b"")
    with pytest.raises(Refused) as refused:
        waiting.read_message_2(LOW_ORDER, bytes(16))
    assert (refused.value.reason, refused.value.consumed) == (DropReason.BAD_TAG, False)
    assert str(refused.value) == "bad_tag: low-order ephemeral key"
    peer = theirs("initiator", bytes(range(32)))
    message = bytes(peer.write_message(b"one"))
    answering = Responder(PSK, PROLOGUE)
    answering.read_message_1(message[:32], message[32:])
    answering._peer_ephemeral = LOW_ORDER
    with pytest.raises(Refused) as refused:
        answering.write_message_2(bytes(range(32)), b"two")
    assert (refused.value.reason, refused.value.consumed) == (DropReason.MALFORMED, True)
    assert str(refused.value) == "malformed: low-order ephemeral key"


def test_secrets_are_hidden_and_differ_by_direction() -> None:
    """KA-5.2-1 KA-4.3-1."""
    ours, peer = Initiator(PSK, PROLOGUE, bytes(range(32))), Responder(PSK, PROLOGUE)
    message = ours.write_message_1(b"")
    assert peer.read_message_1(message[:32], message[32:]) == b""
    ephemeral, sealed = peer.write_message_2(bytes(range(1, 33)), b"")
    _, secrets = ours.read_message_2(ephemeral, sealed)
    assert secrets == peer.split()
    assert len({*secrets}) == 2
    assert [len(secret) for secret in secrets] == [32, 32]
    assert repr(secrets) == str(secrets) == "Secrets(hidden)"


def test_a_forged_message_1_is_a_bad_tag() -> None:
    """KA-4.2-4 KA-2-3."""
    message = Initiator(PSK, PROLOGUE, bytes(range(32))).write_message_1(b"one")
    for key, prologue, data in (
        (bytes(32), PROLOGUE, message),
        (PSK, PROLOGUE[:-1], message),
        (PSK, PROLOGUE, message[:-1] + b"\0"),
    ):
        with pytest.raises(Refused) as refused:
            Responder(key, prologue).read_message_1(data[:32], data[32:])
        assert (refused.value.reason, refused.value.consumed) == (DropReason.BAD_TAG, False)
