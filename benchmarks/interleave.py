"""Measuring side by side: every round runs each candidate once, in an order drawn anew, so drift hits all alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import InputError

Samples = npt.NDArray[np.float64]


@dataclass(slots=True)
class Stopwatch:
    """Wall and processor time (all threads of this process) of the parts of one run, in seconds, by name."""

    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Runs `work` and adds its time under `name`; gives what it gave."""
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        result = work()
        wall, cpu = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        self.wall[name] = self.wall.get(name, 0.0) + wall * 1e-9
        self.cpu[name] = self.cpu.get(name, 0.0) + cpu * 1e-9
        return result


Candidate = Callable[[int, Stopwatch], None]
"""Does the work of round i and times its parts on the stopwatch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: until `seconds` have passed, but between `min_rounds` and `max_rounds` rounds."""

    seconds: float = 20.0
    min_rounds: int = 30
    max_rounds: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seconds < 0 or not 10 <= self.min_rounds <= self.max_rounds:
            raise InputError("measuring takes at least 10 rounds and no negative time")


@dataclass(frozen=True, slots=True)
class Timings:
    """(rounds,) seconds by part; row i of every candidate was measured in the same round."""

    wall: dict[str, Samples]
    cpu: dict[str, Samples]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What an interleaved run gave, warm-up taken off.

    warm_up: rounds dropped at the start, the same for all. settled: False where the end of warm-up was not found, so
    that the figures may still hold some. seconds: the whole run took.
    """

    timings: dict[str, Timings]
    rounds: int
    warm_up: int
    settled: bool
    seconds: float


def interleave(
    candidates: Mapping[str, Candidate], plan: Plan, progress: Callable[[float], None] | None = None
) -> Measurement:
    """Runs the candidates in rounds. `progress` is told the share done, in [0, 1]."""
    watches: dict[str, list[Stopwatch]] = {name: [] for name in candidates}
    names = list(candidates)
    random = np.random.default_rng(plan.seed)
    started = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for done in range(plan.max_rounds):
            elapsed = time.perf_counter() - started
            if done >= plan.min_rounds and elapsed >= plan.seconds:
                break
            for name in random.permutation(names):
                watch = Stopwatch()
                candidates[name](done, watch)
                watches[name].append(watch)
            if progress:
                by_time = elapsed / plan.seconds if plan.seconds else 1.0
                progress(min(1.0, max(min(by_time, (done + 1) / plan.min_rounds), (done + 1) / plan.max_rounds)))
    finally:
        if collecting:
            gc.enable()
    timings = {name: _columns(runs) for name, runs in watches.items()}
    rounds = len(watches[names[0]])
    found = [find_warm_up(sum_of(timing.wall)) for timing in timings.values()]
    warm_up, settled = max(cut for cut, _ in found), all(good for _, good in found)
    cut = {
        name: Timings(
            {part: values[warm_up:] for part, values in timing.wall.items()},
            {part: values[warm_up:] for part, values in timing.cpu.items()},
        )
        for name, timing in timings.items()
    }
    return Measurement(cut, rounds - warm_up, warm_up, settled, time.perf_counter() - started)


def find_warm_up(samples: Samples) -> tuple[int, bool]:
    """How many samples at the start are warm-up, and whether its end was found within the first half.

    MSER (White, Simulation 69, 1997): the cut that makes the standard error of the rest smallest. The highest twentieth
    is levelled first, as one late hiccup would otherwise move the cut. Without a warm-up the cut is 0 or near it.
    """
    if len(samples) < 10:
        return 0, False
    levelled = np.minimum(samples, np.quantile(samples, 0.95))
    rest = np.arange(len(levelled), 0, -1, dtype=np.float64)
    tail_sum = np.cumsum(levelled[::-1])[::-1]
    tail_square = np.cumsum(levelled[::-1] ** 2)[::-1]
    error = (tail_square - tail_sum**2 / rest) / rest**2
    half = len(samples) // 2
    cut = int(np.argmin(error[: half + 1]))
    # A warm-up is slower than what follows; else the rule has chased noise.
    warm = cut > 0 and np.median(samples[:cut]) > 1.02 * np.median(samples[cut:])
    return cut if warm else 0, cut < half


def sum_of(parts: Mapping[str, Samples]) -> Samples:
    """(rounds,) seconds of all parts together."""
    total: Samples = np.sum(list(parts.values()), axis=0)
    return total


def _columns(runs: list[Stopwatch]) -> Timings:
    parts = list(runs[0].wall)
    if any(list(run.wall) != parts for run in runs):
        raise ValueError("a candidate must time the same parts in every round")
    return Timings(
        {part: np.array([run.wall[part] for run in runs]) for part in parts},
        {part: np.array([run.cpu[part] for run in runs]) for part in parts},
    )
