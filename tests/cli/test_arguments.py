"""What may be typed, and the one line that answers what may not."""

import os
import subprocess
from importlib.metadata import entry_points

import pytest

from kaudp.cli import main
from kaudp.cli.arguments import PRESETS
from kaudp.config import Config
from tests.cli.conftest import Call
from tests.cli.running import COMMAND, KEY, TIMEOUT_S, environment, one_line_error

COMMANDS = ("keygen", "serve", "ping", "decode", "demo", "simulate")
MISTAKES = {
    "no command": [],
    "unknown command": ["pong"],
    "unknown option": ["ping", "127.0.0.1:9", "--loud"],
    "no address": ["ping"],
    "no port": ["ping", "localhost"],
    "port 0 of a peer": ["ping", "localhost:0"],
    "port too great": ["ping", "localhost:65536"],
    "port in words": ["serve", "localhost:kaudp"],
    "port of 6 digits": ["serve", "123456"],
    "bare IPv6 address": ["ping", "::1:4711"],
    "empty host": ["serve", ":4711"],
    "empty label": ["ping", "a..b:4711"],
    "an unknown URL": ["ping", "https://localhost:4711"],
    "a URL of an own address": ["serve", "udp://localhost:4711"],
    "unknown preset": ["ping", "localhost:4711", "--preset", "moon"],
    "interval of zero": ["ping", "localhost:4711", "-i", "0"],
    "interval that is no number": ["ping", "localhost:4711", "-i", "nan"],
    "count of zero": ["ping", "localhost:4711", "-c", "0"],
    "count that is no number": ["ping", "localhost:4711", "-c", "many"],
    "negative deadline": ["ping", "localhost:4711", "-w", "-1"],
    "limit of zero": ["serve", "4711", "--max-sessions", "0"],
    "demo too short": ["demo", "--seconds", "1"],
    "demo too long": ["demo", "--seconds", "41"],
    "loss of everything": ["demo", "--loss", "100"],
    "seed in words": ["demo", "--seed", "luck"],
    "traffic key too short": ["decode", "00", "--traffic-key", "00"],
    "traffic key that is no hex": ["decode", "00", "--traffic-key", "z" * 64],
    "unknown host": ["ping", "nobody.invalid:4711", f"--key={KEY}"],
    "unknown local host": ["serve", "nobody.invalid:4711", f"--key={KEY}"],
    "foreign local address": ["serve", "192.0.2.1:4711", f"--key={KEY}"],
    "unreachable address": ["ping", "255.255.255.255:4711", f"--key={KEY}"],
    "odd digits": ["decode", "0b0"],
    "missing file": ["decode", "/nowhere/frames.txt"],
    "a directory": ["decode", "/"],
    "a name with a zero byte": ["decode", "a\0b"],
}


@pytest.mark.parametrize("arguments", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_by_one_line(arguments: list[str], call: Call) -> None:
    one_line_error(call(*arguments))


def test_a_mistake_shows_no_traceback_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [*COMMAND, "ping", "x"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=TIMEOUT_S,
    )
    one_line_error((done.returncode, done.stdout, done.stderr))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_by_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert f"examples:\n  kaudp {command}" in text or "| kaudp" in text


def test_version_names_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("kaudp ")


def test_every_preset_of_config_can_be_named() -> None:
    made = {name for name in vars(Config) if isinstance(vars(Config)[name], classmethod)}
    assert set(PRESETS) == made


def test_the_console_script_is_main_where_kaudp_is_installed() -> None:
    for script in entry_points(group="console_scripts", name="kaudp"):
        assert script.load() is main


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, "keygen"], stdout=full, stderr=subprocess.PIPE, text=True, env=environment()
        )
    assert done.returncode == 2
    assert done.stderr.startswith("kaudp: error: expected")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "keygen"], stdout=writing, stderr=subprocess.PIPE, text=True, env=environment()
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
