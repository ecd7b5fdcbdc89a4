"""Keys: made by `keygen`, found by the other commands, and never shown."""

import json
import stat
from pathlib import Path

import pytest

from kaudp.cli.keygen import _fresh_key
from kaudp.wire.keys import PresharedKey
from tests.cli.conftest import Call
from tests.cli.running import KEY, OTHER_KEY, one_line_error

# Any frame; with a key the INIT would be opened, without one it is shown sealed.
PROBE = "0b088100" + "00" * 60


def test_keygen_prints_a_key_that_can_be_read(call: Call) -> None:
    code, out, err = call("keygen")
    assert (code, err) == (0, "")
    assert PresharedKey.from_text(out).to_text() == out.strip()


def test_no_two_keys_are_the_same(call: Call) -> None:
    assert call("keygen")[1] != call("keygen")[1]


def test_no_key_looks_like_an_option() -> None:
    assert not any(_fresh_key().to_text().startswith("-") for _ in range(1000))


def test_keygen_gives_key_and_key_id_as_json(call: Call) -> None:
    _, out, _ = call("keygen", "--json")
    entry = json.loads(out)
    assert PresharedKey.from_text(entry["key"]).key_id.hex() == entry["key_id"]


def test_keygen_writes_a_file_for_its_owner_alone(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "kaudp.key"
    code, out, _ = call("keygen", "-o", str(file))
    assert code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = PresharedKey.from_text(file.read_text())
    assert key.key_id.hex() in out
    assert key.to_text() not in out


def test_keygen_shows_no_secret_that_went_to_a_file(call: Call, tmp_path: Path) -> None:
    _, out, _ = call("keygen", "--json", "-o", str(tmp_path / "kaudp.key"))
    assert "key" not in json.loads(out)


def test_keygen_never_overwrites(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "kaudp.key"
    file.write_text("precious")
    one_line_error(call("keygen", "-o", str(file)))
    assert file.read_text() == "precious"


def test_keygen_says_why_it_cannot_write(call: Call, tmp_path: Path) -> None:
    error = one_line_error(call("keygen", "-o", str(tmp_path / "missing" / "kaudp.key")))
    assert "No such file" in error


@pytest.mark.parametrize("command", [["serve", "0"], ["ping", "127.0.0.1:9"]])
def test_a_key_is_needed(command: list[str], call: Call) -> None:
    assert "--key-file" in one_line_error(call(*command))


@pytest.mark.parametrize("command", [["serve", "0"], ["ping", "127.0.0.1:9"], ["decode", PROBE]])
@pytest.mark.parametrize("malformed", [KEY[:-1], KEY + "A", "", "ä" * 43, KEY[:-1] + "!"])
def test_a_malformed_key_is_refused_and_not_shown(
    command: list[str], malformed: str, call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "kaudp.key"
    file.write_text(malformed)
    for error in (
        one_line_error(call(*command, f"--key={malformed}")),
        one_line_error(call(*command, "--key-file", str(file))),
    ):
        assert "43" in error
        assert not malformed or malformed not in error


def test_a_malformed_key_in_the_environment_is_refused(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAUDP_KEY", "short")
    one_line_error(call("ping", "127.0.0.1:9"))


@pytest.mark.parametrize("name", ["missing.key", "."])
def test_a_key_file_that_cannot_be_read_is_named(
    name: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert repr(name) in one_line_error(call("ping", "127.0.0.1:9", "--key-file", name))


def test_a_key_file_of_binary_data_is_refused(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "kaudp.key"
    file.write_bytes(bytes(range(256)) * 100)
    one_line_error(call("decode", PROBE, "--key-file", str(file)))


def test_only_one_key_may_be_given(call: Call, tmp_path: Path) -> None:
    one_line_error(call("ping", "127.0.0.1:9", f"--key={KEY}", "--key-file", "kaudp.key"))


def test_an_option_comes_before_the_environment(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAUDP_KEY", "not a key, and not asked")
    assert call("decode", PROBE, f"--key={OTHER_KEY}")[0] == 0
    file = tmp_path / "kaudp.key"
    file.write_text(f"{KEY}\n")
    assert call("decode", PROBE, "--key-file", str(file))[0] == 0
