"""A bad path with a NAT on it: relays UDP on 127.0.0.1, loses, delays, and can be cut."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

_READ_BYTES: Final = 2048
_HOST: Final = "127.0.0.1"


class Traffic(NamedTuple):
    """What went into one or both ways of a path; `lost` of the datagrams did not come out."""

    datagrams: int
    bytes: int
    lost: int


class Direction:
    """One way of a path."""

    def __init__(self, seed: str) -> None:
        self.rng = Random(seed)
        self.traffic = Traffic(0, 0, 0)

    def count(self, size: int, *, lost: bool) -> None:
        """Count a datagram."""
        datagrams, total, losses = self.traffic
        self.traffic = Traffic(datagrams + 1, total + size, losses + lost)


class LossyPath:
    """Relays between a client and the server at `server`.

    Each socket of the client gets a port of its own towards the server, as a NAT gives it.
    `loss` is 0 to 1 for each way; the delay of a datagram is `delay` in s, half more or less.
    """

    def __init__(self, server: Any, *, loss: float, delay: float, seed: int) -> None:  # noqa: ANN401
        self.loss = loss
        self.cut = False
        self.outward = Direction(f"out {seed}")
        self.homeward = Direction(f"home {seed}")
        self._server = server
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._bindings: dict[Any, socket.socket] = {}
        self._near = _open_socket()
        self._near.bind((_HOST, 0))
        self._loop.add_reader(self._near, self._read_near)

    @property
    def port(self) -> int:
        """The port that stands for the server on the client's side."""
        port: int = self._near.getsockname()[1]
        return port

    @property
    def traffic(self) -> Traffic:
        """What both ways carried."""
        both = zip(self.outward.traffic, self.homeward.traffic, strict=True)
        return Traffic(*(out + home for out, home in both))

    def close(self) -> None:
        """Close all sockets; what is on its way is lost."""
        for sock in (self._near, *self._bindings.values()):
            self._loop.remove_reader(sock)
            sock.close()

    def _read_near(self) -> None:
        with contextlib.suppress(OSError):
            data, client = self._near.recvfrom(_READ_BYTES)
            far = self._bindings.get(client) or self._bind(client)
            self._carry(self.outward, data, far.send)

    def _read_far(self, far: socket.socket, client: Any) -> None:  # noqa: ANN401
        with contextlib.suppress(OSError):
            data = far.recv(_READ_BYTES)
            self._carry(self.homeward, data, lambda data: self._near.sendto(data, client))

    def _bind(self, client: Any) -> socket.socket:  # noqa: ANN401
        far = _open_socket()
        far.connect(self._server)
        self._bindings[client] = far
        self._loop.add_reader(far, self._read_far, far, client)
        return far

    def _carry(self, way: Direction, data: bytes, send: Callable[[bytes], object]) -> None:
        # Both are drawn for every datagram, so that a cut does not shift the seeded fate of others.
        lost = (way.rng.random() < self.loss) | self.cut
        delay = self._delay * (0.5 + way.rng.random())
        way.count(len(data), lost=lost)
        if not lost:
            self._loop.call_later(delay, _deliver, send, data)


def _deliver(send: Callable[[bytes], object], data: bytes) -> None:
    # A full buffer, a refusal or a socket closed meanwhile: on a bad path that is one more loss.
    with contextlib.suppress(OSError):
        send(data)


def _open_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock
