"""Latencies over a run of any length in a few kilobytes."""

from __future__ import annotations

import math

import numpy as np


class Latencies:
    """A histogram of milliseconds with bins 2 % wide, from a microsecond to a thousand seconds: memory stays flat."""

    _LOWEST = 1e-3
    _STEP = math.log(1.02)
    _BINS = math.ceil(math.log(1e6 / _LOWEST) / _STEP) + 1

    def __init__(self) -> None:
        self._counts = np.zeros(self._BINS, np.int64)
        self.count = 0
        self.total = 0.0

    def add(self, milliseconds: float) -> None:
        """One measurement, 0 or more."""
        place = int(math.log(max(milliseconds, self._LOWEST) / self._LOWEST) / self._STEP)
        self._counts[min(place, self._BINS - 1)] += 1
        self.count += 1
        self.total += milliseconds

    def copy(self) -> Latencies:
        """As it is now; another thread may go on adding here meanwhile."""
        twin = Latencies()
        twin._counts = self._counts.copy()
        twin.count, twin.total = int(twin._counts.sum()), self.total
        return twin

    def since(self, earlier: Latencies) -> Latencies:
        """What came after `earlier`, a copy of this taken then."""
        later = self.copy()
        later._counts -= earlier._counts
        later.count, later.total = later.count - earlier.count, later.total - earlier.total
        return later

    def within(self, milliseconds: float) -> int:
        """How many measurements were at most this; those less than 2 % beyond may be among them."""
        if milliseconds < self._LOWEST:
            return 0
        place = int(math.log(milliseconds / self._LOWEST) / self._STEP)
        return int(self._counts[: place + 1].sum())

    def quantile(self, share: float) -> float:
        """Milliseconds that `share` (0 to 1) of the measurements stay within, to 1 %; 0 before the first."""
        if self.count == 0:
            return 0.0
        rank = max(1, math.ceil(share * self.count))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        return self._LOWEST * math.exp((place + 0.5) * self._STEP)
