"""The pictures of an evaluation, embedded by every variant from the same faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.align import align
from edge.analyze import FaceAnalyzer
from edge.errors import InputError
from edge.pictures import read_picture
from edge.types import Floats, Image

_CHUNK = 16
"""Pictures read, detected and embedded at once: an engine keeps the activations of its largest batch."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """vectors: by variant (N, D) float32 unit rows, zeros where no face was found. found: by variant (N,) bool.

    own_detector: whether each variant found its faces itself; else all embed those that the baseline found.
    """

    paths: tuple[Path, ...]
    vectors: dict[str, Floats]
    found: dict[str, npt.NDArray[np.bool_]]
    own_detector: bool

    def positions(self) -> dict[Path, int]:
        """Row of each picture."""
        return {path: row for row, path in enumerate(self.paths)}


def embed_pictures(
    analyzers: Mapping[str, FaceAnalyzer],
    baseline: str,
    paths: Sequence[Path],
    own_detector: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Embeddings:
    """Finds the main face of each picture, aligns it once, and embeds the crop with every variant.

    With `own_detector`, each variant finds the face itself. Raises InputError for an unreadable picture, or where no
    picture shows a face.
    """
    unique = tuple(dict.fromkeys(paths))
    vectors = {
        label: np.zeros((len(unique), analyzer.embedder.embedding_size), np.float32)
        for label, analyzer in analyzers.items()
    }
    found = {label: np.zeros(len(unique), np.bool_) for label in analyzers}
    for start in range(0, len(unique), _CHUNK):
        images = [read_picture(path) for path in unique[start : start + _CHUNK]]
        shared = None if own_detector else _main_crops(analyzers[baseline], images)
        for label, analyzer in analyzers.items():
            rows, crops = shared if shared is not None else _main_crops(analyzer, images)
            if len(rows):
                vectors[label][rows + start] = analyzer.embed(crops)
                found[label][rows + start] = True
        if progress:
            progress(min(1.0, (start + _CHUNK) / len(unique)))
    if not found[baseline].any():
        raise InputError(f"no face was found in any of the {len(unique):,} pictures; give pictures of faces")
    return Embeddings(unique, vectors, found, own_detector)


def _main_crops(analyzer: FaceAnalyzer, images: Sequence[Image]) -> tuple[npt.NDArray[np.int64], Image]:
    rows, crops = [], []
    for i, image in enumerate(images):
        face = analyzer.main_face(image)
        if face is not None:
            rows.append(i)
            crops.append(align(image, face.landmarks))
    return np.array(rows, np.int64), np.stack(crops) if crops else np.zeros((0, 112, 112, 3), np.uint8)
