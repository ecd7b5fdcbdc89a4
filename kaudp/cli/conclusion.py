"""The summary of a demo: what happened, what to notice, and whether it was as it should be."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kaudp.cli.output import Output
from kaudp.cli.relay import Traffic
from kaudp.cli.story import CLIENT, PATH, SERVER, SIDES, Story
from kaudp.cli.wording import amount, milliseconds, span
from kaudp.units import SECOND

EXIT_UNEXPECTED: Final = 1
_COLUMNS: Final = 66


class Outcome(NamedTuple):
    """What a demo came to: its record, the time it ended, and what went over the path."""

    story: Story
    ended: int
    interval: int
    outward: Traffic
    homeward: Traffic


def conclude(outcome: Outcome, output: Output) -> int:
    """Sum a demo up and give its exit code."""
    shortcomings = outcome.story.shortcomings()
    text = "\n".join([*_happened(outcome), *_lesson(outcome, shortcomings)])
    output.say("summary", text, **_facts(outcome, shortcomings))
    return EXIT_UNEXPECTED if shortcomings else 0


def _happened(outcome: Outcome) -> list[str]:
    story = outcome.story
    lines = ["", "What happened", *_timeline(outcome)]
    lines.append(f"  start   {_both(story.first_up, 'UP after')}")
    before = story.traffic_before_cut
    if before is not None:
        alarms = sum(story.false_alarms(who) for who in SIDES)
        suspicions = sum(story.suspicions(who) for who in SIDES)
        lines.append(
            f"  loss    {before.lost} of {before.datagrams} datagrams lost before the cut: "
            f"{amount(suspicions, 'suspicion')}, {amount(alarms, 'false alarm')}"
        )
    lines.append(f"  cut     {_both(story.detection, 'DOWN after')}")
    lines.append(f"  return  {_both(story.recovery, 'UP after')}")
    lines.append(f"  cost    {_cost(outcome)}")
    return lines


def _lesson(outcome: Outcome, shortcomings: list[str]) -> list[str]:
    if shortcomings:
        return ["", "Not as it should be: " + "; ".join(shortcomings) + "."]
    return [
        "",
        "What to notice",
        "  - A lost datagram makes a side SUSPECT, not DOWN: fast probes settle it.",
        "  - Both sides noticed the cut, each on its own and without a word from the",
        f"    network, within about the promised 3 intervals of {span(outcome.interval)}.",
        "  - The return was found without help, though the client has a new port now.",
        "Next: `kaudp keygen`, then `kaudp serve` here and `kaudp ping` elsewhere.",
    ]


def _timeline(outcome: Outcome) -> list[str]:
    story, ended = outcome.story, outcome.ended
    path = "".join("x" if cut else "-" for cut in story.cuts(_COLUMNS, ended))
    rows = [(PATH, path)]
    for who in SIDES:
        states = story.timeline(who, _COLUMNS, ended)
        rows.append((who, "".join(state.name[0] for state in states)))
    legend = "x: cut; U: UP, S: SUSPECT, H: HALF_OPEN, D: DOWN, C: CONNECTING"
    return [*(f"  {who:<6}  {row}" for who, row in rows), f"          {legend}"]


def _both(measure: Callable[[str], int | None], words: str) -> str:
    told = []
    for who in SIDES:
        time = measure(who)
        told.append(f"{who} never" if time is None else f"{who} {words} {time / SECOND:.2f} s")
    return ", ".join(told)


def _cost(outcome: Outcome) -> str:
    out, home = outcome.outward, outcome.homeward
    rate = (out.bytes + home.bytes) / (outcome.story.length / SECOND)
    return (
        f"{CLIENT} {out.datagrams} datagrams, {out.bytes} bytes; "
        f"{SERVER} {home.datagrams}, {home.bytes}; {rate:.0f} bytes/s in all"
    )


def _facts(outcome: Outcome, shortcomings: list[str]) -> dict[str, Any]:
    story = outcome.story
    return {
        "as_expected": not shortcomings,
        "shortcomings": shortcomings,
        "interval_ms": milliseconds(outcome.interval),
        "before_cut": story.traffic_before_cut and story.traffic_before_cut._asdict(),
        "outward": outcome.outward._asdict(),
        "homeward": outcome.homeward._asdict(),
        **{who: _side_facts(story, who) for who in SIDES},
    }


def _side_facts(story: Story, who: str) -> dict[str, Any]:
    return {
        "up_ms": milliseconds(story.first_up(who)),
        "suspicions_before_cut": story.suspicions(who),
        "false_alarms": story.false_alarms(who),
        "down_after_cut_ms": milliseconds(story.detection(who)),
        "up_after_return_ms": milliseconds(story.recovery(who)),
    }
