"""How times, shares and addresses are written for people."""

from datetime import UTC, datetime
from time import time_ns
from typing import overload

from kaudp.core.paths import Address, address_bytes, address_from_bytes
from kaudp.io.clock import now_ns
from kaudp.units import MICROSECOND, MILLISECOND, SECOND


def span(duration: int) -> str:
    """Write a duration in ns with the unit that suits it, such as 1.5 s."""
    for unit, name in ((SECOND, "s"), (MILLISECOND, "ms"), (MICROSECOND, "µs")):
        if duration >= unit:
            return f"{duration / unit:.6f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{duration} ns" if duration else "0 s"


@overload
def milliseconds(duration: int) -> float: ...
@overload
def milliseconds(duration: None) -> None: ...
@overload
def milliseconds(duration: int | None) -> float | None: ...
def milliseconds(duration: int | None) -> float | None:
    """Give a duration in ns as milliseconds, to the microsecond."""
    return None if duration is None else round(duration / MILLISECOND, 3)


def seconds(duration: int) -> float:
    """Give a duration in ns as seconds, to the millisecond."""
    return round(duration / SECOND, 3)


def share(part: float | None) -> str:
    """Write a part of 0 to 1 in percent, a dash where it is not known."""
    return "-" if part is None else f"{100 * part:.1f}".removesuffix(".0") + "%"


def amount(count: int | str, noun: str) -> str:
    """Write how many there are of something."""
    if str(count) == "1":
        return f"{count} {noun}"
    return f"{count} {noun.removesuffix('y')}ies" if noun.endswith("y") else f"{count} {noun}s"


def address_text(address: Address) -> str:
    """Write a socket address as HOST:PORT."""
    canonical = address_bytes(address)
    if canonical is None:
        return str(address)
    host, port = address_from_bytes(canonical)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def wall_time(time: int) -> datetime:
    """Give the time of day of a time in ns on the scale of events."""
    return datetime.fromtimestamp((time_ns() - now_ns() + time) / SECOND, UTC)


def time_of_day(time: int) -> str:
    """Write the local time of day of a time in ns on the scale of events."""
    return wall_time(time).astimezone().strftime("%H:%M:%S.%f")[:-3]
