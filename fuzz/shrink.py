"""Make a failing input small: leave bytes out, or make them zero, while it fails in the same way.

    python -m fuzz.shrink endpoint crash-0cef3832

Prints the rest in hex. "The same way" is the type of the exception and the line that raised it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from traceback import extract_tb

from fuzz.targets import TARGETS

Failure = tuple[str, str, int | None]


def failure(name: str, data: bytes) -> Failure | None:
    """Play one input and tell how it fails, None if it does not."""
    try:
        TARGETS[name](data)
    except Exception as error:
        place = extract_tb(error.__traceback__)[-1]
        return type(error).__name__, place.filename, place.lineno
    return None


def shrink(name: str, data: bytes) -> bytes:
    """Give a smaller input that fails in the same way."""
    wanted = failure(name, data)
    assert wanted is not None, "this input does not fail"
    smaller: bytes | None = data
    while smaller is not None:
        data = smaller
        smaller = next((one for one in _smaller(data) if failure(name, one) == wanted), None)
    return data


def _smaller(data: bytes) -> Iterator[bytes]:
    """Give what is simpler than `data`, the boldest first."""
    size = len(data)
    while size := size // 2:
        for at in range(0, len(data), size):
            yield data[:at] + data[at + size :]
    for at, value in enumerate(data):
        if value:
            yield data[:at] + b"\0" + data[at + 1 :]


if __name__ == "__main__":
    print(shrink(sys.argv[1], Path(sys.argv[2]).read_bytes()).hex())
