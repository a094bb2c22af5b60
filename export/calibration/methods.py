"""From a tensor's histogram to the range worth eight bits: min-max, percentile, entropy, squared error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Range = tuple[float, float]
Floats64 = npt.NDArray[np.float64]

BINS = 2048
LEVELS = 256


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often a tensor took which value: BINS equal bins from `low` to `high`, its exact extremes. `counts` int64."""

    low: float
    high: float
    counts: npt.NDArray[np.int64]

    @property
    def centres(self) -> Floats64:
        """The middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return np.float64(self.low) + width * (np.arange(len(self.counts), dtype=np.float64) + 0.5)


Method = Callable[[Histogram], Range]


def min_max(histogram: Histogram) -> Range:
    """The extremes: nothing is clipped, and one outlier costs everybody resolution."""
    return histogram.low, histogram.high


def percentile(share: float) -> Method:
    """The shortest of ranges that leave (1 − `share`)/2 of the values out at either end."""

    def method(histogram: Histogram) -> Range:
        total = histogram.counts.sum()
        below = np.cumsum(histogram.counts)
        outside = (1.0 - share) / 2 * total
        first = int(np.searchsorted(below, outside, side="right"))
        last = int(np.searchsorted(below, total - outside, side="left"))
        width = (histogram.high - histogram.low) / len(histogram.counts)
        return histogram.low + first * width, histogram.low + (min(last, len(below) - 1) + 1) * width

    return method


def squared_error(histogram: Histogram) -> Range:
    """The range of least expected squared error, rounding and clipping together; each end searched in turn."""
    low, high = histogram.low, histogram.high
    shares = np.linspace(0.2, 1.0, 81)
    for _ in range(2):
        if high > 0:
            ends = shares * histogram.high
            high = ends[np.argmin(_errors(histogram, np.full_like(ends, low), ends))]
        if low < 0:
            ends = shares * histogram.low
            low = ends[np.argmin(_errors(histogram, ends, np.full_like(ends, high)))]
    return float(low), float(high)


def entropy(histogram: Histogram) -> Range:
    """The range whose 256 levels lose least information (Kullback-Leibler), after Migacz, 8-bit inference with
    TensorRT, 2017.

    Both ends shrink by one factor, so that a tensor of two signs keeps its proportion.
    """
    counts = histogram.counts.astype(np.float64)
    # The tall bin at zero that a ReLU leaves says nothing about the rest, and would decide alone.
    zero = int(np.clip(np.searchsorted(histogram.centres, 0.0), 0, len(counts) - 1))
    counts[zero] = counts[max(zero - 1, 0) : zero + 2].min() if counts[zero] > counts.sum() / 4 else counts[zero]
    centres, filled, below = histogram.centres, (counts > 0).astype(np.float64), np.cumsum(counts)
    best, divergence = 1.0, np.inf
    for share in np.linspace(0.2, 1.0, 81):
        first = int(np.searchsorted(centres, min(share * histogram.low, 0.0), side="left"))
        last = int(np.searchsorted(centres, max(share * histogram.high, 0.0), side="right"))
        current = _divergence(counts, filled, below, first, last)
        if current < divergence:
            best, divergence = float(share), current
    return best * histogram.low, best * histogram.high


METHODS: dict[str, Method] = {
    "min-max": min_max,
    "percentile-99.9": percentile(0.999),
    "percentile-99.99": percentile(0.9999),
    "percentile-99.999": percentile(0.99999),
    "entropy": entropy,
    "mse": squared_error,
}
"""By name, as a calibration table records them."""


def _errors(histogram: Histogram, lows: Floats64, highs: Floats64) -> Floats64:
    """(N,) summed squared error of each range."""
    lows, highs = np.minimum(lows, 0.0)[:, None], np.maximum(highs, 0.0)[:, None]
    steps = np.maximum((highs - lows) / (LEVELS - 1), 1e-30)
    values = histogram.centres
    # Rounding to a grid that holds zero, as the engine does: a ReLU's zeros cost nothing.
    off = values / steps
    np.rint(off, out=off)
    np.clip(off, np.rint(lows / steps), np.rint(highs / steps), out=off)
    off *= steps
    np.subtract(values, off, out=off)
    np.square(off, out=off)
    off *= histogram.counts
    summed: Floats64 = off.sum(axis=1)
    return summed


@lru_cache(maxsize=BINS)
def _levels(size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each level of a range of so many bins begins, and how many of them it takes."""
    edges = np.linspace(0, size, min(LEVELS, size) + 1).astype(np.int64)
    return edges[:-1], np.diff(edges)


def _divergence(counts: Floats64, filled: Floats64, below: Floats64, first: int, last: int) -> float:
    """Of the bins from `first` to before `last`. filled: 1 where a bin holds anything, else 0. below: cumulated counts,
    which are whole numbers, so that no order of summing them gives another sum.
    """
    size = last - first
    if size < LEVELS // 2:
        return float(np.inf)
    inside, filled = counts[first:last], filled[first:last]
    reference = inside.copy()
    reference[0] += below[first - 1] if first else 0.0
    reference[-1] += below[-1] - below[last - 1]
    begin, widths = _levels(size)
    sums, occupied = np.add.reduceat(inside, begin), np.add.reduceat(filled, begin)
    spread = np.repeat(sums / np.maximum(occupied, 1), widths) * filled
    p, q = reference / max(below[-1], 1e-30), spread / max(spread.sum(), 1e-30)
    # Where clipped mass meets an empty level the divergence has no end; a small floor keeps candidates comparable.
    seen = p > 0
    p = p[seen]
    return float((p * np.log(p / np.maximum(q[seen], 1e-9))).sum())
