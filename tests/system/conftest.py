"""All scenarios of the collected tests run once, most side by side; each test judges one record."""

import os
from collections.abc import Iterator

import pytest

from tests.system.record import Record
from tests.system.run import Run
from tests.system.scenarios import CASES
from tests.system.topology import shortcoming


@pytest.fixture(scope="session", autouse=True)
def testbed() -> None:
    """Skip where no network can be built; that is a failure where all tests are required."""
    reason = shortcoming()
    if reason and os.environ.get("KAUDP_REQUIRE_ALL") == "1":
        pytest.fail(f"KAUDP_REQUIRE_ALL=1, but {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def run(request: pytest.FixtureRequest, testbed: None) -> Iterator[Run]:
    """Start the scenarios that the collected tests ask for."""
    wanted = {_scenario(item) for item in request.session.items}
    with Run([name for name in CASES if name in wanted]) as started:
        yield started


@pytest.fixture
def record(request: pytest.FixtureRequest, run: Run) -> Record:
    """Give the record of a scenario that has ended."""
    ended = run.record(request.param)
    if ended.failure:
        pytest.fail(ended.text(), pytrace=False)
    return ended


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the scenario's record beside each failed assertion."""
    report = yield
    judged = getattr(item, "funcargs", {}).get("record")
    if report.failed and isinstance(judged, Record):
        report.sections.append((f"record of {judged.name}", judged.text()))
    return report


def _scenario(item: pytest.Item) -> str | None:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return parameters.get("record")
