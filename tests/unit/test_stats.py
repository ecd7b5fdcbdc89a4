"""core/stats: frames counted in one direction."""

from kaudp.core.stats import DirectionCounts


def test_loss_of_one_direction() -> None:
    """KA-10.1-3: over all keys that were in use."""
    counts = DirectionCounts()
    assert (counts.lost, counts.loss) == (0, None)
    counts.add(10, 8)
    counts.add(30, 30)
    assert (counts.sent, counts.arrived, counts.lost, counts.loss) == (40, 38, 2, 0.05)


def test_a_peer_that_claims_more_than_was_sent_is_not_believed() -> None:
    """KA-10.1-3: loss is never below zero."""
    counts = DirectionCounts()
    counts.add(10, 99)
    assert (counts.arrived, counts.loss) == (10, 0.0)
