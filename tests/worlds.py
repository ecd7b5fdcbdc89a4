"""Two endpoints in a simulated world, as most tests of the protocol want them."""

from dataclasses import replace
from typing import Any

from kaudp.config import Config
from kaudp.core.channel import Said
from kaudp.core.session import Session
from kaudp.events import State
from kaudp.sim import Conditions, Node, World
from kaudp.units import MILLISECOND, SECOND
from kaudp.wire.codec import NO_OPTIONS, Options
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import PresharedKey
from kaudp.wire.suites import Carried

KEY = PresharedKey(bytes(range(32)))
MS, S = MILLISECOND, SECOND


class Pair:
    """alice connects to bob. `session` is alice's, `far` is bob's."""

    def __init__(
        self,
        seed: object = 1,
        *,
        alice: Config | None = None,
        bob: Config | None = None,
        start: int = 0,
        accept: Any = True,
        key: PresharedKey | Carried = KEY,
        **conditions: Any,
    ) -> None:
        self.world = World(seed, start=start, conditions=Conditions(**conditions))
        self.alice = self.world.add_node(
            "alice", alice or Config.wan(), key, address=("192.0.2.1", 1000)
        )
        self.bob = self.world.add_node(
            "bob", bob or Config.server(), key, accept=accept, address=("192.0.2.2", 2000)
        )
        self.session: Session = self.alice.endpoint.connect(
            self.bob.address, self.world.now, key_id=key.key_id
        )

    @property
    def far(self) -> Session:
        (session,) = self.bob.endpoint.sessions
        return session

    @property
    def now(self) -> int:
        return self.world.now

    def run(self, duration: int) -> "Pair":
        self.world.run_for(duration)
        return self

    def up(self) -> "Pair":
        """Run until both are UP and a probe was answered."""
        self.run(2 * S)
        while not (self.bob.endpoint.sessions and self.session.stats.round_trips):
            assert self.now < 60 * S + self.world.started, f"seed {self.world.seed}: never up"
            self.run(100 * MS)
        self.run_to(State.UP)
        self.run_to(State.UP, self.far)
        assert self.session.state is State.UP, self.session
        assert self.far.state is State.UP, self.far
        return self

    def cut(self, *, cut: bool = True) -> None:
        self.world.cut_both("alice", "bob", cut=cut)

    def condition(self, **changes: Any) -> None:
        for source, target in (("alice", "bob"), ("bob", "alice")):
            link = self.world.link(source, target)
            link.conditions = replace(link.conditions, **changes)

    def run_to(self, state: State, session: Session | None = None, limit: int = 300 * S) -> int:
        """Run until a session is in a state; give the time."""
        watched = session or self.session
        end = self.now + limit
        while watched.state is not state:
            assert self.now < end, f"{watched} never became {state.name}"
            self.run(MS)
        return self.now


def of_type(node: Node, *types: FrameType) -> list[tuple[int, bytes, Any]]:
    """Give what a node sent of some frame types: (time, datagram, address)."""
    return [entry for entry in node.sent if entry[1][1] in types]


def forge(
    session: Session, frame_type: FrameType, now: int, options: Options = NO_OPTIONS, **said: int
) -> bytes:
    """Seal a frame as this session's side would, saying something else about itself."""
    channel = session._channel
    assert channel is not None
    fields = {
        "state": session.state,
        "diagnostic": 0,
        "control_version": session._terms.control.version,
        "control_ack": 0,
        "address_hash": session._address_hash,
    }
    return channel.build(frame_type, Said(**{**fields, **said}), now, options)
