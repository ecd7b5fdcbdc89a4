"""`kaudp decode`: show frames field by field, from hexadecimal text or a capture."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.cli import keys
from kaudp.cli.arguments import Arguments, Commands, UsageError, add_command
from kaudp.cli.capture import Datagram, is_capture, read_capture
from kaudp.cli.carried import dissect_carried
from kaudp.cli.dissection import Dissection, OpeningKeys, dissect
from kaudp.cli.frame_view import frame_facts, frame_text
from kaudp.cli.output import Output
from kaudp.cli.wording import amount

EXIT_INVALID: Final = 1
STDIN: Final = "-"
TRAFFIC_KEY_BYTES: Final = 32
_SHOWN_CHARACTERS: Final = 40
# 43 characters, and what is left of them when one was lost or doubled.
_KEY_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{42,44}")

Dissector = Callable[[bytes], Dissection]


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "decode",
        run,
        summary="Show kaudp frames field by field and say what is wrong with an invalid one.",
        examples="  kaudp decode 0b0881005e5510a1b2c3d4e500000000000000075c848cd7c282b63c6c7d7cc7"
        "0c12cd90b226f8cbb7cc384763c3ec1d6d3ec64ee36923b15f03ed57eadfcc0f\n"
        "  kaudp decode capture.pcapng --key-file kaudp.key --keylog secrets\n"
        "  tcpdump -w - udp port 4711 | kaudp decode -",
    )
    parser.add_argument(
        "input",
        metavar="HEX | FILE | -",
        nargs="?",
        help="one datagram in hexadecimal; or a file (-: stdin) that is a pcap or pcapng "
        "capture, or holds one datagram in hexadecimal per line",
    )
    parser.add_argument(
        "--traffic-key",
        metavar="HEX",
        type=_traffic_key,
        action="append",
        default=[],
        help="open PROBE, REPLY and CLOSE with this key of 32 bytes; may be given once for "
        "each direction",
    )
    parser.add_argument(
        "--keylog",
        metavar="FILE",
        help="open PROBE, REPLY and CLOSE of the sessions whose secrets are in FILE, as "
        "`kaudp serve --keylog` and `kaudp ping --keylog` write it",
    )
    parser.add_argument(
        "--carried",
        action="store_true",
        help="read frames that a QUIC connection carried, in clear, a context id before them or "
        "not; not in captures, which hold them encrypted",
    )
    keys.add_options(parser)


def run(arguments: Arguments, output: Output) -> int:
    """Decode everything; 1 if some frame was invalid."""
    tally = _Tally(output, _dissector(arguments))
    source = _source(arguments.input)
    data = _hexadecimal(source)
    if data is not None:
        tally.take(Datagram(data), in_capture=False)
    else:
        _run_over_file(source, tally, carried=arguments.carried)
    return EXIT_INVALID if tally.invalid else 0


def _dissector(arguments: Arguments) -> Dissector:
    logged = keys.logged_secrets(arguments.keylog)
    opening = OpeningKeys(keys.optional_key(arguments), arguments.traffic_key, logged)
    return dissect_carried if arguments.carried else partial(dissect, keys=opening)


def _source(given: str | None) -> str:
    """Fall back on stdin, unless a person would sit there and wait."""
    if given in (None, STDIN) and (sys.stdin is None or (given is None and sys.stdin.isatty())):
        raise UsageError("expected HEX, FILE or something on stdin, got nothing")
    return STDIN if given is None else given


def _run_over_file(name: str, tally: "_Tally", *, carried: bool) -> None:
    with _opened(name) as file:
        first_bytes = file.peek(4)[:4]  # type: ignore[attr-defined]
        in_capture = is_capture(first_bytes)
        if in_capture and carried:
            raise UsageError("expected hexadecimal with --carried, got a capture: QUIC encrypts")
        source = read_capture(first_bytes, file) if in_capture else _read_lines(file)
        for datagram in source:
            tally.take(datagram, in_capture=in_capture)
    if not tally.frames + tally.others:
        raise UsageError("expected at least one datagram, got an empty input")
    tally.conclude()


class _Tally:
    """Shows frames and counts them."""

    def __init__(self, output: Output, dissector: Dissector) -> None:
        self.frames = 0
        self.invalid = 0
        self.others = 0
        self._output = output
        self._dissect = dissector

    def take(self, datagram: Datagram | None, *, in_capture: bool) -> None:
        """Show a frame; count what is none of kaudp's where that is to be expected."""
        dissection = self._dissect(datagram.data) if datagram else None
        if datagram is None or dissection is None or (in_capture and dissection.foreign):
            self.others += 1
            return
        self._show(datagram, dissection)

    def conclude(self) -> None:
        """Show the counts."""
        self._output.say(
            "summary",
            f"{amount(self.frames, 'frame')}, {self.invalid} of them invalid; "
            f"{amount(self.others, 'other packet')}",
            frames=self.frames,
            invalid=self.invalid,
            others=self.others,
        )

    def _show(self, datagram: Datagram, dissection: Dissection) -> None:
        self.frames += 1
        self.invalid += dissection.refusal is not None
        self._output.say(
            "frame", frame_text(datagram, dissection), **frame_facts(datagram, dissection)
        )


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == STDIN:
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("rb"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"expected an even number of hexadecimal digits or a readable file, "
                f"got {_described(name)}: {reason}"
            ) from None
        yield file


def _read_lines(file: BinaryIO) -> Iterator[Datagram]:
    """Read a datagram per line; empty lines and those that begin with # are skipped."""
    for number, line in enumerate(file, start=1):
        text = line.decode("ascii", errors="replace").strip()
        if not text or text.startswith("#"):
            continue
        data = _hexadecimal(text)
        if data is None:
            raise UsageError(
                f"expected an even number of hexadecimal digits in line {number}, "
                f"got {_described(text)}"
            )
        yield Datagram(data)


def _hexadecimal(text: str) -> bytes | None:
    """Read hexadecimal digits, spaces and colons between them allowed; None for other text."""
    try:
        return bytes.fromhex(re.sub(r"[\s:]|^0x", "", text))
    except ValueError:
        return None


def _traffic_key(text: str) -> AESGCM:
    key = _hexadecimal(text)
    if key is None or len(key) != TRAFFIC_KEY_BYTES:
        digits = 2 * TRAFFIC_KEY_BYTES
        raise UsageError(
            f"expected a traffic key of {digits} hexadecimal digits, got {len(text)} characters"
        )
    return AESGCM(key)


def _described(text: str) -> str:
    """Say what text was given; a key that lost its option must not be shown. Spec: KA-5.2-1."""
    if _KEY_SHAPE.fullmatch(text):
        return "what looks like a key (it goes with --key-file or --key)"
    cut = len(text) > _SHOWN_CHARACTERS
    return repr(text[:_SHOWN_CHARACTERS] + "..." if cut else text)
