"""What a record says, in figures: for the tests and for the soak."""

import statistics
from collections import Counter
from collections.abc import Iterator
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

    `ends` is when the next one begins. What did not come is FOREVER.
    """

    began: int
    done: int
    mended: int
    mended_done: int
    ends: int


def outages(record: Record) -> list[Outage]:
    """Pair the faults of a record with their mending."""
    faults = record.all("Fault")
    ends = [*(fault.time for fault in faults), FOREVER][1:]
    return [_outage(record, fault, end) for fault, end in zip(faults, ends, strict=True)]


def verdict(record: Record, who: str, outage: Outage) -> Entry:
    """Give the first verdict of a side in an outage. Raises `Missing`."""
    found = _of_kinds(record, VERDICTS, who, outage.began, outage.mended)
    return found[0] if found else record.first("SessionDown", who, outage.began, outage.mended)


def false_downs(record: Record) -> list[Entry]:
    """Give each DOWN that no fault explains."""
    convicts = CASES[record.name].convicts
    spans = [(outage.began, outage.mended) for outage in outages(record)]
    return [
        down
        for down in record.all("SessionDown")
        if down.who not in convicts or not any(begin <= down.time < end for begin, end in spans)
    ]


@dataclass(frozen=True, slots=True)
class Flood:
    """One flood: what the attacker tells of it, and the censuses of each side around it.

    They are taken before it, when it has lasted for a while (`warm`), and after it.
    """

    begins: Entry
    ends: Entry
    before: dict[str, Entry]
    warm: dict[str, Entry]
    after: dict[str, Entry]

    @property
    def sent(self) -> int:
        """Give the number of its datagrams."""
        return sum(self.ends["sent"].values())

    @property
    def refused(self) -> Counter[str]:
        """Give how many datagrams the server refused meanwhile, by reason."""
        refused = Counter(self.after["server"]["refused"])
        refused.subtract(self.before["server"]["refused"])
        return refused

    @property
    def growth(self) -> int:
        """Give by how many bytes the server's memory has grown since it was warm."""
        return int(self.after["server"]["rss"] - self.warm["server"]["rss"])

    def more(self, what: str, who: str) -> Any:
        """Give by how much a count of one side has grown."""
        return self.after[who][what] - self.before[who][what]


def floods(record: Record) -> Iterator[Flood]:
    """Give the floods of a record."""
    bounds = (record.all("FloodBegins"), record.all("FloodEnds"))
    counted = (_censuses(record, when) for when in ("before", "warm", "after"))
    for begins, ends, *censuses in zip(*bounds, *counted, strict=True):
        yield Flood(begins, ends, *censuses)


def _censuses(record: Record, when: str) -> list[dict[str, Entry]]:
    counted = [each.time for each in record.all("Counting") if each["when"] == when]
    return [{who: record.first("Census", who, at) for who in SIDES} for at in counted]


def figures(record: Record) -> dict[str, Any]:
    """Give the figures of one scenario."""
    return {
        "case": record.name,
        "failure": record.failure,
        "outages": len(record.all("Fault")),
        "events": {who: _counts(record, who) for who in SIDES},
        "false_downs": len(false_downs(record)),
        "detection_s": {who: _spread(_detections(record, who)) for who in SIDES},
        "recovery_s": {who: _spread(_recoveries(record, who)) for who in SIDES},
        "loss": _loss(record),
        "floods": [_flooding(flood) for flood in floods(record)],
    }


def _outage(record: Record, fault: Entry, ends: int) -> Outage:
    mended = [(entry.time, entry["done"]) for entry in record.all("Mended", None, fault.time, ends)]
    return Outage(fault.time, fault["done"], *[*mended, (FOREVER, FOREVER)][0], ends)


def _of_kinds(
    record: Record, kinds: tuple[str, ...], who: str, since: int, until: int
) -> list[Entry]:
    found = [entry for kind in kinds for entry in record.all(kind, who, since, until)]
    return sorted(found, key=lambda entry: entry.time)


def _counts(record: Record, who: str) -> dict[str, int]:
    return {kind: len(record.all(kind, who)) for kind in COUNTED}


def _detections(record: Record, who: str) -> list[float]:
    """Give the seconds from each fault to the first verdict."""
    spans = [(outage.began, outage.mended) for outage in outages(record)]
    return _delays(record, who, VERDICTS, spans)


def _recoveries(record: Record, who: str) -> list[float]:
    """Give the seconds from the mending to UP, of faults that led to a verdict."""
    spans = [
        (outage.mended, outage.ends)
        for outage in outages(record)
        if _of_kinds(record, VERDICTS, who, outage.began, outage.mended)
    ]
    return _delays(record, who, ("SessionUp",), spans)


def _delays(
    record: Record, who: str, kinds: tuple[str, ...], spans: list[tuple[int, int]]
) -> list[float]:
    firsts = [(since, _of_kinds(record, kinds, who, since, until)[:1]) for since, until in spans]
    return [(entry.time - since) / SECOND for since, found in firsts for entry in found]


def _spread(values: list[float]) -> tuple[float, float, float] | None:
    """Give the least, the median and the greatest."""
    if not values:
        return None
    return min(values), statistics.median(values), max(values)


def _flooding(flood: Flood) -> dict[str, Any]:
    seconds = flood.ends["seconds"]
    passed = (flood.after["server"].time - flood.before["server"].time) / SECOND
    return {
        "seconds": seconds,
        "good_per_s": flood.begins["good_rate"],
        "sent_per_s": flood.sent / seconds,
        "sent": flood.ends["sent"],
        "due": flood.ends["due"],
        "refused": dict(flood.refused),
        "answers": flood.ends["answers"],
        "bytes_sent": flood.ends["bytes_sent"],
        "bytes_back": flood.ends["bytes_back"],
        "dropped_by_kernel": flood.more("dropped", "server"),
        "suspicions": {who: flood.more("suspicions", who) for who in SIDES},
        "handshakes": {who: flood.more("handshakes", who) for who in SIDES},
        "server_cpu": flood.more("cpu_s", "server") / passed,
        "server_rss": flood.after["server"]["rss"],
        "server_growth": flood.growth,
    }


def _loss(record: Record) -> dict[str, Any] | None:
    """Give what the client measured and what the router knows, each way."""
    drops, stats = record.all("Drops"), record.all("Stats", "client")
    if not drops or not stats or stats[-1]["loss_out"] is None:
        return None
    measured = stats[-1]
    return {
        "to_server": measured["loss_out"],
        "to_client": measured["loss_in"],
        "lost": (measured["lost_out"], measured["lost_in"]),
        "dropped": tuple(drops[-1][way.name] for way in (Way.TO_SERVER, Way.TO_CLIENT)),
    }
