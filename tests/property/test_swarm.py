"""The swarm: whole worlds drawn from seeds; the observer sees each defect that is put in."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest

from kaudp.config import Config
from kaudp.core import (
    channel,
    endpoint,
    liveness,
    outbox,
    paths,
    replay,
    routes,
    session,
    suspicion,
)
from kaudp.core.states import Input
from kaudp.core.timers import Timer
from kaudp.errors import DropReason
from kaudp.events import State
from kaudp.sim import plan
from kaudp.sim.faults import FAULTS, VERBS
from kaudp.sim.link import Conditions
from kaudp.sim.plan import FAMILIES, draw_plan
from kaudp.sim.swarm import Outcome, Totals, simulate
from kaudp.sim.trace import Trace
from kaudp.sim.world import Clock, World
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.grammar import FrameType
from tests.worlds import KEY, Pair

Patch = pytest.MonkeyPatch
Defect = Callable[[Patch], None]


@pytest.fixture(autouse=True)
def small(monkeypatch: Patch) -> None:
    """Keep the worlds of these tests short."""
    monkeypatch.setattr(plan, "PROBES_PER_WORLD", 300)
    monkeypatch.setattr(plan, "SHORTEST_WORLD", 60 * SECOND)


@pytest.mark.parametrize("seed", range(8))
def test_a_world_holds_what_is_required(seed: int) -> None:
    outcome = simulate(seed)
    assert outcome.failure is None, f"kaudp simulate --seed {seed}: {outcome.failure}"
    assert outcome.session_days > 0
    assert outcome.frames["PROBE"] > 100


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Another seed gives others; a listener changes nothing."""
    first, again = simulate(4), simulate(4, Trace(StringIO()))
    assert first == again
    assert simulate(5).digest != first.digest


def test_every_fault_and_family_is_drawn() -> None:
    plans = [draw_plan(seed, list(FAULTS)) for seed in range(200)]
    assert {plan.family for plan in plans} == set(FAMILIES)
    assert {name for plan in plans for name in plan.faults} == set(FAULTS)
    assert set(VERBS) < set(FAULTS)
    assert {len(plan.nodes) for plan in plans} == set(range(2, 9))
    few = [plan for plan in plans if len(plan.faults) < len(FAULTS) / 4]
    assert len(few) > 20, "most faults are off in many worlds"


# Defects: each breaks one rule of the core, and some seed's world shows it.


def patched(owner: Any, name: str, replacement: Any) -> Defect:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, replacement)


def wrapped(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Defect:
    return patched(owner, name, wrap(getattr(owner, name)))


def no_window(self: replay.ReplayWindow, packet_number: int) -> bool:
    newest = packet_number > self.highest
    self.highest = max(self.highest, packet_number)
    self.count += 1
    return newest


def longer_answers(reply: Any) -> Any:
    def longer(self: session.Session, address: Any, room: int, now: int) -> None:
        reply(self, address, room + 100, now)

    return longer


def answers_elsewhere(reply: Any) -> Any:
    def elsewhere(self: session.Session, address: Any, room: int, now: int) -> None:
        reply(self, ("203.0.113.77", 1), room, now)

    return elsewhere


def numbers_again(build: Any) -> Any:
    def build_again(self: channel.Channel, *arguments: Any) -> bytes:
        if self.last_sent == 20:
            self.last_sent = 19
        data: bytes = build(self, *arguments)
        return data

    return build_again


def told_twice(emit: Any) -> Any:
    def twice(self: outbox.Outbox, event: Any) -> None:
        emit(self, event)
        emit(self, event)

    return twice


def always_fresh(evidence: Any) -> Any:
    """What is said counts as said just now, however long it was on its way."""

    def fresh(self: channel.Channel, frame_type: int, body: Any, now: int) -> Any:
        found = evidence(self, frame_type, body, now)
        return found and found._replace(date=now, fresh_number=True)

    return fresh


def sure_of_first(self: liveness.Liveness, date: int, now: int) -> None:
    self._enter(Input.RECOVERED)


def moves_at_once(self: paths.PeerPath, address: Any, highest_received: int) -> bool:
    moved = address != self.address
    self.address = address
    return moved


def at_first_miss(
    self: suspicion.Suspicion, detector: Any, interval: int, least: int, not_before: int
) -> int:
    return max(self.started, not_before)


def never_judges(self: liveness.Liveness, now: int) -> None:
    """The verdict is forgotten, and with it the session."""


def takes_anything(receive: Any) -> Any:
    def take(self: endpoint.Endpoint, data: bytes, addr: Any, now: int) -> bool:
        return receive(self, data, addr, now) or data[:1] == b"\x0b"

    return take


def answers_strangers(receive: Any) -> Any:
    def answer(self: endpoint.Endpoint, data: bytes, addr: Any, now: int) -> bool:
        consumed: bool = receive(self, data, addr, now)
        if not consumed:
            self._context.outbox.send(b"\x0b\x01\x81\x01" + bytes(200), addr)
        return consumed

    return answer


def raises(receive: Any) -> Any:
    def fail(self: endpoint.Endpoint, data: bytes, addr: Any, now: int) -> bool:
        if self.counters[DropReason.BAD_TAG] > 1:
            raise IndexError("index out of range")
        consumed: bool = receive(self, data, addr, now)
        return consumed

    return fail


def forgets(self: session.Session, planned: int, now: int) -> None:
    """What a timer was to do is not done."""


def never_expires(monkeypatch: Patch) -> None:
    monkeypatch.setitem(session._TIMER_HANDLERS, Timer.EXPIRY, forgets)


def no_way_back(monkeypatch: Patch) -> None:
    """Neither evidence nor a handshake leads out of DOWN."""
    monkeypatch.setattr(liveness.Liveness, "_count_recovery", lambda *_: None)
    monkeypatch.setattr(session.Session, "_shake_hands_again", lambda *_: None)


def half_open_always(self: liveness.Liveness, now: int) -> None:
    self._enter(Input.VERDICT_HALF_OPEN)
    self.rearm_overdue(now)


def down_always(self: liveness.Liveness, now: int) -> None:
    self._enter(Input.VERDICT_DOWN)
    self._down_at = now


DEFECTS: dict[str, tuple[str, Defect]] = {
    "no replay window": ("KA-5.1-1", patched(replay.ReplayWindow, "accept", no_window)),
    "answers too long": ("KA-8.3-3", wrapped(session.Session, "_reply", longer_answers)),
    "answers elsewhere": ("KA-8.3-2", wrapped(session.Session, "_reply", answers_elsewhere)),
    "no answers": ("KA-8.3-1", patched(session.Session, "_reply", lambda *_: None)),
    "a number used twice": ("KA-4.4-2", wrapped(channel.Channel, "build", numbers_again)),
    "events told twice": ("KA-6.3-2", wrapped(outbox.Outbox, "emit", told_twice)),
    "DOWN after the first miss": (
        "KA-7.5-1",
        patched(suspicion.Suspicion, "verdict_at", at_first_miss),
    ),
    "DOWN after one probe": ("KA-7.5-1", patched(liveness, "MIN_UNANSWERED", 1)),
    "never DOWN": ("KA-7.5-1", patched(liveness.Liveness, "judge", never_judges)),
    "DOWN though heard": ("KA-7.5-2", patched(liveness.Liveness, "judge", down_always)),
    "HALF_OPEN though silent": ("KA-7.5-2", patched(liveness.Liveness, "judge", half_open_always)),
    "old evidence counts": ("KA-7.6-2", wrapped(channel.Channel, "evidence", always_fresh)),
    "UP after one confirmation": (
        "KA-7.6-2",
        patched(liveness.Liveness, "_count_recovery", sure_of_first),
    ),
    "never back": ("KA-7.6-2", no_way_back),
    "no budget": ("KA-7.4-4", patched(suspicion.ProbeBudget, "take", lambda *_: True)),
    "moves at the first frame": ("KA-9.1-2", patched(paths.PeerPath, "received", moves_at_once)),
    "takes what does not verify": (
        "KA-2-3",
        wrapped(endpoint.Endpoint, "receive_datagram", takes_anything),
    ),
    "answers what does not verify": (
        "KA-2-4",
        wrapped(endpoint.Endpoint, "receive_datagram", answers_strangers),
    ),
    "raises": ("KA-12-1", wrapped(endpoint.Endpoint, "receive_datagram", raises)),
    "no bound on sessions": ("KA-11-2", patched(routes.Routes, "full", lambda *_: False)),
    "kept for ever": ("KA-7.6-4", never_expires),
    "connecting for ever": ("KA-4.2-3", never_expires),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(name: str, monkeypatch: Patch) -> None:
    requirement, defect = DEFECTS[name]
    defect(monkeypatch)
    failures = []
    for seed in range(40):
        outcome = simulate(seed)
        failures.append(outcome.failure or "")
        if failures[-1].startswith(requirement):
            assert outcome.failed_at_s is not None
            return
    pytest.fail(f"no seed showed {requirement}: {failures}")


# What the stage stands on.


def test_a_clock_of_its_own_changes_nothing_that_is_seen() -> None:
    """A node's deadlines come when its own clock shows them."""
    for clock in (Clock(), Clock(ppm=200), Clock(ppm=-200, offset=77)):
        for shown in (0, 1, 10**9, 10**15 + 7):
            at = clock.reaches(shown)
            assert clock.read(at) >= shown > clock.read(at - 1)


def test_a_sleeping_machine_hears_nothing_and_a_stalled_loop_later() -> None:
    for verb, lost in (("suspend", True), ("stall", False)):
        pair = Pair(1, delay=MILLISECOND).up()
        before = pair.far.stats.received
        getattr(pair.world, verb)(pair.bob, 9 * SECOND)
        pair.run(8 * SECOND)
        assert pair.far.stats.received == before
        pair.run(1 * SECOND)
        assert (pair.far.stats.received == before) is lost


def test_a_dead_process_is_silent_until_it_starts_anew() -> None:
    pair = Pair(1).up()
    pair.world.kill(pair.bob)
    sent = len(pair.bob.sent)
    pair.run(30 * SECOND)
    assert len(pair.bob.sent) == sent
    assert pair.session.state is State.DOWN


def test_a_watcher_is_told_of_every_datagram() -> None:
    world = World(1, conditions=Conditions())
    steps: list[Any] = []
    world.watchers.append(steps.append)
    bob = world.add_node("bob", Config.server(), KEY, accept=True)
    alice = world.add_node("alice", Config.wan(), KEY)
    world.act(
        alice, "connect", lambda now: alice.endpoint.connect(bob.address, now, key_id=KEY.key_id)
    )
    world.run_for(20 * SECOND)
    sent = [data for step in steps for data, _ in step.sent]
    assert sent == [data for _, data, _ in sorted(alice.sent + bob.sent, key=lambda e: e[0])]
    assert [step.verb for step in steps if step.verb] == ["connect"]


def test_a_trace_holds_what_a_model_needs() -> None:
    file = StringIO()
    outcome = simulate(0, Trace(file))
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert lines[0]["type"] == "world"
    assert lines[0]["seed"] == 0
    assert len([line for line in lines if line["type"] == "node"]) == outcome.nodes
    steps = [line for line in lines if line["type"] == "step"]
    assert {step["kind"] for step in steps} == {"verb", "datagram", "timer"}
    sent = [frame for step in steps for frame in step["sent"]]
    assert len(sent) == sum(outcome.frames.values())
    for frame in sent:
        assert bytes.fromhex(frame["hex"])[1] == FrameType[frame["frame"]]
        assert frame.get("body") or frame.get("payload"), frame
    events = [event["event"] for step in steps for event in step["events"]]
    assert len(events) == sum(outcome.events.values())
    assert len([line for line in lines if line["type"] == "fault"]) == sum(outcome.faults.values())


def test_totals_add_up() -> None:
    totals = Totals()
    outcomes: list[Outcome] = [simulate(seed) for seed in (1, 2)]
    for outcome in outcomes:
        totals.add(outcome)
    facts = totals.facts()
    assert facts["worlds"] == 2
    assert facts["session_days"] == pytest.approx(sum(o.session_days for o in outcomes), abs=1e-3)
    assert sum(facts["faults"].values()) == sum(sum(o.faults.values()) for o in outcomes)
    assert facts["failed_seeds"] == []
