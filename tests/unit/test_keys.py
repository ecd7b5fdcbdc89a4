"""wire/keys: keys, key sources, and mistakes with them."""

import pytest

from kaudp.errors import KeyFormatError
from kaudp.wire.keys import MasterKey, PresharedKey, key_lookup

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
