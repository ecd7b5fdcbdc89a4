"""Units of time. The core counts integer nanoseconds; the wire carries microseconds."""

from typing import Final

MICROSECOND: Final = 1_000
MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000

MAX_UINT32: Final = 0xFFFF_FFFF


def milliseconds(count: int) -> int:
    """Give `count` milliseconds in nanoseconds."""
    return count * MILLISECOND
