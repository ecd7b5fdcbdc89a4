"""Random loss each way: nobody is convicted, and the loss is measured truly."""

import pytest

from tests.system import bounds
from tests.system.record import Entry, Record
from tests.system.scenarios import CASES, SIDES
from tests.system.topology import Way

pytestmark = pytest.mark.system

# A reply that is more than 10 ms late, on a machine where all scenarios run at once, is a miss;
# some 70 probes are sent. It begins a suspicion, which the reply itself then ends.
NOISE = 4

# Besides frames the router counts QUIC packets of the same length: INITs and RESPONSEs of
# suspicions, one or two a minute, and what the QUIC handshake repeats of its own.
QUIC_OTHERS = 8

PERCENTS = {
    **{f"loss-{percent}": percent for percent in (0, 10, 20, 30)},
    **{f"quic-loss-{name}": 20 for name in ("datagram", "ping")},
}
COUNTED = {name: percent for name, percent in PERCENTS.items() if name != "quic-loss-ping"}
lossy = pytest.mark.parametrize("record", [*PERCENTS], indirect=True)
counted = pytest.mark.parametrize(("record", "percent"), [*COUNTED.items()], indirect=["record"])


@lossy
def test_nobody_is_down_or_half_open(record: Record) -> None:
    assert record.all("SessionDown") == []
    assert record.all("SessionHalfOpen") == []


@lossy
def test_each_side_keeps_one_session(record: Record) -> None:
    for who in CASES[record.name].sides:
        assert {up["session"] for up in record.all("SessionUp", who)} == {0}


@counted
@pytest.mark.parametrize("who", SIDES)
def test_the_loss_is_what_was_asked_for(record: Record, percent: int, who: str) -> None:
    """Section 10.1, within what chance allows for so many frames."""
    stats = record.last("Stats", who)
    for lost, loss in (("lost_out", "loss_out"), ("lost_in", "loss_in")):
        counted = round(stats[lost] / stats[loss]) if stats[loss] else stats["sent"]
        assert stats[lost] in bounds.likely(counted, percent / 100)


@counted
@pytest.mark.parametrize(
    ("way", "sender", "receiver"),
    [(Way.TO_SERVER, "client", "server"), (Way.TO_CLIENT, "server", "client")],
)
def test_the_loss_is_what_the_router_dropped(
    record: Record, percent: int, way: Way, sender: str, receiver: str
) -> None:
    """To the frame. What was lost just before a handshake is among the unreported (KA-10.1-3)."""
    others = 0 if CASES[record.name].carrier.over_udp else QUIC_OTHERS
    dropped = record.last("Drops", "router")[way.name]
    sent, received = record.last("Stats", sender), record.last("Stats", receiver)
    for lost in (sent["lost_out"], received["lost_in"]):
        assert lost <= dropped <= lost + sent["unreported"] + others


@pytest.mark.parametrize("record", ["quic-loss-ping"], indirect=True)
def test_loss_is_not_told_where_quic_repeats_what_is_lost(record: Record) -> None:
    """KA-14.3-5. That something was lost shows in the suspicions: one probe in three fails."""
    for stats in record.all("Stats", "client"):
        assert (stats["loss_out"], stats["loss_in"]) == (None, None)
    assert record.last("Stats", "client")["suspicions"] > 0


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
