"""What a variant does with more threads in a model, and with several cameras at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.interleave import Candidate, Plan, interleave
from benchmarks.latency import MS, Work, decode
from benchmarks.statistics import quantiles, speedup
from benchmarks.subjects import Subject
from edge.analyze import FaceAnalyzer
from edge.engines import SessionOptions
from edge.metrics.intervals import bootstrap_interval

Progress = Callable[[float], None]

MAX_THREADS = 16


@dataclass(frozen=True, slots=True)
class StreamsPlan:
    """slices: how often each number of streams is run; seconds: of one slice."""

    slices: int = 8
    seconds: float = 0.7


def thread_counts() -> tuple[int, ...]:
    """1, 2, 4 … up to the cores this process may use, and at most 16."""
    cores = _cores()
    return tuple(sorted({*(2**i for i in range(5) if 2**i <= cores), min(cores, MAX_THREADS)}))


def stream_counts() -> tuple[int, ...]:
    """1, 2, 4 … up to twice the cores: beyond the cores streams only wait for each other, which should show."""
    top = 2 * min(_cores(), MAX_THREADS)
    return tuple(2**i for i in range(6) if 2**i <= top)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure_threads(
    subjects: Sequence[Subject],
    counts: Sequence[int],
    work: Sequence[Work],
    plan: Plan,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Detection and embedding of whole frames by threads of a model, every variant and count in each round."""
    with ExitStack() as stack:
        candidates: dict[str, Candidate] = {}
        for subject in subjects:
            for count in counts:
                analyzer = stack.enter_context(_with_threads(subject, count).open())
                candidates[f"{subject.label} × {count}"] = _models(analyzer, work)
        measured = interleave(candidates, plan, progress)
    rows: dict[str, list[dict[str, Any]]] = {}
    for subject in subjects:
        one = measured.timings[f"{subject.label} × {counts[0]}"]
        rows[subject.label] = []
        for count in counts:
            timing = measured.timings[f"{subject.label} × {count}"]
            rows[subject.label].append(
                {
                    "threads": count,
                    "wall_ms": quantiles(timing.wall["models"] * MS, plan.seed).to_dict(),
                    "cpu_ms": round(float(np.median(timing.cpu["models"])) * MS, 4),
                    "times_faster": speedup(one.wall["models"], timing.wall["models"], plan.seed).to_dict(),
                }
            )
    return {"counts": list(counts), "rounds": measured.rounds, "warm_up": measured.warm_up, "rows": rows}


def _with_threads(subject: Subject, count: int) -> Subject:
    session = SessionOptions(threads=count, device=subject.options.session.device)
    return replace(subject, options=replace(subject.options, session=session))


def _models(analyzer: FaceAnalyzer, work: Sequence[Work]) -> Candidate:
    images = [decode(item) for item in work]
    crops = [analyzer.align(image, item.faces) for image, item in zip(images, work, strict=True)]

    def run(round_: int, watch: Any) -> None:
        i = round_ % len(work)
        watch.time("models", lambda: (analyzer.detect(images[i]), analyzer.embed(crops[i])))

    return run


def measure_streams(
    subjects: Sequence[Subject],
    counts: Sequence[int],
    work: Sequence[Work],
    plan: StreamsPlan,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Frames a second of all streams together: each stream a thread with sessions of its own, as cameras at once are.

    Slices of one (variant, number of streams) each, in an order drawn anew in every turn. A frame is decoded, searched,
    its faces aligned and embedded.
    """
    random = np.random.default_rng(seed)
    pairs = [(subject, count) for subject in subjects for count in counts]
    rates: dict[tuple[str, int], list[float]] = {(subject.label, count): [] for subject, count in pairs}
    with ExitStack() as stack:
        opened = {
            subject.label: [stack.enter_context(subject.open()) for _ in range(max(counts))] for subject in subjects
        }
        for analyzers in opened.values():
            for analyzer in analyzers:
                _frame(analyzer, work[0])
        for done in range(plan.slices):
            for i in random.permutation(len(pairs)):
                subject, count = pairs[i]
                rates[subject.label, count].append(_slice(opened[subject.label][:count], work, plan.seconds))
            if progress:
                progress((done + 1) / plan.slices)
    return {"counts": list(counts), "slices": plan.slices, "seconds": plan.seconds, "rows": _rates(rates, counts, seed)}


def _rates(rates: Mapping[tuple[str, int], list[float]], counts: Sequence[int], seed: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for (label, count), values in rates.items():
        found, one = np.array(values), np.array(rates[label, counts[0]])
        rows.setdefault(label, []).append(
            {
                "streams": count,
                "frames_a_second": bootstrap_interval(found, _median, seed=seed).to_dict(),
                "times_one": speedup(found, one, seed).to_dict(),
            }
        )
    return rows


def _median(draws: Any) -> Any:
    return np.median(draws, axis=1)


def _slice(analyzers: Sequence[FaceAnalyzer], work: Sequence[Work], seconds: float) -> float:
    """Frames a second of these streams, each in its thread; the last frame of each counts with the time it took."""
    ready = threading.Barrier(len(analyzers))

    def stream(i: int) -> float:
        ready.wait()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            _frame(analyzers[i], work[(count + i) % len(work)])
            count += 1
        return count / (time.perf_counter() - start)

    with ThreadPoolExecutor(len(analyzers)) as pool:
        return sum(pool.map(stream, range(len(analyzers))))


def _frame(analyzer: FaceAnalyzer, item: Work) -> None:
    image = decode(item)
    analyzer.detect(image)
    analyzer.embed(analyzer.align(image, item.faces))
