"""`python -m benchmarks.landmarker_card`: measures trained landmarker weights and writes the card that ships with them.

Training leaves `NAME.training.json` beside the weights: recipe, data, time. What the weights are worth is measured
here, behind the detector they are used with: where the landmarks are, and what that is worth to recognition.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.alignment import measure as measure_alignment
from benchmarks.alignment import read_people
from benchmarks.command import command
from benchmarks.detection import landmark_error, open_detector, open_landmarker
from benchmarks.detector_card import (
    LANDMARK_TARGET,
    LFW_MARGIN,
    lfw_accuracy,
    rate_figure,
    read_course,
    write_card,
)
from benchmarks.interleave import Plan, Stopwatch, interleave
from benchmarks.scrfd import Scrfd
from benchmarks.statistics import quantiles
from edge.align import WIDE_96_SIZE
from edge.errors import InputError
from edge.weights import find_weights
from edge.weights.cards import Figure
from edge.weights.digests import digest_of

FAR = 1e-3
"""Of the figures through `mobilefacenet-512`."""


def configure_card(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add("weights", type=Path, metavar="WEIGHTS", help="of `edge train landmarker` (.safetensors)")
    add("--detector", metavar="FILE_OR_NAME", help="finds the faces (default: the one in model_weights)")
    add("--reference", type=Path, required=True, metavar="ONNX", help="YuNet-s, which the LFW target is relative to")
    add("--landmarks", type=Path, required=True, metavar="ONNX", help="SCRFD whose landmarks are the yardstick")
    add("--embedder", type=Path, required=True, metavar="PT", help="foamliu's MobileFaceNet, for LFW through both")
    add("--crops", type=Path, required=True, metavar="ZIP", help="aligned crops, PERSON/NAME.jpg, nobody learned from")
    add("--data", type=Path, required=True, help="folder with lfw")
    add("--lfw-every", type=int, default=4, metavar="N", help="landmarks on every N-th picture (default: %(default)s)")
    add("--seconds", type=float, default=10.0, help="of measuring time (default: %(default)s)")


def run_card(args: argparse.Namespace) -> int:
    """Measures and writes the card; prints its figures."""
    course = read_course(args.weights, "landmarker")
    cv2.setNumThreads(1)
    detector = find_weights(args.detector, "detector")
    crops, people = read_people(args.crops, 24)
    embedder = find_weights("mobilefacenet-512", "embedder")
    lfw = args.data / "lfw"
    yardstick, pictures = Scrfd(args.landmarks), sorted((lfw / "images").rglob("*.jpg"))[:: args.lfw_every]
    through: dict[str, Any] = {}
    for name, closer in (("with", args.weights), ("without", None)):
        finder = open_detector(detector, landmarker=closer)
        lenient = open_detector(detector, replace(finder.options, min_score=0.3), closer)
        through[name] = {
            "landmarks": asdict(landmark_error(lenient, yardstick, pictures)),
            "alignment": measure_alignment(finder, name, embedder, crops, people)["tar_at_far"],
            "lfw": lfw_accuracy(finder, name, args.embedder, args.data).accuracy.to_dict(),
        }
    yunet = lfw_accuracy(open_detector(args.reference), "YuNet-s", args.embedder, args.data).accuracy.to_dict()
    figures = [
        *_landmarks(through, detector.stem),
        *_alignment(through, args.crops.stem, digest_of(embedder)),
        *_verification(through, yunet, detector.stem),
        _time(args.weights, Plan(seconds=args.seconds)),
    ]
    write_card(args.weights, "landmarker", course, figures)
    return 0


def _landmarks(through: dict[str, Any], detector: str) -> list[Figure]:
    on = "LFW deep-funneled pictures; share of the eye distance, mean of five landmarks, against SCRFD-2.5G"

    def figure(which: str, key: str, what: str, target: str = "", met: bool | None = None) -> Figure:
        marks = through[which]["landmarks"]
        value, low, high = (round(100 * marks[key][end], 2) for end in ("value", "low", "high"))
        return Figure(what, value, low, high, marks["faces"], on, "%", target, met)

    reached = 100 * through["with"]["landmarks"]["median"]["value"] <= LANDMARK_TARGET
    return [
        figure(
            "with", "median", f"landmark error behind {detector}, median", f"{LANDMARK_TARGET:g} % or less", reached
        ),
        figure("with", "p90", "landmark error, 90th percentile"),
        figure("without", "median", f"landmark error of {detector} alone, median, for comparison"),
    ]


def _alignment(through: dict[str, Any], archive: str, embedder: str) -> list[Figure]:
    on = f"all pairs of {archive}, detected and cut anew, mobilefacenet-512 in FP32, digest {embedder[:12]}"
    rows = []
    for which, what in (("with", "TAR at FAR 1e-3 through it"), ("without", "TAR at FAR 1e-3 without, for comparison")):
        (found,) = (row["tar"] for row in through[which]["alignment"] if row["far"] == FAR)
        if isinstance(found, str):
            raise InputError(f"{archive}: {found}")
        rows.append(rate_figure(what, found, on))
    return rows


def _verification(through: dict[str, Any], yunet: dict[str, Any], detector: str) -> list[Figure]:
    on = "LFW folds 1-5, MobileFaceNet of foamliu (128-d), threshold of each fold from the others"
    own, reference = through["with"]["lfw"], 100 * yunet["value"]
    target = f"within {LFW_MARGIN:g} points of that through YuNet-s ({reference:.2f} %)"
    return [
        rate_figure("LFW accuracy through it", own, on, target, 100 * own["value"] >= reference - LFW_MARGIN),
        rate_figure(f"LFW accuracy through {detector} alone, for comparison", through["without"]["lfw"], on),
        rate_figure("LFW accuracy through YuNet-s, for comparison", yunet, on),
    ]


def _time(weights: Path, plan: Plan) -> Figure:
    landmarker = open_landmarker(weights)
    crop = np.zeros((1, WIDE_96_SIZE, WIDE_96_SIZE, 3), np.uint8)

    def one_face(_: int, watch: Stopwatch) -> None:
        watch.time("network", lambda: landmarker.points(crop))

    measured = interleave({"landmarker": one_face}, plan)
    spent = quantiles(measured.timings["landmarker"].cpu["network"] * 1e3).to_dict()["p50"]
    value, low, high = (round(spent[key], 3) for key in ("value", "low", "high"))
    on = "one thread, ONNX Runtime, processor time"
    return Figure("processor time of the network a face, float32, median", value, low, high, measured.rounds, on, "ms")


@command("landmarker_card")
def main() -> int:
    """`python -m benchmarks.landmarker_card`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.landmarker_card", description=__doc__)
    configure_card(parser)
    return run_card(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
