"""The processes of a scenario: `peer.py` in a namespace, its lines written into the record."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from tests.system.record import Record
from tests.system.topology import Namespace

ROOT = Path(__file__).resolve().parents[2]
PEER = Path(__file__).with_name("peer.py")
STOP_TIMEOUT_S = 8


class Actor:
    """One running peer; what it prints goes into the record under its name."""

    def __init__(self, who: str, namespace: Namespace, record: Record, *arguments: str) -> None:
        self.who = who
        self._record = record
        # Warnings are errors: a socket or a task that kaudp forgets shows up in the record.
        command = namespace.command(sys.executable, "-W", "error", str(PEER), *arguments)
        # A session of its own: Ctrl-C reaches only the run, which then ends its peers in order.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, harmless to a process that has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, without a word to its peer."""
        self.send(signal.SIGKILL)
        self._finish()

    def stop(self) -> None:
        """Let it close its sessions and end."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._record.add(self.who, "Output", line=f"did not stop in {STOP_TIMEOUT_S} s")
            self.send(signal.SIGKILL)
        self._finish()

    def _finish(self) -> None:
        self._process.wait()
        self._reader.join(STOP_TIMEOUT_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._note(line.rstrip())
        self._record.add(self.who, "Exit", code=self._process.wait())

    def _note(self, line: str) -> None:
        try:
            told = json.loads(line)
            kind, at = told.pop("kind"), told.pop("time")
        except (ValueError, AttributeError, KeyError, TypeError):
            self._record.add(self.who, "Output", line=line)
            return
        self._record.add(self.who, kind, at, **told)
