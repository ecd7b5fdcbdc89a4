"""The scenarios: who takes part, what is done to them, and when. They drive; tests judge.

A scenario waits only for what it needs in order to go on, and longer than the bounds allow: what
comes too late is then in the record, for a test to find.
"""

import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import Enum
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from kaudp import Config, PresharedKey
from tests.system import bounds
from tests.system.actors import Actor
from tests.system.applications import ALPN as APPLICATION
from tests.system.attacker import STRANGERS
from tests.system.certificate import make_certificate
from tests.system.peer import config_to_text
from tests.system.record import SECOND, Missing, Record, now
from tests.system.topology import BOTH_WAYS, SERVER, Namespace, Way, network

WAN = Config.wan()
EVERY_SECOND = Config.wan(interval_ms=1_000)
# At 30 % loss each way one handshake in thirty needs more than the usual 10 s.
LOSSY = Config.wan(interval_ms=1_000, connect_timeout_ms=60_000)
RESPONDER = Config.server()

ANY = "0.0.0.0"
PORT = 4600
CONTROL_PORT = 4700
CONTROL_AFTER_S = (1.0, 15.0)
SIDES = ("client", "server")

START_S = 60
PATIENCE_S = 10
MAPPING_SAMPLE_S = 2
FREEZE_S = 8
ONE_WAY_S = 25
# With the detection some 34 s: below aioquic's idle timeout of 60 s.
LONG_CUT_S = 30
LAST_REPORT_S = 3
HANDSHAKES_SHARE = 0.2
# Until all that a flood can make the server hold is there: see test_flood.
WARM_UP_S = 8


class Carrier(Enum):
    """What carries the heartbeats, and who takes part.

    Over UDP and in QUIC datagrams both sides run kaudp, on a socket or connection of their own.
    With ATTACHED the client's UDP socket is an application's, bound to no address. With PING the
    server is an application of aioquic's without kaudp; the client has a connection of kaudp's own.
    With ATTACHED_PING kaudp is attached to the application's client, and with MUTUAL_PING to both
    of its ends.
    """

    UDP = "udp"
    ATTACHED = "attached"
    DATAGRAM = "datagram"
    PING = "ping"
    ATTACHED_PING = "attached ping"
    MUTUAL_PING = "mutual ping"

    @property
    def scheme(self) -> str:
        """The scheme of its URLs."""
        return "udp" if self in (Carrier.UDP, Carrier.ATTACHED) else "quic"

    @property
    def over_udp(self) -> bool:
        """Whether no QUIC is in it."""
        return self.scheme == "udp"

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that have a session."""
        return SIDES[:1] if self in (Carrier.PING, Carrier.ATTACHED_PING) else SIDES


CLIENT_MODES = {
    Carrier.ATTACHED: "attach",
    Carrier.ATTACHED_PING: "quic-ask",
    Carrier.MUTUAL_PING: "quic-ask",
}


class Gate:
    """Holds all scenarios back until each is ready, or has failed: starting is noisy."""

    def __init__(self, names: Iterable[str]) -> None:
        self._awaited = set(names)

    def arrive(self, name: str) -> None:
        """Take note that one is ready."""
        self._awaited.discard(name)

    def wait(self, record: Record) -> None:
        """Wait for the others."""
        while self._awaited:
            record.rest(0.1)


class Stage:
    """One network, its peers, and the verbs of the scenarios."""

    def __init__(self, case: "Case", record: Record, gate: Gate, seconds: float) -> None:
        self.record = record
        self.seconds = seconds
        self.key = PresharedKey.generate().to_text()
        self.case = case
        self._gate = gate
        self._stack = ExitStack()
        self._ends = 0.0

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="kaudp-system-")))
            make_certificate(self._folder, SERVER)
            self.network = stack.enter_context(network(self.case.name))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # Who takes part.

    def pair(self) -> None:
        """Start a server and a client, and wait until all sides with a session are UP."""
        since = now()
        self.serve()
        self.ask()
        self.wait_for("SessionUp", self.case.sides, since, START_S)

    def ask(self) -> None:
        """Start a client."""
        url, carrier = self._url(SERVER, PORT), self.case.carrier
        settings = self._settings(self.case.client)
        if carrier is Carrier.PING:
            settings = (*settings, f"--alpn={APPLICATION}")
        if self.case.instance:
            settings = (*settings, f"--instance={self.case.instance}")
        mode = CLIENT_MODES.get(carrier, "connect")
        self.client = self._act("client", self.network.client, mode, url, *settings)

    def serve(self) -> None:
        """Start a server and wait until it listens."""
        since = now()
        url, carrier = self._url(ANY, PORT), self.case.carrier
        settings = self._settings(self.case.server)
        if carrier is Carrier.ATTACHED_PING:
            settings = self._talk()
        elif carrier is Carrier.PING:
            settings = settings[:1]
        own = carrier.over_udp or carrier is Carrier.DATAGRAM
        mode = "serve" if own else "quic-serve"
        self.server = self._act("server", self.network.server, mode, url, *settings)
        self.wait_for("Ready", ("server",), since, START_S)

    def control(self) -> None:
        """Start the flow without kaudp: of UDP packets, or the application's own."""
        since = now()
        serve, ask = self._url(ANY, CONTROL_PORT), self._url(SERVER, CONTROL_PORT)
        kind = "control" if self.case.carrier.over_udp else "quic"
        self._act("answerer", self.network.server, f"{kind}-serve", serve, *self._talk())
        self.wait_for("Ready", ("answerer",), since, START_S)
        self._act("asker", self.network.client, f"{kind}-ask", ask, f"--tls={self._folder}")

    def gather(self) -> None:
        """Start a server, somebody who listens on the router, and many clients; wait for all."""
        since = now()
        everywhere, there = self._url(ANY, PORT), self._url(SERVER, PORT)
        key, judging = self._settings(self.case.server)
        outer, router, inner = self.network.server, self.network.router, self.network.client
        device = f"--device={Way.TO_CLIENT.value}"
        self.server = self._act("server", outer, "crowd-serve", everywhere, key, judging)
        self.attacker = self._act("attacker", router, "attack", there, key, device)
        self.wait_for("Ready", ("server", "attacker"), since, START_S)
        settings = (*self._settings(self.case.client), f"--sessions={self.case.crowd}")
        self.client = self._act("client", inner, "crowd-connect", there, *settings)
        self.wait_for("Assembled", ("client",), since, START_S)

    def census(self, when: str) -> None:
        """Let both sides count their sessions."""
        since = now()
        self.record.add("stage", "Counting", when=when)
        for actor in (self.server, self.client):
            actor.send(signal.SIGUSR1)
        self.wait_for("Census", SIDES, since, PATIENCE_S)

    def turn(self, kind: str) -> None:
        """Let the attacker begin, or end, and wait until it tells so."""
        since = now()
        self.attacker.send(signal.SIGUSR1)
        self.wait_for(kind, ("attacker",), since, PATIENCE_S)

    def leave(self) -> None:
        """Stop both sides in order."""
        self.client.stop()
        self.server.stop()

    # Time.

    def begin(self) -> None:
        """Wait until all scenarios are ready; the scenario's own time starts here."""
        self._gate.arrive(self.case.name)
        self._gate.wait(self.record)
        self._ends = time.monotonic() + self.seconds
        self.record.add("stage", "Begin")

    def left(self) -> float:
        """Tell how many seconds of the scenario are left."""
        return max(0.0, self._ends - time.monotonic())

    def spent(self) -> float:
        """Tell how many seconds of the scenario are over."""
        return self.seconds - self.left()

    def rounds(self, seconds: float) -> Iterator[int]:
        """Count rounds while there is time for one more; the first is always run."""
        yield 0
        count = 1
        while self.left() >= seconds:
            yield count
            count += 1

    def settle(self, seconds: float = 5) -> None:
        """Let some time pass, so that trouble meets the heartbeat at any of its phases."""
        self.record.rest(seconds + random.random())

    # What is done, and waited for.

    def fault(self, what: str, act: Callable[[], None]) -> int:
        """Do harm; write down between which two times it took effect."""
        return self._mark("Fault", what, act)

    def mend(self, what: str, act: Callable[[], None]) -> int:
        """Undo it."""
        return self._mark("Mended", what, act)

    def wait_for(self, kind: str, sides: Iterable[str], since: int, seconds: float) -> None:
        """Wait for an entry of each side since a time; in vain if its process ends."""
        for who in sides:
            self.record.wait(seconds, f"{kind} of {who}", partial(self._seen, kind, who, since))

    def wait_round_trip(self) -> None:
        """Wait until the client has an answer to a probe whose next is most of T away.

        That is not so for the first one under new keys. Spec: KA-8.2-2.
        """
        since = now()

        def seen() -> bool:
            found = self.record.all("RoundTrip", "client", since)
            return any(each["packet_number"] > 1 for each in found)

        self.record.wait(2 * PATIENCE_S, "a round trip", seen)

    def wait_up(self, sides: Iterable[str], since: int) -> None:
        """Wait for UP, longer than the bound."""
        bound = bounds.recovery(self.case.client, self.case.server, SECOND) / SECOND
        self.wait_for("SessionUp", sides, since, bound + PATIENCE_S)

    def wait_down(self, sides: Iterable[str], since: int) -> None:
        """Wait for DOWN, longer than the bound."""
        for who, judge in (("client", self.case.client), ("server", self.case.server)):
            if who in sides:
                bound = bounds.detection(judge, self.case.client, self.case.server, SECOND)
                self.wait_for("SessionDown", (who,), since, bound / SECOND + PATIENCE_S)

    def note_mappings(self) -> None:
        """Write down what the router's connection tracking holds."""
        for mapping in self.network.mappings():
            self.record.add("router", "Mapping", **asdict(mapping))

    def watch_mappings(self) -> None:
        """Let the scenario's time pass, and write the mappings down again and again."""
        while self.left():
            self.note_mappings()
            self.record.rest(MAPPING_SAMPLE_S)
        self.record.add("stage", "Watched")

    def note_drops(self) -> None:
        """Write down how many frames of the session the router has dropped each way."""
        over_udp = self.case.carrier.over_udp
        dropped = self.network.frames_dropped if over_udp else self.network.quic_frames_dropped
        drops = {way.name: dropped(way) for way in BOTH_WAYS}
        self.record.add("router", "Drops", **drops)

    def _seen(self, kind: str, who: str, since: int) -> bool:
        found = self.record.all(kind, who, since)
        if not found and self.record.all("Exit", who, since):
            raise Missing(f"{who} ended before {kind}")
        return bool(found)

    def _mark(self, kind: str, what: str, act: Callable[[], None]) -> int:
        began = now()
        act()
        self.record.add("stage", kind, began, what=what, done=now())
        return began

    def _act(self, who: str, where: Namespace, *arguments: str) -> Actor:
        actor = Actor(who, where, self.record, *arguments)
        self._stack.callback(actor.stop)
        return actor

    def _url(self, host: str, port: int) -> str:
        return f"{self.case.carrier.scheme}://{host}:{port}"

    def _settings(self, config: Config) -> tuple[str, ...]:
        # One word: one key in 64 begins with "-", and would be taken for an option.
        over_udp = self.case.carrier.over_udp
        secret = f"--key={self.key}" if over_udp else f"--tls={self._folder}"
        return secret, f"--config={config_to_text(config)}"

    def _talk(self) -> tuple[str, ...]:
        """Give the settings of a server without kaudp that says something now and then."""
        return f"--tls={self._folder}", *(f"--after={seconds}" for seconds in CONTROL_AFTER_S)


def binding(stage: Stage) -> None:
    """Beat every 5 s through a NAT that forgets after 8; at the end, reach a silent client."""
    stage.pair()
    stage.control()
    stage.begin()
    stage.watch_mappings()
    frozen = stage.fault("client frozen", lambda: stage.client.send(signal.SIGSTOP))
    stage.note_mappings()
    stage.wait_for("SessionSuspect", ("server",), frozen, PATIENCE_S)
    stage.record.rest(1)
    stage.note_mappings()
    thawed = stage.mend("client thawed", lambda: stage.client.send(signal.SIGCONT))
    stage.wait_up(("server",), thawed)
    stage.record.rest(LAST_REPORT_S)


def quic_binding(stage: Stage) -> None:
    """Beat every 5 s through the same NAT inside QUIC, beside a connection without kaudp."""
    stage.pair()
    stage.control()
    stage.begin()
    stage.watch_mappings()


def rebinding(stage: Stage) -> None:
    """Let the NAT forget its mappings and give others."""
    stage.pair()
    stage.begin()
    for _ in stage.rounds(10):
        stage.settle()
        stage.note_mappings()
        at = stage.fault("rebound", stage.network.rebind)
        for who, kind in stage.case.rebinding_told:
            stage.wait_for(kind, (who,), at, PATIENCE_S)
        stage.settle(3)
        stage.note_mappings()


def moving(stage: Stage) -> None:
    """Give the client's host another address; its socket is bound to none."""
    stage.network.translate_nothing()
    stage.pair()
    stage.begin()
    for _ in stage.rounds(10):
        stage.settle()
        at = stage.fault("client moved", stage.network.move_client)
        for who, kind in stage.case.rebinding_told:
            stage.wait_for(kind, (who,), at, PATIENCE_S)
        stage.settle(3)


def moving_bound(stage: Stage) -> None:
    """Do the same to a client whose socket keeps the address that is gone: a connected one."""
    stage.network.translate_nothing()
    stage.pair()
    stage.begin()
    for _ in stage.rounds(20):
        stage.settle()
        at = stage.fault("client moved", stage.network.move_client)
        stage.wait_down(("client",), at)
        stage.wait_up(("client",), at)
        stage.wait_for("PeerAddressChanged", ("server",), at, PATIENCE_S)
        stage.settle(3)


def loss(percent: float) -> Callable[[Stage], None]:
    """Give the scenario of random loss each way, from the first INIT on."""

    def script(stage: Stage) -> None:
        stage.network.lose(percent)
        stage.pair()
        stage.begin()
        stage.record.rest(stage.left())
        stage.network.mend()
        # Both sides now learn of the last frames what became of them.
        stage.record.rest(LAST_REPORT_S)
        stage.note_drops()

    return script


def cut(*holds: float) -> Callable[[Stage], None]:
    """Give the scenario of both ways cut until all sides have noticed and, in turn, this longer."""

    def script(stage: Stage) -> None:
        stage.pair()
        stage.begin()
        longer = cycle(holds)
        for _ in stage.rounds(20 + max(holds)):
            stage.settle()
            at = stage.fault("both ways cut", stage.network.cut)
            stage.wait_down(stage.case.sides, at)
            stage.settle(next(longer))
            at = stage.mend("both ways", stage.network.mend)
            stage.wait_up(stage.case.sides, at)
        stage.settle()

    return script


def one_way(way: Way) -> Callable[[Stage], None]:
    """Give the scenario of a path that is cut in one direction, for long."""

    def script(stage: Stage) -> None:
        stage.pair()
        stage.begin()
        for _ in stage.rounds(2 * ONE_WAY_S - 10):
            stage.settle()
            stage.fault(f"{way.name} cut", lambda: stage.network.cut((way,)))
            stage.record.rest(ONE_WAY_S)
            at = stage.mend(way.name, stage.network.mend)
            stage.wait_up(SIDES, at)
        stage.settle()

    return script


def frames_lost(percent: float, ways: tuple[Way, ...]) -> Callable[[Stage], None]:
    """Give the scenario of a path that handshakes pass, but not all frames of their sessions.

    So handshakes follow each other, each before the one before has come to anything.
    """

    def script(stage: Stage) -> None:
        stage.pair()
        stage.begin()
        for _ in stage.rounds(12):
            stage.settle(3)
            stage.fault("frames lost", partial(stage.network.lose_frames, percent, ways))
            stage.settle(5)
            stage.mend("frames lost", stage.network.mend)
            stage.settle(3)

    return script


def frozen(who: str) -> Callable[[Stage], None]:
    """Give the scenario of a process that stops for longer than a detection takes.

    Each round has a new pair: own stalls are excused for L in ten minutes, no longer.
    """
    other = SIDES[1 - SIDES.index(who)]

    def script(stage: Stage) -> None:
        for count in stage.rounds(22):
            stage.pair()
            if not count:
                stage.begin()
            stage.settle(3)
            actor = getattr(stage, who)
            at = stage.fault(f"{who} frozen", lambda actor=actor: actor.send(signal.SIGSTOP))
            stage.wait_down((other,), at)
            stage.record.rest(max(0, at / SECOND + FREEZE_S - now() / SECOND))
            at = stage.mend(f"{who} thawed", lambda actor=actor: actor.send(signal.SIGCONT))
            stage.wait_up((other,), at)
            stage.settle(4)
            stage.leave()

    return script


def restart(stage: Stage) -> None:
    """Kill the server and start another in its place: at once, or when the client has noticed."""
    stage.pair()
    stage.begin()
    outages = cycle((False, True))
    for _ in stage.rounds(20):
        stage.settle(4)
        at = stage.fault("server killed", stage.server.kill)
        if next(outages):
            stage.wait_down(("client",), at)
            stage.settle(2)
        at = stage.mend("server started", stage.serve)
        stage.wait_up(SIDES, at)
    stage.settle(4)


def quick_restart(stage: Stage) -> None:
    """Kill the server just after a round trip; another is there before the next probe."""
    stage.pair()
    stage.begin()
    for _ in stage.rounds(15):
        stage.wait_round_trip()
        stage.fault("server killed", stage.server.kill)
        at = stage.mend("server started", stage.serve)
        stage.wait_for("PeerRestarted", ("client",), at, PATIENCE_S)
        stage.wait_up(SIDES, at)
    stage.settle(3)


def client_restart(stage: Stage) -> None:
    """Kill the client and start another in its place, with the same instance id."""
    stage.pair()
    stage.begin()
    for _ in stage.rounds(15):
        stage.settle()
        stage.fault("client killed", stage.client.kill)
        at = stage.mend("client started", stage.ask)
        stage.wait_for("PeerRestarted", ("server",), at, START_S)
        stage.wait_for("SessionUp", ("client",), at, PATIENCE_S)
    stage.settle()


def flood(stage: Stage) -> None:
    """Keep a crowd UP whose server somebody on the path floods from many addresses, twice."""
    stage.network.answer_nothing(str(STRANGERS))
    stage.gather()
    stage.begin()
    mixed = 1 - HANDSHAKES_SHARE
    for until in (mixed * stage.seconds, stage.seconds):
        stage.census("before")
        stage.turn("FloodBegins")
        stage.record.rest(WARM_UP_S)
        stage.census("warm")
        stage.record.rest(max(0, until - stage.spent()))
        stage.turn("FloodEnds")
        stage.census("after")
    stage.record.rest(LAST_REPORT_S)
    stage.census("end")
    stage.leave()


@dataclass(frozen=True, slots=True)
class Case:
    """One scenario with its settings; `convicts` are the sides that a fault may bring DOWN.

    `instance` is an instance id of the client that outlasts its process, in hexadecimal. A `crowd`
    is so many clients in one process. What loads the machine is run `alone`, after all others.
    """

    name: str
    script: Callable[[Stage], None]
    convicts: frozenset[str] = frozenset()
    client: Config = EVERY_SECOND
    server: Config = RESPONDER
    seconds: float = 60
    carrier: Carrier = Carrier.UDP
    instance: str = ""
    crowd: int = 0
    alone: bool = False

    @property
    def interval(self) -> int:
        """Give T in ns."""
        return bounds.interval(self.client, self.server)

    @property
    def sides(self) -> tuple[str, ...]:
        """Give the sides that have a session."""
        return self.carrier.sides

    @property
    def rebinding_told(self) -> tuple[tuple[str, str], ...]:
        """Give who tells a rebinding, and by which event; a PING tells the client nothing."""
        told = (("server", "PeerAddressChanged"), ("client", "OwnAddressChanged"))
        return told[:1] if self.carrier is Carrier.MUTUAL_PING else told

    def config(self, who: str) -> Config:
        """Give the settings of a side."""
        return self.client if who == "client" else self.server


CASES = {
    case.name: case
    for case in (
        Case("binding", binding, client=WAN, seconds=80),
        *(Case(f"loss-{percent}", loss(percent), client=LOSSY) for percent in (0, 10, 20, 30)),
        Case("cut", cut(2), frozenset(SIDES)),
        Case("cut-to-client", one_way(Way.TO_CLIENT), frozenset({"client"})),
        Case("cut-to-server", one_way(Way.TO_SERVER), frozenset({"server"})),
        Case("frames-lost", frames_lost(60, BOTH_WAYS), frozenset({"server"})),
        # The client's handshakes pass, ever more seldom (KA-7.4-5): it may say DOWN in between.
        Case("frames-cut", frames_lost(100, (Way.TO_SERVER,)), frozenset(SIDES)),
        Case("frozen-server", frozen("server"), frozenset({"client"})),
        Case("frozen-client", frozen("client"), frozenset({"server"})),
        Case("restart", restart, frozenset({"client"})),
        Case("quick-restart", quick_restart, client=Config.wan(report_round_trips=True)),
        Case("client-restart", client_restart, client=WAN, instance="00112233445566ff"),
        Case("rebinding", rebinding),
        Case("moving", moving, carrier=Carrier.ATTACHED),
        Case("moving-bound", moving_bound, frozenset(SIDES)),
        Case("flood", flood, client=WAN, seconds=46, crowd=1_000, alone=True),
        *(
            Case(f"quic-binding-{name}", quic_binding, client=WAN, seconds=80, carrier=carrier)
            for name, carrier in (
                ("datagram", Carrier.DATAGRAM),
                ("ping", Carrier.ATTACHED_PING),
            )
        ),
        *(
            Case(f"quic-rebinding-{name}", rebinding, carrier=carrier)
            for name, carrier in (
                ("datagram", Carrier.DATAGRAM),
                ("ping", Carrier.MUTUAL_PING),
            )
        ),
        *(
            Case(f"quic-loss-{carrier.value}", loss(20), client=LOSSY, carrier=carrier)
            for carrier in (Carrier.DATAGRAM, Carrier.PING)
        ),
        *(
            Case(
                f"quic-cut-{carrier.value}",
                cut(2, LONG_CUT_S),
                frozenset(carrier.sides),
                seconds=75,
                carrier=carrier,
            )
            for carrier in (Carrier.DATAGRAM, Carrier.PING)
        ),
    )
}
