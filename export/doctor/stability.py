"""How many photos are enough: how far tensor ranges move when the photos are drawn again.

The bootstrap (Efron, 1979) over photos: a range taken from n drawn photos is compared with that of all of them. What
it moves at n equal to their number is the error the calibration has from having seen these photos and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, helper
from tqdm import tqdm

from edge.engines import open_session
from edge.types import Image
from export.passes.qdq import placement

SHARE = 0.9999
"""Of the values that a range holds: robust where one pixel is not, and what most methods come to."""

BINS = 512
DRAWS = 40
MAX_CROPS = 256
"""More photos than this are thinned out evenly: what 256 photos cannot settle, more of the kind will not."""

ENOUGH = 0.05
"""Share of its width that a range may move; a twentieth is less than a fifth of a bit."""

QUANTILE = 0.95
"""Of the tensors: so many must be within ENOUGH."""

Counts = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """photos drawn; median and high (QUANTILE) over the tensors of how far a range moves, as a share of its width."""

    photos: int
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Stability:
    """points by number of photos, the last at all `photos` of them. worst: tensors that move most there, with it."""

    photos: int
    tensors: int
    points: tuple[Point, ...]
    worst: tuple[tuple[str, float], ...]

    @property
    def enough(self) -> int | None:
        """The least number of photos tried at which ranges hold still; None where all of them are too few."""
        return next((point.photos for point in self.points if point.high <= ENOUGH), None)

    @property
    def needed(self) -> int:
        """Photos it would take, from the last point on as one over the square root of their number."""
        last = self.points[-1]
        return self.enough or int(np.ceil(last.photos * (last.high / ENOUGH) ** 2))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "enough": self.enough, "share_of_values": SHARE, "draws": DRAWS}


def range_stability(model: ModelProto, crops: Image, *, quiet: bool = False) -> Stability:
    """Bootstraps the ranges of every tensor that quantisation needs.

    model: the float graph, from pixels. crops: (N, H, W, 3) uint8 BGR, N ≥ 2, one of each photo: duplicates would make
    ranges look steadier than they are.
    """
    chosen = crops[np.unique(np.linspace(0, len(crops) - 1, min(len(crops), MAX_CROPS)).astype(np.int64))]
    names = [name for name in placement(model).tensors if name not in {value.name for value in model.graph.input}]
    counts, edges = _counted(model, names, chosen, quiet)
    low, high = _ranges(counts.sum(axis=0)[None], edges)
    width = np.maximum(high - low, 1e-12)
    generator = np.random.default_rng(0)
    points, moved = [], np.zeros(len(names))
    for size in _sizes(len(chosen)):
        weights = generator.multinomial(size, np.full(len(chosen), 1 / len(chosen)), DRAWS).astype(np.float64)
        drawn = np.stack([np.tensordot(row, counts, axes=1) for row in weights])
        drawn_low, drawn_high = _ranges(drawn, edges)
        shift = (np.abs(drawn_low - low) + np.abs(drawn_high - high)) / width
        moved = np.quantile(shift, QUANTILE, axis=0)
        points.append(Point(size, float(np.median(moved)), float(np.quantile(moved, QUANTILE))))
    order = np.argsort(-moved)[:5]
    worst = tuple((names[i], round(float(moved[i]), 4)) for i in order)
    return Stability(len(chosen), len(names), tuple(points), worst)


def _sizes(count: int) -> list[int]:
    return [size for size in (4, 8, 16, 32, 64, 128) if size < count] + [count]


def _counted(
    model: ModelProto, names: Sequence[str], crops: Image, quiet: bool
) -> tuple[Counts, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """(N, T, BINS) counts of each crop's values, and the (T,) low and high ends they are counted between."""
    watched = ModelProto()
    watched.CopyFrom(model)
    already = {value.name for value in watched.graph.output}
    watched.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in names if name not in already)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    counts = np.zeros((len(crops), len(names), BINS), np.float32)
    with open_session(watched.SerializeToString()) as session:
        source = session.inputs[0].name
        bar = tqdm(total=2 * len(crops), desc="ranges, photo by photo", unit="photo", disable=quiet, leave=False)
        for crop in crops:
            given = session.run({source: crop[None]})
            low = np.minimum(low, [given[name].min() for name in names])
            high = np.maximum(high, [given[name].max() for name in names])
            bar.update()
        factor = BINS / np.maximum(high - low, 1e-12)
        for i, crop in enumerate(crops):
            given = session.run({source: crop[None]})
            for t, name in enumerate(names):
                bins = ((given[name].reshape(-1) - np.float32(low[t])) * np.float32(factor[t])).astype(np.int32)
                counts[i, t] = np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
            bar.update()
        bar.close()
    return counts, (low, high)


def _ranges(
    counts: npt.NDArray[np.floating], edges: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(K, T) ends of the range that leaves (1 − SHARE)/2 of the values out at either end, from (K, T, BINS) counts."""
    low, high = edges
    step = (high - low) / BINS
    below = np.cumsum(counts, axis=2, dtype=np.float64)
    outside = (1 - SHARE) / 2 * below[..., -1:]
    first = (below <= outside).sum(axis=2)
    last = (below < below[..., -1:] - outside).sum(axis=2) + 1
    return low + first * step, low + np.minimum(last, BINS) * step
