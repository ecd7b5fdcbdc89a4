"""One peer of a system test; it runs in a network namespace and uses the public API only.

    peer.py serve         URL --key KEY --config JSON [--stats-every SECONDS]
    peer.py connect       URL --key KEY --config JSON [--stats-every SECONDS] [--instance HEX]
    peer.py attach        URL --key KEY --config JSON [--stats-every SECONDS]
    peer.py crowd-serve   URL --key KEY --config JSON
    peer.py crowd-connect URL --key KEY --config JSON --sessions COUNT
    peer.py attack        URL --key KEY --device NAME
    peer.py control-serve URL --after SECONDS [--after SECONDS ...]
    peer.py control-ask   URL
    peer.py quic-serve    URL --tls FOLDER [--config JSON] [--after SECONDS ...]
    peer.py quic-ask      URL --tls FOLDER [--config JSON]

JSON holds the fields of a `kaudp.Config`. For a quic:// URL `serve` and `connect` take --tls in
place of --key, the folder of the server's certificate; `connect` also --alpn, what to offer.
`attach` connects from an application's socket, which is bound to no address. The crowd modes are
many sessions in one process, see `crowds.py`; `attack` floods their server from the router, see
`attacker.py`. The control modes are a plain UDP flow without kaudp: one request, then silence, and
the answers that far later. The quic modes are an application of aioquic's, see `applications.py`;
kaudp is attached to it where there is a configuration.

It prints one JSON line for each event, with the two facts at that time, and statistics now and
then. It stops on SIGTERM, or when its standard input closes: whoever started it is gone.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kaudp
from tests.system.applications import (
    client_configuration,
    quic_ask,
    quic_serve,
    server_configuration,
)
from tests.system.attacker import attack
from tests.system.crowds import crowd_connect, crowd_serve
from tests.system.telling import attend, now, plain, tell


def main() -> None:
    """Do what the command line says until told to stop."""
    asyncio.run(perform(arguments()))


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="a peer of kaudp's system tests")
    modes = parser.add_subparsers(dest="mode", required=True)
    for mode in MODES:
        chosen = modes.add_parser(mode)
        chosen.add_argument("url")
        chosen.add_argument("--key", type=kaudp.PresharedKey.from_text)
        chosen.add_argument("--tls", type=Path)
        chosen.add_argument("--alpn", default="kaudp/1")
        chosen.add_argument("--config", type=config_from_text)
        chosen.add_argument("--stats-every", type=float, default=1.0)
        chosen.add_argument("--instance", type=bytes.fromhex)
        chosen.add_argument("--sessions", type=int)
        chosen.add_argument("--device")
        chosen.add_argument("--after", type=float, action="append", default=[])
    return parser.parse_args()


def config_to_text(config: kaudp.Config) -> str:
    """Write a configuration as `config_from_text` reads it."""
    return json.dumps({name: plain(value) for name, value in asdict(config).items()})


def config_from_text(text: str) -> kaudp.Config:
    """Read a configuration."""
    given = json.loads(text)
    return kaudp.Config(**{**given, "detector": kaudp.DetectorKind[given["detector"]]})


async def perform(given: argparse.Namespace) -> None:
    """Run a mode until it ends or is told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    work = asyncio.create_task(MODES[given.mode](given, stop))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
    await work


# Modes.


async def serve(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Accept sessions and tell what becomes of them."""
    quic = server_configuration(given.tls) if given.tls else None
    opening = kaudp.serve(given.url, keys=given.key, config=given.config, quic=quic)
    async with opening as server:
        await attend(server, given.stats_every, stop)


async def connect(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Keep one session and tell what becomes of it."""
    quic = client_configuration(given.tls) if given.tls else None
    opening = kaudp.connect(
        given.url,
        key=given.key,
        config=given.config,
        quic=quic,
        alpn=given.alpn,
        instance_id=given.instance,
    )
    async with opening as connection:
        await attend(connection, given.stats_every, stop)


async def attach(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Keep one session from the socket of an application, which has nothing else to say."""
    application = Application(given)
    opening = asyncio.get_running_loop().create_datagram_endpoint(
        lambda: application, local_addr=("0.0.0.0", 0)
    )
    transport, _ = await opening
    application.heart.connect(address_of(given.url), given.key)
    await attend(application.heart, given.stats_every, stop)
    await application.heart.close()
    transport.close()


class Application(asyncio.DatagramProtocol):
    """An application that kaudp is attached to."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Attach kaudp."""
        self.heart = kaudp.attach(transport, keys=self._given.key, config=self._given.config)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Tell what kaudp leaves to the application."""
        if not self.heart.receive_datagram(data, addr):
            tell("Stranger", now(), data=data.hex(), address=addr)


async def control_serve(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Wait for one request and answer it at the times asked for."""
    loop = asyncio.get_running_loop()
    with plain_socket() as sock:
        sock.bind(address_of(given.url))
        tell("Ready", now())
        _, asker = await loop.sock_recvfrom(sock, 2048)
        asked_at = loop.time()
        for after in given.after:
            await asyncio.sleep(asked_at + after - loop.time())
            await loop.sock_sendto(sock, f"{after}".encode(), asker)
            tell("ControlSent", now(), after=after)
        await stop.wait()


async def control_ask(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Send one request, then nothing; tell what comes back."""
    with plain_socket() as sock:
        sock.connect(address_of(given.url))
        sock.send(b"request")
        tell("ControlAsked", now())
        listening = asyncio.create_task(tell_heard(sock))
        await stop.wait()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


# Telling.


async def tell_heard(sock: socket.socket) -> None:
    """Print what comes to the plain client."""
    while True:
        data = await asyncio.get_running_loop().sock_recv(sock, 2048)
        tell("ControlHeard", now(), after=float(data))


def plain_socket() -> socket.socket:
    """Open a UDP socket for a loop."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


def address_of(url: str) -> tuple[str, int]:
    """Split udp://host:port."""
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


Mode = Callable[[argparse.Namespace, asyncio.Event], Coroutine[Any, Any, None]]
MODES: dict[str, Mode] = {
    "serve": serve,
    "connect": connect,
    "attach": attach,
    "crowd-serve": crowd_serve,
    "crowd-connect": crowd_connect,
    "attack": attack,
    "control-serve": control_serve,
    "control-ask": control_ask,
    "quic-serve": quic_serve,
    "quic-ask": quic_ask,
}

if __name__ == "__main__":
    main()
