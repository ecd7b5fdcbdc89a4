"""Everything that a part of the core remembers, as values that can be compared."""

from collections import deque
from enum import Enum
from typing import Any, Final

from kaudp.config import Config
from kaudp.core.session import Context
from kaudp.core.totals import Totals

# The key of the phase to come is made when a frame first calls for it, to be kept from then on:
# it follows from the key in use, so it says nothing of the frame, and there is one at most.
DERIVED: Final = {"_following"}


def frozen(value: Any) -> Any:
    """Give a value that equals another one exactly when all that is remembered does."""
    if value is None or isinstance(value, int | str | bytes | Enum):
        return value
    if isinstance(value, dict):
        return tuple((frozen(key), frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple | set | deque):
        return tuple(frozen(item) for item in value)
    if isinstance(value, Context | Config | Totals) or not type(value).__module__.startswith(
        "kaudp."
    ):
        return id(value)
    return tuple((name, frozen(getattr(value, name))) for name in _attributes(value))


def _attributes(value: Any) -> list[str]:
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    names = slots + list(getattr(value, "__dict__", ()))
    return [name for name in names if name not in DERIVED]
