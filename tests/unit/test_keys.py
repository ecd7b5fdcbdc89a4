"""wire/keys: keys, key sources, and mistakes with them."""

import hashlib
from collections.abc import Callable

import pytest

from kaudp.errors import KeyFormatError
from kaudp.wire.keys import MasterKey, PresharedKey, key_lookup
from kaudp.wire.suites import Carried

KEY = PresharedKey(bytes(range(32)))


def test_text_form_survives() -> None:
    text = KEY.to_text()
    assert len(text) == 43
    assert PresharedKey.from_text(f" {text}\n") == KEY


@pytest.mark.parametrize("text", ["", "x", "A" * 42, "A" * 44, "ä" * 43, "=" * 43, "A" * 42 + "!"])
def test_malformed_text_is_one_clear_error(text: str) -> None:
    """KA-4.1-1 KA-5.2-1."""
    with pytest.raises(KeyFormatError, match="expected a key of 43 base64url characters") as error:
        PresharedKey.from_text(text)
    assert len(text) < 4 or text not in str(error.value)


def test_generated_keys_differ() -> None:
    assert PresharedKey.generate() != PresharedKey.generate()


def test_keys_compare_by_both_parts() -> None:
    other = PresharedKey(bytes(32), key_id=KEY.key_id)
    assert PresharedKey(bytes(range(32))) == KEY
    assert other != KEY
    assert len({KEY, PresharedKey(bytes(range(32)))}) == 1
    assert KEY != "text"


def test_key_sources() -> None:
    """KA-4.1-2: one key, a mapping, a callable, a master secret."""
    master = MasterKey(bytes(32))
    for source in (KEY, {KEY.key_id: KEY}, lambda key_id: KEY if key_id == KEY.key_id else None):
        assert key_lookup(source)(KEY.key_id) == KEY
        assert key_lookup(source)(bytes(16)) is None
    assert key_lookup(master)(bytes(16)) == master(bytes(16))


@pytest.mark.parametrize("source", [None, 5, "key", b"key"])
def test_a_wrong_key_source_is_one_clear_error(source: object) -> None:
    with pytest.raises(KeyFormatError, match=f"got {type(source).__name__}"):
        key_lookup(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("key_id", [b"", bytes(15), bytes(17), "text"])
def test_key_ids_are_16_bytes(key_id: object) -> None:
    with pytest.raises(KeyFormatError, match="a key id of 16 bytes"):
        PresharedKey(bytes(32), key_id=key_id)  # type: ignore[arg-type]
    with pytest.raises(KeyFormatError, match="a key id of 16 bytes"):
        MasterKey(bytes(32))(key_id)  # type: ignore[arg-type]


def test_the_default_key_id_shows_nothing_of_the_secret() -> None:
    """KA-4.1-5: the first 16 bytes of SHA-256 over a label and the secret."""
    assert KEY.key_id == hashlib.sha256(b"kaudp/1 key id" + KEY.secret).digest()[:16]
    assert repr(KEY) == f"PresharedKey(key_id={KEY.key_id.hex()})"
    assert repr(MasterKey(bytes(32))) == "MasterKey(hidden)"


def test_a_generated_key_has_32_random_bytes() -> None:
    """KA-4.1-1."""
    drawn = [PresharedKey.generate().secret for _ in range(20)]
    assert {len(secret) for secret in drawn} == {32}
    assert len(set(b"".join(drawn))) > 100


def test_keys_may_come_in_any_bytes_and_stay_as_they_were() -> None:
    """KA-4.1-1: a caller that wipes its buffer does not change the key."""
    buffer = bytearray(range(32))
    key = PresharedKey(buffer)  # type: ignore[arg-type]
    buffer[0] = 99
    assert key == PresharedKey(memoryview(bytes(range(32))))  # type: ignore[arg-type]
    assert hash(key) == hash(KEY)


def test_base64url_both_ways() -> None:
    """KA-4.1-1: the two characters that differ from base64."""
    key = PresharedKey(b"\xff\xef\xbe" * 10 + b"\xfb\xff")
    text = key.to_text()
    assert "_" in text
    assert "-" in text
    assert PresharedKey.from_text(text) == key
    with pytest.raises(KeyFormatError, match="got 45 characters"):
        PresharedKey.from_text(f"{text[:20]}!!{text[20:]}")  # not skipped over


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: PresharedKey(bytes(31)),
            "expected a pre-shared key of 32 bytes, got 31 bytes",
        ),
        (
            lambda: PresharedKey("secret"),  # type: ignore[arg-type]
            "expected a pre-shared key of 32 bytes, got a str; "
            "PresharedKey.from_text reads what `kaudp keygen` prints",
        ),
        (lambda: MasterKey(bytes(33)), "expected a master secret of 32 bytes, got 33 bytes"),
        (lambda: MasterKey(bytes(32))(b"x"), "expected a key id of 16 bytes, got 1 bytes"),
        (
            lambda: PresharedKey.from_text(" AAAA "),
            "expected a key of 43 base64url characters (32 bytes) as `kaudp keygen` prints, "
            "got 4 characters",
        ),
        (
            lambda: key_lookup(7),  # type: ignore[arg-type]
            "expected keys as a PresharedKey, a mapping of key id to PresharedKey, a callable or "
            "a MasterKey, got int",
        ),
    ],
)
def test_a_mistake_says_what_was_expected_and_what_was_given(
    make: Callable[[], object], says: str
) -> None:
    """KA-5.2-1: and never shows a secret."""
    with pytest.raises(KeyFormatError) as error:
        make()
    assert str(error.value) == says


def test_what_a_session_asks_of_a_key_and_of_a_connection() -> None:
    """KA-14.3-5 KA-14.4-4 KA-14.6-2: on UDP nothing repeats, and no answer is too late to learn."""
    assert (KEY.repeats, KEY.answer_delay, KEY.silence) == (False, 0, "")
    carried = Carried()
    assert (carried.repeats, carried.answer_delay, carried.silence) == (False, 0, "")
    assert carried.key_id == b""
    assert KEY.longest_response == carried.longest_response == (2**32 - 1) * 10**9
