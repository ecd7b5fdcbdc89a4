"""A toy player with a plain socket and `select`, no asyncio: moves and heartbeats on one socket.

Usage: KAUDP_KEY=... python plain_loop.py HOST PORT [SCORE], plays until it has that score.
"""

import os
import random
import select
import socket
import sys
import time

import kaudp

MOVE_EVERY_S = 0.1


def main() -> int:
    """Play until the score is reached or the server is gone."""
    key = kaudp.PresharedKey.from_text(os.environ["KAUDP_KEY"])
    server = (sys.argv[1], int(sys.argv[2]))
    wanted = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    # kaudp: an endpoint, and a driver that sends through our socket.
    endpoint = kaudp.Endpoint(
        kaudp.Config.lan(), keys=key, rng=random.Random(os.urandom(16)), entropy=os.urandom
    )
    driver = kaudp.Driver(endpoint, sock.sendto)
    session = driver.connect(server, key_id=key.key_id)
    score, next_move = 0, time.monotonic()
    while score < wanted and session.state is not kaudp.State.DOWN:
        # kaudp: wait no longer than until its next timer.
        due = driver.timeout()
        pause = max(0.0, next_move - time.monotonic())
        if select.select([sock], [], [], pause if due is None else min(due, pause))[0]:
            data, address = sock.recvfrom(2048)
            # kaudp: what is not a heartbeat is ours.
            if not driver.receive(data, address):
                score = int(data.split()[1])
        driver.wake()
        for event in driver.events():
            print(type(event).__name__, flush=True)
        if time.monotonic() >= next_move:
            next_move += MOVE_EVERY_S
            sock.sendto(b"move", server)
    stats = session.stats
    print(f"score {score}, {stats.state.name}, rtt {(stats.rtt_mean or 0) / 1e6:.1f} ms")
    driver.close()
    sock.close()
    return 0 if score >= wanted else 1


if __name__ == "__main__":
    sys.exit(main())
