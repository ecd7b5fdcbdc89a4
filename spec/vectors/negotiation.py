"""The probe interval T while parameters change (8.1, 8.8, 8.9)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from common import MICROSECOND, MILLISECOND, U32, Json, described

NEGOTIATION = (
    "agreed: `initiator` lists the values of `desired_interval_us` that may still hold, "
    "`responder` those of `min_receive_interval_us`, the newest last: one where it is settled, "
    "else the old ones too. `probe_interval` is the T (ns) by which a side then probes, "
    "`judged_interval` the T by which a responder judges whose `max_peer_interval` (ns) is given. "
    "settling: what happens at the side `role` of a session that began with `desired_interval_us` "
    "of the initiator and `min_receive_interval_us` of the responder, with both T after each step. "
    "`change`: it changes its own parameters, under `control_version`; `receive`: a frame comes in "
    "that has the highest packet number, confirms the own ones up to `highest_received`, and says "
    "`control_version`, `control_ack` and `options`; `send`: a frame goes out as `packet_number`."
)
LEAST = 10 * MILLISECOND
MINUTE_US = 60_000_000


def negotiation_tests() -> Iterator[Json]:
    yield from settled_intervals()
    yield from unsettled_intervals()
    yield from settlements_of_initiator()
    yield from settlements_of_responder()


def settled_intervals() -> Iterator[Json]:
    for name, comment, desired, allowed, most in (
        ("desired", "The initiator wants longer.", 10_000_000, 1_000_000, MINUTE_US),
        ("allowed", "The responder allows no shorter.", 300_000, 1_000_000, MINUTE_US),
        ("equal", "Both want the same.", 1_000_000, 1_000_000, MINUTE_US),
        ("allowed-zero", "The responder has no wish.", 50_000, 0, MINUTE_US),
        ("floor", "10 ms at least.", 1, 0, MINUTE_US),
        ("floor-below", "1 us below 10 ms.", 9_999, 9_998, MINUTE_US),
        ("floor-exact", "10 ms.", 10_000, 0, MINUTE_US),
        ("floor-above", "1 us above 10 ms.", 10_000, 10_001, MINUTE_US),
        ("odd", "A number of microseconds.", 1_234_567, 1_234_566, MINUTE_US),
        ("at-most", "Just what is judged by.", 50_000, MINUTE_US, MINUTE_US),
        ("above-most", "Judged by less, probed as wished.", 50_000, MINUTE_US + 1, MINUTE_US),
        ("greatest", "Judged by what this side waits at most.", 1, U32, 10_000_000),
        ("greatest-desired", "The peer wants to be patient.", U32, 0, 10_000_000),
    ):
        requirements = "8.1-1 8.1-2"
        yield agreed_test(name, requirements, comment, [desired], [allowed], most)


def unsettled_intervals() -> Iterator[Json]:
    most = MINUTE_US
    for name, comment, desired, allowed in (
        ("initiator-slower", "Probed as before, judged as after.", [1_000_000, 10_000_000], [0]),
        ("initiator-faster", "Probed as after, judged as before.", [10_000_000, 1_000_000], [0]),
        ("responder-slower", "The same for the other side.", [50_000], [100_000, 2_000_000]),
        ("responder-faster", "The same for the other side.", [50_000], [2_000_000, 100_000]),
        ("hidden-by-responder", "The greater one hides the change.", [100_000, 900_000], [10**6]),
        ("hidden-by-initiator", "The greater one hides the change.", [2 * 10**6], [10**6, 10]),
        ("hidden-in-part", "One end of the change is hidden.", [100_000, 3_000_000], [1_000_000]),
        ("hidden-by-floor", "Both are below 10 ms.", [5_000, 2_000], [0, 9_999]),
        ("floor-in-part", "From below 10 ms.", [2_000, 30_000], [0]),
        ("both-slower", "Both change at once.", [1_000_000, 2_000_000], [500_000, 4_000_000]),
        ("both-faster", "Both change at once.", [8_000_000, 2_000_000], [4_000_000, 1_000_000]),
        ("crossing", "One up, one down.", [1_000_000, 9_000_000], [9_000_000, 1_000_000]),
        ("crossing-unlike", "One up, one down.", [3_000_000, 7_000_000], [5_000_000, 1_000_000]),
        ("three", "Changed again before it was settled.", [10**7, 5 * 10**6, 2 * 10**6], [0]),
        ("there-and-back", "The same values as before.", [10**6, 4 * 10**6, 10**6], [0]),
    ):
        yield agreed_test(f"unsettled-{name}", "8.8-2", comment, desired, allowed, most)
    for name, comment, desired, allowed in (
        ("longest-above-most", "The longest is cut, the shortest is not.", [10**6, U32], [0]),
        ("both-above-most", "Both are beyond what this side waits.", [U32, MINUTE_US * 2], [0]),
        ("allowed-above-most", "The responder's wish is cut too.", [10**6], [U32, 10**6]),
    ):
        yield agreed_test(f"unsettled-{name}", "8.1-2 8.8-2", comment, desired, allowed, most)


def agreed_test(
    name: str, requirements: str, comment: str, desired: list[int], allowed: list[int], most_us: int
) -> Json:
    most = most_us * MICROSECOND
    return described(
        f"agreed-{name}",
        requirements,
        comment,
        kind="agreed",
        initiator=desired,
        responder=allowed,
        max_peer_interval=most,
        **intervals(desired, allowed, most),
    )


def intervals(desired: list[int], allowed: list[int], most: int) -> Json:
    every = [max(d * MICROSECOND, a * MICROSECOND, LEAST) for d, a in product(desired, allowed)]
    return {"probe_interval": min(every), "judged_interval": min(max(every), most)}


def settlements_of_initiator() -> Iterator[Json]:
    yield settling_test(
        "own-change",
        "8.8-2 8.8-3",
        "Settled when its version is confirmed, by whatever frame.",
        "initiator",
        (10_000_000, 0),
        [
            sends(1),
            changes(1, 2_000_000),
            sends(2),
            receives(1),
            sends(3),
            receives(3, control_ack=1),
        ],
    )
    yield settling_test(
        "own-change-slower",
        "8.8-2 8.8-3",
        "It goes on probing at the old pace until then.",
        "initiator",
        (2_000_000, 0),
        [sends(1), changes(1, 10_000_000), sends(2), receives(2, control_ack=1), sends(3)],
    )
    yield settling_test(
        "change-of-peer",
        "8.8-3 8.6-2",
        "Settled when the peer has the frame that first said its version.",
        "initiator",
        (1_000_000, 0),
        [
            sends(1),
            receives(1, 1, says=4_000_000),
            receives(1, 1),
            sends(2),
            receives(1, 1, says=4_000_000),
            sends(3),
            receives(2, 1),
        ],
    )
    yield settling_test(
        "change-of-peer-confirmed-by-a-later-frame",
        "8.8-3",
        "A later frame than the first that said it counts as well.",
        "initiator",
        (1_000_000, 4_000_000),
        [sends(1), receives(1, 1, says=10_000), sends(2), sends(3), receives(3, 1)],
    )
    yield settling_test(
        "slow-down-of-peer",
        "8.8-3 8.9-1",
        "SLOW_DOWN is such a change.",
        "initiator",
        (1_000_000, 500_000),
        [sends(1), receives(1, 7, slow_down=5_000_000), sends(2), receives(2, 7)],
    )
    yield settling_test(
        "slow-down-then-faster",
        "8.8-1 8.9-1",
        "PARAMETERS take the place of what SLOW_DOWN has told.",
        "initiator",
        (1_000_000, 500_000),
        [
            *(sends(1), receives(1, 7, slow_down=5_000_000), sends(2), receives(2, 7)),
            *(receives(2, 8, says=500_000), sends(3), receives(3, 8)),
        ],
    )
    yield settling_test(
        "both-change",
        "8.8-2 8.8-3",
        "The two changes settle one by one.",
        "initiator",
        (1_000_000, 1_000_000),
        [
            *(sends(1), changes(1, 2_000_000), receives(1, 1, says=8_000_000), sends(2)),
            *(receives(1, 1, control_ack=1, says=8_000_000), receives(2, 1, control_ack=1)),
        ],
    )
    yield settling_test(
        "changed-twice",
        "8.8-2 8.8-3",
        "The first change was confirmed under no version: its values hold until the second is.",
        "initiator",
        (10_000_000, 0),
        [
            *(sends(1), changes(1, 5_000_000), sends(2), changes(2, 2_000_000), sends(3)),
            receives(3, control_ack=2),
        ],
    )
    yield settling_test(
        "own-change-over-the-wrap",
        "8.6-1 8.8-3",
        "255 is followed by 1.",
        "initiator",
        (1_000_000, 0),
        [
            *(sends(1), changes(255, 2_000_000), sends(2), receives(2, control_ack=255)),
            *(changes(1, 3_000_000), sends(3), receives(2, control_ack=255)),
            receives(3, control_ack=1),
        ],
    )
    yield settling_test(
        "what-changes-no-interval",
        "8.8-1 8.9-1",
        "What an initiator allows in receiving is not part of T, nor what a responder desires.",
        "initiator",
        (1_000_000, 0),
        [
            *(sends(1), changes(1, 1_000_000, 9_000_000), sends(2), receives(2, control_ack=1)),
            *(receives(2, 1, 1, desires=9_000_000), sends(3), receives(3, 1, 1)),
        ],
    )


def settlements_of_responder() -> Iterator[Json]:
    yield settling_test(
        "responder-own-change",
        "8.8-2 8.8-3",
        "Judges by the longer until its version is confirmed.",
        "responder",
        (100_000, 0),
        [changes(1, 100_000, 3_000_000), sends(1), receives(1), receives(1, control_ack=1)],
    )
    yield settling_test(
        "responder-change-of-peer",
        "8.8-3",
        "It sends of itself little: the REPLY that first said the version settles it as well.",
        "responder",
        (10_000_000, 0),
        [receives(0, 1, desires=1_000_000), sends(1), receives(0, 1), receives(1, 1)],
    )
    yield settling_test(
        "responder-slow-down-of-initiator",
        "8.9-1",
        "What the initiator is willing to receive is not part of T.",
        "responder",
        (100_000, 0),
        [receives(0, 1, slow_down=9_000_000), sends(1), receives(1, 1)],
    )
    yield settling_test(
        "responder-of-limited-patience",
        "8.1-2 8.8-2",
        "Judges by what it waits at most.",
        "responder",
        (1_000_000, 0),
        [receives(0, 1, desires=U32), sends(1), receives(1, 1)],
    )


PARAMETERS = {
    "desired_interval_us": 1_000_000,
    "min_receive_interval_us": 0,
    "suspicion_interval_us": 100_000,
    "suspicion_burst": 16,
    "features": 0,
}


def changes(version: int, desired: int, allowed: int = 0) -> Json:
    said = {"desired_interval_us": desired, "min_receive_interval_us": allowed}
    return {"event": "change", "control_version": version, "parameters": PARAMETERS | said}


def sends(packet_number: int) -> Json:
    return {"event": "send", "packet_number": packet_number}


def receives(
    highest_received: int,
    control_version: int = 0,
    control_ack: int = 0,
    *,
    desires: int | None = None,
    says: int | None = None,
    slow_down: int | None = None,
) -> Json:
    """`says` is a responder's min_receive_interval_us, `desires` a desired_interval_us."""
    options: list[Json] = []
    if desires is not None:
        value = PARAMETERS | {"desired_interval_us": desires}
        options.append({"type": 0x02, "name": "PARAMETERS", "value": value})
    if says is not None:
        value = PARAMETERS | {"min_receive_interval_us": says}
        options.append({"type": 0x02, "name": "PARAMETERS", "value": value})
    if slow_down is not None:
        value = {"min_receive_interval_us": slow_down}
        options.append({"type": 0x04, "name": "SLOW_DOWN", "value": value})
    return {
        "event": "receive",
        "highest_received": highest_received,
        "control_version": control_version,
        "control_ack": control_ack,
        "options": options,
    }


def settling_test(
    name: str, requirements: str, comment: str, role: str, began: tuple[int, int], steps: list[Json]
) -> Json:
    most = MINUTE_US * MICROSECOND
    side = Side(role, *began, most)
    return described(
        f"settling-{name}",
        requirements,
        comment,
        kind="settling",
        role=role,
        desired_interval_us=began[0],
        min_receive_interval_us=began[1],
        max_peer_interval=most,
        **side.intervals(),
        steps=[step | side.take(step) for step in steps],
    )


class Side:
    """The values of either side that may still hold at one of them (KA-8.8-2, KA-8.8-3)."""

    def __init__(self, role: str, desired: int, allowed: int, most: int) -> None:
        self.initiates = role == "initiator"
        self.most = most
        self.own = [desired if self.initiates else allowed]
        self.peer = [allowed if self.initiates else desired]
        self.own_version = 0
        self.peer_version = 0
        self.first_to_say: int | None = None

    def take(self, step: Json) -> Json:
        {"change": self.change, "send": self.send, "receive": self.receive}[step["event"]](step)
        return self.intervals()

    def change(self, step: Json) -> None:
        field = "desired_interval_us" if self.initiates else "min_receive_interval_us"
        self.own.append(step["parameters"][field])
        self.own_version = step["control_version"]

    def send(self, step: Json) -> None:
        if len(self.peer) > 1 and self.first_to_say is None:
            self.first_to_say = step["packet_number"]

    def receive(self, step: Json) -> None:
        if self.own_version and step["control_ack"] == self.own_version:
            self.own = self.own[-1:]
        if self.first_to_say is not None and step["highest_received"] >= self.first_to_say:
            self.peer, self.first_to_say = self.peer[-1:], None
        if step["options"] and step["control_version"] != self.peer_version:
            self.learn(step)

    def learn(self, step: Json) -> None:
        self.peer_version, self.first_to_say = step["control_version"], None
        field = "min_receive_interval_us" if self.initiates else "desired_interval_us"
        for option in step["options"]:
            self.peer.append(option["value"].get(field, self.peer[-1]))

    def intervals(self) -> Json:
        desired, allowed = (self.own, self.peer) if self.initiates else (self.peer, self.own)
        return intervals(desired, allowed, self.most)
