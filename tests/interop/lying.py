"""The qh3 peer, but what it says or does is wrong in one way: python lying.py LIE COMMAND ..."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "interop" / "peers"))

import qh3_peer

say = qh3_peer.say
lie, *arguments = sys.argv[1:]


def twist(event: dict[str, Any]) -> None:
    """Say what happened, or something else."""
    kind = event["event"]
    if lie == "skips a probe" and event.get("packet_number") == 2:
        return
    if lie == "dies" and event.get("packet_number") == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if lie == "another reason" and kind == "close":
        event["reason"] += 1
    if lie == "fewer replies" and kind == "done":
        event["replies"] -= 1
    if lie == "another session" and kind == "session":
        say(event)
    if lie == "garbage":
        print(f"about to say {kind}", flush=True)
    say(event)


qh3_peer.say = twist
status = qh3_peer.main(arguments)
sys.exit(3 if lie == "status" else status)
