"""The text of spec/kaudp.md against itself, the grammar, the code and the tests."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kaudp.core import (
    administration,
    agreement,
    cadence,
    channel,
    clocks,
    cookies,
    handshake,
    liveness,
    paths,
    pause,
    push_back,
    replay,
    routes,
    rtt,
    session,
    suspicion,
)
from kaudp.core.states import TRANSITIONS, Input
from kaudp.errors import DropReason
from kaudp.events import CloseReason, State
from kaudp.units import SECOND
from kaudp.wire import grammar
from spec import lock
from tests.spec import tracing
from tests.spec.diagrams import diagram, fields

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "spec" / "kaudp.md").read_text()
EXCEPTIONS = tomllib.loads((Path(__file__).parent / "exceptions.toml").read_text())


def section(number: str) -> str:
    """Cut one numbered section out of the text."""
    match = re.search(rf"^#+ {re.escape(number)}\.? .*?(?=^#+ \d)", TEXT, re.M | re.S)
    assert match, number
    return match.group()


def table(part: str, first_column: str) -> list[list[str]]:
    """Give the rows of the table whose head begins with a column."""
    rows = [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in part.splitlines()
        if line.startswith("|")
    ]
    start = next(number for number, row in enumerate(rows) if row[0] == first_column)
    width = len(rows[start])
    body = []
    for row in rows[start + 2 :]:
        if len(row) != width or set("".join(row)) <= {"-"}:
            break
        body.append(row)
    return body


def test_ids_and_keywords_are_as_section_1_says() -> None:
    assert lock.faults(TEXT) == []


def test_code_and_tests_cite_each_must_and_nothing_else() -> None:
    """Whether the tests that cite it ran shows at the end of a whole run."""
    assert tracing.faults(TEXT, ROOT, EXCEPTIONS) == []


@pytest.mark.parametrize(
    "name",
    [
        *("Init", "InitPayload", "Response", "ResponsePayload", "Cookie", "Transport", "Body"),
        *("CarriedInit", "CarriedResponse"),
    ],
)
def test_diagrams_show_the_grammar(name: str) -> None:
    """KA-3.1-6."""
    assert f"```\n{diagram(getattr(grammar, name))}\n```" in TEXT


@pytest.mark.parametrize(
    ("number", "structure"),
    [
        ("3.2", grammar.Init),
        ("3.3", grammar.InitPayload),
        ("3.5", grammar.Cookie),
        ("3.6", grammar.Transport),
        ("3.7", grammar.Body),
    ],
)
def test_field_tables_show_the_grammar(number: str, structure: Any) -> None:
    """KA-3.1-6."""
    assert_table_shows(table(section(number), "field"), structure)


def test_the_tables_of_response_show_the_grammar() -> None:
    """KA-3.1-6."""
    frame, payload = section("3.4").split("Its payload:")
    assert_table_shows(table(frame, "field"), grammar.Response)
    assert_table_shows(table(payload, "field"), grammar.ResponsePayload)


def test_the_tables_of_carried_frames_show_the_grammar() -> None:
    """KA-14.1-1."""
    init, response = section("14.1").split("RESPONSE:\n")
    assert_table_shows(table(init, "field"), grammar.CarriedInit)
    assert_table_shows(table(response, "field"), grammar.CarriedResponse)


def assert_table_shows(rows: list[list[str]], structure: Any) -> None:
    offset = 0
    expected = []
    for name, width in fields(structure):
        expected.append([name, str(offset), "rest" if width is None else str(width)])
        offset += width or 0
    # The option list has no width of its own in the tables.
    shown = [[row[0], row[1], row[2] or "rest"] for row in rows]
    assert shown == expected


def test_type_table_shows_the_grammar() -> None:
    """KA-3.1-2."""
    rows = [(int(row[0], 16), row[1]) for row in table(section("3.1"), "type")]
    assert rows == [(int(kind), kind.name) for kind in grammar.FrameType]


def test_option_table_shows_the_grammar() -> None:
    """KA-3.1-6."""
    rows = table(section("3.8"), "type")
    assert [(int(row[0], 16), row[1]) for row in rows] == [
        (int(kind), kind.name) for kind in grammar.OptionType
    ]
    for row, kind in zip(rows[2:], list(grammar.OptionType)[2:], strict=True):
        named = fields(grammar.OPTION_VALUES[kind])
        assert row[2] == ", ".join(name for name, _ in named)
        assert row[3] == str(sum(width or 0 for _, width in named))


def test_state_values() -> None:
    shown = {row[1]: row[0] for row in table(section("6.1"), "value")}
    assert shown == {s.name: str(int(s)) if s else "–" for s in State}


def test_transition_table_is_the_code() -> None:
    """KA-6.3-1."""
    head, *_ = (line for line in section("6.3").splitlines() if line.startswith("| state"))
    inputs = [cell.strip() for cell in head.split("|")[2:-1]]
    assert inputs == [event.name for event in Input]
    shown = {
        State[row[0]]: {
            Input[name]: State[cell]
            for name, cell in zip(inputs, row[1:], strict=True)
            if cell != "–"
        }
        for row in table(section("6.3"), "state")
    }
    assert shown == TRANSITIONS
    assert {row[0] for row in table(section("6.2"), "input")} == set(inputs)


def test_close_reasons() -> None:
    rows = table(section("6.4"), "reason")[:-1]
    assert [(int(row[0]), row[1]) for row in rows] == [(int(r), r.name) for r in CloseReason]


def test_drop_reasons() -> None:
    """KA-12-1."""
    rows = table(section("12"), "reason")
    assert [row[0] for row in rows] == [reason.value for reason in DropReason]


def test_constants() -> None:
    modules = (
        grammar,
        replay,
        handshake,
        routes,
        rtt,
        suspicion,
        liveness,
        pause,
        channel,
        cadence,
        session,
        administration,
        agreement,
        clocks,
        cookies,
        paths,
        push_back,
    )
    units = {"": 1, "s": SECOND, "ms": SECOND // 1000}
    for name, value, *_ in table(section("11"), "name"):
        number, _, unit = value.partition(" ")
        if name == "MAX_DETECTION_TIME":
            continue
        owner = next(module for module in modules if hasattr(module, name))
        assert getattr(owner, name) == int(number) * units[unit], name
