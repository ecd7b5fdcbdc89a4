"""A kaudp peer over an unmodified qh3: datagram mode on a connection of its own.

See README.md beside this file for the contract that every peer keeps.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import ssl
import sys
from collections.abc import Callable
from typing import Any

from carried import CLOSE, CLOSE_REASON, PROBE, Initiator, Responder, canonical, option
from qh3.asyncio.client import connect
from qh3.asyncio.protocol import QuicConnectionProtocol
from qh3.asyncio.server import serve
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnectionError
from qh3.quic.events import (
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
)

ALPN = "kaudp/1"
CONNECT_TIMEOUT_S = 10.0
# A peer keeps to the PTO that an endpoint begins with (10.2).
PTO_S = 1.0
MAX_DATAGRAM_FRAME_SIZE = 65535


def say(event: dict[str, Any]) -> None:
    print(json.dumps(event, separators=(",", ":")), flush=True)


class Peer(QuicConnectionProtocol):
    """One QUIC connection; `side` takes its datagrams once the ALPN says kaudp."""

    def __init__(self, *args: Any, side: Initiator | Responder, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.side = side
        self.address = b""
        self.ended = False
        self.changed = asyncio.Event()
        # What was agreed on, once the handshake is complete.
        self.alpn: str | None = None

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        # qh3 does not tell where it sends to; the source of the newest packet is as good here.
        self.address = canonical(addr[0], addr[1])
        super().datagram_received(data, addr)

    def datagrams_received(self, data: list[bytes], addr: Any) -> None:
        self.address = canonical(addr[0], addr[1])
        super().datagrams_received(data, addr)

    def transmit(self) -> None:
        try:
            super().transmit()
        except QuicConnectionError:
            # As a server qh3 2.1.0 fails to build its first flight for clients whose ClientHello
            # is one packet, and manages at their next one.
            if self._connected:
                raise

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self.alpn = event.alpn_protocol
        elif isinstance(event, DatagramFrameReceived) and self.alpn == ALPN:
            answer, events = self.side.receive(event.data, self.address)
            if answer is not None:
                self.send(answer)
            for happened in events:
                say(happened)
        elif isinstance(event, ConnectionTerminated):
            self.ended = True
        self.changed.set()

    def send(self, frame: bytes) -> None:
        # The frame's type and length take 3 bytes (14.2); a peer without DATAGRAM gets nothing.
        if len(frame) + 3 <= (self._quic._remote_max_datagram_frame_size or 0):
            self._quic.send_datagram_frame(frame)
            self.transmit()

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until the condition holds, the connection ends or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not (condition() or self.ended):
                    self.changed.clear()
                    await self.changed.wait()


async def run_server(arguments: argparse.Namespace) -> int:
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=[arguments.alpn],
        idle_timeout=30.0,
        max_datagram_frame_size=MAX_DATAGRAM_FRAME_SIZE,
    )
    configuration.load_cert_chain(arguments.cert, arguments.key)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)

    def accept(*args: Any, **kwargs: Any) -> Peer:
        return Peer(*args, side=Responder(), **kwargs)

    await serve("127.0.0.1", arguments.port, configuration=configuration, create_protocol=accept)
    say({"event": "ready", "port": arguments.port})
    await stopped.wait()
    return 0


async def heartbeat(peer: Peer, side: Initiator, count: int) -> int:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CONNECT_TIMEOUT_S
    retry_s = 0.5
    while side.session is None and not peer.ended and loop.time() < deadline:
        peer.send(side.init)
        await peer.until(lambda: side.session is not None, retry_s)
        retry_s *= 2
    session = side.session
    probes = 0
    if session is not None:
        planned = loop.time()
        while probes < count and not peer.ended and not session.over:
            peer.send(session.build(PROBE, peer.address))
            probes += 1
            planned += side.interval_us / 1_000_000
            await peer.until(lambda: session.over, planned - loop.time())
        await peer.until(lambda: session.over or session.confirmed == session.sent, PTO_S)
        if session.over:
            # The peer closed the session. It closes the connection too, once it has the answer.
            await peer.until(lambda: False, PTO_S)
        reason = option(CLOSE_REASON, bytes(2))
        for _ in range(3):
            if session.over or peer.ended:
                break
            peer.send(session.build(CLOSE, peer.address, reason))
            await peer.until(lambda: session.over, PTO_S)
    replies = session.replies if session is not None else 0
    say({"event": "done", "probes": probes, "replies": replies})
    return 0 if replies else 1


async def run_client(arguments: argparse.Namespace) -> int:
    side = Initiator(arguments.interval_ms * 1000)
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=[arguments.alpn],
        idle_timeout=30.0,
        max_datagram_frame_size=MAX_DATAGRAM_FRAME_SIZE,
        # TLS names no addresses (RFC 6066, section 3): this one goes by its certificate's name.
        server_name="localhost" if arguments.host == "127.0.0.1" else arguments.host,
        verify_mode=ssl.CERT_REQUIRED,
    )
    configuration.load_verify_locations(cafile=arguments.ca)

    def create(*args: Any, **kwargs: Any) -> Peer:
        return Peer(*args, side=side, **kwargs)

    async with connect(
        arguments.host,
        arguments.port,
        configuration=configuration,
        create_protocol=create,
        wait_connected=False,
    ) as peer:
        assert isinstance(peer, Peer)
        await peer.until(lambda: peer.alpn is not None, CONNECT_TIMEOUT_S)
        if peer.alpn is None:
            print("qh3_peer: no connection", file=sys.stderr)
            return 1
        if peer.alpn == ALPN:
            return await heartbeat(peer, side, arguments.count)
        say({"event": "connected"})
        await peer.until(lambda: False, arguments.count * arguments.interval_ms / 1000)
        say({"event": "done"})
        return 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="qh3_peer")
    commands = top.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve")
    client = commands.add_parser("connect")
    for command in (server, client):
        command.add_argument("--port", type=int, required=True)
        command.add_argument("--alpn", default=ALPN)
        command.add_argument("--mode", default="datagram")
    server.add_argument("--cert", required=True)
    server.add_argument("--key", required=True)
    client.add_argument("--host", required=True)
    client.add_argument("--ca", required=True)
    client.add_argument("--count", type=int, required=True)
    client.add_argument("--interval-ms", type=int, required=True)
    return top


def main(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-") and argv[0] not in ("serve", "connect"):
        print(f"qh3_peer: no command {argv[0]}", file=sys.stderr)
        return 127
    arguments = parser().parse_args(argv)
    if arguments.mode != "datagram":
        print(f"qh3_peer: no mode {arguments.mode}", file=sys.stderr)
        return 127
    return asyncio.run((run_server if arguments.command == "serve" else run_client)(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
