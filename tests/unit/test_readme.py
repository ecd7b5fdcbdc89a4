"""README.md says what is so."""

import ast
import re
from pathlib import Path

from kaudp.config import Config
from kaudp.events import Event, RoundTrip

TEXT = (Path(__file__).parents[2] / "README.md").read_text()


def test_examples_are_python_and_short() -> None:
    first, *rest = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    ast.parse(first)
    for example in rest:
        ast.parse("async def main():\n" + "\n".join("    " + line for line in example.splitlines()))


def test_every_kind_of_event_is_told() -> None:
    kinds = {kind.__name__ for kind in Event.__subclasses__()} - {RoundTrip.__name__}
    assert kinds == {kind for kind in kinds if f"`{kind}" in TEXT}


def test_the_presets_are_as_the_table_says() -> None:
    rows = re.findall(r"\| `Config\.(\w+)\(\)`[^|]*\| (\d+) (m?s) \| (\d+) (m?s) \|", TEXT)
    unit = {"s": 1000, "ms": 1}
    assert [name for name, *_ in rows] == ["lan", "wan", "mobile"]
    for name, every, every_unit, down, down_unit in rows:
        config = getattr(Config, name)()
        assert config.interval_ms == int(every) * unit[every_unit]
        assert config.interval_ms * config.multiplier == int(down) * unit[down_unit]


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parents[2]
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (root / target).exists(), target
