"""Live streams: a thread captures all the time and keeps the newest frame only; a lost stream is opened again."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from edge.errors import SourceError
from edge.sources.backoff import Backoff
from edge.sources.base import Source, SourceCounts
from edge.sources.capture import Capture, CorruptFrame, EndOfStream
from edge.types import Frame, Image

LIVE_FPS = 25.0
"""Taken where a stream does not say its rate."""

MAX_CORRUPT_RUN = 50
"""Unusable frames in a row after which a stream counts as lost."""

_LOG = logging.getLogger(__name__)


class LiveSource(Source):
    """The newest frame of a camera or network stream.

    open_capture: opens the stream; called again after a loss. The first opening happens here, and its SourceError is
    the caller's: what never worked is the user's mistake, what stops working is waited for.
    """

    live = True

    def __init__(
        self,
        open_capture: Callable[[], Capture],
        name: str,
        backoff: Backoff | None = None,
        length: int | None = None,
    ) -> None:
        self.name = name
        self.length = length
        self._open = open_capture
        self._backoff = backoff or Backoff()
        self._random = random.Random()  # noqa: S311 - spreads load, guards nothing
        capture = open_capture()
        self.fps = capture.fps if 1.0 <= capture.fps <= 240.0 else LIVE_FPS
        self._stopping = threading.Event()
        self._ready = threading.Condition()
        self._newest: Frame | None = None
        self._ended = False
        self._failure: BaseException | None = None
        self._frames = self._dropped = self._corrupt = self._reconnects = 0
        self._thread = threading.Thread(target=self._work, args=(capture,), name=f"capture {name}", daemon=True)
        self._thread.start()

    def read(self) -> Frame | None:
        with self._ready:
            # Waiting in slices: a signal handler that calls `stop` cannot take the condition this thread holds.
            while self._newest is None and not self._ended and not self._stopping.is_set():
                self._ready.wait(0.1)
            frame, self._newest = self._newest, None
        if self._failure is not None:
            raise self._failure
        return None if self._stopping.is_set() else frame

    def stop(self) -> None:
        self._stopping.set()

    def counts(self) -> SourceCounts:
        return SourceCounts(self._frames, self._dropped, self._corrupt, self._reconnects)

    def close(self) -> None:
        self._stopping.set()
        # A driver may block in its own time-out; a daemon thread that outlives us does no harm.
        self._thread.join(timeout=10.0)

    def _work(self, capture: Capture) -> None:
        current: Capture | None = capture
        try:
            while current is not None:
                lost = self._capture_from(current)
                current.close()
                current = self._reopen() if lost and not self._stopping.is_set() else None
        except BaseException as error:
            # A bug in this thread belongs into the reader's traceback.
            self._failure = error
        finally:
            with self._ready:
                self._ended = True
                self._ready.notify_all()

    def _capture_from(self, capture: Capture) -> bool:
        """Takes frames until the stream ends (False), is stopped (False) or is lost (True)."""
        corrupt_run = 0
        try:
            while not self._stopping.is_set():
                try:
                    image, moment = capture.read()
                except CorruptFrame:
                    self._corrupt += 1
                    corrupt_run += 1
                    if corrupt_run >= MAX_CORRUPT_RUN:
                        raise SourceError(f"{self.name}: {corrupt_run} unusable frames in a row") from None
                    continue
                corrupt_run = 0
                self._offer(image, moment)
        except EndOfStream:
            return False
        except SourceError as error:
            _LOG.warning("%s; trying again", error)
            return True
        return False

    def _offer(self, image: Image, moment: float) -> None:
        frame = Frame(image, self._frames, moment, self.name)
        with self._ready:
            self._frames += 1
            self._dropped += self._newest is not None
            self._newest = frame
            self._ready.notify()

    def _reopen(self) -> Capture | None:
        """Tries until the stream is back; None where it was stopped meanwhile."""
        lost = time.monotonic()
        for delay in self._backoff.delays(self._random):
            if self._stopping.wait(delay):
                break
            try:
                capture = self._open()
            except SourceError:
                continue
            self._reconnects += 1
            _LOG.warning("%s: back after %.1f s", self.name, time.monotonic() - lost)
            return capture
        return None


class PacedCapture:
    """A file played at its own speed, as a camera would deliver it."""

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self.fps = capture.fps
        self.length = capture.length
        self._start: float | None = None

    def read(self) -> tuple[Image, float]:
        image, moment = self._capture.read()
        now = time.monotonic()
        if self._start is None:
            self._start = now - moment
        time.sleep(max(0.0, self._start + moment - now))
        return image, moment

    def close(self) -> None:
        self._capture.close()
