"""A camera that shows and fails as its scenario says, on a clock of its own."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np

from edge.clock import Clock
from edge.errors import SourceError
from edge.replay.scenario import Kind, Scenario, Show, Trouble
from edge.replay.timetable import Timetable
from edge.sources.capture import OPEN_TIMEOUT_MS, READ_TIMEOUT_MS, CorruptFrame, EndOfStream
from edge.types import Image

GREY = 110
"""Of the wall before which everything is shown."""

SWAY = 0.01
"""How far a picture sways, as a share of the frame; SWAY_SECONDS: how long to and fro takes."""

SWAY_SECONDS = 7.0


class ReplayCamera:
    """A capture whose reads and openings take simulated time; `open` as often as a supervisor likes."""

    length = 0

    def __init__(self, scenario: Scenario, clock: Clock, label: str) -> None:
        self.fps = max([scenario.fps, *(show.fps for show in scenario.shows)])
        self._scenario = scenario
        self._clock = clock
        self._label = label
        self._stage = _Stage(scenario)
        self._random = random.Random(f"{scenario.seed} frames")  # noqa: S311 - draws a scenario, guards nothing
        self._away = self._timetable("stall", "disconnect")
        self._spoilt = self._timetable("drop", "corrupt")
        self._changed = self._timetable("black", "resolution")

    def open(self) -> ReplayCamera:
        """Raises SourceError while the scenario has it away; where it stalls, only after the time-out."""
        for trouble in self._away.at(self._clock.monotonic()):
            if trouble.kind == "stall":
                self._clock.sleep(OPEN_TIMEOUT_MS / 1000)
            raise SourceError(f"{self._label}: cannot be opened; nobody answers there")
        return self

    def read(self) -> tuple[Image, float]:
        while True:
            due = self._next_frame()
            if due >= self._scenario.length:
                raise EndOfStream
            self._clock.sleep(due - self._clock.monotonic())
            self._survive_absence(due)
            now = self._clock.monotonic()
            struck = [trouble.kind for trouble in self._spoilt.at(now) if self._random.random() < trouble.share]
            if "drop" in struck:
                continue
            if "corrupt" in struck:
                raise CorruptFrame
            return self._picture(now), self._clock.time()

    def close(self) -> None:
        return

    def _next_frame(self) -> float:
        """When the camera, which is quicker while something is shown, gives its next frame."""
        now = self._clock.monotonic()
        shown = self._stage.shown.at(now)
        rate = max((show.fps for show in shown), default=self._scenario.fps)
        return min(now + 1.0 / rate, max(self._stage.shown.next_start(), now + 1e-3))

    def _survive_absence(self, due: float) -> None:
        """Waits a stall out that is shorter than the time-out. Raises SourceError where the stream is lost."""
        for trouble in self._away.at(due):
            patience = READ_TIMEOUT_MS / 1000 if trouble.kind == "stall" else 0.0
            rest = trouble.window.end - due
            self._clock.sleep(min(rest, patience))
            if rest > patience:
                raise SourceError(f"{self._label}: gives no frame")

    def _picture(self, now: float) -> Image:
        image = self._stage.render(now)
        for trouble in self._changed.at(now):
            if trouble.kind == "black":
                image = np.zeros_like(image)
            elif trouble.size is not None:
                image = cv2.resize(image, trouble.size, interpolation=cv2.INTER_AREA)
        return image

    def _timetable(self, *kinds: Kind) -> Timetable[Trouble]:
        return Timetable(self._scenario.of(*kinds), lambda trouble: trouble.window)


class _Stage:
    """The pictures before the camera."""

    def __init__(self, scenario: Scenario) -> None:
        self._width, self._height = scenario.size
        self._scaled: dict[tuple[int, float], Image] = {}
        self.shown: Timetable[Show] = Timetable(scenario.shows, lambda show: show.window)

    def render(self, now: float) -> Image:
        """(H, W, 3): the wall, and in their order the pictures shown at `now`."""
        frame = np.full((self._height, self._width, 3), GREY, np.uint8)
        phase = 2 * math.pi * now / SWAY_SECONDS
        for show in self.shown.at(now):
            x = (show.x + SWAY * math.sin(phase)) * self._width
            y = (show.y + SWAY * math.sin(2 * phase)) * self._height
            _paste(frame, self._fitted(show), round(x), round(y))
        return frame

    def _fitted(self, show: Show) -> Image:
        key = id(show.image), show.height
        if key not in self._scaled:
            scale = show.height * self._height / show.image.shape[0]
            size = max(1, round(show.image.shape[1] * scale)), max(1, round(show.image.shape[0] * scale))
            way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            self._scaled[key] = cv2.resize(show.image, size, interpolation=way)
        return self._scaled[key]


def _paste(frame: Image, picture: Image, x: int, y: int) -> None:
    """Puts `picture` with its middle at (x, y); what lies outside is cut off."""
    left, top = x - picture.shape[1] // 2, y - picture.shape[0] // 2
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + picture.shape[1], frame.shape[1]), min(top + picture.shape[0], frame.shape[0])
    if x1 < x2 and y1 < y2:
        frame[y1:y2, x1:x2] = picture[y1 - top : y2 - top, x1 - left : x2 - left]
