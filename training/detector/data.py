"""What the detector learns from: pictures with faces, read from folders and archives."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge.errors import InputError
from edge.pictures import decode_picture, read_picture
from edge.types import Floats, Image

MIRRORED = (1, 0, 2, 4, 3)
"""Order of the landmarks in a mirrored picture."""

VALIDATION_EVERY = 10
"""Every tenth scene and every tenth portrait is held out, for choices; training never sees it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image with its faces: boxes (K, 4) x1 y1 x2 y2, landmarks (K, 5, 2), NaN where unknown; pixels, float32."""

    image: Image
    boxes: Floats
    landmarks: Floats


@dataclass(frozen=True, slots=True)
class Pools:
    """What training draws from. scenes: photos with true boxes; portraits: photos the teacher labelled.

    crops: aligned 112×112 face crops; held_out, held_portraits: scenes and portraits for validation.
    """

    scenes: list[Picture]
    portraits: list[Picture]
    crops: list[Picture]
    held_out: list[Picture]
    held_portraits: list[Picture] = field(default_factory=list)


def read_labels(path: Path) -> list[tuple[str, Floats]]:
    """Pictures' names and boxes (K, 4) of a file of `# name width height` lines, each followed by `x1 y1 x2 y2` lines.

    Raises InputError where it cannot be read or does not look so.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); it holds the boxes of the pictures beside it"
        ) from error
    found: list[tuple[str, list[list[float]]]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            found.append((line[1:].strip().rsplit(" ", 2)[0], []))
            continue
        values = line.split()
        if not found or len(values) != 4:
            raise InputError(f"{path}:{number}: neither '# name width height' nor 'x1 y1 x2 y2'")
        found[-1][1].append([float(value) for value in values])
    return [(name, np.array(boxes, np.float32).reshape(-1, 4)) for name, boxes in found]


def read_scenes(folder: Path) -> list[Picture]:
    """The pictures of a folder with `labels.txt`; their landmarks are unknown. Raises InputError."""
    return [
        Picture(read_picture(folder / name), boxes, unknown_landmarks(len(boxes)))
        for name, boxes in read_labels(folder / "labels.txt")
    ]


def is_held_out(name: str, one_in: int) -> bool:
    """Whether a picture of that file name only judges: decided by the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % one_in == 0


def unknown_landmarks(count: int) -> Floats:
    """(count, 5, 2) of NaN."""
    return np.full((count, 5, 2), np.nan, np.float32)


def without_faces(image: Image) -> Picture:
    """A picture of which no face is known."""
    return Picture(image, np.zeros((0, 4), np.float32), unknown_landmarks(0))


def read_zip(path: Path, every: int = 1) -> Iterator[Picture]:
    """The JPEG pictures of a zip archive, or each `every`-th of them, in the archive's order.

    What cannot be decoded is left out. Raises InputError for the archive.
    """
    with _open_zip(path) as archive:
        for name in _jpegs(archive)[::every]:
            try:
                image = decode_picture(np.frombuffer(archive.read(name), np.uint8), path / name)
            except InputError:
                continue
            yield without_faces(image)


def count_pictures(path: Path) -> int:
    """How many JPEG pictures a zip archive holds. Raises InputError."""
    with _open_zip(path) as archive:
        return len(_jpegs(archive))


def _jpegs(archive: zipfile.ZipFile) -> list[str]:
    return [name for name in archive.namelist() if name.lower().endswith(".jpg")]


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a zip archive that can be read ({error})") from error


def mirror(boxes: Floats, landmarks: Floats, width: int) -> tuple[Floats, Floats]:
    """Boxes and landmarks of the mirror image of a picture `width` pixels wide; left stays what is seen on the left.

    boxes: (N, 4) x1 y1 x2 y2 pixels; landmarks: (N, 5, 2) pixels.
    """
    flipped = boxes[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32) + np.array([width, 0, width, 0], np.float32)
    points = landmarks[:, MIRRORED] * np.array([-1, 1], np.float32) + np.array([width - 1, 0], np.float32)
    return flipped, points
