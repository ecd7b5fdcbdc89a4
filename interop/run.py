"""Run kaudp, on aioquic, against every QUIC stack that is here, and print what came of it.

    python interop/run.py
    python interop/run.py --stack quic-go caddy --json interop.json
    python interop/run.py --with-quinn --seconds 10

A case is a stack, its role and a mode of kaudp; README.md says when one passes. It exits with 1 if
a case failed, or a stack that --stack names is not installed, and with 2 for a wrong command line.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve as serve_quic
from aioquic.quic.configuration import QuicConfiguration

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kaudp
from interop.peers import launch
from kaudp.events import QUIC_ALPN

OWN: Final = "aioquic"
HOST: Final = "127.0.0.1"
# 127.0.0.1 is no server name (RFC 6066, section 3), and `localhost` may be looked up as ::1.
SERVER_NAME: Final = "localhost"
OTHER_ALPN: Final = "h3"

# Modes of the stacks; for mode stream there is aioquic alone.
MODES: Final = ("datagram", "ping")

SECONDS: Final = 2.0
INTERVAL_MS: Final = 150
AT_ONCE: Final = 4
# Limits of what is waited for; nothing takes as long unless it fails. A stateless reset has to be
# noticed well before the idle timeout, which is 30 s.
WAIT_S: Final = 10.0
CASE_LIMIT_S: Final = 60.0

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Case:
    """A stack in a role, and the mode that kaudp is to find; `what` names more than that."""

    stack: str
    role: str
    mode: str
    what: str = ""

    @property
    def name(self) -> str:
        """The name in tests."""
        return "-".join(part for part in (self.stack, self.role, self.mode, self.what) if part)


@dataclass(slots=True)
class Result:
    """What came of a case: pass, fail, unsupported, or missing where the stack is not installed.

    Seconds from the start of the client to `SessionUp`, and of the median round trip.
    """

    stack: str
    version: str
    role: str
    mode: str
    what: str
    result: str = "pass"
    reason: str = ""
    round_trips: int | None = None
    median_rtt_s: float | None = None
    up_s: float | None = None
    evidence: str = field(default="", repr=False)


class WrongError(Exception):
    """A case did not go as it has to."""


def expect(truth: object, otherwise: str) -> None:
    """Fail the case unless something is so."""
    if not truth:
        raise WrongError(otherwise)


class Waiting:
    """Something that changes, and can be waited for."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def changed(self) -> None:
        """Let those who wait look again."""
        self._news.set()

    async def until(self, condition: Callable[[], Found], what: str, limit_s: float) -> Found:
        """Wait until a condition holds and give what it gave. Raises `WrongError`."""
        try:
            async with asyncio.timeout(limit_s):
                while not (found := condition()):
                    self._news.clear()
                    await self._news.wait()
                return found
        except TimeoutError:
            raise WrongError(f"{what}: not within {limit_s:g} s") from None


class Program(Waiting):
    """A peer's process and the events that it prints."""

    def __init__(self, argv: Sequence[str], errors: Path, *, announces: bool) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []
        self._argv = argv
        self._announces = announces
        self._strange: list[str] = []
        self._errors = errors

    async def __aenter__(self) -> "Program":
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdout=subprocess.PIPE, stderr=errors
            )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if self._announces:
                self._take(line)
        self.changed()

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            self.events.append({"event": str(event["event"]), **event})
        except (ValueError, TypeError, KeyError):
            self._strange.append(line.decode(errors="replace").rstrip())
        self.changed()

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Give the events of a kind."""
        return [event for event in self.events if event["event"] == kind]

    async def event(self, kind: str) -> dict[str, Any]:
        """Wait for the first event of a kind."""
        found = await self.until(
            lambda: self.all(kind) or self._reader.done(), f"the peer's {kind!r}", WAIT_S
        )
        expect(found is not True, f"the peer ended without {kind!r}")
        return self.all(kind)[0]

    async def ready(self, port: int) -> None:
        """Wait until a server listens."""
        if self._announces:
            told = await self.event("ready")
            expect(told.get("port") == port, f"the peer listens elsewhere: {told}")
            return
        try:
            async with asyncio.timeout(WAIT_S):
                while not await answers(port):
                    expect(self._process.returncode is None, "the peer ended before it listened")
        except TimeoutError:
            raise WrongError(f"the peer does not answer within {WAIT_S:g} s") from None

    async def outlives(self, work: Awaitable[Found]) -> Found:
        """Wait for something that the program has to run for."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._reader), return_when=asyncio.FIRST_COMPLETED)
            expect(task.done(), "the peer ended early")
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def stop(self) -> None:
        """End a server with SIGTERM; it has to live until then, and to end as it should."""
        expect(self._process.returncode is None, "the peer ended by itself")
        self._process.send_signal(signal.SIGTERM)
        allowed = (0,) if self._announces else (0, -signal.SIGTERM)
        await self._ended(allowed)

    async def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        await self._ended((-signal.SIGKILL,))

    async def done(self) -> dict[str, Any]:
        """Wait for the end of a client, and give its last word."""
        await self._ended((0,))
        return await self.event("done")

    async def _ended(self, allowed: tuple[int, ...]) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                status = await self._process.wait()
        except TimeoutError:
            raise WrongError(f"the peer has not ended within {WAIT_S:g} s") from None
        await self._reader
        expect(status in allowed, f"the peer ended with {status}")
        expect(not self._strange, f"the peer printed {self._strange}")

    def text(self) -> str:
        """Show what the peer said, for people."""
        lines = [f"$ {' '.join(self._argv)}", *(json.dumps(event) for event in self.events)]
        errors = self._errors.read_text(errors="replace").splitlines()
        return "\n".join([*lines, *self._strange, *errors[-20:]])


class Heard(Waiting):
    """What kaudp told of one session, and when."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.events: list[kaudp.Event] = []
        self.up_s: float | None = None
        self._began = asyncio.get_running_loop().time()

    def take(self, event: kaudp.Event) -> None:
        """Note an event."""
        self.events.append(event)
        if isinstance(event, kaudp.SessionUp) and self.up_s is None:
            self.up_s = asyncio.get_running_loop().time() - self._began
        self.changed()

    @asynccontextmanager
    async def of(self, source: Any) -> AsyncIterator["Heard"]:
        """Listen to a connection or server for the length of an `async with`."""

        async def listen() -> None:
            async for event in source.events():
                self.take(event)

        listening = asyncio.create_task(listen())
        try:
            yield self
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    def all(self, kind: type[Found]) -> list[Found]:
        """Give the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ends(self) -> list[kaudp.Event]:
        """The event that ended the session, if it has ended."""
        return [*self.all(kaudp.SessionClosed), *self.all(kaudp.ConnectFailed)]

    async def measured(self, wanted: int, limit_s: float) -> kaudp.Stats:
        """Wait for so many round trips, and give what the session has measured by then."""
        await self.until(
            lambda: len(self.all(kaudp.RoundTrip)) >= wanted or self.ends,
            f"{self.name}: {wanted} round trips",
            limit_s,
        )
        expect(not self.ends, f"{self.name}: the session ended early: {self.ends}")
        stats: kaudp.Stats = self.all(kaudp.RoundTrip)[-1].session.stats
        return stats

    async def closed(self, reason: kaudp.CloseReason, *, by_peer: bool) -> None:
        """Wait for the end of the session, which has to be this one."""
        (end, *others) = await self.until(lambda: self.ends, f"{self.name}: its end", WAIT_S)
        expect(
            isinstance(end, kaudp.SessionClosed)
            and (end.reason, end.by_peer) == (reason, by_peer)
            and not others,
            f"{self.name}: expected the end {reason.name}, by_peer={by_peer}, got {self.ends}",
        )

    def check(self, mode: str, stats: kaudp.Stats) -> None:
        """Check what has to be so in every session that nothing happens to."""
        self.check_mode(mode)
        expect(len(self.all(kaudp.SessionUp)) >= 1, f"{self.name}: no SessionUp")
        for verdict in (kaudp.SessionDown, kaudp.SessionHalfOpen, kaudp.PeerRestarted):
            expect(not self.all(verdict), f"{self.name}: {self.all(verdict)}")
        losses = (stats.loss_out, stats.loss_in)
        lossless = (0.0, 0.0) if mode == "datagram" else (None, None)
        expect(losses == lossless, f"{self.name}: loss is {losses}, not {lossless}")

    def check_mode(self, mode: str) -> None:
        """Check which mode was chosen."""
        modes = [chosen.mode.value for chosen in self.all(kaudp.ModeChosen)]
        expect(modes == [mode], f"{self.name}: the modes chosen were {modes}")

    def text(self) -> str:
        """Show the events, for people."""
        return "\n".join(f"{self.name}: {event}" for event in self.events)


class Bench:
    """What all cases share: a certificate, a folder, the peers, the length of a case."""

    def __init__(self, folder: Path, peers: dict[str, launch.Peer], seconds: float) -> None:
        self.folder = folder
        self.cert, self.key = launch.certificate(folder)
        self.peers = peers
        self.round_trips = max(3, round(seconds * 1000 / INTERVAL_MS))
        # QUIC's timers may stretch the interval.
        self.limit_s = WAIT_S + 4 * seconds
        self._ports: set[int] = set()

    def config(self) -> kaudp.Config:
        """Give the settings of both sides."""
        return kaudp.Config.wan(
            interval_ms=INTERVAL_MS, min_receive_interval_ms=20, report_round_trips=True
        )

    def client(self) -> QuicConfiguration:
        """Give the configuration of a client that verifies the server."""
        made = QuicConfiguration(is_client=True, server_name=SERVER_NAME)
        made.load_verify_locations(cafile=str(self.cert))
        return made

    def server(self, **options: Any) -> QuicConfiguration:
        """Give the configuration of a server."""
        made = QuicConfiguration(is_client=False, **options)
        made.load_cert_chain(self.cert, self.key)
        return made

    def free_port(self) -> int:
        """Give a port that is free for UDP and TCP, below those that systems hand out."""
        for port in random.sample(range(20_000, 32_000), 1000):
            if port not in self._ports and _is_free(port):
                self._ports.add(port)
                return port
        raise WrongError("no port is free")


class Attempt:
    """One run of a case: who took part, and what was measured."""

    def __init__(self, case: Case, bench: Bench) -> None:
        self.case, self.bench = case, bench
        self.programs: list[Program] = []
        self.sides: list[Heard] = []
        # The side whose measurements are the case's.
        self.near: Heard | None = None
        self.note = ""

    def hears(self, name: str, *, near: bool = False) -> Heard:
        """Begin to note the events of one side."""
        heard = Heard(name)
        self.sides.append(heard)
        if near:
            self.near = heard
        return heard

    def program(self, argv: Sequence[str]) -> Program:
        """Make a peer's process; it runs for the length of an `async with`."""
        announces = self.bench.peers[self.case.stack].announces
        errors = self.bench.folder / f"{self.case.name}-{len(self.programs)}.stderr"
        made = Program(argv, errors, announces=announces)
        self.programs.append(made)
        return made

    def serving(self, port: int, alpn: str, *options: str) -> Program:
        """Make the stack's server."""
        peer = self.bench.peers[self.case.stack]
        return self.program([*peer.server(port, self.bench.cert, self.bench.key, alpn), *options])

    def connecting(self, port: int, alpn: str, count: int, interval_ms: int) -> Program:
        """Make the stack's client."""
        peer = self.bench.peers[self.case.stack]
        return self.program(peer.client(HOST, port, self.bench.cert, alpn, count, interval_ms))

    def text(self) -> str:
        """Show all that happened, for people."""
        told = [*(side.text() for side in self.sides), *(each.text() for each in self.programs)]
        return "\n".join(told)


# The cases


async def stack_serves(attempt: Attempt) -> None:
    """kaudp as the client of a stack's server, in mode datagram or ping."""
    bench, case = attempt.bench, attempt.case
    alpn = QUIC_ALPN
    if case.mode == "ping":
        alpn = bench.peers[case.stack].alpn or OTHER_ALPN
    port = bench.free_port()
    async with attempt.serving(port, alpn) as server:
        await server.ready(port)
        async with beating(attempt, port, alpn, server):
            pass
        if case.mode == "datagram":
            closed = await server.event("close")
            expect(closed.get("reason") == kaudp.CloseReason.NORMAL, f"the peer heard {closed}")
        await server.stop()
    if case.mode == "datagram":
        check_counted(server, bench.round_trips)
    else:
        spoke = [event["event"] for event in server.events if event["event"] != "ready"]
        expect(not spoke, f"a peer that is only pinged said {spoke}")


@asynccontextmanager
async def beating(
    attempt: Attempt, port: int, alpn: str, server: Program | None = None
) -> AsyncIterator[None]:
    """Keep a session with a server until the round trips are measured, and longer at will."""
    bench = attempt.bench
    heard = attempt.hears("client", near=True)
    entered = kaudp.connect(
        f"quic://{HOST}:{port}",
        config=bench.config(),
        quic=bench.client(),
        mode="auto",
        alpn=alpn,
    )
    async with entered as connection, heard.of(connection):
        measured = heard.measured(bench.round_trips, bench.limit_s)
        stats = await (measured if server is None else server.outlives(measured))
        yield
        await connection.close()
        await heard.closed(kaudp.CloseReason.NORMAL, by_peer=False)
    heard.check(attempt.case.mode, stats)


def check_counted(server: Program, least: int) -> None:
    """Check that a server counted every probe once: packet numbers leave no gap."""
    numbers = [event.get("packet_number") for event in server.all("probe")]
    counted = len(numbers)
    expect(numbers == [*range(1, counted + 1)], f"the peer counted the probes {numbers}")
    expect(counted >= least, f"the peer counted {counted} probes, and {least} round trips were")
    expect(len(server.all("session")) == 1, f"sessions of the peer: {server.all('session')}")
    expect(not server.all("ignored"), f"the peer ignored frames: {server.all('ignored')}")


async def stack_connects(attempt: Attempt) -> None:
    """kaudp's server, and a stack's client that heartbeats: mode datagram."""
    bench = attempt.bench
    heard = attempt.hears("server", near=True)
    entered = kaudp.serve(
        f"quic://{HOST}:0", config=bench.config(), quic=bench.server(alpn_protocols=[QUIC_ALPN])
    )
    async with entered as server, heard.of(server):
        count = bench.round_trips
        client = attempt.connecting(server.address[1], QUIC_ALPN, count, INTERVAL_MS)
        async with client:
            # The first PROBE confirms nothing; the CLOSE confirms the last REPLY.
            stats = await client.outlives(heard.measured(count - 1, bench.limit_s))
            await heard.closed(kaudp.CloseReason.NORMAL, by_peer=True)
            done = await client.done()
    expect(
        (done.get("probes"), done.get("replies")) == (count, count),
        f"the client's count of {count} probes is {done}",
    )
    expect(len(client.all("response")) == 1, "the client's session was not up once")
    expect(not client.all("ignored"), f"the client ignored frames: {client.all('ignored')}")
    heard.check("datagram", stats)


class Pinged(QuicConnectionProtocol):
    """A server's connection that knows nothing of kaudp, which is attached to it."""

    def __init__(self, *arguments: Any, heard: Heard, config: kaudp.Config, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.heart = kaudp.attach_quic(self, mode="ping", config=config, on_event=heard.take)


@asynccontextmanager
async def pinging(attempt: Attempt, heard: Heard) -> AsyncIterator[tuple[int, list[Pinged]]]:
    """Serve as a server that pings its clients; give its port and its connections."""
    bench = attempt.bench
    made: list[Pinged] = []

    def make(*arguments: Any, **named: Any) -> Pinged:
        made.append(Pinged(*arguments, heard=heard, config=bench.config(), **named))
        return made[-1]

    port = bench.free_port()
    configuration = bench.server(alpn_protocols=[OTHER_ALPN])
    server = await serve_quic(HOST, port, configuration=configuration, create_protocol=make)
    try:
        yield port, made
        for protocol in made:
            protocol.close()
            await asyncio.wait_for(protocol.wait_closed(), WAIT_S)
    finally:
        server.close()


async def stack_is_pinged(attempt: Attempt) -> None:
    """A server that pings a stack's client, which knows nothing of it."""
    bench = attempt.bench
    heard = attempt.hears("server", near=True)
    async with contextlib.AsyncExitStack() as stack:
        async with pinging(attempt, heard) as (port, made):
            # It stays until this side closes the connection.
            stay_s = round(2 * bench.limit_s)
            client = attempt.connecting(port, OTHER_ALPN, stay_s, 1000)
            await stack.enter_async_context(client)
            stats = await client.outlives(heard.measured(bench.round_trips, bench.limit_s))
            expect(len(made) == 1, f"the client made {len(made)} connections")
            await made[0].heart.close()
            await heard.closed(kaudp.CloseReason.NORMAL, by_peer=False)
        await client.done()
    expect(len(client.all("connected")) == 1, "the client was not connected once")
    heard.check("ping", stats)


async def own_stack(attempt: Attempt) -> None:
    """kaudp at both ends. Where the server takes no datagram frames, the mode is stream."""
    bench, mode = attempt.bench, attempt.case.mode
    options = {} if mode == "datagram" else {"max_datagram_frame_size": 1}
    heard = attempt.hears("server")
    entered = kaudp.serve(f"quic://{HOST}:0", config=bench.config(), quic=bench.server(**options))
    async with entered as server, heard.of(server):
        async with beating(attempt, server.address[1], QUIC_ALPN):
            # The first PROBE confirms nothing.
            stats = await heard.measured(bench.round_trips - 1, bench.limit_s)
        await heard.closed(kaudp.CloseReason.NORMAL, by_peer=True)
    heard.check(mode, stats)


async def own_stack_pings(attempt: Attempt) -> None:
    """Both ends ping each other, and neither speaks kaudp."""
    bench = attempt.bench
    heard = attempt.hears("server")
    async with pinging(attempt, heard) as (port, _):
        async with beating(attempt, port, OTHER_ALPN):
            stats = await heard.measured(bench.round_trips, bench.limit_s)
        # The client's connection is kaudp's own, and ends with the session.
        await heard.closed(kaudp.CloseReason.CARRIER_CLOSED, by_peer=True)
    heard.check("ping", stats)


async def server_restarts(attempt: Attempt) -> None:
    """A server that crashes and comes back ends the session with a stateless reset."""
    bench = attempt.bench
    heard = attempt.hears("client", near=True)
    port = bench.free_port()
    key = random.randbytes(32).hex()
    loop = asyncio.get_running_loop()
    first, second = (attempt.serving(port, QUIC_ALPN, "--reset-key", key) for _ in range(2))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(first)
        await first.ready(port)
        entered = kaudp.connect(f"quic://{HOST}:{port}", config=bench.config(), quic=bench.client())
        connection = await stack.enter_async_context(entered)
        await stack.enter_async_context(heard.of(connection))
        await first.outlives(heard.measured(3, bench.limit_s))
        await first.kill()
        await stack.enter_async_context(second)
        await second.ready(port)
        began = loop.time()
        await heard.until(lambda: heard.ends, "the reset", WAIT_S)
        attempt.note = f"CARRIER_RESET {loop.time() - began:.1f} s after the restart"
        await heard.closed(kaudp.CloseReason.CARRIER_RESET, by_peer=True)
        heard.check_mode("datagram")
        await second.stop()
    expect(len(second.events) == 1, f"the restarted server knew the session: {second.events}")


_SCRIPTS: Final = {
    ("server", "datagram", ""): stack_serves,
    ("server", "ping", ""): stack_serves,
    ("server", "datagram", "restart"): server_restarts,
    ("client", "datagram", ""): stack_connects,
    ("client", "ping", ""): stack_is_pinged,
    ("both", "datagram", ""): own_stack,
    ("both", "stream", ""): own_stack,
    ("both", "ping", ""): own_stack_pings,
}


def all_cases(peers: dict[str, launch.Peer]) -> list[Case]:
    """List the cases, those among them that a stack does not support."""
    cases = [Case(OWN, "both", mode) for mode in ("datagram", "stream", "ping")]
    for name in peers:
        cases += [Case(name, role, mode) for role in ("server", "client") for mode in MODES]
        if name == "quic-go":
            cases.append(Case(name, "server", "datagram", "restart"))
    return cases


def unsupported(case: Case, peers: dict[str, launch.Peer]) -> str | None:
    """Tell why a stack cannot do a case, or None."""
    if case.stack == OWN:
        return None
    peer = peers[case.stack]
    if case.role not in peer.roles:
        return f"no {case.role} among the peers"
    return None if case.mode in peer.modes else "speaks no kaudp"


class Matrix:
    """Runs cases, some at once, and keeps their results in order."""

    def __init__(
        self,
        cases: Iterable[Case],
        *,
        peers: dict[str, launch.Peer] | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self.peers = launch.peers() if peers is None else peers
        self.cases = [*cases]
        self.results: dict[Case, Result] = {}
        self.complaints: list[str] = []
        self._seconds = seconds
        self._lacking: dict[str, str | None] = {}

    def run(self, progress: Callable[[str], object] | None = None) -> None:
        """Build what has to be built, run all cases, and note their results."""
        tell = progress or (lambda text: None)
        for case in self.cases:
            self.results[case] = self._blank(case)
        for name in dict.fromkeys(case.stack for case in self._open() if case.stack != OWN):
            tell(f"building {name}")
            self._build(name)
        with tempfile.TemporaryDirectory(prefix="kaudp-interop-") as folder:
            bench = Bench(Path(folder), self.peers, self._seconds)
            asyncio.run(self._run(bench, tell))

    def _open(self) -> list[Case]:
        """Give the cases that are still to be run."""
        return [case for case, result in self.results.items() if result.result == "open"]

    def _blank(self, case: Case) -> Result:
        identity = (case.role, case.mode, case.what)
        if case.stack == OWN:
            return Result(OWN, importlib.metadata.version(OWN), *identity, "open")
        lack = self._lack(case.stack)
        version = self.peers[case.stack].version() if lack is None else ""
        if reason := unsupported(case, self.peers):
            return Result(case.stack, version, *identity, "unsupported", reason)
        if lack is not None:
            return Result(case.stack, version, *identity, "missing", lack)
        return Result(case.stack, version, *identity, "open")

    def _lack(self, name: str) -> str | None:
        if name not in self._lacking:
            self._lacking[name] = self.peers[name].missing()
        return self._lacking[name]

    def _build(self, name: str) -> None:
        try:
            self.peers[name].build()
        except (OSError, subprocess.CalledProcessError) as error:
            for case in self._open():
                if case.stack == name:
                    self.results[case].result = "fail"
                    self.results[case].reason = f"does not build: {error}"

    async def _run(self, bench: Bench, tell: Callable[[str], object]) -> None:
        asyncio.get_running_loop().set_exception_handler(self._complain)
        slots = asyncio.Semaphore(AT_ONCE)
        cases = self._open()
        running: list[str] = []

        def show() -> None:
            left = len(self._open())
            tell(f"{len(cases) - left} of {len(cases)} done, now {', '.join(running)}")

        async def perform(case: Case) -> None:
            async with slots:
                running.append(case.name)
                show()
                await self._perform(case, bench)
                running.remove(case.name)
                show()

        async with asyncio.TaskGroup() as group:
            for case in cases:
                group.create_task(perform(case))

    async def _perform(self, case: Case, bench: Bench) -> None:
        result, attempt = self.results[case], Attempt(case, bench)
        try:
            async with asyncio.timeout(CASE_LIMIT_S + bench.limit_s):
                await _SCRIPTS[case.role, case.mode, case.what](attempt)
            result.result, result.reason = "pass", attempt.note
        except Exception as error:
            kind = "" if isinstance(error, WrongError) else f"{type(error).__name__}: "
            result.result, result.reason = "fail", f"{kind}{error}"
            result.evidence = attempt.text()
        if attempt.near is not None:
            samples = [sample.rtt for sample in attempt.near.all(kaudp.RoundTrip)]
            result.round_trips = len(samples)
            result.median_rtt_s = statistics.median(samples) / 1e9 if samples else None
            result.up_s = attempt.near.up_s

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(f"{context['message']}: {context.get('exception')!r}")


# Ports


async def answers(port: int) -> bool:
    """Ask a QUIC server for its versions, with one that nobody has (RFC 9000, section 6.3)."""
    packet = b"\xc0" + b"\x1a\x2a\x3a\x4a" + b"\x08" + random.randbytes(8) + b"\x08" + bytes(8)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setblocking(False)
        probe.connect((HOST, port))
        try:
            async with asyncio.timeout(0.2):
                await loop.sock_sendall(probe, packet.ljust(1200, b"\0"))
                return bool(await loop.sock_recv(probe, 2048))
        except TimeoutError:
            return False
        except OSError:
            # Nobody listens yet.
            await asyncio.sleep(0.05)
            return False


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                return False
    return True


# What people see


_HEADS: Final = ("stack", "version", "role", "mode", "result", "round trips", "median", "up")


def table(results: Iterable[Result]) -> str:
    """Show results as a table; the last column says why, or what else is to be known."""
    rows = [_HEADS, *(_row(result)[:-1] for result in results)]
    notes = ["", *(result.reason for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    right = range(5, len(_HEADS))
    lines = []
    for row, note in zip(rows, notes, strict=True):
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join([*cells, note]).rstrip())
    return "\n".join(lines)


def _row(result: Result) -> tuple[str, ...]:
    mode = f"{result.mode}, {result.what}" if result.what else result.mode
    measured = (
        "" if result.round_trips is None else str(result.round_trips),
        "" if result.median_rtt_s is None else f"{result.median_rtt_s * 1000:.1f} ms",
        "" if result.up_s is None else f"{result.up_s * 1000:.0f} ms",
    )
    return (result.stack, result.version, result.role, mode, result.result, *measured, "")


def save(results: Iterable[Result], file: Path) -> None:
    """Write results as JSON."""
    file.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


def _show_progress(text: str) -> None:
    width = shutil.get_terminal_size().columns - 1
    print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)


def _arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--stack", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    add("--json", type=Path, metavar="FILE", help="write the results there, too")
    add("--with-quinn", action="store_true", help="also quinn, which takes minutes to build")
    add("--seconds", type=float, default=SECONDS, help="of heartbeats in a case (%(default)s)")
    given = parser.parse_args()
    if not 0 < given.seconds <= 3600:
        parser.error("--seconds: expected more than 0 and at most 3600")
    return given


def main() -> int:
    """Run, show progress on a terminal, print the table."""
    peers = launch.peers()
    given = _arguments([OWN, *peers])
    wanted = given.stack or [name for name in (OWN, *peers) if name != "quinn" or given.with_quinn]
    cases = [case for case in all_cases(peers) if case.stack in wanted]
    matrix = Matrix(cases, peers=peers, seconds=given.seconds)
    # Peers end with this program, however it is told to end.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    on_terminal = sys.stderr.isatty()
    try:
        matrix.run(_show_progress if on_terminal else None)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 1
    if on_terminal:
        _show_progress("")
    results = [*matrix.results.values()]
    print(table(results))
    if given.json:
        save(results, given.json)
    for result in results:
        if result.evidence:
            print(
                f"\n{result.stack} {result.role} {result.mode}\n{result.evidence}", file=sys.stderr
            )
    for complaint in matrix.complaints:
        print(f"reported to the loop: {complaint}", file=sys.stderr)
    failing = ("fail", "missing") if given.stack else ("fail",)
    return int(bool(matrix.complaints) or any(each.result in failing for each in results))


if __name__ == "__main__":
    sys.exit(main())
