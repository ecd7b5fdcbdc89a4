"""`connect`, `serve` and `attach_quic`: the URL's scheme says what carries the heartbeats.

aioquic is imported where QUIC is asked for, and not before: it is the extra `kaudp[quic]`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook
from kaudp.errors import ConfigError
from kaudp.events import QUIC_ALPN, Mode
from kaudp.io.heart import Connection, EventCallback, Server, opened
from kaudp.io.qlog import Qlog, QlogFile
from kaudp.io.sockets import AddressError, parse_url
from kaudp.io.udp import UdpConnection, UdpServer
from kaudp.wire.keys import KeySource, PresharedKey

if TYPE_CHECKING:
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.quic.configuration import QuicConfiguration

    from kaudp.io.quic.attachment import QuicAttachment


Path = str | os.PathLike[str]
Made = TypeVar("Made")


def connect(
    url: str,
    *,
    key: PresharedKey | None = None,
    config: Config | None = None,
    quic: QuicConfiguration | None = None,
    mode: Mode = "auto",
    alpn: str | Sequence[str] = QUIC_ALPN,
    qlog: Path | None = None,
    instance_id: bytes | None = None,
) -> AbstractAsyncContextManager[Connection]:
    """Keep a heartbeat with a peer, on a socket of its own, for the length of an `async with`.

    `url` is udp://HOST:PORT, which takes `key`; or quic://HOST:PORT, which takes what aioquic
    needs in `quic`, the `mode`, and the `alpn` to offer where `quic` names none. Entering looks
    the name up and sends the first packet; whether anybody answers is told by
    `session.events()`: `SessionUp`, or `ConnectFailed` after `Config.connect_timeout_ms`.
    What happens is noted in the file `qlog`. An `instance_id` of 8 bytes, kept across restarts,
    is told to peers over UDP. An `instance_id` of 8 bytes, kept across restarts,
    lets the peer report `PeerRestarted` and go on with its session; over UDP only.
    Raises `AddressError` and `ConfigError`.
    """
    scheme, host, port = parse_url(url)
    if port == 0:
        raise AddressError(f"expected a port of 1 to 65535, got {url!r}")
    chosen = config or Config.wan()
    if scheme == "udp":
        if key is None or quic is not None:
            raise ConfigError("expected key=, and no quic=, for a udp:// URL")
        return _noted(
            qlog,
            "client",
            lambda log: opened(lambda: UdpConnection(host, port, key, chosen, log, instance_id)),
        )
    if key is not None or instance_id is not None:
        raise ConfigError(
            "expected no key= and no instance_id= for a quic:// URL: TLS authenticates the server"
        )
    over_quic = quic_module("client").connect
    return _noted(
        qlog,
        "client",
        lambda log: over_quic(host, port, config=chosen, quic=quic, mode=mode, alpn=alpn, qlog=log),
    )


def serve(
    url: str,
    *,
    keys: KeySource | None = None,
    config: Config | None = None,
    accept: bool | AcceptHook = True,
    max_sessions: int | None = None,
    max_sessions_per_key: int | None = None,
    quic: QuicConfiguration | None = None,
    qlog: Path | None = None,
    instance_id: bytes | None = None,
) -> AbstractAsyncContextManager[Server]:
    """Accept sessions, on a socket of its own, for the length of an `async with`.

    `url` is udp://HOST:PORT, which takes `keys`, or quic://HOST:PORT, which takes `quic` with a
    certificate; with both `keys` and `quic` one port serves both. 0.0.0.0 or [::] stand for all
    local addresses, port 0 for a free one. `accept` may be a hook (key id, address) -> bool; on
    QUIC the key id is empty. The limits override those of `config`, and hold for UDP and QUIC each.
    What happens is noted in the
    file `qlog`.
    Raises `AddressError` and `ConfigError`.
    """
    scheme, host, port = parse_url(url)
    limits = {"max_sessions": max_sessions, "max_sessions_per_key": max_sessions_per_key}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    chosen: Config = replace(config or Config.server(), **given)  # type: ignore[arg-type]
    if quic is not None and (scheme == "quic" or keys is not None):
        server = quic_module("server").QuicServer
        return _noted(
            qlog,
            "server",
            lambda log: opened(
                lambda: server(host, port, quic, chosen, accept, keys, log, instance_id)
            ),
        )
    if scheme == "quic":
        raise ConfigError("expected quic=QuicConfiguration(...) with a certificate for quic://")
    if keys is None:
        raise ConfigError("expected keys= for a udp:// URL")
    return _noted(
        qlog,
        "server",
        lambda log: opened(lambda: UdpServer(host, port, keys, chosen, accept, log, instance_id)),
    )


def attach_quic(
    protocol: QuicConnectionProtocol,
    *,
    mode: Mode = "auto",
    peer_speaks_kaudp: bool = False,
    config: Config | None = None,
    context_id: int | None = None,
    on_event: EventCallback | None = None,
    qlog: Qlog | None = None,
) -> QuicAttachment:
    """Link kaudp into a QUIC connection that an application has, before or after its handshake.

    In mode auto, PING is all that the peer gets unless its ALPN is kaudp/1 or
    `peer_speaks_kaudp` says that kaudp is attached there too, with the same `context_id` (a
    QUIC variable-length integer, None for kaudp's own). The application's datagrams, streams
    and pings pass untouched. Events go to `on_event`, or else wait in `events()`. What happens is
    noted in the connection's own qlog, where it has one, and in `qlog`.
    Raises `QuicError` when the connection is up and cannot do what is asked, and `ConfigError`.
    Spec: section 14.
    """
    attachment: QuicAttachment = quic_module("attachment").attach(
        protocol,
        mode=mode,
        peer_speaks_kaudp=peer_speaks_kaudp,
        config=config,
        context_id=context_id,
        on_event=on_event,
        qlog=qlog,
    )
    return attachment


@asynccontextmanager
async def _noted(
    path: Path | None,
    vantage_point: str,
    make: Callable[[Qlog | None], AbstractAsyncContextManager[Made]],
) -> AsyncIterator[Made]:
    """Enter what `make` gives, with a qlog file open as long as that lasts."""
    if path is None:
        async with make(None) as made:
            yield made
        return
    with QlogFile(path, vantage_point=vantage_point) as qlog:
        async with make(qlog) as made:
            yield made


def quic_module(module: str) -> Any:  # noqa: ANN401
    """Import a module of `kaudp.io.quic`. Raises `ConfigError` without the extra."""
    try:
        return import_module(f"kaudp.io.quic.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("aioquic"):
            raise
        raise ConfigError(
            "expected the extra kaudp[quic] for QUIC, got an installation without it: "
            "pip install 'kaudp[quic]'"
        ) from None
