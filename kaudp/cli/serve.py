"""`kaudp serve`: accept sessions and tell what happens to them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import kaudp
from kaudp.cli import keys, quic
from kaudp.cli.arguments import (
    PRESETS,
    Arguments,
    Commands,
    UsageError,
    add_command,
    local_address,
    loopback_address,
    preset,
    whole_number,
)
from kaudp.cli.notices import say_event
from kaudp.cli.output import Output
from kaudp.cli.stopping import run_until, stop_on_signals
from kaudp.cli.wording import address_text, amount
from kaudp.config import Config
from kaudp.errors import DropReason, KeyFormatError
from kaudp.events import SessionUp, State
from kaudp.io.entrance import metrics_module
from kaudp.wire.keys import PresharedKey

_MAX_SESSIONS: Final = 10_000_000


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "serve",
        run,
        summary="Answer heartbeats and print a line per event, until Ctrl-C.",
        examples="  kaudp serve 4711 --key-file kaudp.key\n"
        "  kaudp serve [::]:4711 --key-file kaudp.key --preset lan\n"
        "  kaudp serve 4711 --key-file kaudp.key --metrics 9464\n"
        "  kaudp serve 4433 --quic --self-signed --cert cert.pem --cert-key key.pem",
    )
    parser.add_argument(
        "address",
        metavar="[HOST:]PORT",
        type=local_address,
        help="where to listen; all IPv4 addresses without HOST, a free port with PORT 0",
    )
    parser.add_argument(
        "--max-sessions",
        metavar="N",
        type=whole_number(1, _MAX_SESSIONS, "a number of sessions"),
        help="accept this many at a time (default 10000)",
    )
    parser.add_argument(
        "--preset", type=preset, default="server", help="|".join(PRESETS) + " (default server)"
    )
    parser.add_argument(
        "--metrics",
        metavar="[HOST:]PORT",
        type=loopback_address,
        help="serve metrics for Prometheus at http://HOST:PORT/metrics; to this machine alone "
        "without HOST, at a free port with PORT 0",
    )
    parser.add_argument("--qlog", metavar="FILE", help="note what happens in FILE, as qlog")
    keys.add_keylog_option(parser)
    keys.add_options(parser)
    quic.add_server_options(parser)


def run(arguments: Arguments, output: Output) -> int:
    """Serve until a signal comes."""
    if not arguments.quic:
        quic.refuse_server_options(arguments)
        return asyncio.run(_serve(arguments, keys.required_key(arguments), None, output))
    key = _key_beside_quic(arguments)
    if key is None and arguments.keylog is not None:
        raise UsageError("expected --keylog with a key only, since QUIC's secrets are TLS's")
    return asyncio.run(_serve(arguments, key, quic.server_certificate(arguments), output))


def _key_beside_quic(arguments: Arguments) -> PresharedKey | None:
    """Give the key if there is one; a certificate's is mistaken for it easily."""
    try:
        return keys.optional_key(arguments)
    except KeyFormatError as error:
        raise KeyFormatError(f"{error}; the certificate's goes with --cert-key") from None


async def _serve(
    arguments: Arguments,
    key: PresharedKey | None,
    certificate: quic.Certificate | None,
    output: Output,
) -> int:
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            kaudp.serve(
                f"{'udp' if certificate is None else 'quic'}://{arguments.address}",
                keys=key,
                config=_config(arguments),
                quic=None if certificate is None else quic.server_configuration(certificate),
                qlog=arguments.qlog,
                keylog=arguments.keylog,
            )
        )
        metrics = None
        if arguments.metrics is not None:
            metrics = await stack.enter_async_context(_metrics(server, arguments.metrics))
        journal = _Journal(server, output)
        _say_listening(server, arguments, key, output)
        if metrics is not None:
            output.say("metrics", f"metrics at {metrics}", url=metrics)
        if certificate is not None:
            quic.say_certificate(certificate, arguments, output)
        await run_until(journal.follow(), stop)
        await server.close()
        await journal.follow()
        journal.conclude()
    return 0


@asynccontextmanager
async def _metrics(server: kaudp.Server, address: str) -> AsyncIterator[str]:
    """Serve metrics; give their URL."""
    host, _, port = address.rpartition(":")
    collector = kaudp.metrics_collector(server)
    async with metrics_module().served(collector, host.strip("[]"), int(port)) as bound:
        yield f"http://{address_text(bound)}/metrics"


def _say_listening(
    server: kaudp.Server, arguments: Arguments, key: PresharedKey | None, output: Output
) -> None:
    where = address_text(server.address)
    key_id = None if key is None else key.key_id.hex()
    carriers = ["UDP"] * (key is not None) + ["QUIC"] * arguments.quic
    words = [f"listening on {where}"]
    words += [" and ".join(carriers)] * arguments.quic
    words.append(f"preset {arguments.preset}")
    words += [f"key id {key_id}"] * (key is not None)
    output.say(
        "listening",
        ", ".join(words),
        address=where,
        preset=arguments.preset,
        carriers=[carrier.lower() for carrier in carriers],
        key_id=key_id,
    )


def _config(arguments: Arguments) -> Config:
    config = PRESETS[arguments.preset]
    limit = arguments.max_sessions
    if limit is None:
        return config()
    return config(max_sessions=limit, max_sessions_per_key=limit)


class _Journal:
    """Tells the events of a server and sums them up."""

    def __init__(self, server: kaudp.Server, output: Output) -> None:
        self._server = server
        self._output = output
        self._sessions = 0

    async def follow(self) -> None:
        """Tell the events as they come; ends when the server is closed."""
        async for event in self._server.events():
            if isinstance(event, SessionUp) and event.previous is State.CONNECTING:
                self._sessions += 1
            say_event(event, self._output, peer=True)

    def conclude(self) -> None:
        """Tell how many sessions there were, and what was refused."""
        counters = self._server.counters
        refused = {reason.value: counters[reason] for reason in DropReason if counters[reason]}
        self._output.say(
            "summary",
            f"{amount(self._sessions, 'session')}; datagrams refused: {_counts(Counter(refused))}",
            sessions=self._sessions,
            refused=refused,
        )


def _counts(refused: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in refused.most_common()) or "none"
