"""core/bucket and core/push_back: what is too often."""

from kaudp.core.bucket import Bucket
from kaudp.core.push_back import SLOW_DOWN_BURST, SLOW_DOWN_SPACING, PushBack
from tests.worlds import MS, S


def taken(bucket: Bucket, step: int, now: int) -> int:
    """Take until it is empty."""
    count = 0
    while bucket.take(step, now):
        count += 1
    return count


def test_a_bucket_holds_its_capacity_and_refills_by_steps() -> None:
    """KA-8.9-2."""
    bucket = Bucket(5, 100)
    assert bucket.capacity == 5
    assert taken(bucket, 10, 100) == 5
    assert taken(bucket, 10, 109) == 0
    assert taken(bucket, 10, 110) == 1
    assert taken(bucket, 10, 139) == 2, "the rest of a step is kept"
    assert taken(bucket, 10, 140) == 1
    assert taken(bucket, 10, 1000) == 5, "never more than it holds"
    assert taken(bucket, 10, 1009) == 0


def test_a_bucket_that_is_full_keeps_no_time() -> None:
    """KA-8.9-2: what was not used does not add up."""
    bucket = Bucket(2, 0)
    assert bucket.take(10, 95)
    assert taken(bucket, 10, 99) == 1
    assert taken(bucket, 10, 104) == 0
    assert taken(bucket, 10, 105) == 1
    single = Bucket(1, 0)
    assert [single.take(10, now) for now in (0, 9, 15, 24, 25)] == [True, False, True, False, True]


def test_a_step_is_at_least_a_nanosecond() -> None:
    """KA-8.9-2: an interval of nothing divides nothing by zero."""
    bucket = Bucket(3, 0)
    assert taken(bucket, 0, 0) == 3
    assert taken(bucket, 0, 1) == 1


def asks(push_back: PushBack, interval: int, spacing: int, count: int, start: int = 0) -> list[int]:
    """Give which of so many probes, one each `spacing`, bring a SLOW_DOWN about."""
    return [n for n in range(count) if push_back.probed(interval, start + n * spacing)]


def test_a_burst_within_the_bucket_is_nothing_to_speak_of() -> None:
    """KA-8.9-2: the 129th at one instant is, and then not again for a minute."""
    assert asks(PushBack(0), S, 0, SLOW_DOWN_BURST) == []
    push_back = PushBack(0)
    assert asks(push_back, S, 0, 200) == [SLOW_DOWN_BURST]
    start = SLOW_DOWN_SPACING - 1
    assert asks(push_back, S, 0, 1000, start) == []
    assert push_back.probed(S, SLOW_DOWN_SPACING)


def test_four_times_the_agreed_rate_is_borne_for_ever() -> None:
    """KA-8.9-2: five times is not; intervals over a second count as one."""
    for interval in (100 * MS, S):
        assert asks(PushBack(0), interval, interval // 4, 2000) == []
        assert asks(PushBack(0), interval, interval // 5, 2000)
    assert asks(PushBack(0), 60 * S, 250 * MS, 2000) == []
    assert asks(PushBack(0), 60 * S, 249 * MS, 40_000)
