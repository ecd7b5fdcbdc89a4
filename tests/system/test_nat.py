"""A NAT that forgets a flow after 8 s: kaudp keeps its binding, a silent flow loses its own."""

from itertools import pairwise

import pytest

from tests.system.record import SECOND, Entry, Record
from tests.system.scenarios import CONTROL_AFTER_S, MAPPING_SAMPLE_S, SIDES
from tests.system.topology import MAPPING_STREAM_S

pytestmark = [
    pytest.mark.system,
    pytest.mark.parametrize("record", ["binding"], indirect=True),
]

KAUDP_PORT = 4600
CONTROL_PORT = 4700
LIFETIMES = 10
# See test_loss: a reply that is late on this machine. Some 20 probes are sent.
NOISE = 2


def test_the_session_is_up_for_ten_lifetimes(record: Record) -> None:
    begin, frozen = quiet_time(record)
    assert frozen - begin >= LIFETIMES * MAPPING_STREAM_S * SECOND
    for who in SIDES:
        assert record.all("SessionDown", who) == []
        assert record.all("SessionHalfOpen", who) == []
        assert len(record.all("SessionSuspect", who, begin, frozen)) <= NOISE
        assert record.last("Stats", who)["handshakes"] == 1


def test_nobody_changes_its_address(record: Record) -> None:
    assert record.all("OwnAddressChanged") == []
    assert record.all("PeerAddressChanged") == []


def test_the_binding_is_the_same_all_the_time(record: Record) -> None:
    seen = mappings(record, KAUDP_PORT)
    assert len({(each["identity"], each["inner_port"], each["outer_port"]) for each in seen}) == 1
    packets = [each["packets_out"] for each in seen]
    assert packets == sorted(packets)
    gaps = [after.time - before.time for before, after in pairwise(seen)]
    assert max(gaps) < 3 * MAPPING_SAMPLE_S * SECOND


def test_the_server_still_reaches_a_client_that_says_nothing(record: Record) -> None:
    """The frozen client sends nothing: what passes to it meanwhile is the server's own doing."""
    _, frozen = quiet_time(record)
    thawed = record.first("Mended", "stage").time
    before, after = mappings(record, KAUDP_PORT, frozen, thawed)
    assert after["packets_out"] == before["packets_out"]
    arrived = after["packets_back"] - before["packets_back"]
    assert arrived > 0
    received = [record.last("Stats", "client", until=at)["received"] for at in (frozen, 1 << 63)]
    assert received[1] - received[0] >= arrived


def test_a_flow_without_kaudp_dies(record: Record) -> None:
    early, late = CONTROL_AFTER_S
    assert late > MAPPING_STREAM_S
    assert [sent["after"] for sent in record.all("ControlSent")] == [early, late]
    assert [heard["after"] for heard in record.all("ControlHeard")] == [early]
    sent = record.last("ControlSent", "answerer").time
    assert mappings(record, CONTROL_PORT, since=sent) == []


def quiet_time(record: Record) -> tuple[int, int]:
    """Give when the scenario began, and when the client was frozen at its end."""
    return record.first("Begin", "stage").time, record.first("Fault", "stage").time


def mappings(record: Record, port: int, since: int = 0, until: int = 1 << 63) -> list[Entry]:
    """Give the samples of one flow's mapping."""
    seen = record.all("Mapping", "router", since, until)
    return [each for each in seen if each["server_port"] == port]
