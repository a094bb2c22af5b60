"""Decisions as JSON lines: one line a face, whole or not there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from edge.errors import InputError
from edge.types import Decision, FrameResult, Match


class JsonLines:
    """Writes to a file, or to standard output where the path is "-".

    max_bytes: once the file has grown beyond, it becomes FILE.1, an older FILE.1 becomes FILE.2 and so on up to `keep`;
    0 lets it grow.
    """

    def __init__(self, path: Path, max_bytes: int = 0, keep: int = 5) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._to_stdout = str(path) == "-"
        self._closed = False
        try:
            # Unbuffered below whole lines: who follows the file never sees half of one.
            self._file = sys.stdout if self._to_stdout else path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error

    def write(self, result: FrameResult) -> None:
        try:
            for decision in result.decisions:
                self._file.write(json.dumps(event(decision), ensure_ascii=False, allow_nan=False) + "\n")
            if self._max_bytes and not self._to_stdout and self._file.tell() >= self._max_bytes:
                self._rotate()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written ({error.strerror})") from error

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._file.flush()
        if not self._to_stdout:
            os.fsync(self._file.fileno())
            self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._keep - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._file = self._path.open("w", encoding="utf-8", buffering=1)


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
