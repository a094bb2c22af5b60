"""Who is it: rank-1 with every picture left out once, and open-set search with strangers among the probes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.errors import InputError
from edge.metrics.intervals import Rate
from edge.metrics.scores import BLOCK, Labels, Positions, require_embeddings
from edge.metrics.verification import threshold_at_far
from edge.types import Floats


@dataclass(frozen=True, slots=True)
class RankOne:
    """rate: probes whose nearest other picture shows the same identity.

    probes: (P,) rows that took part, those whose identity has another picture; hits: (P,) bool.
    """

    rate: Rate
    probes: Positions
    hits: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Open-set identification at one threshold (the rates of NIST's FRTE 1:N, ISO/IEC 19795-1).

    fpir: probes of people not enrolled that came back with a name; fnir: probes of enrolled people that did not come
    back with their own, because it fell below the threshold or another came first.
    """

    threshold: float
    fpir: Rate
    fnir: Rate


def rank_one(embeddings: Floats, labels: Labels, block: int = BLOCK) -> RankOne:
    """Each picture searched among all others. embeddings: (N, D) unit rows; labels: (N,) integers.

    Raises InputError where no identity has two pictures.
    """
    require_embeddings(embeddings, labels)
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    probes = np.flatnonzero(sizes[inverse] > 1)
    if len(probes) == 0:
        raise InputError("no identity has two pictures; rank-1 needs one to search with and one to find")
    hits = np.empty(len(probes), dtype=np.bool_)
    for start in range(0, len(probes), block):
        rows = probes[start : start + block]
        scores = embeddings[rows] @ embeddings.T
        scores[np.arange(len(rows)), rows] = -np.inf
        hits[start : start + block] = labels[scores.argmax(axis=1)] == labels[rows]
    return RankOne(Rate.of(int(hits.sum()), len(hits)), probes, hits)


def best_matches(gallery: Floats, probes: Floats, block: int = BLOCK) -> tuple[Floats, Positions]:
    """For each probe the highest cosine, (P,) float32, and the gallery row it came from, (P,)."""
    best, row = np.empty(len(probes), np.float32), np.empty(len(probes), np.int64)
    for start in range(0, len(probes), block):
        scores = probes[start : start + block] @ gallery.T
        row[start : start + block] = scores.argmax(axis=1)
        best[start : start + block] = scores.max(axis=1)
    return best, row


def open_set(
    gallery: Floats,
    gallery_labels: Labels,
    probes: Floats,
    probe_labels: Labels,
    fpir: float | None = None,
    threshold: float | None = None,
) -> OpenSet:
    """Open-set search of probes, (P, D) unit rows, in a gallery, (G, D) unit rows.

    Probes whose label is not in the gallery are the strangers. Give a threshold, or an `fpir` to fit it on the
    strangers here (optimistic by the strangers it was fitted on; the interval of `OpenSet.fpir` tells how much).
    Raises InputError without strangers or without enrolled probes, or with too few strangers for the FPIR.
    """
    require_embeddings(gallery, gallery_labels)
    require_embeddings(probes, probe_labels)
    if (fpir is None) == (threshold is None):
        raise ValueError("open_set takes either a threshold or an fpir to fit it at")
    enrolled = np.isin(probe_labels, gallery_labels)
    if enrolled.all() or not enrolled.any():
        raise InputError("open-set search needs probes of enrolled people and of strangers")
    best, row = best_matches(gallery, probes)
    strangers = best[~enrolled]
    if threshold is None:
        assert fpir is not None
        threshold = threshold_at_far(strangers, fpir)
    missed = (best[enrolled] < threshold) | (gallery_labels[row[enrolled]] != probe_labels[enrolled])
    return OpenSet(
        threshold,
        fpir=Rate.of(int((strangers >= threshold).sum()), len(strangers)),
        fnir=Rate.of(int(missed.sum()), len(missed)),
    )
