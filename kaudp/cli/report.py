"""What `kaudp ping` shows of a connection."""

import sys
from typing import Any, Final

import kaudp
from kaudp.cli.carriers import Carrier, QuicCarrier
from kaudp.cli.notices import say_event
from kaudp.cli.output import Output
from kaudp.cli.wording import address_text, amount, milliseconds, share, span
from kaudp.config import Config
from kaudp.core.stats import Stats
from kaudp.events import (
    ConnectFailed,
    Event,
    IntervalAdjusted,
    ModeChosen,
    RoundTrip,
    SessionDown,
    State,
)
from kaudp.units import MILLISECOND

EXIT_NO_ANSWER: Final = 1


class Report:
    """Shows each event as it comes, `count` replies at most, and sums up."""

    def __init__(
        self,
        connection: kaudp.Connection,
        config: Config,
        carrier: Carrier,
        output: Output,
        *,
        count: int | None,
        quiet: bool,
    ) -> None:
        self._connection = connection
        self._carrier = carrier
        self._output = output
        self._quiet = quiet
        self._wanted_replies = count
        self._interval = config.interval_ms * MILLISECOND
        self._begun = False
        self._replies = 0
        self._failure: ConnectFailed | None = None

    async def follow(self) -> None:
        """Show what happens, until there is enough."""
        if self._carrier.described:
            self._begin()
        async for event in self._connection.events():
            self._show(event)
            if self._is_enough(event):
                return

    def conclude(self) -> int:
        """Sum up and give the exit code."""
        self._begin()
        stats = self._connection.stats
        problem = None if stats.handshakes else self._carrier.no_answer(self._failure)
        self._output.say("summary", self._summary(stats), **self._summary_facts(stats, problem))
        if problem is not None and not self._output.as_json:
            print(f"kaudp: {problem}", file=sys.stderr)
        alive = self._replies or stats.state is State.UP
        return 0 if alive else EXIT_NO_ANSWER

    def _begin(self) -> None:
        """Say what is pinged, once."""
        if self._begun:
            return
        self._begun = True
        carrier, address = self._carrier, self._address()
        where = f" ({address})" if address else ""
        self._output.say(
            "start",
            f"PING {carrier.name}{where} every {span(self._interval)}{carrier.described}",
            target=carrier.name,
            address=address,
            interval_ms=milliseconds(self._interval),
            **carrier.facts,
        )

    def _address(self) -> str | None:
        """Write the peer's address; none before QUIC has sent anything."""
        address = self._connection.session.address
        return None if address is None else address_text(address)

    def _show(self, event: Event) -> None:
        if isinstance(event, ModeChosen) and isinstance(self._carrier, QuicCarrier):
            self._carrier.choose(event)
        self._begin()
        if isinstance(event, RoundTrip):
            self._replies += 1
            self._show_reply(event)
        elif isinstance(event, IntervalAdjusted):
            self._show_interval("warning", event.interval, event.why.removeprefix("interval_ms: "))
        elif isinstance(event, ConnectFailed):
            self._failure = event
            if self._output.as_json:
                say_event(event, self._output, peer=False)
        elif not self._quiet and not isinstance(event, ModeChosen):
            say_event(event, self._output, peer=False)
        self._compare_interval()

    def _show_reply(self, event: RoundTrip) -> None:
        if self._quiet:
            return
        stats = self._connection.stats
        state = self._output.coloured(stats.state.name, stats.state)
        rtt = milliseconds(event.rtt)
        relation = "<=" if self._carrier.rtt_is_upper_bound else "="
        self._output.say(
            "reply",
            f"reply from {self._address()}: seq={event.packet_number} rtt{relation}{rtt:.3f} ms "
            f"{state} {self._loss(stats)}",
            seq=event.packet_number,
            rtt_ms=rtt,
            state=stats.state.name,
            loss_out=stats.loss_out,
            loss_in=stats.loss_in,
            **self._carrier.measures,
        )

    def _loss(self, stats: Stats) -> str:
        if self._carrier.loss_unknown:
            return "loss unknown"
        return f"loss out={share(stats.loss_out)} in={share(stats.loss_in)}"

    def _compare_interval(self) -> None:
        """Say so, once, when the interval agreed upon is not the one asked for."""
        stats = self._connection.stats
        if stats.handshakes and stats.interval != self._interval:
            self._show_interval("note", stats.interval, "the peer demands it")

    def _show_interval(self, label: str, used: int, why: str) -> None:
        wanted, self._interval = self._interval, used
        if not self._quiet:
            self._output.say(
                "interval",
                f"{label}: probing every {span(used)} instead of {span(wanted)}: {why}",
                wanted_ms=milliseconds(wanted),
                used_ms=milliseconds(used),
                why=why,
            )

    def _is_enough(self, event: Event) -> bool:
        if self._wanted_replies is None:
            return False
        return self._replies >= self._wanted_replies or isinstance(event, SessionDown)

    def _summary(self, stats: Stats) -> str:
        # The empty line parts it from the ^C that a terminal shows.
        title = f"\n--- {self._carrier.name} ping statistics ---"
        if not stats.handshakes:
            return f"{title}\n0 replies"
        state = self._output.coloured(stats.state.name, stats.state)
        lines = [
            title,
            f"{amount(self._replies, 'reply')}, {stats.sent} frames sent, {stats.received} "
            f"received, {amount(stats.suspicions, 'suspicion')}, state at the end {state}",
        ]
        if stats.round_trips:
            lines += [self._losses(stats), self._times(stats)]
        return "\n".join(lines)

    def _losses(self, stats: Stats) -> str:
        if self._carrier.loss_unknown:
            return f"loss unknown: {self._carrier.loss_unknown}; it shows as delay"
        return (
            f"loss out {share(stats.loss_out)} ({stats.lost_out} frames), "
            f"in {share(stats.loss_in)} ({stats.lost_in} frames), "
            f"{amount(stats.unreported, 'frame')} out unreported"
        )

    def _times(self, stats: Stats) -> str:
        times = (stats.rtt_min, stats.rtt_mean, stats.rtt_max, stats.jitter)
        shown = "/".join(f"{milliseconds(time or 0):.3f}" for time in times)
        limits = " (upper bounds: QUIC may have repeated a PING)"
        note = limits if self._carrier.rtt_is_upper_bound else ""
        return f"rtt min/avg/max/jitter = {shown} ms{note}"

    def _summary_facts(self, stats: Stats, problem: str | None) -> dict[str, Any]:
        counted = not self._carrier.loss_unknown
        return {
            "state": stats.state.name,
            "replies": self._replies,
            "sent": stats.sent,
            "received": stats.received,
            "suspicions": stats.suspicions,
            "interval_ms": milliseconds(stats.interval),
            "lost_out": stats.lost_out if counted else None,
            "lost_in": stats.lost_in if counted else None,
            "unreported": stats.unreported if counted else None,
            "loss_out": stats.loss_out,
            "loss_in": stats.loss_in,
            "rtt_min_ms": milliseconds(stats.rtt_min),
            "rtt_mean_ms": milliseconds(stats.rtt_mean),
            "rtt_max_ms": milliseconds(stats.rtt_max),
            "jitter_ms": milliseconds(stats.jitter),
            "problem": problem,
            **self._carrier.measures,
        }
