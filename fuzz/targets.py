"""The fuzz targets by name, without a fuzzer. As a program: play one input and show what happens.

python -m fuzz.targets endpoint FILE
python -m fuzz.targets parser hex:0b08...
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fuzz.endpoint_target import endpoint
from fuzz.parser_target import parser

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"parser": parser, "endpoint": endpoint}


def main(name: str, given: str) -> None:
    """Play one input, from a file or as "hex:" and its bytes."""
    hexadecimal = given.removeprefix("hex:")
    data = Path(given).read_bytes() if hexadecimal == given else bytes.fromhex(hexadecimal)
    if name == "endpoint":
        endpoint(data, log=print)
    else:
        TARGETS[name](data)
    print(f"{name}: all invariants hold over {len(data)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
