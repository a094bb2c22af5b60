"""Joules a frame, for every variant: blocks of frames in turns, and idle blocks between them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.energy.base import Meter
from benchmarks.provenance import NOT_MEASURED
from edge.metrics.intervals import bootstrap_interval

BLOCKS = 6
SECONDS = 1.5
"""Of a block: RAPL counts every millisecond, a sensor of a board every 20."""

IDLE = "idle"


def measure_energy(
    frames: Mapping[str, Callable[[int], None]],
    meters: Sequence[Meter],
    missing: Sequence[str],
    seed: int = 0,
    blocks: int = BLOCKS,
    seconds: float = SECONDS,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """JSON-ready: by variant and meter the joules of a frame, and above what the machine takes idle. frames: does one.

    Meters count the whole chip or board: other work is in the figure, and the idle power taken off is that of the same
    minutes.
    """
    if not meters:
        return {"measured": False, "reason": f"{NOT_MEASURED}: {'; '.join(missing)}", "meters": [], "variants": {}}
    random = np.random.default_rng(seed)
    watts: dict[str, list[list[float]]] = {name: [] for name in (*frames, IDLE)}
    rates: dict[str, list[float]] = {name: [] for name in frames}
    for block in range(blocks):
        for name in random.permutation(list(watts)):
            used, elapsed, count = _block(frames.get(str(name)), meters, seconds)
            watts[name].append([joules / elapsed for joules in used])
            if count:
                rates[name].append(count / elapsed)
        if progress:
            progress((block + 1) / blocks)
    idle = np.median(watts[IDLE], axis=0)
    variants = {
        name: [
            {
                "meter": meter.name,
                "joules_a_frame": _interval(np.array(watts[name])[:, i] / np.array(rates[name]), seed),
                "above_idle": _interval((np.array(watts[name])[:, i] - idle[i]) / np.array(rates[name]), seed),
            }
            for i, meter in enumerate(meters)
        ]
        for name in frames
    }
    return {
        "measured": True,
        "reason": "; ".join(missing) or None,
        "meters": [
            {"name": meter.name, "idle_watts": round(float(watt), 3)} for meter, watt in zip(meters, idle, strict=True)
        ],
        "variants": variants,
    }


def _block(
    frame: Callable[[int], None] | None, meters: Sequence[Meter], seconds: float
) -> tuple[list[float], float, int]:
    """Joules by meter, seconds and frames of one block; without a frame to do the machine rests."""
    started, count = time.monotonic(), 0
    for meter in meters:
        meter.start()
    if frame is None:
        time.sleep(seconds)
    else:
        while time.monotonic() - started < seconds:
            frame(count)
            count += 1
    used = [meter.stop() for meter in meters]
    return used, time.monotonic() - started, count


def _interval(values: Any, seed: int) -> dict[str, float]:
    return bootstrap_interval(values, lambda draws: np.median(draws, axis=1), seed=seed).to_dict()
