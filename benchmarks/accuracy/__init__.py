"""What a lower precision costs: verification on pairs, identification in folders, drift of the embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy.drift import measure_drift
from benchmarks.accuracy.embeddings import Embeddings, embed_pictures
from benchmarks.accuracy.identification import identify
from benchmarks.accuracy.verification import verify_pairs
from benchmarks.provenance import digest_of_files
from edge.analyze import FaceAnalyzer
from edge.metrics.pairs import LabelledImage, Pair, images_of, read_identities, read_pairs

__all__ = ["Evaluation", "evaluate", "load_evaluation", "measure_drift"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The pictures to measure accuracy on: pairs, identities, or both.

    named: each file by its name in digests; digests: SHA-256 of each.
    """

    pairs: tuple[Pair, ...]
    located: Mapping[Any, Path]
    identities: tuple[LabelledImage, ...]
    digest: str
    digests: Mapping[str, str]
    named: Mapping[str, Path]

    def paths(self) -> list[Path]:
        """Every picture once."""
        return list(dict.fromkeys([*self.located.values(), *(image.path for image in self.identities)]))


def load_evaluation(pairs: Path | None, images: Path | None, identities: Path | None) -> Evaluation | None:
    """Reads the lists, finds every picture and takes its digest; None where nothing to evaluate was named.

    Raises InputError for a broken list or a missing picture.
    """
    if pairs is None and identities is None:
        return None
    listed = read_pairs(pairs) if pairs is not None else ()
    located = images_of(listed, images) if images is not None else {}
    people = read_identities(identities) if identities is not None else ()
    names = {f"{path.parent.name}/{path.name}": path for path in located.values()}
    names |= {f"{image.identity}/{image.path.name}": image.path for image in people}
    digest, digests = digest_of_files(names.items())
    return Evaluation(listed, located, people, digest, digests, names)


def evaluate(
    analyzers: Mapping[str, FaceAnalyzer],
    references: Mapping[str, str],
    evaluation: Evaluation,
    own_detector: bool = False,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """JSON-ready: `pairs`, `identities` (None where not asked for) and `drift`, for every variant.

    references: the label each one's drift is measured from, in the analyzers' order; the first is the baseline.
    """
    baseline = next(iter(references))
    embeddings = embed_pictures(analyzers, baseline, evaluation.paths(), own_detector, progress)
    thresholds = {
        label: analyzer.threshold.similarity if analyzer.threshold else None for label, analyzer in analyzers.items()
    }
    return {
        "faces": _faces_in_words(baseline, own_detector),
        "pictures": len(embeddings.paths),
        "without_face": {label: int((~found).sum()) for label, found in embeddings.found.items()},
        "data_digest": evaluation.digest,
        "pairs": verify_pairs(evaluation.pairs, evaluation.located, embeddings, thresholds, baseline, seed)
        if evaluation.pairs
        else None,
        "identities": identify(evaluation.identities, embeddings, baseline, seed) if evaluation.identities else None,
        "drift": _drift(embeddings, references, seed),
    }


def _drift(embeddings: Embeddings, references: Mapping[str, str], seed: int) -> dict[str, Any]:
    used = np.logical_and.reduce(list(embeddings.found.values()))
    return measure_drift(embeddings.vectors, used, references, seed)


def _faces_in_words(baseline: str, own_detector: bool) -> str:
    if own_detector:
        return "each variant detected and aligned the faces itself: detector and embedder at its own precision"
    return f"detected and aligned once by {baseline}'s detector; every variant embedded the same crops"
