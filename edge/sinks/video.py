"""The annotated video, as MPEG-4 in an .mp4 file: the codec every OpenCV from PyPI can write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge.draw import annotate
from edge.errors import InputError
from edge.types import FrameResult, Image


class VideoFileSink:
    """Writes frames of the first frame's size at a fixed rate; later frames of another size are fitted into it."""

    name = "video"

    def __init__(self, path: Path, fps: float) -> None:
        if path.suffix.lower() not in (".mp4", ".avi", ".mkv"):
            raise InputError(f"{path}: name the video .mp4, .avi or .mkv")
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist")
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._closed = False

    def write(self, result: FrameResult) -> None:
        drawn = annotate(result.frame.image, result.decisions)
        if self._writer is None:
            height, width = drawn.shape[:2]
            # The codec's colour planes have half the size: an odd row or column is left out.
            self._size = max(2, width & ~1), max(2, height & ~1)
            self._writer = self._open()
        self._writer.write(fitted(drawn, *self._size))

    def close(self) -> None:
        """Finishes the file and opens it again: raises InputError where it is no video, as on a full disk."""
        if self._closed or self._writer is None:
            return
        self._closed = True
        self._writer.release()
        again = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        readable, _ = again.read()
        again.release()
        if not readable:
            raise InputError(f"{self._path}: the video written cannot be read again; is the disk full?")

    def _open(self) -> cv2.VideoWriter:
        writer = cv2.VideoWriter(
            str(self._path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), self._fps, self._size
        )
        if not writer.isOpened():
            raise InputError(f"{self._path}: cannot be written; is the folder writable, and this OpenCV from PyPI?")
        return writer


def fitted(image: Image, width: int, height: int) -> Image:
    """The image at (width, height): as it is, without an odd last row or column, or scaled with black bars."""
    have_height, have_width = image.shape[:2]
    if (have_width, have_height) == (width, height):
        return image
    if have_width - width in (0, 1) and have_height - height in (0, 1):
        return np.ascontiguousarray(image[:height, :width])
    scale = min(width / have_width, height / have_height)
    new_width, new_height = max(1, round(have_width * scale)), max(1, round(have_height * scale))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - new_height) // 2, (width - new_width) // 2
    small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
    canvas[top : top + new_height, left : left + new_width] = small
    return canvas
