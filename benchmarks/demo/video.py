"""A short camera-like video made of two portraits that come inside dependencies: nothing is downloaded or shipped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.errors import InputError
from edge.types import Image

WIDTH, HEIGHT, FPS = 960, 540, 25


@dataclass(frozen=True, slots=True)
class Portrait:
    """A named person and the picture (H, W, 3) uint8 BGR they are shown with."""

    name: str
    image: Image


def portraits() -> tuple[Portrait, Portrait]:
    """Eileen Collins from scikit-image and Grace Hopper from Matplotlib, both photographs in the public domain."""
    import matplotlib.cbook
    import skimage.data

    astronaut = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    hopper = cv2.imread(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    if hopper is None:
        raise InputError("Matplotlib's sample picture grace_hopper.jpg is missing; reinstall matplotlib")
    return Portrait("eileen_collins", astronaut), Portrait("grace_hopper", hopper)


def write_enrolment(folder: Path, people: tuple[Portrait, ...]) -> None:
    """One folder a person with three pictures: as it is, mirrored, and darker and turned a little."""
    for person in people:
        home = folder / person.name
        home.mkdir(parents=True, exist_ok=True)
        height, width = person.image.shape[:2]
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), 8, 1.0)
        turned = cv2.warpAffine(person.image, turn, (width, height), borderMode=cv2.BORDER_REFLECT)
        pictures = {
            "straight": person.image,
            "mirrored": person.image[:, ::-1],
            "turned": cv2.convertScaleAbs(turned, alpha=0.75),
        }
        for name, picture in pictures.items():
            cv2.imwrite(str(home / f"{name}.png"), picture)


def write_video(path: Path, people: tuple[Portrait, Portrait], frames: int, seed: int = 0) -> None:
    """`frames` frames of both people crossing the view at changing size and light, with sensor noise, as MPEG-4.

    The first fifth shows nobody, so that the events show when each person comes in.
    Raises InputError where OpenCV has no encoder for it.
    """
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise InputError(f"{path}: this OpenCV cannot write MPEG-4 video; install opencv-python-headless from PyPI")
    try:
        for frame in render(people, frames, seed):
            writer.write(frame)
    finally:
        writer.release()


def render(people: tuple[Portrait, Portrait], frames: int, seed: int = 0) -> Iterator[Image]:
    """The frames, (540, 960, 3) uint8 BGR; the same for the same seed."""
    random = np.random.default_rng(seed)
    background = _background()
    for i in range(frames):
        t = i / max(1, frames - 1)
        frame = background.copy()
        if t >= 0.2:
            u = (t - 0.2) / 0.8
            _paste(frame, people[0].image, x=-0.1 + 0.85 * u, y=0.12 + 0.05 * np.sin(9 * u), height=0.62 + 0.2 * u)
        if t >= 0.45:
            u = (t - 0.45) / 0.55
            _paste(frame, people[1].image, x=0.78 - 0.62 * u, y=0.2 + 0.04 * np.cos(7 * u), height=0.75 - 0.2 * u)
        light = 1.0 + 0.25 * np.sin(2 * np.pi * t)
        noise = random.normal(0.0, 4.0, frame.shape).astype(np.float32)
        yield np.clip(frame.astype(np.float32) * light + noise, 0, 255).astype(np.uint8)


def _background() -> Image:
    """A plain room: wall, floor, a door."""
    rows = np.linspace(1.0, 0.75, HEIGHT, dtype=np.float32)[:, None, None]
    room = np.full((HEIGHT, WIDTH, 3), (150, 160, 165), np.float32) * rows
    room[int(HEIGHT * 0.82) :] = (70, 85, 100)
    room[int(HEIGHT * 0.2) : int(HEIGHT * 0.82), int(WIDTH * 0.42) : int(WIDTH * 0.55)] = (95, 110, 130)
    return room.astype(np.uint8)


def _paste(frame: Image, picture: Image, x: float, y: float, height: float) -> None:
    """Puts `picture` with its upper left corner at (x, y) and this height, all as shares of the frame; clips."""
    scale = height * HEIGHT / picture.shape[0]
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    left, top = round(x * WIDTH), round(y * HEIGHT)
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + small.shape[1], WIDTH), min(top + small.shape[0], HEIGHT)
    if x1 < x2 and y1 < y2:
        frame[y1:y2, x1:x2] = small[y1 - top : y2 - top, x1 - left : x2 - left]
