"""A toy game server: players send moves, everybody gets the score, the dead are dropped.

Heartbeats share its one socket. Usage: KAUDP_KEY=... python game_server.py PORT
"""

import asyncio
import os
import sys
from typing import Any

import kaudp


class GameServer(asyncio.DatagramProtocol):
    """The service; what is of kaudp is marked."""

    def __init__(self, key: kaudp.PresharedKey) -> None:
        self.key = key
        self.scores: dict[Any, int] = {}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        # kaudp: link it in.
        self.heart = kaudp.attach(
            transport,
            keys=self.key,
            config=kaudp.Config.server(min_receive_interval_ms=50),
            accept=True,
            on_event=self.heartbeat,
        )

    def datagram_received(self, data: bytes, addr: Any) -> None:
        # kaudp: a heartbeat is done with here.
        if self.heart.receive_datagram(data, addr):
            return
        if data.startswith(b"move"):
            self.scores[addr] = self.scores.get(addr, 0) + 1
            self.transport.sendto(b"score %d" % self.scores[addr], addr)

    def heartbeat(self, event: kaudp.Event) -> None:
        """Hear of a player's life and death."""
        match event:
            case kaudp.SessionDown() | kaudp.SessionClosed():
                score = self.scores.pop(event.session.address, 0)
                print(f"gone: {event.session.address}, score {score}", flush=True)
            case kaudp.SessionUp():
                print(f"here: {event.session.address}", flush=True)


async def main() -> None:
    """Serve until interrupted."""
    key = kaudp.PresharedKey.from_text(os.environ["KAUDP_KEY"])
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: GameServer(key), local_addr=("127.0.0.1", int(sys.argv[1]))
    )
    print(f"serving on {transport.get_extra_info('sockname')[1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
