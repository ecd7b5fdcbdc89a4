"""The transition table, and the one function that moves a session from state to state.

Spec: section 6.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from kaudp.events import State


class Input(Enum):
    """What may move a session. Spec: section 6.2."""

    ESTABLISHED = "ESTABLISHED"
    CONFIRMED = "CONFIRMED"
    OVERDUE = "OVERDUE"
    VERDICT_DOWN = "VERDICT_DOWN"
    VERDICT_HALF_OPEN = "VERDICT_HALF_OPEN"
    RECOVERED = "RECOVERED"
    EXPIRED = "EXPIRED"
    CLOSE = "CLOSE"
    ADMIN_DOWN = "ADMIN_DOWN"
    ADMIN_UP = "ADMIN_UP"


TRANSITIONS: Final[Mapping[State, Mapping[Input, State]]] = {
    State.CONNECTING: {
        Input.ESTABLISHED: State.UP,
        Input.EXPIRED: State.CLOSED,
        Input.CLOSE: State.CLOSED,
    },
    State.UP: {
        Input.ESTABLISHED: State.UP,
        Input.CONFIRMED: State.UP,
        Input.OVERDUE: State.SUSPECT,
        Input.CLOSE: State.CLOSED,
        Input.ADMIN_DOWN: State.ADMIN_DOWN,
    },
    State.SUSPECT: {
        Input.ESTABLISHED: State.UP,
        Input.CONFIRMED: State.UP,
        Input.VERDICT_DOWN: State.DOWN,
        Input.VERDICT_HALF_OPEN: State.HALF_OPEN,
        Input.CLOSE: State.CLOSED,
        Input.ADMIN_DOWN: State.ADMIN_DOWN,
    },
    State.HALF_OPEN: {
        Input.ESTABLISHED: State.UP,
        Input.CONFIRMED: State.UP,
        Input.OVERDUE: State.SUSPECT,
        Input.CLOSE: State.CLOSED,
        Input.ADMIN_DOWN: State.ADMIN_DOWN,
    },
    State.DOWN: {
        Input.ESTABLISHED: State.UP,
        Input.RECOVERED: State.UP,
        Input.EXPIRED: State.CLOSED,
        Input.CLOSE: State.CLOSED,
        Input.ADMIN_DOWN: State.ADMIN_DOWN,
    },
    State.ADMIN_DOWN: {
        Input.CLOSE: State.CLOSED,
        Input.ADMIN_UP: State.SUSPECT,
    },
    State.CLOSED: {},
}


def next_state(state: State, event: Input) -> State:
    """Look the next state up; an input without an entry changes nothing. Spec: KA-6.3-1."""
    return TRANSITIONS[state].get(event, state)
