"""core/totals: what outlives the sessions."""

from collections import Counter
from random import Random

import pytest

from kaudp.config import Config
from kaudp.core.totals import ROUND_TRIP_BOUNDS, Totals
from kaudp.errors import DropReason
from kaudp.events import State
from tests.worlds import MS, Pair, S


def grew(before: Totals, after: Totals) -> bool:
    """Tell whether no number of `after` is below that of `before`."""
    counters = ("refused", "unsent", "events", "events_lost")
    numbers = ("received", "sent", "suspicions", "stalls", "round_trip_time")
    buckets = zip(before.round_trips, after.round_trips, strict=True)
    return all(
        getattr(before, name) <= getattr(after, name) for name in (*counters, *numbers)
    ) and all(a <= b for a, b in buckets)


@pytest.mark.parametrize("seed", range(5))
def test_totals_never_go_back_whatever_becomes_of_the_sessions(seed: int) -> None:
    """The far node's sessions come, are cut off, stall, restart their handshake, and end."""
    rng = Random(seed)
    pair = Pair(seed, alice=Config.lan(), bob=Config.lan(), loss=0.1).up()
    tallies = [node.endpoint.tally().totals for node in (pair.alice, pair.bob)]
    for _ in range(60):
        act = rng.randrange(6)
        if act == 0:
            pair.cut(cut=rng.random() < 0.6)
        elif act == 1:
            pair.world.stall(pair.bob, 300 * MS)
        elif act == 2 and pair.session.state is not State.CLOSED:
            pair.session.close(pair.now)
        elif act == 3 and pair.session.state is State.CLOSED:
            key_id = pair.session.key_id
            pair.session = pair.alice.endpoint.connect(pair.bob.address, pair.now, key_id=key_id)
        pair.run(rng.randrange(1, 1_500) * MS)
        now = [node.endpoint.tally().totals for node in (pair.alice, pair.bob)]
        assert all(grew(a, b) for a, b in zip(tallies, now, strict=True)), f"seed {seed}"
        tallies = now
    assert tallies[0].suspicions == tallies[0].events["SessionSuspect"] > 0


def test_what_a_session_counted_stays_when_it_is_forgotten() -> None:
    pair = Pair(alice=Config.lan(), bob=Config.lan()).up()
    pair.world.stall(pair.alice, 350 * MS)
    pair.run(S)
    assert pair.session.stats.stalls == 1
    pair.cut()
    pair.run_to(State.DOWN)
    counted = pair.session.stats
    pair.session.close(pair.now)
    pair.run(60 * S)
    tally = pair.alice.endpoint.tally()
    assert tally.sessions == Counter()
    assert (tally.totals.stalls, tally.totals.suspicions) == (counted.stalls, counted.suspicions)
    assert sum(tally.totals.round_trips) == counted.round_trips
    assert counted.rtt_mean == tally.totals.round_trip_time // counted.round_trips


def test_sessions_are_counted_by_state_also_while_they_connect() -> None:
    pair = Pair()
    assert pair.alice.endpoint.tally().sessions == {State.CONNECTING: 1}
    pair.up()
    assert pair.alice.endpoint.tally().sessions == {State.UP: 1}
    pair.cut()
    pair.run_to(State.SUSPECT)
    # A handshake of a suspicion is no second session.
    pair.run(5 * S)
    assert pair.alice.endpoint.tally().sessions == {pair.session.state: 1}


def test_accepted_and_refused_make_up_all_that_came() -> None:
    pair = Pair().up()
    bob = pair.bob.endpoint
    before = bob.tally().totals
    for data in (b"", b"\x0b" * 64, bytes(100)):
        assert not bob.receive_datagram(data, ("192.0.2.9", 9), pair.now)
    after = bob.tally().totals
    assert after.refused - before.refused == {DropReason.NOT_KAUDP: 3}
    assert after.received == before.received
    pair.run(20 * S)
    assert bob.tally().totals.received > before.received


def test_round_trips_fall_into_the_bucket_of_the_bound_they_do_not_exceed() -> None:
    totals = Totals()
    for rtt in (0, ROUND_TRIP_BOUNDS[0], ROUND_TRIP_BOUNDS[0] + 1, ROUND_TRIP_BOUNDS[-1] + 1):
        totals.round_trip(rtt)
    middle = [0] * (len(ROUND_TRIP_BOUNDS) - 2)
    assert totals.round_trips == [2, 1, *middle, 1]
    assert (totals + totals).round_trips == [4, 2, *middle, 2]


def test_a_tally_is_a_copy() -> None:
    pair = Pair().up()
    tally = pair.alice.endpoint.tally()
    events, received = tally.totals.events.copy(), tally.totals.received
    pair.cut()
    pair.run_to(State.DOWN)
    assert (tally.totals.events, tally.totals.received) == (events, received)
    assert tally.sessions == {State.UP: 1}
