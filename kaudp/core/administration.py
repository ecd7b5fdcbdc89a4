"""ADMIN: whether an operator has taken the session down, here or there.

Times in ns. Spec: section 8.10.
"""

from typing import Final

from kaudp.config import Config
from kaudp.core.allowance import Allowance
from kaudp.units import SECOND, milliseconds

ADMIN_WINDOW: Final = 86_400 * SECOND


class Administration:
    """Which sides are taken down, and how long the peer's part is honoured."""

    __slots__ = ("_allowance", "_config", "_peer_since", "own")

    def __init__(self, config: Config) -> None:
        self.own = False
        self._config = config
        self._allowance = Allowance(ADMIN_WINDOW)
        self._peer_since: int | None = None

    @property
    def peer(self) -> bool:
        """Whether the peer is taken down, as far as that is honoured."""
        return self._peer_since is not None

    @property
    def down(self) -> bool:
        """Whether the session is to be in ADMIN_DOWN. Spec: KA-8.10-2."""
        return self.own or self.peer

    def peer_down(self, now: int) -> int | None:
        """Take over that the peer is down; tell until when that is honoured. Spec: KA-8.10-4."""
        limit = milliseconds(self._config.max_peer_admin_down_ms)
        left = self._allowance.left(limit, now)
        if self.peer or not left:
            return None
        self._peer_since = now
        return now + left

    def peer_up(self, now: int) -> None:
        """Take over that the peer is up again, or honour it no longer; charge the time."""
        if self._peer_since is None:
            return
        limit = milliseconds(self._config.max_peer_admin_down_ms)
        self._allowance.grant(now - self._peer_since, limit, now)
        self._peer_since = None
