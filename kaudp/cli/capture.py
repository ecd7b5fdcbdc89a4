"""UDP datagrams from a pcap or pcapng file, through dpkt (the extra `kaudp[cli]`)."""

import struct
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, BinaryIO, Final, NamedTuple

from kaudp.cli.arguments import UsageError

_PCAPNG_MAGIC: Final = bytes.fromhex("0a0d0d0a")
_PCAP_MAGICS: Final = frozenset(
    bytes.fromhex(magic) for magic in ("a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1")
)
_UDP_HEADER_BYTES: Final = 8
# Numbers of https://www.tcpdump.org/linktypes.html.
_LINK_LAYERS: Final = {
    0: ("loopback", "Loopback"),
    1: ("ethernet", "Ethernet"),
    108: ("loopback", "Loopback"),
    113: ("sll", "SLL"),
    276: ("sll2", "SLL2"),
}
_RAW_IP: Final = frozenset({12, 14, 101, 228, 229})

LinkLayer = Callable[[bytes], Any]


class Datagram(NamedTuple):
    """A UDP payload; out of a capture with its packet's number, time in s and addresses."""

    data: bytes
    number: int | None = None
    time: float | None = None
    source: tuple[bytes, int] | None = None
    destination: tuple[bytes, int] | None = None


def is_capture(first_bytes: bytes) -> bool:
    """Tell a capture by its first four bytes."""
    return first_bytes in _PCAP_MAGICS or first_bytes == _PCAPNG_MAGIC


def read_capture(first_bytes: bytes, file: BinaryIO) -> Iterator[Datagram | None]:
    """Give the UDP datagram of each packet, None for a packet that holds none.

    Raises `UsageError`: dpkt is missing, or the capture is malformed or of an unknown link type.
    """
    dpkt = _dpkt()
    kind = dpkt.pcapng.Reader if first_bytes == _PCAPNG_MAGIC else dpkt.pcap.Reader
    try:
        packets = kind(file)
        link_layer = _link_layer(dpkt, packets.datalink())
        for number, (time, packet) in enumerate(packets, start=1):
            yield _datagram(dpkt, link_layer, packet, number, float(time))
    except (dpkt.Error, ValueError, struct.error) as error:
        raise UsageError(f"expected a whole pcap or pcapng capture, got: {error}") from None


def _dpkt() -> ModuleType:
    try:
        import dpkt
        import dpkt.pcapng
    except ModuleNotFoundError:
        raise UsageError(
            "expected dpkt, which reads captures, got none: pip install 'kaudp[cli]'"
        ) from None
    module: ModuleType = dpkt
    return module


def _link_layer(dpkt: ModuleType, link_type: int) -> LinkLayer:
    if link_type in _RAW_IP:
        return lambda packet: (dpkt.ip6.IP6 if packet[0] >> 4 == 6 else dpkt.ip.IP)(packet)
    if link_type not in _LINK_LAYERS:
        raise UsageError(
            f"expected a capture of Ethernet, Linux cooked, loopback or IP, got type {link_type}"
        )
    module, name = _LINK_LAYERS[link_type]
    layer: LinkLayer = getattr(getattr(dpkt, module), name)
    return layer


def _datagram(
    dpkt: ModuleType, link_layer: LinkLayer, packet: bytes, number: int, time: float
) -> Datagram | None:
    try:
        layer = link_layer(packet)
        while not isinstance(layer, dpkt.ip.IP | dpkt.ip6.IP6):
            layer = layer.data
    except (dpkt.Error, AttributeError, IndexError):
        return None
    # Only what IP carries itself: an ICMP error quotes a datagram that was counted already.
    udp = layer.data
    if not isinstance(udp, dpkt.udp.UDP):
        return None
    data = bytes(udp.data)[: max(0, udp.ulen - _UDP_HEADER_BYTES)]
    return Datagram(data, number, time, (layer.src, udp.sport), (layer.dst, udp.dport))
