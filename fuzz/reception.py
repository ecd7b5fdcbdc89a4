"""One datagram at one side: what it may change, and exactly what may be sent on its account."""

from dataclasses import fields
from typing import Any, Final

from fuzz.frozen import frozen
from fuzz.invariants import Side
from fuzz.listener import TRANSPORT, Frame, Sent
from kaudp import Session, State
from kaudp.core.handshake import EMBRYO_LIFETIME, Embryo
from kaudp.core.paths import Address, canonical_or_other
from kaudp.errors import DropReason
from kaudp.units import SECOND
from kaudp.wire.cookies import NO_COOKIE, open_cookie
from kaudp.wire.grammar import SUITE_CARRIED, FrameType

CARRIED_RESPONSE: Final = bytes([FrameType.RESPONSE, SUITE_CARRIED])
ADDRESS_SEEN_BYTES: Final = 2 + 19
CLOCK_BYTES: Final = 2 + 8
ANSWERS: Final = {FrameType.RESPONSE, FrameType.COOKIE, FrameType.REPLY}
ANSWERED: Final = {FrameType.INIT, FrameType.PROBE, FrameType.CLOSE}
COOKIE_LIFETIME: Final = 240 * SECOND


class Reception:
    """The side before the datagram, to be compared with the side after it."""

    def __init__(
        self, side: Side, data: bytes, source: Address, now: int, *, authentic: bool
    ) -> None:
        self._side = side
        self._data = data
        self._source = source
        self._now = now
        self._carried = side.listener.in_clear
        # What somebody sealed is nearly always taken, and then there is nothing to compare.
        self._before = None if authentic else _frozen_side(side, now)
        self._counted = side.endpoint.counters.total()
        routes = side.context.routes
        self._type = data[1] if len(data) > 1 else 0
        named = data[4:12]
        self._session = routes.sessions.get(named) if self._type in TRANSPORT else None
        if self._type in (FrameType.RESPONSE, FrameType.COOKIE):
            self._session = routes.pending.get(named)
        self._embryo = routes.embryos.get(named) if self._session is None else None
        self._sessions = side.sessions
        self._embryos = [e for e in routes.embryos.values() if not _expired(e, now)]
        self._connecting = [s for s in self._sessions if s.state is State.CONNECTING]
        self._heirs = None if self._embryo is None else self._heirs_of(self._embryo)
        self._note_session()

    def _note_session(self) -> None:
        """Keep what tells why the session may send."""
        session = self._session
        if session is None:
            return
        self._closing = session.state is State.CLOSED
        self._worn_out = _worn_out(session)
        self._validation = session._path.validation
        self._version = session._terms.control.version
        self._handshakes = session._measured.handshakes
        self._attempt = session._initiation.attempt
        self._changes_key = session._new_credential is not None and session._terms.control.waits

    _closing = False
    _worn_out = False
    _validation: Any = None
    _version = 0
    _handshakes = 0
    _attempt: Any = None
    _changes_key = False

    @property
    def refused(self) -> str:
        """Name the reason for which the datagram was refused, "" if it was accepted."""
        refusal = self._side.endpoint.refusal
        return "" if refusal is None else refusal.value

    def check(self, consumed: bool, frame: Frame | None, sent: list[Sent]) -> None:
        """Spec: KA-2-3, KA-2-4, KA-2-5."""
        if self._before is not None:
            assert not consumed, "KA-2-3: took what nobody sealed"
            after = _frozen_side(self._side, self._now)
            changed = [name for name in after if after[name] != self._before[name]]
            assert not changed, f"KA-2-4: what did not verify changed {changed}"
        refused = self.refused
        counted = self._side.endpoint.counters.total() - self._counted
        assert counted == bool(refused), f"KA-12-1: {refused} is counted {counted} times"
        if not consumed:
            assert not sent, "KA-2-4: sent on account of what did not verify"
        elif refused == DropReason.COOKIE_SENT.value:
            self._check_cookie_sent(sent)
        elif refused:
            assert not sent, "KA-2-5: answered what it refused"
            self._check_refusal(refused)
        else:
            self._check_accepted(frame, sent)

    # What was refused.

    def _check_cookie_sent(self, sent: list[Sent]) -> None:
        """Spec: KA-4.5-2."""
        side, data = self._side, self._data
        few = len(self._embryos) < side.context.config.cookie_threshold
        assert not few, f"KA-4.5-2: asks for a cookie at {len(self._embryos)} embryos"
        kept = list(side.context.routes.embryos.values())
        assert kept == self._embryos, "KA-4.5-2: keeps something for a COOKIE"
        assert side.sessions == self._sessions, "KA-4.5-2: keeps something for a COOKIE"
        types = [one.type for one in sent]
        assert types == [FrameType.COOKIE], f"KA-4.5-2: sent {types}"
        self._check_answer(sent[0])
        credential: Any = side.context.key(data[12:28])
        cookie = open_cookie(credential.secret, data, sent[0].data)
        side.cookies.append((cookie, canonical_or_other(self._source), data[12:28], self._now))

    def _check_refusal(self, refused: str) -> None:
        """Spec: KA-4.6-1."""
        if self._type == FrameType.INIT and not self._carried:
            meets = bool(self._meeting(self._data[12:28]))
            assert meets or refused != DropReason.CROSSED.value, "KA-4.6-1: crossed by nothing"
            assert not meets or refused != DropReason.NOT_ACCEPTING.value, "KA-4.6-1: not answered"

    # What was accepted.

    def _check_accepted(self, frame: Frame | None, sent: list[Sent]) -> None:
        routes = self._side.context.routes
        if self._embryo is not None:
            self._session = routes.sessions.get(self._data[4:12])
            self._check_heir()
        if self._type == FrameType.INIT:
            self._check_embryo(routes._embryos_by_identifier[self._data])
        if self._type == FrameType.COOKIE:
            self._check_cookie_taken(sent)
        answers = [one for one in sent if one.type in ANSWERS]
        # One that has just used up its packet numbers may have had one left for the answer or not.
        ended = self._session is not None and _worn_out(self._session)
        due = {0, self._answers_due()} if ended else {self._answers_due()}
        assert len(answers) in due, f"KA-8.3-1: {len(answers)} answers"
        for answer in answers:
            self._check_answer(answer)
        self._check_probes([one for one in sent if one.type == FrameType.PROBE], frame)
        inits = [one for one in sent if one.type == FrameType.INIT]
        asked = self._type == FrameType.COOKIE or self._changes_key
        assert len(inits) <= asked, f"KA-4.5-5, KA-4.8-1: {len(inits)} INIT"
        closes = [one for one in sent if one.type == FrameType.CLOSE]
        assert len(closes) <= ended, f"KA-4.4-3: {len(closes)} CLOSE"
        self._check_addresses([one for one in sent if one not in answers])

    def _check_answer(self, answer: Sent) -> None:
        """Spec: KA-4.3-1, KA-4.5-2, KA-8.3-2, KA-8.3-3."""
        assert answer.address == self._source, f"KA-8.3-2: answered to {answer.address}"
        told = 0
        if answer.data[1:4:2] == CARRIED_RESPONSE:
            told = ADDRESS_SEEN_BYTES + CLOCK_BYTES
        most = len(self._data) + told
        assert len(answer.data) <= most, "KA-8.3-3, KA-4.3-1: an answer longer than its request"
        if answer.type != FrameType.REPLY:
            assert answer.data[4:12] == self._data[4:12], "KA-4.3-1: answers another INIT"

    def _answers_due(self) -> int:
        """Tell how many answers an accepted frame is to get. Spec: KA-4.4-3, KA-6.4-2."""
        session = self._session
        closed = session is not None and session.state is State.CLOSED
        if self._worn_out or (closed and self._type == FrameType.PROBE):
            # The answer may have taken the last packet number, and so have closed the session.
            return int(not self._worn_out and session is not None and _worn_out(session))
        if self._closing:
            return int(self._type == FrameType.CLOSE)
        return int(self._type in ANSWERED)

    def _check_probes(self, probes: list[Sent], frame: Frame | None) -> None:
        """Each probe has a cause of its own."""
        bodies = [one.frame.body.options for one in probes if one.frame is not None]
        challenges = [
            one.address
            for one, options in zip(probes, bodies, strict=True)
            if options.path_challenge is not None
        ]
        asks = [options for options in bodies if options.pad is not None]
        session = self._session
        path = None if session is None else session._path
        begins = path is not None and path.validation not in (None, self._validation)
        allowed = [path.address, path.validation.address] if begins else []
        assert len(set(challenges)) == len(challenges), "KA-9.3-1: two challenges to one address"
        assert set(challenges) <= set(allowed), f"KA-9.3-1: challenges to {challenges}"
        may_ask = session is not None and session.initiator and frame is not None
        assert len(asks) <= may_ask, f"KA-9.2-2: {len(asks)} probes ask for the own address"
        others = len(probes) - len(challenges) - len(asks)
        causes = self._causes(frame)
        assert others <= len(causes), f"{others} probes on account of {causes}"
        if "KA-8.2-2" in causes and session is not None and not _worn_out(session):
            assert others, "KA-8.2-2: RESPONSE is not followed by a probe"

    def _causes(self, frame: Frame | None) -> list[str]:
        """Tell why there may be a probe that is neither a challenge nor asks for the address."""
        session = self._session
        if session is None:
            return []
        renewed = session._measured.handshakes > self._handshakes
        changed = session._terms.control.version != self._version
        told = None if frame is None else frame.body.options
        causes = {
            "KA-8.2-2": self._type == FrameType.RESPONSE,
            "KA-8.6-1": session._terms.control.waits and (changed or renewed),
            "KA-8.10-6": told is not None and told.admin == 0,
        }
        return [cause for cause, applies in causes.items() if applies]

    def _check_addresses(self, unasked: list[Sent]) -> None:
        """Spec: KA-9.1-2."""
        homes = {session.address for session in self._side.known}
        paths = [session._path.validation for session in self._side.known]
        homes |= {validation.address for validation in paths if validation is not None}
        for one in unasked:
            assert one.address in homes, f"KA-9.1-2: sent to {one.address}, which is no session's"

    # Handshakes.

    def _check_embryo(self, embryo: Embryo) -> None:
        """Spec: KA-4.5-2, KA-4.5-3, KA-4.6-1."""
        side, data = self._side, self._data
        if self._carried:
            return
        if self._meeting(data[12:28]):
            lower = side.context.identity.epoch < embryo.payload.epoch
            assert lower, "KA-4.6-1: answers an INIT that it should drop"
        known = any(one.identifier == data for one in self._embryos)
        if known or len(self._embryos) < side.context.config.cookie_threshold:
            return
        place = canonical_or_other(self._source)
        given = [
            (cookie, source, key_id)
            for cookie, source, key_id, at in side.cookies
            if self._now - at <= COOKIE_LIFETIME
        ]
        assert (data[28:44], place, data[12:28]) in given, "KA-4.5-2: an embryo without its cookie"

    def _check_cookie_taken(self, sent: list[Sent]) -> None:
        """Spec: KA-4.5-5."""
        held = self._attempt.init[28:44]
        cookie = open_cookie(self._attempt.credential.secret, self._attempt.init, self._data)
        anew = [one.data[28:44] for one in sent]
        at_once = [cookie] if held == NO_COOKIE else []
        assert anew == at_once, f"KA-4.5-5: sent {anew}, not {at_once}"

    def _check_heir(self) -> None:
        """Spec: KA-4.3-5, KA-4.6-2, KA-4.6-3, KA-4.7-1."""
        after = self._side.sessions
        rule, heirs = self._heirs or ("", [])
        fresh = [session for session in after if session not in self._sessions]
        if not heirs:
            assert self._session is None or self._session in fresh, "KA-4.3-4: continued at will"
            return
        assert not fresh, f"{rule}: a second session"
        assert self._session is None or self._session in heirs, f"{rule}: another session went on"

    def _heirs_of(self, embryo: Embryo) -> tuple[str, list[Session]]:
        """Tell which sessions the first frame under an embryo's keys may go on with, and why."""
        payload, key_id = embryo.payload, embryo.credential.key_id
        old = self._side.context.routes.continued(payload.old_session_id)
        if old is not None and old.continuable and key_id in (old.key_id, old.announced_key):
            return "KA-4.3-5", [old]
        if meeting := self._meeting(key_id):
            return "KA-4.6-2", meeting
        same = [s for s in self._sessions if s.key_id == key_id and s._channel is not None]
        same = [s for s in same if s.peer_instance == payload.instance_id]
        crossed = [
            s
            for s in same
            if s.initiator
            and s.peer_epoch == payload.epoch
            and not s.confirmed_before(embryo.answered)
        ]
        if crossed:
            return "KA-4.6-3", crossed
        left = [s for s in same if s.continuable and s.peer_epoch != payload.epoch]
        longest = min((s.stats.rx_at for s in left), default=0)
        return "KA-4.7-1", [s for s in left if s.stats.rx_at == longest]

    def _meeting(self, key_id: bytes) -> list[Session]:
        """Give the sessions whose first handshake with the source is under way. KA-4.6-1."""
        place = canonical_or_other(self._source)
        there = [s for s in self._connecting if canonical_or_other(s.address) == place]
        return [s for s in there if s.key_id == key_id]


def _worn_out(session: Session) -> bool:
    """Tell whether a session may send nothing but CLOSE."""
    return session._channel is not None and session._channel.exhausted


def _expired(embryo: Embryo, now: int) -> bool:
    return embryo.answered <= now - EMBRYO_LIFETIME


def _frozen_side(side: Side, now: int) -> dict[str, Any]:
    """Leave out what may change without a verified tag: refusals, and what has expired."""
    context = side.context
    totals = side.endpoint.totals
    counted = [each.name for each in fields(totals) if each.name != "refused"]
    return {
        "sessions": frozen(side.sessions),
        "embryos": frozen([e for e in context.routes.embryos.values() if not _expired(e, now)]),
        "cookies": frozen(side.endpoint._cookies),
        "events": side.heard + len(context.outbox.events),
        "next_timer": side.endpoint.next_timer(),
        "totals": [frozen(getattr(totals, name)) for name in counted],
        "entropy": context.rng.getstate(),
        "secrets": side.drawn_entropy(),
    }
