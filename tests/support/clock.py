"""A clock that stands for the module `time` where a test must not depend on how busy the machine is."""

from __future__ import annotations


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
