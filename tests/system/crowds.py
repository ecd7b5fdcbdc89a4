"""A server of many sessions and its clients, which count instead of telling each statistic.

Both tell their events as any peer does, and a census on SIGUSR1.
"""

import argparse
import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import kaudp
from tests.system.telling import NUMBERS, now, number_of, tell, tell_event

AT_ONCE = 50
"""So many connect at a time: their packets fit into a socket's buffer."""


async def crowd_serve(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Accept sessions; the census also tells what was refused, and what the process needs."""
    async with kaudp.serve(given.url, keys=given.key, config=given.config) as server:
        port = server.address[1]

        def census() -> None:
            refused = {reason.name: count for reason, count in server.counters.items()}
            tell_census(server.sessions, refused=refused, rss=resident(), dropped=dropped(port))

        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, census)
        telling = asyncio.create_task(_tell_events(server))
        tell("Ready", now())
        await stop.wait()
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling


async def crowd_connect(given: argparse.Namespace, stop: asyncio.Event) -> None:
    """Keep that many sessions, each on a socket of its own."""
    crowd = Crowd(given, stop)
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, lambda: tell_census(crowd.sessions)
    )
    async with asyncio.TaskGroup() as group:
        for _ in range(given.sessions):
            group.create_task(crowd.join())
        await stop.wait()
        tell("Stopping", now())


class Crowd:
    """Clients of one server in one process."""

    def __init__(self, given: argparse.Namespace, stop: asyncio.Event) -> None:
        self._given = given
        self._stop = stop
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._up = 0
        self._connections: list[kaudp.Connection] = []

    @property
    def sessions(self) -> list[kaudp.Session]:
        """The sessions of all."""
        return [session for each in self._connections for session in each.sessions]

    async def join(self) -> None:
        """Open one more session when it is its turn, and keep it until told to stop."""
        await self._turn.acquire()
        given = self._given
        opening = kaudp.connect(given.url, key=given.key, config=given.config)
        async with opening as connection:
            self._connections.append(connection)
            telling = asyncio.create_task(self._tell(connection))
            await self._stop.wait()
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling

    async def _tell(self, connection: kaudp.Connection) -> None:
        async for event in connection.events():
            tell_event(event)
            if isinstance(event, kaudp.SessionUp) and event.previous is kaudp.State.CONNECTING:
                self._turn.release()
                self._up += 1
                if self._up == self._given.sessions:
                    tell("Assembled", now(), sessions=self._up)


async def _tell_events(server: kaudp.Server) -> None:
    async for event in server.events():
        tell_event(event)


def tell_census(sessions: list[kaudp.Session], **more: object) -> None:
    """Print what all sessions together are and did; `ever` counts those that there were."""
    for session in sessions:
        number_of(session)
    every = [session.stats for session in sessions]
    tell(
        "Census",
        now(),
        states=Counter(stats.state.name for stats in every),
        ever=len(NUMBERS),
        received=sum(stats.received for stats in every),
        suspicions=sum(stats.suspicions for stats in every),
        handshakes=sum(stats.handshakes for stats in every),
        cpu_s=time.process_time(),
        **more,
    )


def resident() -> int:
    """Tell how many bytes of this process are in memory."""
    (line,) = (line for line in _lines("/proc/self/status") if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def dropped(port: int) -> int:
    """Tell how many datagrams found no room in the buffer of the socket on a port."""
    rows = (line.split() for line in _lines("/proc/net/udp"))
    return sum(int(row[-1]) for row in rows if row[1].endswith(f":{port:04X}"))


def _lines(path: str) -> Iterator[str]:
    yield from Path(path).read_text().splitlines()
