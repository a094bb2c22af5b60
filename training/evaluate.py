"""What a fine-tuned embedder is worth: known people told apart, strangers turned away, and what it forgot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.errors import InputError
from edge.metrics.identification import best_matches
from edge.metrics.intervals import Rate
from edge.metrics.pairs import PairRows, images_of, read_pairs
from edge.metrics.verification import KFoldAccuracy, kfold_accuracy, threshold_at_far
from edge.types import Floats

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClosedSet:
    """Photos of known people given to the nearest identity.

    photos: of all test photos; distinct: of groups of near-duplicates, right where all of a group are right, because an
    interval takes its trials as independent. predicted: (N,) labels, -1 where no face was found; margin: (N,) cosine to
    the right identity less that to the best other one, NaN where no face was found.
    """

    photos: Rate
    distinct: Rate
    predicted: Labels
    margin: Floats

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready rates."""
        return {"photos": self.photos.to_dict(), "distinct_photos": self.distinct.to_dict()}


@dataclass(frozen=True, slots=True)
class OpenSet:
    """At one threshold: strangers given a name, and known people given their own name."""

    threshold: float
    strangers_named: Rate | None
    known_named: Rate

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready rates; "not measured" without strangers."""
        named = self.strangers_named.to_dict() if self.strangers_named else "not measured"
        return {"threshold": self.threshold, "strangers_named": named, "known_named_right": self.known_named.to_dict()}


def centroids(embeddings: Floats, labels: Labels, classes: int) -> Floats:
    """(classes, D) unit means of the unit rows of each class."""
    sums = np.stack([embeddings[labels == label].sum(axis=0) for label in range(classes)])
    unit: Floats = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12).astype(np.float32)
    return unit


def closed_set(axes: Floats, embeddings: Floats, labels: Labels, groups: npt.NDArray[np.int64]) -> ClosedSet:
    """Gives each test photo to the nearest axis.

    axes: (classes, D) unit rows, centroids or a head's columns; embeddings: (N, D) unit rows, NaN where no face was
    found; labels, groups: (N,). Raises InputError without test photos.
    """
    if len(embeddings) == 0:
        raise InputError("there is no photo to test on; give the test part of the split a share above 0")
    found = _found(embeddings)
    scores = np.where(found[:, None], embeddings, 0) @ axes.T
    predicted = np.where(found, scores.argmax(axis=1), -1)
    right: npt.NDArray[np.bool_] = predicted == labels
    own = scores[np.arange(len(labels)), labels]
    others = np.where(np.arange(len(axes)) == labels[:, None], -np.inf, scores).max(axis=1)
    distinct = [bool(right[groups == group].all()) for group in np.unique(groups)]
    return ClosedSet(
        Rate.of(int(right.sum()), len(right)),
        Rate.of(sum(distinct), len(distinct)),
        predicted,
        np.where(found, own - others, np.nan).astype(np.float32),
    )


def _found(embeddings: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(embeddings).all(axis=1))


def stranger_threshold(gallery: Floats, strangers: Floats, fpir: float) -> float:
    """The lowest threshold at which at most `fpir` of the strangers come close enough to anybody in the gallery.

    gallery: (G, D), strangers: (S, D), unit rows. Raises InputError where the strangers are too few for this FPIR.
    """
    return threshold_at_far(best_matches(gallery, strangers)[0], fpir)


def open_set(
    gallery: Floats, gallery_labels: Labels, known: Floats, labels: Labels, strangers: Floats, threshold: float
) -> OpenSet:
    """Searches test photos and strangers among the training photos, the nearest photo deciding, as the runtime does.

    known: (N, D) rows, NaN where no face was found, which counts as not named; strangers: (S, D) unit rows.
    """
    found = _found(known)
    best, row = best_matches(gallery, np.where(found[:, None], known, 0).astype(np.float32))
    named = found & (best >= threshold) & (gallery_labels[row] == labels)
    rate = None
    if len(strangers):
        rate = Rate.of(int((best_matches(gallery, strangers)[0] >= threshold).sum()), len(strangers))
    return OpenSet(threshold, rate, Rate.of(int(named.sum()), len(named)))


@dataclass(frozen=True, slots=True)
class PairPhotos:
    """Pictures of a pairs file: paths (N of them), and the pairs as rows among them."""

    paths: tuple[Path, ...]
    rows: PairRows

    def accuracy(self, embeddings: Floats) -> KFoldAccuracy:
        """Verification accuracy by folds. embeddings: (N, D) unit rows, in the order of `paths`."""
        scores = np.einsum("ij,ij->i", embeddings[self.rows.first], embeddings[self.rows.second])
        return kfold_accuracy(scores, self.rows.same, self.rows.folds)


def read_pair_photos(pairs_file: Path, folder: Path) -> PairPhotos:
    """The pictures of an LFW-style pairs file. They measure what training forgot, and nothing else."""
    pairs = read_pairs(pairs_file)
    images = images_of(pairs, folder)
    return PairPhotos(tuple(images.values()), PairRows.of(pairs, {name: i for i, name in enumerate(images)}))
