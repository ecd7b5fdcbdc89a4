"""Where a command finds its pre-shared key. The secret itself is never printed."""

import os
from pathlib import Path
from typing import Final

from kaudp.cli.arguments import Arguments, Parser, UsageError
from kaudp.errors import KeyFormatError
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
