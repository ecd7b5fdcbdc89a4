"""Addresses: what the peer looks like from here, and the move to a new one.

An address is opaque but for (host, port, ...) tuples, whose canonical bytes go on the wire.
Spec: section 9.
"""

import hashlib
import ipaddress
from collections.abc import Hashable
from enum import Enum
from typing import Any, Final

from kaudp.wire.grammar import AddressFamily

Address = Hashable
AMPLIFICATION: Final = 3
CHALLENGE_BYTES: Final = 8
PATH_TRIES: Final = 3
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


def canonical_or_other(address: Address) -> bytes:
    """Give the canonical bytes, or others that change when the address does. KA-9.2-4."""
    return address_bytes(address) or repr(address).encode()


def address_from_bytes(canonical: bytes) -> tuple[str, int]:
    """Give (host, port) of canonical bytes."""
    return str(ipaddress.ip_address(canonical[3:])), int.from_bytes(canonical[1:3], "big")


def address_hash(receiver_session_id: bytes, address: Address) -> int:
    """Give the 32-bit hash by which a receiver notices that its address changed. KA-9.2-4."""
    canonical = canonical_or_other(address)
    return int.from_bytes(hashlib.sha256(receiver_session_id + canonical).digest()[:4], "big")


class PeerPath:
    """Where the peer is, and whether it may be moving. Spec: section 9.3."""

    __slots__ = ("_not_before", "address", "validation")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.validation: Validation | None = None
        self._not_before: int | None = None

    def sent(self, address: Address, size: int) -> None:
        """Take note of a frame sent, in bytes."""
        if self.validation is not None and address == self.validation.address:
            self.validation.sent += size

    def received(self, address: Address, size: int) -> None:
        """Take note of an accepted frame, in bytes."""
        if self.validation is not None and address == self.validation.address:
            self.validation.received += size

    def newest_came_from(self, address: Address, size: int, now: int) -> bool:
        """Take note of the newest frame so far; tell whether a validation begins. KA-9.3-1."""
        waits = self._not_before is not None and now < self._not_before
        if address == self.address or self.validation is not None or waits:
            return False
        self.validation = Validation(address, size)
        return True

    def end_validation(self, *, not_before: int | None = None) -> None:
        """End the one under way; the next begins no sooner than this. Spec: KA-9.3-5."""
        self.validation = None
        self._not_before = not_before


class Validation:
    """Challenges to a new address and to the old one. Spec: KA-9.3-1 to KA-9.3-4."""

    __slots__ = ("_to_new", "_to_old", "address", "answered", "received", "sent", "tries")

    def __init__(self, address: Address, received: int) -> None:
        self.address = address
        self.received = received
        self.sent = 0
        self.tries = 0
        self.answered = False
        self._to_new: list[bytes] = []
        self._to_old: list[bytes] = []

    def allows(self, size: int) -> bool:
        """Tell whether so many bytes more may go to the new address. Spec: KA-9.1-3."""
        return self.sent + size <= AMPLIFICATION * self.received

    def challenged(self, data: bytes, *, old: bool) -> None:
        """Take note of a challenge sent."""
        (self._to_old if old else self._to_new).append(data)

    def old_answers(self, data: bytes) -> bool:
        """Take note of an answer; tell whether it is the old address's."""
        self.answered = self.answered or data in self._to_new
        return data in self._to_old


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

    def give_up(self) -> None:
        """Ask no more for the change at hand."""
        self._query = self._tries = 0

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
