"""What a face detector is worth: average precision, landmarks beside a stronger detector's, faces missed, time.

`python -m benchmarks.detection --data DATA MODEL …` measures detectors of the YuNet family by one code, side by side,
and with --peer what SCRFD finds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np

from benchmarks.command import command
from benchmarks.interleave import Plan, Stopwatch, interleave
from benchmarks.provenance import Load, load_between, machine, now, versions
from benchmarks.scrfd import Scrfd
from benchmarks.statistics import quantiles, ratio_of_medians
from edge.contract import ModelContract
from edge.detect import Detector, DetectorOptions, Landmarker, find_main_face
from edge.engines import Array, Session, open_session
from edge.metrics.detection import Outcome, average_precision, found_at, match
from edge.metrics.intervals import Interval, Rate, bootstrap_interval
from edge.pictures import read_picture
from edge.types import Face, Floats, Image

MIN_FACE = 20.0
"""Pixels of a true face's longer side, at the scale measured, below which it counts neither way."""

MEASURED = DetectorOptions(long_side=640, min_score=0.02, max_iou=0.45, max_faces=1000)
"""For average precision, which needs the weak detections too."""

FALSE_ALARMS = (0.04, 0.1, 0.3, 1.0)
"""A picture, at which two detectors find as much as may be compared, whatever scores they give."""

LATENCY_SHAPE = (480, 640)


class FindsFaces(Protocol):
    """Any detector."""

    def detect(self, image: Image) -> list[Face]:
        """Faces of an image, best first."""


@dataclass(frozen=True, slots=True)
class PrecisionReport:
    """AP at IoU 0.5 with its bootstrap interval over images; found: share of the faces, by false alarms a picture."""

    average: Interval
    faces: int
    images: int
    found: dict[float, Interval]


@dataclass(frozen=True, slots=True)
class LandmarkReport:
    """Landmark distance to the reference's, mean of five, in shares of the reference's eye distance.

    median and p90 over `faces` faces both found; `missed` is how many of the reference's faces the detector missed.
    """

    median: Interval
    p90: Interval
    faces: int
    missed: int


def contract_of(session: Session) -> ModelContract:
    """How a YuNet-family detector is fed, from its input: float32 NCHW as published, uint8 NHWC as in bundles."""
    as_published = session.inputs[0].dtype == "float32"
    return ModelContract(
        role="detector",
        size=None,
        layout="nchw" if as_published else "nhwc",
        dtype="float32" if as_published else "uint8",
    )


def open_model(path: Path) -> Session:
    """A session of an ONNX file of the YuNet family, or of our own weights (.safetensors), exported on the way.

    Raises InputError, EngineError or ContractError.
    """
    return open_session(_exported(path) if path.suffix == ".safetensors" else path)


@lru_cache
def _exported(path: Path) -> bytes:
    from export.to_onnx import detector_to_onnx
    from training.detector.network import HEADS, load

    sample = np.random.default_rng(0).uniform(0, 255, (2, 3, 192, 320)).astype(np.float32)
    return cast(bytes, detector_to_onnx(load(path), sample, HEADS).SerializeToString())


def open_detector(path: Path, options: DetectorOptions | None = None, landmarker: Path | None = None) -> Detector:
    """A detector of a file that `open_model` opens. landmarker: our own weights of one; None for its own landmarks."""
    session = open_model(path)
    closer = None if landmarker is None else open_landmarker(landmarker)
    return Detector(session, contract_of(session), options, closer)


def open_landmarker(path: Path) -> Landmarker:
    """In FP32 by ONNX Runtime, exported on the way. Raises InputError and ContractError."""
    from export.passes import Passes
    from export.sources import load_landmarker

    source = load_landmarker(path, Passes())
    return Landmarker(open_session(source.float_model.SerializeToString()), source.contract)


def read_truth(folder: Path) -> list[tuple[Path, Floats]]:
    """Pictures and true boxes of a folder with `labels.txt`. Raises InputError."""
    from training.detector.data import read_labels

    return [(folder / name, boxes) for name, boxes in read_labels(folder / "labels.txt")]


def precision(detector: FindsFaces, truth: Sequence[tuple[Path, Floats]]) -> PrecisionReport:
    """AP@0.5 over true faces of 20 pixels and more at a longer side of 640."""
    outcomes = []
    for path, boxes in truth:
        image = read_picture(path)
        scale = np.float32(min(1.0, MEASURED.long_side / max(image.shape[:2])))
        faces = detector.detect(image)
        found = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
        scores = np.array([face.score for face in faces], np.float32)
        outcomes.append(match(found * scale, scores, boxes * scale, MIN_FACE))
    found_by = {alarms: over_images(outcomes, partial(found_at, false_alarms=alarms)) for alarms in FALSE_ALARMS}
    true_faces = sum(outcome.faces for outcome in outcomes)
    return PrecisionReport(average_over_images(outcomes), true_faces, len(outcomes), found_by)


def average_over_images(outcomes: list[Outcome]) -> Interval:
    """AP at IoU 0.5 of the outcomes of images, its interval from draws of images."""
    return over_images(outcomes, lambda drawn: average_precision(drawn).average)


def over_images(outcomes: list[Outcome], figure: Callable[[list[Outcome]], float]) -> Interval:
    """A figure of the outcomes of images, its interval from draws of images."""

    def figures(draws: Any) -> Any:
        return np.array([figure([outcomes[i] for i in draw]) for draw in draws])

    return bootstrap_interval(
        np.arange(len(outcomes)).astype(np.float64), lambda d: figures(d.astype(int)), resamples=500
    )


def landmark_error(detector: FindsFaces, reference: FindsFaces, paths: Sequence[Path]) -> LandmarkReport:
    """How far the landmarks are from a reference detector's, on the most prominent face of each picture."""
    errors, missed = [], 0
    for path in paths:
        image = read_picture(path)
        wanted = central_face(reference.detect(image), image)
        if wanted is None:
            continue
        found = overlapping(detector.detect(image), wanted)
        if found is None:
            missed += 1
            continue
        eyes = float(np.hypot(*(wanted.landmarks[1] - wanted.landmarks[0])))
        away = np.hypot(*(found.landmarks - wanted.landmarks).T)
        errors.append(float(away.mean()) / max(eyes, 1.0))
    values = np.array(errors)
    return LandmarkReport(
        bootstrap_interval(values, lambda draws: np.median(draws, axis=1)),
        bootstrap_interval(values, lambda draws: np.quantile(draws, 0.9, axis=1)),
        len(errors),
        missed,
    )


def central_face(faces: list[Face], image: Image) -> Face | None:
    """The face nearest to the picture's centre: the one an LFW picture is about."""
    centre = np.array([image.shape[1], image.shape[0]]) / 2
    return min(faces, key=lambda f: float(np.hypot(*((f.box[:2] + f.box[2:]) / 2 - centre))), default=None)


def overlapping(faces: list[Face], wanted: Face) -> Face | None:
    """The best face whose centre lies in the wanted box."""
    for face in faces:
        x, y = (face.box[:2] + face.box[2:]) / 2
        if wanted.box[0] <= x <= wanted.box[2] and wanted.box[1] <= y <= wanted.box[3]:
            return face
    return None


def found(find: Callable[[Image], object], paths: Sequence[Path]) -> tuple[Rate, list[str]]:
    """In how many pictures `find` gives something, and the names of the others."""
    missed = [f"{path.parent.name}/{path.name}" for path in paths if not find(read_picture(path))]
    return Rate.of(len(paths) - len(missed), len(paths)), missed


def latency(sessions: dict[str, Session], plan: Plan) -> dict[str, dict[str, Any]]:
    """Milliseconds of the networks at 640×480, one thread, interleaved, and their ratio to the first one's.

    On a busy machine the processor's time is the steadier of the two clocks.
    """
    height, width = LATENCY_SHAPE
    pixels = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)

    def candidate(session: Session) -> Callable[[int, Stopwatch], None]:
        spec = session.inputs[0]
        batch: Array = pixels
        if spec.dtype == "float32":
            batch = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        return lambda _, watch: watch.time("network", lambda: session.run({spec.name: batch}))

    measured = interleave({name: candidate(session) for name, session in sessions.items()}, plan)
    first = next(iter(measured.timings.values()))
    return {
        name: {
            "wall_milliseconds": quantiles(timing.wall["network"] * 1e3).to_dict(),
            "cpu_milliseconds": quantiles(timing.cpu["network"] * 1e3).to_dict(),
            "wall_ratio_to_first": ratio_of_medians(timing.wall["network"], first.wall["network"]).to_dict(),
            "cpu_ratio_to_first": ratio_of_medians(timing.cpu["network"], first.cpu["network"]).to_dict(),
            "rounds": measured.rounds,
            "settled": measured.settled,
        }
        for name, timing in measured.timings.items()
    }


def measure(model: Path, data: Path, reference: FindsFaces | None, lfw_every: int) -> dict[str, Any]:
    """Everything but time, as JSON-ready figures. `lfw_every`: landmarks are compared on every so many LFW pictures."""
    strict = open_detector(model)
    crops = sorted((data / "avengers" / "cropped_images").rglob("*.png"))
    in_crops, missed_crops = found(lambda image: find_main_face(strict, image), crops)
    scenes, missed_scenes = found(strict.detect, sorted((data / "scenes" / "avengers").glob("*.jpg")))
    report: dict[str, Any] = {
        "model": model.name,
        "wider_eval": asdict(precision(open_detector(model, MEASURED), read_truth(data / "wider" / "eval"))),
        "avengers_crops": {**in_crops.to_dict(), "missed": missed_crops},
        "avengers_scenes": {**scenes.to_dict(), "missed": missed_scenes},
    }
    if reference is not None:
        pictures = sorted((data / "lfw" / "images").rglob("*.jpg"))[::lfw_every]
        lenient = open_detector(model, replace(strict.options, min_score=0.3))
        report["lfw_landmarks"] = asdict(landmark_error(lenient, reference, pictures))
    return report


def configure_detection(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the detection benchmark."""
    parser.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="MODEL",
        help="YuNet-family detectors: .onnx, or .safetensors of our own",
    )
    parser.add_argument(
        "--peer",
        type=Path,
        action="append",
        default=[],
        metavar="SCRFD",
        help="SCRFD, measured on wider/eval; repeatable",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with wider/eval, avengers, scenes, lfw")
    parser.add_argument("--reference", type=Path, metavar="SCRFD", help="SCRFD whose landmarks are the yardstick")
    parser.add_argument(
        "--lfw-every", type=int, default=4, help="use every so many LFW pictures (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring time (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")


def run_detection(args: argparse.Namespace) -> int:
    """Measures each model and prints a line for each figure."""
    cv2.setNumThreads(1)
    before, reference = Load.now(), Scrfd(args.reference) if args.reference else None
    reports = {model.stem: measure(model, args.data, reference, args.lfw_every) for model in args.models}
    truth = read_truth(args.data / "wider" / "eval") if args.peer else []
    peers = {
        peer.stem: {"model": peer.name, "wider_eval": asdict(precision(Scrfd(peer, MEASURED.score), truth))}
        for peer in args.peer
    }
    times = latency({model.stem: open_model(model) for model in args.models}, Plan(seconds=args.seconds))
    for name, report in reports.items():
        report["latency_640x480"] = times[name]
        for line in _lines(name, report):
            print(line)
    for name, report in peers.items():
        for line in _precision_lines(name, report["wider_eval"]):
            print(line)
    if args.json:
        kept = {"time": now(), "machine": machine(), "versions": versions(), "load": load_between(before, Load.now())}
        args.json.write_text(json.dumps(kept | {"detectors": reports | peers}, indent=1) + "\n", encoding="utf-8")
    return 0


def _precision_lines(name: str, wider: dict[str, Any]) -> list[str]:
    average = wider["average"]
    at = ", ".join(
        f"{100 * one['value']:.1f} % [{100 * one['low']:.1f}, {100 * one['high']:.1f}] at {alarms:g}"
        for alarms, one in wider["found"].items()
    )
    return [
        f"{name}: AP@0.5 {average['value']:.4f} [{average['low']:.4f}, {average['high']:.4f}], "
        f"{wider['faces']} faces of {wider['images']} pictures",
        f"{name}: finds {at} false alarms a picture",
    ]


def _lines(name: str, report: dict[str, Any]) -> list[str]:
    crops, scenes = report["avengers_crops"], report["avengers_scenes"]
    missed = ", ".join(crops["missed"] + scenes["missed"]) or "none"
    lines = [
        *_precision_lines(name, report["wider_eval"]),
        f"{name}: a face in {crops['hits']} of {crops['count']} Avengers crops, "
        f"{scenes['hits']} of {scenes['count']} scenes; missed: {missed}",
    ]
    if "lfw_landmarks" in report:
        marks = report["lfw_landmarks"]
        median, p90 = marks["median"], marks["p90"]
        lines.append(
            f"{name}: landmarks {100 * median['value']:.2f} % of the eye distance in the median "
            f"[{100 * median['low']:.2f}, {100 * median['high']:.2f}], 90th percentile {100 * p90['value']:.2f} %, "
            f"{marks['faces']} LFW faces, {marks['missed']} missed"
        )
    time = report["latency_640x480"]
    for clock in ("wall", "cpu"):
        ratio = time[f"{clock}_ratio_to_first"]
        lines.append(
            f"{name}: {time[f'{clock}_milliseconds']['p50']['value']:.2f} ms {clock} at 640×480, one thread; "
            f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] of the first's, {time['rounds']} rounds"
        )
    return lines


@command("detection")
def main() -> int:
    """`python -m benchmarks.detection`."""
    parser = argparse.ArgumentParser(prog="benchmarks.detection", description=__doc__)
    configure_detection(parser)
    return run_detection(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
