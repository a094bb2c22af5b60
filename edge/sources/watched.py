"""A capture whose driver may block for ever: it has a thread of its own, and who waits too long leaves it behind.

GStreamer gives no frame and no error where a camera or its service hangs. Until 4.7 OpenCV waits for it without a limit
(Ubuntu's on a Jetson of JetPack 6 is 4.5), and for half a minute since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from edge.errors import SourceError
from edge.sources.capture import Capture
from edge.types import Picture

OPENING, READING = 20.0, 8.0
"""Seconds an opening and a frame may take. A camera's service needs some to start."""

MOST_LEFT = 3
"""Threads of one stream that may be left behind in its driver: each holds a pipeline."""

CLOSING = 2.0
"""Seconds a driver is given to let go."""


class WatchedCapture:
    """What `open_capture` opens, read in another thread, which closes it too.

    Raises SourceError where it cannot be opened or takes longer than `opening` seconds; `read` raises what the capture
    does, and SourceError after `reading` seconds.
    """

    def __init__(
        self, open_capture: Callable[[], Capture], name: str, *, opening: float = OPENING, reading: float = READING
    ) -> None:
        thread_name = f"driver {name}"
        if sum(thread.name == thread_name for thread in threading.enumerate()) >= MOST_LEFT:
            raise SourceError(f"{name}: its driver hangs and does not let go; restart the camera's service, or this")
        self._open, self._name, self._reading = open_capture, name, reading
        self._wanted = SimpleQueue[bool]()
        self._given = SimpleQueue[Capture | tuple[Picture, float] | BaseException]()
        self._hangs = False
        self._thread = threading.Thread(target=self._work, name=thread_name, daemon=True)
        self._thread.start()
        try:
            capture = self._wait(opening, "does not open")
        except SourceError:
            self.close()
            raise
        assert not isinstance(capture, tuple)
        self.fps, self.length = capture.fps, capture.length

    def read(self) -> tuple[Picture, float]:
        """As the capture does."""
        self._wanted.put(True)
        taken = self._wait(self._reading, "gives no frame")
        assert isinstance(taken, tuple)
        return taken

    def close(self) -> None:
        """Has it closed, as soon as its driver lets go."""
        self._wanted.put(False)
        if not self._hangs:
            self._thread.join(timeout=CLOSING)

    def _wait(self, seconds: float, what: str) -> Capture | tuple[Picture, float]:
        try:
            given = self._given.get(timeout=seconds)
        except Empty:
            self._hangs = True
            raise SourceError(f"{self._name}: {what} within {seconds:g} s") from None
        if isinstance(given, BaseException):
            raise given
        return given

    def _work(self) -> None:
        try:
            capture = self._open()
        except BaseException as error:
            self._given.put(error)
            return
        self._given.put(capture)
        while self._wanted.get():
            self._given.put(_attempt(capture.read))
        capture.close()


def _attempt(read: Callable[[], tuple[Picture, float]]) -> tuple[Picture, float] | BaseException:
    try:
        return read()
    except BaseException as error:
        return error
