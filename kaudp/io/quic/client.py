"""A QUIC connection of kaudp's own, from the client's side."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

from aioquic.asyncio.client import connect as connect_quic
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from kaudp.config import Config
from kaudp.errors import ConfigError
from kaudp.events import QUIC_ALPN, Mode, QuicMode
from kaudp.io import sockets
from kaudp.io.qlog import Qlog
from kaudp.io.quic.attachment import QuicAttachment
from kaudp.io.quic.carriers import CONTEXT_ID
from kaudp.io.quic.modes import MAX_DATAGRAM_FRAME_SIZE, parse_mode

TRY_NEXT_S: Final = 2.0


@asynccontextmanager
async def connect(
    host: str,
    port: int,
    *,
    config: Config,
    quic: QuicConfiguration | None,
    mode: Mode,
    alpn: str | Sequence[str],
    qlog: Qlog | None,
) -> AsyncIterator[QuicAttachment]:
    """Keep a heartbeat on a QUIC connection of its own. Raises `AddressError`, `ConfigError`.

    Each address of a name but the last is given a while to answer, before this is entered.
    """
    asked = parse_mode(mode)
    configuration = _configuration(quic, host, alpn)
    *others, last = sockets.reachable(await sockets.look_up(host, port), f"{host}:{port}")
    made = partial(_connected, configuration, config, asked, qlog)
    for address in others:
        async with made(address) as attachment:
            if await attachment.answered(TRY_NEXT_S):
                yield attachment
                return
    async with made(last) as attachment:
        yield attachment


@asynccontextmanager
async def _connected(
    configuration: QuicConfiguration,
    config: Config,
    mode: QuicMode | None,
    qlog: Qlog | None,
    address: Any,  # noqa: ANN401
) -> AsyncIterator[QuicAttachment]:
    """Connect to one address."""
    attached: list[QuicAttachment] = []

    def make(connection: QuicConnection, stream_handler: object = None) -> QuicConnectionProtocol:
        protocol = QuicConnectionProtocol(connection)
        attachment = QuicAttachment(
            protocol,
            config,
            mode=mode,
            peer_speaks_kaudp=False,
            context_id=CONTEXT_ID,
            dedicated=True,
            accept=False,
            on_event=None,
            qlog=qlog,
            address=address,
        )
        attached.append(attachment)
        return protocol

    try:
        async with connect_quic(
            address[0],
            address[1],
            configuration=configuration,
            create_protocol=make,
            wait_connected=False,
        ) as protocol:
            protocol.transmit()
            (attachment,) = attached
            try:
                yield attachment
            finally:
                await attachment.close()
    finally:
        # aioquic leaves its socket open when it is cancelled while it waits for the end.
        for attachment in attached:
            attachment.close_transport()


def _configuration(
    quic: QuicConfiguration | None, host: str, alpn: str | Sequence[str]
) -> QuicConfiguration:
    """Fill in what a heartbeat needs and the user left open; the user's own stays as it is."""
    given = quic or QuicConfiguration(is_client=True)
    if not given.is_client:
        raise ConfigError("quic: expected QuicConfiguration(is_client=True) to connect, got False")
    names = [alpn] if isinstance(alpn, str) else list(alpn)
    return replace(
        given,
        alpn_protocols=given.alpn_protocols or names or [QUIC_ALPN],
        max_datagram_frame_size=given.max_datagram_frame_size or MAX_DATAGRAM_FRAME_SIZE,
        server_name=given.server_name or host,
    )
