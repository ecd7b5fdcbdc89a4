"""A key log: the secrets of sessions, written only where somebody asks for them.

Whoever reads it can open and forge the frames of these sessions. It is for looking into a capture
with `kaudp decode --keylog`.
"""

import contextlib
import os
import re
import stat
from typing import Final, Self

from kaudp.errors import ConfigError
from kaudp.io.logs import LOGGER

LABEL: Final = "KAUDP_TRAFFIC_SECRET"
OWNER_ONLY: Final = 0o600
_OTHERS: Final = 0o077
_LINE: Final = re.compile(rf"{LABEL} ([0-9a-f]{{16}}) ([0-9a-f]{{64}})")


class KeylogFile:
    """A key log file, to be closed or used in a `with`; `attach` and `Endpoint` take it.

    A line for each direction of each handshake: the receiver session id that its frames bear, and
    its secret, from which the traffic keys of all phases follow. Lines are appended; the file is
    made with mode 0600, and one that others may read or write is refused. What cannot be written
    later, as on a full disk, is counted in `lost`: a log stops no heart. Raises `ConfigError`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.lost = 0
        name = os.fspath(path)
        try:
            # Unbuffered, so that what cannot be written is known at once.
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, OWNER_ONLY)
        except OSError as error:
            raise ConfigError(
                f"expected a key log file that can be written, got {name!r}: {error.strerror}"
            ) from None
        self._file = open(descriptor, "ab", buffering=0)  # noqa: SIM115, PTH123
        mode = os.fstat(descriptor).st_mode
        if os.name == "posix" and stat.S_ISREG(mode) and mode & _OTHERS:
            self._file.close()
            raise ConfigError(
                f"expected a key log file of mode 0600, for its owner alone, got {name!r} of mode "
                f"{stat.S_IMODE(mode):04o}"
            )
        LOGGER.warning("the secrets of sessions are written to the key log %r", name)

    def __call__(self, receiver_session_id: bytes, secret: bytes) -> None:
        """Note the secret of one direction."""
        if self._file.closed:
            return
        line = f"{LABEL} {receiver_session_id.hex()} {secret.hex()}\n".encode()
        try:
            whole = self._file.write(line) == len(line)
        except OSError:
            whole = False
        if not whole:
            self.lost += 1
            if self.lost == 1:
                LOGGER.warning("a line of the key log could not be written; more may be lost")

    def close(self) -> None:
        """Close the file; what comes after is not noted."""
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse_line(line: str) -> tuple[bytes, bytes] | None:
    """Give (receiver session id, secret) of a line of a key log; None for any other line."""
    match = _LINE.fullmatch(line)
    return (bytes.fromhex(match[1]), bytes.fromhex(match[2])) if match else None
