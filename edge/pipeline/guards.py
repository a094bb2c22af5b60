"""What keeps a camera going while a disk is full or a gallery cannot be read: one log line when it begins and ends."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edge.errors import DiskFullError, EdgeError, GalleryError
from edge.gallery import Snapshot
from edge.sinks import Sink, SinkCounts, counts_of, name_of
from edge.types import FrameResult

_LOG = logging.getLogger(__name__)


class LastSnapshot:
    """The gallery as it could last be read. The first reading must succeed: its GalleryError is the caller's."""

    def __init__(self, read: Callable[[], Snapshot]) -> None:
        self._read = read
        self._last: Snapshot | None = None
        self._failing = False

    def __call__(self) -> Snapshot:
        try:
            snapshot = self._read()
        except GalleryError as error:
            if self._last is None:
                raise
            if not self._failing:
                _LOG.warning("%s; going on with the people known so far", error)
            self._failing = True
            return self._last
        if self._failing:
            _LOG.warning("the gallery can be read again")
        self._failing, self._last = False, snapshot
        return snapshot


class LastingSink:
    """Goes on where a sink cannot take a result, which is then counted as lost, and tries again with the next.

    A sink that never took one raises: that is a mistake of the user's, not a fault that may pass, as a full disk is:
    a camera that is started again beside one goes on.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._worked = False
        self._failing = ""
        self._lost = 0
        self.name = name_of(sink)

    def write(self, result: FrameResult) -> None:
        """Passes a result on; raises EdgeError only where none was ever taken, and no disk was full."""
        try:
            self._sink.write(result)
        except EdgeError as error:
            if not self._worked and not isinstance(error, DiskFullError):
                raise
            self._lost += 1
            if not self._failing:
                _LOG.warning("%s; going on without", error)
            self._failing = str(error).partition(": ")[0]
            return
        if self._failing:
            _LOG.warning("%s: takes results again; %d were lost so far", self._failing, self._lost)
        self._worked, self._failing = True, ""

    def close(self) -> None:
        """Closes it."""
        self._sink.close()

    def counts(self) -> SinkCounts:
        """The sink's own, and the results it lost here."""
        return counts_of(self._sink) + SinkCounts(lost=self._lost)
