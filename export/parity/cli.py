"""`edge parity`: where between torch and this machine's engines a model changes, and at which tensor."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.cli import options
from edge.cli.verb import Verb

if TYPE_CHECKING:
    from edge.contract import Role
    from edge.types import Image
    from export.parity.ladder import Verdict

EXAMPLE = """
edge parity --bundle my.bundle --images photos/
edge parity --bundle my.bundle --checkpoint mobilefacenet.safetensors --images photos/ --count 100
"""

MOSAICS = 8


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", required=True, type=Path, metavar="DIR", help="bundle made by edge export")
    options.add_require_signed(parser)
    parser.add_argument(
        "--checkpoint",
        metavar="FILE_OR_NAME",
        help="the embedder's checkpoint, or a name in model_weights: the ladder then starts at torch",
    )
    parser.add_argument("--images", required=True, type=Path, metavar="DIR", help="photos of faces")
    parser.add_argument(
        "--count", type=options.positive, default=32, metavar="N", help="photos, evenly chosen (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the rungs as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    import numpy as np
    from tqdm import tqdm

    from edge.align import widen
    from edge.analyze import AnalyzerOptions, FaceAnalyzer
    from edge.weights import find_weights
    from export.calibration.photos import align_photos, list_photos, mosaics
    from export.parity.ladder import climb
    from export.parity.rungs import ladder_of

    checkpoint = None if args.checkpoint is None else find_weights(args.checkpoint, "embedder")
    bundle = options.open_bundle(args)
    quiet = args.json or not sys.stderr.isatty()
    photos = list_photos(args.images)
    chosen = [photos[i] for i in np.unique(np.linspace(0, len(photos) - 1, min(len(photos), args.count)).astype(int))]
    verdicts: list[Verdict] = []
    notes: list[str] = []
    only = frozenset(path.relative_to(args.images).as_posix() for path in chosen)
    with FaceAnalyzer(bundle, AnalyzerOptions(precision="fp32", self_test=False)) as analyzer:
        faces = align_photos(args.images, analyzer.detector, only=only, quiet=quiet)
    material: list[tuple[Role, Sequence[Image]]] = [
        ("detector", mosaics(chosen, MOSAICS)),
        ("embedder", list(faces.crops)),
    ]
    if bundle.variants("landmarker"):
        material.insert(1, ("landmarker", list(widen(faces.crops))))
    for role, pictures in material:
        ladder = ladder_of(bundle, role, checkpoint if role == "embedder" else None)
        notes += [note for note in ladder.notes if note not in notes]
        climbed = climb(ladder.rungs, ladder.contract, pictures)
        verdicts += tqdm(climbed, desc=role, total=len(ladder.rungs) - 1, unit="rung", disable=quiet, leave=False)
    if args.json:
        print(json.dumps({"rungs": [verdict.to_dict() for verdict in verdicts], "notes": notes}, indent=2))
    else:
        print(f"{len(faces.crops)} faces, {MOSAICS} mosaics of the photos for the detector\n")
        print(_table(verdicts))
        print("".join(f"\n{note}" for note in notes))
        print(_closing(verdicts))
    return 0 if all(verdict.holds for verdict in verdicts) else 3


def _table(verdicts: Sequence[Verdict]) -> str:
    lines = [
        f"{'rung':<34} {'compared with':<16} {'figure':>9} {'least':>9} {'max error':>10} {'bound':>8} {'layer':>8}"
    ]
    for verdict in verdicts:
        least = "–" if verdict.least is None else f"{verdict.least:.6f}"
        line = f"{verdict.rung:<34} {verdict.on:<16}"
        if verdict.problem is not None and verdict.figure == 0.0:
            lines.append(f"{line} cannot be run: {verdict.problem}")
            continue
        layer = f"{verdict.tensors[0].error:.2g}" if verdict.tensors else "–"
        figures = f"{verdict.figure:>9.6f} {least:>9} {verdict.max_error:>10.2g} {verdict.bound:>8g} {layer:>8}"
        lines.append(f"{line} {figures}  {'holds' if verdict.holds else 'DIVERGES'}")
        if not verdict.holds:
            lines += [f"    {text}" for text in _fault(verdict)]
    return "\n".join(lines)


def _fault(verdict: Verdict) -> list[str]:
    worst = ", ".join(f"{entry.tensor} {entry.error:.2g}" for entry in verdict.tensors[:3])
    if verdict.problem is not None:
        return [verdict.problem]
    if not verdict.tensors:
        return ["no tensor has the same name in both graphs, so none can be named"]
    if verdict.tensor is None:
        return [
            f"no layer alone is off by more than {verdict.tensor_bound:g} of its norm: errors add up, or the layers "
            f"differ only where the engine fuses them; worst {worst}"
        ]
    return [f"first tensor beyond {verdict.tensor_bound:g} of its norm: {verdict.tensor}; worst {worst}"]


def _closing(verdicts: Sequence[Verdict]) -> str:
    broken = next((verdict for verdict in verdicts if not verdict.holds), None)
    if broken is None:
        return f"\nall {len(verdicts)} rungs hold"
    where = f", first at {broken.tensor}" if broken.tensor else ""
    return f"\nthe first rung that diverges is {broken.rung}{where}"


VERB = Verb(
    name="parity",
    summary="compare a model rung by rung from torch to this machine's engines, and name the tensor that diverges",
    configure=configure,
    run=run,
    description=(
        "Climbs from the torch checkpoint (where one is given) through plain ONNX, FP32, FP16 and INT8 to every\n"
        "engine of this machine. Each rung is compared with the one it stands on, against a bound stated beforehand:\n"
        "mean cosine of an embedder and of a landmarker's shifts, agreement of a detector's faces. Every layer is\n"
        "also run alone, fed with what the original has there, and the first that is off is named. Ends with 3 where\n"
        "a rung diverges."
    ),
    example=EXAMPLE,
    requires=("onnx", "onnxruntime"),
    extra="export",
)
