"""config: legal ranges, contradictions, presets, and their documentation."""

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from kaudp import config as module
from kaudp.config import Config, DetectorKind
from kaudp.errors import ConfigError

SOURCE = Path(module.__file__).read_text()
RANGES = module._RANGES


@pytest.mark.parametrize("name", [field.name for field in fields(Config)])
def test_each_field_is_documented_with_its_requirement(name: str) -> None:
    """Unit in the name or the text, the legal range, the rule it serves."""
    match = re.search(rf'    {name}: [^\n]*\n    """(.*?)"""', SOURCE, re.S)
    assert match, name
    assert re.search(r"KA-\d|Section \d", match[1])
    if name in RANGES:
        low, high = RANGES[name]
        if not name.startswith("nat_"):
            assert f"{low:,} to {high:,}" in match[1], match[1]
        assert name.endswith("_ms") == ("ms" in match[1])


@pytest.mark.parametrize("name", sorted(RANGES))
def test_values_out_of_range_are_one_clear_error(name: str) -> None:
    low, high = RANGES[name]
    for value in (low - 1, high + 1, "5", 1.5, True):
        with pytest.raises(ConfigError, match=rf"^{name}: expected a whole number {low} to {high}"):
            Config(**{name: value})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interval_sm": 5}, "expected fields of Config, got interval_sm"),
        ({"detector": "bfd"}, "expected a DetectorKind, got 'bfd'"),
        ({"application_traffic": 1}, "expected True or False, got 1"),
        ({"min_receive_interval_ms": 90_000}, "at least min_receive_interval_ms"),
        ({"max_peer_pause_sum_ms": 1}, "at least max_peer_pause_ms"),
    ],
)
def test_contradictions_are_one_clear_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.wan(**changes)


def test_presets_differ_and_are_frozen() -> None:
    presets = [Config.lan(), Config.wan(), Config.mobile(), Config.server()]
    assert len(set(presets)) == 4
    assert Config() == Config.wan()
    with pytest.raises(FrozenInstanceError):
        presets[0].interval_ms = 5  # type: ignore[misc]


def test_defaults_are_those_of_the_design() -> None:
    assert Config().interval_ms == 5_000
    assert Config().nat_keepalive_ms == 25_000
    assert Config().deadline_ms == 30_000
    assert Config().detector is DetectorKind.FIXED_MULTIPLIER
