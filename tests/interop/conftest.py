"""All cases of the collected tests run side by side, once; each test judges one result."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from interop import run

MATRIX = pytest.StashKey[run.Matrix]()


@pytest.fixture(scope="session")
def matrix(request: pytest.FixtureRequest) -> run.Matrix:
    """Build the peers and run the cases that the collected tests ask for."""
    made = run.Matrix(case for item in request.session.items if (case := _case(item)) is not None)
    request.config.stash[MATRIX] = made
    made.run()
    return made


@pytest.fixture
def result(request: pytest.FixtureRequest, matrix: run.Matrix) -> run.Result:
    """Give the result of a case; skip where its stack is not there."""
    found = matrix.results[request.param]
    if found.result == "missing" and os.environ.get("KAUDP_REQUIRE_ALL") == "1":
        pytest.fail(f"KAUDP_REQUIRE_ALL=1, but {found.reason}", pytrace=False)
    if found.result == "missing":
        pytest.skip(found.reason)
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what both sides said beside each failed assertion."""
    report = yield
    judged = getattr(item, "funcargs", {}).get("result")
    if report.failed and isinstance(judged, run.Result) and judged.evidence:
        report.sections.append(("what happened", judged.evidence))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the matrix, and save it where KAUDP_INTEROP_JSON says."""
    matrix = config.stash.get(MATRIX, None)
    if matrix is None:
        return
    results = [*matrix.results.values()]
    terminalreporter.section("interop")
    terminalreporter.write_line(run.table(results))
    if file := os.environ.get("KAUDP_INTEROP_JSON"):
        run.save(results, Path(file))


def _case(item: pytest.Item) -> run.Case | None:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    found = parameters.get("result")
    return found if isinstance(found, run.Case) else None
