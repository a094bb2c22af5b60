"""A window with the annotated frames, where there is a screen."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import cv2

from edge.draw import annotate
from edge.errors import InputError
from edge.types import FrameResult

TITLE = "arcedge"

LARGEST = (1280, 720)
"""Pixels (width, height) the window is opened with at most; it can be drawn larger."""


class Window:
    """Shows every frame; q or Escape in the window, or closing it, calls `stop`."""

    name = "window"

    def __init__(self, stop: Callable[[], None]) -> None:
        if problem := why_no_window():
            raise InputError(problem)
        self._stop = stop
        self._seen = False
        # Without the bars that OpenCV's Qt puts around a picture.
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_GUI_NORMAL)
        self._sized = False

    def write(self, result: FrameResult) -> None:
        if not self._sized:
            height, width = result.frame.size
            scale = min(1.0, LARGEST[0] / width, LARGEST[1] / height)
            cv2.resizeWindow(TITLE, round(scale * width), round(scale * height))
            self._sized = True
        cv2.imshow(TITLE, annotate(result.frame.image, result.decisions))
        if cv2.waitKey(1) & 0xFF in (ord("q"), 27) or self._was_closed():
            self._stop()

    def close(self) -> None:
        cv2.destroyAllWindows()

    def _was_closed(self) -> bool:
        # Some toolkits never say that a window is to be seen; of those nothing can be told.
        there = cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) >= 1
        self._seen |= there
        return self._seen and not there


def why_no_window() -> str | None:
    """None where OpenCV can open one here, else what to do about it."""
    found = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
    if found is None or found.group(1) == "NONE":
        return (
            "--show needs an OpenCV with windows: pip uninstall opencv-python-headless, then pip install opencv-python"
        )
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "--show needs a screen; there is none in this session (DISPLAY is not set)"
    return None
