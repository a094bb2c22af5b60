"""How long to wait before a lost stream is tried again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """first, longest: seconds; each wait is `factor` times the one before, times a random 1 - jitter to 1.

    The jitter keeps a hundred boxes from calling at the same moment when their network comes back.
    """

    first: float = 0.5
    factor: float = 2.0
    longest: float = 30.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.longest and self.factor >= 1 and 0 <= self.jitter < 1):
            raise ValueError(f"a back-off that does not grow between its bounds: {self}")

    def delays(self, source: random.Random) -> Iterator[float]:
        """Seconds to wait, without end."""
        delay = self.first
        while True:
            yield delay * (1.0 - self.jitter * source.random())
            delay = min(self.longest, delay * self.factor)
