"""What the two sides of a session have told each other, and what holds because of it.

Control state under its versions, the agreed parameters, pauses, an operator's work, the key to
come. It decides nothing about the peer's life and sends nothing. Times in ns.
Spec: sections 8.6 to 8.10.
"""

from dataclasses import replace

from kaudp.config import Config
from kaudp.core.administration import Administration
from kaudp.core.agreement import Agreement, own_parameters
from kaudp.core.control import Control
from kaudp.core.pause import Pause
from kaudp.wire.codec import NO_OPTIONS, Options, Parameters


class Terms:
    """Each verb of the application ends in a new version; what the peer says is taken over once."""

    __slots__ = ("_config", "admin", "agreement", "announced_key", "control", "pause")

    def __init__(
        self, config: Config, parameters: Parameters, *, initiator: bool, now: int
    ) -> None:
        self.agreement = Agreement(config, parameters, initiator=initiator)
        self.control = Control()
        self.pause = Pause(config, now)
        self.admin = Administration(config)
        self.announced_key: bytes | None = None
        self._config = config

    @property
    def parameters(self) -> Parameters:
        """What this side says of its intervals now."""
        return self.agreement.own.newest

    def hold_judgement(self, now: int) -> bool:
        """Tell whether neither side is to judge now. Spec: KA-8.7-1, KA-8.10-3."""
        return self.pause.until > now or self.admin.down

    # What this side tells.

    def begin_pause(self, duration: int, now: int) -> None:
        """Pause for `duration` ns; 0 ends a pause. Spec: KA-8.6-1. Raises `SessionStateError`."""
        self.control.require_room()
        self.pause.begin(duration, now)
        self.control.change(pause_ms=self.pause.remaining_ms(now))

    def change_intervals(
        self, interval_ms: int | None, min_receive_interval_ms: int | None
    ) -> None:
        """Tell other intervals; None: as before. Spec: KA-8.8-1.

        Raises `ConfigError`, and `SessionStateError` as `begin_pause` does.
        """
        self.control.require_room()
        before = self._config
        self._config = replace(
            before,
            interval_ms=before.interval_ms if interval_ms is None else interval_ms,
            min_receive_interval_ms=(
                before.min_receive_interval_ms
                if min_receive_interval_ms is None
                else min_receive_interval_ms
            ),
        )
        self.agreement.own.change(own_parameters(self._config))
        self.control.change(parameters=self.parameters, slow_down_us=None)

    def slow_down(self, min_receive_interval_ms: int) -> None:
        """Ask for fewer probes, as an application does. Raises as `change_intervals` does."""
        self.control.require_room()
        self._config = replace(self._config, min_receive_interval_ms=min_receive_interval_ms)
        self.push_back(own_parameters(self._config).min_receive_interval_us)

    def push_back(self, min_receive_interval_us: int) -> None:
        """Ask for fewer probes. Spec: KA-8.9-1."""
        asked = self.parameters._replace(min_receive_interval_us=min_receive_interval_us)
        self.agreement.own.change(asked)
        self.control.change(slow_down_us=min_receive_interval_us)

    def administer(self, *, down: bool) -> bool:
        """Take this side down or up; tell whether that is new. Spec: KA-8.10-1."""
        if self.admin.own is down:
            return False
        self.control.require_room()
        self.admin.own = down
        self.control.change(admin=int(down))
        return True

    def announce(self, key_id: bytes) -> None:
        """Tell the key of the handshake to come. Spec: KA-4.8-1. Raises `SessionStateError`."""
        self.control.require_room()
        self.control.change(next_key=key_id)

    def unconfirmed(self, now: int) -> Options:
        """Give what the peer has not confirmed. Spec: KA-8.6-1."""
        pending = self.control.pending
        if pending.pause_ms is None:
            return pending
        return pending._replace(pause_ms=self.pause.remaining_ms(now))

    def confirmed_by(self, control_ack: int) -> Options:
        """Take note of what the peer has seen; give what it confirms just now. KA-8.8-3."""
        confirmed = self.control.confirmed_by(control_ack)
        if confirmed.parameters is not None or confirmed.slow_down_us is not None:
            self.agreement.own.settle()
        return confirmed

    def lapse(self, now: int) -> None:
        """Say no more of an own pause that is over by itself. Spec: section 8.7."""
        if self.pause.lapsed(now):
            self.control.withdraw_pause()

    # What the peer tells.

    def learn(self, control_version: int, options: Options, last_sent: int) -> Options:
        """Take the peer's control state over; give it if it is new. Spec: KA-8.6-2.

        The pause and the operator's part are the caller's to take, with what they bring about.
        """
        if not self.control.learn(control_version, options, last_sent):
            return NO_OPTIONS
        peer = self.agreement.peer
        if options.parameters is not None:
            peer.change(options.parameters)
        if options.slow_down_us is not None:
            peer.change(peer.newest._replace(min_receive_interval_us=options.slow_down_us))
        if options.next_key is not None:
            self.announced_key = options.next_key
        return options

    def peer_knows(self, confirmed: int) -> bool:
        """Tell, once, that a change of the peer is settled. Spec: KA-8.8-3."""
        if not self.control.peer_knows(confirmed):
            return False
        self.agreement.peer.settle()
        return True

    # Handshakes.

    def established(self, told: Parameters, peer: Parameters, now: int) -> None:
        """Take over what a handshake told, and tell again what it did not. Spec: KA-8.6-3."""
        self.agreement.established(told, peer)
        changed = None if self.parameters == told else self.parameters
        again = self.control.pending._replace(parameters=changed, slow_down_us=None)
        if self.pause.remaining_ms(now):
            again = again._replace(pause_ms=self.pause.remaining_ms(now))
        if self.admin.own:
            again = again._replace(admin=1)
        self.control.begin_anew(again)

    def keys_work(self) -> None:
        """Take note that the peer goes by what the handshake told. Spec: KA-8.8-3."""
        pending = self.control.pending
        if pending.parameters is None and pending.slow_down_us is None:
            self.agreement.own.settle()

    def forget_peer(self, now: int) -> None:
        """Forget what the peer said before it restarted. Spec: KA-8.6-3, KA-8.10-5."""
        self.pause.forget_peer(now)
        self.admin.peer_up(now)
