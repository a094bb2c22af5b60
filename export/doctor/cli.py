"""`edge calibrate`: looks after calibration photos."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge.cli.verb import Verb
from edge.errors import InputError

EXAMPLE = """
edge calibrate doctor photos/ --not-in lfw/images --out doctor/
edge calibrate doctor photos/ --weights mine.safetensors --not-in evaluation.zip --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    doctor = actions.add_parser(
        "doctor",
        help="whether photos are fit to calibrate on, and what to do where they are not",
        description=(
            "Looks for too few photos, copies and near-duplicates, leakage into evaluation data, blur, tiny faces,\n"
            "one-sided pose and light, exchanged red and blue, and pictures without a face. Ends with 2 where\n"
            "calibrating on the photos would be wrong, with 0 where it is fit or merely could be better."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photos, a folder per identity")
    doctor.add_argument(
        "--weights", metavar="FILE_OR_NAME", help="the embedder to be calibrated (default: that of model_weights)"
    )
    doctor.add_argument("--onnx", type=Path, metavar="FILE", help="a third-party embedder instead")
    doctor.add_argument("--contract", type=Path, metavar="FILE.toml", help="how the third-party embedder is fed")
    doctor.add_argument("--detector", metavar="FILE_OR_NAME", help="detector checkpoint or YuNet ONNX")
    doctor.add_argument("--landmarker", metavar="FILE_OR_NAME", help="places the landmarks, or none (default: our own)")
    doctor.add_argument(
        "--not-in",
        action="append",
        default=[],
        type=Path,
        metavar="DIR_OR_ZIP",
        help="evaluation pictures: no photo may be among them (may be given again)",
    )
    doctor.add_argument(
        "--out", type=Path, metavar="DIR", help="write doctor.json, and the plot of stability.png, to this folder"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    from edge.weights import find_weights
    from export.doctor.examine import examine
    from export.doctor.plot import draw
    from export.passes import Passes
    from export.photos import Finder
    from export.sources import load_embedder_checkpoint, load_embedder_onnx

    if (args.onnx is None) != (args.contract is None):
        raise InputError("--onnx and --contract go together")
    if args.onnx is not None and args.weights is not None:
        raise InputError("name --weights or --onnx, not both")
    if not args.photos.is_dir():
        raise InputError(f"{args.photos}: no such folder; name a folder of photos")
    finder = Finder.of(args.detector, args.landmarker)
    if args.onnx is not None:
        embedder = load_embedder_onnx(args.onnx, args.contract, Passes())
    else:
        embedder = load_embedder_checkpoint(find_weights(args.weights, "embedder"), Passes())
    result = examine(args.photos, embedder, finder, args.not_in, quiet=args.json or not sys.stderr.isatty())
    text = json.dumps(result.diagnosis.to_dict(), indent=2)
    print(text if args.json else result.diagnosis.as_text())
    if args.out is not None:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / "doctor.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{args.out}: cannot be written ({error.strerror})") from error
        if result.stability is not None:
            draw(result.stability, args.out / "stability.png")
    return 2 if result.diagnosis.fatal else 0


VERB = Verb(
    name="calibrate",
    summary="say whether photos are fit to calibrate INT8 on, and what to do where they are not",
    configure=configure,
    run=run,
    example=EXAMPLE,
    requires=("torch", "onnx", "onnxscript", "safetensors", "matplotlib"),
    extra="export",
)
