"""What a heartbeat inside QUIC costs beside the same datagram, or PING, of aioquic alone.

    python tests/bench/quic.py [--rounds N] [--seconds S] [--json FILE]

One process, one loop, several connections, both ends on loopback. Rounds with and without kaudp
alternate, at the same rate; CPU is the process's own time, both ends, divided by the exchanges.
Ratios are the figure: absolute times depend on the machine and its load. The core alone is timed
in memory in the same rounds, to tell the adapter's part from the protocol's.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import DatagramFrameReceived, QuicEvent

import kaudp
from kaudp.io.quic import attachment
from kaudp.io.quic.acknowledgements import AcknowledgingPeer
from kaudp.io.quic.certificates import self_signed
from kaudp.wire.suites import Carried

HEARTBEAT_BYTES = 48
CONNECTIONS = 8
CORE_ROUNDS = 5
CORE_BEATS = 200
INTERVAL_MS = 10
MEAN_INTERVAL_S = 0.875 * INTERVAL_MS / 1000
MAX_DATAGRAM_FRAME_SIZE = 65536
HEART = kaudp.Config.lan(interval_ms=INTERVAL_MS)
GOALS = {"datagram": 0.05, "ping": 0.10}


class Echo(QuicConnectionProtocol):
    """Sends each datagram back."""

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, DatagramFrameReceived):
            self._quic.send_datagram_frame(event.data)


class Beating(QuicConnectionProtocol):
    """A server's side with kaudp attached."""

    def __init__(self, *arguments, **named) -> None:
        super().__init__(*arguments, **named)
        kaudp.attach_quic(self, peer_speaks_kaudp=True, config=HEART, on_event=lambda event: None)


@asynccontextmanager
async def pair(server: type[QuicConnectionProtocol]) -> AsyncIterator[QuicConnectionProtocol]:
    """Connect a client to a server; give the client's side."""
    made = self_signed()
    configuration = QuicConfiguration(
        is_client=False, max_datagram_frame_size=MAX_DATAGRAM_FRAME_SIZE, alpn_protocols=["bench"]
    )
    configuration.certificate, configuration.private_key = made.certificate, made.key
    listening = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=server)
    port = listening._transport.get_extra_info("sockname")[1]
    asking = QuicConfiguration(
        max_datagram_frame_size=MAX_DATAGRAM_FRAME_SIZE, alpn_protocols=["bench"], verify_mode=0
    )
    async with connect("127.0.0.1", port, configuration=asking) as protocol:
        yield protocol
    listening.close()


async def bare(seconds: float, send: Callable[[QuicConnectionProtocol, int], None]) -> float:
    """Send at the heartbeats' rate and jitter without kaudp; give the CPU of an exchange in µs."""
    loop = asyncio.get_running_loop()
    rng = Random(1)
    async with AsyncExitStack() as stack:
        protocols = [await stack.enter_async_context(pair(Echo)) for _ in range(CONNECTIONS)]
        ends = loop.time() + seconds
        sent = 0

        def tick(protocol: QuicConnectionProtocol, at: float) -> None:
            nonlocal sent
            if at < ends:
                sent += 1
                send(protocol, sent)
                protocol.transmit()
                following = at + rng.uniform(0.75, 1.0) * INTERVAL_MS / 1000
                loop.call_at(following, tick, protocol, following)

        begun = time.process_time()
        for protocol in protocols:
            at = loop.time() + rng.uniform(0, INTERVAL_MS / 1000)
            loop.call_at(at, tick, protocol, at)
        await asyncio.sleep(seconds)
        return 1e6 * (time.process_time() - begun) / sent


async def beating(seconds: float, mode: kaudp.QuicMode) -> float:
    """Let kaudp beat; give the CPU time of an exchange in µs."""
    server = Beating if mode is kaudp.QuicMode.DATAGRAM else Echo
    async with AsyncExitStack() as stack:
        protocols = [await stack.enter_async_context(pair(server)) for _ in range(CONNECTIONS)]
        hearts = [
            kaudp.attach_quic(protocol, mode=mode, config=HEART, on_event=lambda event: None)
            for protocol in protocols
        ]
        while not all(heart.stats.round_trips for heart in hearts):
            await asyncio.sleep(MEAN_INTERVAL_S)
        before, begun = sum(heart.stats.round_trips for heart in hearts), time.process_time()
        await asyncio.sleep(seconds)
        spent = time.process_time() - begun
        return 1e6 * spent / (sum(heart.stats.round_trips for heart in hearts) - before)


def core(mode: kaudp.QuicMode) -> float:
    """Let the core alone beat, in memory; give the CPU time of an exchange in µs, at best."""
    near, far = endpoint(accept=False), endpoint(accept=True)
    peer = AcknowledgingPeer()
    near.connect("far", 0, key_id=b"")
    now, best = 0, float("inf")
    for _ in range(CORE_ROUNDS):
        spent = beats = 0
        while beats < CORE_BEATS:
            begun = time.perf_counter_ns()
            now = near.next_timer() or now
            near.handle_timer(now)
            frames = [frame for frame, _ in near.datagrams_to_send()]
            spent += time.perf_counter_ns() - begun
            now += 1_000_000
            for frame in frames:
                begun = time.perf_counter_ns()
                if mode is kaudp.QuicMode.DATAGRAM:
                    far.receive_datagram(frame, "near", now)
                    far.handle_timer(now)
                    answers = [answer for answer, _ in far.datagrams_to_send()]
                else:  # what stands in for the peer is the adapter's
                    spent += time.perf_counter_ns() - begun
                    answers = [peer.acknowledged(peer.ask(frame))]
                    begun = time.perf_counter_ns()
                for answer in answers:
                    near.receive_datagram(answer, "far", now)
                spent += time.perf_counter_ns() - begun
                beats += 1
        best = min(best, spent / beats / 1e3)
    return best


def endpoint(*, accept: bool) -> kaudp.Endpoint:
    seed = f"bench {accept}"
    return kaudp.Endpoint(
        HEART, keys=Carried(), rng=Random(seed), entropy=Random(seed).randbytes, accept=accept
    )


def datagram(protocol: QuicConnectionProtocol, number: int) -> None:
    protocol._quic.send_datagram_frame(bytes(HEARTBEAT_BYTES))


def ping(protocol: QuicConnectionProtocol, number: int) -> None:
    protocol._quic.send_ping(number)


def measure(rounds: int, seconds: float) -> dict[str, dict[str, float | list[float]]]:
    """Alternate, and give each round's pair of figures and the median ratio."""
    # QUIC's PTO would slow the beat down; the cost of a beat is what is asked.
    attachment.fit = lambda config, **timeouts: config
    figures = {}
    for name, send, mode in (
        ("datagram", datagram, kaudp.QuicMode.DATAGRAM),
        ("ping", ping, kaudp.QuicMode.PING),
    ):
        alone, with_kaudp, in_core = [], [], []
        for number in range(rounds):
            alone.append(asyncio.run(bare(seconds, send)))
            with_kaudp.append(asyncio.run(beating(seconds, mode)))
            in_core.append(core(mode))
            print(
                f"{name} {number + 1}/{rounds}: aioquic {alone[-1]:.0f} µs, "
                f"with kaudp {with_kaudp[-1]:.0f} µs, "
                f"added {with_kaudp[-1] / alone[-1] - 1:+.1%}, the core alone {in_core[-1]:.0f} µs",
                flush=True,
            )
        added = [both / one - 1 for one, both in zip(alone, with_kaudp, strict=True)]
        figures[name] = {
            "aioquic_us": alone,
            "with_kaudp_us": with_kaudp,
            "core_us": in_core,
            "added": statistics.median(added),
            "core": statistics.median(
                one / other for one, other in zip(in_core, alone, strict=True)
            ),
            "goal": GOALS[name],
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    figures = measure(given.rounds, given.seconds)
    for name, figure in figures.items():
        adapter = figure["added"] - figure["core"]
        print(
            f"{name}: added {figure['added']:+.1%} of aioquic's own, of which the core "
            f"{figure['core']:.1%} and the adapter {adapter:.1%} (goal {figure['goal']:.0%})"
        )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
