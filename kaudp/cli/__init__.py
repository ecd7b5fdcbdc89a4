"""The command line: `kaudp keygen | serve | ping | decode | demo | simulate`.

Every mistake of the user ends in one line on stderr and exit code 2.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Final

import kaudp
from kaudp.cli import decode, demo, keygen, ping, serve, simulate
from kaudp.cli.arguments import EXIT_USAGE, Parser
from kaudp.cli.output import Output
from kaudp.errors import KaudpError

# What a shell shows for a process that SIGPIPE or SIGINT ended.
EXIT_BROKEN_PIPE: Final = 141
EXIT_INTERRUPTED: Final = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    _tolerate_narrow_encodings()
    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.run(arguments, Output(as_json=arguments.json))
    except KaudpError as error:
        print(f"kaudp: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        _discard_stdout()
        print(f"kaudp: error: expected input and output to work, got: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="kaudp",
        description="Authenticated heartbeats for UDP and QUIC: try them, serve them, read them.",
        epilog="see what it does, with nothing to set up:\n  kaudp demo",
    )
    parser.add_argument("--version", action="version", version=f"kaudp {kaudp.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (keygen, serve, ping, decode, demo, simulate):
        command.add_to(commands)
    return parser


def _tolerate_narrow_encodings() -> None:
    """Let a stdout that cannot write a character show a question mark instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _discard_stdout() -> None:
    """Keep the interpreter from complaining of the broken pipe when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
