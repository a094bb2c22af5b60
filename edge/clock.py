"""Time as a port: whoever reads a clock or waits takes it from here, so that a day can pass in a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Protocol


class Clock(Protocol):
    """What passes for time. Seconds throughout."""

    def time(self) -> float:
        """Since the epoch, as the wall clock has it: it may jump."""

    def monotonic(self) -> float:
        """Since some moment; never goes back."""

    def sleep(self, seconds: float) -> None:
        """Returns once `seconds` have passed; at once for 0 or less."""

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Returns whether `event` is set, as soon as it is, at the latest after `seconds`."""


class SystemClock:
    """The machine's."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            time.sleep(seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        return event.wait(max(0.0, seconds))


class SimulatedClock:
    """Stands still until somebody sleeps or waits, and then jumps to the end of that; for one thread.

    start: seconds since the epoch at monotonic 0. jumps: (monotonic moment, seconds) at which the wall clock is put
    forward, or back where negative; monotonic time goes on as before.
    """

    def __init__(self, start: float = 1_700_000_000.0, jumps: Sequence[tuple[float, float]] = ()) -> None:
        self._start = start
        self._jumps = tuple(jumps)
        self._now = 0.0
        self._alarm = math.inf

    def time(self) -> float:
        return self._start + self._now + sum(by for at, by in self._jumps if at <= self._now)

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += max(0.0, seconds)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if event.is_set():
            return True
        # Nothing happens before the alarm: whoever waits in slices would only count them.
        self._now = self._now + seconds if self._alarm == math.inf else max(self._now, self._alarm)
        self._alarm = math.inf
        return event.is_set()

    def wake_at(self, moment: float) -> None:
        """Ends the next `wait` at `moment` (monotonic), when something will be there to do, however long it waits."""
        self._alarm = min(self._alarm, moment)


SYSTEM_CLOCK: Clock = SystemClock()
