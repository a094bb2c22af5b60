"""The accuracy gate: what a variant loses against the reference on the same pictures, and the verdict.

A variant passes where the whole interval lies inside the budget, fails where it lies outside, and where the budget lies
within the interval there are too few pairs to decide: it does not pass by luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from edge.align import align
from edge.detect import Detector, find_main_face
from edge.errors import GateError, InputError
from edge.metrics.intervals import LEVEL, Interval
from edge.metrics.pairs import PairRows, images_of, read_pairs
from edge.metrics.verification import kfold_accuracy, threshold_at_far
from edge.pictures import read_picture
from edge.types import Floats, Image

Z = 1.959964
"""Of a two-sided interval of 95 %."""

Bools = npt.NDArray[np.bool_]
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class EvaluationPairs:
    """Pairs whose faces were found and aligned.

    crops: (M, 112, 112, 3) uint8 BGR; rows: the pairs as rows of `crops`; identities: (M,) integers; left_out: pairs
    of which a face was not found.
    """

    crops: Image
    rows: PairRows
    identities: npt.NDArray[np.int64]
    left_out: int


@dataclass(frozen=True, slots=True)
class Drop:
    """What a variant loses, in points (percent): reference minus variant, with its interval. count: pairs compared.

    thresholds: at the operating point, of the reference and of the variant; None where there is no one threshold.
    """

    what: str
    reference: float
    variant: float
    points: Interval
    count: int
    thresholds: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        values = {
            "reference": self.reference,
            "variant": self.variant,
            "drop_points": self.points.to_dict(),
            "count": self.count,
        }
        if self.thresholds is None:
            return values
        before, after = self.thresholds
        return {**values, "threshold": {"reference": before, "variant": after, "shift": after - before}}

    def __str__(self) -> str:
        low, high = self.points.low, self.points.high
        return f"{self.what} drops {self.points.value:.3f} points (95 % {low:.3f} to {high:.3f}, {self.count:,} pairs)"


def load_pairs(file: Path, folder: Path, detector: Detector, *, quiet: bool = False) -> EvaluationPairs:
    """LFW-style pairs, every picture detected and aligned once. Raises InputError where files are missing or unfit."""
    pairs = read_pairs(file)
    images = images_of(pairs, folder)
    rows: dict[Any, int] = {}
    crops, names = list[Image](), list[str]()
    for name, path in tqdm(images.items(), desc="faces of the pairs", unit="photo", disable=quiet, leave=False):
        image = read_picture(path)
        face = find_main_face(detector, image)
        if face is not None:
            rows[name] = len(crops)
            crops.append(align(image, face.landmarks))
            names.append(path.parent.name)
    kept = [pair for pair in pairs if pair.first in rows and pair.second in rows]
    if not kept:
        raise InputError(f"{file}: in none of the {len(pairs)} pairs both faces were found")
    return EvaluationPairs(
        crops=np.stack(crops),
        rows=PairRows.of(kept, rows),
        identities=np.unique(np.array(names), return_inverse=True)[1].astype(np.int64),
        left_out=len(pairs) - len(kept),
    )


def accuracy_drop(reference: Floats, variant: Floats, pairs: PairRows) -> Drop:
    """Accuracy by folds, each model at its own thresholds, paired. reference, variant: (M, D) unit rows."""
    right = [
        kfold_accuracy((e[pairs.first] * e[pairs.second]).sum(axis=1), pairs.same, pairs.folds).correct
        for e in (reference, variant)
    ]
    lost, won = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    count = len(right[0])
    low, high = paired_difference(lost, won, count)
    return Drop(
        "accuracy",
        float(right[0].mean()),
        float(right[1].mean()),
        Interval(100.0 * (lost - won) / count, 100.0 * low, 100.0 * high, 0.95),
        count,
    )


def tar_drop(
    reference: Floats, variant: Floats, identities: npt.NDArray[np.int64], far: float, level: float = LEVEL
) -> Drop:
    """TAR at a FAR over all pairs of the pictures, each model at its own threshold, paired.

    reference, variant: (M, D) unit rows; identities: (M,) integers from 0. The interval draws identities, not pairs,
    because pairs that share a picture are not independent.
    Raises InputError where there are fewer than 1 / far impostor pairs, or no genuine ones.
    """
    i, j = np.triu_indices(len(identities), 1)
    genuine = identities[i] == identities[j]
    if not genuine.any():
        raise InputError("no identity has two pictures: TAR cannot be measured")
    accepted, thresholds = [], []
    for embeddings in (reference, variant):
        scores = (embeddings @ embeddings.T)[i, j]
        thresholds.append(threshold_at_far(scores[~genuine], far))
        accepted.append(scores[genuine] >= thresholds[-1])
    owner = identities[i[genuine]]
    size = int(identities.max()) + 1
    lost = np.bincount(owner, accepted[0].astype(float) - accepted[1].astype(float), size)
    total = np.bincount(owner, minlength=size).astype(float)
    present = total > 0
    lost, total = lost[present], total[present]
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(total), (RESAMPLES, len(total)))
    drops = 100.0 * lost[drawn].sum(axis=1) / total[drawn].sum(axis=1)
    low, high = np.quantile(drops, [(1 - level) / 2, (1 + level) / 2])
    value = 100.0 * lost.sum() / total.sum()
    # Where no pair changed sides the bootstrap has nothing to draw; the pairs' own bound then stands.
    bound = 100.0 * paired_difference(0, 0, int(present.sum()))[1]
    return Drop(
        f"TAR at FAR {far:g}",
        float(accepted[0].mean()),
        float(accepted[1].mean()),
        Interval(value, float(min(low, value)), float(high) if lost.any() else bound, level),
        len(owner),
        (thresholds[0], thresholds[1]),
    )


def rank_flips(reference: Floats, variant: Floats) -> int:
    """How many pictures have another nearest one by the variant than by the reference. Both: (M, D) unit rows."""
    nearest = []
    for embeddings in (reference, variant):
        scores = embeddings @ embeddings.T
        np.fill_diagonal(scores, -2.0)
        nearest.append(scores.argmax(axis=1))
    return int((nearest[0] != nearest[1]).sum())


def require_inside(name: str, drops: Sequence[Drop], max_drop: float) -> None:
    """Raises GateError unless every drop's whole interval is at most `max_drop` points."""
    for drop in drops:
        if drop.points.low > max_drop:
            raise GateError(f"{name}: {drop}, the budget is {max_drop:g}; nothing was written")
        if drop.points.high > max_drop:
            raise GateError(
                f"{name}: {drop}: too few pairs to decide whether that is within the budget of {max_drop:g}; "
                "evaluate on more pairs, or widen the budget; nothing was written"
            )


def paired_difference(lost: int, won: int, count: int) -> tuple[float, float]:
    """95 % interval of the difference of two paired proportions by Tango's score method (Statistics in Medicine, 1998).

    lost: pairs only the first got right; won: only the second; count: all pairs. It stays honest at 0 discordant pairs,
    where Wald's interval shrinks to a point.
    """

    def excess(difference: float) -> float:
        a = 2.0 * count
        b = -lost - won + (2.0 * count - lost + won) * difference
        c = -won * difference * (1.0 - difference)
        q = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
        spread = count * (2.0 * q + difference * (1.0 - difference))
        return (lost - won - count * difference) / math.sqrt(max(spread, 1e-30))

    estimate = (lost - won) / count
    return (
        _root(lambda d: excess(d) - Z, -1.0 + 1e-12, estimate),
        _root(lambda d: excess(d) + Z, estimate, 1.0 - 1e-12),
    )


def _root(function: Any, low: float, high: float) -> float:
    """Where a falling function crosses zero, by bisection."""
    for _ in range(200):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
