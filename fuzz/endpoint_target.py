"""Two linked endpoints under any script: a hostile network, a malicious peer, an odd application.

Invariants, which invariants.py checks after every verb:
- `receive_datagram` and `handle_timer` never raise;
- after `handle_timer` the next timer is later than now, and every deadline is set later than now;
- a datagram without a valid tag is left to the application, changes nothing and draws nothing;
- one that is refused after its tag verified draws nothing;
- an answer goes to the source of its request and is not longer, and there is one at most;
- each other frame that a datagram draws has a cause of its own that the specification names;
- whatever else is sent goes to the address of a session, no faster than budget and cadence allow;
- an address that is not validated gets three times the bytes that came from there at most;
- a session moves only to an address that has answered a challenge, and leaves none that did;
- a cookie is asked for from the threshold on and not before, nothing is kept for it, and only the
  one that was given to the same source lately makes an embryo;
- traffic keys change phase exactly when they are due, and the responder follows at once;
- the peer's pauses and its ADMIN are honoured within their limits; SLOW_DOWN is sent for a flood
  only;
- the first frame under new keys goes on with the session that sections 4.3, 4.6 and 4.7 name, and
  makes a new one only where they name none; two that meet undisturbed have one session each;
- two sides that speak with each other probe no more slowly than is expected, and compute the same T
  when both have settled;
- sessions, embryos and waiting events stay within the configured bounds;
- a state changes by the transition table only, and the events tell each change once, in order;
- a session that is not over always waits for the timer that its state needs, and judges again as
  soon as nothing forbids it;
- an endpoint without sessions sends nothing.
Inside QUIC the same holds, with what KA-14.1-4 asks for in place of a tag, and a RESPONSE may be
longer than its INIT by the address and the clock it tells.

The network can lose, delay, repeat, reorder, reflect, redirect and damage what was sent, and say
things of its own. The peer can seal any body in any phase, answer any handshake and challenge, ask
for cookies, and flood. Either end can restart. The application can call any verb.
"""

from collections.abc import Callable
from typing import Any, Final

from fuzz import peer
from fuzz.invariants import Side, check_rate
from fuzz.pair import KEYS, MEETING, STRANGERS, Log, Pair
from fuzz.script import ARGUMENTS, Line, Reader, Step, Verb
from kaudp import CloseReason, ConfigError, KeyFormatError, Session, SessionStateError, State
from kaudp.core.channel import PACKET_NUMBER_LIMIT
from kaudp.units import MILLISECOND

# Longer scripts find nothing that shorter ones do not, and cost time.
MAX_LINES: Final = 60
MAKES_SESSIONS: Final = {Verb.CONNECT, Verb.CLOSE, Verb.CLOSE_ALL, Verb.REDIRECT, Verb.ABANDON}
NOT_LIVE: Final = (State.CONNECTING, State.CLOSED)


def endpoint(data: bytes, log: Log | None = None) -> None:
    """Play the script that `data` is; `log` takes one line for each thing that happens."""
    script = Reader(data)
    setting = script.setting()
    pair = Pair(setting, log)
    pair.connect(pair.client)
    if setting & MEETING:
        pair.connect(pair.server)
    for line in script.lines(MAX_LINES):
        if log is not None:
            log(str(line))
        arguments = dict(line.arguments)
        if "side" in arguments:
            arguments["side"] = pair.side(arguments["side"])
        pair.undisturbed &= _leaves_alone(line)
        _STEPS[line.step](pair, **arguments)
        pair.check_agreement()
    for side in pair.sides:
        side.deaf = False
        pair.tick(side)
        check_rate(side)


def _leaves_alone(line: Line) -> bool:
    """Tell whether a step makes neither another handshake nor another session."""
    if line.step is Step.APPLICATION:
        return Verb(line.arguments["verb"] % len(Verb)) not in MAKES_SESSIONS
    return line.step in (Step.RUN, Step.DEAF)


# What the network does.


def _deliver(pair: Pair, side: Side, back: int, source: int) -> None:
    pair.receive(side, _sent_before(pair, back), pair.source(side, source))


def _damage(pair: Pair, side: Side, back: int, source: int, how: int, at: int) -> None:
    data = _damaged(_sent_before(pair, back), how, at)
    pair.receive(side, data, pair.source(side, source))


def _stranger(pair: Pair, side: Side, source: int, data: bytes) -> None:
    pair.receive(side, data, pair.source(side, source))


def _sent_before(pair: Pair, back: int) -> bytes:
    """Choose among what either side has sent, the newest first."""
    return pair.history[-1 - back % len(pair.history)]


def _damaged(data: bytes, how: int, at: int) -> bytes:
    at %= len(data)
    if how % 4 == 0:
        return data[:at]
    if how % 4 == 1:
        return data + data[:at]
    if how % 4 == 2:
        return data[:at] + data[at + 1 :]
    return data[:at] + bytes([data[at] ^ 1 << (how // 4 % 8)]) + data[at + 1 :]


def _move(pair: Pair, side: Side, to: int, cut: int) -> None:
    """Let a side's frames come from elsewhere: a NAT has rebound, or somebody forwards them."""
    if cut % 2:
        side.cut.add(side.address)
    side.address = (side.home, *STRANGERS)[to % (1 + len(STRANGERS))]
    side.cut.discard(side.address)


def _restart(pair: Pair, side: Side, how: int) -> None:
    """Start anew: as another instance at bit 0, connecting at once at bit 1."""
    pair.start(side, identity=how % 2)
    if how // 2 % 2:
        pair.connect(side)


# What a malicious peer does.


def _seal(pair: Pair, side: Side, source: int, **frame: Any) -> None:
    _receive_if_made(pair, side, source, peer.sealed_frame(pair, side, **frame))


def _tell(
    pair: Pair,
    side: Side,
    source: int,
    channel: int,
    type: int,
    ahead: int,
    phase: int,
    **told: Any,
) -> None:
    plaintext = peer.plausible_body(pair, side, channel, told)
    made = peer.sealed_frame(
        pair,
        side,
        channel=channel,
        type=type,
        flags=0,
        ahead=ahead,
        phase=phase,
        plaintext=plaintext,
    )
    _receive_if_made(pair, side, source, made)


def _flood(pair: Pair, side: Side, channel: int, state: int, times: int) -> None:
    told = {name: b"" if kind == "bytes" else 0 for name, kind in ARGUMENTS[Step.TELL].items()}
    told |= {"channel": channel, "state": state}
    for _ in range(pair.floods(times)):
        _tell(pair, **told | {"side": side})


def _init(pair: Pair, side: Side, source: int, **said: Any) -> None:
    pair.receive(side, peer.init(pair, side, **said), pair.source(side, source))


def _response(pair: Pair, side: Side, **said: Any) -> None:
    _receive_if_made(pair, side, 0, peer.response(pair, side, **said))


def _cookie(pair: Pair, side: Side, source: int, **said: Any) -> None:
    _receive_if_made(pair, side, source, peer.cookie(pair, side, **said))


def _receive_if_made(pair: Pair, side: Side, source: int, made: bytes | None) -> None:
    if made is not None:
        pair.receive(side, made, pair.source(side, source))


# What the application does.


def _application(pair: Pair, side: Side, verb: int, session: int, duration: int) -> None:
    chosen = Verb(verb % len(Verb))
    if chosen is Verb.CONNECT:
        pair.connect(side, session)
    elif chosen is Verb.CLOSE_ALL:
        pair.act(side, lambda end: end.close(pair.now))
    elif chosen is Verb.ABANDON:
        _abandon(pair, side, by_peer=bool(session % 2))
    elif side.known:
        target = side.known[session % len(side.known)]
        side.ledger.redirected = chosen is Verb.REDIRECT
        pair.act(side, lambda _: _VERBS[chosen](target, duration, pair.now))


def _live_only(verb: Callable[[Session, int, int], object]) -> Callable[[Session, int, int], None]:
    """Call a verb that is refused before the first UP and after the end, and else never."""

    def call(session: Session, duration: int, now: int) -> None:
        refused = session.state in NOT_LIVE
        try:
            verb(session, duration, now)
        except SessionStateError:
            assert refused, f"refused in {session.state!r}"

    return call


def _change_intervals(session: Session, duration: int, now: int) -> None:
    changed = "interval_ms" if session.initiator else "min_receive_interval_ms"
    before = session._terms._config
    try:
        session.change_intervals(now, **{changed: duration // MILLISECOND})
    except ConfigError:
        assert session._terms._config is before, "a change that is refused changes something"


def _slow_down(session: Session, duration: int, now: int) -> None:
    if session.initiator:
        return
    before = session._terms._config
    try:
        session.slow_down(duration // MILLISECOND, now)
    except ConfigError:
        assert session._terms._config is before, "a change that is refused changes something"


def _change_key(session: Session, _: int, now: int) -> None:
    other = next(key.key_id for key in KEYS if key.key_id != session.key_id)
    if session.initiator:
        try:
            session.change_key(other, now)
        except KeyFormatError:
            assert session.key_id == b"", "KA-4.8-1: refuses a key that it holds"


def _abandon(pair: Pair, side: Side, *, by_peer: bool) -> None:
    """Spec: KA-14.7-1."""
    if pair.carried is None:
        return
    reason = CloseReason.CARRIER_IDLE
    pair.act(side, lambda end: end.abandon(pair.now, reason, by_peer=by_peer))
    assert side.endpoint.quiet, "KA-14.7-1: a session outlives its connection"


def _wear_out(session: Session, duration: int, now: int) -> None:
    """Leap to the end of the packet numbers, which no script is long enough to reach."""
    if session._channel is not None:
        session._channel.last_sent = PACKET_NUMBER_LIMIT - 2


def _deaf(pair: Pair, side: Side) -> None:
    side.deaf = not side.deaf
    side.read_events()


_STEPS: Final[dict[Step, Callable[..., None]]] = {
    Step.RUN: Pair.run,
    Step.STALL: Pair.stall,
    Step.DELIVER: _deliver,
    Step.DAMAGE: _damage,
    Step.STRANGER: _stranger,
    Step.SEAL: _seal,
    Step.TELL: _tell,
    Step.INIT: _init,
    Step.RESPONSE: _response,
    Step.APPLICATION: _application,
    Step.DEAF: _deaf,
    Step.COOKIE: _cookie,
    Step.MOVE: _move,
    Step.RESTART: _restart,
    Step.FLOOD: _flood,
}

_VERBS: Final[dict[Verb, Callable[[Session, int, int], object]]] = {
    Verb.CLOSE: lambda session, _, now: session.close(now),
    Verb.PAUSE: _live_only(lambda session, duration, now: session.pause(duration, now)),
    Verb.RESUME: _live_only(lambda session, _, now: session.pause(0, now)),
    Verb.REDIRECT: lambda session, _, now: session.redirect(STRANGERS[0], now),
    Verb.UNREACHABLE: lambda session, _, now: session.note_unreachable(now),
    Verb.RECEIVED: lambda session, _, now: session.note_application_received(now),
    Verb.SENT: lambda session, _, now: session.note_application_sent(now),
    Verb.WEAR_OUT: _wear_out,
    Verb.CHANGE_INTERVALS: _live_only(_change_intervals),
    Verb.SLOW_DOWN: _live_only(_slow_down),
    Verb.ADMIN_DOWN: _live_only(lambda session, _, now: session.admin_down(now)),
    Verb.ADMIN_UP: _live_only(lambda session, _, now: session.admin_up(now)),
    Verb.CHANGE_KEY: _live_only(_change_key),
}
