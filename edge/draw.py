"""Boxes, names and similarities on a frame, legible from 360p to 4K."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import cv2

from edge.types import Decision, Face, Image

KNOWN = (80, 200, 60)
UNKNOWN = (40, 130, 255)
PENDING = (190, 190, 190)
"""Colours, BGR."""

Area = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (255, 255, 255)
_SHADE = (20, 20, 20)


@dataclass(frozen=True, slots=True)
class Pen:
    """Line width in pixels and OpenCV's font scale, in proportion to the frame's height."""

    line: int
    font: float

    @classmethod
    def of(cls, image: Image) -> Pen:
        """One pixel and letters of 10 pixels at 360p; letters grow slower than frames, which are shown larger too."""
        height = image.shape[0]
        return cls(line=max(1, round(height / 400)), font=max(0.4, 0.45 * (height / 360) ** 0.75))


def annotate(image: Image, decisions: Sequence[Decision]) -> Image:
    """Draws on a copy of the frame; the copy is what is given back."""
    canvas = image.copy()
    pen = Pen.of(canvas)
    for decision in decisions:
        _draw_face(canvas, decision.face, color_of(decision), pen)
    # Labels last: a neighbour's box must not run through a name.
    taken: list[Area] = []
    for decision in sorted(decisions, key=_first_placed):
        text = printable(label_of(decision))
        area = place_label(decision.face, _size(text, pen), (canvas.shape[1], canvas.shape[0]), taken)
        _draw_label(canvas, text, area, color_of(decision), pen)
        taken.append(area)
    return canvas


def label_of(decision: Decision) -> str:
    """Name, or "unknown", and similarity; dots while it is not yet clear."""
    match = decision.match
    if is_pending(decision):
        return "..."
    who = match.identity or "unknown"
    return who if match.nearest is None else f"{who} {match.similarity:.2f}"


def color_of(decision: Decision) -> tuple[int, int, int]:
    """BGR."""
    if is_pending(decision):
        return PENDING
    return KNOWN if decision.match.identity is not None else UNKNOWN


def is_pending(decision: Decision) -> bool:
    """Whether the evidence does not suffice yet to say who it is, or that nobody knows them."""
    return decision.track is not None and decision.track.state == "pending"


def printable(text: str) -> str:
    """The text in ASCII, all that OpenCV's fonts hold: accents are left out, other scripts become question marks."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return plain.encode("ascii", "replace").decode()


def _draw_face(canvas: Image, face: Face, color: tuple[int, int, int], pen: Pen) -> None:
    x1, y1, x2, y2 = (round(float(value)) for value in face.box)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), color, pen.line)
    # Dots on a small face would hide it.
    radius = max(1, round(face.width / 50))
    if face.width >= 32:
        for x, y in face.landmarks:
            cv2.circle(canvas, (round(float(x)), round(float(y))), radius, color, -1, cv2.LINE_AA)


def _draw_label(canvas: Image, text: str, area: Area, color: tuple[int, int, int], pen: Pen) -> None:
    x, y, right, bottom = area
    cv2.rectangle(canvas, (x, y), (right, bottom), _SHADE, -1)
    cv2.rectangle(canvas, (x, y), (x + max(2, pen.line * 2), bottom), color, -1)
    (_, text_height), _ = cv2.getTextSize(text, _FONT, pen.font, pen.line)
    pad = 2 * pen.line
    cv2.putText(canvas, text, (x + pad + pen.line, y + pad + text_height), _FONT, pen.font, _INK, pen.line, cv2.LINE_AA)


def _size(text: str, pen: Pen) -> tuple[int, int]:
    (text_width, text_height), base = cv2.getTextSize(text, _FONT, pen.font, pen.line)
    pad = 2 * pen.line
    return text_width + 2 * pad, text_height + base + 2 * pad


def place_label(face: Face, size: tuple[int, int], frame: tuple[int, int], taken: Sequence[Area]) -> Area:
    """Where a label of `size` (width, height) goes in a frame of (width, height), beside those `taken`; pixels.

    Above the box, or inside its top where the frame ends; where that is taken at the other end of the box, below it, or
    higher up; where nothing is free, where least of it lies over others. Whole in the frame where it fits at all.
    """
    width, height = size
    x1, y1, x2, y2 = (round(float(value)) for value in face.box)
    left, right = (max(0, min(x, frame[0] - width)) for x in (x1, x2 - width))
    lowest = max(0, frame[1] - height)
    top = y1 - height if y1 >= height else min(max(0, y1), lowest)
    heights = [top, *(y for y in (y2, y1, y1 - 2 * height, y1 - 3 * height) if 0 <= y <= lowest)]
    areas = [(x, y, x + width, y + height) for y in heights for x in (left, right)]
    free = next((area for area in areas if not any(_overlap(area, other) for other in taken)), None)
    return free or min(areas, key=lambda area: sum(_overlap(area, other) for other in taken))


def _overlap(one: Area, other: Area) -> int:
    """Pixels."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)


def _first_placed(decision: Decision) -> tuple[bool, int]:
    """Names before strangers, then who has been there longest: so a label stays where it was in the frame before."""
    return decision.match.identity is None, decision.track.number if decision.track is not None else 0
