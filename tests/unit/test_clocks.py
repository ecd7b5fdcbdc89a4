"""core/clocks: the interval of the offset, to the nanosecond."""

from kaudp.core.clocks import ClockOffset, DelayVariation, Exchange


def test_without_a_sample_there_is_no_offset() -> None:
    """KA-10.3-1."""
    clock = ClockOffset()
    assert (clock.offset, clock.error) == (None, None)


def test_the_error_and_the_drift_are_rounded_up() -> None:
    """KA-10.3-1: two microseconds at both ends, 200 ppm of the age, and whole nanoseconds."""
    clock = ClockOffset()
    clock.sample(Exchange(0, 1_000, 1_000, 10))
    assert (clock.offset, clock.error) == (995, 2_006)
    clock.sample(Exchange(-50_000, 0, 0, 11))
    assert (clock.offset, clock.error) == (995, 2_007)
    clock.sample(Exchange(-50_000, 0, 0, 5_011))
    assert (clock.offset, clock.error) == (995, 2_008)
    clock.sample(Exchange(-50_000, 0, 0, 10_012))
    assert (clock.offset, clock.error) == (995, 2_010), "5,001 ns are more than one"


def test_variation_is_smoothed_over_sixteen() -> None:
    """KA-10.3-3."""
    variation = DelayVariation()
    seen = []
    for transit in (100, 100, 1_700, 1_700, 100):
        variation.sample(transit)
        seen.append(variation.mean)
    assert seen == [None, 0, 100, 93, 187]
