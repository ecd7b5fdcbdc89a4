"""One world from one seed: run it, and say in one value what came of it."""

import hashlib
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

from kaudp.sim.faults import FAULTS
from kaudp.sim.plan import DAY, Plan, draw_plan
from kaudp.sim.records import Violation
from kaudp.sim.stage import Stage
from kaudp.sim.world import Step
from kaudp.units import SECOND


class Listener(Protocol):
    """Somebody who wants to know what happens in a world."""

    def begin(self, stage: Stage) -> None:
        """Look at a stage before it runs, and take a seat."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a world. `failure` is None, or says what was wrong and when.

    `digest` is a hash of everything that was sent, when and where to: the same seed gives the
    same one.
    """

    seed: int
    family: str
    nodes: int
    interval_s: float
    world_days: float
    session_days: float
    digest: str
    faults: dict[str, int]
    events: dict[str, int]
    frames: dict[str, int]
    downs: int
    downs_without_outage: int
    failure: str | None = None
    failed_at_s: float | None = None
    detail: str = ""


def simulate(seed: int, *listeners: Listener, family: str | None = None) -> Outcome:
    """Run the world of a seed, of a family that may be given, to its end or to what is wrong."""
    plan = draw_plan(seed, list(FAULTS), family)
    stage = Stage(plan, FAULTS)
    sent = _Digest(plan)
    stage.world.watchers.insert(0, sent.take)
    for listener in listeners:
        listener.begin(stage)
    failure, detail = None, ""
    try:
        stage.run()
    except Violation as violation:
        failure = str(violation)
    except Exception as error:  # Whatever the core raises is a failure of it. KA-12-1.
        failure = f"KA-12-1: {type(error).__name__}: {error}"
        detail = traceback.format_exc()
    stage.finish()
    oracle, lasted = stage.oracle, stage.world.now - plan.start
    return Outcome(
        seed=seed,
        family=plan.family,
        nodes=len(plan.nodes),
        interval_s=plan.interval / SECOND,
        world_days=lasted / DAY,
        session_days=stage.session_days,
        digest=sent.hexadecimal,
        faults=dict(stage.faults),
        events=dict(oracle.events),
        frames=dict(oracle.frames),
        downs=len(oracle.downs),
        downs_without_outage=stage.downs_without_outage,
        failure=failure,
        failed_at_s=lasted / SECOND if failure else None,
        detail=detail,
    )


class _Digest:
    """A hash of all that was sent."""

    def __init__(self, plan: Plan) -> None:
        self._hash = hashlib.blake2b(repr(plan).encode(), digest_size=16)

    def take(self, step: Step) -> None:
        """Take the datagrams of a step in."""
        for data, address in step.sent:
            self._hash.update(f"{step.node.name} {step.now} {address} ".encode() + data)

    @property
    def hexadecimal(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()


@dataclass(slots=True)
class Totals:
    """The sum of many outcomes."""

    worlds: int = 0
    world_days: float = 0.0
    session_days: float = 0.0
    downs: int = 0
    downs_without_outage: int = 0
    days_of: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add a world."""
        self.worlds += 1
        self.world_days += outcome.world_days
        self.session_days += outcome.session_days
        self.downs += outcome.downs
        self.downs_without_outage += outcome.downs_without_outage
        self.days_of[outcome.family] += outcome.session_days  # type: ignore[assignment]
        self.faults.update(outcome.faults)
        self.events.update(outcome.events)
        self.frames.update(outcome.frames)
        if outcome.failure is not None:
            self.failed.append(outcome.seed)

    def facts(self) -> dict[str, Any]:
        """Give everything as plain values."""
        return {
            "worlds": self.worlds,
            "world_days": round(self.world_days, 3),
            "session_days": round(self.session_days, 3),
            "session_days_of": {
                family: round(days, 3) for family, days in sorted(self.days_of.items())
            },
            "faults": dict(sorted(self.faults.items())),
            "events": dict(sorted(self.events.items())),
            "frames": dict(sorted(self.frames.items())),
            "downs": self.downs,
            "downs_without_outage": self.downs_without_outage,
            "failed_seeds": self.failed,
        }
