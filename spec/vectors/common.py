"""What all the vectors are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MICROSECOND, MILLISECOND, SECOND = 10**3, 10**6, 10**9
U16, U32, U64 = 2**16 - 1, 2**32 - 1, 2**64 - 1

Json = dict[str, Any]


def described(
    test_id: str, requirements: str, comment: str, flags: Iterable[str] = (), **content: Any
) -> Json:
    """Begin a test; `requirements` are ids without "KA-", between spaces."""
    return {
        "id": test_id,
        "requirements": [f"KA-{number}" for number in requirements.split()],
        "comment": comment,
        **({"flags": list(flags)} if flags else {}),
        **content,
    }
