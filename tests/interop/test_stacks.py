"""interop/run.py: kaudp against unmodified QUIC stacks, a test for each case of the matrix."""

import os

import pytest

from interop import run
from interop.peers import launch

PEERS = launch.peers()
# quinn takes minutes to build, so it belongs to the longer run.
LONGER = () if os.environ.get("KAUDP_WITH_QUINN") == "1" else ("quinn",)
CASES = [
    case
    for case in run.all_cases(PEERS)
    if run.unsupported(case, PEERS) is None and case.stack not in LONGER
]


@pytest.mark.parametrize("result", CASES, ids=[case.name for case in CASES], indirect=True)
def test_stack(result: run.Result) -> None:
    assert result.result == "pass", result.reason
    assert None not in (result.round_trips, result.median_rtt_s, result.up_s)


def test_nothing_is_reported_to_the_loop(matrix: run.Matrix) -> None:
    assert matrix.complaints == []
