"""kaudp's own UDP sockets: opening, and reading with the local address where it matters.

Spec: KA-8.3-2, KA-8.3-4.
"""

import asyncio
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from kaudp.core.paths import Address
from kaudp.errors import KaudpError

SCHEMES: Final = ("udp", "quic")
READ_BATCH: Final = 64
READ_BYTES: Final = 2048
_CONTROL_BYTES: Final = socket.CMSG_SPACE(20) if hasattr(socket, "CMSG_SPACE") else 0
# Linux numbers; Python 3.11 does not name the first.
_IP_PKTINFO: Final = 8
_IPV6_RECVPKTINFO: Final = getattr(socket, "IPV6_RECVPKTINFO", 49)
_IPV6_PKTINFO: Final = getattr(socket, "IPV6_PKTINFO", 50)


class AddressError(KaudpError, ValueError):
    """An address or URL is malformed, or a name does not resolve."""


class UdpAddress(NamedTuple):
    """A peer's socket address with the local address that it spoke to, as control data."""

    peer: Any
    level: int
    kind: int
    local: bytes

    def __repr__(self) -> str:
        return repr(self.peer)


class Url(NamedTuple):
    """A scheme, udp or quic, and where."""

    scheme: str
    host: str
    port: int


def parse_url(url: str) -> Url:
    """Split udp://host:port or quic://host:port, with [..] around an IPv6 address.

    Raises `AddressError`.
    """
    expected = (
        f"expected udp://HOST:PORT or quic://HOST:PORT with a port of 0 to 65535, got {url!r}"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressError(expected) from None
    rest = (parts.username, parts.password, parts.path.strip("/"), parts.query, parts.fragment)
    if parts.scheme not in SCHEMES or not host or port is None or any(rest):
        raise AddressError(expected)
    return Url(parts.scheme, host, port)


async def look_up(host: str, port: int, *, passive: bool = False) -> list[tuple[Any, ...]]:
    """Look a host up, as `getaddrinfo` does. Raises `AddressError`."""
    loop = asyncio.get_running_loop()
    flags = socket.AI_PASSIVE if passive else 0
    try:
        return await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, socket.gaierror) else "not a host name"
        raise AddressError(f"expected a host name that resolves, got {host!r}: {reason}") from None


def reachable(candidates: list[tuple[Any, ...]], name: str) -> list[Any]:
    """Give the addresses of the candidates that there is a route to. Raises `AddressError`."""
    addresses = []
    refused: AddressError | None = None
    for candidate in candidates:
        try:
            with connected_socket([candidate], name) as sock:
                addresses.append(sock.getpeername())
        except AddressError as error:
            refused = error
    if refused is not None and not addresses:
        raise refused
    return list(dict.fromkeys(addresses))


def connected_socket(candidates: list[tuple[Any, ...]], name: str) -> socket.socket:
    """Open a socket connected to the first candidate that there is a route to."""
    reason: OSError | None = None
    for family, _, _, _, address in candidates:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(address)
        except OSError as error:
            sock.close()
            reason = error
        else:
            return sock
    detail = reason.strerror if reason else "it has no address"
    raise AddressError(f"expected a host that there is a route to, got {name}: {detail}")


def bound_socket(family: int, address: Any) -> socket.socket:  # noqa: ANN401
    """Open a socket bound to an address; on a wildcard it learns the local address."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if is_wildcard(address) and sys.platform == "linux":
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def is_wildcard(address: Any) -> bool:  # noqa: ANN401
    """Tell whether a socket address stands for all local addresses."""
    return address[0] in ("0.0.0.0", "::", "")  # noqa: S104


def read_batch(sock: socket.socket, *, with_local: bool) -> Iterator[tuple[bytes, Address]]:
    """Read until nothing waits, 64 datagrams at most. Passes an ICMP error on as OSError."""
    for _ in range(READ_BATCH):
        try:
            if with_local:
                data, control, _, peer = sock.recvmsg(READ_BYTES, _CONTROL_BYTES)
                yield data, _address(peer, control)
            else:
                yield sock.recvfrom(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return


def transmit(sock: socket.socket, data: bytes, address: Address) -> None:
    """Send at once, from the local address that was spoken to. Raises OSError."""
    if isinstance(address, UdpAddress):
        control = [(address.level, address.kind, address.local)]
        sock.sendmsg([data], control, 0, address.peer)
    else:
        sock.sendto(data, address)  # type: ignore[call-overload]


def _address(peer: Any, control: list[tuple[int, int, bytes]]) -> Address:  # noqa: ANN401
    for level, kind, value in control:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            # in_pktinfo: interface index, local address, destination. Index 0: any interface.
            local = struct.pack("=i4s4s", 0, value[4:8], bytes(4))
            return UdpAddress(peer, level, kind, local)
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            # An index matters for link-local addresses only; elsewhere a change of it is no move.
            local = value if value[:2] == b"\xfe\x80" else value[:16] + bytes(4)
            return UdpAddress(peer, level, kind, local)
    result: Address = peer
    return result
