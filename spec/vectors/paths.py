"""Path validation: how long it tries, and where it leads (9.3)."""

from __future__ import annotations

from collections.abc import Iterator

from common import MILLISECOND, SECOND, Json, described

PATHS = (
    "try: PTO and `try_time` (ns) after the response times `samples`. validation: a session at "
    "address `a`, validated, with that `try_time` and probe interval, both fixed; budget and "
    "amplification allow every challenge. `frame`: a frame that is accepted and has the highest "
    "packet number comes from that address, without a PATH_RESPONSE; `answer`: a REPLY that has "
    "not, with the data of the challenge of that `try`, counted from 1 over all validations, to "
    "that address. `expected` tells what the session does, when: challenge, move, or stay (the "
    "validation ends without a move); what happens at one time may happen in any order. All times "
    "are ns from the first frame."
)
PTO_INITIAL, PTO_GRANULARITY, PTO_MAX = SECOND, 10 * MILLISECOND, 60 * SECOND
TRIES = 3
TRY_TIME, INTERVAL = 300 * MILLISECOND, 10 * SECOND


def path_tests() -> Iterator[Json]:
    yield from try_times()
    yield from moves()
    yield from stays()
    yield from validations_in_turn()


def try_times() -> Iterator[Json]:
    ms = MILLISECOND
    for name, comment, samples in (
        ("none", "No response time is known: 1 s.", []),
        ("one", "After one sample PTO and three times srtt are the same.", [100 * ms]),
        ("one-tiny", "PTO is srtt + 10 ms.", [4 * ms]),
        ("steady", "The variation has died out: three times srtt.", [100 * ms] * 30),
        ("steady-5-ms", "Both are 15 ms.", [5 * ms] * 40),
        ("steady-fast", "PTO is longer.", [ms] * 30),
        ("varying", "PTO is longer.", [20 * ms, 200 * ms, 20 * ms, 300 * ms]),
        ("slow", "PTO ends at 60 s, three times srtt does not.", [30 * SECOND]),
        ("steady-slow", "Three times srtt.", [25 * SECOND] * 20),
        ("zero", "No time at all.", [0]),
        ("odd", "An odd number.", [33_333_333, 44_444_444, 55_555_555]),
    ):
        srtt, pto = estimates(samples)
        yield described(
            f"try-{name}",
            "9.3-4 10.2-1",
            comment,
            kind="try",
            samples=samples,
            pto=pto,
            try_time=max(pto, 3 * srtt),
        )


def estimates(samples: list[int]) -> tuple[int, int]:
    srtt = rttvar = 0
    for number, sample in enumerate(samples):
        rttvar = (3 * rttvar + abs(srtt - sample)) // 4 if number else sample // 2
        srtt = (7 * srtt + sample) // 8 if number else sample
    if not samples:
        return 0, PTO_INITIAL
    return srtt, min(srtt + max(4 * rttvar, PTO_GRANULARITY), PTO_MAX)


def moves() -> Iterator[Json]:
    yield validation_test(
        "new-answers",
        "9.3-1 9.3-4",
        "The old address is silent: moved when the first try is over.",
        [frame(0, "b"), answer(40, 1, "b")],
    )
    yield validation_test(
        "new-answers-from-elsewhere",
        "9.3-4",
        "What counts is where the challenge was sent.",
        [frame(0, "b"), answer(40, 1, "b"), frame(50, "c")],
    )
    yield validation_test(
        "second-try",
        "9.3-4",
        "The first challenges are lost.",
        [frame(0, "b"), answer(350, 2, "b")],
    )
    yield validation_test(
        "third-try", "9.3-4", "So are the second ones.", [frame(0, "b"), answer(899, 3, "b")]
    )
    yield validation_test(
        "late-answer",
        "9.3-4",
        "An answer to the first try counts in the second, whose end moves the session.",
        [frame(0, "b"), answer(310, 1, "b")],
    )
    yield validation_test(
        "twice-answered",
        "9.3-4",
        "The second answer of the new address changes nothing.",
        [frame(0, "b"), answer(40, 1, "b"), answer(41, 1, "b")],
    )
    yield validation_test(
        "answered-and-still-talking",
        "9.3-1 9.3-4",
        "More frames from the new address begin nothing while the validation is under way.",
        [frame(0, "b"), frame(20, "b"), answer(40, 1, "b"), frame(60, "b")],
    )


def stays() -> Iterator[Json]:
    yield validation_test(
        "old-answers",
        "9.3-3",
        "Somebody has but forwarded a frame.",
        [frame(0, "b"), answer(40, 1, "a")],
    )
    yield validation_test(
        "both-answer-old-first",
        "9.3-3",
        "It ends with the old address's answer.",
        [frame(0, "b"), answer(40, 1, "a"), answer(50, 1, "b")],
    )
    yield validation_test(
        "both-answer-new-first",
        "9.3-3",
        "An attacker that forwards is faster; the old address has the time of a try to answer.",
        [frame(0, "b"), answer(20, 1, "b"), answer(299, 1, "a")],
    )
    yield validation_test("none-answers", "9.3-4", "Three tries, and it stays.", [frame(0, "b")])
    yield validation_test(
        "newest-frame-from-the-old-address",
        "9.3-3",
        "The peer still is where it was; what the new address answers later changes nothing.",
        [frame(0, "b"), frame(10, "a"), frame(20, "b"), answer(40, 1, "b")],
    )
    yield validation_test(
        "newest-frame-from-the-old-address-in-the-third-try",
        "9.3-3",
        "At any time, even after the new address has answered.",
        [frame(0, "b"), answer(650, 3, "b"), frame(700, "a")],
    )
    yield validation_test(
        "old-answers-late",
        "9.3-3",
        "The old address's answer to an earlier try counts too.",
        [frame(0, "b"), answer(620, 1, "a")],
    )
    yield validation_test(
        "answers-after-the-end",
        "9.3-4",
        "Too late to move.",
        [frame(0, "b"), answer(901, 3, "b"), answer(910, 3, "a")],
    )
    yield validation_test(
        "no-validation-of-the-same-address",
        "9.3-1",
        "Frames from the session's own address.",
        [frame(0, "a"), frame(100, "a")],
    )


def validations_in_turn() -> Iterator[Json]:
    yield validation_test(
        "again-within-t",
        "9.3-5",
        "After a stay the next begins when T is over, not before.",
        [
            *(frame(0, "b"), answer(40, 1, "a"), frame(50, "b"), frame(10_039, "b")),
            *(frame(10_041, "b"), answer(10_100, 2, "b")),
        ],
    )
    yield validation_test(
        "again-after-three-tries",
        "9.3-5",
        "T counts from the end of the validation.",
        [frame(0, "b"), frame(10_899, "b"), frame(10_901, "b"), answer(11_000, 4, "a")],
    )
    yield validation_test(
        "other-address-within-t",
        "9.3-5",
        "T holds for any address.",
        [frame(0, "b"), answer(40, 1, "a"), frame(60, "c"), frame(10_041, "c")],
    )
    yield validation_test(
        "after-a-move",
        "9.3-1 9.3-5",
        "After a move the next may begin at once.",
        [frame(0, "b"), answer(40, 1, "b"), frame(310, "a"), answer(350, 2, "a")],
    )
    yield validation_test(
        "move-on",
        "9.3-1",
        "From the new address to a third one.",
        [frame(0, "b"), answer(40, 1, "b"), frame(301, "b"), frame(400, "c"), answer(450, 2, "b")],
    )
    yield validation_test(
        "third-address-is-not-answered-for",
        "9.3-1 9.3-4",
        "A frame from a third address is no matter of the validation under way.",
        [frame(0, "b"), frame(10, "c"), answer(950, 1, "b")],
    )
    yield validation_test(
        "answer-of-the-validation-before",
        "9.3-4",
        "The data of an earlier validation's challenge is no answer.",
        [
            *(frame(0, "b"), answer(40, 1, "a"), frame(10_041, "b"), answer(10_050, 1, "b")),
            answer(10_060, 1, "a"),
        ],
    )


def frame(at_ms: int, source: str) -> Json:
    return {"at": at_ms * MILLISECOND, "event": "frame", "address": source}


def answer(at_ms: int, number: int, challenged: str) -> Json:
    return {"at": at_ms * MILLISECOND, "event": "answer", "try": number, "address": challenged}


def validation_test(name: str, requirements: str, comment: str, steps: list[Json]) -> Json:
    session = Validations()
    for step in steps:
        session.run_until(step["at"])
        getattr(session, step["event"])(step)
    session.run_until(steps[-1]["at"] + TRIES * TRY_TIME)
    return described(
        f"validation-{name}",
        requirements,
        comment,
        kind="validation",
        try_time=TRY_TIME,
        interval=INTERVAL,
        steps=steps,
        expected=session.done,
    )


class Validations:
    """What a session does by KA-9.3-1 to 5."""

    def __init__(self) -> None:
        self.address = "a"
        self.candidate: str | None = None
        self.tries_left = 0
        self.try_ends = 0
        self.number = 0
        self.first_number = 0
        self.heard_new = False
        self.blocked_until = 0
        self.done: list[Json] = []

    def frame(self, step: Json) -> None:
        if self.candidate and step["address"] == self.address:
            self.end("stay", step["at"])
        if self.candidate or step["address"] == self.address or step["at"] < self.blocked_until:
            return
        self.candidate, self.heard_new = step["address"], False
        self.tries_left, self.first_number = TRIES, self.number + 1
        self.challenge(step["at"])

    def challenge(self, now: int) -> None:
        self.tries_left -= 1
        self.number += 1
        self.try_ends = now + TRY_TIME
        for address in (self.candidate, self.address):
            act = {"at": now, "do": "challenge", "try": self.number, "address": address}
            self.done.append(act)

    def answer(self, step: Json) -> None:
        if self.candidate is None or step["try"] < self.first_number:
            return
        if step["address"] == self.address:
            self.end("stay", step["at"])
        else:
            self.heard_new = True

    def run_until(self, now: int) -> None:
        while self.candidate and self.try_ends <= now:
            self.end_try(self.try_ends)

    def end_try(self, now: int) -> None:
        if self.heard_new:
            self.end("move", now)
        elif self.tries_left:
            self.challenge(now)
        else:
            self.end("stay", now)

    def end(self, act: str, now: int) -> None:
        if act == "move":
            self.address = str(self.candidate)
        else:
            self.blocked_until = now + INTERVAL
        self.candidate = None
        self.done.append({"at": now, "do": act, "try": None, "address": self.address})
