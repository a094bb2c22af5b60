"""Decisions as JSON lines: one line a face."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import sys
from pathlib import Path
from typing import Any

from edge.errors import DiskFullError, InputError
from edge.sinks.private import make_private
from edge.types import Decision, FrameResult, Match

_LOG = logging.getLogger(__name__)


class JsonLines:
    """Appends to a file, or to standard output where the path is "-".

    A file that is made is its owner's only: who was where is personal.
    A line that a kill or a full disk cut short stays behind as it is; the next event begins on a line of its own.
    max_bytes: once the file has grown beyond, it becomes FILE.1, an older FILE.1 becomes FILE.2 and so on up to `keep`;
    0 lets it grow.
    """

    name = "events"

    def __init__(self, path: Path, max_bytes: int = 0, keep: int = 5) -> None:
        self._path = path
        self._file: _LineFile | _StandardOutput
        if str(path) == "-":
            self._file, self._rotation = _StandardOutput(), None
            return
        self._rotation = _Rotation(path, keep, max_bytes) if max_bytes else None
        try:
            self._file = _LineFile(path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error

    def write(self, result: FrameResult) -> None:
        lines = [json.dumps(event(decision), ensure_ascii=False, allow_nan=False) for decision in result.decisions]
        try:
            self._file.write(lines)
        except BrokenPipeError:
            raise
        except OSError as error:
            kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else InputError
            raise kind(f"{self._path}: cannot be written ({error.strerror})") from error
        if self._rotation is not None and isinstance(self._file, _LineFile):
            self._file = self._rotation.turned(self._file)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise InputError(f"{self._path}: cannot be finished ({error.strerror})") from error


class _StandardOutput:
    """Lines for whoever reads the other end of the pipe now."""

    def write(self, lines: list[str]) -> None:
        for line in lines:
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def close(self) -> None:
        sys.stdout.flush()


class _LineFile:
    """Lines at the end of a file, past every buffer: what could not be written is never tried again behind our back."""

    def __init__(self, path: Path, before: Path | None = None) -> None:
        self._torn = _ends_within_a_line(path)
        make_private(path, before)
        self._file = path.open("ab", buffering=0)

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self._file.fileno()).st_size

    def write(self, lines: list[str]) -> None:
        """Raises OSError; the lines may be there in part then."""
        if not lines:
            return
        data = ("\n" * self._torn + "".join(f"{line}\n" for line in lines)).encode()
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        finally:
            if written:
                self._torn = data[written - 1 : written] != b"\n"

    def close(self) -> None:
        if self._file.closed:
            return
        with self._file:
            if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                os.fsync(self._file.fileno())


class _Rotation:
    """Puts a file aside once it is large: FILE becomes FILE.1, FILE.1 becomes FILE.2, FILE.`keep` goes."""

    def __init__(self, path: Path, keep: int, max_bytes: int) -> None:
        self._path = path
        self._keep = keep
        self._max_bytes = max_bytes
        self._failing = False

    def turned(self, file: _LineFile) -> _LineFile:
        """The file to go on with. The old one where a new one cannot be had: it grows on, and nothing is lost."""
        if file.size < self._max_bytes:
            return file
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            fresh.unlink(missing_ok=True)
            new = _LineFile(fresh, self._path)
            self._shift()
            self._path.replace(self._numbered(1))
            fresh.replace(self._path)
        except OSError as error:
            if not self._failing:
                _LOG.warning("%s: cannot be rotated (%s); it grows on", self._path, error.strerror)
            self._failing = True
            return file
        self._failing = False
        try:
            file.close()
        except OSError as error:
            # Closed it is nevertheless, and the new one has its place.
            _LOG.warning("%s: cannot be finished (%s)", self._numbered(1), error.strerror)
        return new

    def _shift(self) -> None:
        """Frees FILE.1. Up to the first free number only, so that an attempt which failed half-way costs no file."""
        numbers = range(1, self._keep)
        free = next((number for number in numbers if not self._numbered(number).exists()), self._keep)
        for number in range(free - 1, 0, -1):
            self._numbered(number).replace(self._numbered(number + 1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _ends_within_a_line(path: Path) -> bool:
    """Whether the last line of a file lacks its end, as after a kill."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def event(decision: Decision) -> dict[str, Any]:
    """A decision as JSON-ready entries; pixels to a tenth, milliseconds to a hundredth, cosines to a ten-thousandth."""
    face, match, look, track = decision.face, decision.match, decision.look, decision.track
    entries: dict[str, Any] = {
        "time": round(decision.time, 4),
        "frame": decision.frame,
        "source": decision.source,
        "box": [round(float(value), 1) for value in face.box],
        "landmarks": [[round(float(x), 1), round(float(y), 1)] for x, y in face.landmarks],
        "score": round(face.score, 4),
        "identity": match.identity,
        **_scores(match),
        "threshold": round(match.threshold, 4),
        "latency_ms": {stage: round(value, 2) for stage, value in decision.latency_ms.items()},
    }
    if decision.picture is not None:
        entries["picture"] = decision.picture
    if track is not None:
        # In a tracked stream the entries above are of all looks at the person; `look` is of this frame alone.
        entries["track"] = {
            "number": track.number,
            "state": track.state,
            "looks": track.looks,
            "since": round(track.since, 4),
            "detected": track.detected,
        }
        entries["look"] = None if look is None else {"identity": look.identity, **_scores(look)}
    return entries


def _scores(match: Match) -> dict[str, Any]:
    similarity = None if match.nearest is None else round(match.similarity, 4)
    return {"nearest": match.nearest, "similarity": similarity}
