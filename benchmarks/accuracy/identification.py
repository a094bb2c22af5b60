"""Identities in folders: rank-1, TAR at FAR over all pairs, open-set search, and what a variant loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy.embeddings import Embeddings
from benchmarks.accuracy.rows import curve, far_row, identity_errors
from benchmarks.statistics import MIN_IDENTITIES, accuracy_difference, mcnemar
from benchmarks.tar import pair_tail, tar_draws, tar_interval
from edge.errors import InputError
from edge.metrics.identification import RankOne, open_set, rank_one
from edge.metrics.pairs import LabelledImage
from edge.metrics.scores import all_pair_scores, pair_counts
from edge.metrics.verification import det_curve, resolution, tar_at_far
from edge.types import Floats

FARS = (1e-2, 1e-3, 1e-4)
FPIRS = (1e-1, 1e-2)


def identify(images: Sequence[LabelledImage], embeddings: Embeddings, baseline: str, seed: int = 0) -> dict[str, Any]:
    """JSON-ready figures of every variant. Pictures in which a detector found no face are left out, and counted.

    Where each variant has its own detector, the pictures all of them found a face in are compared.
    """
    row = embeddings.positions()
    rows = np.array([row[image.path] for image in images])
    names = np.array([image.identity for image in images])
    usable = np.logical_and.reduce([found[rows] for found in embeddings.found.values()])
    rows, names = rows[usable], names[usable]
    known, labels = np.unique(names, return_inverse=True)
    genuine, impostor = pair_counts(labels)
    if genuine == 0 or impostor == 0:
        raise InputError("the identities need two pictures of one person, and two people, in which a face is found")
    variants: dict[str, Any] = {}
    hits: dict[str, RankOne] = {}
    draws: dict[str, Any] = {}
    for label, every in embeddings.vectors.items():
        vectors = every[rows]
        hits[label] = rank_one(vectors, labels)
        draws[label] = _tar_draws(vectors, labels, impostor, len(known), seed)
        variants[label] = _figures(vectors, labels, hits[label], draws[label], seed)
        variants[label]["no_face"] = int((~embeddings.found[label][[row[image.path] for image in images]]).sum())
    for label, figures in variants.items():
        if label != baseline:
            figures["against_baseline"] = _against(hits, draws, variants, labels, baseline, label, seed)
    people = names[hits[baseline].probes]
    return {
        "pictures": len(images),
        "pictures_used": len(rows),
        "identities": len(known),
        "genuine": genuine,
        "impostor": impostor,
        "resolution": resolution(impostor),
        "by_identity": len(known) >= MIN_IDENTITIES,
        "variants": variants,
        "errors_by_identity": identity_errors(people, {label: found.hits for label, found in hits.items()}),
    }


def _figures(vectors: Floats, labels: npt.NDArray[np.int64], found: RankOne, draws: Any, seed: int) -> dict[str, Any]:
    pairs = all_pair_scores(vectors, labels)
    rows = []
    for f, far in enumerate(FARS):
        tar = tar_at_far(pairs.genuine, pairs.impostor, far)
        interval = None if draws is None or tar.tar is None else tar_interval(tar.tar.value, draws[:, f])
        rows.append(far_row(tar, interval))
    return {
        "rank_one": found.rate.to_dict(),
        "tar_at_far": rows,
        "open_set": _open_set(vectors, labels, seed),
        "det": curve(*det_curve(pairs.genuine, pairs.impostor, points=200)),
    }


def _tar_draws(
    vectors: Floats, labels: npt.NDArray[np.int64], impostors: int, identities: int, seed: int
) -> npt.NDArray[np.float64] | None:
    if identities < MIN_IDENTITIES:
        return None
    usable = tuple(far for far in FARS if far * impostors >= 1)
    if not usable:
        return None
    draws = tar_draws(pair_tail(vectors, labels, max(usable)), FARS, seed)
    return np.asarray(draws, np.float64)


def _open_set(vectors: Floats, labels: npt.NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Half of the people with two pictures enrolled with one each, the rest strangers; the same for each variant."""
    sizes = np.bincount(labels)
    able = np.flatnonzero(sizes > 1)
    random = np.random.default_rng(seed)
    enrolled = random.permutation(able)[: max(1, len(able) // 2)]
    gallery = np.array([random.choice(np.flatnonzero(labels == person)) for person in enrolled])
    probes = np.setdiff1d(np.arange(len(labels)), gallery)
    strangers = int((~np.isin(labels[probes], enrolled)).sum())
    result: dict[str, Any] = {
        "enrolled": len(enrolled),
        "probes": len(probes) - strangers,
        "strangers": strangers,
        "rows": [],
    }
    for fpir in FPIRS:
        try:
            found = open_set(vectors[gallery], labels[gallery], vectors[probes], labels[probes], fpir=fpir)
        except InputError as error:
            result["rows"].append({"fpir": fpir, "fnir": None, "fpir_measured": None, "refusal": str(error)})
            continue
        result["rows"].append(
            {
                "fpir": fpir,
                "fnir": found.fnir.to_dict(),
                "fpir_measured": found.fpir.to_dict(),
                "threshold": found.threshold,
                "refusal": None,
            }
        )
    return result


def _against(
    hits: dict[str, RankOne],
    draws: dict[str, Any],
    variants: dict[str, Any],
    labels: npt.NDArray[np.int64],
    baseline: str,
    label: str,
    seed: int,
) -> dict[str, Any]:
    probes = hits[baseline].probes
    tar_loss = []
    for f, far in enumerate(FARS):
        values = [variants[name]["tar_at_far"][f]["tar"] for name in (baseline, label)]
        interval = None
        if draws[baseline] is not None and all(value is not None for value in values):
            value = values[0]["value"] - values[1]["value"]
            interval = tar_interval(value, draws[baseline][:, f] - draws[label][:, f])
        tar_loss.append({"far": far, "loss": None if interval is None else interval.to_dict()})
    return {
        "rank_one_loss": accuracy_difference(
            hits[baseline].hits, hits[label].hits, labels[probes], seed=seed
        ).to_dict(),
        "rank_one_mcnemar": mcnemar(hits[baseline].hits, hits[label].hits).to_dict(),
        "tar_loss": tar_loss,
    }
