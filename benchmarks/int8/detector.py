"""What INT8 costs a detector: average precision, landmarks, agreement, each paired with its own FP32.

    python -m benchmarks.int8.detector WEIGHTS … --calibration PHOTOS --scenes wider/train \\
        --portraits celeba.zip --landmarks scrfd_2.5g.onnx --out detector.json

Ranges, equalisation and biases are chosen as `edge export` chooses them, from the calibration photos alone. Several
weights are measured on the same pictures, and each also against the FP32 of the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks.command import command
from benchmarks.detection import MEASURED, MIN_FACE, FindsFaces, central_face, overlapping, read_truth
from benchmarks.provenance import machine, versions
from benchmarks.scrfd import Scrfd
from edge.detect import Detector
from edge.engines import SessionOptions, open_session
from edge.errors import InputError
from edge.metrics.detection import Outcome, average_precision, match
from edge.metrics.intervals import Interval, bootstrap_interval
from edge.pictures import read_picture
from edge.types import Face, Floats, Image
from export.agreement import compare_detections
from export.calibration.photos import list_photos
from export.calibration.table import read_tables
from export.graph import parameters_digest
from export.passes import Passes
from export.photos import Finder, Photos
from export.sources import load_detector
from export.variants import build_variants, calibrate_detector

LONG_SIDE = 640
"""Pixels that the longer side of a scene is enlarged to."""

Errors = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pictures:
    """scenes: with true boxes (K, 4), at LONG_SIDE. portraits: with the reference's face, whose landmarks are right."""

    scenes: Sequence[tuple[Image, Floats]]
    portraits: Sequence[tuple[Image, Face]]


@dataclass(frozen=True, slots=True)
class Found:
    """What a model makes of the pictures. landmarks: (P,) errors in shares of the eye distance, NaN where missed."""

    outcomes: list[Outcome]
    faces: list[list[Face]]
    landmarks: Errors


def look(data: bytes, contract: Any, pictures: Pictures) -> Found:
    """Runs a model of a bundle over all pictures."""
    with open_session(data, options=SessionOptions(threads=1)) as session:
        working, weak = Detector(session, contract), Detector(session, contract, MEASURED)
        all_faces = [weak.detect(image) for image, _ in pictures.scenes]
        outcomes = [_outcome(faces, truth) for faces, (_, truth) in zip(all_faces, pictures.scenes, strict=True)]
        sure = [[face for face in faces if face.score >= working.options.score] for faces in all_faces]
        return Found(outcomes, sure, np.array([_landmark_error(working, *one) for one in pictures.portraits]))


def _outcome(faces: Sequence[Face], truth: Floats) -> Outcome:
    boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
    return match(boxes, np.array([face.score for face in faces], np.float32), truth, MIN_FACE)


def _landmark_error(detector: FindsFaces, image: Image, wanted: Face) -> float:
    found = overlapping(detector.detect(image), wanted)
    if found is None:
        return float("nan")
    eyes = float(np.hypot(*(wanted.landmarks[1] - wanted.landmarks[0])))
    return float(np.hypot(*(found.landmarks - wanted.landmarks).T).mean()) / max(eyes, 1.0)


def points_lost(before: Found, after: Found) -> Interval:
    """AP before less AP after, in points, pictures drawn together."""
    curves = [Curve.of(one.outcomes) for one in (before, after)]
    pictures = len(before.outcomes)

    def lost(draws: Any) -> Any:
        counts = (np.bincount(draw.astype(np.int64), minlength=pictures) for draw in draws)
        return np.array([100 * (curves[0].average(count) - curves[1].average(count)) for count in counts])

    return bootstrap_interval(np.arange(pictures, dtype=np.float64), lost)


@dataclass(frozen=True, slots=True)
class Curve:
    """Detections of all pictures, best first: hits (D,), pictures (D,) each is of; faces: true ones a picture."""

    hits: npt.NDArray[np.bool_]
    pictures: npt.NDArray[np.int64]
    faces: npt.NDArray[np.int64]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Curve:
        order = np.argsort(-np.concatenate([outcome.scores for outcome in outcomes]), kind="stable")
        pictures = np.repeat(np.arange(len(outcomes)), [len(outcome.scores) for outcome in outcomes])
        hits = np.concatenate([outcome.hits for outcome in outcomes])
        return cls(hits[order], pictures[order], np.array([outcome.faces for outcome in outcomes]))

    def average(self, counts: npt.NDArray[np.int64]) -> float:
        """What `average_precision` gives where picture i is there counts[i] times."""
        times = counts[self.pictures]
        found = times * self.hits
        precision = np.cumsum(found) / np.maximum(np.cumsum(times), 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float((envelope * found).sum() / (counts @ self.faces))


def landmark_growth(before: Found, after: Found) -> Interval:
    """By how many per cent the median error of the faces that both found grew, faces drawn together."""
    both = np.stack([before.landmarks, after.landmarks], axis=1)
    both = both[np.isfinite(both).all(axis=1)]

    def growth(draws: Any) -> Any:
        medians = np.median(draws, axis=1)
        return 100 * (medians[:, 1] / medians[:, 0] - 1)

    return bootstrap_interval(both, growth)


def _average(outcomes: Sequence[Outcome]) -> float:
    return average_precision(outcomes).average


def compare(before: Found, after: Found) -> dict[str, Any]:
    """JSON-ready: what `after` lost."""
    return {
        "points_lost": points_lost(before, after).to_dict(),
        "landmark_growth_percent": landmark_growth(before, after).to_dict(),
        "agreement": compare_detections(after.faces, before.faces).to_dict(),
    }


def measure(weights: Sequence[Path], calibration: Path, table: Path | None, pictures: Pictures) -> dict[str, Any]:
    """By weights: FP32 and INT8, INT8 against its own FP32, both against the FP32 of the first.

    table: a calibration table, for those weights that it is of; the others are calibrated on photos of `calibration`.
    """
    tables = {one.parameters: one for one in read_tables(table)} if table is not None else {}
    rows = dict[str, Any]()
    first: Found | None = None
    for path in weights:
        source = load_detector(path, Passes())
        ranges = tables.get(parameters_digest(source.float_model))
        if ranges is None:
            mosaics = Photos(Finder(source), lambda text: print(text, file=sys.stderr), quiet=True).pictures(
                calibration
            )
            ranges = calibrate_detector(source, mosaics, "", quiet=True)
        built = {one.precision: one.data for one in build_variants(source, ("fp32", "int8"), ranges, Passes())}
        found = {precision: look(data, source.contract, pictures) for precision, data in built.items()}
        first = first or found["fp32"]
        row: dict[str, Any] = {
            "calibration": {"method": ranges.method, "options": dict(ranges.compared)},
            "int8_against_own_fp32": compare(found["fp32"], found["int8"]),
        }
        for precision, one in found.items():
            seen = one.landmarks[np.isfinite(one.landmarks)]
            row[precision] = {
                "average_precision": 100 * _average(one.outcomes),
                "landmark_error_percent": 100 * float(np.median(seen)),
                "missed": int(np.isnan(one.landmarks).sum()),
            }
            if found["fp32"] is not first:
                row[precision]["against_first_fp32"] = compare(first, one)
        rows[f"{path.name}, {source.digest[:12]}"] = row
        print(_told(path, row), flush=True)
    return rows


def _told(path: Path, row: dict[str, Any]) -> str:
    own = row["int8_against_own_fp32"]
    lines = [f"{path}: {row['calibration']['method']}, {row['calibration']['options']}"]
    for precision in ("fp32", "int8"):
        one = row[precision]
        line = f"  {precision}: AP {one['average_precision']:.2f}, landmarks {one['landmark_error_percent']:.3f} %"
        if other := one.get("against_first_fp32"):
            line += f"; against the first FP32: {_lost(other)}"
        lines.append(line)
    return "\n".join([*lines, f"  INT8 against its own FP32: {_lost(own)}, agreement {own['agreement']['figure']:.4f}"])


def _lost(one: dict[str, Any]) -> str:
    points, growth = one["points_lost"], one["landmark_growth_percent"]
    return (
        f"AP lost {points['value']:.2f} [{points['low']:.2f}, {points['high']:.2f}], "
        f"landmark error {growth['value']:+.2f} % [{growth['low']:.2f}, {growth['high']:.2f}]"
    )


def read_pictures(scenes: Path, portraits: Path, reference: FindsFaces, hold_out: int) -> Pictures:
    """One scene and portrait in `hold_out`, by name. Raises InputError where something is missing or shows no face."""
    from training.detector.data import is_held_out, read_zip

    truth = [one for one in read_truth(scenes) if is_held_out(one[0].name, hold_out)]
    photos = [p.image for i, p in enumerate(read_zip(portraits)) if is_held_out(f"{portraits.name}/{i}", hold_out)]
    found = [(image, central_face(reference.detect(image), image)) for image in tqdm(photos, leave=False, disable=None)]
    known = [(image, face) for image, face in found if face is not None]
    if not truth or not known:
        raise InputError(f"{len(truth)} scenes and {len(known)} portraits with a face are too few")
    return Pictures([_enlarged(read_picture(path), boxes) for path, boxes in truth], known)


def _enlarged(image: Image, boxes: Floats) -> tuple[Image, Floats]:
    zoom = LONG_SIDE / max(image.shape[:2])
    return np.asarray(cv2.resize(image, None, fx=zoom, fy=zoom), np.uint8), boxes * np.float32(zoom)


@command("detector")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints some lines for each weights, and keeps the figures."""
    args = _arguments(arguments)
    cv2.setNumThreads(1)
    if args.hold_out < 1:
        raise InputError("--hold-out takes 1 picture in 1 or more")
    list_photos(args.calibration)
    pictures = read_pictures(args.scenes, args.portraits, Scrfd(args.landmarks), args.hold_out)
    faces = sum(int(((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) >= MIN_FACE).sum()) if len(boxes) else 0
                for _, boxes in pictures.scenes)  # fmt: skip
    print(f"{len(pictures.scenes)} scenes, {faces} faces; {len(pictures.portraits)} portraits", flush=True)
    rows = measure(args.weights, args.calibration, args.table, pictures)
    if args.out is not None:
        on = {"scenes": len(pictures.scenes), "faces": faces, "portraits": len(pictures.portraits)}
        result = {"machine": machine(), "versions": versions(), "on": on, "weights": rows}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8.detector", description="INT8 of detectors.")
    parser.add_argument("weights", type=Path, nargs="+", metavar="WEIGHTS", help="detectors (.safetensors)")
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR", help="photos")
    parser.add_argument("--table", type=Path, metavar="FILE", help="calibration table, for the weights that it is of")
    parser.add_argument("--scenes", type=Path, required=True, metavar="DIR", help="pictures with labels.txt")
    parser.add_argument("--portraits", type=Path, required=True, metavar="ZIP", help="photos of a face each")
    parser.add_argument("--landmarks", type=Path, required=True, metavar="SCRFD", help="whose landmarks are right")
    parser.add_argument("--hold-out", type=int, default=1, metavar="N", help="one picture in N, by name (default: all)")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
