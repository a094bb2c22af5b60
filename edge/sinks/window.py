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


class Window:
    """Shows every frame; q or Escape in the window calls `stop`."""

    name = "window"

    def __init__(self, stop: Callable[[], None]) -> None:
        if problem := why_no_window():
            raise InputError(problem)
        self._stop = stop
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)

    def write(self, result: FrameResult) -> None:
        cv2.imshow(TITLE, annotate(result.frame.image, result.decisions))
        if cv2.waitKey(1) & 0xFF in (ord("q"), 27):
            self._stop()

    def close(self) -> None:
        cv2.destroyAllWindows()


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
