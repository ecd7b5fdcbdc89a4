"""Section 2: nothing is reachable without a tag: every frame, every state, every single bit."""

from collections.abc import Callable, Mapping
from enum import Enum
from random import Random
from types import MethodType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaudp.config import Config
from kaudp.core.endpoint import Endpoint
from kaudp.errors import DropReason
from kaudp.events import State
from kaudp.sim import Node
from kaudp.wire.grammar import FrameType
from kaudp.wire.keys import PresharedKey
from tests.worlds import KEY, MS, Pair, S, forge, of_type

OTHER = PresharedKey(bytes(range(32, 64)))
SOURCE = ("198.51.100.9", 9)
# What may change: the counters, and a key that was derived beforehand from one that is held.
COUNTED = frozenset({"counters", "refused", "refusal", "_following"})
UNVERIFIED = {
    *(DropReason.BAD_TAG, DropReason.NOT_KAUDP),
    *(DropReason.UNKNOWN_KEY, DropReason.UNKNOWN_SESSION),
}


class Moment(NamedTuple):
    """A frame that is about to be received, and by whom."""

    pair: Pair
    node: Node
    data: bytes
    source: Any


def frozen(value: Any, seen: dict[int, int]) -> Any:
    """Give all that hangs on a value in a form that can be compared."""
    if value is None or isinstance(value, int | float | str | bytes | Enum):
        return value
    if isinstance(value, Random):
        return value.getstate()
    if isinstance(value, MethodType):
        return frozen(value.__self__, seen)
    if id(value) in seen:
        return ("again", seen[id(value)])
    seen[id(value)] = len(seen)
    if isinstance(value, Mapping):
        return [(frozen(key, seen), frozen(item, seen)) for key, item in value.items()]
    if hasattr(value, "__iter__"):
        return [frozen(item, seen) for item in value]
    if not type(value).__module__.startswith("kaudp."):
        return id(value)
    names = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    names += list(getattr(value, "__dict__", ()))
    return [(name, frozen(getattr(value, name), seen)) for name in names if name not in COUNTED]


def everything(endpoint: Endpoint) -> Any:
    """Give all that an endpoint is: sessions, embryos, cookies, timers, queues, randomness."""
    return frozen(endpoint, {}), endpoint.next_timer()


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def newest(node: Node, *types: FrameType) -> bytes:
    return of_type(node, *types)[-1][1]


def init_to_a_stranger(bob: Config | None = None) -> Moment:
    pair = Pair(bob=bob)
    pair.cut()
    pair.run(MS)
    return Moment(pair, pair.bob, newest(pair.alice, FrameType.INIT), pair.alice.address)


def init_under_load() -> Moment:
    return init_to_a_stranger(Config.server(cookie_threshold=0))


def cookie_to_an_initiator(*, held: bool = False) -> Moment:
    moment = init_under_load()
    pair = moment.pair
    if held:
        pair.session._initiation._cookie = b"c" * 16
        pair.session._begin_attempt(pair.now)
        pair.run(MS)
    pair.world.inject(pair.bob, newest(pair.alice, FrameType.INIT), pair.alice.address)
    return Moment(pair, pair.alice, newest(pair.bob, FrameType.COOKIE), pair.bob.address)


def init_with_a_cookie() -> Moment:
    pair = cookie_to_an_initiator().pair
    cookie = newest(pair.bob, FrameType.COOKIE)
    pair.world.inject(pair.alice, cookie, pair.bob.address)
    return Moment(pair, pair.bob, newest(pair.alice, FrameType.INIT), pair.alice.address)


def init_that_was_answered() -> Moment:
    moment = init_to_a_stranger()
    moment.pair.world.inject(moment.node, moment.data, moment.source)
    return moment


def init_that_crosses() -> Moment:
    moment = init_to_a_stranger()
    moment.node.endpoint.connect(moment.source, moment.pair.now, key_id=KEY.key_id)
    moment.pair.run(MS)
    return moment


def response_to_an_initiator() -> Moment:
    pair = init_that_was_answered().pair
    return Moment(pair, pair.alice, newest(pair.bob, FrameType.RESPONSE), pair.bob.address)


def late_answer(kind: FrameType) -> Moment:
    early = response_to_an_initiator() if kind is FrameType.RESPONSE else cookie_to_an_initiator()
    early.pair.session.close(early.pair.now)
    return early


def first_probe_to_an_embryo() -> Moment:
    pair = response_to_an_initiator().pair
    pair.world.inject(pair.alice, newest(pair.bob, FrameType.RESPONSE), pair.bob.address)
    return Moment(pair, pair.bob, newest(pair.alice, FrameType.PROBE), pair.alice.address)


def first_probe_of_a_session_continued() -> Moment:
    pair = Pair().up()
    pair.session._begin_attempt(pair.now)
    pair.run(30 * MS)
    pair.cut()
    pair.world.inject(pair.alice, newest(pair.bob, FrameType.RESPONSE), pair.bob.address)
    return Moment(pair, pair.bob, newest(pair.alice, FrameType.PROBE), pair.alice.address)


def steady(kind: FrameType, seconds: int = 0) -> Moment:
    """Give a frame of phase `seconds` div 30 which nobody has received yet."""
    pair = Pair(alice=Config.wan(key_update_interval_ms=30_000)).up()
    pair.run(seconds * S)
    pair.cut()
    if kind is FrameType.REPLY:
        data = forge(pair.far, kind, pair.now)
        return Moment(pair, pair.alice, data, pair.bob.address)
    if kind is FrameType.CLOSE:
        pair.session.close(pair.now)
        pair.run(1)
        return Moment(pair, pair.bob, newest(pair.alice, kind), pair.alice.address)
    return Moment(pair, pair.bob, forge(pair.session, kind, pair.now), pair.alice.address)


def first_of_the_next_phase() -> Moment:
    pair = Pair(alice=Config.wan(key_update_interval_ms=30_000)).up()
    pair.run(25 * S)
    pair.cut()
    pair.run(7 * S)
    data = next(data for _, data, _ in of_type(pair.alice, FrameType.PROBE) if data[3])
    return Moment(pair, pair.bob, data, pair.alice.address)


def late_of_the_phase_before() -> Moment:
    pair = Pair(alice=Config.wan(key_update_interval_ms=30_000)).up()
    late = forge(pair.session, FrameType.PROBE, pair.now)
    pair.run(33 * S)
    assert pair.far.stats.key_phase == 1
    return Moment(pair, pair.bob, late, pair.alice.address)


def from_elsewhere() -> Moment:
    return steady(FrameType.PROBE)._replace(source=SOURCE)


def to_one_that_is_down() -> Moment:
    pair = Pair().up()
    data = forge(pair.far, FrameType.REPLY, pair.now)
    pair.cut()
    pair.run_to(State.DOWN)
    return Moment(pair, pair.alice, data, pair.bob.address)


def lingering() -> Moment:
    pair = Pair().up()
    data = forge(pair.session, FrameType.PROBE, pair.now)
    pair.session._begin_attempt(pair.now)
    pair.run(S)
    return Moment(pair, pair.bob, data, pair.alice.address)


MOMENTS: dict[str, Callable[[], Moment]] = {
    "INIT to a stranger": init_to_a_stranger,
    "INIT under load": init_under_load,
    "INIT with a cookie": init_with_a_cookie,
    "INIT that was answered": init_that_was_answered,
    "INIT that crosses": init_that_crosses,
    "COOKIE": cookie_to_an_initiator,
    "COOKIE to one who holds one": lambda: cookie_to_an_initiator(held=True),
    "COOKIE, late": lambda: late_answer(FrameType.COOKIE),
    "RESPONSE": response_to_an_initiator,
    "RESPONSE, late": lambda: late_answer(FrameType.RESPONSE),
    "PROBE, the first": first_probe_to_an_embryo,
    "PROBE, the first of a session continued": first_probe_of_a_session_continued,
    "PROBE": lambda: steady(FrameType.PROBE),
    "PROBE in phase 1": lambda: steady(FrameType.PROBE, 40),
    "PROBE in phase 2": lambda: steady(FrameType.PROBE, 70),
    "PROBE, the first of a phase": first_of_the_next_phase,
    "PROBE, late, of the phase before": late_of_the_phase_before,
    "PROBE from elsewhere": from_elsewhere,
    "PROBE under old keys": lingering,
    "REPLY": lambda: steady(FrameType.REPLY),
    "REPLY in phase 1": lambda: steady(FrameType.REPLY, 40),
    "REPLY to one that is DOWN": to_one_that_is_down,
    "CLOSE": lambda: steady(FrameType.CLOSE),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_a_flipped_bit_changes_nothing(name: str) -> None:
    """KA-2-3 KA-2-4: any one of all bits; the frame itself is taken afterwards as ever."""
    pair, node, data, source = MOMENTS[name]()
    endpoint = node.endpoint
    # What has expired by now may go with any datagram.
    assert not endpoint.receive_datagram(flipped(data, 8 * len(data) - 1), source, pair.now)
    before = everything(endpoint)
    endpoint.counters.clear()
    for bit in range(8 * len(data)):
        assert not endpoint.receive_datagram(flipped(data, bit), source, pair.now), bit
    assert everything(endpoint) == before
    assert set(endpoint.counters) <= UNVERIFIED
    assert endpoint.counters.total() == 8 * len(data)
    assert endpoint.receive_datagram(data, source, pair.now)
    assert set(endpoint.counters) - UNVERIFIED or everything(endpoint) != before


TAKEN = {name: MOMENTS[name]() for name in MOMENTS}


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(MOMENTS)),
    st.sampled_from(sorted(MOMENTS)),
    st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=4),
    st.integers(0, 512),
)
def test_a_frame_of_another_world_changes_nothing(
    where: str, what: str, changes: list[tuple[int, int]], size: int
) -> None:
    """KA-2-3 KA-2-4: another key's frames of every type, whole, cut short or changed at places."""
    pair, node, own, source = TAKEN[where]
    foreign = TAKEN[what].data
    if foreign[1] not in (FrameType.INIT, FrameType.RESPONSE, FrameType.COOKIE):
        foreign = foreign[:4] + own[4:12] + foreign[12:]
    damaged = bytearray(foreign)
    damaged[-1] ^= 1
    for place, value in changes:
        damaged[place % len(damaged)] = value
    damaged = damaged[: max(1, size)]
    if bytes(damaged) in (own, foreign):
        return
    assert not node.endpoint.receive_datagram(bytes(damaged), source, pair.now)
    before = everything(node.endpoint)
    assert not node.endpoint.receive_datagram(bytes(damaged), source, pair.now)
    assert everything(node.endpoint) == before
