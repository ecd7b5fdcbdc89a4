"""Random loss each way: nobody is convicted, and the loss is measured truly."""

import pytest

from tests.system import bounds
from tests.system.record import Entry, Record
from tests.system.scenarios import SIDES
from tests.system.topology import Way

pytestmark = pytest.mark.system

# A reply that is more than 10 ms late, on a machine where all scenarios run at once, is a miss;
# some 70 probes are sent. It begins a suspicion, which the reply itself then ends.
NOISE = 4

PERCENTS = (0, 10, 20, 30)
lossy = pytest.mark.parametrize(
    ("record", "percent"),
    [(f"loss-{percent}", percent) for percent in PERCENTS],
    indirect=["record"],
)


@lossy
def test_nobody_is_down_or_half_open(record: Record, percent: int) -> None:
    assert record.all("SessionDown") == []
    assert record.all("SessionHalfOpen") == []


@lossy
def test_both_sides_keep_one_session(record: Record, percent: int) -> None:
    for who in SIDES:
        assert {up["session"] for up in record.all("SessionUp", who)} == {0}


@lossy
@pytest.mark.parametrize("who", SIDES)
def test_the_loss_is_what_was_asked_for(record: Record, percent: int, who: str) -> None:
    """Section 10.1, within what chance allows for so many frames."""
    stats = record.last("Stats", who)
    for lost, loss in (("lost_out", "loss_out"), ("lost_in", "loss_in")):
        counted = round(stats[lost] / stats[loss]) if stats[loss] else stats["sent"]
        assert stats[lost] in bounds.likely(counted, percent / 100)


@lossy
@pytest.mark.parametrize(
    ("way", "sender", "receiver"),
    [(Way.TO_SERVER, "client", "server"), (Way.TO_CLIENT, "server", "client")],
)
def test_the_loss_is_what_the_router_dropped(
    record: Record, percent: int, way: Way, sender: str, receiver: str
) -> None:
    """To the frame. What was lost just before a handshake is among the unreported (KA-10.1-3)."""
    dropped = record.last("Drops", "router")[way.name]
    sent, received = record.last("Stats", sender), record.last("Stats", receiver)
    for lost in (sent["lost_out"], received["lost_in"]):
        assert lost <= dropped <= lost + sent["unreported"]


@pytest.mark.parametrize("record", ["loss-0"], indirect=True)
@pytest.mark.parametrize("who", SIDES)
def test_a_clean_path_is_not_suspected(record: Record, who: str) -> None:
    suspects = record.all("SessionSuspect", who)
    assert len(suspects) <= NOISE
    assert all(ended_at_once(record, suspect) for suspect in suspects)
    assert record.last("Stats", who)["handshakes"] == 1


def ended_at_once(record: Record, suspect: Entry) -> bool:
    """Tell whether a suspicion was over before its third probe."""
    up = record.first("SessionUp", suspect.who, suspect.time)
    return up.time - suspect.time < 200 * bounds.MILLISECOND
