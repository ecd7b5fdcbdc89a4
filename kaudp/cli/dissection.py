"""A datagram taken apart by the grammar: its sections of fields, and why it is refused.

What is legal is said by the grammar, by the lengths that follow from it, and by the receiver's own
checks.
"""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from construct import Construct, ConstructError, Container, GreedyBytes, Struct
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kaudp.cli.wording import amount
from kaudp.core.channel import Channel
from kaudp.errors import DropReason, Refused
from kaudp.units import MAX_UINT32
from kaudp.wire import codec, grammar
from kaudp.wire.grammar import KEY_PHASE, AddressFamily, FrameType
from kaudp.wire.keys import PresharedKey
from kaudp.wire.noise import Responder
from kaudp.wire.seal import OneKey, Phase

# With the default of a change a day, two months.
_MAX_PHASES: Final = 64


class OpeningKeys(NamedTuple):
    """What sealed parts may be opened with.

    `logged` are the secrets of a key log, by the receiver session id of the frames.
    """

    psk: PresharedKey | None = None
    traffic: Sequence[AESGCM] = ()
    logged: Mapping[bytes, Sequence[bytes]] = MappingProxyType({})


@dataclass(slots=True)
class Dissection:
    """What a datagram says, as far as it can be read; `refusal` is None where nothing is wrong.

    A section is a name and the fields that construct parsed, options among them.
    """

    size: int
    frame_type: FrameType | None = None
    sections: list[tuple[str, Container]] = field(default_factory=list)
    refusal: Refused | None = None

    @property
    def foreign(self) -> bool:
        """Whether the datagram is none of kaudp's."""
        return self.refusal is not None and self.refusal.reason is DropReason.NOT_KAUDP


def dissect(data: bytes, keys: OpeningKeys) -> Dissection:
    """Take a datagram apart; never raises on account of `data`."""
    result = Dissection(len(data))
    try:
        _read_header(data, result)
        if result.frame_type is FrameType.INIT and keys.psk is not None:
            _read_init_payload(keys.psk, data, result)
        elif result.frame_type in codec.TRANSPORT_TYPES:
            _read_transport(keys, data, result)
    except Refused as refused:
        result.refusal = refused
    return result


def _read_header(data: bytes, result: Dissection) -> None:
    # A type that does not exist is refused by the grammar of transport frames, with the reason.
    structure = _STRUCTURES.get(data[1] if len(data) > 1 else 0, grammar.Transport)
    read_section("header", structure, data, result, DropReason.NOT_KAUDP)
    frame_type = FrameType(data[1])
    least = _least_bytes(frame_type)
    most = least if frame_type is FrameType.COOKIE else grammar.MAX_FRAME_BYTES
    check_length(frame_type, len(data), least, most)
    result.frame_type = frame_type


def check_length(frame_type: FrameType, size: int, least: int, most: int) -> None:
    """Refuse a frame that is too short or too long for its type."""
    if not least <= size <= most:
        raise Refused(
            DropReason.NOT_KAUDP,
            f"length: expected {least} to {most} bytes for {frame_type.name}, got {size}",
        )


def _read_init_payload(psk: PresharedKey, data: bytes, result: Dissection) -> None:
    header = codec.parse_init_header(data)
    noise = Responder(psk.secret, data[: codec.INIT_PROLOGUE_BYTES])
    try:
        plaintext = noise.read_message_1(
            header.ephemeral, codec.sealed_payload_of(FrameType.INIT, data)
        )
    except Refused:
        if header.key_id != psk.key_id:
            return  # Sealed under another key, about which nothing is known.
        raise _bad_tag("sealed_payload", "the pre-shared key") from None
    read_section("payload", grammar.InitPayload, plaintext, result)
    with pinpointed(result):
        codec.parse_init_payload(plaintext)


def _read_transport(keys: OpeningKeys, data: bytes, result: Dissection) -> None:
    header = codec.parse_transport_header(data)
    logged = keys.logged.get(header.receiver_session_id, ())
    opened = _open(chain(keys.traffic, _phases(logged, header.flags)), header, data)
    if opened is not None:
        read_section("body", grammar.Body, opened[1], result)
        with pinpointed(result):
            opened[0].accept(header, opened[1], 0)
    elif header.flags & ~KEY_PHASE:
        raise Refused(DropReason.RESERVED_FLAG, next(_offences(result.sections)))


def _phases(secrets: Iterable[bytes], flags: int) -> Iterator[AESGCM]:
    """Give the keys of the phases that have this bit, the first of each secret first. KA-4.4-5."""
    phases = [Phase(secret) for secret in secrets]
    for number in range(_MAX_PHASES):
        if number & KEY_PHASE == flags & KEY_PHASE:
            yield from (phase.aead for phase in phases)
        phases = [phase.following() for phase in phases]


def _open(
    traffic: Iterable[AESGCM], header: codec.TransportHeader, data: bytes
) -> tuple[Channel, bytes] | None:
    """Open a transport frame; give what a receiver that has sent everything would check it by."""
    tried = False
    for aead in traffic:
        tried = True
        channel = Channel(b"", header.receiver_session_id, OneKey(aead), 0)
        channel.last_sent = MAX_UINT32
        try:
            return channel, channel.unseal(header, data, 0)
        except Refused:
            continue
    if tried:
        raise _bad_tag("sealed_body", "a traffic key given, or logged for this session")
    return None


def read_section(
    name: str,
    structure: Struct,
    data: bytes,
    result: Dissection,
    reason: DropReason = DropReason.MALFORMED,
) -> None:
    """Add what the grammar reads, up to the first field that is not legal; raise on that."""
    fixed = [part for part in structure.subcons if part.name != "options"]
    rest = [] if len(fixed) == len(structure.subcons) else ["options" / GreedyBytes]
    section, error = _parse_leading(fixed + rest, data)
    result.sections.append((name, section))
    if error is None and rest:
        section.options, error = _parse_options(section.options)
    if error is not None:
        raise Refused(reason, f"{name}.{_explain(error)}")


def _parse_leading(fields: list[Construct], data: bytes) -> tuple[Container, ConstructError | None]:
    """Parse as many fields as are legal; give the error of the first that is not."""
    try:
        return Struct(*fields).parse(data), None
    except ConstructError as error:
        return _parse_leading(fields[:-1], data)[0], error


def _parse_options(data: bytes) -> tuple[list[Container], ConstructError | None]:
    """Parse options one by one, to keep those before the first that is not legal."""
    stream = io.BytesIO(data)
    options: list[Container] = []
    while stream.tell() < len(data):
        try:
            options.append(grammar.Option.parse_stream(stream))
        except ConstructError as error:
            error.path = error.path.replace("(parsing)", f"(parsing) -> options[{len(options)}]")
            return options, error
    return options, None


@contextmanager
def pinpointed(result: Dissection) -> Iterator[None]:
    """Name the field for which the receiver's own check refuses a frame, where it is one field."""
    try:
        yield
    except Refused as refused:
        offence = next(_offences(result.sections), None)
        raise Refused(refused.reason, offence) if offence else refused from None


def _offences(sections: list[tuple[str, Container]]) -> Iterator[str]:
    """Say which fields hold what a receiver refuses; the grammar admits it."""
    for path, fields in sections:
        for name, value in fields.items():
            yield from _field_offences(f"{path}.{name}", name, value)


def _field_offences(path: str, name: str, value: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(value, Container):
        yield from _offences([(path, value)])
    elif isinstance(value, list):
        yield from _offences([(f"{path}[{index}]", part) for index, part in enumerate(value)])
    elif name in _REFUSED and _REFUSED[name][0](value):
        yield f"{path}: expected {_REFUSED[name][1]}, got {value:#04x}"


def _least_bytes(frame_type: FrameType) -> int:
    if frame_type in codec.TRANSPORT_TYPES:
        return codec.STEADY_FRAME_BYTES
    header = codec.fixed_format(grammar.FRAMES[frame_type]).size
    if frame_type is FrameType.COOKIE:
        return header
    sealed = codec.MIN_INIT_BYTES - codec.fixed_format(grammar.Init).size
    return header + sealed


def _bad_tag(path: str, key: str) -> Refused:
    return Refused(
        DropReason.BAD_TAG, f"{path}: expected a tag that verifies under {key}, got another"
    )


def _explain(error: ConstructError) -> str:
    """Turn construct's error into PATH: expected ..., got ..."""
    path = error.path.removeprefix("(parsing)").replace(" -> ", ".").lstrip(".")
    problem = str(error).splitlines()[-1]
    name = path.rpartition(".")[2]
    for pattern, reword in _REWORDED:
        match = pattern.fullmatch(problem)
        if match is not None:
            return f"{path}: {reword(match, name)}"
    return f"{path}: {problem}"


# For the words only: whether a frame is refused is said by the receiver's own checks.
_REFUSED: Final[dict[str, tuple[Callable[[int], bool], str]]] = {
    "flags": (lambda flags: flags & ~KEY_PHASE != 0, "0x00 or 0x01"),
    "packet_number": (lambda number: number < 1, "1 or more"),
    "state": (lambda state: not codec.MIN_STATE <= state <= codec.MAX_STATE, "1 to 6"),
    "desired_interval_us": (lambda interval: interval < 1, "1 or more"),
    "suspicion_burst": (lambda burst: burst < 1, "1 or more"),
    "type": (lambda kind: kind >= grammar.CRITICAL, "a known type where critical"),
}
_STRUCTURES: Final = {int(frame_type): part for frame_type, part in grammar.FRAMES.items()}
_LEGAL: Final = {
    "type": [f"{value:#04x} {value.name}" for value in FrameType],
    "family": [f"{value:#04x} {value.name}" for value in AddressFamily],
    "down": ["0x00", "0x01"],
}

_REWORDED: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], str]], ...]] = (
    (
        re.compile(r"parsing expected (\d+) but parsed (\d+)"),
        lambda match, _: f"expected {int(match[1]):#04x}, got {int(match[2]):#04x}",
    ),
    (
        re.compile(r"object failed validation: (\d+)"),
        lambda match, name: f"expected {', '.join(_LEGAL[name])}, got {int(match[1]):#04x}",
    ),
    (
        re.compile(r"stream read less than specified amount, expected (\d+), found (\d+)"),
        lambda match, _: f"expected {amount(match[1], 'byte')}, got {match[2]}",
    ),
    (
        re.compile("expected end of stream"),
        lambda _match, _name: "expected the value to end, got more bytes",
    ),
)
