"""Control state: who says what under which version, and what confirms it (8.6)."""

from __future__ import annotations

from collections.abc import Iterator

from common import MILLISECOND, SECOND, Json, described

CONTROL = (
    "receive: transport frames that are accepted from the peer, in the order of arrival, with "
    "what their bodies say; after each, `taken` tells whether its control state was taken, and "
    "`control_ack` is what the own frames say from then on. `new_keys`: the session goes on under "
    "new keys, whose packet numbers begin anew; `restart`: under new keys of a peer that has "
    "restarted. send: `change` sets the option of that name, `receive` is a frame of the peer with "
    "that `control_ack`; `probe` and `reply` go out with `control_version` and those `options` of "
    "the control state; `room` is the length of the frame that a `reply` answers, at which no "
    "other option competes for it. The side begins with `control_version`. spacing: how far apart "
    "(ns) the probes are that repeat the control state, from the change on."
)
STEADY_BYTES = 64
OPTION_BYTES = {"PARAMETERS": 18, "PAUSE": 6, "SLOW_DOWN": 6, "NEXT_KEY": 18, "ADMIN": 3}
OTHERS = ("PAD", "ADDRESS_SEEN", "PATH_CHALLENGE", "PATH_RESPONSE", "CLOCK")


def control_tests() -> Iterator[Json]:
    yield from versions_received()
    yield from frames_that_tell_nothing()
    yield from numbers_received()
    yield from keys_changed()
    yield from states_sent()
    yield from replies_sent()
    yield from spacings()


def versions_received() -> Iterator[Json]:
    for option in OPTION_BYTES:
        yield receiving(
            f"each-{option.lower().replace('_', '-')}",
            "8.6-2",
            "Any of the options takes its version over, once.",
            [frame(1), frame(2, 1, option), frame(3, 1, option), frame(4, 1)],
        )
    yield receiving(
        "all-options",
        "8.6-2",
        "All at once, in a REPLY too.",
        [frame(1, 1, *OPTION_BYTES), frame(2, 2, *OPTION_BYTES, type="REPLY")],
    )
    yield receiving(
        "versions-in-order",
        "8.6-2",
        "Each version is taken once.",
        [frame(n, (n + 1) // 2, "PAUSE") for n in range(1, 9)],
    )
    yield receiving(
        "versions-skipped",
        "8.6-2",
        "What came under the versions between was lost, and is repeated under the newest.",
        [frame(1, 1, "PAUSE"), frame(9, 5, "PAUSE", "ADMIN"), frame(10, 6), frame(11, 7, "ADMIN")],
    )
    yield receiving(
        "version-wraps",
        "8.6-1 8.6-2",
        "255 is followed by 1.",
        [
            *(frame(1, 254, "ADMIN"), frame(2, 255, "ADMIN"), frame(3, 1, "ADMIN")),
            *(frame(4, 1, "ADMIN"), frame(5, 2, "ADMIN")),
        ],
    )
    yield receiving(
        "version-again-after-a-round",
        "8.6-2",
        "A number that comes round again is a new version.",
        [frame(1, 7, "ADMIN"), *[frame(n, (n + 5) % 255 + 1, "ADMIN") for n in range(2, 258)]],
    )


def frames_that_tell_nothing() -> Iterator[Json]:
    for kind in ("REPLY", "PROBE"):
        yield receiving(
            f"{kind.lower()}-without-options",
            "8.6-2",
            "It says the new version but had no room for the state: the version is not taken over, "
            "and the next frame that holds the state is.",
            [
                *(frame(1, 1, "PAUSE"), frame(2, 2, type=kind), frame(3, 2, type=kind)),
                *(frame(4, 2, "PAUSE"), frame(5, 2, type=kind)),
            ],
        )
    yield receiving(
        "reply-without-options-overtakes",
        "8.6-2",
        "It overtakes the probe with the state, which then is not the newest any more.",
        [
            *(frame(1), frame(3, 1, type="REPLY"), frame(2, 1, "ADMIN"), frame(4, 1)),
            frame(5, 1, "ADMIN"),
        ],
    )
    for option in OTHERS:
        yield receiving(
            f"other-{option.lower().replace('_', '-')}",
            "8.6-2",
            "No control option.",
            [frame(1, 1, option), frame(2, 1, option, "PAUSE"), frame(3, 2, option)],
        )
    yield receiving(
        "other-unknown",
        "3.8-1 8.6-2",
        "An option that is skipped is no control option.",
        [frame(1, 1, "0x42"), frame(2, 1, "0x42", "PAUSE")],
    )
    yield receiving(
        "all-others",
        "8.6-2",
        "None of them is a control option.",
        [frame(1, 1, *OTHERS), frame(2, 1, *OTHERS, "SLOW_DOWN")],
    )
    yield receiving(
        "version-zero",
        "8.6-2",
        "Version 0: there never was any control state.",
        [frame(1), frame(2), frame(3, 1, "PAUSE")],
    )


def numbers_received() -> Iterator[Json]:
    yield receiving(
        "old-frame",
        "8.6-2",
        "An older frame comes late: its state is past.",
        [
            *(frame(1, 1, "ADMIN"), frame(5, 3, "ADMIN"), frame(3, 2, "ADMIN")),
            *(frame(4, 3, "ADMIN"), frame(2, 1, "ADMIN"), frame(6, 3, "ADMIN")),
        ],
    )
    yield receiving(
        "old-frame-with-the-newest-version",
        "8.6-2",
        "Not the highest number, though its version is new.",
        [frame(1), frame(9, 2), frame(8, 2, "PAUSE"), frame(10, 2, "PAUSE")],
    )
    yield receiving(
        "old-frame-over-the-wrap",
        "8.6-2",
        "After the wrap an old 255 is past as well.",
        [frame(2, 254, "PAUSE"), frame(6, 1, "PAUSE"), frame(4, 255, "PAUSE"), frame(7, 1)],
    )
    yield receiving(
        "gaps",
        "8.6-2",
        "Gaps do not matter.",
        [frame(10, 1, "PAUSE"), frame(3000, 2, "PAUSE"), frame(2**32 - 1, 3, "PAUSE")],
    )


def keys_changed() -> Iterator[Json]:
    yield receiving(
        "new-keys",
        "8.6-3",
        "The versions begin anew, as the packet numbers do.",
        [
            *(frame(1, 1, "PAUSE"), frame(50, 2, "PAUSE"), {"event": "new_keys"}),
            *(frame(1, 2, "PAUSE"), frame(2, 3, "PAUSE"), frame(1, 3, "PAUSE")),
        ],
    )
    yield receiving(
        "restart",
        "8.6-3",
        "The last version of a peer that has restarted is 0.",
        [
            *(frame(1, 1, "PAUSE"), frame(50, 2, "PAUSE"), {"event": "restart"}),
            *(frame(1), frame(2, 1, "PAUSE"), frame(3, 2, "PAUSE")),
        ],
    )
    yield receiving(
        "restart-same-version",
        "8.6-3",
        "The same number after a restart is another state.",
        [frame(1, 1, "ADMIN"), {"event": "restart"}, frame(1, 1, "ADMIN"), frame(2, 1, "ADMIN")],
    )


def frame(packet_number: int, control_version: int = 0, *options: str, type: str = "PROBE") -> Json:
    return {
        "event": "frame",
        "type": type,
        "packet_number": packet_number,
        "control_version": control_version,
        "options": list(options),
    }


def receiving(name: str, requirements: str, comment: str, steps: list[Json]) -> Json:
    highest = control_ack = 0
    told = []
    for step in steps:
        taken = False
        if step["event"] == "frame":
            newest = step["packet_number"] > highest
            highest = max(highest, step["packet_number"])
            told_any = any(option in OPTION_BYTES for option in step["options"])
            taken = newest and told_any and step["control_version"] != control_ack
            control_ack = step["control_version"] if taken else control_ack
        else:
            highest = control_ack = 0
        told.append(step | {"taken": taken, "control_ack": control_ack})
    return described(f"receive-{name}", requirements, comment, kind="receive", steps=told)


def states_sent() -> Iterator[Json]:
    probe = {"event": "probe"}
    for option in OPTION_BYTES:
        yield sending(
            f"each-{option.lower().replace('_', '-')}",
            "8.6-1",
            "Repeated until it is confirmed.",
            [probe, change(option), probe, ack(0), probe, ack(1), probe],
        )
    yield sending(
        "two-unconfirmed",
        "8.6-1",
        "All that is not confirmed goes into each probe.",
        [change("PAUSE"), probe, change("PARAMETERS"), probe, ack(2), probe],
    )
    yield sending(
        "all-unconfirmed",
        "8.6-1",
        "Five options, five versions.",
        [*map(change, OPTION_BYTES), probe, ack(5), probe],
    )
    yield sending(
        "one-confirmed",
        "8.6-1",
        "What is confirmed is not repeated with the next change.",
        [change("ADMIN"), probe, ack(1), probe, change("NEXT_KEY"), probe, ack(1), probe],
    )
    yield sending(
        "changed-again",
        "8.6-1",
        "The same option again: the confirmation of the version before is none.",
        [change("ADMIN"), probe, change("ADMIN"), probe, ack(1), probe, ack(2), probe],
    )
    yield sending(
        "confirmed-twice",
        "8.6-1",
        "A late confirmation changes nothing.",
        [change("PAUSE"), probe, ack(1), change("PAUSE"), probe, ack(1), probe, ack(2), ack(1)],
    )
    yield sending(
        "version-254",
        "8.6-1",
        "255 is followed by 1.",
        [change("PAUSE"), probe, ack(255), change("PAUSE"), probe, ack(255), probe, ack(1), probe],
        control_version=254,
    )
    yield sending(
        "never-any",
        "8.6-1",
        "Version 0: a peer that says 0 confirms nothing.",
        [probe, ack(0), probe, change("SLOW_DOWN"), probe, ack(0), probe],
    )


def replies_sent() -> Iterator[Json]:
    for option, length in OPTION_BYTES.items():
        rooms = (STEADY_BYTES, STEADY_BYTES + length - 1, STEADY_BYTES + length, 512)
        yield sending(
            f"reply-{option.lower().replace('_', '-')}",
            "8.3-3 8.6-1",
            "A REPLY holds the state where it fits; the version stands in the body anyhow.",
            [change(option), *map(reply, rooms), ack(1), reply(512)],
        )
    both = STEADY_BYTES + OPTION_BYTES["PARAMETERS"] + OPTION_BYTES["ADMIN"]
    yield sending(
        "reply-all-or-nothing",
        "8.3-3 8.6-1",
        "Where not all of it fits, none of it goes.",
        [
            *(change("PARAMETERS"), change("ADMIN"), reply(STEADY_BYTES)),
            *(reply(STEADY_BYTES + 3), reply(both - 1), reply(both), {"event": "probe"}),
        ],
    )
    everything = STEADY_BYTES + sum(OPTION_BYTES.values())
    yield sending(
        "reply-everything",
        "8.3-3 8.6-1",
        "All five.",
        [*map(change, OPTION_BYTES), reply(everything - 1), reply(everything)],
    )


def change(option: str) -> Json:
    return {"event": "change", "option": option}


def ack(control_ack: int) -> Json:
    return {"event": "receive", "control_ack": control_ack}


def reply(room: int) -> Json:
    return {"event": "reply", "room": room}


def sending(
    name: str, requirements: str, comment: str, steps: list[Json], control_version: int = 0
) -> Json:
    version, unconfirmed, told = control_version, [], []
    for step in steps:
        if step["event"] == "change":
            version = version % 255 + 1
            unconfirmed = sorted({*unconfirmed, step["option"]}, key=list(OPTION_BYTES).index)
        elif step["event"] == "receive" and version and step["control_ack"] == version:
            unconfirmed = []
        if step["event"] in ("probe", "reply"):
            needed = STEADY_BYTES + sum(OPTION_BYTES[option] for option in unconfirmed)
            fits = needed <= step.get("room", needed)
            held = {"control_version": version, "options": list(unconfirmed) if fits else []}
            told.append(step | held)
        else:
            told.append(step)
    return described(
        f"send-{name}",
        requirements,
        comment,
        kind="send",
        control_version=control_version,
        steps=told,
    )


def spacings() -> Iterator[Json]:
    for name, comment, pto, interval in (
        ("lan", "From PTO up to T.", 12 * MILLISECOND, 300 * MILLISECOND),
        ("wan", "From PTO up to T.", 200 * MILLISECOND, 10 * SECOND),
        ("power-of-two", "T is reached exactly.", 125 * MILLISECOND, 2 * SECOND),
        ("odd", "Any numbers of ns.", 33_333_333, SECOND),
        ("initial-pto", "No response time is known.", SECOND, 25 * SECOND),
        ("pto-just-below-t", "One step.", 999 * MILLISECOND, SECOND),
        ("equal", "PTO is T.", SECOND, SECOND),
    ):
        expected = [min(pto * 2**n, interval) for n in range(10)]
        yield described(
            f"spacing-{name}",
            "8.6-1",
            comment,
            kind="spacing",
            pto=pto,
            interval=interval,
            expected=expected,
        )
