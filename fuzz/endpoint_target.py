"""Two linked endpoints under any script: a hostile network, a malicious peer, an odd application.

Invariants, which invariants.py checks after every verb:
- `receive_datagram` and `handle_timer` never raise;
- after `handle_timer` the next timer is later than now, and every deadline is set later than now;
- a datagram without a valid tag is left to the application, changes nothing and draws nothing;
- one that is refused after its tag verified draws nothing;
- an answer goes to the source of its request and is not longer, and there is one at most;
- whatever else is sent goes to the address of a session, no faster than budget and cadence allow;
- sessions, embryos and waiting events stay within the configured bounds;
- a state changes by the transition table only, and the events tell each change once, in order;
- a session that is not over always waits for the timer that its state needs;
- an endpoint without sessions sends nothing.
Inside QUIC the same holds, with what KA-14.1-4 asks for in place of a tag, and a RESPONSE may be
longer than its INIT by the address it tells.

The network can lose, delay, repeat, reorder, reflect and damage what was sent, and say things of
its own. The peer can seal any body and answer any handshake. The application can call any verb.
"""

from collections.abc import Callable
from typing import Any, Final

from fuzz import peer
from fuzz.invariants import Side, check_rate
from fuzz.pair import STRANGERS, Log, Pair
from fuzz.script import Reader, Step, Verb
from kaudp import CloseReason, Session, SessionStateError
from kaudp.core.channel import PACKET_NUMBER_LIMIT

# Longer scripts find nothing that shorter ones do not, and cost time.
MAX_LINES: Final = 60


def endpoint(data: bytes, log: Log | None = None) -> None:
    """Play the script that `data` is; `log` takes one line for each thing that happens."""
    script = Reader(data)
    pair = Pair(script.byte(), log)
    pair.connect(pair.client)
    for line in script.lines(MAX_LINES):
        if log is not None:
            log(str(line))
        arguments = dict(line.arguments)
        if "side" in arguments:
            arguments["side"] = pair.side(arguments["side"])
        _STEPS[line.step](pair, **arguments)
    for side in pair.sides:
        side.deaf = False
        pair.tick(side)
        check_rate(side)


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


# What a malicious peer does.


def _seal(pair: Pair, side: Side, source: int, **frame: Any) -> None:
    _receive_if_made(pair, side, source, peer.sealed_frame(pair, side, **frame))


def _tell(
    pair: Pair, side: Side, source: int, channel: int, type: int, ahead: int, **told: Any
) -> None:
    plaintext = peer.plausible_body(pair, side, channel, told)
    made = peer.sealed_frame(
        pair, side, channel=channel, type=type, flags=0, ahead=ahead, plaintext=plaintext
    )
    _receive_if_made(pair, side, source, made)


def _init(pair: Pair, side: Side, source: int, **said: Any) -> None:
    pair.receive(side, peer.init(pair, side, **said), pair.source(side, source))


def _response(pair: Pair, side: Side, **said: Any) -> None:
    _receive_if_made(pair, side, 0, peer.response(pair, side, **said))


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
        pair.act(side, lambda _: _VERBS[chosen](target, duration, pair.now))


def _pause(session: Session, duration: int, now: int) -> None:
    try:
        session.pause(duration, now)
    except SessionStateError:
        assert session.state.name in ("CONNECTING", "CLOSED")


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
}

_VERBS: Final[dict[Verb, Callable[[Session, int, int], object]]] = {
    Verb.CLOSE: lambda session, _, now: session.close(now),
    Verb.PAUSE: _pause,
    Verb.RESUME: lambda session, _, now: _pause(session, 0, now),
    Verb.REDIRECT: lambda session, _, now: session.redirect(STRANGERS[0], now),
    Verb.UNREACHABLE: lambda session, _, now: session.note_unreachable(now),
    Verb.RECEIVED: lambda session, _, now: session.note_application_received(now),
    Verb.SENT: lambda session, _, now: session.note_application_sent(now),
    Verb.WEAR_OUT: _wear_out,
}
