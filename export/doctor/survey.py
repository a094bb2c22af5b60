"""Looks at every picture of a folder or a ZIP once: what names it, its face, and how that face is seen."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from tqdm import tqdm

from edge.align import align
from edge.detect import Detector, find_main_face, same_face
from edge.detect.crops import SCORE_MARGIN
from edge.errors import InputError
from edge.pictures import SUFFIXES, find_pictures
from edge.quality import Quality, measure
from edge.signatures import PictureSignature, perceptual_hash
from edge.types import Face, Image

MAX_PICTURE_BYTES = 64 << 20
"""Of one member of a ZIP: a small archive must not unpack to all of memory."""

CHEEKS = (slice(48, 96), slice(34, 78))
"""Rows and columns of an aligned crop that show skin, and neither hair nor background."""


@dataclass(frozen=True, slots=True)
class Look:
    """A picture that could be read.

    size: (height, width) pixels; spread: standard deviation of its values, 0 for one colour all over. faces: how many
    could be the one the picture is about. face, crop (112, 112, 3) uint8 BGR, quality: of that one, None without it.
    """

    name: str
    signature: PictureSignature
    size: tuple[int, int]
    spread: float
    faces: int
    face: Face | None
    crop: Image | None
    quality: Quality | None

    @property
    def identity(self) -> str:
        """The folder it lies in."""
        return PurePosixPath(self.name).parent.as_posix()


@dataclass(frozen=True, slots=True)
class Survey:
    """All pictures of one place; unreadable: files named as pictures that are none."""

    place: Path
    looks: tuple[Look, ...]
    unreadable: tuple[str, ...]

    @property
    def with_face(self) -> tuple[Look, ...]:
        """Those with a face."""
        return tuple(look for look in self.looks if look.crop is not None)


def survey(place: Path, detector: Detector, *, quiet: bool = False) -> Survey:
    """Looks at a folder of pictures or a ZIP of them. Raises InputError where it is neither, or holds none."""
    names = _members(place)
    looks, unreadable = list[Look](), list[str]()
    for name, data in tqdm(
        _read(place, names),
        total=len(names),
        desc=f"looking at {place.name}",
        unit="picture",
        disable=quiet,
        leave=False,
    ):
        image = _decode(data)
        if image is None:
            unreadable.append(name)
        else:
            looks.append(_look(name, data, image, detector))
    return Survey(place, tuple(looks), tuple(unreadable))


def _look(name: str, data: bytes, image: Image, detector: Detector) -> Look:
    signature = PictureSignature(hashlib.sha256(data).hexdigest(), f"{perceptual_hash(image):016x}")
    face = find_main_face(detector, image)
    crop = align(image, face.landmarks) if face is not None else None
    quality = measure(face, crop) if face is not None and crop is not None else None
    count = _rivals(face, detector.find(image)) if face is not None else 0
    return Look(name, signature, image.shape[:2], float(image.std()), count, face, crop, quality)


def _rivals(face: Face, every: list[Face]) -> int:
    """The face and those that could be taken for the one the picture is about: as sure, and not much smaller."""
    rivals = [
        other
        for other in every
        if other.score >= face.score - SCORE_MARGIN and other.width > face.width / 3 and not same_face(other, face)
    ]
    return 1 + len(rivals)


def _members(place: Path) -> list[str]:
    if place.is_dir():
        return [path.relative_to(place).as_posix() for path in find_pictures([place])]
    if not place.is_file():
        raise InputError(f"{place}: no such folder or ZIP of pictures")
    try:
        with zipfile.ZipFile(place) as archive:
            names = sorted(name for name in archive.namelist() if PurePosixPath(name).suffix.lower() in SUFFIXES)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{place}: neither a folder nor a ZIP of pictures ({error})") from error
    if not names:
        raise InputError(f"{place}: no picture in this ZIP; known are {', '.join(sorted(SUFFIXES))}")
    return names


def _read(place: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes; b"", which is no picture, for a file that may not be read."""
    if place.is_dir():
        for name in names:
            try:
                data = (place / name).read_bytes()
            except OSError:
                data = b""
            yield name, data
        return
    with zipfile.ZipFile(place) as archive:
        for name in names:
            if archive.getinfo(name).file_size > MAX_PICTURE_BYTES:
                raise InputError(f"{place}: {name} is larger than {MAX_PICTURE_BYTES >> 20} MiB, which no picture is")
            yield name, archive.read(name)


def _decode(data: bytes) -> Image | None:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # a size beyond OpenCV's limit
        return None
    return None if image is None else np.asarray(image, np.uint8)
