"""core/agreement: the interval that follows from what both sides told."""

from kaudp.config import Config
from kaudp.core.agreement import MIN_INTERVAL, Agreement, Told, own_parameters
from kaudp.wire.codec import Parameters
from tests.worlds import MS, S

WAN = Config.wan()
MS_IN_US = 1_000


def parameters(desired: int, least: int = 0) -> Parameters:
    """Give parameters by their intervals in ms."""
    return Parameters(desired * MS_IN_US, least * MS_IN_US, 20_000, 64, 0)


def agreed(initiator: bool, own: Parameters, peer: Parameters, config: Config = WAN) -> Agreement:
    agreement = Agreement(config, own, initiator=initiator)
    agreement.established(own, peer)
    return agreement


def test_what_a_configuration_says() -> None:
    """KA-3.3-1: in microseconds, and within 32 bits."""
    config = Config.wan(
        interval_ms=3_000,
        min_receive_interval_ms=40,
        suspicion_receive_interval_ms=5,
        suspicion_receive_burst=7,
        application_traffic=True,
    )
    assert own_parameters(config) == Parameters(3_000_000, 40_000, 5_000, 7, 1)
    assert own_parameters(Config.wan()).features == 0


def test_before_a_handshake_the_peer_is_taken_to_be_as_we_are() -> None:
    """KA-8.1-1."""
    agreement = Agreement(WAN, parameters(2_000, 3_000), initiator=True)
    assert agreement.interval == agreement.judged_interval == 3 * S
    assert agreement.settled


def test_the_initiators_wish_and_the_responders_willingness() -> None:
    """KA-8.1-1: the other two values do not count, and 10 ms is the least."""
    one, two = parameters(2_000, 9_000), parameters(7_000, 3_000)
    assert agreed(True, one, two).interval == agreed(False, two, one).interval == 3 * S
    assert agreed(False, one, two).interval == agreed(True, two, one).interval == 9 * S
    assert agreed(True, parameters(1), parameters(1)).interval == MIN_INTERVAL == 10 * MS


def test_a_side_judges_by_its_limit_or_its_own_wish() -> None:
    """KA-8.1-2: the wish is an initiator's."""
    config = Config.wan(max_peer_interval_ms=4_000)
    slow = parameters(60_000)
    own = agreed(True, parameters(5_000), parameters(1, 9_000), config)
    assert (own.interval, own.judged_interval) == (9 * S, 5 * S)
    assert agreed(True, parameters(1_000), parameters(1, 9_000), config).judged_interval == 4 * S
    responder = agreed(False, slow, slow, config)
    assert (responder.interval, responder.judged_interval) == (60 * S, 4 * S)


def test_what_a_peer_allows_in_suspicion() -> None:
    """KA-7.4-2 KA-7.4-4: never rarer than the interval that is judged by."""
    peer = Parameters(1, 1, 50_000, 9, 0)
    agreement = agreed(True, parameters(1_000), peer)
    assert (agreement.suspicion_interval, agreement.suspicion_burst) == (50 * MS, 9)
    assert agreed(True, parameters(30), peer).suspicion_interval == 30 * MS


def test_traffic_replaces_probes_only_where_both_say_so() -> None:
    """KA-8.5-1."""
    told = [parameters(1)._replace(features=features) for features in range(4)]
    allowed = {
        (a.features, b.features)
        for a in told
        for b in told
        if agreed(True, a, b).traffic_replaces_probes
    }
    assert allowed == {(1, 1), (1, 3), (3, 1), (3, 3)}


def test_until_a_change_is_settled_the_shortest_is_probed_by_and_the_longest_judged_by() -> None:
    """KA-8.8-1 KA-8.8-2 KA-8.8-3: whichever side changes, up or down; features stay."""
    agreement = agreed(True, parameters(2_000), parameters(1)._replace(features=1))
    agreement.own.change(parameters(5_000)._replace(features=1))
    assert not agreement.settled
    assert agreement.own.newest.features == 0
    assert (agreement.interval, agreement.judged_interval) == (2 * S, 5 * S)
    agreement.own.change(parameters(1_000))
    assert (agreement.interval, agreement.judged_interval) == (1 * S, 5 * S)
    agreement.own.settle()
    assert agreement.settled
    assert agreement.interval == agreement.judged_interval == 1 * S
    agreement.peer.change(parameters(1, 8_000))
    assert agreement.peer.newest.features == 1
    assert not agreement.settled
    assert (agreement.interval, agreement.judged_interval) == (1 * S, 8 * S)
    agreement.peer.settle()
    assert agreement.interval == agreement.judged_interval == 8 * S


def test_what_was_before_is_remembered_beside() -> None:
    """KA-8.8-2: each value for itself."""
    before, after = Told(Parameters(1, 9, 4, 6, 0)), Told(Parameters(5, 5, 5, 5, 0))
    after.remember(before)
    assert after.newest == Parameters(5, 5, 5, 5, 0)
    assert after.least == Parameters(1, 5, 4, 5, 0)
    assert after.most == Parameters(5, 9, 5, 6, 0)
    after.settle()
    assert after.settled


def test_an_initiators_handshake_settles_nothing_yet() -> None:
    """KA-8.8-3: a responder knows what it told only with its first PROBE."""
    told, peer = parameters(5_000), parameters(1)
    initiator = Agreement(WAN, parameters(2_000), initiator=True)
    initiator.established(told, peer)
    assert (initiator.interval, initiator.judged_interval) == (2 * S, 5 * S)
    assert initiator.own.newest == parameters(2_000), "what was changed since is to be told still"
    responder = Agreement(WAN, told, initiator=False)
    responder.established(told, peer)
    assert responder.settled


def test_a_change_during_a_handshake_is_to_be_settled_still() -> None:
    """KA-8.6-3 KA-8.8-2: also a responder's."""
    responder = agreed(False, parameters(1, 100), parameters(50))
    responder.own.change(parameters(1, 300))
    responder.established(parameters(1, 100), parameters(50))
    assert responder.own.newest == parameters(1, 300)
    assert (responder.interval, responder.judged_interval) == (100 * MS, 300 * MS)


def test_keys_settle_what_a_responder_told_and_not_what_an_initiator_did() -> None:
    """KA-8.8-3: where a change was not settled before."""
    for initiator in (True, False):
        agreement = agreed(initiator, parameters(2_000, 2_000), parameters(1))
        agreement.own.change(parameters(5_000, 5_000))
        agreement.established(parameters(5_000, 5_000), parameters(1))
        assert agreement.settled is not initiator
        assert agreement.own.newest == parameters(5_000, 5_000)
