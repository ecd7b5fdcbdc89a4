"""`connect`, `serve` and `attach_quic`: the URL's scheme says what carries the heartbeats.

aioquic and prometheus_client are imported where they are asked for, and not before: they are the
extras `kaudp[quic]` and `kaudp[metrics]`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from kaudp.config import Config
from kaudp.core.endpoint import AcceptHook
from kaudp.errors import ConfigError
from kaudp.events import QUIC_ALPN, Mode
from kaudp.io.heart import Connection, EventCallback, Server, opened
from kaudp.io.keylog import KeylogFile
from kaudp.io.qlog import Qlog, QlogFile
from kaudp.io.sockets import AddressError, parse_url
from kaudp.io.udp import UdpConnection, UdpServer
from kaudp.wire.keys import KeySource, PresharedKey

if TYPE_CHECKING:
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.quic.configuration import QuicConfiguration

    from kaudp.io.metrics import Metrics, Tallied
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
    keylog: Path | None = None,
) -> AbstractAsyncContextManager[Connection]:
    """Keep a heartbeat with a peer, on a socket of its own, for the length of an `async with`.

    `url` is udp://HOST:PORT, which takes `key`; or quic://HOST:PORT, which takes what aioquic
    needs in `quic`, the `mode`, and the `alpn` to offer where `quic` names none. Entering looks
    the name up and sends the first packet; whether anybody answers is told by
    `session.events()`: `SessionUp`, or `ConnectFailed` after `Config.connect_timeout_ms`.
    What happens is noted in the file `qlog`; with udp:// the secrets in the file `keylog`, see
    `KeylogFile`. An `instance_id` of 8 bytes, kept across restarts, lets the peer report
    `PeerRestarted` and go on with its session; over UDP only.
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
            keylog,
            lambda log, secrets: opened(
                lambda: UdpConnection(host, port, key, chosen, log, secrets, instance_id)
            ),
        )
    if key is not None or instance_id is not None:
        raise ConfigError(
            "expected no key= and no instance_id= for a quic:// URL: TLS authenticates the server"
        )
    _refuse_keylog(keylog)
    over_quic = quic_module("client").connect
    return _noted(
        qlog,
        "client",
        None,
        lambda log, _: over_quic(
            host, port, config=chosen, quic=quic, mode=mode, alpn=alpn, qlog=log
        ),
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
    keylog: Path | None = None,
) -> AbstractAsyncContextManager[Server]:
    """Accept sessions, on a socket of its own, for the length of an `async with`.

    `url` is udp://HOST:PORT, which takes `keys`, or quic://HOST:PORT, which takes `quic` with a
    certificate; with both `keys` and `quic` one port serves both. 0.0.0.0 or [::] stand for all
    local addresses, port 0 for a free one. `accept` may be a hook (key id, address) -> bool; on
    QUIC the key id is empty. The limits override those of `config`, and hold for UDP and QUIC each.
    What happens is noted in the file `qlog`; with `keys` the secrets in the file `keylog`, see
    `KeylogFile`.
    Raises `AddressError` and `ConfigError`.
    """
    scheme, host, port = parse_url(url)
    limits = {"max_sessions": max_sessions, "max_sessions_per_key": max_sessions_per_key}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    chosen: Config = replace(config or Config.server(), **given)  # type: ignore[arg-type]
    if keys is None:
        _refuse_keylog(keylog)
    if quic is not None and (scheme == "quic" or keys is not None):
        server = quic_module("server").QuicServer
        return _noted(
            qlog,
            "server",
            keylog,
            lambda log, secrets: opened(
                lambda: server(host, port, quic, chosen, accept, keys, log, secrets, instance_id)
            ),
        )
    if scheme == "quic":
        raise ConfigError("expected quic=QuicConfiguration(...) with a certificate for quic://")
    if keys is None:
        raise ConfigError("expected keys= for a udp:// URL")
    return _noted(
        qlog,
        "server",
        keylog,
        lambda log, secrets: opened(
            lambda: UdpServer(host, port, keys, chosen, accept, log, secrets, instance_id)
        ),
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


def metrics_collector(*sources: Tallied) -> Metrics:
    """Make a collector of prometheus_client over servers, connections and attachments.

    Call it in the loop in which they run, and register it where you like, as in
    `prometheus_client.REGISTRY.register(kaudp.metrics_collector(server))`. Several sources are
    summed. Raises `ConfigError`.
    """
    collector: Metrics = metrics_module().Metrics(*sources)
    return collector


@asynccontextmanager
async def _noted(
    qlog: Path | None,
    vantage_point: str,
    keylog: Path | None,
    make: Callable[[Qlog | None, KeylogFile | None], AbstractAsyncContextManager[Made]],
) -> AsyncIterator[Made]:
    """Enter what `make` gives, with the files it writes open as long as that lasts."""
    with ExitStack() as files:
        log = secrets = None
        if qlog is not None:
            log = files.enter_context(QlogFile(qlog, vantage_point=vantage_point))
        if keylog is not None:
            secrets = files.enter_context(KeylogFile(keylog))
        async with make(log, secrets) as made:
            yield made


def _refuse_keylog(keylog: Path | None) -> None:
    if keylog is not None:
        raise ConfigError(
            "expected no keylog= for QUIC alone, whose secrets are TLS's, got one: "
            "QuicConfiguration.secrets_log_file logs those"
        )


def quic_module(module: str) -> Any:  # noqa: ANN401
    """Import a module of `kaudp.io.quic`. Raises `ConfigError` without the extra."""
    return _module(f"kaudp.io.quic.{module}", needs="aioquic", extra="quic", purpose="QUIC")


def metrics_module() -> Any:  # noqa: ANN401
    """Import `kaudp.io.metrics`. Raises `ConfigError` without the extra."""
    return _module(
        "kaudp.io.metrics", needs="prometheus_client", extra="metrics", purpose="metrics"
    )


def _module(name: str, *, needs: str, extra: str, purpose: str) -> Any:  # noqa: ANN401
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(needs):
            raise
        raise ConfigError(
            f"expected the extra kaudp[{extra}] for {purpose}, got an installation without it: "
            f"pip install 'kaudp[{extra}]'"
        ) from None
