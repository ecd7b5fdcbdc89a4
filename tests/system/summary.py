"""What a record says, in figures: for the tests and for the soak."""

import statistics
from dataclasses import dataclass
from typing import Any

from tests.system.record import SECOND, Entry, Record
from tests.system.scenarios import CASES, SIDES
from tests.system.topology import Way

FOREVER = 1 << 63
VERDICTS = ("SessionDown", "SessionHalfOpen")
COUNTED = ("SessionUp", "SessionSuspect", "SessionHalfOpen", "SessionDown", "PeerRestarted")


@dataclass(frozen=True, slots=True)
class Outage:
    """One fault, in ns: it took effect between `began` and `done`, and `mended` likewise.

    `ends` is when the next one begins.
    """

    began: int
    done: int
    mended: int
    mended_done: int
    ends: int


def outages(record: Record) -> list[Outage]:
    """Pair the faults of a record with their mending."""
    faults = record.all("Fault")
    begins = [fault.time for fault in faults]
    return [
        Outage(fault.time, fault["done"], mended.time, mended["done"], ends)
        for fault, ends in zip(faults, [*begins, FOREVER][1:], strict=True)
        for mended in [record.first("Mended", "stage", fault.time, ends)]
    ]


def verdict(record: Record, who: str, outage: Outage) -> Entry:
    """Give the first verdict of a side in an outage."""
    since, until = outage.began, outage.mended
    found = [entry for kind in VERDICTS for entry in record.all(kind, who, since, until)]
    # An AssertionError that names what is missing, if there is none.
    return min(found, key=lambda entry: entry.time, default=None) or record.first(
        VERDICTS[0], who, since, until
    )


def false_downs(record: Record) -> list[Entry]:
    """Give each DOWN that no fault explains."""
    convicts = CASES[record.name].convicts
    true = [(outage.began, outage.mended) for outage in outages(record)]
    return [
        down
        for down in record.all("SessionDown")
        if down.who not in convicts
        or not any(began <= down.time < mended for began, mended in true)
    ]


def figures(record: Record) -> dict[str, Any]:
    """Give the figures of one scenario."""
    return {
        "case": record.name,
        "failure": record.failure,
        "outages": len(record.all("Mended")),
        "events": {who: _counts(record, who) for who in SIDES},
        "false_downs": len(false_downs(record)) if not record.failure else None,
        "detection_s": {who: _spread(_detections(record, who)) for who in SIDES},
        "recovery_s": {who: _spread(_recoveries(record, who)) for who in SIDES},
        "loss": _loss(record),
    }


def _counts(record: Record, who: str) -> dict[str, int]:
    return {kind: len(record.all(kind, who)) for kind in COUNTED}


def _detections(record: Record, who: str) -> list[float]:
    return _delays(record, who, VERDICTS, [(o.began, o.mended) for o in _whole(record)])


def _recoveries(record: Record, who: str) -> list[float]:
    spans = [
        (o.mended_done, o.ends) for o in _whole(record) if _firsts(record, who, o.began, o.mended)
    ]
    return _delays(record, who, ("SessionUp",), spans)


def _whole(record: Record) -> list[Outage]:
    return [] if record.failure else outages(record)


def _firsts(record: Record, who: str, since: int, until: int) -> list[Entry]:
    return [entry for kind in VERDICTS for entry in record.all(kind, who, since, until)]


def _delays(
    record: Record, who: str, kinds: tuple[str, ...], spans: list[tuple[int, int]]
) -> list[float]:
    """Give the seconds from the start of each span to the first event of these kinds in it."""
    delays = []
    for since, until in spans:
        times = [entry.time for kind in kinds for entry in record.all(kind, who, since, until)]
        if times:
            delays.append((min(times) - since) / SECOND)
    return delays


def _spread(values: list[float]) -> tuple[float, float, float] | None:
    """Give the least, the median and the greatest."""
    if not values:
        return None
    return min(values), statistics.median(values), max(values)


def _loss(record: Record) -> dict[str, Any] | None:
    """Give what the client measured and what the router knows, each way."""
    drops, stats = record.all("Drops"), record.all("Stats", "client")
    if not drops or not stats:
        return None
    measured = stats[-1]
    return {
        "to_server": measured["loss_out"],
        "to_client": measured["loss_in"],
        "lost": (measured["lost_out"], measured["lost_in"]),
        "dropped": tuple(drops[-1][way.name] for way in (Way.TO_SERVER, Way.TO_CLIENT)),
    }
