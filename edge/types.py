"""What travels from the camera to the sinks: one frozen dataclass a thing, validated where it is made.

Coordinates are pixels of the frame, x to the right and y down, with the centre of the first pixel at (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from edge.nv12 import Nv12

Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8, BGR: the order OpenCV reads."""

Picture = Image | Nv12
"""What a source gives: BGR, or NV12 where nobody has converted it yet."""

Floats = npt.NDArray[np.float32]

TrackState = Literal["pending", "known", "unknown"]

LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
"""Order of the five landmarks; left and right as seen in the picture."""


def require_image(image: Image) -> None:
    """Raises ValueError unless `image` is a non-empty (H, W, 3) uint8 array."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"an image is a non-empty (H, W, 3) uint8 array, not {image.shape} {image.dtype}")


def bgr_of(picture: Picture) -> Image:
    """The picture as BGR; of NV12 converted when first asked for."""
    return picture.bgr if isinstance(picture, Nv12) else picture


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a stream, with its pixels as the source gave them; `image` is BGR, converted only when asked for.

    time: seconds since the epoch for a live source, since the start for a file. source: its name. arrived: seconds on
    the monotonic clock when a live source had it; None where nothing is in a hurry. picture: the file it is, where a
    source is pictures that do not follow each other; None in a stream.
    """

    pixels: Picture
    index: int
    time: float
    source: str
    arrived: float | None = None
    picture: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, Nv12):
            require_image(self.pixels)
        if self.index < 0:
            raise ValueError(f"a frame's index is 0 or more, not {self.index}")

    @property
    def image(self) -> Image:
        """(H, W, 3) uint8 BGR."""
        return bgr_of(self.pixels)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.pixels.shape[:2]
        return height, width


@dataclass(frozen=True, slots=True)
class Face:
    """A detected face: `box` (4,) float32 x1 y1 x2 y2, `landmarks` (5, 2) float32, `score` in [0, 1].

    refined: whether a landmarker has looked at it, and placed the landmarks where it believed what it saw.
    """

    box: Floats
    landmarks: Floats
    score: float
    refined: bool = False

    def __post_init__(self) -> None:
        if self.box.shape != (4,) or self.landmarks.shape != (5, 2):
            raise ValueError(
                f"a face has a (4,) box and (5, 2) landmarks, not {self.box.shape} and {self.landmarks.shape}"
            )
        # Of so few numbers Python is three times as fast as NumPy, and faces are made in every frame.
        if not all(map(math.isfinite, (*self.box.tolist(), *self.landmarks.ravel().tolist()))):
            raise ValueError("a face's box and landmarks are finite")
        if not 0.0 <= self.score <= 1.0:
            raise ValueError(f"a face's score lies in [0, 1], not {self.score}")

    @property
    def width(self) -> float:
        """Pixels."""
        return float(self.box[2] - self.box[0])

    @property
    def height(self) -> float:
        """Pixels."""
        return float(self.box[3] - self.box[1])


@dataclass(frozen=True, slots=True)
class Match:
    """The nearest identity of a gallery, named only where `similarity` (cosine, [-1, 1]) reaches `threshold`.

    `identity` is None for an unknown person; `nearest` is who came closest even then, None in an empty gallery.
    """

    identity: str | None
    similarity: float
    threshold: float
    nearest: str | None = None


@dataclass(frozen=True, slots=True)
class TrackView:
    """One person's way through a stream, as it stands at one frame.

    number: the same for one person from coming into view to leaving it. state: "pending" while the evidence does not
    suffice, then "known" or "unknown". looks: faces embedded so far. since: time of its first frame. detected: False
    where the face stands where the person was expected, in a frame that was not searched. template: (D,) unit mean
    embedding of the looks, None before the first.
    """

    number: int
    state: TrackState
    looks: int
    since: float
    detected: bool = True
    template: Floats | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Decision:
    """Who one face of one frame is, and what it cost. `latency_ms` maps a stage's name to milliseconds.

    match: what to go by; of the evidence gathered over a track where the stream is tracked, else of this frame alone.
    look: the match of this frame alone; None where the face was not embedded in it. track: None in an untracked stream.
    picture: as in `Frame`.
    """

    frame: int
    time: float
    source: str
    face: Face
    match: Match
    latency_ms: dict[str, float] = field(default_factory=dict)
    look: Match | None = None
    track: TrackView | None = None
    picture: str | None = None


@dataclass(frozen=True, slots=True)
class FrameResult:
    """Everything that was found in one frame, faces best first. `latency_ms` maps a stage's name to milliseconds."""

    frame: Frame
    decisions: tuple[Decision, ...]
    latency_ms: dict[str, float] = field(default_factory=dict)
