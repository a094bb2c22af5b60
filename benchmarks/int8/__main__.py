"""`python -m benchmarks.int8 --weights W --calibration DIR --crops Z.zip …`: one table, one JSON file."""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.command import command
from benchmarks.int8.kernels import layer_reports
from benchmarks.int8.options import int8_variants, ranges_by, weights_within
from benchmarks.provenance import machine
from edge.types import Image
from edge.weights import find_weights
from export.agreement import compare_embeddings, embed_with
from export.gate import Drop, accuracy_drop, load_pairs, tar_drop
from export.passes import Passes
from export.photos import Finder, Photos
from export.sources import Source, load_embedder_checkpoint, load_embedder_onnx


@command("int8")
def main() -> None:
    """See the module."""
    args = _arguments()
    # Names first: loading a model means to export it.
    weights = find_weights(args.weights, "embedder") if args.onnx is None else None
    finder = Finder.of(args.detector, None)
    if weights is not None:
        source = load_embedder_checkpoint(weights, Passes())
    else:
        source = load_embedder_onnx(args.onnx, args.contract, Passes())
    photos = Photos(finder, print, quiet=True).faces(args.calibration).crops
    crops, labels = held_out_crops(args.crops, args.most)
    photos = photos[:: max(1, len(photos) // args.limit)]
    batches = [photos[i : i + 8] for i in range(0, len(photos), 8)]
    variants = int8_variants(source.float_model, batches, args.only)
    result: dict[str, Any] = {"machine": machine(), "weights": source.path.name, "sha256": source.digest}
    result["calibration"] = len(photos)
    if not args.only:
        result["layers"] = _layers(source, batches)
    reference = embed_with(source.float_model.SerializeToString(), source.contract, crops)
    result["held_out"] = _rows(f"{len(crops)} held-out crops", variants, source, crops, reference,
                               lambda rows: [tar_drop(reference, rows, labels, far) for far in args.far])  # fmt: skip
    if args.pairs is not None:
        with finder.open() as detector:
            pairs = load_pairs(args.pairs, args.images, detector, quiet=True)
        wanted = embed_with(source.float_model.SerializeToString(), source.contract, pairs.crops)
        decided = ("full range", "neighbours within 128", "bias correction")
        final = {name: variants[name] for name in decided if name in variants}
        result["lfw"] = _rows("LFW", final, source, pairs.crops, wanted, lambda rows: [
            accuracy_drop(wanted, rows, pairs.rows),
            *(tar_drop(wanted, rows, pairs.identities, far) for far in args.far),
        ])  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written: {args.out}")


def held_out_crops(files: Sequence[Path], most: int) -> tuple[Image, npt.NDArray[np.int64]]:
    """(N, 112, 112, 3) uint8 BGR of zips of `identity/name.jpg`, whole identities up to about `most`; their labels."""
    crops, names = list[Image](), list[str]()
    for file in files:
        share = len(crops) + most // len(files)
        with zipfile.ZipFile(file) as archive:
            for entry in sorted(archive.namelist()):
                name = f"{file.name}/{Path(entry).parent.name}"
                if not entry.endswith(".jpg") or (len(crops) >= share and name != names[-1]):
                    continue
                encoded = np.frombuffer(archive.read(entry), np.uint8)
                crops.append(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8))
                names.append(name)
    return np.stack(crops), np.unique(np.array(names), return_inverse=True)[1].astype(np.int64)


def _rows(
    title: str,
    variants: dict[str, bytes],
    source: Source,
    crops: Image,
    reference: npt.NDArray[np.float32],
    drops: Callable[[npt.NDArray[np.float32]], list[Drop]],
) -> dict[str, Any]:
    print(f"\n{title}\n{'INT8':<32} {'mean cosine':<12} {'least':<9} points lost, 95 %")
    table = dict[str, Any]()
    for name, data in variants.items():
        rows = embed_with(data, source.contract, crops)
        agreement = compare_embeddings(rows, reference, title)
        lost = drops(rows)
        told = "  ".join(f"{d.what} {d.points.value:.2f} [{d.points.low:.2f}, {d.points.high:.2f}]" for d in lost)
        print(f"{name:<32} {agreement.mean_cosine:<12.5f} {agreement.min_cosine:<9.5f} {told}", flush=True)
        table[name] = {"cosine": agreement.to_dict(), **{drop.what: drop.to_dict() for drop in lost}}
    return table


def _layers(source: Source, batches: Sequence[Image]) -> dict[str, Any]:
    ranges = ranges_by(source.float_model, batches, "mse")
    few = np.stack([batch[-1] for batch in batches[:8]])
    with weights_within(lambda scales: scales * 0):
        full = layer_reports(source.float_model, ranges, few)
    bounded = layer_reports(source.float_model, ranges, few)
    for name, reports in (("full range", full), ("as exported", bounded)):
        worst = min(reports, key=lambda report: report.cosine)
        can = sum(report.can_saturate for report in reports)
        print(
            f"{name}: {can} of {len(reports)} layers can saturate; worst {worst.layer} {worst.cosine:.5f}", flush=True
        )
    return {
        "full range": [report.to_dict() for report in full],
        "as exported": [report.to_dict() for report in bounded],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__)
    parser.add_argument("--weights", metavar="FILE_OR_NAME", help="embedder (default: the shipped one)")
    parser.add_argument("--onnx", type=Path, help="a third-party embedder instead, with --contract")
    parser.add_argument("--contract", type=Path)
    parser.add_argument("--detector", metavar="FILE_OR_NAME")
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR", help="photos")
    parser.add_argument("--crops", type=Path, nargs="+", required=True, metavar="ZIP", help="held-out aligned crops")
    parser.add_argument("--limit", type=int, default=128, help="photos that are calibrated on (default: 128)")
    parser.add_argument("--most", type=int, default=3000, help="crops of those that are embedded (default: 3000)")
    parser.add_argument("--pairs", type=Path, help="LFW's pairs.txt, for the final figures")
    parser.add_argument("--images", type=Path, help="LFW's pictures")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of the table's rows, and no layers")
    parser.add_argument("--far", type=float, nargs="+", default=[1e-3, 1e-4])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
