"""Embeddings of many pictures as one .npz file, for evaluations by others."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.analyze import FaceAnalyzer
from edge.errors import InputError
from edge.pictures import read_picture
from edge.types import Face, Floats


@dataclass(frozen=True, slots=True)
class EmbeddingTable:
    """A row for each face, or for a picture without one.

    path: (N,) str as given; box: (N, 4) float32 pixels x1 y1 x2 y2; landmarks: (N, 5, 2) float32 pixels; score: (N,)
    float32; embedding: (N, D) float32 unit rows; found: (N,) bool. Where `found` is false the numbers are zeros.
    """

    path: npt.NDArray[np.str_]
    box: Floats
    landmarks: Floats
    score: Floats
    embedding: Floats
    found: npt.NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Writes the arrays by these names, whole or not at all. Raises InputError."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    path=self.path,
                    box=self.box,
                    landmarks=self.landmarks,
                    score=self.score,
                    embedding=self.embedding,
                    found=self.found,
                )
            temporary.replace(path)
        except (OSError, zipfile.BadZipFile) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be written ({reason})") from error
        finally:
            temporary.unlink(missing_ok=True)


def embed_pictures(
    analyzer: FaceAnalyzer,
    pictures: Sequence[Path],
    *,
    all_faces: bool = False,
    progress: Callable[[], object] = lambda: None,
    unreadable: Callable[[str], object] = lambda message: None,
) -> EmbeddingTable:
    """The face each picture is about, or every face in it, in the order of `pictures`, best face first.

    progress is called after each picture; unreadable gets the message for one that cannot be read, which keeps its row.
    """
    paths: list[str] = []
    faces: list[Face | None] = []
    vectors: list[Floats] = []
    for path in pictures:
        found: list[Face] = []
        try:
            image = read_picture(path)
        except InputError as error:
            unreadable(str(error))
        else:
            found = analyzer.refine(image, analyzer.detect(image)) if all_faces else []
            if not found and (main := analyzer.main_face(image)) is not None:
                found = [main]
            vectors += list(analyzer.embed(analyzer.align(image, found)))
        paths += [str(path)] * max(1, len(found))
        faces += found or [None]
        progress()
    return _table(paths, faces, vectors, analyzer.embedder.embedding_size)


def _table(paths: Sequence[str], faces: Sequence[Face | None], vectors: Sequence[Floats], size: int) -> EmbeddingTable:
    count = len(paths)
    table = EmbeddingTable(
        path=np.array(paths, np.str_),
        box=np.zeros((count, 4), np.float32),
        landmarks=np.zeros((count, 5, 2), np.float32),
        score=np.zeros(count, np.float32),
        embedding=np.zeros((count, size), np.float32),
        found=np.array([face is not None for face in faces], np.bool_),
    )
    rest = iter(vectors)
    for i, face in enumerate(faces):
        if face is not None:
            table.box[i], table.landmarks[i], table.score[i] = face.box, face.landmarks, face.score
            table.embedding[i] = next(rest)
    return table
