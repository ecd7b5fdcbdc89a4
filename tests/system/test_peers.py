"""What is true in every scenario."""

import pytest

from tests.system import bounds
from tests.system.record import Record
from tests.system.scenarios import CASES
from tests.system.summary import false_downs

pytestmark = pytest.mark.system

everywhere = pytest.mark.parametrize("record", [*CASES], indirect=True)


@everywhere
def test_no_process_complains(record: Record) -> None:
    """Warnings are errors in the peers; whatever they print that is no event is a complaint."""
    assert record.all("Output") == []


@everywhere
def test_each_process_ends_in_order_or_by_our_hand(record: Record) -> None:
    killed = [fault for fault in record.all("Fault") if fault["what"].endswith("killed")]
    codes = [exited["code"] for exited in record.all("Exit")]
    assert sorted(code for code in codes if code) == [-9] * len(killed)


@everywhere
def test_no_down_is_false(record: Record) -> None:
    assert false_downs(record) == []


@everywhere
def test_no_down_comes_before_its_deadline(record: Record) -> None:
    """KA-7.5-1: neither before the detector's deadline nor before `min_suspicion`."""
    case = CASES[record.name]
    for down in record.all("SessionDown"):
        judge = case.config(down.who)
        suspects = record.all("SessionSuspect", down.who, until=down.time)
        began = [each.time for each in suspects if each["session"] == down["session"]][-1]
        silence = down.time - down.fact("round_trip_at")
        assert silence >= bounds.silence(judge, case.client, case.server)
        assert down.time - began >= judge.min_suspicion_ms * bounds.MILLISECOND


@pytest.mark.parametrize(
    ("record", "who"),
    [(case.name, who) for case in CASES.values() if not case.crowd for who in case.sides],
    indirect=["record"],
)
def test_each_side_is_up_at_the_end(record: Record, who: str) -> None:
    assert record.last("Stats", who)["state"] == "UP"
