"""The first look at what happens on a connection, for who is attached to it.

A protocol's methods are looked up on the instance at each call, so no subclass is needed and
whatever class the application has goes on as it is.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.events import QuicEvent

# The one that is attached, and the one before, for what still comes for it.
MAX_LOOKERS: Final = 2


class Looker(Protocol):
    """What is attached."""

    def take(self, event: QuicEvent) -> Iterable[QuicEvent]:
        """Look at an event of the connection; give what goes on."""

    def transmitting(self) -> None:
        """Take note that aioquic is about to send."""

    def transmitted(self) -> None:
        """Take note that aioquic has sent what it had."""

    def received(self, data: bytes) -> None:
        """Take note of a datagram that aioquic has seen."""


class Hooks:
    """Sits in the methods of one protocol, once, for all who are ever attached to it."""

    def __init__(self, protocol: QuicConnectionProtocol, *, is_client: bool) -> None:
        self.lookers: list[Looker] = []
        self._tell = protocol.quic_event_received
        self._transmit = protocol.transmit
        self._receive = protocol.datagram_received
        hooks: dict[str, Callable[..., None]] = {
            "quic_event_received": self._quic_event_received,
            "transmit": self._transmit_and_look,
        }
        if is_client:
            hooks["datagram_received"] = self._datagram_received
        for name, hook in hooks.items():
            setattr(protocol, name, hook)

    def add(self, looker: Looker) -> None:
        """Let somebody look first."""
        self.lookers = [looker, *self.lookers[: MAX_LOOKERS - 1]]

    def _quic_event_received(self, event: QuicEvent) -> None:
        passed: Iterable[QuicEvent] = (event,)
        for looker in self.lookers:
            passed = [each for seen in passed for each in looker.take(seen)]
        for each in passed:
            self._tell(each)

    def _transmit_and_look(self) -> None:
        for looker in self.lookers:
            looker.transmitting()
        self._transmit()
        for looker in self.lookers:
            looker.transmitted()

    def _datagram_received(self, data: bytes, addr: Any) -> None:  # noqa: ANN401
        self._receive(data, addr)
        for looker in self.lookers:
            looker.received(data)


_HOOKS: Final[WeakKeyDictionary[QuicConnectionProtocol, Hooks]] = WeakKeyDictionary()


def hooks_of(protocol: QuicConnectionProtocol, *, is_client: bool) -> Hooks:
    """Give a protocol's hooks, put there at the first call."""
    hooks = _HOOKS.get(protocol)
    if hooks is None:
        hooks = _HOOKS[protocol] = Hooks(protocol, is_client=is_client)
    return hooks
