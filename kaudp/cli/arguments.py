"""What may be typed: the parser, the types of arguments, and the error of a wrong one."""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, NoReturn

from kaudp.cli.output import Output
from kaudp.config import Config
from kaudp.errors import KaudpError
from kaudp.io.sockets import SCHEMES

EXIT_USAGE: Final = 2
PRESETS: Final[Mapping[str, Callable[..., Config]]] = {
    "lan": Config.lan,
    "wan": Config.wan,
    "mobile": Config.mobile,
    "server": Config.server,
}

_HOST_AND_PORT: Final = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[^\s:/?#@\[\]%\\]+):(?P<port>[0-9]{1,5})"
)
_PORT_ONLY: Final = re.compile(r"[0-9]{1,5}")

Arguments = argparse.Namespace
Commands = Any  # argparse names the type of `add_subparsers` only with an underscore.
Run = Callable[[Arguments, Output], int]


class UsageError(KaudpError):
    """What was typed is of no use; the message says what was expected and what was given."""


class Target(NamedTuple):
    """What is to be pinged: by udp or quic, and HOST:PORT."""

    scheme: str
    address: str

    @property
    def url(self) -> str:
        """The whole of it."""
        return f"{self.scheme}://{self.address}"

    @property
    def name(self) -> str:
        """How it is shown: UDP goes without saying."""
        return self.address if self.scheme == "udp" else self.url


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all of the command line's are."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings
        )

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`."""
        raise UsageError(f"expected arguments as in `{self.prog} --help`: {message}")


def add_command(
    commands: Commands,
    name: str,
    run: Run,
    *,
    summary: str,
    examples: str,
) -> Parser:
    """Add a command with what all commands have."""
    parser: Parser = commands.add_parser(
        name, help=summary, description=summary, epilog=f"examples:\n{examples}"
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser


def peer_target(text: str) -> Target:
    """Check [SCHEME://]HOST:PORT of a peer. Raises `UsageError`."""
    scheme, separator, address = text.rpartition("://")
    if separator and scheme not in SCHEMES:
        raise UsageError(f"expected HOST:PORT, udp://HOST:PORT or quic://HOST:PORT, got {text!r}")
    form = "[udp:// | quic://]HOST:PORT"
    return Target(scheme or "udp", _checked_address(address, form, lowest_port=1, given=text))


def local_address(text: str, *, host: str = "0.0.0.0") -> str:  # noqa: S104
    """Complete [HOST:]PORT of an own socket. Raises `UsageError`."""
    whole = f"{host}:{text}" if _PORT_ONLY.fullmatch(text) else text
    return _checked_address(whole, "[HOST:]PORT", lowest_port=0, given=text)


def loopback_address(text: str) -> str:
    """Complete [HOST:]PORT of an own socket that strangers need not reach. Raises `UsageError`."""
    return local_address(text, host="127.0.0.1")


def one_of(names: Iterable[str], what: str) -> Callable[[str], str]:
    """Make the type of names out of a list."""

    def parse(text: str) -> str:
        if text not in names:
            raise UsageError(f"expected {what} of {', '.join(names)}, got {text!r}")
        return text

    return parse


preset: Final = one_of(PRESETS, "a preset")


def number(low: float, high: float, what: str, unit: str) -> Callable[[str], float]:
    """Make the type of numbers from low to high."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise UsageError(f"expected {what} of {low:g} to {high:g} {unit}, got {text!r}")
        return value

    return parse


def whole_number(low: int, high: int, what: str) -> Callable[[str], int]:
    """Make the type of whole numbers from low to high."""

    def parse(text: str) -> int:
        value = int(text) if re.fullmatch(r"[0-9]{1,20}", text) else low - 1
        if not low <= value <= high:
            raise UsageError(f"expected {what}, {low} to {high}, got {text!r}")
        return value

    return parse


def _checked_address(text: str, form: str, *, lowest_port: int, given: str | None = None) -> str:
    match = _HOST_AND_PORT.fullmatch(text)
    if not match or not lowest_port <= int(match["port"]) <= 65535 or not _encodable(match["host"]):
        raise UsageError(
            f"expected {form} with a port of {lowest_port} to 65535 and [..] around an IPv6 "
            f"address, got {given or text!r}"
        )
    return text


def _encodable(host: str) -> bool:
    """Tell whether a name can be looked up at all: no label is empty or over 63 bytes."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True
