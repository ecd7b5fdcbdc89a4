"""How a dissected frame is shown: a tree for people, plain values for programs.

The plain values have the form of spec/vectors.
"""

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

from construct import Container

from kaudp.cli.capture import Datagram
from kaudp.cli.dissection import Dissection
from kaudp.cli.meanings import meaning, option_name, shown, unknown_option
from kaudp.cli.wording import address_text, amount

_INDENT: Final = "  "
_VALUE_COLUMN: Final = 31
_VALUE_WIDTH: Final = 16


def frame_text(datagram: Datagram, dissection: Dissection) -> str:
    """Write a frame as a tree."""
    lines = [_title(datagram, dissection)]
    for name, fields in dissection.sections:
        lines.append(_line(1, name))
        lines += _fields(fields, 2)
    if dissection.refusal is not None:
        lines.append(_line(1, f"invalid: {dissection.refusal}"))
    return "\n".join(lines)


def frame_facts(datagram: Datagram, dissection: Dissection) -> dict[str, Any]:
    """Give a frame as plain values; bytes in hexadecimal."""
    refusal = dissection.refusal
    facts: dict[str, Any] = {
        "frame": dissection.frame_type.name if dissection.frame_type else None,
        "length": dissection.size,
        "valid": refusal is None,
        "reason": refusal.reason.value if refusal else None,
        "detail": str(refusal) if refusal else None,
    }
    if datagram.number is not None:
        facts |= {"number": datagram.number, "time": datagram.time}
        facts |= {"from": _address(datagram.source), "to": _address(datagram.destination)}
    for name, fields in dissection.sections:
        facts[name] = _plain(fields)
    return facts


def _title(datagram: Datagram, dissection: Dissection) -> str:
    kind = dissection.frame_type.name if dissection.frame_type else "no kaudp frame"
    title = f"{kind}, {amount(dissection.size, 'byte')}"
    if datagram.time is None:
        return title
    route = f"{_address(datagram.source)} > {_address(datagram.destination)}"
    return f"#{datagram.number} {_time_of_day(datagram.time)} {route}: {title}"


def _time_of_day(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).astimezone().strftime("%H:%M:%S.%f")
    except (ValueError, OverflowError, OSError):
        # A damaged capture may name any year.
        return f"{time:.6f}"


def _fields(fields: Container, depth: int) -> list[str]:
    lines = []
    for name, value in _items(fields):
        if name == "options":
            for option in value:
                lines += _option(option, depth)
        elif isinstance(value, Container):
            lines.append(_line(depth, name))
            lines += _fields(value, depth + 1)
        else:
            lines.append(_line(depth, name, shown(name, value), meaning(name, value)))
    return lines


def _option(option: Container, depth: int) -> list[str]:
    name = option_name(option.type)
    content = option.value.content
    if isinstance(content, Container):
        return [_line(depth, f"option {name}"), *_fields(content, depth + 1)]
    title = f"option {name or f'0x{option.type:02x}'}"
    note = "" if name else unknown_option(option.type)
    return [_line(depth, title, amount(len(content), "byte"), note)]


def _line(depth: int, name: str, value: str = "", note: str = "") -> str:
    start = _INDENT * depth + name
    return f"{start:<{_VALUE_COLUMN}} {value:<{_VALUE_WIDTH}} {note}".rstrip()


def _plain(value: Any, name: str = "") -> Any:  # noqa: ANN401
    if isinstance(value, Container):
        return {name: _plain(part, name) for name, part in _items(value)}
    if isinstance(value, list):
        return [_plain_option(option) for option in value]
    if isinstance(value, bytes):
        return value.hex()
    return f"{value:08x}" if name == "address_hash" else value


def _plain_option(option: Container) -> dict[str, Any]:
    return {
        "type": option.type,
        "name": option_name(option.type),
        "value": _plain(option.value.content),
    }


def _items(fields: Container) -> list[tuple[str, Any]]:
    """Give the fields without what construct keeps beside them."""
    return [(name, value) for name, value in fields.items() if not name.startswith("_")]


def _address(address: tuple[bytes, int] | None) -> str | None:
    return None if address is None else address_text((str(ip_address(address[0])), address[1]))
