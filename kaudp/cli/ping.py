"""`kaudp ping`: keep a heartbeat with a peer and show each round trip."""

import asyncio
from typing import Final

import kaudp
from kaudp.cli import keys, quic
from kaudp.cli.arguments import (
    PRESETS,
    Arguments,
    Commands,
    UsageError,
    add_command,
    number,
    peer_target,
    preset,
    whole_number,
)
from kaudp.cli.carriers import Carrier, QuicCarrier, UdpCarrier
from kaudp.cli.output import Output
from kaudp.cli.report import Report
from kaudp.cli.stopping import run_until, stop_on_signals
from kaudp.config import Config

DEFAULT_INTERVAL_MS: Final = 1_000
CONNECT_TIMEOUT_S: Final = 10.0


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "ping",
        run,
        summary="Send heartbeats to a server and show each round trip, until Ctrl-C.",
        examples="  kaudp ping example.org:4711 --key-file kaudp.key\n"
        "  kaudp ping [::1]:4711 -c 5 -i 0.2 --preset lan\n"
        "  kaudp ping quic://example.org:443       # any QUIC server, of HTTP/3 for one",
    )
    parser.add_argument(
        "target",
        metavar="[SCHEME://]HOST:PORT",
        type=peer_target,
        help="the server: of kaudp over UDP, or with quic:// any of QUIC",
    )
    parser.add_argument(
        "-c",
        "--count",
        metavar="COUNT",
        type=whole_number(1, 10**9, "a number of replies"),
        help="stop after COUNT replies, or when the peer is DOWN",
    )
    parser.add_argument(
        "-i",
        "--interval",
        metavar="SECONDS",
        type=number(0.01, 500, "an interval", "seconds"),
        help="time between probes (default 1, or the preset's); the peer may demand more",
    )
    parser.add_argument(
        "-w",
        "--deadline",
        metavar="SECONDS",
        type=number(0.1, 10**6, "a deadline", "seconds"),
        help="stop after this long, whatever came",
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="only the first line and the summary"
    )
    parser.add_argument("--preset", type=preset, help="|".join(PRESETS) + " (default wan)")
    parser.add_argument("--qlog", metavar="FILE", help="note what happens in FILE, as qlog")
    keys.add_keylog_option(parser)
    keys.add_options(parser)
    quic.add_client_options(parser)


def run(arguments: Arguments, output: Output) -> int:
    """Ping until there is enough, or a signal comes."""
    over = _over_quic if arguments.target.scheme == "quic" else _over_udp
    return asyncio.run(_ping(arguments, over(arguments), output))


def _over_udp(arguments: Arguments) -> Carrier:
    quic.refuse_client_options(arguments)
    return UdpCarrier(arguments.target.name, keys.required_key(arguments))


def _over_quic(arguments: Arguments) -> Carrier:
    """Refuse a key that is given; one in the environment is meant for other commands."""
    if arguments.key is not None or arguments.key_file is not None:
        raise UsageError(
            "expected no key with a quic:// target, where TLS authenticates the server, got one"
        )
    if arguments.keylog is not None:
        raise UsageError("expected no --keylog with a quic:// target, whose secrets are TLS's")
    return QuicCarrier(arguments.target.name, quic.client_settings(arguments))


async def _ping(arguments: Arguments, carrier: Carrier, output: Output) -> int:
    stop = stop_on_signals()
    config = _config(arguments)
    async with kaudp.connect(
        arguments.target.url,
        config=config,
        qlog=arguments.qlog,
        keylog=arguments.keylog,
        **carrier.settings,
    ) as connection:
        count, quiet = arguments.count, arguments.quiet
        report = Report(connection, config, carrier, output, count=count, quiet=quiet)
        await run_until(report.follow(), stop, arguments.deadline)
        return report.conclude()


def _config(arguments: Arguments) -> Config:
    """Choose the interval; fail to connect by the deadline, since that event says why."""
    timeout = min(CONNECT_TIMEOUT_S, arguments.deadline or CONNECT_TIMEOUT_S)
    changes = {"report_round_trips": True, "connect_timeout_ms": round(1000 * timeout)}
    if arguments.interval is not None:
        changes["interval_ms"] = round(1000 * arguments.interval)
    elif arguments.preset is None:
        changes["interval_ms"] = DEFAULT_INTERVAL_MS
    return PRESETS[arguments.preset or "wan"](**changes)
