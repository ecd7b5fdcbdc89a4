"""`kaudp ping`: keep a heartbeat with a peer and show each round trip."""

import asyncio
import sys
from typing import Final

import kaudp
from kaudp.cli import keys
from kaudp.cli.arguments import (
    PRESETS,
    Arguments,
    Commands,
    add_command,
    number,
    peer_address,
    preset,
    whole_number,
)
from kaudp.cli.notices import say_event
from kaudp.cli.output import Output
from kaudp.cli.stopping import run_until, stop_on_signals
from kaudp.cli.wording import address_text, amount, milliseconds, share, span
from kaudp.config import Config
from kaudp.core.stats import Stats
from kaudp.events import ConnectFailed, Event, RoundTrip, SessionDown, State
from kaudp.units import MILLISECOND
from kaudp.wire.keys import PresharedKey

EXIT_NO_ANSWER: Final = 1
DEFAULT_INTERVAL_MS: Final = 1_000
CONNECT_TIMEOUT_S: Final = 10.0


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "ping",
        run,
        summary="Send heartbeats to a kaudp server and show each round trip, until Ctrl-C.",
        examples="  kaudp ping example.org:4711 --key-file kaudp.key\n"
        "  kaudp ping [::1]:4711 -c 5 -i 0.2 --preset lan",
    )
    parser.add_argument("address", metavar="HOST:PORT", type=peer_address, help="the server")
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
    keys.add_options(parser)


def run(arguments: Arguments, output: Output) -> int:
    """Ping until there is enough, or a signal comes."""
    key = keys.required_key(arguments)
    return asyncio.run(_ping(arguments, key, output))


async def _ping(arguments: Arguments, key: PresharedKey, output: Output) -> int:
    stop = stop_on_signals()
    config = _config(arguments)
    async with kaudp.connect(f"udp://{arguments.address}", key=key, config=config) as connection:
        report = _Report(connection, config, arguments, output)
        report.begin(key.key_id.hex())
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


class _Report:
    """What is shown of one connection."""

    def __init__(
        self, connection: kaudp.Connection, config: Config, arguments: Arguments, output: Output
    ) -> None:
        self._connection = connection
        self._output = output
        self._name = arguments.address
        self._quiet = arguments.quiet
        self._wanted_replies = arguments.count
        self._interval = config.interval_ms * MILLISECOND
        self._replies = 0
        self._unreachable = False

    def begin(self, key_id: str) -> None:
        """Say what is pinged."""
        address = address_text(self._connection.session.address)
        self._output.say(
            "start",
            f"PING {self._name} ({address}) every {span(self._interval)}, key id {key_id}",
            target=self._name,
            address=address,
            interval_ms=milliseconds(self._interval),
            key_id=key_id,
        )

    async def follow(self) -> None:
        """Show what happens, until there is enough."""
        async for event in self._connection.events():
            self._show(event)
            if self._is_enough(event):
                return

    def conclude(self) -> int:
        """Sum up and give the exit code."""
        stats = self._connection.stats
        self._output.say("summary", self._summary(stats), **_summary_facts(stats, self._replies))
        if not stats.handshakes and not self._output.as_json:
            print(f"kaudp: {self._no_answer()}", file=sys.stderr)
        alive = self._replies or stats.state is State.UP
        return 0 if alive else EXIT_NO_ANSWER

    def _show(self, event: Event) -> None:
        if isinstance(event, RoundTrip):
            self._replies += 1
            self._show_reply(event)
        elif isinstance(event, ConnectFailed):
            self._unreachable = event.unreachable
            if self._output.as_json:
                say_event(event, self._output, peer=False)
        elif not self._quiet:
            say_event(event, self._output, peer=False)
        self._compare_interval()

    def _show_reply(self, event: RoundTrip) -> None:
        if self._quiet:
            return
        stats = self._connection.stats
        state = self._output.coloured(stats.state.name, stats.state)
        address = address_text(self._connection.session.address)
        rtt = milliseconds(event.rtt)
        self._output.say(
            "reply",
            f"reply from {address}: seq={event.packet_number} rtt={rtt:.3f} ms {state} "
            f"loss out={share(stats.loss_out)} in={share(stats.loss_in)}",
            seq=event.packet_number,
            rtt_ms=rtt,
            state=stats.state.name,
            loss_out=stats.loss_out,
            loss_in=stats.loss_in,
        )

    def _compare_interval(self) -> None:
        """Say so, once, when the interval agreed upon is not the one asked for."""
        stats = self._connection.stats
        if not stats.handshakes or stats.interval == self._interval:
            return
        wanted, self._interval = self._interval, stats.interval
        if not self._quiet:
            self._output.say(
                "interval",
                f"note: probing every {span(stats.interval)} instead of {span(wanted)}: "
                "the peer demands it",
                wanted_ms=milliseconds(wanted),
                used_ms=milliseconds(stats.interval),
            )

    def _is_enough(self, event: Event) -> bool:
        if self._wanted_replies is None:
            return False
        return self._replies >= self._wanted_replies or isinstance(event, SessionDown)

    def _no_answer(self) -> str:
        hint = " The network reported the address unreachable." if self._unreachable else ""
        return (
            f"no authenticated answer from {self._name}.{hint} Nothing listens there, the path "
            "drops UDP, or the key is wrong: a server is silent to strangers."
        )

    def _summary(self, stats: Stats) -> str:
        # The empty line parts it from the ^C that a terminal shows.
        title = f"\n--- {self._name} ping statistics ---"
        if not stats.handshakes:
            return f"{title}\n0 replies, not even to the handshake"
        state = self._output.coloured(stats.state.name, stats.state)
        lines = [
            title,
            f"{self._replies} replies, {stats.sent} frames sent, {stats.received} received, "
            f"{amount(stats.suspicions, 'suspicion')}, state at the end {state}",
        ]
        if stats.round_trips:
            lines.append(
                f"loss out {share(stats.loss_out)} ({stats.lost_out} frames), "
                f"in {share(stats.loss_in)} ({stats.lost_in} frames), "
                f"{amount(stats.unreported, 'frame')} out unreported"
            )
            times = (stats.rtt_min, stats.rtt_mean, stats.rtt_max, stats.jitter)
            shown = "/".join(f"{milliseconds(time or 0):.3f}" for time in times)
            lines.append(f"rtt min/avg/max/jitter = {shown} ms")
        return "\n".join(lines)


def _summary_facts(stats: Stats, replies: int) -> dict[str, object]:
    return {
        "state": stats.state.name,
        "replies": replies,
        "sent": stats.sent,
        "received": stats.received,
        "suspicions": stats.suspicions,
        "interval_ms": milliseconds(stats.interval),
        "lost_out": stats.lost_out,
        "lost_in": stats.lost_in,
        "unreported": stats.unreported,
        "loss_out": stats.loss_out,
        "loss_in": stats.loss_in,
        "rtt_min_ms": milliseconds(stats.rtt_min),
        "rtt_mean_ms": milliseconds(stats.rtt_mean),
        "rtt_max_ms": milliseconds(stats.rtt_max),
        "jitter_ms": milliseconds(stats.jitter),
    }
