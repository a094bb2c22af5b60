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
from edge.metrics.pairs import Pair
from edge.metrics.verification import det_curve, kfold_accuracy, resolution, tar_at_far
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
    row = embeddings.positions()
    first = np.array([row[located[pair.first]] for pair in pairs])
    second = np.array([row[located[pair.second]] for pair in pairs])
    same = np.array([pair.same for pair in pairs])
    folds = np.array([pair.fold for pair in pairs])
    people = np.array([pair.first.parent.name for pair in pairs])
    others = np.array([pair.second.parent.name for pair in pairs])
    variants: dict[str, Any] = {}
    correct: dict[str, npt.NDArray[np.bool_]] = {}
    for label, vectors in embeddings.vectors.items():
        scores = pair_scores(vectors, embeddings.found[label], first, second)
        accuracy = kfold_accuracy(scores, same, folds)
        correct[label] = accuracy.correct
        genuine, impostor = scores[same], scores[~same]
        variants[label] = {
            "accuracy": accuracy.accuracy.to_dict(),
            "folds": [round(value, 6) for value in accuracy.folds],
            "standard_error": accuracy.standard_error,
            "thresholds": list(accuracy.thresholds),
            "tar_at_far": [far_row(tar_at_far(genuine, impostor, far)) for far in FARS],
            "at_bundle_threshold": _at_threshold(genuine, impostor, thresholds.get(label)),
            "no_face": int((~embeddings.found[label][first] | ~embeddings.found[label][second]).sum()),
            "det": curve(*det_curve(genuine, impostor, points=120)),
            "wrong": np.flatnonzero(~accuracy.correct).tolist(),
        }
    _, codes = np.unique(np.concatenate([people, others]), return_inverse=True)
    for label, figures in variants.items():
        if label != baseline:
            loss = accuracy_difference(
                correct[baseline], correct[label], codes[: len(pairs)], codes[len(pairs) :], seed=seed
            )
            figures["against_baseline"] = {
                "loss": loss.to_dict(),
                "mcnemar": mcnemar(correct[baseline], correct[label]).to_dict(),
            }
    return {
        "pairs": len(pairs),
        "genuine": int(same.sum()),
        "impostor": int((~same).sum()),
        "folds": len(np.unique(folds)),
        "identities": len(np.unique(codes)),
        "resolution": resolution(int((~same).sum())),
        "variants": variants,
        "errors_by_identity": identity_errors(people, correct),
    }


def pair_scores(
    vectors: Floats,
    found: npt.NDArray[np.bool_],
    first: npt.NDArray[np.integer[Any]],
    second: npt.NDArray[np.integer[Any]],
) -> Floats:
    """(P,) float32 cosines of rows `first` and `second`; NO_FACE where one of them holds none."""
    scores = np.einsum("ij,ij->i", vectors[first], vectors[second]).astype(np.float32)
    return np.where(found[first] & found[second], scores, np.float32(NO_FACE))


def _at_threshold(genuine: Floats, impostor: Floats, threshold: float | None) -> dict[str, Any] | None:
    if threshold is None:
        return None
    return {
        "threshold": threshold,
        "tar": Rate.of(int((genuine >= threshold).sum()), len(genuine)).to_dict(),
        "far": Rate.of(int((impostor >= threshold).sum()), len(impostor)).to_dict(),
    }
