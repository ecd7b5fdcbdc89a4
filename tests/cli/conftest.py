"""Running the command line: in this process, or as a user does, in another one."""

import json
import os
import pty
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kaudp.cli import main

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "kaudp"]
TIMEOUT_S = 20.0
KEY = "0LTuNHwMeKpr_Yksr5U6bajLKySN8GQarB-Bgjl8T2U"
OTHER_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def environment(**changes):
    kept = {name: value for name, value in os.environ.items() if name not in ("KAUDP_KEY", "NO_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **changes}


class Process:
    """A `kaudp` that runs; its output is read line by line as it comes."""

    def __init__(self, *arguments, **changes):
        self._child = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**changes),
        )
        self.out = []
        self.err = ""
        self._fresh = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)
        ]
        for reader in self._readers:
            reader.start()

    def wait_for(self, pattern):
        """Wait for a line that matches; give the match."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                line = self._fresh.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no line like {pattern!r} in {self.out} {self.err}")
            if match := re.search(pattern, line):
                return match

    def send(self, number):
        self._child.send_signal(number)

    def finish(self, number=None):
        """Send a signal if there is one, wait for the end, give the exit code."""
        if number is not None:
            self.send(number)
        code = self._child.wait(TIMEOUT_S)
        for reader in self._readers:
            reader.join(TIMEOUT_S)
        assert "Traceback" not in self.err
        return code

    def stop(self):
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait(TIMEOUT_S)
        for reader in self._readers:
            reader.join(TIMEOUT_S)
        self._child.stdout.close()
        self._child.stderr.close()

    @property
    def text(self):
        return "\n".join(self.out)

    @property
    def objects(self):
        return [json.loads(line) for line in self.out]

    def _read_out(self):
        for line in self._child.stdout:
            self.out.append(line.rstrip("\n"))
            self._fresh.put(line)

    def _read_err(self):
        self.err = self._child.stderr.read()


@pytest.fixture
def start():
    """Start a `kaudp` that is ended with the test."""
    running = []

    def begin(*arguments, **changes):
        process = Process(*arguments, **changes)
        running.append(process)
        return process

    yield begin
    for process in running:
        process.stop()


@pytest.fixture
def serving(start):
    """Start `kaudp serve` on a free port; give the process and its address."""

    def begin(*options, address="127.0.0.1:0", key=KEY):
        process = start("serve", address, *options, KAUDP_KEY=key)
        if "--json" in options:
            return process, process.wait_for(r'"address": "(\S+)"')[1]
        return process, process.wait_for(r"listening on (\S+),")[1]

    return begin


@pytest.fixture
def call(capsys, monkeypatch):
    """Run a command in this process; give exit code, stdout and stderr."""
    monkeypatch.delenv("KAUDP_KEY", raising=False)

    def run(*arguments):
        code = main(arguments)
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def on_terminal():
    """Run a command whose stdout is a terminal; give exit code and what it showed."""

    def run(*arguments, **changes):
        master, slave = pty.openpty()
        child = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            env=environment(COLUMNS="100", LINES="40", **changes),
        )
        os.close(slave)
        shown = b""
        # The end of the last process on a terminal shows as an error of the read.
        try:
            while part := os.read(master, 65536):
                shown += part
        except OSError:
            pass
        os.close(master)
        return child.wait(TIMEOUT_S), shown.decode()

    return run


def one_line_error(code, out, err):
    """Assert that a command ended as it must for a mistake of the user; give the message."""
    assert code == 2
    assert out == ""
    assert re.fullmatch(r"kaudp: error: expected [^\n]+\n", err), err
    return err


INTERRUPT = signal.SIGINT
TERMINATE = signal.SIGTERM
