"""A NAT that forgets a flow's mapping (`conntrack -D`) and gives it another port."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.system import bounds
from tests.system.record import Entry, Record
from tests.system.scenarios import CASES, PORT, Carrier
from tests.system.summary import Outage, outages

pytestmark = pytest.mark.system

CLOSING = ("SessionDown", "SessionHalfOpen", "SessionClosed", "ConnectFailed")

rebound = pytest.mark.parametrize(
    "record", ["rebinding", "quic-rebinding-datagram", "quic-rebinding-ping"], indirect=True
)


@rebound
def test_the_nat_did_give_another_port(record: Record) -> None:
    """Otherwise nothing else here says anything."""
    assert outages(record)
    assert all(before["outer_port"] != after["outer_port"] for before, after in ports(record))


@rebound
def test_the_session_survives(record: Record) -> None:
    stopping = record.first("Stopping", "client").time
    assert [each for kind in CLOSING for each in record.all(kind, until=stopping)] == []
    for who in CASES[record.name].sides:
        assert len({each["session"] for each in record.all("SessionUp", who)}) == 1


@rebound
def test_it_needs_no_handshake(record: Record) -> None:
    for who in CASES[record.name].sides:
        assert record.last("Stats", who)["handshakes"] == 1


@rebound
def test_each_side_that_can_know_tells_it_once(record: Record) -> None:
    """KA-9.1-2, KA-9.2-1, KA-14.8-1; and tells the ports that the router has given."""
    told = CASES[record.name].rebinding_told
    for outage, (before, after) in zip(outages(record), ports(record), strict=True):
        for who, kind in told:
            (event,) = record.all(kind, who, outage.began, outage.ends)
            assert event["previous"][1] == before["outer_port"]
            assert event["address"][1] == after["outer_port"]
    kinds = {"PeerAddressChanged", "OwnAddressChanged"}
    tellers = {(each.who, each.kind) for kind in kinds for each in record.all(kind)}
    assert tellers == set(told)


@rebound
def test_it_is_told_within_the_bound(record: Record) -> None:
    """The first frame through the new mapping is the client's next probe, T later at most.

    In mode ping the server looks where QUIC sends to when its own next PING is acknowledged.
    """
    case = CASES[record.name]
    by_ping = case.carrier is Carrier.MUTUAL_PING
    period = case.server.interval_ms * bounds.MILLISECOND if by_ping else case.interval
    for outage in outages(record):
        for who, kind in case.rebinding_told:
            event = record.first(kind, who, outage.began, outage.ends)
            assert delay(event, outage) <= period + 2 * event.fact("probe_timeout") + bounds.SLACK


def delay(event: Entry, outage: Outage) -> int:
    """Tell how long after the rebinding something was told."""
    return event.time - outage.done


def ports(record: Record) -> Iterator[tuple[Entry, Entry]]:
    """Give the mapping before and after each rebinding."""
    seen = [each for each in record.all("Mapping", "router") if each["server_port"] == PORT]
    for outage in outages(record):
        yield next(
            (before, after)
            for before, after in pairwise(seen)
            if before.time <= outage.began < after.time
        )
