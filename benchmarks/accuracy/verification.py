"""Verification on LFW-style pairs: k-fold accuracy, TAR at FAR, the bundle's threshold, and what a variant loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy.embeddings import Embeddings
from benchmarks.accuracy.rows import curve, far_row, identity_errors
from benchmarks.statistics import accuracy_difference, mcnemar
from edge.metrics.intervals import Rate
from edge.metrics.pairs import Pair, PairRows
from edge.metrics.verification import KFoldAccuracy, det_curve, kfold_accuracy, resolution, tar_at_far
from edge.types import Floats

FARS = (1e-2, 1e-3, 1e-4)
NO_FACE = -1.0
"""Score of a pair with a picture in which no face was found: a verifier can only refuse it."""


def verify_pairs(
    pairs: Sequence[Pair],
    located: Mapping[Any, Path],
    embeddings: Embeddings,
    thresholds: Mapping[str, float | None],
    baseline: str,
    seed: int = 0,
) -> dict[str, Any]:
    """JSON-ready figures of every variant. located: where each picture of the pairs lies. thresholds: the bundle's."""
    position = embeddings.positions()
    rows = PairRows.of(pairs, {name: position[path] for name, path in located.items()})
    owners = owners_of(pairs)
    variants: dict[str, Any] = {}
    correct: dict[str, npt.NDArray[np.bool_]] = {}
    for label, vectors in embeddings.vectors.items():
        found = embeddings.found[label]
        scores = pair_scores(vectors, found, rows)
        accuracy = kfold_accuracy(scores, rows.same, rows.folds)
        correct[label] = accuracy.correct
        no_face = int((~found[rows.first] | ~found[rows.second]).sum())
        variants[label] = _figures(accuracy, scores[rows.same], scores[~rows.same], thresholds.get(label), no_face)
    for label, figures in variants.items():
        if label != baseline:
            loss = accuracy_difference(correct[baseline], correct[label], owners[:, 0], owners[:, 1], seed=seed)
            figures["against_baseline"] = {
                "loss": loss.to_dict(),
                "mcnemar": mcnemar(correct[baseline], correct[label]).to_dict(),
            }
    impostors = int((~rows.same).sum())
    return {
        "pairs": len(pairs),
        "genuine": int(rows.same.sum()),
        "impostor": impostors,
        "folds": len(np.unique(rows.folds)),
        "identities": len(np.unique(owners)),
        "resolution": resolution(impostors),
        "variants": variants,
        "errors_by_identity": identity_errors(np.array([pair.first.parent.name for pair in pairs]), correct),
    }


def _figures(
    accuracy: KFoldAccuracy, genuine: Floats, impostor: Floats, threshold: float | None, no_face: int
) -> dict[str, Any]:
    return {
        "accuracy": accuracy.accuracy.to_dict(),
        "folds": [round(value, 6) for value in accuracy.folds],
        "standard_error": accuracy.standard_error,
        "thresholds": list(accuracy.thresholds),
        "tar_at_far": [far_row(tar_at_far(genuine, impostor, far)) for far in FARS],
        "at_bundle_threshold": _at_threshold(genuine, impostor, threshold),
        "no_face": no_face,
        "det": curve(*det_curve(genuine, impostor, points=120)),
        "wrong": np.flatnonzero(~accuracy.correct).tolist(),
    }


def owners_of(pairs: Sequence[Pair]) -> npt.NDArray[np.int64]:
    """(P, 2) whom the two pictures of each pair show, as integers; pictures of one folder show one person."""
    names = np.array([[pair.first.parent.name, pair.second.parent.name] for pair in pairs])
    return np.unique(names, return_inverse=True)[1].reshape(-1, 2).astype(np.int64)


def pair_scores(vectors: Floats, found: npt.NDArray[np.bool_], rows: PairRows) -> Floats:
    """(P,) float32 cosines of the pairs' rows of `vectors`, (N, D); NO_FACE where one of them is not `found`, (N,)."""
    scores = np.einsum("ij,ij->i", vectors[rows.first], vectors[rows.second]).astype(np.float32)
    return np.where(found[rows.first] & found[rows.second], scores, np.float32(NO_FACE))


def _at_threshold(genuine: Floats, impostor: Floats, threshold: float | None) -> dict[str, Any] | None:
    if threshold is None:
        return None
    return {
        "threshold": threshold,
        "tar": Rate.of(int((genuine >= threshold).sum()), len(genuine)).to_dict(),
        "far": Rate.of(int((impostor >= threshold).sum()), len(impostor)).to_dict(),
    }
