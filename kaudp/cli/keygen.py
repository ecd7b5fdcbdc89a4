"""`kaudp keygen`: draw a pre-shared key."""

import os

from kaudp.cli.arguments import Arguments, Commands, UsageError, add_command
from kaudp.cli.output import Output
from kaudp.wire.keys import PresharedKey


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "keygen",
        run,
        summary="Draw a new pre-shared key; both sides of a session need the same one.",
        examples="  kaudp keygen -o kaudp.key     # readable by you alone\n"
        "  export KAUDP_KEY=$(kaudp keygen)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write to FILE (mode 0600), which must not exist"
    )


def run(arguments: Arguments, output: Output) -> int:
    """Print a new key, or write it to a file."""
    key = _fresh_key()
    key_id = key.key_id.hex()
    if arguments.output is None:
        output.say("key", key.to_text(), key=key.to_text(), key_id=key_id)
    else:
        _write(arguments.output, key)
        text = f"wrote {arguments.output}: a new key with the id {key_id}"
        output.say("key", text, key_id=key_id, file=arguments.output)
    return 0


def _fresh_key() -> PresharedKey:
    """Draw until the text does not begin with a dash, which `--key` would take for an option."""
    while (key := PresharedKey.generate()).to_text().startswith("-"):
        pass
    return key


def _write(name: str, key: PresharedKey) -> None:
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.to_text() + "\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"expected a file that can be made, got {name!r}: {reason}") from None
