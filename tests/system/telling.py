"""How a peer tells what happens: one JSON line on standard output for each thing."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from enum import Enum
from typing import Any

import kaudp

NUMBERS: dict[kaudp.Session, int] = {}
FACTS = ("rx_at", "round_trip_at", "probe_timeout", "interval", "stalls")


Heart = kaudp.Server | kaudp.Connection | kaudp.Attachment


async def attend(heart: Heart, stats_every: float, stop: asyncio.Event) -> None:
    """Tell events and statistics until told to stop; a failure in either ends the program."""
    tell("Ready", now())
    async with asyncio.TaskGroup() as group:
        told = [
            group.create_task(tell_events(heart)),
            group.create_task(tell_stats(lambda: heart.sessions, stats_every)),
        ]
        await stop.wait()
        for task in told:
            task.cancel()
    tell("Stopping", now())


async def tell_events(heart: Heart) -> None:
    """Print each event as it comes."""
    async for event in heart.events():
        tell_event(event)


def tell_event(event: kaudp.Event) -> None:
    """Print an event with the facts that it was judged by."""
    stats = event.session.stats
    told = {field.name: getattr(event, field.name) for field in fields(event)}
    told["session"] = number_of(event.session)
    del told["time"]
    facts = {name: getattr(stats, name) for name in FACTS}
    tell(type(event).__name__, event.time, **told, facts=facts)


async def tell_stats(sessions: Callable[[], list[kaudp.Session]], every: float) -> None:
    """Print the statistics of all sessions, again and again."""
    while True:
        await asyncio.sleep(every)
        for session in sessions():
            tell("Stats", now(), session=number_of(session), **asdict(session.stats))


def tell(kind: str, at: int, **details: Any) -> None:
    """Print one line."""
    shown = {name: plain(value) for name, value in details.items()}
    print(json.dumps({"kind": kind, "time": at, **shown}), flush=True)


def number_of(session: kaudp.Session) -> int:
    """Tell one session from another: they are counted from 0 as they are first told of."""
    return NUMBERS.setdefault(session, len(NUMBERS))


def plain(value: Any) -> Any:
    """Give a value that JSON can hold: an enum by its name, an address by its peer's part."""
    return value.name if isinstance(value, Enum) else getattr(value, "peer", value)


def now() -> int:
    """Tell the time on the scale of the events, which is one for all processes."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
