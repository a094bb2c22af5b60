"""`edge export`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli.verb import Verb
from edge.errors import InputError
from edge.manifest import PRECISIONS, Variant

if TYPE_CHECKING:
    from export.request import ExportRequest

EXAMPLE = """
edge export --weights mobilefacenet.safetensors --calibration photos/ --out my.bundle
edge export --onnx other.onnx --contract other.toml --detector yunet.onnx --calibration photos/ --out other.bundle
"""


def configure(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--weights",
        metavar="FILE_OR_NAME",
        help="checkpoint, or a name of edge weights list (default: the embedder that ships)",
    )
    model.add_argument("--onnx", type=Path, metavar="FILE", help="a third-party embedder instead")
    model.add_argument("--contract", type=Path, metavar="FILE.toml", help="how the third-party embedder is fed")
    model.add_argument(
        "--detector", metavar="FILE_OR_NAME", help="detector checkpoint or YuNet ONNX (default: our own)"
    )
    model.add_argument(
        "--landmarker",
        metavar="FILE_OR_NAME",
        help="places the landmarks of each face found anew: a checkpoint of edge train landmarker, or none "
        "(default: our own)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="folder the bundle is written to")
    parser.add_argument(
        "--precision", default=",".join(PRECISIONS), metavar="LIST", help="of fp32,fp16,int8 (default: all three)"
    )
    parser.add_argument(
        "--target",
        default="onnx",
        metavar="LIST",
        help="of onnx, tensorrt (adds INT8 graphs laid out for it), triton (adds a model repository); default: onnx",
    )
    parser.add_argument(
        "--triton-out", type=Path, metavar="DIR", help="model repository of --target triton (default: BUNDLE.triton)"
    )
    calibration = parser.add_argument_group("calibration and threshold")
    calibration.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR_OR_TABLE",
        help="photos, a folder per identity, or a calibration table (default: the table beside the weights)",
    )
    calibration.add_argument(
        "--split",
        type=Path,
        metavar="FILE.json",
        help="of the photos, take those this split or card.json of edge train learned from",
    )
    calibration.add_argument("--save-calibration", type=Path, metavar="FILE.json", help="write the tables for later")
    calibration.add_argument("--far", type=float, help="false accept rate the threshold is fitted at (default: 1e-3)")
    calibration.add_argument(
        "--pairs-from",
        type=Path,
        metavar="DIR",
        help="identities to fit the threshold on, and to compare methods on; never those of a test",
    )
    calibration.add_argument(
        "--scenes",
        type=Path,
        metavar="DIR",
        help="whole photographs, as the camera sees people, to fit the score from which each precision of the detector "
        "finds as many faces as FP32; never those of a test (default: what is stored beside the weights)",
    )
    gate = parser.add_argument_group("gate: outside of it nothing is written, exit code 3")
    gate.add_argument("--min-cosine", type=float, metavar="C", help="least mean cosine of INT8 to the reference")
    gate.add_argument(
        "--no-repair",
        action="store_true",
        help="refuse an INT8 out of budget instead of keeping its worst layers in float",
    )
    gate.add_argument(
        "--keep", default="", metavar="LAYERS", help="leave these layers of INT8 in float (names: --report)"
    )
    gate.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="what each layer loses in INT8, and accuracy against time of keeping it in float: tables and plots",
    )
    gate.add_argument("--evaluate", type=Path, metavar="PAIRS.txt", help="compare every variant on LFW-style pairs")
    gate.add_argument("--images", type=Path, metavar="DIR", help="the pictures of those pairs")
    gate.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="most points of accuracy, or of TAR at the FAR, a variant may lose",
    )
    parser.add_argument("--sign", type=Path, metavar="KEY", help="sign the bundle with this key (edge bundle keygen)")
    parser.add_argument("--explain", action="store_true", help="print what each graph pass changed")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    from export.exporter import export
    from export.triton import TritonOptions, require_repository, write_repository

    _require_options_that_fit(args)
    targets = _choices(args.target, ("onnx", "tensorrt", "triton"), "--target")
    if args.triton_out is not None and "triton" not in targets:
        raise InputError("--triton-out needs --target triton")
    repository = args.triton_out or args.out.with_name(f"{args.out.name}.triton")
    if "triton" in targets:
        require_repository(repository)
    say: Callable[[str], None] = (lambda _: None) if args.json else print
    result = export(_request(args, targets), say)
    models = write_repository(result.bundle, repository, TritonOptions(), say) if "triton" in targets else ()
    if args.json:
        print(json.dumps(result.bundle.manifest.to_dict(), indent=2))
        return 0
    if args.explain:
        for role, passes in result.passes.items():
            print(f"\n{role}\n{passes.explain()}")
    print(_table(result.bundle.manifest.variants))
    print(f"\nwritten: {args.out}")
    for model in models:
        print(f"written: {repository / model.model}, version {model.version}, {model.variant}")
    return 0


def _require_options_that_fit(args: argparse.Namespace) -> None:
    if (args.onnx is None) != (args.contract is None):
        raise InputError("--onnx and --contract go together")
    if args.onnx is not None and args.weights is not None:
        raise InputError("name --weights or --onnx, not both")
    if args.far is not None and not 0.0 < args.far < 1.0:
        raise InputError(f"--far {args.far:g}: a false accept rate lies between 0 and 1")
    if args.min_cosine is not None and not -1.0 <= args.min_cosine <= 1.0:
        raise InputError(f"--min-cosine {args.min_cosine:g}: a cosine lies between -1 and 1")
    if (args.evaluate is None) != (args.images is None):
        raise InputError("--evaluate and --images go together")
    if args.max_drop is not None and (args.evaluate is None or not args.max_drop >= 0):
        raise InputError("--max-drop POINTS is 0 or more, and needs --evaluate PAIRS.txt --images DIR")
    if args.report is not None and (args.calibration is None or not args.calibration.is_dir()) and not args.pairs_from:
        raise InputError("--report judges INT8 on photos: name a folder with --calibration, or --pairs-from")
    if "int8" not in _choices(args.precision, PRECISIONS, "--precision") and (_kept(args) or args.report is not None):
        raise InputError("--keep and --report are about INT8; --precision leaves it out")


def _kept(args: argparse.Namespace) -> tuple[str, ...]:
    return tuple(name.strip() for name in args.keep.split(",") if name.strip())


def _request(args: argparse.Namespace, targets: tuple[str, ...]) -> ExportRequest:
    from export.request import MAX_DROP, Budget, ExportRequest

    return ExportRequest(
        out=args.out,
        weights=args.weights,
        onnx=args.onnx,
        contract=args.contract,
        detector=args.detector,
        landmarker=args.landmarker,
        calibration=args.calibration,
        split=args.split,
        precisions=_choices(args.precision, PRECISIONS, "--precision"),
        targets=tuple(target for target in targets if target != "triton") or ("onnx",),
        far=args.far,
        pairs_from=args.pairs_from,
        scenes=args.scenes,
        repair=not args.no_repair,
        evaluate=args.evaluate,
        images=args.images,
        budget=Budget(args.min_cosine, MAX_DROP if args.max_drop is None else args.max_drop),
        save_calibration=args.save_calibration,
        sign=args.sign,
        keep=_kept(args),
        report=args.report,
        quiet=args.json or not sys.stderr.isatty(),
    )


def _table(variants: Sequence[Variant]) -> str:
    head = f"\n{'variant':<24} {'MB':>6}  {'cosine or agreement':<34} threshold, or score of a face"
    rows = (
        f"{variant.name:<24} {variant.size / 1e6:>6.2f}  {_figure(variant.measured):<34} {_limit(variant)}"
        for variant in variants
    )
    return "\n".join([head, *rows])


def _limit(variant: Variant) -> str:
    if variant.threshold is not None:
        return f"{variant.threshold.similarity:.4f} at FAR {variant.threshold.far:g}"
    return f"{variant.detection_score.score:g}" if variant.detection_score is not None else "–"


def _figure(measured: dict[str, dict[str, float]]) -> str:
    agreement = measured.get("agreement", {})
    if "mean_cosine" in agreement:
        return f"mean {agreement['mean_cosine']:.5f}, least {agreement['min_cosine']:.5f} ({agreement['count']})"
    if "mean_shift" in agreement:
        return f"{100 * agreement['mean_shift']:.3f} % of the eyes apart ({agreement['count']})"
    if "figure" in agreement:
        return f"{agreement['figure']:.4f} over {agreement['faces']} faces"
    return "not measured"


def _choices(text: str, allowed: tuple[str, ...], option: str) -> tuple[str, ...]:
    asked = [part.strip() for part in text.split(",") if part.strip()]
    if not asked or (unknown := [part for part in asked if part not in allowed]):
        wrong = unknown[0] if asked else "nothing"
        raise InputError(f"{option} {wrong}: choose of {', '.join(allowed)}")
    return tuple(choice for choice in allowed if choice in asked)


VERB = Verb(
    name="export",
    summary="make a bundle of FP32, FP16 and INT8 models from a checkpoint or a third-party ONNX",
    configure=configure,
    run=run,
    description=(
        "Turns a MobileFaceNet checkpoint, or a third-party ONNX with its contract, into a bundle: embedder, detector\n"
        "and landmarker in FP32 and FP16, the first two in INT8 as well, with the preprocessing inside. Each is\n"
        "compared with its reference before anything is written."
    ),
    example=EXAMPLE,
    requires=("torch", "onnx", "onnxscript", "safetensors"),
    extra="export",
)
