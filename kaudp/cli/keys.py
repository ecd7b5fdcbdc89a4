"""Where a command finds its pre-shared key. The secret itself is never printed."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kaudp.cli.arguments import Arguments, Parser, UsageError
from kaudp.errors import KeyFormatError
from kaudp.io import keylog
from kaudp.wire.keys import PresharedKey

VARIABLE: Final = "KAUDP_KEY"
# Far more than any key file holds; keeps a wrong name such as /dev/zero from filling the memory.
_MAX_FILE_BYTES: Final = 4096


def add_options(parser: Parser) -> None:
    """Add --key-file and --key."""
    options = parser.add_argument_group("key", f"one of these, or the variable {VARIABLE}")
    either = options.add_mutually_exclusive_group()
    either.add_argument(
        "--key-file", metavar="FILE", help="a file that `kaudp keygen -o FILE` wrote (preferred)"
    )
    either.add_argument(
        "--key", metavar="TEXT", help="the key itself; other users of this machine can see it"
    )


def add_keylog_option(parser: Parser) -> None:
    """Add --keylog to a command that has sessions."""
    parser.add_argument(
        "--keylog",
        metavar="FILE",
        help="append the secrets of the sessions over UDP to FILE, for `kaudp decode --keylog`; "
        "whoever reads it can read and forge their frames",
    )


def logged_secrets(name: str | None) -> Mapping[bytes, Sequence[bytes]]:
    """Read a key log: secrets by receiver session id. Raises `UsageError`."""
    secrets: defaultdict[bytes, list[bytes]] = defaultdict(list)
    if name is None:
        return secrets
    try:
        with Path(name).open(encoding="ascii", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not line.startswith("#"):
                    session_id, secret = _logged(line, f"line {number} of {name!r}")
                    secrets[session_id].append(secret)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"expected a readable key log, got {name!r}: {reason}") from None
    return secrets


def _logged(line: str, where: str) -> tuple[bytes, bytes]:
    """Read a line, which is never shown: it may hold a secret."""
    parsed = keylog.parse_line(line.rstrip())
    if parsed is None:
        raise UsageError(
            f"expected {keylog.LABEL}, a session id of 16 and a secret of 64 hexadecimal digits, "
            f"got something else in {where}"
        )
    return parsed


def required_key(arguments: Arguments) -> PresharedKey:
    """Give the key, or raise `UsageError` or `KeyFormatError`."""
    key = optional_key(arguments)
    if key is None:
        raise UsageError(
            f"expected a key by --key-file, --key or {VARIABLE}, got none; "
            "`kaudp keygen -o FILE` makes one"
        )
    return key


def optional_key(arguments: Arguments) -> PresharedKey | None:
    """Give the key if there is one, or raise `UsageError` or `KeyFormatError`."""
    if arguments.key_file is not None:
        return _key(_content(arguments.key_file), f"the file {arguments.key_file!r}")
    if arguments.key is not None:
        return _key(arguments.key, "--key")
    text = os.environ.get(VARIABLE)
    return _key(text, VARIABLE) if text else None


def _key(text: str, source: str) -> PresharedKey:
    try:
        return PresharedKey.from_text(text)
    except KeyFormatError as error:
        raise KeyFormatError(f"{error} in {source}") from None


def _content(name: str) -> str:
    try:
        with Path(name).open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode("ascii", errors="replace")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"expected a readable key file, got {name!r}: {reason}") from None
