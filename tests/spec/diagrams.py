"""Draw a construct structure as the packet diagram and the field table of an RFC."""

from collections.abc import Iterator
from typing import Any

ROW_BITS = 32
RULE = "+" + "-+" * ROW_BITS


def fields(structure: Any) -> list[tuple[str, int | None]]:
    """Give (name, bytes or None for "to the end") for each named field, nested ones in line."""
    return list(_fields(structure))


def _fields(structure: Any) -> Iterator[tuple[str, int | None]]:
    for subcon in structure.subcons:
        if subcon.name is None:
            continue
        inner = subcon.subcon
        if hasattr(inner, "subcons"):
            yield from _fields(inner)
        else:
            yield subcon.name, _width(inner)


def _width(construct: Any) -> int | None:
    try:
        return int(construct.sizeof())
    except Exception:
        return None


def diagram(structure: Any) -> str:
    numbers = " 0                   1                   2                   3"
    units = " " + " ".join(str(bit % 10) for bit in range(ROW_BITS))
    lines = [numbers, units, RULE]
    row = ""
    for name, width in fields(structure):
        label = name.replace("_", " ")
        if width is None:
            lines += ["|" + f"{label} ...".center(2 * ROW_BITS - 1) + "|", RULE]
            continue
        bits = 8 * width
        if bits < ROW_BITS:
            row += "|" + f"{label}".center(2 * bits - 1)
            if len(row) == 2 * ROW_BITS:
                lines += [row + "|", RULE]
                row = ""
            continue
        rows = bits // ROW_BITS
        for number in range(rows):
            text = f"{label} ({width} bytes)" if number == (rows - 1) // 2 else ""
            lines.append("|" + text.center(2 * ROW_BITS - 1) + "|")
        lines.append(RULE)
    if row:
        lines += [row + "|", RULE[: len(row) + 1]]
    return "\n".join(lines)
