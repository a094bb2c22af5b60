"""A clock that stands for the module `time` where a test must not depend on how busy the machine is."""

from __future__ import annotations

import threading


class Clock:
    """Time that passes only in `sleep`."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now

    def perf_counter_ns(self) -> int:
        return round(1e9 * self.now)

    perf_counter = monotonic
    process_time_ns = perf_counter_ns


class SharedClock(Clock):
    """For so many threads: time passes only while all of them sleep, however long one is kept from running."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self._awake = threads
        self._ends: list[float] = []
        self._changed = threading.Condition()

    def sleep(self, seconds: float) -> None:
        with self._changed:
            end = self.now + seconds
            self._ends.append(end)
            self._one_less()
            self._changed.wait_for(lambda: self.now >= end)

    def leave(self) -> None:
        """The thread that calls it sleeps no more."""
        with self._changed:
            self._one_less()

    def _one_less(self) -> None:
        self._awake -= 1
        if self._awake == 0 and self._ends:
            self.now = min(self._ends)
            self._awake = sum(end <= self.now for end in self._ends)
            self._ends = [end for end in self._ends if end > self.now]
            self._changed.notify_all()
