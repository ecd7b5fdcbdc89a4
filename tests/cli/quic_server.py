"""A QUIC server that knows nothing of kaudp, for the command line to meet."""

import asyncio
import threading
from pathlib import Path
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, serve
from aioquic.quic.configuration import QuicConfiguration


class QuicServer:
    """Serves in a thread of its own; `address` is HOST:PORT."""

    def __init__(self, certificate: Path, key: Path, alpn: list[str] | None) -> None:
        self._configuration = QuicConfiguration(is_client=False, alpn_protocols=alpn)
        self._configuration.load_cert_chain(certificate, key)
        self.address = ""
        self.events: list[str] = []
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        self._thread.start()
        assert self._ready.wait(10)

    def stop(self) -> None:
        """Close all connections and end; harmless the second time."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        server = await serve(
            "127.0.0.1", 0, configuration=self._configuration, create_protocol=self._protocol
        )
        port = server._transport.get_extra_info("sockname")[1]
        self.address = f"127.0.0.1:{port}"
        self._ready.set()
        await self._stop.wait()
        server.close()

    def _protocol(self, *arguments: Any, **settings: Any) -> QuicConnectionProtocol:
        protocol = QuicConnectionProtocol(*arguments, **settings)
        protocol.quic_event_received = lambda event: self.events.append(type(event).__name__)
        return protocol
