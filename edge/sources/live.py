"""Live streams: a thread captures all the time and keeps the newest frame only."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edge.clock import SYSTEM_CLOCK, Clock
from edge.sources.base import Source, SourceCounts
from edge.sources.capture import Capture
from edge.sources.supervision import SupervisedCapture, Supervision
from edge.types import Frame, Picture

LIVE_FPS = 25.0
"""Taken where a stream does not say its rate."""


class LiveSource(Source):
    """The newest frame of a camera or network stream.

    open_capture: opens the stream; called again after a loss. The first opening happens here, and its SourceError is
    the caller's: what never worked is the user's mistake, what stops working is waited for. patient: it is known not to
    work yet, and is waited for as well.
    """

    live = True

    def __init__(
        self,
        open_capture: Callable[[], Capture],
        name: str,
        how: Supervision | None = None,
        length: int | None = None,
        *,
        patient: bool = False,
    ) -> None:
        self.name = name
        self.length = length
        self._how = how or Supervision()
        self._open_capture = open_capture
        self._supervised = SupervisedCapture(self._opened, name, self._how)
        self.fps = LIVE_FPS
        capture = None if patient else self._opened()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._wake: Callable[[], None] = self._news.set
        self._newest: Frame | None = None
        self._over = False
        self._failure: BaseException | None = None
        self._frames = self._dropped = 0
        self._thread = threading.Thread(target=self._work, args=(capture,), name=f"capture {name}", daemon=True)
        self._thread.start()

    def read(self) -> Frame | None:
        while (frame := self.poll()) is None and not self.ended:
            # In slices: a signal handler that calls `stop` cannot take a lock this thread holds.
            self._news.wait(0.1)
            self._news.clear()
        return frame

    def poll(self) -> Frame | None:
        with self._lock:
            over = self._over
            frame, self._newest = self._newest, None
        if self._failure is not None:
            raise self._failure
        if self._stopping.is_set():
            frame = None
        self.ended = frame is None and (over or self._stopping.is_set())
        return frame

    def listen(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def stop(self) -> None:
        self._stopping.set()

    def counts(self) -> SourceCounts:
        return SourceCounts(self._frames, self._dropped, self._supervised.corrupt, self._supervised.reconnects)

    def close(self) -> None:
        self._stopping.set()
        # A driver may block in its own time-out; a daemon thread that outlives us does no harm.
        self._thread.join(timeout=10.0)

    def _opened(self) -> Capture:
        capture = self._open_capture()
        self.fps = capture.fps if 1.0 <= capture.fps <= 240.0 else LIVE_FPS
        return capture

    def _work(self, capture: Capture | None) -> None:
        try:
            for picture, moment in self._supervised.frames(capture, self._stopping):
                self._offer(picture, moment)
        except BaseException as error:
            # A bug in this thread belongs into the reader's traceback.
            self._failure = error
        finally:
            with self._lock:
                self._over = True
            self._wake()

    def _offer(self, picture: Picture, moment: float) -> None:
        frame = Frame(picture, self._frames, moment, self.name, self._how.clock.monotonic())
        with self._lock:
            self._frames += 1
            self._dropped += self._newest is not None
            self._newest = frame
        self._wake()


class PacedCapture:
    """A file played at its own speed, as a camera would deliver it."""

    def __init__(self, capture: Capture, clock: Clock = SYSTEM_CLOCK) -> None:
        self._capture = capture
        self._clock = clock
        self.fps = capture.fps
        self.length = capture.length
        self._start: float | None = None

    def read(self) -> tuple[Picture, float]:
        picture, moment = self._capture.read()
        now = self._clock.monotonic()
        if self._start is None:
            self._start = now - moment
        self._clock.sleep(self._start + moment - now)
        return picture, moment

    def close(self) -> None:
        self._capture.close()
