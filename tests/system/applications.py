"""A small QUIC service of aioquic's own, and its client, with kaudp attached or without.

The server is silent but for one message on a stream at each of the times it was given, counted
from the handshake; the client is silent altogether.
"""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import HandshakeCompleted, QuicEvent, StreamDataReceived

import kaudp
from tests.system.certificate import CERTIFICATE, PRIVATE_KEY
from tests.system.telling import attend, now, tell, tell_event, tell_stats

ALPN = "application"
IDLE_TIMEOUT_S = 60.0


def server_configuration(folder: Path, alpn: list[str] | None = None) -> QuicConfiguration:
    """Give what a QUIC server needs; its certificate lies in a folder."""
    made = QuicConfiguration(is_client=False, alpn_protocols=alpn, idle_timeout=IDLE_TIMEOUT_S)
    made.load_cert_chain(folder / CERTIFICATE, folder / PRIVATE_KEY)
    return made


def client_configuration(folder: Path, alpn: list[str] | None = None) -> QuicConfiguration:
    """Give what a QUIC client needs: it trusts the server's certificate and no other."""
    made = QuicConfiguration(is_client=True, alpn_protocols=alpn, idle_timeout=IDLE_TIMEOUT_S)
    made.load_verify_locations(cafile=str(folder / CERTIFICATE))
    return made


class Talker(QuicConnectionProtocol):
    """The server's side of one connection."""

    def __init__(self, *arguments: Any, given: argparse.Namespace, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._after: list[float] = given.after
        self.heart: kaudp.Connection | None = None
        if given.config is not None:
            self.heart = kaudp.attach_quic(
                self, mode="ping", config=given.config, on_event=tell_event
            )

    def quic_event_received(self, event: QuicEvent) -> None:
        """Begin to count when the handshake is done."""
        if isinstance(event, HandshakeCompleted):
            for after in self._after:
                self._loop.call_later(after, self._say, after)

    def _say(self, after: float) -> None:
        stream_id = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(stream_id, f"{after}".encode(), end_stream=True)
        self.transmit()
        tell("ControlSent", now(), after=after)


class Listener(QuicConnectionProtocol):
    """The client's side."""

    def quic_event_received(self, event: QuicEvent) -> None:
        """Tell what the server says."""
        if isinstance(event, HandshakeCompleted):
            tell("ControlAsked", now())
        elif isinstance(event, StreamDataReceived) and event.data:
            tell("ControlHeard", now(), after=float(event.data))


async def quic_serve(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Serve; with a configuration, attach kaudp in ping mode to each connection."""
    talkers: list[Talker] = []

    def make(*arguments: Any, **named: Any) -> Talker:
        talkers.append(Talker(*arguments, given=given, **named))
        return talkers[-1]

    server = await serve(
        *_host_and_port(given.url),
        configuration=server_configuration(given.tls, [ALPN]),
        create_protocol=make,
    )
    tell("Ready", now())
    telling = asyncio.create_task(tell_stats(_sessions(talkers), given.stats_every))
    await stop.wait()
    telling.cancel()
    server.close()


async def quic_ask(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Connect and listen; with a configuration, attach kaudp, which finds no kaudp there."""
    opening = connect(
        *_host_and_port(given.url),
        configuration=client_configuration(given.tls, [ALPN]),
        create_protocol=Listener,
    )
    async with opening as protocol:
        if given.config is None:
            await stop.wait()
            return
        heart = kaudp.attach_quic(protocol, config=given.config)
        await attend(heart, given.stats_every, stop)
        await heart.close()


def _sessions(talkers: list[Talker]) -> Callable[[], list[kaudp.Session]]:
    return lambda: [
        session for talker in talkers if talker.heart for session in talker.heart.sessions
    ]


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)
