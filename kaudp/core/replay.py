"""The replay window, which also counts what was received.

Spec: section 5.1.
"""

from typing import Final

from kaudp.errors import DropReason, Refused

REPLAY_WINDOW: Final = 1024
_MASK: Final = (1 << REPLAY_WINDOW) - 1


class ReplayWindow:
    """Which of the last 1024 packet numbers came in: bit i of `_seen` is highest - i."""

    __slots__ = ("_seen", "count", "highest")

    def __init__(self) -> None:
        self.highest = 0
        self.count = 0
        self._seen = 0

    def accept(self, packet_number: int) -> None:
        """Record a packet number whose tag has verified.

        Raises `Refused` for one that was received or is too old. Spec: KA-5.1-1, KA-5.1-2.
        """
        ahead = packet_number - self.highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & _MASK if ahead < REPLAY_WINDOW else 1
            self.highest = packet_number
        else:
            if -ahead >= REPLAY_WINDOW or self._seen >> -ahead & 1:
                raise Refused(DropReason.REPLAY, str(packet_number), consumed=True)
            self._seen |= 1 << -ahead
        self.count += 1
