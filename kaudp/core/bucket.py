"""A bucket of things that may be done: it empties as they are done and refills with time."""


class Bucket:
    """Holds `capacity` at first and at most; one comes back every `step` ns."""

    __slots__ = ("_since", "_spent", "capacity")

    def __init__(self, capacity: int, now: int) -> None:
        self.capacity = capacity
        self._spent = 0
        self._since = now

    def take(self, step: int, now: int) -> bool:
        """Take one; False when the bucket is empty."""
        step = max(1, step)
        refilled = (now - self._since) // step
        if refilled >= self._spent:
            self._spent = 0
            self._since = now
        else:
            self._spent -= refilled
            self._since += refilled * step
        if self._spent >= self.capacity:
            return False
        self._spent += 1
        return True
