"""PAUSE: control state with a version, repeated until the peer confirms it.

Times in ns. Spec: section 8.6.
"""

from typing import Final

from kaudp.config import Config
from kaudp.core.allowance import Allowance
from kaudp.units import MAX_UINT32, MILLISECOND, SECOND, milliseconds

PAUSE_WINDOW: Final = 3600 * SECOND


class Pause:
    """Own pause and the peer's."""

    __slots__ = (
        "_allowance",
        "_config",
        "_lapses",
        "_own_until",
        "_peer_until",
        "acked",
        "pending",
        "version",
    )

    def __init__(self, config: Config, now: int) -> None:
        self.version = 0
        self.acked = 0
        self.pending = False
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
        """Pause for `duration` ns; 0 ends a pause. Spec: KA-8.6-1, KA-8.6-4."""
        self.version = self.version % 255 + 1
        self.pending = True
        self._own_until = now + duration
        self._lapses = duration > 0

    def remaining_ms(self, now: int) -> int | None:
        """Tell the content of the PAUSE option, None while none is to be sent."""
        if not self.pending:
            return None
        return min(max(0, self._own_until - now) // MILLISECOND, MAX_UINT32)

    def confirmed_by(self, control_ack: int) -> None:
        """Take note of what the peer has seen."""
        if control_ack == self.version:
            self.pending = False

    def lapse(self, now: int) -> None:
        """Stop asking for the confirmation of a pause that is over by itself."""
        if self._lapses and self._own_until <= now:
            self.pending = False

    def forget_peer(self, now: int) -> None:
        """Take note that the peer started anew: its versions begin anew too."""
        self.acked = 0
        self._peer_until = now

    def learn(self, control_version: int, pause_ms: int | None, now: int) -> int | None:
        """Take note of the newest frame; give how long a new pause of the peer is honoured.

        Spec: KA-8.6-3.
        """
        if control_version == self.acked:
            return None
        self.acked = control_version
        if pause_ms is None:
            return None
        asked = min(milliseconds(pause_ms), milliseconds(self._config.max_peer_pause_ms))
        limit = milliseconds(self._config.max_peer_pause_sum_ms)
        granted = self._allowance.grant(asked, limit, now)
        self._peer_until = now + granted
        return granted
