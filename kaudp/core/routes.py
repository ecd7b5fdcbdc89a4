"""Which session, embryo or closed session a datagram belongs to, and the bounds on them.

Spec: KA-4.3-3, KA-5.3-1, KA-9.1-1, KA-11-2.
"""

from collections import Counter, OrderedDict
from typing import Final, Generic, Protocol, TypeVar

from kaudp.config import Config
from kaudp.core.channel import Channel
from kaudp.core.handshake import EMBRYO_LIFETIME, Attempt, Embryo
from kaudp.core.paths import Address, canonical_or_other
from kaudp.units import SECOND

LINGER: Final = 30 * SECOND
MAX_EMBRYO_CHAIN: Final = 8


class Keyed(Protocol):
    """What a session is to the routes."""

    key_id: bytes
    """The id of the pre-shared key it is under."""

    connecting_at: tuple[bytes, bytes] | None
    """The key and the address of a first handshake under way."""

    peer_instance: bytes
    """The peer's instance id, empty while it is not known."""


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
        "connecting",
        "embryos",
        "named",
        "peers",
        "pending",
        "per_key",
        "sessions",
    )

    def __init__(self, config: Config, linger: int = LINGER) -> None:
        self.sessions: dict[bytes, S] = {}
        self.named: dict[bytes, S] = {}
        self.pending: dict[bytes, S] = {}
        self.connecting: dict[tuple[bytes, bytes], list[S]] = {}
        self.peers: dict[tuple[bytes, bytes], list[S]] = {}
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

    def connect_at(self, session: S, address: Address) -> None:
        """Note with which address a first handshake is under way. Spec: KA-4.6-1."""
        self.connected(session)
        session.connecting_at = (session.key_id, canonical_or_other(address))
        self.connecting.setdefault(session.connecting_at, []).append(session)

    def connected(self, session: S) -> None:
        """Note that no first handshake is under way any more."""
        place, session.connecting_at = session.connecting_at, None
        if place is None:
            return
        self.connecting[place].remove(session)
        if not self.connecting[place]:
            del self.connecting[place]

    def connecting_to(self, key_id: bytes, address: Address) -> S | None:
        """Find a session whose first handshake with an address is under way, the oldest first."""
        there = self.connecting.get((key_id, canonical_or_other(address)))
        return there[0] if there else None

    def rekey(self, session: S, key_id: bytes) -> None:
        """Count a session under another key from now on. Spec: section 4.8."""
        instance = session.peer_instance
        self._uncount(session)
        self.forget_peer(session)
        session.key_id = key_id
        self.per_key[key_id] += 1
        self.know_peer(session, instance)

    def know_peer(self, session: S, instance: bytes) -> None:
        """Note whose session it is: key id and instance id. Spec: KA-4.6-3, KA-4.7-1."""
        if session.peer_instance == instance:
            return
        self.forget_peer(session)
        session.peer_instance = instance
        self.peers.setdefault((session.key_id, instance), []).append(session)

    def sessions_with(self, key_id: bytes, instance: bytes) -> list[S]:
        """Give the sessions with one instance under one key."""
        return self.peers.get((key_id, instance), [])

    def forget_peer(self, session: S) -> None:
        """Note no longer whose session it is."""
        if not session.peer_instance:
            return
        name = (session.key_id, session.peer_instance)
        self.peers[name].remove(session)
        if not self.peers[name]:
            del self.peers[name]
        session.peer_instance = b""

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
        return self._count >= self._config.max_sessions or self.key_full(key_id)

    def key_full(self, key_id: bytes) -> bool:
        """Tell whether no session may come over to this key either. Spec: KA-11-2."""
        return self.per_key[key_id] >= self._config.max_sessions_per_key

    def remove_session(self, session: S) -> None:
        """Take a session out of the count."""
        self._count -= 1
        self.forget_peer(session)
        self._uncount(session)

    def _uncount(self, session: S) -> None:
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

    def expire_older(self, session: S, embryo: Embryo) -> None:
        """Forget the embryos before this one that would continue the same session. KA-4.3-9."""
        for older in list(self.embryos.values()):
            if older is embryo or older.answered > embryo.answered:
                continue
            named = older.continues or self.continued(older.payload.old_session_id)
            if named is session or older.precedes_restart(embryo):
                self.remove_embryo(older)

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
