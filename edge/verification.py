"""Whether two pictures show one person."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.analyze import FaceAnalyzer
from edge.detect import same_face
from edge.errors import InputError
from edge.pictures import read_picture
from edge.types import Face, Floats


@dataclass(frozen=True, slots=True)
class Portrait:
    """What was taken of a picture: the face it is about, that face's (D,) unit vector, and how many faces there are."""

    path: Path
    face: Face
    vector: Floats
    faces: int

    def words(self) -> str:
        """How many faces there are, and which was taken."""
        left, top, right, bottom = (round(float(value)) for value in self.face.box)
        return (
            f"{self.path}: {self.faces} faces; taken is the one the picture is about, x {left} to {right}, "
            f"y {top} to {bottom}"
        )


@dataclass(frozen=True, slots=True)
class Verification:
    """similarity: cosine of the two faces, [-1, 1]; they count as one person from `threshold` on. Of `portraits`."""

    similarity: float
    threshold: float
    portraits: tuple[Portrait, Portrait]

    @property
    def same(self) -> bool:
        """Whether the similarity reaches the threshold."""
        return self.similarity >= self.threshold


def verify(
    analyzer: FaceAnalyzer, first: Path, second: Path, threshold: float, *, strict: bool = False
) -> Verification:
    """Compares the faces two pictures are about.

    Raises InputError where one cannot be read or shows no face, and when strict also where it shows several.
    """
    portraits = look(analyzer, first), look(analyzer, second)
    for portrait in portraits:
        if strict and portrait.faces > 1:
            raise InputError(f"{portrait.path}: {portrait.faces} faces; cut out the one meant, or leave --strict out")
    similarity = float(portraits[0].vector @ portraits[1].vector)
    return Verification(max(-1.0, min(1.0, similarity)), threshold, portraits)


def look(analyzer: FaceAnalyzer, path: Path) -> Portrait:
    """The face a picture is about. Raises InputError."""
    image = read_picture(path)
    face = analyzer.main_face(image)
    if face is None:
        raise InputError(f"{path}: no face found; the face needs about 20 pixels and to be seen from the front")
    others = [other for other in analyzer.detect(image) if not same_face(other, face)]
    return Portrait(path, face, analyzer.embed(analyzer.align(image, [face]))[0], 1 + len(others))
