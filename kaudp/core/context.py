"""What the sessions of one endpoint share."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from kaudp.config import Config
from kaudp.core.agreement import own_parameters
from kaudp.core.handshake import Identity
from kaudp.core.outbox import Outbox
from kaudp.core.routes import Routes
from kaudp.core.timers import TimerQueue
from kaudp.core.totals import Totals
from kaudp.units import milliseconds
from kaudp.wire.seal import PhaseLimits
from kaudp.wire.suites import CredentialLookup, Entropy, OnSecrets

if TYPE_CHECKING:
    from kaudp.core.session import Session


class Context:
    """Configuration, identity, randomness, and the ways in and out."""

    __slots__ = (
        "config",
        "entropy",
        "identity",
        "key",
        "limits",
        "on_secrets",
        "outbox",
        "parameters",
        "queue",
        "rng",
        "routes",
        "totals",
    )

    def __init__(
        self,
        config: Config,
        identity: Identity,
        key: CredentialLookup,
        rng: Random,
        entropy: Entropy,
        linger: int,
        totals: Totals,
        on_secrets: OnSecrets | None,
    ) -> None:
        self.identity = identity
        self.key = key
        self.rng = rng
        self.entropy = entropy
        self.totals = totals
        self.on_secrets = on_secrets
        self.outbox = Outbox(config.max_events, totals)
        self.routes: Routes[Session] = Routes(config, linger)
        self.queue: TimerQueue[Session] = TimerQueue()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take another configuration for the sessions to come."""
        self.config = config
        self.parameters = own_parameters(config)
        self.limits = PhaseLimits(
            milliseconds(config.key_update_interval_ms), config.key_update_frames
        )

    def draw(self) -> int:
        """Draw a uniform 32-bit integer for jitter."""
        return self.rng.getrandbits(32)
