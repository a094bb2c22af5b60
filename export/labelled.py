"""Faces of known people that an export may be judged on, and what their pairs are enough for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.metrics.scores import pair_counts
from edge.types import Image

MIN_PEOPLE = 20
"""Fewer people with two photos each say little about people who were not measured: they decide nothing."""


@dataclass(frozen=True, slots=True)
class LabelledFaces:
    """crops: (N, 112, 112, 3) uint8 BGR; labels: (N,) int64, whose; on: which faces, in words."""

    crops: Image
    labels: npt.NDArray[np.int64]
    on: str

    @property
    def people(self) -> int:
        """How many have two photos or more, so that a genuine pair can be made of them."""
        return int((np.unique(self.labels, return_counts=True)[1] > 1).sum())

    @property
    def comparable(self) -> bool:
        """Whether there is a genuine pair and an impostor pair at all."""
        return self.people > 0 and len(np.unique(self.labels)) > 1

    def at_most(self, count: int) -> LabelledFaces:
        """Whole people, first come first, up to about `count` faces: time and pairs grow with them and their square."""
        if len(self.crops) <= count:
            return self
        _, first, sizes = np.unique(self.labels, return_index=True, return_counts=True)
        order = np.argsort(first)
        enough = int(np.searchsorted(np.cumsum(sizes[order]), count)) + 1
        rows = np.isin(self.labels, self.labels[first[order[:enough]]])
        return LabelledFaces(self.crops[rows], self.labels[rows], f"{int(rows.sum()):,} of {self.on}")

    def readable_far(self, far: float) -> float:
        """`far`, or the power of ten above it that the impostor pairs can just show: a tenth of 620 pairs is 0.01."""
        impostors = pair_counts(self.labels)[1]
        if far * impostors >= 1.0:
            return far
        return float(10.0 ** math.ceil(math.log10(1.0 / max(impostors, 1)) - 1e-9)) if impostors > 10 else 0.5

    def doubt(self, far: float) -> str | None:
        """Why these faces cannot decide between two variants at `far`; None where they can."""
        impostors = pair_counts(self.labels)[1]
        if self.readable_far(far) != far:
            return f"too few pairs to decide: {impostors:,} impostor pairs cannot show FAR {far:g}"
        if self.people < MIN_PEOPLE:
            return f"too few pairs to decide: they are of {self.people} people, {MIN_PEOPLE} is the least"
        return None
