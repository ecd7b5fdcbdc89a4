"""A client whose host gets another address."""

import pytest

from tests.system import bounds
from tests.system.record import Record
from tests.system.scenarios import CASES, SIDES
from tests.system.summary import outages
from tests.system.topology import CLIENT, CLIENT_ELSEWHERE

pytestmark = pytest.mark.system

CLOSING = ("SessionClosed", "ConnectFailed", "PeerRestarted")
VERDICTS = ("SessionDown", "SessionHalfOpen")

moved = pytest.mark.parametrize("record", ["moving", "moving-bound"], indirect=True)
unbound = pytest.mark.parametrize("record", ["moving"], indirect=True)
bound = pytest.mark.parametrize("record", ["moving-bound"], indirect=True)


@moved
def test_the_session_survives(record: Record) -> None:
    """The same at both ends: the address is not what names it (KA-9.1-1)."""
    stopping = record.first("Stopping", "client").time
    assert [each for kind in CLOSING for each in record.all(kind, until=stopping)] == []
    for who in SIDES:
        assert len({each["session"] for each in record.all("SessionUp", who)}) == 1


@moved
def test_both_ends_tell_the_new_address_once(record: Record) -> None:
    for count, outage in enumerate(outages(record)):
        old, new = (CLIENT, CLIENT_ELSEWHERE)[:: (1, -1)[count % 2]]
        for who, kind in CASES[record.name].rebinding_told:
            (event,) = record.all(kind, who, outage.began, outage.ends)
            assert (event["previous"][0], event["address"][0]) == (old, new)


@unbound
def test_nobody_is_convicted(record: Record) -> None:
    assert [each for kind in VERDICTS for each in record.all(kind)] == []


@unbound
@pytest.mark.parametrize("who", SIDES)
def test_it_needs_no_handshake(record: Record, who: str) -> None:
    assert record.last("Stats", who)["handshakes"] == 1


@unbound
def test_it_is_told_within_the_bound(record: Record) -> None:
    """The first frame from there is the client's next probe, T later at most."""
    case = CASES[record.name]
    for outage in outages(record):
        for who, kind in case.rebinding_told:
            event = record.first(kind, who, outage.began, outage.ends)
            limit = case.interval + 2 * event.fact("probe_timeout") + bounds.SLACK
            assert event.time - outage.done <= limit


@bound
def test_a_bound_socket_is_given_up_with_the_verdict(record: Record) -> None:
    """A connected socket keeps the address that is gone; DOWN brings a fresh one, then UP."""
    case = CASES[record.name]
    for outage in outages(record):
        down = record.first("SessionDown", "client", outage.began, outage.ends)
        up = record.first("SessionUp", "client", down.time, outage.ends)
        pto = down.fact("probe_timeout")
        detection = bounds.detection(case.client, case.client, case.server, pto)
        assert down.time - outage.done <= detection
        assert up.time - down.time <= bounds.recovery(case.client, case.server, pto)
