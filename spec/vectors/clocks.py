"""The peer's clock, and how the delay of one way varies (10.3)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from common import MICROSECOND, MILLISECOND, SECOND, U32, Json, described

CLOCKS = (
    "`samples` are round trips in the order of arrival, under the same keys: t1 and t4 are ns of "
    "the own clock since the instant at which it was `own_utc_us`, t2 and t3 of the peer's since "
    "the instant at which it was `peer_utc_us`; times of the wire that wrap at 2^32 µs are made "
    "whole. offset: after each, at its t4, peer's clock less own one lies from `low` to `high`, "
    "both of which count from those instants; `began_anew` tells that it had nothing in common "
    "with those before; `offset` (of the times of day, ns) is the middle, `error` half of the "
    "width. All numbers are such that no division leaves a rest. variation: `steps` holds the "
    "one-way-delay variation after each sample, of what goes out and of what comes in; a div b is "
    "floored for a negative a too."
)
DRIFT_PPM = 200
ROUNDING = 2 * MICROSECOND
DAY_US = 1_760_000_000_000_000  # some day in 2025, µs since 1970
TEN_MICROSECONDS = 10 * MICROSECOND  # in which a drift of 200 ppm is whole, and even


def clock_tests() -> Iterator[Json]:
    yield from single_samples()
    yield from offsets_over_time()
    yield from offsets_that_begin_anew()
    yield from random_offsets()
    yield from variations()


def single_samples() -> Iterator[Json]:
    ms = MILLISECOND
    for name, comment, sample in (
        ("none", "Both clocks agree.", trip(SECOND, 10 * ms, 10 * ms)),
        ("ahead", "The peer's clock is 3 s ahead.", trip(SECOND, 10 * ms, 10 * ms, 3 * SECOND)),
        ("behind", "It is 700 ms behind.", trip(SECOND, 10 * ms, 10 * ms, -700 * ms)),
        ("held", "What the peer held it for does not matter.", trip(SECOND, ms, ms, 0, SECOND)),
        ("asymmetric-out", "All delay is on the way out.", trip(SECOND, 80 * ms, 0)),
        ("asymmetric-in", "All delay is on the way in.", trip(SECOND, 0, 80 * ms)),
        ("at-once", "No delay: rounding alone.", trip(SECOND, 0, 0)),
        ("far", "The clocks have nothing to do with each other.", trip(0, ms, ms, 10**15)),
    ):
        yield offset_test(f"one-{name}", "10.3-1", comment, [sample])
    for name, comment, own, peer in (
        ("same-day", "Both tell the same time of day.", DAY_US, DAY_US),
        ("peer-ahead", "The peer's count began 42 s later.", DAY_US, DAY_US + 42_000_000),
        ("peer-behind", "It began a year earlier.", DAY_US, DAY_US - 31_536_000_000_000),
        ("peer-at-zero", "The peer believes in 1970.", DAY_US, 0),
        ("own-at-zero", "This side does.", 0, DAY_US),
    ):
        sample = trip(SECOND, 20 * ms, 20 * ms, -5 * SECOND)
        utc = {"own_utc_us": own, "peer_utc_us": peer}
        yield offset_test(f"utc-{name}", "10.3-1 10.3-2", comment, [sample], **utc)


def offsets_over_time() -> Iterator[Json]:
    ms = MILLISECOND
    yield offset_test(
        "repeated",
        "10.3-1",
        "The same round trips again and again: the older ones widen, the newest counts.",
        [trip(n * SECOND, 10 * ms, 10 * ms) for n in range(1, 6)],
    )
    yield offset_test(
        "narrower",
        "10.3-1",
        "A faster round trip narrows the interval from both ends.",
        [trip(SECOND, 40 * ms, 40 * ms), trip(2 * SECOND, 5 * ms, 6 * ms)],
    )
    yield offset_test(
        "slower-tells-less",
        "10.3-1",
        "Slow round trips cut nothing off until the fast one has widened enough.",
        [trip(SECOND, ms, ms), *[trip(10 * n * SECOND, 30 * ms, 30 * ms) for n in range(1, 40)]],
    )
    yield offset_test(
        "two-halves",
        "10.3-1",
        "One bounds from above, the other from below.",
        [trip(SECOND, 0, 60 * ms), trip(1100 * ms, 60 * ms, 0)],
    )
    yield offset_test(
        "widens",
        "10.3-1",
        "200 ppm of an hour are 720 ms to each side.",
        [trip(SECOND, ms, ms), trip(3601 * SECOND, 900 * ms, 900 * ms)],
    )
    yield offset_test(
        "late-answer-of-long-ago",
        "10.3-1",
        "The age of the lower end counts from the arrival, that of the upper from the sending.",
        [trip(SECOND, ms, ms), trip(2 * SECOND, 20 * SECOND, ms), trip(23 * SECOND, ms, ms)],
    )
    yield offset_test(
        "drifting",
        "10.3-1",
        "Clocks that drift by 150 ppm stay inside.",
        [trip(10 * n * SECOND, 5 * ms, 5 * ms, 150 * 10 * n * MICROSECOND) for n in range(1, 30)],
    )

    yield offset_test(
        "beyond-the-wrap",
        "10.3-1",
        "Times of the wire wrap after 71 minutes, those of the samples do not.",
        [trip(n * 1000 * SECOND, 10 * ms, 10 * ms, 2 * SECOND) for n in range(1, 12)],
    )
    assert 11 * 1000 * SECOND > 2 * U32 * MICROSECOND


def offsets_that_begin_anew() -> Iterator[Json]:
    ms = MILLISECOND
    yield offset_test(
        "stepped",
        "10.3-1",
        "The peer's clock is set forward by 1 s.",
        [
            *[trip(n * SECOND, 10 * ms, 10 * ms) for n in (1, 2, 3)],
            *[trip(n * SECOND, 10 * ms, 10 * ms, SECOND) for n in (4, 5)],
        ],
    )
    yield offset_test(
        "stepped-back",
        "10.3-1",
        "And back again.",
        [
            trip(SECOND, ms, ms),
            trip(2 * SECOND, ms, ms, -SECOND),
            trip(3 * SECOND, ms, ms),
            trip(4 * SECOND, 30 * ms, 2 * ms),
        ],
    )
    yield offset_test(
        "begins-anew-with-the-newest",
        "10.3-1",
        "A slow round trip after the step is all that is known then.",
        [
            trip(SECOND, ms, ms),
            trip(2 * SECOND, 400 * ms, 400 * ms, 2 * SECOND),
            trip(3 * SECOND, ms, ms, 2 * SECOND),
        ],
    )
    # From -1002 to 1002.4 us, widened by 200 us after 1 s; the next begins where that ends, or not.
    edge = 2 * ROUNDING + 200 * MICROSECOND + 400 + ms
    for name, comment, beyond in (
        ("touching", "One instant in common.", 0),
        ("overlapping", "2 us in common.", -2 * MICROSECOND),
        ("parted", "Apart by 1 us.", MICROSECOND),
    ):
        samples = [
            {"t1": 0, "t2": ms, "t3": ms, "t4": 2 * ms},
            trip(1002 * ms - 4 * ms, 2 * ms, 2 * ms, edge + 2 * ms + beyond),
        ]
        yield offset_test(name, "10.3-1", comment, samples)


def random_offsets() -> Iterator[Json]:
    for seed, drift_ppm, step_at in ((1, 0, None), (2, 100, None), (3, -180, 25), (4, 200, None)):
        yield offset_test(
            f"random-{seed}",
            "10.3-1",
            f"Random delays, a drift of {drift_ppm} ppm, " + ("a step." if step_at else "no step."),
            list(random_trips(random.Random(seed), drift_ppm, step_at)),
        )


def random_trips(draw: random.Random, drift_ppm: int, step_at: int | None) -> Iterator[Json]:
    """Draw by random() alone, as Python promises the same sequence for no other method."""
    now = SECOND
    for number in range(50):
        out, back, held = (
            int(draw.random() * most) * TEN_MICROSECONDS for most in (9_000, 5_000, 20_000)
        )
        skew = now * drift_ppm // 10**6 // MICROSECOND * MICROSECOND
        stepped = 5 * SECOND if step_at is not None and number >= step_at else 0
        yield trip(now, out, back, 17 * SECOND + skew + stepped, held)
        now += SECOND + int(draw.random() * 900_000) * TEN_MICROSECONDS


def trip(sent: int, out: int, back: int, offset: int = 0, held: int = 0) -> Json:
    """Make a round trip; `offset` is what the peer's clock is ahead, all in ns."""
    arrival = sent + out + held + back
    times = {"t1": sent, "t2": sent + out + offset, "t3": sent + out + held + offset}
    return times | {"t4": arrival}


def offset_test(
    name: str,
    requirements: str,
    comment: str,
    samples: list[Json],
    *,
    own_utc_us: int = DAY_US,
    peer_utc_us: int = DAY_US,
) -> Json:
    known: list[Json] = []
    steps = []
    between = (peer_utc_us - own_utc_us) * MICROSECOND
    for sample in samples:
        known.append(sample)
        low, high = common_interval(known, sample["t4"])
        anew = low > high
        if anew:
            known = [sample]
            low, high = common_interval(known, sample["t4"])
        steps.append(told(low, high, between) | {"began_anew": anew})
    return described(
        f"offset-{name}",
        requirements,
        comment,
        kind="offset",
        own_utc_us=own_utc_us,
        peer_utc_us=peer_utc_us,
        samples=samples,
        steps=steps,
    )


def common_interval(samples: Iterable[Json], now: int) -> tuple[int, int]:
    """Cut out of all intervals, each widened on its own, what they have in common."""
    lows, highs = [], []
    for one in samples:
        lows.append(one["t3"] - one["t4"] - wider(now - one["t4"]))
        highs.append(one["t2"] - one["t1"] + wider(now - one["t1"]))
    return max(lows), min(highs)


def wider(age: int) -> int:
    assert age % TEN_MICROSECONDS == 0
    return DRIFT_PPM * age // 10**6 + ROUNDING


def told(low: int, high: int, between: int) -> Json:
    assert low % 2 == high % 2 == 0
    middle = (low + high) // 2 + between
    return {"low": low, "high": high, "offset": middle, "error": (high - low) // 2}


def variations() -> Iterator[Json]:
    ms = MILLISECOND
    odd = [(1, 2), (3, 5), (8, 13), (21, 34), (55, 89), (144, 233), (1, 1), (0, 0)]
    for name, comment, delays, offset in (
        ("one", "A single round trip.", [(10 * ms, 10 * ms)], 0),
        ("steady", "Nothing varies.", [(10 * ms, 20 * ms)] * 8, 0),
        ("out-only", "The way out varies.", [((10 + n % 2) * ms, 5 * ms) for n in range(12)], 0),
        (
            "in-only",
            "The way in varies.",
            [(5 * ms, (10 + 3 * (n % 2)) * ms) for n in range(12)],
            0,
        ),
        (
            "offset",
            "An offset does not matter.",
            [((n % 3) * ms, ms) for n in range(9)],
            -9 * SECOND,
        ),
        ("spike", "One late round trip.", [(ms, ms)] * 3 + [(900 * ms, ms)] + [(ms, ms)] * 9, 0),
        ("odd", "Each division leaves a rest.", odd, 0),
        ("negative", "Clocks far apart, odd delays.", odd, -(10**12) - 1),
    ):
        samples = [trip(n * SECOND, out, back, offset, n) for n, (out, back) in enumerate(delays)]
        yield variation_test(name, comment, samples)
    for seed in (1, 2):
        samples = list(random_trips(random.Random(seed), 0, None))
        yield variation_test(f"random-{seed}", "Random delays.", samples)


def variation_test(name: str, comment: str, samples: list[Json]) -> Json:
    out = jitters([one["t2"] - one["t1"] for one in samples])
    back = jitters([one["t4"] - one["t3"] for one in samples])
    steps = [{"out": o, "in": b} for o, b in zip(out, back, strict=True)]
    return described(
        f"variation-{name}", "10.3-3", comment, kind="variation", samples=samples, steps=steps
    )


def jitters(delays: list[int]) -> Iterator[int]:
    j = 0
    for number, delay in enumerate(delays):
        if number:
            j += (abs(delay - delays[number - 1]) - j) // 16
        yield j
