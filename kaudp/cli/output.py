"""What goes to stdout: lines for people, or one JSON object per line for programs."""

import json
import os
import sys
from typing import Any, Final

from kaudp.events import State

_COLOURS: Final = {
    State.UP: "32",
    State.SUSPECT: "33",
    State.HALF_OPEN: "35",
    State.DOWN: "31",
    State.ADMIN_DOWN: "36",
}


class Output:
    """Writes each fact in the one form that was asked for."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.lively = not as_json and _is_lively_terminal()

    def say(self, kind: str, text: str, /, **facts: Any) -> None:  # noqa: ANN401
        """Write a line: the text, or an object of the type `kind` with the facts."""
        print(json.dumps({"type": kind, **facts}) if self.as_json else text, flush=True)

    def coloured(self, text: str, state: State | None) -> str:
        """Give the text in the colour of a state, where colours are wanted."""
        if not self.lively or state not in _COLOURS:
            return text
        return f"\x1b[{_COLOURS[state]}m{text}\x1b[0m"


def _is_lively_terminal() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout is not None and sys.stdout.isatty()
