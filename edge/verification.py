"""Whether two pictures show one person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.analyze import FaceAnalyzer
from edge.errors import InputError
from edge.pictures import read_picture
from edge.types import Floats


@dataclass(frozen=True, slots=True)
class Verification:
    """similarity: cosine of the two faces, [-1, 1]; they count as one person from `threshold` on."""

    similarity: float
    threshold: float

    @property
    def same(self) -> bool:
        """Whether the similarity reaches the threshold."""
        return self.similarity >= self.threshold


def verify(analyzer: FaceAnalyzer, first: Path, second: Path, threshold: float) -> Verification:
    """Compares the faces two pictures are about. Raises InputError where one cannot be read or shows no face."""
    similarity = float(embed_main_face(analyzer, first) @ embed_main_face(analyzer, second))
    return Verification(max(-1.0, min(1.0, similarity)), threshold)


def embed_main_face(analyzer: FaceAnalyzer, path: Path) -> Floats:
    """(D,) unit vector of the face a picture is about. Raises InputError."""
    image = read_picture(path)
    face = analyzer.main_face(image)
    if face is None:
        raise InputError(f"{path}: no face found; the face needs about 20 pixels and to be seen from the front")
    vector: Floats = analyzer.embed(analyzer.align(image, [face]))[0]
    return vector
