"""What one endpoint has done so far, as far as the limits of the specification are sums over time.

Spec: KA-7.4-4, KA-8.7-2, KA-8.9-2, KA-8.10-4, KA-9.1-2, KA-9.1-3, section 9.3.
"""

from collections import Counter
from typing import Any, Final

from fuzz.listener import Frame, Listener, Sent
from kaudp import Session, State
from kaudp.core.paths import Address
from kaudp.core.timers import Timer
from kaudp.units import SECOND, milliseconds
from kaudp.wire.codec import NO_OPTIONS
from kaudp.wire.grammar import FrameType

AMPLIFICATION: Final = 3
PATH_TRIES: Final = 3
PAUSE_WINDOW: Final = 3600 * SECOND
ADMIN_WINDOW: Final = 86_400 * SECOND
SLOW_DOWN_SPACING: Final = 60 * SECOND
SLOW_DOWN_BURST: Final = 128
SLOW_DOWN_REFILL: Final = 4
LEAST_BUDGET: Final = 3
MOST_BUDGET: Final = 64


class Account:
    """What one session has done."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.drawn: list[int] = []
        self.burst = LEAST_BUDGET
        self.least_interval = session._liveness.judged_interval
        self.channel = session._channel
        self.address = session.address
        self.validation: Any = None
        self.validated_from = 0
        self.not_before: int | None = None
        self.paused_until = 0
        self.pauses: list[tuple[int, int]] = []
        self.down_since: int | None = None
        self.down_until = 0
        self.downs: list[tuple[int, int]] = []
        self.asked_at: int | None = None
        self.greatest_interval = 0


class Ledger:
    """The accounts of an endpoint's sessions, and of the addresses it speaks with."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._accounts: dict[Session, Account] = {}
        self._allowed: Counter[Address] = Counter()
        self._homes: set[Address] = set()
        self._challenged: dict[bytes, Address] = {}
        self._proofs: list[tuple[int, bytes, Address]] = []
        self._steady: dict[bytes, list[int]] = {}
        self.redirected = False

    def note_received(self, data: bytes, source: Address, frame: Frame | None, now: int) -> None:
        """Take note of a datagram that was consumed: of its bytes, and of what it proves."""
        self._allowed[source] += AMPLIFICATION * len(data)
        if frame is None:
            return
        steady = frame.header.type == FrameType.PROBE and frame.body.options is NO_OPTIONS
        if steady and frame.body.state in (State.UP, State.HALF_OPEN):
            self._steady.setdefault(data[4:12], []).append(now)
        response = frame.body.options.path_response
        if response in self._challenged and data[1] == FrameType.REPLY:
            self._proofs.append((now, data[4:12], self._challenged[response]))

    def note_sent(self, sent: list[Sent], sessions: list[Session], now: int) -> None:
        """Take note of what a verb sent: each datagram is paid for. Spec: KA-9.1-3."""
        for session in sessions:
            self._accounts.setdefault(session, Account(session))
        self._homes |= {session.address for session in sessions}
        for one in sent:
            if one.address not in self._homes and not self._listener.in_clear:
                self._allowed[one.address] -= len(one.data)
                assert self._allowed[one.address] >= 0, f"KA-9.1-3: {one.address} gets too much"
            if one.type == FrameType.PROBE:
                self._note_probe(one, sessions, now)

    def _note_probe(self, one: Sent, sessions: list[Session], now: int) -> None:
        assert one.frame is not None
        options = one.frame.body.options
        if options.path_challenge is None and options.pad is None:
            return
        challenge = options.path_challenge
        if challenge is not None:
            assert challenge not in self._challenged, "KA-9.3-1: a challenge sent twice"
            self._challenged[challenge] = one.address
        named = [s for s in sessions if s._channel and s._channel.remote_id == one.data[4:12]]
        if len(named) == 1:  # a malicious initiator can choose one id for several
            self._accounts[named[0]].drawn.append(now)

    def check(self, sessions: list[Session], now: int) -> None:
        """Check all accounts, after every verb."""
        for session in sessions:
            account = self._accounts.setdefault(session, Account(session))
            self._check_path(account, now)
            self._check_push_back(account, now)
            _check_pause(account, now)
            _check_admin(account, now)
            agreement = session._terms.agreement
            account.burst = max(account.burst, min(MOST_BUDGET, agreement.suspicion_burst))
            account.least_interval = min(account.least_interval, session._liveness.judged_interval)
        self.redirected = False

    def check_budget(self) -> None:
        """Check that challenges and hastened probes came out of one budget. Spec: KA-7.4-4."""
        for account in self._accounts.values():
            step = account.least_interval // 2
            for at, first in enumerate(account.drawn):
                for count, last in enumerate(account.drawn[at:], 1):
                    most = account.burst + (last - first) // step + 1
                    assert count <= most, f"KA-7.4-4: {count} probes drawn in {last - first} ns"

    def _check_path(self, account: Account, now: int) -> None:
        """Spec: KA-9.1-2, KA-9.3-1, KA-9.3-3, KA-9.3-4, KA-9.3-5."""
        session = account.session
        path, validation = session._path, session._path.validation
        if session._channel is not account.channel or self.redirected or self._listener.in_clear:
            account.not_before = None
        elif session.address != account.address:
            self._check_move(account)
            account.not_before = None
        elif account.validation is not None and validation is not account.validation:
            account.not_before = now + session._liveness.interval
        if validation is not None and validation is not account.validation:
            waited = account.not_before is None or now >= account.not_before
            assert waited, "KA-9.3-5: a validation too soon after another"
            assert validation.address != path.address, "KA-9.3-1: validates its own address"
            account.validated_from = now
        if validation is not None:
            assert validation.tries <= PATH_TRIES, f"KA-9.3-4: {validation.tries} tries"
        account.channel, account.address = session._channel, session.address
        account.validation = validation

    def _check_push_back(self, account: Account, now: int) -> None:
        """Spec: KA-8.9-2."""
        session, asked_at = account.session, account.session._push_back._asked_at
        interval = min(SECOND, session._liveness.interval)
        account.greatest_interval = max(account.greatest_interval, interval)
        if asked_at == account.asked_at:
            return
        last = account.asked_at
        assert last is None or now - last >= SLOW_DOWN_SPACING, "KA-8.9-2: twice in a minute"
        account.asked_at = asked_at
        assert session._channel is not None
        probes = self._steady.get(session._channel.local_id, [])
        refill = account.greatest_interval // SLOW_DOWN_REFILL
        most = [SLOW_DOWN_BURST + (now - first) // refill for first in probes]
        emptied = any(len(probes) - at > most[at] for at in range(len(probes)))
        assert emptied or last is not None, f"KA-8.9-2: asks {session} to slow down"

    def _check_move(self, account: Account) -> None:
        session = account.session
        before = account.validation
        assert before is not None, f"KA-9.1-2: {session} moved without a validation"
        assert before.address == session.address, f"KA-9.1-2: {session} moved elsewhere"
        assert session._channel is not None
        answered = {
            address
            for at, name, address in self._proofs
            if at >= account.validated_from and name == session._channel.local_id
        }
        assert session.address in answered, f"KA-9.3-4: {session} moved without an answer"
        assert account.address not in answered, f"KA-9.3-3: {session} left an address that answers"


def _check_pause(account: Account, now: int) -> None:
    """Spec: KA-8.7-2."""
    config, until = account.session._context.config, account.session._terms.pause._peer_until
    if until > max(now, account.paused_until):
        longest = milliseconds(config.max_peer_pause_ms)
        assert until - now <= longest, f"KA-8.7-2: a pause of {until - now} ns"
        granted = until - max(now, account.paused_until)
        account.pauses = [one for one in account.pauses if one[0] > now - PAUSE_WINDOW]
        account.pauses.append((now, granted))
        total = sum(granted for _, granted in account.pauses)
        most = milliseconds(config.max_peer_pause_sum_ms)
        assert total <= most, f"KA-8.7-2: pauses of {total} ns within an hour"
    account.paused_until = until


def _check_admin(account: Account, now: int) -> None:
    """Spec: KA-8.10-4."""
    session, since = account.session, account.session._terms.admin._peer_since
    if account.down_since not in (None, since):
        granted = min(now, account.down_until) - account.down_since
        account.downs = [one for one in account.downs if one[0] > now - ADMIN_WINDOW]
        account.downs.append((now, granted))
    account.down_since = since
    if since is None or session.state is State.CLOSED:
        return
    end = session.timers.armed(Timer.ADMIN_END)
    assert end is not None, "KA-8.10-4: honours ADMIN for ever"
    before = sum(granted for at, granted in account.downs if at > since - ADMIN_WINDOW)
    most = milliseconds(session._context.config.max_peer_admin_down_ms)
    total = end - since + before
    assert total <= most, f"KA-8.10-4: taken down for {total} ns within a day"
    account.down_until = end
