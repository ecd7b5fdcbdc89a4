"""A path that is cut, a process that is frozen, a server that is started anew."""

import pytest

from tests.system import bounds
from tests.system.record import Entry, Record
from tests.system.scenarios import CASES, SIDES
from tests.system.summary import Outage, outages, verdict

pytestmark = pytest.mark.system

GONE = (
    *("cut", "cut-to-client", "cut-to-server", "frozen-server", "frozen-client"),
    *("quic-cut-datagram", "quic-cut-ping"),
)
# A round trip takes 1 to 3 ms here, and aioquic answers within 25 ms; the rest is a late loop.
PATH_PTO = bounds.SLACK
PTO_GRANULARITY = 10 * bounds.MILLISECOND


def scenarios(*names: str) -> pytest.MarkDecorator:
    """Judge the records of these scenarios."""
    return pytest.mark.parametrize("record", names, indirect=True)


def convicts(*names: str) -> pytest.MarkDecorator:
    """Judge these records, for each side that the fault brings DOWN."""
    pairs = [(name, who) for name in names for who in sorted(CASES[name].convicts)]
    return pytest.mark.parametrize(("record", "who"), pairs, indirect=["record"])


@convicts(*GONE)
def test_a_peer_that_is_gone_is_suspected_then_down_within_the_bound(
    record: Record, who: str
) -> None:
    case = CASES[record.name]
    for outage in outages(record):
        down = record.first("SessionDown", who, outage.began, outage.mended)
        suspect = record.last("SessionSuspect", who, until=down.time)
        pto = down.fact("probe_timeout")
        bound = bounds.detection(case.config(who), case.client, case.server, pto)
        assert outage.began <= suspect.time
        assert suspect.time - outage.done <= bounds.suspicion(case.client, case.server, pto)
        assert down.time - outage.done <= bound


@convicts(*GONE)
def test_a_peer_that_is_back_is_up_within_the_bound(record: Record, who: str) -> None:
    for outage in outages(record):
        assert_recovers(record, who, outage)


@convicts("cut", "quic-cut-datagram", "quic-cut-ping")
def test_a_cut_teaches_nothing_false_of_the_path(record: Record, who: str) -> None:
    """What waited for the cut to end, in QUIC or on the way, says nothing of the path's response.

    Otherwise the next cut is noticed that much later, and the bound above grows with it. What a
    noisy start taught is known before the first cut, and fades.
    """
    first, *later = (
        record.first("SessionDown", who, outage.began, outage.mended).fact("probe_timeout")
        for outage in outages(record)
    )
    assert later
    assert max(later) <= max(first, PATH_PTO)


@pytest.mark.parametrize(
    ("record", "deaf", "heard_by"),
    [("cut-to-client", "client", "server"), ("cut-to-server", "server", "client")],
    indirect=["record"],
)
class TestOneWay:
    """The deaf side goes DOWN; the side that hears it is HALF_OPEN."""

    def test_who_hears_nothing_is_never_half_open(
        self, record: Record, deaf: str, heard_by: str
    ) -> None:
        assert record.all("SessionHalfOpen", deaf) == []

    def test_the_verdict_of_who_is_not_heard_follows_what_it_heard(
        self, record: Record, deaf: str, heard_by: str
    ) -> None:
        """KA-7.5-2. The other's last fast probe is now and then just too old for HALF_OPEN."""
        case = CASES[record.name]
        for outage in outages(record):
            passed = verdict(record, heard_by, outage)
            silence = passed.time - passed.fact("rx_at")
            hears = silence <= case.interval + passed.fact("probe_timeout")
            assert passed.kind == ("SessionHalfOpen" if hears else "SessionDown")

    def test_half_open_lasts_while_frames_arrive(
        self, record: Record, deaf: str, heard_by: str
    ) -> None:
        """KA-7.5-3, for as long as the DOWN side's back-off takes to reach its full length."""
        for outage in outages(record):
            for half in record.all("SessionHalfOpen", heard_by, outage.began, outage.mended):
                assert states(record, heard_by, half.time + 1, outage.mended) == []

    def test_who_was_not_heard_is_up_again_within_the_bound(
        self, record: Record, deaf: str, heard_by: str
    ) -> None:
        for outage in outages(record):
            assert_recovers(record, heard_by, outage)


@scenarios("frames-lost", "frames-cut")
def test_handshakes_that_lead_nowhere_make_no_second_session(record: Record) -> None:
    """KA-4.3-5: a second one would leave the first to go DOWN although the peer lives."""
    assert {told["session"] for told in record.all("SessionUp", "server")} == {0}


@pytest.mark.parametrize(
    ("record", "who"),
    [("frozen-server", "server"), ("frozen-client", "client")],
    indirect=["record"],
)
class TestFrozen:
    """A side that did not run blames itself (section 7.7)."""

    def test_it_does_not_convict_its_peer(self, record: Record, who: str) -> None:
        assert record.all("SessionDown", who) == []
        assert record.all("SessionHalfOpen", who) == []

    def test_it_does_not_take_its_own_stall_for_silence(self, record: Record, who: str) -> None:
        """KA-7.7-1, -2: it judges one PTO after it woke up at the earliest."""
        for outage in outages(record):
            woken = outage.mended
            assert record.all("SessionSuspect", who, woken, woken + PTO_GRANULARITY) == []

    def test_the_session_moves_once_at_most(self, record: Record, who: str) -> None:
        """KA-9.1-2: the client takes one fresh socket while DOWN; the old one is closed."""
        for outage in outages(record):
            assert len(record.all("PeerAddressChanged", None, outage.began, outage.ends)) <= 1


@scenarios("restart")
class TestRestart:
    """A server that is killed and started again knows nothing of before."""

    def test_the_client_reports_each_restart_once(self, record: Record) -> None:
        for outage in outages(record):
            assert len(record.all("PeerRestarted", "client", outage.began, outage.ends)) == 1
        assert record.all("PeerRestarted", "server") == []

    def test_the_client_is_up_again_within_the_bound(self, record: Record) -> None:
        case = CASES[record.name]
        for outage in outages(record):
            restarted = record.first("PeerRestarted", "client", outage.mended)
            up = record.first("SessionUp", "client", restarted.time)
            length = outage.mended_done - outage.began
            pto = up.fact("probe_timeout")
            bound = bounds.reunion(case.client, case.server, pto, length)
            assert up.time - outage.mended_done <= bound

    def test_the_new_server_has_one_new_session(self, record: Record) -> None:
        for outage in outages(record):
            ups = record.all("SessionUp", "server", outage.mended, outage.ends)
            assert ups[0]["previous"] == "CONNECTING"
            assert {up["session"] for up in ups} == {0}


@scenarios("quick-restart")
class TestQuickRestart:
    """A server that runs again before its client has missed it."""

    def test_it_ran_before_it_was_suspected(self, record: Record) -> None:
        """Otherwise nothing else here says anything."""
        for outage in outages(record):
            suspect = record.first("SessionSuspect", "client", outage.began, outage.ends)
            assert outage.mended_done < suspect.time

    def test_the_client_knows_it_a_round_trip_after_its_suspicion(self, record: Record) -> None:
        case = CASES[record.name]
        for outage in outages(record):
            suspect = record.first("SessionSuspect", "client", outage.began, outage.ends)
            (restarted,) = record.all("PeerRestarted", "client", outage.began, outage.ends)
            pto = suspect.fact("probe_timeout")
            bound = bounds.recognition(case.client, case.server, pto)
            assert restarted.time - suspect.time <= bound

    def test_nobody_is_down(self, record: Record) -> None:
        assert record.all("SessionDown") == []


@scenarios("client-restart")
class TestClientRestart:
    """A client that is killed and started again, and says so by its instance id."""

    def test_the_server_reports_each_restart_once(self, record: Record) -> None:
        """KA-4.7-1, KA-7.4-6: with the first PROBE, which follows the client's UP at once."""
        for outage in outages(record):
            up = record.first("SessionUp", "client", outage.mended)
            (restarted,) = record.all("PeerRestarted", "server", outage.began, outage.ends)
            assert restarted.time - up.time <= bounds.SLACK
        assert record.all("PeerRestarted", "client") == []

    def test_its_session_at_the_server_goes_on(self, record: Record) -> None:
        """Otherwise the one of before would go DOWN although the peer lives."""
        assert {each["session"] for each in record.all("Stats", "server")} == {0}
        assert {each["session"] for each in record.all("SessionUp", "server")} == {0}
        assert record.all("SessionDown") == []


def assert_recovers(record: Record, who: str, outage: Outage) -> None:
    """Assert that a side is UP in time after the path was mended."""
    case = CASES[record.name]
    up = record.first("SessionUp", who, outage.mended, outage.ends)
    bound = bounds.recovery(case.client, case.server, up.fact("probe_timeout"))
    assert up.time - outage.mended_done <= bound


def states(record: Record, who: str, since: int, until: int) -> list[Entry]:
    """Give the changes of state of a side."""
    kinds = ("SessionUp", "SessionSuspect", "SessionHalfOpen", "SessionDown", "SessionClosed")
    return [entry for kind in kinds for entry in record.all(kind, who, since, until)]


def test_every_side_is_a_side() -> None:
    """The tables above name sides by hand."""
    assert all(case.convicts <= set(SIDES) for case in CASES.values())
