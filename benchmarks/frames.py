"""The frames latency is measured on: of a video, of pictures, or the two portraits that come inside dependencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.errors import InputError, SourceError
from edge.pictures import find_pictures, read_picture
from edge.types import Image

DEFAULT_FRAMES = 32


@dataclass(frozen=True, slots=True)
class Frames:
    """images: (H, W, 3) uint8 BGR each. source: where they come from, in words; no path."""

    images: tuple[Image, ...]
    source: str

    def describe(self) -> dict[str, object]:
        """For the report."""
        sizes = sorted({f"{image.shape[1]}×{image.shape[0]}" for image in self.images})
        return {"count": len(self.images), "source": self.source, "sizes": sizes}


def load_frames(
    video: Path | None, pictures: Sequence[Path], count: int = DEFAULT_FRAMES, height: int | None = None
) -> Frames:
    """At most `count` frames, evenly spread over what there is, scaled down to `height` lines where they have more.

    Raises InputError or SourceError in one line.
    """
    frames = _load(video, pictures, count)
    if height is None or all(image.shape[0] <= height for image in frames.images):
        return frames
    return Frames(
        tuple(_scaled(image, height) for image in frames.images), f"{frames.source}, scaled to {height} lines"
    )


def _scaled(image: Image, height: int) -> Image:
    if image.shape[0] <= height:
        return image
    width = round(image.shape[1] * height / image.shape[0])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _load(video: Path | None, pictures: Sequence[Path], count: int) -> Frames:
    if count < 1:
        raise InputError(f"--frames must be 1 or more, not {count}")
    if video is not None:
        return _of_video(video, count)
    if pictures:
        paths = find_pictures(pictures)
        chosen = [paths[i] for i in _spread(len(paths), count)]
        return Frames(tuple(read_picture(path) for path in chosen), f"{len(chosen)} of {len(paths)} pictures given")
    from benchmarks.demo.video import portraits, render

    try:
        pair = portraits()
    except ModuleNotFoundError as error:
        raise InputError(
            "name --video or --pictures: without them frames show a portrait of scikit-image, which is not installed"
        ) from error
    return Frames(tuple(render(pair, count)), "rendered frames with the portraits inside scikit-image and Matplotlib")


def _of_video(path: Path, count: int) -> Frames:
    if not path.is_file():
        raise SourceError(f"{path}: no such video file")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise SourceError(f"{path}: OpenCV cannot open this video; give it as MP4, AVI or MKV")
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = set(_spread(total, count)) if total > 0 else set(range(count))
        images = []
        # Seeking lands on key frames with some codecs; reading on gets every frame right.
        for i in range(max(wanted) + 1):
            good, image = capture.read()
            if not good:
                break
            if i in wanted:
                images.append(np.asarray(image, np.uint8))
    finally:
        capture.release()
    if not images:
        raise SourceError(f"{path}: no frame could be read from this video")
    return Frames(tuple(images), f"video {path.name}, {len(images)} of {max(total, len(images))} frames")


def _spread(total: int, count: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, total - 1, min(count, total))})
