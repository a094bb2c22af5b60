"""`python -m benchmarks.detector_card`: measures trained detector weights and writes the card that ships beside them.

Training leaves `NAME.training.json` beside the weights: recipe, data, time. What the weights are worth is measured
here, beside the teacher, by the one code that measures every detector.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from benchmarks.command import command
from benchmarks.detection import latency, measure, open_detector, open_model
from benchmarks.interleave import Plan
from benchmarks.scrfd import Scrfd
from edge.detect import Detector
from edge.errors import InputError
from edge.metrics.intervals import Rate
from edge.metrics.verification import KFoldAccuracy
from edge.weights.cards import Figure
from training.card import machine, versions
from training.shipping import write_shipped_card

AP_MARGIN = 2.0
LFW_MARGIN = 0.2
"""Points below the reference that still meet the target."""
LANDMARK_TARGET = 5.0
"""Per cent of the eye distance."""


def configure_card(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("weights", type=Path, metavar="WEIGHTS", help="of `edge train detector` (.safetensors)")
    add("--reference", type=Path, required=True, metavar="ONNX", help="YuNet-s, which the targets are relative to")
    add("--landmarks", type=Path, required=True, metavar="ONNX", help="SCRFD whose landmarks are the yardstick")
    add("--embedder", type=Path, required=True, metavar="PT", help="foamliu's MobileFaceNet, for LFW through both")
    add("--data", type=Path, required=True, help="folder with wider/eval, avengers, scenes, lfw")
    add("--lfw-every", type=int, default=4, metavar="N", help="landmarks on every N-th picture (default: %(default)s)")
    add("--seconds", type=float, default=30.0, help="of measuring time (default: %(default)s)")


def read_course(weights: Path, task: str) -> dict[str, Any]:
    """What `edge train TASK` left beside the weights: recipe, data, time. Raises InputError."""
    training = weights.with_suffix(".training.json")
    try:
        course: dict[str, Any] = json.loads(training.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{training}: cannot be read ({error}); `edge train {task}` writes it") from error
    return course


def run_card(args: argparse.Namespace) -> int:
    """Measures and writes the card; prints its figures."""
    course = read_course(args.weights, "detector")
    cv2.setNumThreads(1)
    yardstick = Scrfd(args.landmarks)
    own, other = (measure(path, args.data, yardstick, args.lfw_every) for path in (args.weights, args.reference))
    # The reference first: ratios are to it.
    times = latency(
        {path.stem: open_model(path) for path in (args.reference, args.weights)}, Plan(seconds=args.seconds)
    )
    through = [
        lfw_accuracy(open_detector(path), path.stem, args.embedder, args.data)
        for path in (args.weights, args.reference)
    ]
    figures = [
        *_precision(own, other),
        *_everything_found(own),
        *_landmarks(own, other),
        *_time(times[args.weights.stem]),
        *_verification(*through),
    ]
    write_card(args.weights, "detector", course, figures)
    return 0


def write_card(weights: Path, role: str, course: dict[str, Any], figures: Sequence[Figure]) -> None:
    """Writes the card of our own weights from the course of their training and what was measured, and prints that."""
    more = {key: value for key, value in course.items() if key not in ("data", "limits")}
    card = write_shipped_card(
        weights,
        role=role,
        licence="Apache-2.0",
        data=course["data"],
        figures=figures,
        limits=course["limits"],
        more={**more, "measured_on": machine_of_figures(), "measured_with": versions()},
    )
    tell(figures, card)


def tell(figures: Sequence[Figure], card: Path) -> None:
    """Prints a line a figure, with the target and whether it is met where there is one, and where the card lies."""
    for figure in figures:
        verdict = "" if figure.met is None else f"({figure.target}: {'met' if figure.met else 'missed'})"
        print(f"{figure.what}: {figure.value} [{figure.low}, {figure.high}] {figure.unit} {verdict}".rstrip())
    print(f"wrote {card}")


def machine_of_figures() -> dict[str, Any]:
    """Where the figures were measured."""
    import torch

    return machine(torch.device("cpu"))


def _precision(own: dict[str, Any], other: dict[str, Any]) -> list[Figure]:
    on = "WIDER FACE val, the pictures of wider/eval at a longer side of 640; bootstrap over pictures"
    reference = 100 * other["wider_eval"]["average"]["value"]

    def figure(report: dict[str, Any], what: str, target: str = "", met: bool | None = None) -> Figure:
        wider = report["wider_eval"]
        value, low, high = (round(100 * wider["average"][key], 2) for key in ("value", "low", "high"))
        return Figure(what, value, low, high, wider["faces"], on, "%", target, met)

    reached = 100 * own["wider_eval"]["average"]["value"] >= reference - AP_MARGIN
    target = f"within {AP_MARGIN:g} points of YuNet-s by the same code ({reference:.2f} %)"
    return [
        figure(own, "AP@0.5, faces of 20 px and more", target, reached),
        figure(other, "AP@0.5 of YuNet-s by the same code, for comparison"),
    ]


def _everything_found(own: dict[str, Any]) -> list[Figure]:
    rows = (
        ("avengers_crops", "tight Avengers crops with a face found (padding policy)", "avengers/cropped_images"),
        ("avengers_scenes", "Avengers scenes with a face found", "scenes/avengers"),
    )
    return [
        rate_figure(what, own[key], on, f"all {own[key]['count']}", own[key]["hits"] == own[key]["count"])
        for key, what, on in rows
    ]


def rate_figure(what: str, rate: dict[str, Any], on: str, target: str = "", met: bool | None = None) -> Figure:
    """A share, JSON-ready as `Rate.to_dict` gives it, in per cent."""
    value, low, high = (round(100 * rate[key], 2) for key in ("value", "low", "high"))
    return Figure(what, value, low, high, rate["count"], on, "%", target, met)


def _landmarks(own: dict[str, Any], other: dict[str, Any]) -> list[Figure]:
    on = "LFW deep-funneled pictures; share of the eye distance, mean of five landmarks, against SCRFD-2.5G"

    def figure(report: dict[str, Any], key: str, what: str, target: str = "", met: bool | None = None) -> Figure:
        marks = report["lfw_landmarks"]
        value, low, high = (round(100 * marks[key][end], 2) for end in ("value", "low", "high"))
        return Figure(what, value, low, high, marks["faces"], on, "%", target, met)

    reached = 100 * own["lfw_landmarks"]["median"]["value"] <= LANDMARK_TARGET
    return [
        figure(own, "median", "landmark error, median", f"{LANDMARK_TARGET:g} % or less", reached),
        figure(own, "p90", "landmark error, 90th percentile"),
        figure(other, "median", "landmark error of YuNet-s, median, for comparison"),
    ]


def _time(times: dict[str, Any]) -> list[Figure]:
    on = "one thread, ONNX Runtime, interleaved with YuNet-s; processor time"
    own, ratio = times["cpu_milliseconds"]["p50"], times["cpu_ratio_to_first"]

    def figure(what: str, found: dict[str, Any], factor: float, unit: str, target: str, met: bool | None) -> Figure:
        value, low, high = (round(factor * found[key], 2) for key in ("value", "low", "high"))
        return Figure(what, value, low, high, times["rounds"], on, unit, target, met)

    not_slower = ratio["low"] <= 1.0  # the interval reaches to one or below
    return [
        figure("processor time of the network at 640x480, float32, median", own, 1, "ms", "", None),
        figure("its processor time as a share of YuNet-s's", ratio, 100, "%", "not slower than YuNet-s", not_slower),
    ]


def lfw_accuracy(detector: Detector, name: str, embedder: Path, data: Path) -> KFoldAccuracy:
    """Accuracy by folds of foamliu's MobileFaceNet on faces that `detector` found."""
    from training.distill.measure import embed_with, read_verification_set, verify
    from training.distill.teacher import load_teacher

    teacher = load_teacher(embedder)
    lfw = data / "lfw"
    found = read_verification_set(lfw / "pairs.txt", lfw / "images", detector, "LFW", name)
    return verify(embed_with(lambda pixels: teacher(pixels).embedding, found.crops), found).accuracy


def _verification(own: KFoldAccuracy, other: KFoldAccuracy) -> list[Figure]:
    on = "LFW folds 1-5, MobileFaceNet of foamliu (128-d), threshold of each fold from the others"

    def figure(rate: Rate, what: str, target: str = "", met: bool | None = None) -> Figure:
        return rate_figure(what, rate.to_dict(), on, target, met)

    reference = 100 * other.accuracy.value
    reached = 100 * own.accuracy.value >= reference - LFW_MARGIN
    target = f"within {LFW_MARGIN:g} points of that through YuNet-s ({reference:.2f} %)"
    return [
        figure(own.accuracy, "LFW accuracy through this detector", target, reached),
        figure(other.accuracy, "LFW accuracy through YuNet-s, for comparison"),
    ]


@command("detector_card")
def main() -> int:
    """`python -m benchmarks.detector_card`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector_card", description=__doc__)
    configure_card(parser)
    return run_card(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
