"""What aioquic does not tell by public means: its private attributes, read here and nowhere else.

Nothing here writes to one. `tests/io/quic/test_internals.py` fails when an upgrade moves them.
Times in seconds, as aioquic has them.
"""

from collections.abc import Collection
from enum import Enum
from typing import Any, Final

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.congestion.base import K_GRANULARITY
from aioquic.quic.connection import QuicConnection, QuicConnectionState
from aioquic.quic.events import ConnectionTerminated
from aioquic.quic.logger import QuicLoggerTrace

_PACKET_NUMBER_BYTES: Final = 2
_TAG_BYTES: Final = 16
_MAPPED: Final = "::ffff:"


class Closing(Enum):
    """Which side has begun to close a connection."""

    NEITHER = "neither"
    LOCAL = "local"
    PEER = "peer"


def connection_of(protocol: QuicConnectionProtocol) -> QuicConnection:
    """Give the sans-I/O connection of a protocol."""
    return protocol._quic


def transport_of(protocol: QuicConnectionProtocol) -> Any:  # noqa: ANN401
    """Give the datagram transport of a protocol, None before it has one."""
    return protocol._transport


def server_transport(server: QuicServer) -> Any:  # noqa: ANN401
    """Give the datagram transport of a server."""
    return server._transport


def handshake_complete(quic: QuicConnection) -> bool:
    """Tell whether the TLS handshake is done."""
    return quic._handshake_complete


def alpn(quic: QuicConnection) -> str | None:
    """Give the ALPN that was negotiated."""
    return quic.tls.alpn_negotiated


def peer_address(quic: QuicConnection) -> Any:  # noqa: ANN401
    """Give the address that the connection sends to, None before there is one.

    aioquic's client speaks to IPv4 hosts by IPv6 addresses; they are shown as what they are.
    """
    address = quic._network_paths[0].addr if quic._network_paths else None
    if address is not None and address[0].startswith(_MAPPED):
        return address[0].removeprefix(_MAPPED), address[1]
    return address


def peer_datagram_limit(quic: QuicConnection) -> int:
    """Give the longest DATAGRAM frame that the peer takes, 0 where it takes none."""
    return quic._remote_max_datagram_frame_size or 0


def packet_room(quic: QuicConnection) -> int:
    """Give how many bytes of frames fit into one 1-RTT packet."""
    header = 1 + len(quic._peer_cid.cid) + _PACKET_NUMBER_BYTES
    return quic._max_datagram_size - header - _TAG_BYTES


def waiting_datagrams(quic: QuicConnection) -> Collection[bytes]:
    """Give the DATAGRAM payloads that wait to be sent."""
    return quic._datagrams_pending


def stream_waits(quic: QuicConnection, stream_id: int) -> bool:
    """Tell whether a stream has data that was not sent once."""
    stream = quic._streams.get(stream_id)
    return stream is not None and not stream.sender.buffer_is_empty


def ended(quic: QuicConnection) -> bool:
    """Tell whether the connection is over."""
    return quic._state is QuicConnectionState.TERMINATED


def reserved_stream(protocol: QuicConnectionProtocol, stream_id: int) -> bool:
    """Tell whether `create_stream` has given a stream id away that nothing was written to yet."""
    return stream_id in protocol._stream_readers


def idle_timeout(quic: QuicConnection) -> float:
    """Give the time without a packet after which aioquic closes the connection.

    aioquic takes a peer's zero, no timeout, for a short one: the shortest that it ever uses are
    three of its PTO, which shrinks; so this is the least that the time may become.
    """
    timeout = quic._configuration.idle_timeout
    if quic._remote_max_idle_timeout is not None:
        timeout = min(timeout, quic._remote_max_idle_timeout)
    return max(timeout, 3 * _least_probe_timeout(quic))


def _least_probe_timeout(quic: QuicConnection) -> float:
    recovery = quic._loss
    if not recovery._rtt_initialized:
        return recovery.get_probe_timeout()
    return recovery._rtt_min + K_GRANULARITY + recovery.max_ack_delay


def probe_timeout(quic: QuicConnection) -> float:
    """Give QUIC's own PTO (RFC 9002, section 6.2.1)."""
    return quic._loss.get_probe_timeout()


def max_ack_delay(quic: QuicConnection) -> float:
    """Give how long the peer may keep an acknowledgement back."""
    return quic._loss.max_ack_delay


def congestion_window(quic: QuicConnection) -> int:
    """Give how many bytes may be in flight."""
    return quic._loss.congestion_window


def open_streams(quic: QuicConnection) -> Collection[int]:
    """Give the ids of the streams that there are."""
    return quic._streams.keys()


def smoothed_rtt(quic: QuicConnection) -> float:
    """Give QUIC's own smoothed round-trip time; 0 before there is a sample."""
    return quic._loss._rtt_smoothed


def reset_token(quic: QuicConnection) -> bytes:
    """Give the stateless reset token of the peer's connection id in use, empty without one."""
    return quic._peer_cid.stateless_reset_token or b""


def closing(quic: QuicConnection) -> Closing:
    """Tell which side has begun to close the connection; after its end: neither."""
    state = quic._state
    if state is QuicConnectionState.CLOSING:
        return Closing.LOCAL
    return Closing.PEER if state is QuicConnectionState.DRAINING else Closing.NEITHER


def close_event(quic: QuicConnection) -> ConnectionTerminated | None:
    """Give why the connection is closing, also before aioquic tells."""
    return quic._close_event


def trace(quic: QuicConnection) -> QuicLoggerTrace | None:
    """Give the connection's qlog trace, None where none is written."""
    return quic._quic_logger
