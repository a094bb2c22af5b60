"""Detectors on pictures with true boxes: AP, what the working threshold finds, and landmarks beside a reference's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.detection import MIN_FACE, FindsFaces, average_over_images, landmark_error, read_truth
from benchmarks.peers.base import Peer
from benchmarks.provenance import NOT_MEASURED, digest_of_files
from benchmarks.statistics import RESAMPLES, identity_weights
from edge.errors import InputError
from edge.metrics.detection import Outcome, match
from edge.metrics.intervals import LEVEL, Interval
from edge.pictures import read_picture
from edge.types import Face, Floats, Image

LEAST_SCORE = 0.02
"""Average precision needs the weak detections too."""

LONG_SIDE = 640.0
"""Pixels of a picture's longer side at which a true face's size is judged."""

LANDMARK_PICTURES = 400


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures with true boxes. reference: a detector whose landmarks are the yardstick, None for the baseline's.

    portraits: pictures of a face each, for landmarks.
    """

    folder: Path
    reference: FindsFaces | None = None
    portraits: tuple[Path, ...] = ()


def measure_detection(
    lines: Mapping[str, Peer], baseline: str, labelled: Labelled, progress: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """JSON-ready figures of every line that detects. Raises InputError where the folder holds no labelled picture."""
    truth = read_truth(labelled.folder)
    finders = {name: line for name, line in lines.items() if "detect" in line.stages}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in finders}
    for done, (path, boxes) in enumerate(truth, start=1):
        image = read_picture(path)
        scale = np.float32(min(1.0, LONG_SIDE / max(image.shape[:2])))
        for name, line in finders.items():
            outcomes[name].append(_outcome(line, image, boxes, scale))
        if progress:
            progress(done / len(truth))
    if not sum(outcome.faces for outcome in outcomes[baseline]):
        raise InputError(f"{labelled.folder}: no true face of {MIN_FACE:g} pixels or more in its labels")
    at_work = {name: _at_threshold(found, finders[name].working_score) for name, found in outcomes.items()}
    rows = {name: _row(outcomes[name], at_work[name], finders[name].working_score) for name in finders}
    for name, row in rows.items():
        row["against_baseline"] = (
            None if name == baseline else {"recall_loss": _recall_loss(at_work[baseline], at_work[name]).to_dict()}
        )
    return {
        "pictures": len(truth),
        "faces": sum(outcome.faces for outcome in outcomes[baseline]),
        "least_side": MIN_FACE,
        "data_digest": digest_of_files((path.name, path) for path, _ in truth)[0],
        "lines": rows,
        "landmarks": _landmarks(finders, baseline, labelled),
    }


def _outcome(line: Peer, image: Any, boxes: Floats, scale: np.float32) -> Outcome:
    faces = line.detect(image, LEAST_SCORE)
    found = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
    scores = np.array([face.score for face in faces], np.float32)
    return match(found * scale, scores, boxes * scale, MIN_FACE)


def _at_threshold(outcomes: Sequence[Outcome], score: float) -> npt.NDArray[np.float64]:
    """(pictures, 3): true faces found, true faces, false alarms, of the detections from `score` on."""
    return np.array(
        [[one.hits[one.scores >= score].sum(), one.faces, (~one.hits[one.scores >= score]).sum()] for one in outcomes],
        np.float64,
    )


def _row(outcomes: list[Outcome], counts: npt.NDArray[np.float64], score: float) -> dict[str, Any]:
    found, faces, false = counts.sum(axis=0)
    drawn = _draws(counts)
    return {
        "average_precision": average_over_images(outcomes).to_dict(),
        "working_score": score,
        "recall": _interval(found / faces, drawn[:, 0] / np.maximum(drawn[:, 1], 1.0)).to_dict(),
        "found": int(found),
        "false_alarms": int(false),
    }


def _recall_loss(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> Interval:
    """Recall of `first` less that of `second`, pictures drawn together."""
    one, two = _draws(first), _draws(second)
    total = np.maximum(one[:, 1], 1.0)
    value = (first[:, 0].sum() - second[:, 0].sum()) / first[:, 1].sum()
    return _interval(value, (one[:, 0] - two[:, 0]) / total)


def _draws(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    drawn: npt.NDArray[np.float64] = identity_weights(len(counts), RESAMPLES) @ counts
    return drawn


def _interval(value: float, drawn: npt.NDArray[np.float64]) -> Interval:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high), LEVEL)


def _landmarks(finders: Mapping[str, Peer], baseline: str, labelled: Labelled) -> dict[str, Any]:
    """Distances to the reference's landmarks, in shares of its eye distance, on evenly spread portraits."""
    every = max(1, len(labelled.portraits) // LANDMARK_PICTURES)
    portraits = labelled.portraits[::every]
    yardstick: FindsFaces = labelled.reference or finders[baseline]
    remembered = _Remembered(yardstick)
    rows: dict[str, Any] = {}
    for name, line in finders.items():
        if line is yardstick:
            continue
        try:
            found = landmark_error(line, remembered, portraits)
        except ValueError:  # two faces or more are needed for an interval
            rows[name] = NOT_MEASURED
            continue
        rows[name] = {
            "median": found.median.to_dict(),
            "p90": found.p90.to_dict(),
            "faces": found.faces,
            "missed": found.missed,
        }
    reference = "the reference detector named" if labelled.reference else f"{baseline}'s detector"
    return {"reference": reference, "pictures": len(portraits), "lines": rows if portraits else {}}


class _Remembered:
    """A detector asked for the same portraits by every line, which looks at each once."""

    def __init__(self, detector: FindsFaces) -> None:
        self._detector = detector
        self._found: dict[bytes, list[Face]] = {}

    def detect(self, image: Image) -> list[Face]:
        """As the detector."""
        key = hashlib.sha256(image.tobytes()).digest()
        if key not in self._found:
            self._found[key] = self._detector.detect(image)
        return self._found[key]
