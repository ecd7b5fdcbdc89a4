"""The one clock: nanoseconds that go on while the machine is suspended, where there is such."""

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


def now_ns() -> int:
    """Tell the time in ns, monotonic; only differences mean anything. Spec: KA-7.7-5."""
    if _BOOTTIME is None:
        return time.monotonic_ns()
    return time.clock_gettime_ns(_BOOTTIME)
