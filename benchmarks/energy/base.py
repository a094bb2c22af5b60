"""Two kinds of meters: one counts energy itself, the other states power, which is sampled and summed up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

Read = Callable[[], float]

EVERY = 0.02
"""Seconds between two readings of a power sensor; an INA3221 averages over about as long."""


class Meter(Protocol):
    """name: what is metered, as the machine calls it."""

    name: str

    def start(self) -> None:
        """Begins a measurement."""

    def stop(self) -> float:
        """Joules since `start`."""


class CounterMeter:
    """A counter of energy that wraps around.

    read: joules counted so far; span: joules after which it begins at 0 again, 0.0 where it never does. An interval
    longer than one turn cannot be told from a shorter one: RAPL's take about an hour at 70 W.
    """

    def __init__(self, name: str, read: Read, span: float = 0.0) -> None:
        self.name = name
        self._read, self._span = read, span
        self._begun = 0.0

    def start(self) -> None:
        self._begun = self._read()

    def stop(self) -> float:
        used = self._read() - self._begun
        return used + self._span if used < 0 else used


class PowerMeter:
    """A sensor that states watts: read every 20 ms by a thread, summed by trapezoids."""

    def __init__(self, name: str, read: Read, every: float = EVERY) -> None:
        self.name = name
        self._read, self._every = read, every
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._joules, self._last = 0.0, (0.0, 0.0)

    def start(self) -> None:
        self._end.clear()
        self._joules, self._last = 0.0, (time.monotonic(), self._read())
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        if self._thread is None:
            raise RuntimeError("the meter was not started")
        self._end.set()
        self._thread.join()
        self._thread = None
        self._add()
        return self._joules

    def _sample(self) -> None:
        while not self._end.wait(self._every):
            self._add()

    def _add(self) -> None:
        now, watts = time.monotonic(), self._read()
        then, before = self._last
        self._joules += (now - then) * (watts + before) / 2
        self._last = now, watts
