"""PAUSE: for how long either side asked not to be judged, and how long that is honoured.

Times in ns. Spec: section 8.7.
"""

from typing import Final

from kaudp.config import Config
from kaudp.core.allowance import Allowance
from kaudp.units import MAX_UINT32, MILLISECOND, SECOND, milliseconds

PAUSE_WINDOW: Final = 3600 * SECOND


class Pause:
    """Own pause and the peer's."""

    __slots__ = ("_allowance", "_config", "_lapses", "_own_until", "_peer_until")

    def __init__(self, config: Config, now: int) -> None:
        self._config = config
        self._own_until = now
        self._lapses = False
        self._peer_until = now
        self._allowance = Allowance(PAUSE_WINDOW)

    @property
    def until(self) -> int:
        """When both pauses are over."""
        return max(self._own_until, self._peer_until)

    def begin(self, duration: int, now: int) -> None:
        """Pause for `duration` ns; 0 ends a pause. Spec: KA-8.7-3."""
        self._own_until = now + duration
        self._lapses = duration > 0

    def lapsed(self, now: int) -> bool:
        """Tell whether an own pause is over by itself."""
        return self._lapses and self._own_until <= now

    def remaining_ms(self, now: int) -> int:
        """Tell the content of the PAUSE option."""
        return min(max(0, self._own_until - now) // MILLISECOND, MAX_UINT32)

    def forget_peer(self, now: int) -> None:
        """Take note that the peer started anew."""
        self._peer_until = now

    def learn(self, pause_ms: int, now: int) -> int:
        """Take a pause of the peer over; tell how long it is honoured. Spec: KA-8.7-2.

        What an earlier pause covers already is not charged again.
        """
        asked = min(milliseconds(pause_ms), milliseconds(self._config.max_peer_pause_ms))
        covered = min(asked, max(0, self._peer_until - now))
        limit = milliseconds(self._config.max_peer_pause_sum_ms)
        honoured = covered + self._allowance.grant(asked - covered, limit, now)
        self._peer_until = now + honoured
        return honoured
