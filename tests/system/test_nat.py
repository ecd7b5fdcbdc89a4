"""A NAT that forgets a flow after 8 s: kaudp keeps its binding, a silent flow loses its own.

The same over UDP and inside QUIC, whose idle timeout of 60 s would let the binding die.
"""

from itertools import pairwise

import pytest

from tests.system.record import SECOND, Entry, Record
from tests.system.scenarios import (
    CASES,
    CONTROL_AFTER_S,
    CONTROL_PORT,
    MAPPING_SAMPLE_S,
    PORT,
    SIDES,
)
from tests.system.topology import MAPPING_STREAM_S

pytestmark = pytest.mark.system

LIFETIMES = 10
# See test_loss: a reply that is late on this machine. Some 20 probes are sent.
NOISE = 2
# What QUIC repeats by its own timers, it repeats several times in this.
REACH_S = 10

QUIC = ("quic-binding-datagram", "quic-binding-ping")
scenario = pytest.mark.parametrize("record", ["binding"], indirect=True)
attached = pytest.mark.parametrize("record", ["quic-binding-ping"], indirect=True)
everywhere = pytest.mark.parametrize("record", ["binding", *QUIC], indirect=True)


@everywhere
def test_the_session_is_up_for_ten_lifetimes(record: Record) -> None:
    begin, watched = quiet_time(record)
    assert watched - begin >= LIFETIMES * MAPPING_STREAM_S * SECOND
    for who in CASES[record.name].sides:
        assert record.all("SessionDown", who) == []
        assert record.all("SessionHalfOpen", who) == []
        assert record.all("SessionClosed", who, until=watched) == []
        assert len(record.all("SessionSuspect", who, begin, watched)) <= NOISE
        assert record.last("Stats", who)["handshakes"] == 1


@everywhere
def test_nobody_changes_its_address(record: Record) -> None:
    assert record.all("OwnAddressChanged") == []
    assert record.all("PeerAddressChanged") == []


@everywhere
def test_the_binding_is_the_same_all_the_time(record: Record) -> None:
    seen = mappings(record, PORT)
    begin, watched = quiet_time(record)
    assert len({(each["identity"], each["inner_port"], each["outer_port"]) for each in seen}) == 1
    packets = [each["packets_out"] for each in seen]
    assert packets == sorted(packets)
    # From the first second to the last: a binding that is gone is in no sample.
    times = [begin, *(each.time for each in seen if begin < each.time < watched), watched]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) < 3 * MAPPING_SAMPLE_S * SECOND


@scenario
def test_the_server_still_reaches_a_client_that_says_nothing(record: Record) -> None:
    """The frozen client sends nothing: what passes to it meanwhile is the server's own doing."""
    frozen = record.first("Fault", "stage").time
    thawed = record.first("Mended", "stage").time
    before, after = mappings(record, PORT, frozen, thawed)
    assert after["packets_out"] == before["packets_out"]
    arrived = after["packets_back"] - before["packets_back"]
    assert arrived > 0
    received = [record.last("Stats", "client", until=at)["received"] for at in (frozen, 1 << 63)]
    assert received[1] - received[0] >= arrived


@everywhere
def test_a_flow_without_kaudp_dies(record: Record) -> None:
    """What it is sent later than the NAT remembers it does not get, however often QUIC repeats."""
    early, late = CONTROL_AFTER_S
    assert late > MAPPING_STREAM_S
    assert [sent["after"] for sent in record.all("ControlSent", "answerer")] == [early, late]
    assert [heard["after"] for heard in record.all("ControlHeard", "asker")] == [early]
    sent = record.last("ControlSent", "answerer").time
    _, watched = quiet_time(record)
    assert watched - sent >= REACH_S * SECOND
    # That there was a mapping the early answer has shown.
    assert mappings(record, CONTROL_PORT, since=sent) == []
    assert mappings(record, PORT, since=sent) != []


@attached
def test_the_same_application_with_kaudp_gets_it(record: Record) -> None:
    for after in CONTROL_AFTER_S:
        (sent,) = (each for each in record.all("ControlSent", "server") if each["after"] == after)
        (heard,) = (each for each in record.all("ControlHeard", "client") if each["after"] == after)
        assert heard.time - sent.time < REACH_S * SECOND


@attached
def test_a_server_without_kaudp_needs_ping(record: Record) -> None:
    assert [each["mode"] for each in record.all("ModeChosen")] == ["PING"]


@pytest.mark.parametrize("record", ["quic-binding-datagram"], indirect=True)
def test_two_sides_with_kaudp_use_datagrams(record: Record) -> None:
    chosen = record.all("ModeChosen")
    assert {each.who: each["mode"] for each in chosen} == dict.fromkeys(SIDES, "DATAGRAM")


def quiet_time(record: Record) -> tuple[int, int]:
    """Give from when to when nothing was done to the scenario."""
    return record.first("Begin", "stage").time, record.first("Watched", "stage").time


def mappings(record: Record, port: int, since: int = 0, until: int = 1 << 63) -> list[Entry]:
    """Give the samples of one flow's mapping."""
    seen = record.all("Mapping", "router", since, until)
    return [each for each in seen if each["server_port"] == port]
