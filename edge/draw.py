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
    for decision in decisions:
        _draw_label(canvas, decision.face, label_of(decision), color_of(decision), pen)
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


def _draw_label(canvas: Image, face: Face, text: str, color: tuple[int, int, int], pen: Pen) -> None:
    """Above the box, or inside its top where the frame ends; always whole in the frame where it fits at all."""
    height, width = canvas.shape[:2]
    text = printable(text)
    (text_width, text_height), base = cv2.getTextSize(text, _FONT, pen.font, pen.line)
    pad = 2 * pen.line
    box_width, box_height = text_width + 2 * pad, text_height + base + 2 * pad
    x = max(0, min(round(float(face.box[0])), width - box_width))
    y = round(float(face.box[1])) - box_height
    if y < 0:
        y = min(max(0, round(float(face.box[1]))), max(0, height - box_height))
    cv2.rectangle(canvas, (x, y), (x + box_width, y + box_height), _SHADE, -1)
    cv2.rectangle(canvas, (x, y), (x + max(2, pen.line * 2), y + box_height), color, -1)
    origin = (x + pad + pen.line, y + pad + text_height)
    cv2.putText(canvas, text, origin, _FONT, pen.font, _INK, pen.line, cv2.LINE_AA)
