"""The models of spec/promela: each property holds, and spin refutes each seeded mistake."""

import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "spec" / "promela"
SPEC = importlib.util.spec_from_file_location("promela_check", FOLDER / "check.py")
assert SPEC is not None and SPEC.loader is not None
check = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = check
SPEC.loader.exec_module(check)


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[object, object]:
    """Run the searches that the collected tests ask for, side by side, once."""
    tool = check.missing()
    if tool and os.environ.get("KAUDP_REQUIRE_ALL") == "1":
        pytest.fail(f"KAUDP_REQUIRE_ALL=1, but {tool} is not installed", pytrace=False)
    if tool:
        pytest.skip(f"{tool} is not installed")
    parameters = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = [one.params["searched"] for one in parameters if one and "searched" in one.params]
    return check.run(wanted, tmp_path_factory.mktemp("promela"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("searched", check.CHECKS, ids=lambda one: one.name)
def test_search(searched: object, results: Mapping[object, object]) -> None:
    result = results[searched]
    assert result.good, f"{result.verdict}\n{check.table([result])}"


def test_each_property_and_mistake_is_searched() -> None:
    for model in check.MODELS:
        text = (FOLDER / f"{model}.pml").read_text()
        checks = [one for one in check.CHECKS if one.model == model]
        assert set(re.findall(r"^ltl (\w+)", text, re.M)) == {one.claim for one in checks}
        mistakes = set(re.findall(r"\bMISTAKE_(\w+)", text))
        assert mistakes == {one.mistake for one in checks if one.mistake}
        for claim in {one.claim for one in checks}:
            assert any(one.mistake for one in checks if one.claim == claim), claim
