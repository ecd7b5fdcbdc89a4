"""Addresses: what the peer looks like from here, and the move to a new one.

An address is opaque but for (host, port, ...) tuples, whose canonical bytes go on the wire.
Spec: section 9.
"""

import hashlib
import ipaddress
from collections import deque
from collections.abc import Hashable
from enum import Enum
from typing import Any, Final

from kaudp.wire.grammar import AddressFamily

Address = Hashable
CANDIDATE_FRAMES: Final = 8
ADDRESS_QUERIES: Final = 3


def address_bytes(address: Address) -> bytes | None:
    """Give the canonical bytes of a (host, port, ...) address, None for another kind.

    An address that an adapter has wrapped offers its peer's part as `peer`. Spec: section 9.2.
    """
    peer: Any = getattr(address, "peer", address)
    try:
        host, port = peer[0], peer[1]
        ip = ipaddress.ip_address(host.partition("%")[0])
        port_bytes: bytes = port.to_bytes(2, "big")
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError):
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    family = AddressFamily.IPV4 if ip.version == 4 else AddressFamily.IPV6
    return bytes([family]) + port_bytes + ip.packed


def address_from_bytes(canonical: bytes) -> tuple[str, int]:
    """Give (host, port) of canonical bytes."""
    return str(ipaddress.ip_address(canonical[3:])), int.from_bytes(canonical[1:3], "big")


def address_hash(receiver_session_id: bytes, address: Address) -> int:
    """Give the 32-bit hash by which a receiver notices that its address changed. KA-9.2-4."""
    canonical = address_bytes(address) or repr(address).encode()
    return int.from_bytes(hashlib.sha256(receiver_session_id + canonical).digest()[:4], "big")


class PeerPath:
    """Where the peer is, and where it may be moving to. Spec: KA-9.1-2.

    Nothing but replies, none longer than its request, ever goes to a candidate (KA-9.1-3).
    """

    __slots__ = ("_candidate", "_sent", "address")

    def __init__(self, address: Address) -> None:
        self.address = address
        self._candidate: Address | None = None
        self._sent: deque[int] = deque(maxlen=CANDIDATE_FRAMES)

    def sent(self, address: Address, packet_number: int) -> None:
        """Take note of a frame sent."""
        if address == self._candidate:
            self._sent.append(packet_number)

    def received(self, address: Address, highest_received: int) -> bool:
        """Take note of the newest frame so far; tell whether the session moves to its address.

        It moves when the newest own frame that the peer has was sent to the candidate.
        """
        if address == self.address:
            self._candidate = None
            return False
        if address != self._candidate:
            self._candidate = address
            self._sent.clear()
        if highest_received not in self._sent:
            return False
        self.address = address
        self._candidate = None
        return True


class Seen(Enum):
    """What a frame says about our address as the peer sees it."""

    SAME = "same"
    CHANGED = "changed"
    ANSWERED = "answered"


class OwnAddress:
    """Our address as the peer sees it: the hash in every frame, the address on request."""

    __slots__ = ("_hash", "_query", "_tries", "address")

    def __init__(self) -> None:
        self.address: tuple[str, int] | None = None
        self._hash: int | None = None
        self._query = 0
        self._tries = 0

    def restart(self) -> None:
        """Take note of new keys, under which all hashes are others."""
        self._hash = None
        self._query = self._tries = 0

    def asked(self, packet_number: int) -> None:
        """Take note of a probe with room for the answer."""
        self._query = packet_number
        self._tries += 1

    def learn(self, seen_hash: int, confirmed: int, canonical: bytes | None) -> Seen:
        """Compare with what was seen before. An answer may be lost, so CHANGED may come again.

        ANSWERED after three tries also where no answer had the address.
        """
        changed = self._hash not in (None, seen_hash)
        self._hash = seen_hash
        if not self._query:
            return Seen.CHANGED if changed else Seen.SAME
        if canonical is None and confirmed < self._query:
            return Seen.SAME
        if canonical is None and self._tries < ADDRESS_QUERIES:
            return Seen.CHANGED
        self._query = self._tries = 0
        return Seen.ANSWERED
