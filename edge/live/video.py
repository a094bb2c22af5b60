"""Frames for whoever looks: made smaller, encoded once however many look, and not at all while nobody does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from edge.draw import annotate
from edge.live.board import Board
from edge.live.portraits import jpeg
from edge.types import Decision, Face, FrameResult, Image

WIDTHS = (320, 640, 960, 1280)
"""Pixels a frame may be asked at; the next larger one is taken, and never more than the frame has."""

MOST_A_SECOND = 12.0
"""Frames of one source that are encoded at most."""

_LOOK_AGAIN = 0.02
"""Seconds between two looks whether there is a newer frame. The camera wakes nobody: that would cost it time."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded frame and the result it is of; version: the source's how-many-eth."""

    version: int
    result: FrameResult
    data: bytes


@dataclass(slots=True)
class _Shelf:
    """The last picture of one source at one width and how it is drawn, and when the next may be made."""

    picture: Picture | None = None
    next_at: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Video:
    """The newest frames of all sources, encoded in a thread beside the server's. For the server's loop."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._shelves: dict[tuple[str, int, bool], _Shelf] = {}

    async def newer(self, source: str, width: int, after: int, patience: float, *, drawn: bool) -> Picture | None:
        """The newest frame of a source, once its version is beyond `after`; None where none came in `patience` seconds.

        drawn: with boxes and names in it. A version that was not reached yet is of an earlier run: any frame is newer.
        """
        if after > self._board.sources[source].version:
            after = 0
        loop = asyncio.get_running_loop()
        fitting = next((choice for choice in WIDTHS if choice >= width), WIDTHS[-1])
        shelf = self._shelves.setdefault((source, fitting, drawn), _Shelf())
        end = loop.time() + patience
        while loop.time() < end:
            if shelf.picture is not None and shelf.picture.version > after and loop.time() < shelf.next_at:
                return shelf.picture
            if self._board.sources[source].version > after and loop.time() >= shelf.next_at:
                async with shelf.lock:
                    return await self._made(shelf, source, fitting, drawn=drawn)
            await asyncio.sleep(_LOOK_AGAIN)
        return None

    async def _made(self, shelf: _Shelf, source: str, width: int, *, drawn: bool) -> Picture:
        board = self._board.sources[source]
        version, result = board.version, board.newest
        assert result is not None, "a version above 0 has a result"
        loop = asyncio.get_running_loop()
        if shelf.picture is None or shelf.picture.version != version:
            shelf.next_at = loop.time() + 1 / MOST_A_SECOND
            data = await asyncio.to_thread(_encoded, result, width, drawn)
            shelf.picture = Picture(version, result, data)
        return shelf.picture


def _encoded(result: FrameResult, width: int, drawn: bool) -> bytes:
    small, scale = shrunk(result.frame.image, width)
    if drawn:
        small = annotate(small, [_scaled(decision, scale) for decision in result.decisions])
    return jpeg(small, quality=75)


def shrunk(image: Image, width: int) -> tuple[Image, float]:
    """The image at most `width` pixels wide, and what its coordinates were multiplied by."""
    have_height, have_width = image.shape[:2]
    if have_width <= width:
        return image, 1.0
    size = width, max(1, round(have_height * width / have_width))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), width / have_width


def _scaled(decision: Decision, scale: float) -> Decision:
    face = decision.face
    factor = np.float32(scale)
    return replace(decision, face=Face(face.box * factor, face.landmarks * factor, face.score))
