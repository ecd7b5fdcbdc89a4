"""core/states: what the transition table leaves out; the table itself is compared with the text."""

import pytest

from kaudp.core.states import Input, next_state
from kaudp.events import State


@pytest.mark.parametrize("event", Input)
def test_from_closed_nothing_leads_away(event: Input) -> None:
    """KA-6.3-1."""
    assert next_state(State.CLOSED, event) is State.CLOSED


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.CONNECTING, Input.CONFIRMED),
        (State.CONNECTING, Input.OVERDUE),
        (State.UP, Input.VERDICT_DOWN),
        (State.UP, Input.EXPIRED),
        (State.SUSPECT, Input.OVERDUE),
        (State.HALF_OPEN, Input.VERDICT_DOWN),
        (State.DOWN, Input.CONFIRMED),
        (State.DOWN, Input.OVERDUE),
    ],
)
def test_an_input_without_an_entry_changes_nothing(state: State, event: Input) -> None:
    """KA-6.3-1: one miss is no verdict, and one confirmation no return from DOWN."""
    assert next_state(state, event) is state
