"""More faces to learn from: every face of photos nobody labelled, cut out and aligned by the runtime's own code."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge.align import align
from edge.detect import Detector
from edge.errors import InputError
from edge.pictures import decode_picture
from edge.types import Image
from training.distill.crops import IMAGE_SUFFIXES

QUALITY = 95


def harvest(sources: list[Path], detector: Detector, output: Path, *, min_side: float = 40.0) -> int:
    """Writes the faces of all photos in `sources` (folders, zip archives) to the zip archive `output`; their number.

    min_side: pixels; faces whose shorter side is below are left out. A face's name is its photo's and a number, in a
    folder of its photo, so that the faces of one photo never part.
    """
    faces = 0
    partial = output.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name, photo in photos(sources):
            wanted = [face for face in detector.detect(photo) if min(face.width, face.height) >= min_side]
            for number, face in enumerate(wanted):
                done, data = cv2.imencode(".jpg", align(photo, face.landmarks), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
                assert done
                # A fixed date keeps the archive's bytes a function of the photos.
                archive.writestr(zipfile.ZipInfo(f"{name}/{number}.jpg"), data.tobytes())
                faces += 1
    partial.replace(output)
    return faces


def photos(sources: list[Path]) -> Iterator[tuple[str, Image]]:
    """Name and pixels (H, W, 3) uint8 BGR of every photo, sorted by source and name."""
    for source in sources:
        for name, data in _files(source):
            photo = decode_picture(np.frombuffer(data, np.uint8), source / name)
            yield f"{source.stem}/{Path(name).with_suffix('').as_posix()}", photo


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield path.relative_to(source).as_posix(), path.read_bytes()
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if name.lower().endswith(IMAGE_SUFFIXES):
                    yield name, archive.read(name)
    else:
        raise InputError(f"photos {source}: neither a folder nor a zip archive")
