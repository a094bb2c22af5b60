"""Same person or not: accuracy by folds, TAR at FAR, thresholds, the DET curve. At or above a threshold is accepted.

Intervals of rates are Clopper–Pearson's and take pairs as independent. Pairs that share a picture are not; where all
pairs of a set are scored, the interval is a lower bound on the doubt (`benchmarks` draws identities instead).
A threshold is a number of the scores' own dtype: NumPy rounds it to that before it compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import InputError
from edge.metrics.intervals import Rate

Scores = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class KFoldAccuracy:
    """accuracy: over the pairs of all folds, each judged at a threshold fitted on the other folds.

    folds, thresholds: accuracy of each fold and the threshold it was judged at. correct: (N,) bool, pair by pair.
    """

    accuracy: Rate
    folds: tuple[float, ...]
    thresholds: tuple[float, ...]
    correct: Bools

    @property
    def standard_error(self) -> float:
        """Of the mean over folds, the figure LFW tables give after ±; 0 for a single fold."""
        if len(self.folds) < 2:
            return 0.0
        return float(np.std(self.folds, ddof=1) / np.sqrt(len(self.folds)))


@dataclass(frozen=True, slots=True)
class TarAtFar:
    """TAR at a false accept rate asked for.

    threshold, tar, far_measured: None where `refusal` says why the data cannot give them. far_measured: the share of
    impostor pairs really accepted at the threshold, at or below `far`, with the interval the threshold's own FAR has.
    """

    far: float
    threshold: float | None
    tar: Rate | None
    far_measured: Rate | None
    refusal: str | None = None


def kfold_accuracy(scores: Scores, same: Bools, folds: Indices) -> KFoldAccuracy:
    """Accuracy over folds, the threshold of each fitted on the others (the protocol of LFW: Huang et al., 2007).

    scores: (N,) similarities; same: (N,) bool; folds: (N,) integers. Raises InputError for fewer than two folds.
    """
    _require_scores(scores)
    names = np.unique(folds)
    if len(names) < 2:
        raise InputError("accuracy by folds needs two folds or more: a threshold fitted on its own test is no measure")
    correct = np.zeros(len(scores), dtype=np.bool_)
    accuracies, thresholds = [], []
    for name in names:
        test = folds == name
        threshold = best_threshold(scores[~test], same[~test])
        correct[test] = (scores[test] >= threshold) == same[test]
        accuracies.append(float(correct[test].mean()))
        thresholds.append(threshold)
    return KFoldAccuracy(Rate.of(int(correct.sum()), len(scores)), tuple(accuracies), tuple(thresholds), correct)


def best_threshold(scores: Scores, same: Bools) -> float:
    """The threshold of highest accuracy, halfway between two scores; of several equally good ones the middle one.

    scores: (N,) similarities; same: (N,) bool.
    """
    _require_scores(scores)
    order = np.argsort(scores, kind="stable")
    ordered, genuine = scores[order], same[order]
    # Cutting before position i rejects the i lowest: right for the impostors below, and for the genuine pairs above.
    right = np.concatenate([[0], np.cumsum(~genuine)]) + genuine.sum() - np.concatenate([[0], np.cumsum(genuine)])
    # A cut between equal scores does not exist.
    possible = np.concatenate([[True], ordered[1:] > ordered[:-1], [True]])
    best = np.flatnonzero(possible & (right == right[possible].max()))
    cut = int(best[len(best) // 2])
    if cut == 0:
        return float(ordered[0])
    if cut == len(ordered):
        return _above(ordered[-1])
    return _between(ordered[cut - 1], ordered[cut])


def resolution(impostor_pairs: int) -> str:
    """What FAR this many impostor pairs can show, in words."""
    return f"{impostor_pairs:,} impostor pairs: a FAR below {1.0 / max(1, impostor_pairs):.1e} cannot be read off"


def threshold_at_far(impostor: Scores, far: float) -> float:
    """The lowest threshold at which at most `far` of the impostor scores are accepted.

    It lies halfway between the last score accepted and the first refused. Raises ValueError for a FAR outside (0, 1),
    InputError where there are fewer than 1 / far impostor pairs: such a FAR cannot be read off them.
    """
    if not 0.0 < far < 1.0:
        raise ValueError(f"a FAR lies in (0, 1), not {far}")
    _require_scores(impostor)
    count = len(impostor)
    # 1e-3 of 3,000 is 3 although the product falls short of it in binary.
    accepted = int(np.floor(far * count * (1 + 1e-12)))
    if accepted < 1:
        needed = int(np.ceil(1 / far))
        raise InputError(
            f"too few impostor pairs for FAR {far:g}: {resolution(count)}; measure with {needed:,} or more"
        )
    # Only the top matters: partition instead of sorting millions.
    top = np.partition(impostor, count - accepted - 1)[count - accepted - 1 :]
    refused = top.min()
    above = top[top > refused]
    return _between(refused, above.min()) if len(above) else _above(refused)


def tar_at_far(genuine: Scores, impostor: Scores, far: float) -> TarAtFar:
    """The share of genuine pairs accepted at the threshold of a FAR; a refusal in words where pairs are too few.

    genuine: (G,) similarities of pairs of one person; impostor: (I,) of two people; far: within (0, 1).
    """
    _require_scores(genuine)
    try:
        threshold = threshold_at_far(impostor, far)
    except InputError as error:
        return TarAtFar(far, None, None, None, str(error))
    return TarAtFar(
        far,
        threshold,
        Rate.of(int((genuine >= threshold).sum()), len(genuine)),
        Rate.of(int((impostor >= threshold).sum()), len(impostor)),
    )


def det_curve(genuine: Scores, impostor: Scores, points: int = 200) -> tuple[Scores, Scores, Scores]:
    """Thresholds, FAR and FRR, (K,) float64 each, from FAR 1 down to 1 / impostor pairs, evenly spaced in log FAR."""
    _require_scores(genuine)
    _require_scores(impostor)
    ordered, own = np.sort(impostor), np.sort(genuine)
    count = len(ordered)
    ranks = np.unique(np.round(np.geomspace(1, count, points)).astype(np.int64))[::-1]
    # The threshold is the k-th highest impostor score, so that at least k of them are accepted.
    thresholds = ordered[count - ranks].astype(np.float64)
    far = (count - np.searchsorted(ordered, thresholds, side="left")) / count
    frr = np.searchsorted(own, thresholds, side="left") / len(own)
    return thresholds, far, frr


def _between(low: np.floating[Any], high: np.floating[Any]) -> float:
    middle = low + (high - low) / low.dtype.type(2)
    return float(middle if low < middle else high)


def _above(score: np.floating[Any]) -> float:
    return float(score + 2 * np.spacing(max(abs(score), score.dtype.type(0.1))))


def _require_scores(scores: Scores) -> None:
    if scores.ndim != 1 or len(scores) == 0:
        raise InputError(f"scores are one row of numbers; here is an array of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise InputError("scores hold NaN or infinity; the embeddings are damaged")
