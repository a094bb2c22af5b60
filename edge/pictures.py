"""Pictures on disk: found in sorted order, read as the pixels everything else takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge.errors import InputError
from edge.types import Image

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def is_picture(path: Path) -> bool:
    """By its name; hidden files, as other systems leave them beside pictures, are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """The pictures named, and those of the folders named with all below, each folder in sorted order.

    Raises InputError for a path that is not there, is no picture, or a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list(_walk(path))
            if not inside:
                raise InputError(f"{path}: no picture in this folder; known are {', '.join(sorted(SUFFIXES))}")
            found += inside
        elif not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        else:
            found.append(path)
    return found


def as_text(path: Path | str) -> str:
    """A path as events and galleries can hold it: bytes of its name that are no UTF-8 become U+FFFD."""
    return os.fsencode(path).decode(errors="replace")


def read_picture(path: Path) -> Image:
    """(H, W, 3) uint8 BGR, turned as its EXIF says, 16 bits and grey made 8 bits and colour.

    Raises InputError where it cannot be read or is no picture.
    """
    return decode_picture(np.frombuffer(read_bytes(path), np.uint8), path)


def read_bytes(path: Path) -> bytes:
    """A picture's file as it is. Raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def decode_picture(data: npt.NDArray[np.uint8], path: Path) -> Image:
    """As `read_picture`, of the bytes of a file; `path` is for the message."""
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:
        raise InputError(f"{path}: {_why_not(error)}") from error
    if image is None:
        raise InputError(f"{path}: not a picture OpenCV can read, or damaged")
    return np.asarray(image, np.uint8)


def _why_not(error: cv2.error) -> str:
    if "CV_IO_MAX_IMAGE_" in error.err:
        return "has more pixels than are decoded; scale it down, or raise $OPENCV_IO_MAX_IMAGE_PIXELS"
    return f"OpenCV cannot take this picture ({error.err})"


def _walk(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _walk(path)
        elif is_picture(path):
            yield path
