"""Sources that wait for their consumer: a video file, frame by frame, and pictures of a folder in sorted order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edge.errors import InputError, SourceError
from edge.pictures import as_text, read_picture
from edge.sources.base import Source, SourceCounts
from edge.sources.capture import Capture, CorruptFrame, EndOfStream
from edge.types import Frame

PICTURES_FPS = 5.0
"""Rate a folder of pictures is played at where something needs one."""

_LOG = logging.getLogger(__name__)


class VideoFile(Source):
    """Every frame of a video file, none dropped."""

    live = False

    def __init__(self, capture: Capture, name: str) -> None:
        self._capture = capture
        self.name = name
        self.length = capture.length or None
        self.fps = capture.fps or 25.0
        self._index = 0
        self._corrupt = 0
        self._stopped = False

    def read(self) -> Frame | None:
        while not self._stopped:
            try:
                image, moment = self._capture.read()
            except EndOfStream:
                if self._index == 0:
                    raise SourceError(f"{self.name}: holds no frame that can be decoded") from None
                return None
            except CorruptFrame:
                self._corrupt += 1
                continue
            self._index += 1
            return Frame(image, self._index - 1, moment, self.name)
        return None

    def stop(self) -> None:
        self._stopped = True

    def counts(self) -> SourceCounts:
        return SourceCounts(frames=self._index, corrupt=self._corrupt)

    def close(self) -> None:
        self._stopped = True
        self._capture.close()


class Pictures(Source):
    """Pictures as frames; one that cannot be read is named in the log and left out."""

    live = False
    moving = False
    fps = PICTURES_FPS

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        self.length = len(paths)
        self._paths = paths
        self._next = 0
        self._corrupt = 0
        self._stopped = False

    def read(self) -> Frame | None:
        while not self._stopped and self._next < len(self._paths):
            path = self._paths[self._next]
            self._next += 1
            try:
                image = read_picture(path)
            except InputError as error:
                self._corrupt += 1
                _LOG.warning("%s", error)
                continue
            return Frame(image, self._next - 1, (self._next - 1) / self.fps, self.name, picture=as_text(path))
        if self._corrupt == len(self._paths):
            raise SourceError(f"{self.name}: none of {len(self._paths)} pictures can be read")
        return None

    def stop(self) -> None:
        self._stopped = True

    def counts(self) -> SourceCounts:
        return SourceCounts(frames=self._next - self._corrupt, corrupt=self._corrupt)

    def close(self) -> None:
        self._stopped = True
