"""The endpoint: all sessions of one user of kaudp, and the one way in and out of the core.

Spec: sections 2, 4 and 12.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from kaudp.config import Config
from kaudp.core.context import Context
from kaudp.core.cookies import CookieJar
from kaudp.core.handshake import NO_SESSION, Embryo, Identity
from kaudp.core.paths import Address
from kaudp.core.routes import LINGER
from kaudp.core.session import Session
from kaudp.core.totals import Tally, Totals, by_state
from kaudp.errors import ConfigError, DropReason, KeyFormatError, Refused, SessionStateError
from kaudp.events import CloseReason, Event, State
from kaudp.units import MAX_UINT32, SECOND
from kaudp.wire import codec
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import KeySource, key_lookup
from kaudp.wire.suites import (
    Carried,
    Credential,
    Entropy,
    OnSecrets,
    OpenedInit,
    OpenedNoiseInit,
    open_init,
)

# Inside QUIC nobody else can come by an id that was given up: it is known to the end.
CARRIED_LINGER: Final = MAX_UINT32 * SECOND

AcceptHook = Callable[[bytes, Address], bool]


class Endpoint:
    """The sans-I/O core. `now` is an int of ns; `addr` is any hashable value.

    `keys` is a `PresharedKey`, a mapping of key id to key, or a callable such as a `MasterKey`;
    `Carried` where a QUIC connection takes their place.
    `rng` draws jitter; `entropy(n)` gives n secret bytes, `os.urandom` in production. `accept`
    is True, False, or a hook (key id, addr) -> bool that is asked about each verified INIT.
    `instance_id`, 8 bytes, tells peers that it is you again after a restart. `utc_offset` (ns)
    leads from `now` to the time of day, for `Config.share_clock`.
    `totals` is where it counts, its own unless given. `on_secrets` is told the secret of each
    direction of each handshake, as (receiver session id, secret): for a key log, else None.
    After each verb: send what `datagrams_to_send` gives, read `next_event` until None, and call
    `handle_timer` at `next_timer`. Same arguments, same bytes.
    """

    def __init__(
        self,
        config: Config,
        *,
        keys: KeySource | Carried,
        rng: Random,
        entropy: Entropy,
        accept: bool | AcceptHook = False,
        instance_id: bytes | None = None,
        utc_offset: int | None = None,
        totals: Totals | None = None,
        on_secrets: OnSecrets | None = None,
    ) -> None:
        if instance_id is not None and len(instance_id) != 8:
            raise ConfigError(f"expected an instance id of 8 bytes, got {len(instance_id)}")
        told_offset = utc_offset if config.share_clock else None
        # Without an instance id of the user's, one that lasts as long as this. Spec: KA-4.2-9.
        identity = Identity(instance_id or entropy(8), entropy(8), told_offset)
        self.totals = totals or Totals()
        self.counters: Counter[DropReason] = self.totals.refused
        self.refusal: DropReason | None = None
        linger = CARRIED_LINGER if isinstance(keys, Carried) else LINGER
        lookup = {keys.key_id: keys}.get if isinstance(keys, Carried) else key_lookup(keys)
        self._context = Context(
            config, identity, lookup, rng, entropy, linger, self.totals, on_secrets
        )
        self._carried = keys if isinstance(keys, Carried) else None
        self._cookies = CookieJar(entropy)
        self._accept = accept

    @property
    def sessions(self) -> list[Session]:
        """The established sessions that are not yet forgotten."""
        return list(self._context.routes.sessions.values())

    @property
    def events_lost(self) -> Counter[str]:
        """How many events gave way to newer ones, by kind. Spec: KA-11-3."""
        return self._context.outbox.events.lost

    def states(self) -> list[State]:
        """Give the state of each session, of those still connecting too."""
        routes = self._context.routes
        return [each.state for each in {*routes.sessions.values(), *routes.pending.values()}]

    def tally(self) -> Tally:
        """Count the sessions by state, and give a copy of the totals."""
        return Tally(by_state(self.states()), self.totals + Totals())

    def connect(self, addr: Address, now: int, *, key_id: bytes) -> Session:
        """Start a session with the peer at `addr` under the key with this id.

        Raises `KeyFormatError` when the key source has no such key, `SessionStateError` when
        the endpoint has as many sessions as its configuration allows.
        """
        credential = self._context.key(key_id)
        if credential is None:
            raise KeyFormatError(f"expected a key id of the key source, got {key_id.hex()}")
        if self._context.routes.full(key_id):
            raise SessionStateError(
                "expected fewer sessions than max_sessions and max_sessions_per_key allow"
            )
        session = Session(self._context, credential, addr, now, initiator=True)
        session.begin(now)
        return session

    def reconfigure(self, config: Config, now: int) -> None:
        """Change the configuration of an endpoint all of whose sessions are still CONNECTING.

        Their connect timeouts go on. Raises `SessionStateError` once a session is established.
        """
        context = self._context
        if self.sessions or context.routes.embryos:
            raise SessionStateError("expected no established session, got one")
        context.configure(config)
        for session in list(context.routes.pending.values()):
            session.reconfigure(now)

    def close(self, now: int, reason: CloseReason | int = CloseReason.SHUTDOWN) -> None:
        """Close all sessions, tell their peers, and accept no more.

        `quiet` when the peers know or cannot be told.
        """
        self._accept = False
        self._context.routes.forget_embryos()
        for session in [*self.sessions, *self._context.routes.pending.values()]:
            session.close(now, reason)

    def abandon(
        self, now: int, reason: CloseReason | int, *, by_peer: bool, detail: str = ""
    ) -> None:
        """End all sessions with the connection that carried them. Spec: KA-14.7-1."""
        self._accept = False
        self._context.routes.forget_embryos()
        for session in [*self.sessions, *self._context.routes.pending.values()]:
            session.abandon(now, reason, by_peer=by_peer, detail=detail)

    @property
    def quiet(self) -> bool:
        """Whether no session is left, not even one that waits for its CLOSE to be confirmed."""
        return not self._context.routes.per_key

    def receive_datagram(self, data: bytes, addr: Address, now: int) -> bool:
        """Take a datagram in. True: a tag in it verified, it is consumed. False: not ours.

        Raises nothing on account of `data`; `refusal` is then why it was refused, None if it was
        not. Spec: KA-2-3, KA-2-4, KA-2-5, KA-12-1.
        """
        try:
            self._receive(data, addr, now)
        except Refused as refused:
            self.refusal = refused.reason
            self.counters[refused.reason] += 1
            return refused.consumed
        self.refusal = None
        self.totals.received += 1
        return True

    def handle_timer(self, now: int) -> None:
        """Do what is due; harmless when nothing is."""
        while session := self._context.queue.pop_due(now):
            session.handle_timer(now)

    def next_timer(self) -> int | None:
        """Tell when to call `handle_timer` next, in ns; None: never. Only reads."""
        return self._context.queue.next()

    def datagrams_to_send(self) -> Iterator[tuple[bytes, Address]]:
        """Take all (bytes, addr) that wait; what the socket refuses is dropped. KA-8.3-4."""
        return self._context.outbox.datagrams()

    def next_event(self) -> Event | None:
        """Take the oldest event, None when there is none."""
        return self._context.outbox.events.take()

    def _receive(self, data: bytes, addr: Address, now: int) -> None:
        frame_type = codec.classify_carried(data) if self._carried else codec.classify(data)
        if frame_type is FrameType.INIT:
            self._receive_init(data, addr, now)
        elif frame_type is FrameType.RESPONSE:
            self._receive_answer(data, Session.receive_response, now)
        elif frame_type is FrameType.COOKIE:
            self._receive_answer(data, Session.receive_cookie, now)
        else:
            self._receive_transport(data, addr, now)

    def _receive_init(self, data: bytes, addr: Address, now: int) -> None:
        """Answer a verified INIT and keep an embryo. Spec: KA-4.2-4, KA-4.2-5, KA-4.3-1."""
        context = self._context
        opened = self._open_init(data)
        if opened.payload.epoch == context.identity.epoch:
            raise Refused(DropReason.OWN_EPOCH, consumed=True)
        embryo = context.routes.embryo_of_init(data, now)
        if embryo is None:
            known = self._known(opened, addr)
            self._check_cookie(opened, addr, now)
            if known is None:
                self._check_admission(opened.credential.key_id, addr)
            parameters = known.parameters if known else context.parameters
            embryo = Embryo(
                opened,
                context,
                parameters,
                addr,
                now,
                continues=self._continued(opened),
                admitted=known is None,
            )
            context.routes.add_embryo(embryo)
        context.outbox.send(embryo.answer(addr), addr)

    def _known(self, opened: OpenedInit, addr: Address) -> Session | None:
        """Find the session that this INIT will belong to; None: it is a stranger's. KA-11-2."""
        key_id = opened.credential.key_id
        known = self._awaited(opened, addr) or self._continued(opened) or self._restarted(opened)
        if known is None and self._accept is False:
            raise Refused(DropReason.NOT_ACCEPTING, consumed=True)
        if known and known.key_id != key_id and self._context.routes.key_full(key_id):
            raise Refused(DropReason.SESSION_LIMIT, consumed=True)
        return known

    def _awaited(self, opened: OpenedInit, addr: Address) -> Session | None:
        """Find the session whose own first handshake this INIT meets. Spec: KA-4.6-1."""
        payload = opened.payload
        awaited = self._context.routes.connecting_to(opened.credential.key_id, addr)
        is_first = payload.old_session_id == NO_SESSION
        if awaited is not None and is_first and not self._context.identity.precedes(payload.epoch):
            raise Refused(DropReason.CROSSED, consumed=True)
        return awaited

    def _check_cookie(self, opened: OpenedInit, addr: Address, now: int) -> None:
        """Under load, ask for proof of the source before anything is kept. Spec: KA-4.5-2."""
        config, key_id = self._context.config, opened.credential.key_id
        few = len(self._context.routes.embryos) < config.cookie_threshold
        if few or not isinstance(opened, OpenedNoiseInit):
            return
        if self._cookies.is_right(opened.cookie, addr, key_id, now):
            return
        cookie = self._cookies.cookie(addr, key_id, now)
        self._context.outbox.send(opened.ask_for_cookie(cookie, self._context.entropy), addr)
        raise Refused(DropReason.COOKIE_SENT, consumed=True)

    def _open_init(self, data: bytes) -> OpenedInit:
        if self._carried:
            return open_init(self._carried, data)
        return open_init(self._key(codec.parse_init_header(data).key_id), data)

    def _check_admission(self, key_id: bytes, addr: Address) -> None:
        self._check_bounds(key_id)
        self._check_accepted(key_id, addr)

    def _check_bounds(self, key_id: bytes) -> None:
        if self._context.routes.full(key_id):
            raise Refused(DropReason.SESSION_LIMIT, consumed=True)

    def _check_accepted(self, key_id: bytes, addr: Address) -> None:
        if self._accept is False:
            raise Refused(DropReason.NOT_ACCEPTING, consumed=True)
        if callable(self._accept) and not self._accept(key_id, addr):
            raise Refused(DropReason.REFUSED, consumed=True)

    def _receive_answer(
        self, data: bytes, receive: Callable[[Session, bytes, int], None], now: int
    ) -> None:
        session_id = codec.answered_session_id(data)
        session = self._context.routes.pending.get(session_id)
        if session is None:
            self._consume_late_answer(session_id, data, now)
        else:
            receive(session, data, now)

    def _consume_late_answer(self, session_id: bytes, data: bytes, now: int) -> None:
        """Consume an answer to a handshake that is no longer under way. Spec: KA-4.3-8."""
        attempt = self._context.routes.spent_attempt(session_id, now)
        if attempt is None:
            raise Refused(DropReason.UNKNOWN_SESSION)
        if data[1] == FrameType.COOKIE:
            attempt.open_cookie(data)
        else:
            attempt.complete(data)
        raise Refused(DropReason.UNEXPECTED, consumed=True)

    def _receive_transport(self, data: bytes, addr: Address, now: int) -> None:
        routes = self._context.routes
        header = codec.parse_transport_header(data)
        session = routes.sessions.get(header.receiver_session_id)
        if session is not None:
            session.receive_transport(header, data, addr, now)
            return
        routes.expire_embryos(now)
        embryo = routes.embryos.get(header.receiver_session_id)
        if embryo is not None:
            self._promote(embryo, data, addr, now)
            return
        channel = routes.lingering(header.receiver_session_id, now)
        if channel is None:
            raise Refused(DropReason.UNKNOWN_SESSION)
        channel.unseal(header, data, now)
        raise Refused(DropReason.LINGERING, consumed=True)

    def _promote(self, embryo: Embryo, data: bytes, addr: Address, now: int) -> None:
        """Make a session of an embryo whose first frame verifies. Spec: KA-4.3-4, KA-4.3-5."""
        header = codec.parse_transport_header(data)
        channel, context = embryo.channel, self._context
        body, newest = channel.accept(header, channel.unseal(header, data, now), now)
        continued = self._continued(embryo)
        if header.type == FrameType.REPLY or (continued is None and header.type == FrameType.CLOSE):
            raise Refused(DropReason.UNEXPECTED, consumed=True)
        session = continued or self._met(embryo, addr) or self._restarted(embryo)
        address = embryo.address_proven_by(addr)
        if session is None:
            self._check_bounds(embryo.credential.key_id)
            if not embryo.admitted:
                self._check_accepted(embryo.credential.key_id, addr)
            session = Session(context, embryo.credential, address, now, initiator=False)
        context.routes.expire_older(session, embryo)
        context.routes.remove_embryo(embryo)
        session.adopt(embryo, address, now)
        session.receive_frame(header, body, addr, now, size=len(data), newest=newest)

    def _continued(self, asked: OpenedInit | Embryo) -> Session | None:
        """Find the session that an initiator names. Spec: KA-4.3-5, KA-4.8-2."""
        session = asked.continues if isinstance(asked, Embryo) else None
        session = session or self._context.routes.continued(asked.payload.old_session_id)
        if session is None or not session.continuable:
            return None
        allowed = (session.key_id, session.announced_key)
        return session if asked.credential.key_id in allowed else None

    def _met(self, embryo: Embryo, addr: Address) -> Session | None:
        """Find the session of own initiation that wants the same peer. KA-4.6-2, KA-4.6-3."""
        key_id, payload = embryo.credential.key_id, embryo.payload
        connecting = self._context.routes.connecting_to(key_id, addr)
        if connecting is not None:
            return connecting
        for session in self._context.routes.sessions_with(key_id, payload.instance_id):
            same = session.initiator and session.peer_epoch == payload.epoch
            if same and not session.confirmed_before(embryo.answered):
                if self._context.identity.precedes(payload.epoch):
                    return session
                raise Refused(DropReason.CROSSED, consumed=True)
        return None

    def _restarted(self, asked: OpenedInit | Embryo) -> Session | None:
        """Find the session of a peer that has restarted since; its own first. Spec: KA-4.7-1."""
        payload = asked.payload
        known = self._context.routes.sessions_with(asked.credential.key_id, payload.instance_id)
        left = [
            session
            for session in known
            if session.state is not State.CLOSED and session.peer_epoch != payload.epoch
        ]
        return min(left, key=lambda s: (s.initiator, s.stats.rx_at), default=None)

    def _key(self, key_id: bytes) -> Credential:
        key = self._context.key(key_id)
        if key is None:
            raise Refused(DropReason.UNKNOWN_KEY)
        return key
