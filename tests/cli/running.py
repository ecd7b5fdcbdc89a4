"""Runs the command line in another process, as a user does, and reads what it says."""

import json
import os
import pty
import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "kaudp"]
TIMEOUT_S = 20.0
KEY = "0LTuNHwMeKpr_Yksr5U6bajLKySN8GQarB-Bgjl8T2U"
OTHER_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would change the command line's ways."""
    unwanted = ("KAUDP_KEY", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **changes}


class Process:
    """A `kaudp` that runs; its output is read line by line as it comes."""

    def __init__(self, *arguments: str, **changes: str) -> None:
        self.out: list[str] = []
        self.err = ""
        self._child = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**changes),
        )
        self._fresh: queue.Queue[str] = queue.Queue()
        self._readers = [threading.Thread(target=read) for read in (self._read_out, self._read_err)]
        for reader in self._readers:
            reader.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for the next line that matches."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                line = self._fresh.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(
                    f"no line like {pattern!r} in {self.out}, {self.err}"
                ) from None
            if match := re.search(pattern, line):
                return match

    def wait_for_end(self, seconds: float) -> None:
        """Wait longer than `finish` does."""
        self._child.wait(seconds)

    def finish(self, signal: int | None = None) -> int:
        """Send a signal if one is given, wait for the end, give the exit code."""
        if signal is not None:
            self._child.send_signal(signal)
        code = self._child.wait(TIMEOUT_S)
        self._join()
        assert "Traceback" not in self.err
        return code

    def stop(self) -> None:
        """End it by force if it still runs."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(TIMEOUT_S)
        self._join()

    @property
    def text(self) -> str:
        return "\n".join(self.out)

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The lines of --json."""
        return [json.loads(line) for line in self.out]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.objects if entry["type"] == kind]

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(TIMEOUT_S)

    def _read_out(self) -> None:
        with self._child.stdout:
            for line in self._child.stdout:
                self.out.append(line.rstrip("\n"))
                self._fresh.put(line)

    def _read_err(self) -> None:
        with self._child.stderr:
            self.err = self._child.stderr.read()


def run_on_terminal(*arguments: str, **changes: str) -> tuple[int, str]:
    """Run a command whose stdout is a terminal; give the exit code and what it showed."""
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
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:
        # The terminal's last user is gone.
        pass
    os.close(master)
    return child.wait(TIMEOUT_S), shown.decode()


def one_line_error(result: tuple[int, str, str]) -> str:
    """Assert that a command ended as it must at a mistake of the user; give the message."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert re.fullmatch(r"kaudp: error: expected [^\n]+\n", err), err
    return err
