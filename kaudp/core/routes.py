"""Which session, embryo or closed session a datagram belongs to, and the bounds on them.

Spec: KA-4.3-3, KA-5.3-1, KA-9.1-1, KA-11-2.
"""

from collections import Counter, OrderedDict
from typing import Final, Generic, Protocol, TypeVar

from kaudp.config import Config
from kaudp.core.channel import Channel
from kaudp.core.handshake import EMBRYO_LIFETIME, Attempt, Embryo
from kaudp.units import SECOND

LINGER: Final = 30 * SECOND
MAX_EMBRYO_CHAIN: Final = 8


class Keyed(Protocol):
    """What a session is to the routes."""

    @property
    def key_id(self) -> bytes:
        """The id of the pre-shared key it was made under."""


T = TypeVar("T")
S = TypeVar("S", bound=Keyed)


class Expiring(Generic[T]):
    """What is kept for a while and then forgotten, by session id; at the bound the oldest goes."""

    __slots__ = ("_entries", "_linger", "_most")

    def __init__(self, most: int, linger: int) -> None:
        self._entries: OrderedDict[bytes, tuple[int, T]] = OrderedDict()
        self._most = most
        self._linger = linger

    def add(self, session_id: bytes, item: T, now: int) -> None:
        """Keep an item from now on."""
        self._expire(now)
        if len(self._entries) >= self._most:
            self._entries.popitem(last=False)
        self._entries[session_id] = (now + self._linger, item)

    def find(self, session_id: bytes, now: int) -> T | None:
        """Find an item whose time is not over."""
        self._expire(now)
        entry = self._entries.get(session_id)
        return entry[1] if entry else None

    def _expire(self, now: int) -> None:
        while self._entries and next(iter(self._entries.values()))[0] <= now:
            self._entries.popitem(last=False)


class Routes(Generic[S]):
    """Look-ups by session id; embryos and lingering channels expire by themselves."""

    __slots__ = (
        "_config",
        "_count",
        "_embryos_by_identifier",
        "_lingering",
        "_spent_attempts",
        "embryos",
        "named",
        "pending",
        "per_key",
        "sessions",
    )

    def __init__(self, config: Config, linger: int = LINGER) -> None:
        self.sessions: dict[bytes, S] = {}
        self.named: dict[bytes, S] = {}
        self.pending: dict[bytes, S] = {}
        self.embryos: OrderedDict[bytes, Embryo] = OrderedDict()
        self.per_key: Counter[bytes] = Counter()
        self._embryos_by_identifier: dict[bytes, Embryo] = {}
        self._lingering: Expiring[Channel] = Expiring(config.max_sessions, linger)
        self._spent_attempts: Expiring[Attempt] = Expiring(config.max_sessions, linger)
        self._count = 0
        self._config = config

    def add_session(self, session: S) -> None:
        """Count a new session against its key's limit."""
        self._count += 1
        self.per_key[session.key_id] += 1

    def rename(self, session: S, before: list[bytes], after: list[bytes]) -> None:
        """Let a peer continue a session by other ids of it than before. Spec: KA-4.3-5."""
        for session_id in before:
            del self.named[session_id]
        for session_id in after:
            self.named[session_id] = session

    def continued(self, old_session_id: bytes) -> S | None:
        """Find the session that an INIT is to continue, also by way of embryos. Spec: KA-4.3-5."""
        for _ in range(MAX_EMBRYO_CHAIN):
            session = self.named.get(old_session_id)
            embryo = self.embryos.get(old_session_id)
            if session is not None or embryo is None:
                return session
            old_session_id = embryo.payload.old_session_id
        return None

    def full(self, key_id: bytes) -> bool:
        """Tell whether no further session of this key is allowed."""
        return (
            self._count >= self._config.max_sessions
            or self.per_key[key_id] >= self._config.max_sessions_per_key
        )

    def remove_session(self, session: S) -> None:
        """Take a session out of the count."""
        self._count -= 1
        self.per_key[session.key_id] -= 1
        if not self.per_key[session.key_id]:
            del self.per_key[session.key_id]

    def linger(self, channel: Channel, now: int) -> None:
        """Let a channel that is no longer used consume what still arrives. Spec: KA-5.3-1."""
        self.sessions.pop(channel.local_id, None)
        self._lingering.add(channel.local_id, channel, now)

    def lingering(self, session_id: bytes, now: int) -> Channel | None:
        """Find a channel that is no longer used."""
        return self._lingering.find(session_id, now)

    def spend(self, attempt: Attempt, now: int) -> None:
        """Let a handshake that is no longer under way consume what still answers it. KA-4.3-8."""
        del self.pending[attempt.session_id]
        self._spent_attempts.add(attempt.session_id, attempt, now)

    def spent_attempt(self, session_id: bytes, now: int) -> Attempt | None:
        """Find a handshake that is no longer under way."""
        return self._spent_attempts.find(session_id, now)

    def embryo_of_init(self, identifier: bytes, now: int) -> Embryo | None:
        """Find the embryo that an INIT seen again made."""
        self.expire_embryos(now)
        return self._embryos_by_identifier.get(identifier)

    def add_embryo(self, embryo: Embryo) -> None:
        """Keep an embryo; the oldest gives way."""
        if len(self.embryos) >= self._config.max_embryos:
            self.remove_embryo(next(iter(self.embryos.values())))
        self.embryos[embryo.channel.local_id] = embryo
        self._embryos_by_identifier[embryo.identifier] = embryo

    def remove_embryo(self, embryo: Embryo) -> None:
        """Forget an embryo."""
        del self.embryos[embryo.channel.local_id]
        del self._embryos_by_identifier[embryo.identifier]

    def forget_embryos(self) -> None:
        """Forget all embryos."""
        self.embryos.clear()
        self._embryos_by_identifier.clear()

    def expire_embryos(self, now: int) -> None:
        """Forget embryos whose time is over."""
        while self.embryos:
            oldest = next(iter(self.embryos.values()))
            if oldest.answered > now - EMBRYO_LIFETIME:
                return
            self.remove_embryo(oldest)
