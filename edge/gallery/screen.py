"""Exact search of many vectors through an INT8 copy: what bounds prove to be worse than the best is never looked at.

A row x is turned by an orthogonal matrix whose first d axes hold nearly all of the gallery's energy (principal
components, mixed among themselves so that no axis is much longer than another); those d coordinates are stored as INT8
with a scale a row. For a probe q, turned and rounded alike, Cauchy-Schwarz bounds what rounding and the axes left out
can change of q·x. Rows whose INT8 score is lower than the best one by more than twice that bound cannot be nearest;
the few others are compared in float32. So the answer is that of the plain search.

The product runs in ONNX Runtime's MatMulInteger, which reads each INT8 once, with columns for rows in blocks whose sums
fit a cache. A probe has 7 bits: on AVX2 without VNNI sums of two full 8-bit products saturate.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.engines import Session, SessionOptions, open_session
from edge.gallery.product import product_model
from edge.types import Floats

BLOCK = 1 << 18
"""Rows a block at most. Its INT8 stream through, four axes at a time, over sums of 1 MB that stay in the second cache
or the third. The longer the piece of an axis, the better the processor reads ahead: a product with pieces of 4096
takes a third more, and with a million, whose sums are read and written from further away, 7 % more."""

LANES = 64
"""INT8 in a line of the cache; rows of a block are a multiple of it."""

PIECE = 4096
"""Rows that are turned and rounded at a time when a screen is built."""

SAMPLE = 20_000
"""Rows from which the axes are found: they only have to be good, not best."""

ENERGY_LEFT_OUT = 0.01
"""Share of the squared length that the axes left out may hold; their share of a score is then at most that, too."""

PROBE_ZERO = 64
"""What is added to a probe's 7-bit steps to make them unsigned."""

STEP = 32
"""The number of axes is a multiple of it."""

CANDIDATES = 0.02
"""Share of the rows beyond which comparing all of them is quicker than picking."""

_ROUNDING = 1e-5
"""More than float32 sums of some hundred products of unit vectors are off."""


@dataclass(frozen=True, slots=True)
class Screen:
    """INT8 copy of an (N, D) matrix of unit rows.

    axes: (d, D) float32 orthonormal rows. blocks: (B, d, R) int8, the rows as columns, zeros after the last, B and R of
    `block_shape`. scale: (N,) float32, what an INT8 step is worth. offset: (N,) float32, what PROBE_ZERO adds to a
    score. rounding, left_out: the greatest length, over all rows, of what rounding changed of the d coordinates, and of
    the part outside of the axes.
    """

    axes: Floats
    blocks: npt.NDArray[np.int8]
    scale: Floats
    offset: Floats
    rounding: float
    left_out: float

    def scores(self, probe: Floats) -> tuple[Floats, float]:
        """(D,) probe → (N,) float32 approximate products with each row, and how far each is off at most."""
        inside = self.axes @ probe
        step = max(float(np.abs(inside).max()) / (PROBE_ZERO - 1), 1e-12)
        rounded = np.rint(inside / step)
        off = float(np.linalg.norm(inside - rounded * step))
        outside = float(np.sqrt(max(0.0, float(probe @ probe) - float(inside @ inside)) + _ROUNDING))
        shifted = (rounded + PROBE_ZERO).astype(np.uint8)[None]
        sums = _product().run({"probe": shifted, "rows": self.blocks})["sums"].reshape(-1)[: len(self.scale)]
        # Sums stay below 2²⁴, so that float32 holds them exactly.
        approximate = np.multiply(sums, self.scale, dtype=np.float32, casting="unsafe")
        approximate -= self.offset
        approximate *= np.float32(step)
        length = float(np.linalg.norm(inside))
        slack = off * (1 + self.rounding) + length * self.rounding + outside * self.left_out + _ROUNDING
        return approximate, slack


def candidates(screen: Screen, probe: Floats, excluded: npt.NDArray[np.intp]) -> npt.NDArray[np.intp] | None:
    """Rows among which the nearest to the (D,) probe must be, `excluded` aside; None where it may be too many."""
    approximate, slack = screen.scores(probe)
    approximate[excluded] = -np.inf
    found = np.flatnonzero(approximate >= approximate.max() - np.float32(2 * slack))
    return found if len(found) <= max(100, CANDIDATES * len(approximate)) else None


def build_screen(vectors: Floats) -> Screen:
    """From (N, D) float32 unit rows, N ≥ 1."""
    axes = _find_axes(vectors)
    count, width = len(vectors), len(axes)
    number, length = block_shape(count)
    blocks = np.zeros((number, width, length), np.int8)
    scale, offset = np.empty(count, np.float32), np.empty(count, np.float32)
    rounding = left_out = 0.0
    for block, start in _pieces(count, length):
        rows = vectors[start : min(start + PIECE, (block + 1) * length)]
        column = start - block * length
        inside = rows @ axes.T
        step = np.maximum(np.abs(inside).max(axis=1), 1e-12) / 127
        rounded = np.rint(inside / step[:, None])
        off = inside - rounded * step[:, None]
        blocks[block, :, column : column + len(rows)] = rounded.T
        scale[start : start + len(rows)] = step
        offset[start : start + len(rows)] = PROBE_ZERO * step * rounded.sum(axis=1)
        rounding = max(rounding, float(np.linalg.norm(off, axis=1).max()))
        outside = np.einsum("ij,ij->i", rows, rows) - np.einsum("ij,ij->i", inside, inside)
        left_out = max(left_out, float(np.sqrt(np.maximum(outside, 0).max() + _ROUNDING)))
    return Screen(axes, blocks, scale, offset, rounding + _ROUNDING, left_out)


def block_shape(count: int) -> tuple[int, int]:
    """(B, R) of N ≥ 1 rows: as few blocks as BLOCK allows, all of one length, so that hardly a column is empty."""
    number = -(-count // BLOCK)
    return number, -(-count // (number * LANES)) * LANES


def _pieces(count: int, length: int) -> Iterator[tuple[int, int]]:
    """(block, first row) of at most PIECE rows each, none of which crosses into the next block."""
    for block, first in enumerate(range(0, count, length)):
        yield from ((block, start) for start in range(first, min(first + length, count), PIECE))


def _find_axes(vectors: Floats) -> Floats:
    sample = vectors[:: max(1, len(vectors) // SAMPLE)].astype(np.float64)
    energy, axes = np.linalg.eigh(sample.T @ sample / len(sample))
    energy, axes = energy[::-1], axes[:, ::-1]
    left = 1 - np.cumsum(energy) / energy.sum()
    enough = int(np.argmax(left <= ENERGY_LEFT_OUT)) + 1
    width = min(-(-enough // STEP) * STEP, vectors.shape[1])
    mixing, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(width, width)))
    return np.ascontiguousarray((mixing @ axes[:, :width].T).astype(np.float32))


@functools.cache
def _product() -> Session:
    return open_session(product_model(), "onnxruntime", SessionOptions())
