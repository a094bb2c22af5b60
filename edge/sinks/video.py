"""The annotated video, as MPEG-4 in an .mp4 file: the codec every OpenCV from PyPI can write."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from shutil import disk_usage

import cv2
import numpy as np

from edge.draw import annotate
from edge.errors import DiskFullError, InputError
from edge.pictures import as_text
from edge.sinks.private import make_private
from edge.sinks.recordings import delete_oldest, put_aside
from edge.types import FrameResult, Image

SPARE_BYTES = 16_000_000
"""Left free on the disk: for the index at a file's end, 20 bytes a frame, and for whoever else writes there."""

FRAMES_BETWEEN_LOOKS = 250
"""At what recordings take together, where that is limited."""


class VideoFileSink:
    """Writes frames of the first frame's size at a fixed rate; later frames of another size are fitted into it.

    A recording is not overwritten: one that is there already, of an earlier run or part of this one, is put aside,
    called after the moment it ended. A new one is its owner's only, or of the mode of the one before. A disk that is
    full is noticed before it is: OpenCV says nothing of it.
    """

    name = "video"

    def __init__(
        self,
        path: Path,
        fps: float | Callable[[], float],
        longest: float = math.inf,
        *,
        overwrite: bool = False,
        most_bytes: float = math.inf,
    ) -> None:
        """fps: asked for each file where it is a function: a camera that is waited for has no rate yet.

        longest: seconds, by the frames' times, after which a new file is begun.

        overwrite: whether what an earlier run left may go, as where the same files can be shown again.
        most_bytes: of all recordings of this name; beyond it the oldest are deleted, never the one being written.
        """
        if path.suffix.lower() not in (".mp4", ".avi", ".mkv"):
            raise InputError(f"{path}: name the video .mp4, .avi or .mkv")
        if as_text(path) != str(path):
            raise InputError(f"{path}: is not UTF-8, and OpenCV writes no other; give the video another name")
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} does not exist")
        self._path = path
        self._fps = fps
        self._longest = longest
        self._overwrite = overwrite
        self._most_bytes = most_bytes
        self._frames = 0
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._since = 0.0

    def write(self, result: FrameResult) -> None:
        if self._most_bytes < math.inf and self._frames % FRAMES_BETWEEN_LOOKS == 0:
            delete_oldest(self._path, self._most_bytes)
        self._frames += 1
        self._look_for_room()
        moment = result.frame.time
        # A wall clock may have been put back.
        if self._writer is not None and abs(moment - self._since) >= self._longest:
            self.close()
        drawn = annotate(result.frame.image, result.decisions)
        if self._writer is None:
            height, width = drawn.shape[:2]
            # The codec's colour planes have half the size: an odd row or column is left out.
            self._size = max(2, width & ~1), max(2, height & ~1)
            self._writer, self._since = self._open(), moment
        self._writer.write(fitted(drawn, *self._size))

    def close(self) -> None:
        """Finishes the file and opens it again: raises InputError where it is no video, as on a broken disk."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.release()
        again = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        readable, _ = again.read()
        again.release()
        if not readable:
            raise InputError(f"{self._path}: the video written cannot be read again; is the disk full?")

    def _open(self) -> cv2.VideoWriter:
        before = None
        if not self._overwrite:
            try:
                before = put_aside(self._path)
            except OSError as error:
                raise InputError(f"{self._path}: what is there cannot be put aside ({error.strerror})") from error
        self._overwrite = False  # the next one would be of this run
        try:
            make_private(self._path, before)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        fps = self._fps() if callable(self._fps) else self._fps
        writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), fps, self._size)
        if not writer.isOpened():
            self._path.unlink(missing_ok=True)
            raise InputError(f"{self._path}: cannot be written; is the folder writable, and this OpenCV from PyPI?")
        return writer

    def _look_for_room(self) -> None:
        try:
            free = disk_usage(self._path.parent).free
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error
        if free < SPARE_BYTES:
            raise DiskFullError(f"{self._path}: cannot be written (less than {SPARE_BYTES // 1_000_000} MB are free)")


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
