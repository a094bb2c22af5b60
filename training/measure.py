"""The figures of a card: base and fine-tuned network side by side, on the test photos, on strangers, on pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from edge.errors import InputError
from edge.metrics.verification import KFoldAccuracy
from edge.pictures import find_pictures
from edge.types import Floats, Image
from training.embedding import embed
from training.evaluate import (
    ClosedSet,
    OpenSet,
    PairPhotos,
    centroids,
    closed_set,
    open_set,
    read_pair_photos,
    stranger_threshold,
)
from training.faces import AlignedFaces, align_files
from training.mobilefacenet import MobileFaceNet
from training.prepare import Prepared, TrainingJob

FPIR = 0.005
"""Share of the strangers a threshold is fitted on that may be named: half of what strangers in the field may be."""

NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class NetworkFigures:
    """One network: test photos by the centroids of the training photos; strangers; pairs. None: not measured."""

    by_centroid: ClosedSet | None
    open_set: OpenSet | None
    pairs: KFoldAccuracy | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "closed_set_by_centroid": self.by_centroid.to_dict() if self.by_centroid else NOT_MEASURED,
            "open_set": self.open_set.to_dict() if self.open_set else NOT_MEASURED,
            "pairs": self.pairs.accuracy.to_dict() if self.pairs else NOT_MEASURED,
        }


@dataclass(frozen=True, slots=True)
class Measurements:
    """closed_set: by the head that was trained. `notes`: what stands behind the figures, or why one is missing."""

    closed_set: ClosedSet | None
    tuned: NetworkFigures
    base: NetworkFigures
    notes: tuple[str, ...]

    @property
    def pairs_lost(self) -> float | None:
        """Points of verification accuracy that fine-tuning lost; negative where it won."""
        if self.tuned.pairs is None or self.base.pairs is None:
            return None
        return 100 * (self.base.pairs.accuracy.value - self.tuned.pairs.accuracy.value)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        lost = self.pairs_lost
        return {
            "closed_set_by_head": self.closed_set.to_dict() if self.closed_set else NOT_MEASURED,
            "tuned": self.tuned.to_dict(),
            "base": self.base.to_dict(),
            "pairs_points_lost": NOT_MEASURED if lost is None else round(lost, 3),
            "notes": list(self.notes),
        }


def measure(
    prepared: Prepared,
    job: TrainingJob,
    model: MobileFaceNet,
    head: Tensor,
    *,
    fit_strangers: Image | None,
    device: torch.device,
) -> Measurements:
    """Measures the fine-tuned network and its base.

    head: (D, classes). fit_strangers: (S, 112, 112, 3) crops of people who are neither in the data set nor rehearsed,
    on which the open-set threshold of each network is fitted.
    """
    notes = ["a photo in which no face was found counts as wrong", "distinct_photos counts near-duplicates once"]
    outside = _Outside(job, prepared, notes)
    if fit_strangers is None:
        notes.append("no open-set threshold: it is fitted on rehearsal crops that are held out, and there are none")
    networks = []
    for network in (model, prepared.base):
        network.to(device)
        networks.append(_figures(prepared, network, fit_strangers, outside, notes, device))
    rows = prepared.rows("test")
    by_head = None
    if len(rows):
        axes = F.normalize(head, dim=0).T.numpy()
        by_head = closed_set(
            axes, _embedded(prepared, model, rows, device), prepared.labels[rows], prepared.group_of[rows]
        )
    model.cpu()
    return Measurements(by_head, networks[0], networks[1], tuple(dict.fromkeys(notes)))


def _figures(
    prepared: Prepared,
    network: MobileFaceNet,
    fit_strangers: Image | None,
    outside: _Outside,
    notes: list[str],
    device: torch.device,
) -> NetworkFigures:
    test = prepared.rows("test")
    train = prepared.part("train")
    gallery = embed(network, train.crops, device)
    others = embed(network, outside.faces.crops, device)
    known = _embedded(prepared, network, test, device)
    labels, groups = prepared.labels[test], prepared.group_of[test]
    by_centroid = by_search = None
    if len(test):
        axes = centroids(gallery, train.labels, len(prepared.dataset.identities))
        by_centroid = closed_set(axes, known, labels, groups)
    if len(test) and fit_strangers is not None:
        try:
            threshold = stranger_threshold(gallery, embed(network, fit_strangers, device), FPIR)
            unknown = outside.stranger_embeddings(others)
            by_search = open_set(gallery, train.labels, known, labels, unknown, threshold)
            notes.append(
                f"open-set threshold: lets {FPIR:.1%} of {len(fit_strangers)} held-out rehearsal crops in, "
                f"searched among {len(gallery)} training photos, the nearest deciding"
            )
        except InputError as error:
            notes.append(f"no open-set threshold: {error}")
    return NetworkFigures(by_centroid, by_search, outside.pair_accuracy(others))


def _embedded(prepared: Prepared, network: MobileFaceNet, rows: Any, device: torch.device) -> Floats:
    """(R, D) embeddings of the photos of `rows`, NaN where no face was found."""
    embeddings = embed(network, prepared.faces.crops[rows], device)
    embeddings[~prepared.faces.found[rows]] = np.nan
    return embeddings


class _Outside:
    """Pictures from outside the data set, aligned and embedded once: strangers and pairs are often the same ones."""

    def __init__(self, job: TrainingJob, prepared: Prepared, notes: list[str]) -> None:
        self.strangers: list[Path] = []
        self.pairs: PairPhotos | None = None
        if job.strangers is not None:
            every = find_pictures([job.strangers])
            self.strangers = strangers_among(every, prepared.dataset.identities)
        if job.pairs is not None and job.images is not None:
            self.pairs = read_pair_photos(job.pairs, job.images)
        paths = list(dict.fromkeys([*self.strangers, *(self.pairs.paths if self.pairs else ())]))
        self._row = {path: row for row, path in enumerate(paths)}
        self.faces = _aligned(job, paths)
        if job.strangers is not None:
            found = int(self.faces.found[self._rows(self.strangers)].sum())
            notes.append(
                f"strangers: {len(self.strangers)} pictures, {found} with a face; "
                f"{len(every) - len(self.strangers)} more bear the name of a known person and were left out"
            )
            if not found:
                raise InputError(f"{job.strangers}: no face was found in any picture")
        if self.pairs is not None and job.pairs is not None:
            missed = int((~self.faces.found[self._rows(self.pairs.paths)]).sum())
            notes.append(
                f"pairs: {job.pairs.name}, {len(self.pairs.rows.same)} pairs, {missed} pictures without a face"
            )

    def stranger_embeddings(self, embeddings: Floats) -> Floats:
        """Those of the strangers in whom a face was found. embeddings: of `faces`."""
        rows = self._rows(self.strangers)
        return embeddings[rows[self.faces.found[rows]]]

    def pair_accuracy(self, embeddings: Floats) -> KFoldAccuracy | None:
        """None where no pairs were given. A picture without a face stands as the black crop."""
        return self.pairs.accuracy(embeddings[self._rows(self.pairs.paths)]) if self.pairs is not None else None

    def _rows(self, paths: Sequence[Path]) -> npt.NDArray[np.int64]:
        return np.array([self._row[path] for path in paths], np.int64)


def _aligned(job: TrainingJob, paths: list[Path]) -> AlignedFaces:
    if job.finder is None or not paths:
        return AlignedFaces(np.zeros((0, 112, 112, 3), np.uint8), np.zeros(0, np.bool_))
    return align_files(paths, job.finder.open())


def require_measurable(job: TrainingJob) -> None:
    """Raises InputError where what `measure` will look at is not there or cannot be: it comes last, after hours."""
    if job.strangers is not None:
        find_pictures([job.strangers])
    if job.pairs is not None and job.images is not None:
        read_pair_photos(job.pairs, job.images)
    if job.finder is None and (job.strangers or job.pairs):
        raise InputError("--strangers and --pairs are photos; name the --detector that finds the faces in them")


def strangers_among(pictures: Sequence[Path], identities: Sequence[str]) -> list[Path]:
    """Without the pictures in a folder that bears the name of one of the identities, in whatever case."""
    known = {name.lower() for name in identities}
    return [path for path in pictures if path.parent.name.lower() not in known]
