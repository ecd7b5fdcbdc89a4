"""Control state: what a side tells until it is confirmed, and what it took from its peer.

What the options mean is the business of `pause`, `agreement` and `administration`.
Spec: section 8.6.
"""

from typing import Any, Final

from kaudp.errors import SessionStateError
from kaudp.wire.codec import NO_OPTIONS, Options

MAX_UNCONFIRMED: Final = 254
CONTROL_OPTIONS: Final = ("parameters", "pause_ms", "slow_down_us", "next_key", "admin")


class Control:
    """Versions of the control state, own and the peer's. Spec: KA-8.6-1, KA-8.6-2."""

    __slots__ = ("_acked_since", "_told", "_unconfirmed", "acked", "version")

    def __init__(self) -> None:
        self.version = 0
        self.acked = 0
        self._told = NO_OPTIONS
        self._acked_since: int | None = None
        self._unconfirmed = 0

    @property
    def exhausted(self) -> bool:
        """Whether a further version could be taken for one that is not confirmed. KA-8.6-4."""
        return self._unconfirmed >= MAX_UNCONFIRMED

    @property
    def pending(self) -> Options:
        """What the peer has not confirmed yet; `pause_ms` as it was at first."""
        return self._told

    @property
    def waits(self) -> bool:
        """Whether something is to be confirmed."""
        return self._told is not NO_OPTIONS

    def require_room(self) -> None:
        """Refuse a further change that could be taken for an old one: `SessionStateError`."""
        if self.exhausted:
            raise SessionStateError(
                f"expected the peer to confirm one of {MAX_UNCONFIRMED} changes, it did not yet"
            )

    def change(self, **options: Any) -> None:  # noqa: ANN401
        """Say something new, beside what is not confirmed yet; `require_room` comes first."""
        self._unconfirmed += 1
        self.version = self.version % 255 + 1
        self._told = self._told._replace(**options)

    def confirmed_by(self, control_ack: int) -> Options:
        """Take note of what the peer has seen; give what it has confirmed just now.

        It may be nothing: a pause that is over by itself is told no more, yet its version counts.
        """
        if control_ack != self.version or not self._unconfirmed:
            return NO_OPTIONS
        confirmed, self._told = self._told, NO_OPTIONS
        self._unconfirmed = 0
        return confirmed

    def withdraw_pause(self) -> None:
        """Say no more of a pause that is over by itself. Spec: section 8.7."""
        self._told = _tidy(self._told._replace(pause_ms=None))

    def learn(self, control_version: int, options: Options, last_sent: int) -> bool:
        """Take note of the newest frame; tell whether its control options are new.

        `last_sent` is the own packet number so far: the next one confirms.
        """
        known = control_version in (0, self.acked)
        if known or control_options(options) is NO_OPTIONS:
            return False
        self.acked = control_version
        self._acked_since = last_sent + 1
        return True

    def peer_knows(self, confirmed: int) -> bool:
        """Tell, once, that the peer has our confirmation: a frame that held it came in there.

        Spec: KA-8.8-3.
        """
        if self._acked_since is None or confirmed < self._acked_since:
            return False
        self._acked_since = None
        return True

    def begin_anew(self, told: Options) -> None:
        """Begin anew with versions, under new keys; what is to be told is the first. KA-8.6-3."""
        self.acked = 0
        self._acked_since = None
        self._told = _tidy(told)
        self.version = self._unconfirmed = int(self.waits)


def control_options(options: Options) -> Options:
    """Give the control options of a frame alone, `NO_OPTIONS` itself if there are none."""
    if options is NO_OPTIONS:
        return NO_OPTIONS
    return _tidy(Options(**{name: getattr(options, name) for name in CONTROL_OPTIONS}))


def _tidy(options: Options) -> Options:
    return options if any(value is not None for value in options) else NO_OPTIONS
