"""The code does what the reference model says, step by step, whatever the peer and time do.

A longer run: `KAUDP_LOCKSTEP_EXAMPLES=20000 python -m pytest tests/property/test_lockstep.py
--timeout=0`, with `--hypothesis-seed=N` for another sequence.
"""

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from kaudp.config import Config, DetectorKind
from kaudp.core.agreement import own_parameters
from kaudp.units import MAX_UINT32
from kaudp.wire.codec import Options
from spec import model
from tests.lockstep import ELSEWHERE, PEER, Twins
from tests.worlds import MS, S

EXAMPLES = int(os.environ.get("KAUDP_LOCKSTEP_EXAMPLES", "100"))

CONFIGS = [
    Config.wan(),
    Config.lan(),
    Config.mobile(report_round_trips=True),
    Config.server(max_peer_admin_down_ms=20_000, max_peer_pause_ms=5_000),
    Config.wan(detector=DetectorKind.DEADLINE, application_traffic=True, up_confirmations=2),
    Config.lan(multiplier=1, nat_keepalive_ms=15_000, up_confirmations=1, application_traffic=True),
    Config.wan(max_peer_interval_ms=1_000, interval_ms=2_000, connect_timeout_ms=None),
]
PEERS = [
    own_parameters(Config.wan()),
    own_parameters(Config.lan(suspicion_receive_burst=3)),
    own_parameters(Config.server(application_traffic=True)),
    own_parameters(Config.mobile(suspicion_receive_burst=8, application_traffic=True)),
]
R = st.sampled_from([0, 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
MOMENTS = st.sampled_from([0, 1, 999, 1000, 5 * MS, 20 * MS]) | st.integers(0, 300 * MS)
LATENESS = st.sampled_from([1, 50 * MS, 100 * MS, 100 * MS + 1, 2 * S, 10 * S, 40 * S])


CONTROL = st.sampled_from(
    [
        {"pause_ms": 0},
        {"pause_ms": 1},
        {"pause_ms": 3_000},
        {"pause_ms": 90_000},
        {"parameters": PEERS[1]},
        {"parameters": PEERS[3]},
        {"slow_down_us": 2_000_000},
        {"slow_down_us": 50_000},
        {"admin": 1},
        {"admin": 0},
        {"admin": 1, "pause_ms": 500},
        {"parameters": PEERS[0], "slow_down_us": 7_000_000},
        {"next_key": bytes(16)},
    ]
)


class Lockstep(RuleBasedStateMachine):
    """The peer and the clock of the twins."""

    @initialize(
        initiator=st.booleans(),
        config=st.sampled_from(CONFIGS),
        peer=st.sampled_from(PEERS),
        start=st.sampled_from([0, 123_456_789]),
        answered=st.sampled_from([True, True, True, False]),
        r=R,
    )
    def begin(
        self, initiator: bool, config: Config, peer: Any, start: int, answered: bool, r: int
    ) -> None:
        self.twins = Twins(config, peer, initiator=initiator, start=start)
        self.twins.draws.r = r
        self.version = 0
        if initiator:
            self.advance(10 * MS)
            if answered:
                self.twins.respond(1)
        else:
            self.twins.init()
            self.advance(10 * MS)
            self.twins.first_probe()

    def advance(self, by: int) -> None:
        self.twins.now += by

    @property
    def alive(self) -> bool:
        return not self.twins.side.finished

    @property
    def established(self) -> bool:
        return bool(self.twins.handshakes)

    @property
    def newest(self) -> Any:
        return self.twins.handshakes[-1]

    @property
    def open(self) -> bool:
        return self.alive and self.established and self.twins.side.state != model.CLOSED

    # Time.

    @rule(r=R)
    def draw(self, r: int) -> None:
        self.twins.draws.r = r

    @rule(by=MOMENTS)
    def drift(self, by: int) -> None:
        """Time passes, and nobody looks at the timers."""
        self.advance(by)

    @precondition(lambda self: self.alive)
    @rule(times=st.integers(1, 8))
    def due(self, times: int) -> None:
        """Handle what is due, exactly then; late if time has drifted past it."""
        for _ in range(times):
            due = self.twins.next_timer()
            if due is not None:
                self.twins.time(max(due, self.twins.now))

    @precondition(lambda self: self.open)
    @rule()
    def silence(self) -> None:
        """Nobody is heard until the verdict is DOWN, or for long."""
        for _ in range(60):
            due = self.twins.next_timer()
            if due is None or self.twins.side.state == model.DOWN:
                return
            self.twins.time(max(due, self.twins.now))

    @precondition(lambda self: self.alive)
    @rule(late=LATENESS)
    def late(self, late: int) -> None:
        due = self.twins.next_timer()
        if due is not None:
            self.twins.time(max(due, self.twins.now) + late)

    @precondition(lambda self: self.alive)
    @rule(by=MOMENTS)
    def early(self, by: int) -> None:
        """Look at the timers before one is due, or when time has come so far."""
        due = self.twins.next_timer()
        now = self.twins.now + by
        self.twins.time(max(self.twins.now, min(now, due - 1)) if due is not None else now)

    @precondition(lambda self: self.alive)
    @rule(stall=LATENESS)
    def stall(self, stall: int) -> None:
        """Time passes a timer, but a frame may come in first."""
        due = self.twins.next_timer()
        if due is not None:
            self.twins.now = max(due, self.twins.now) + stall

    # Frames.

    def said_of(self, which: str, hold: float, lie: int) -> dict[str, int]:
        """Say which frame of the core's was received, and its times; true ones but for `lie`."""
        sent = sorted(self.newest.seen)
        number = {
            "newest": sent[-1] if sent else 0,
            "older": sent[len(sent) // 2] if sent else 0,
            "oldest": sent[0] if sent else 0,
            "none": 0,
            "unsent": (sent[-1] if sent else 0) + 1,
        }[which]
        told = self.twins.side.told
        assert told is not None
        present = (self.twins.now - told.origin) // 1000
        echo = (self.newest.seen.get(number, 0) + lie) % 2**32
        age = (present - echo) % 2**32
        held = MAX_UINT32 if hold > 1 else int(age * hold)
        return {"highest_received": number, "echo_time": echo, "hold_time": held}

    @precondition(lambda self: self.established)
    @rule(
        kind=st.sampled_from(["PROBE", "REPLY", "PROBE", "REPLY", "REPLY", "PROBE", "CLOSE"]),
        which=st.sampled_from(["newest", "newest", "newest", "older", "oldest", "none", "unsent"]),
        hold=st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.01]),
        lie=st.sampled_from([0, 0, 0, 0, 1, -1, 1000, -3_000_000, 5_000_000]),
        state=st.sampled_from([1, 1, 2, 3, 4, 4, 6, 0]),
        ahead=st.sampled_from([1, 1, 1, 2, 0, -1, -5, 1030, -700, -1023, -1024]),
        seen=st.sampled_from([1, 1, 1, 2]),
        pad=st.sampled_from([None, None, 4, 19, 40]),
        source=st.sampled_from([PEER, PEER, PEER, *ELSEWHERE]),
        ack=st.sampled_from([True, True, False]),
        after=MOMENTS,
    )
    def frame(
        self,
        kind: str,
        which: str,
        hold: float,
        lie: int,
        state: int,
        ahead: int,
        seen: int,
        pad: int | None,
        source: Any,
        ack: bool,
        after: int,
    ) -> None:
        """A frame of the peer with what fields it likes."""
        self.advance(after)
        options = Options(pad=pad, close_reason=0x8001 if kind == "CLOSE" else None)
        number = max(1, self.newest.last_sent + ahead)
        self.twins.frame(
            kind,
            len(self.twins.handshakes),
            source,
            packet_number=number,
            options=options,
            control_version=self.version,
            control_ack=self.twins.side.control_version if ack else 0,
            state=state,
            address_hash=seen,
            sent_time=self.twins.now // 1000 % 2**32,
            **self.said_of(which, hold, lie),
        )

    @precondition(lambda self: self.alive and self.established)
    @rule(
        rounds=st.integers(1, 12),
        delay=MOMENTS,
        lost=st.integers(0, 2**12 - 1),
        ack=st.sampled_from([True, True, False]),
    )
    def talk(self, rounds: int, delay: int, lost: int, ack: bool) -> None:
        """An honest peer answers what the core sends, and probes if it is the initiator."""
        for number in range(rounds):
            due = self.twins.next_timer()
            if due is None or not self.alive:
                return
            before = len(self.newest.seen)
            self.twins.time(max(due, self.twins.now))
            self.advance(delay)
            if lost >> number & 1 or not self.alive:
                continue
            if len(self.newest.seen) > before:
                self.say("REPLY", ack=ack)
            elif not self.twins.initiator:
                self.say("PROBE", ack=ack)

    def say(
        self,
        kind: str,
        which: str = "newest",
        source: Any = PEER,
        *,
        ack: bool = True,
        **said: Any,
    ) -> None:
        """Let an honest peer say something; without `ack` it has seen no control state."""
        self.twins.frame(
            kind,
            len(self.twins.handshakes),
            source,
            control_version=self.version,
            control_ack=self.twins.side.control_version if ack else 0,
            **self.said_of(which, 0, 0),
            **said,
        )

    @precondition(lambda self: self.alive and self.established)
    @rule(
        kind=st.sampled_from(["PROBE", "REPLY"]),
        which=st.sampled_from(["newest", "none"]),
        told=CONTROL,
        anew=st.sampled_from([True, True, True, False]),
    )
    def control(self, kind: str, which: str, told: dict[str, Any], anew: bool) -> None:
        """The peer tells control state, new or known."""
        if anew:
            self.version = self.version % 255 + 1
        self.say(kind, which, options=Options(**told))

    @precondition(lambda self: self.alive and self.established)
    @rule(
        source=st.sampled_from(ELSEWHERE),
        answers=st.sampled_from(["new", "new", "old", "other", "nothing"]),
        kind=st.sampled_from(["REPLY", "REPLY", "PROBE"]),
        challenge=st.booleans(),
        wait=st.integers(0, 3),
    )
    def move(self, source: Any, answers: str, kind: str, challenge: bool, wait: int) -> None:
        """The peer is heard from an address, and answers a challenge or asks one."""
        path = self.twins.side.path
        asked = {
            "new": path.asked_new if path else (),
            "old": path.asked_old if path else (),
            "other": (b"another.",),
            "nothing": (),
        }[answers]
        options = Options(
            path_response=asked[-1] if asked else None,
            path_challenge=b"a secret" if challenge else None,
        )
        self.say(kind, source=source, options=options)
        for _ in range(wait):
            due = self.twins.next_timer()
            if due is None:
                return
            self.twins.time(max(due, self.twins.now))

    @precondition(lambda self: self.open)
    @rule(
        jump=st.sampled_from([2, 600, 1030]), back=st.sampled_from([1, 511, 512, 700, 1023, 1024])
    )
    def reorder(self, jump: int, back: int) -> None:
        """A frame overtakes many, and one of those comes after it."""
        newest = self.newest.last_sent + jump
        for number in (newest, newest - back):
            if number > 0:
                self.say("PROBE", packet_number=number)

    @precondition(lambda self: self.alive and self.established)
    @rule(times=st.sampled_from([3, 10, 131]), spacing=st.sampled_from([0, MS, 400 * MS]))
    def flood(self, times: int, spacing: int) -> None:
        """The peer probes far too often."""
        if self.twins.side.state != model.CLOSED:
            for _ in range(times):
                self.advance(spacing)
                self.say("PROBE")

    @precondition(lambda self: self.alive and self.established)
    @rule(frames=st.integers(1, 12), every=st.integers(1, 12), state=st.sampled_from([1, 2, 3, 4]))
    def one_way(self, frames: int, every: int, state: int) -> None:
        """The peer is heard at times, and confirms nothing; the timers do what is due meanwhile."""
        said = self.said_of("oldest", 1.01, 0)
        for number in range(frames):
            for _ in range(every):
                due = self.twins.next_timer()
                if due is None or not self.alive:
                    return
                self.twins.time(max(due, self.twins.now))
            if number % 2:
                self.advance(7 * MS)
            self.twins.frame("PROBE", len(self.twins.handshakes), state=state, **said)

    @precondition(lambda self: self.alive and self.twins.inits)
    @rule(newest=st.booleans(), restarted=st.booleans(), peer=st.sampled_from(PEERS))
    def respond(self, newest: bool, restarted: bool, peer: Any) -> None:
        """Answer an INIT: of the handshake under way or an older one."""
        if restarted:
            self.twins.epoch = self.twins.random(8)
        self.version = 0
        self.twins.respond(len(self.twins.inits) if newest else 1, peer)

    @precondition(lambda self: self.alive and not self.twins.initiator)
    @rule(restarted=st.booleans(), peer=st.sampled_from(PEERS), after=MOMENTS)
    def shake_hands(self, restarted: bool, peer: Any, after: int) -> None:
        """Give a responder's session new keys."""
        if self.twins.side.state == model.CLOSED:
            return
        if restarted:
            self.twins.epoch = self.twins.random(8)
        self.version = 0
        self.twins.init(peer)
        self.advance(after)
        self.twins.first_probe()

    # The application.

    @precondition(lambda self: self.open)
    @rule(duration=st.sampled_from([0, MS, 700 * MS, 4 * S, 40 * S]))
    def pause(self, duration: int) -> None:
        now = self.twins.now
        self.twins.apply(model.Pause(duration), lambda session: session.pause(duration, now))

    @precondition(lambda self: self.open)
    @rule(down=st.booleans())
    def administer(self, down: bool) -> None:
        now = self.twins.now
        self.twins.apply(
            model.Admin(down), lambda s: s.admin_down(now) if down else s.admin_up(now)
        )

    @precondition(lambda self: self.open)
    @rule(changes=st.sampled_from([2, 253, 256]), sure=st.integers(0, 3))
    def fidget(self, changes: int, sure: int) -> None:
        """The application changes its mind, more often than can be told without an answer."""
        now = self.twins.now
        if sure:
            return
        for _ in range(changes):
            self.twins.apply(model.Pause(1 * MS), lambda session: session.pause(1 * MS, now))

    @precondition(lambda self: self.open)
    @rule(interval=st.sampled_from([20, 400, 1_000, 3_000]), least=st.sampled_from([10, 500, 900]))
    def change(self, interval: int, least: int) -> None:
        now = self.twins.now
        own = self.twins.side.own[-1]
        told = own._replace(
            desired_interval_us=1000 * interval, min_receive_interval_us=1000 * least
        )
        self.twins.apply(
            model.SetParameters(told),
            lambda s: s.change_intervals(now, interval_ms=interval, min_receive_interval_ms=least),
        )

    @precondition(lambda self: self.open and not self.twins.initiator)
    @rule(least=st.sampled_from([10, 200, 1_000]))
    def slow_down(self, least: int) -> None:
        now = self.twins.now
        self.twins.apply(model.SlowDown(1000 * least), lambda s: s.slow_down(least, now))

    @precondition(lambda self: self.alive and self.twins.initiator)
    @rule(address=st.sampled_from(ELSEWHERE), sure=st.integers(0, 3))
    def redirect(self, address: Any, sure: int) -> None:
        now = self.twins.now
        if not sure:
            self.twins.apply(model.Redirect(address), lambda s: s.redirect(address, now))

    @precondition(lambda self: self.alive)
    @rule()
    def hint(self) -> None:
        now = self.twins.now
        self.twins.apply(model.Hint(), lambda session: session.note_unreachable(now))

    @precondition(lambda self: self.alive)
    @rule(sent=st.booleans())
    def traffic(self, sent: bool) -> None:
        now = self.twins.now
        if sent:
            self.twins.apply(model.TrafficSent(), lambda s: s.note_application_sent(now))
        else:
            self.twins.apply(model.TrafficReceived(), lambda s: s.note_application_received(now))

    @precondition(lambda self: self.alive and self.established)
    @rule(reason=st.sampled_from([0, 1, 0x8000]), sure=st.integers(0, 9))
    def close(self, reason: int, sure: int) -> None:
        now = self.twins.now
        if not sure:
            self.twins.apply(model.Close(reason), lambda session: session.close(now, reason))


TestLockstep = Lockstep.TestCase
TestLockstep.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    derandomize="KAUDP_LOCKSTEP_EXAMPLES" not in os.environ,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
