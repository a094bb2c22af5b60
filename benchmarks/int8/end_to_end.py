"""What a precision costs from picture to verdict: detector, alignment and embedder in it, beside all of them in FP32.

    python -m benchmarks.int8.end_to_end --bundle face.bundle --pairs lfw/pairs.txt --images lfw/images --out whole.json

The export's gate and `edge bench` give every variant the faces that FP32 found, so that only the embedder differs. Here
each precision finds and aligns the faces itself, as a camera does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.command import command
from benchmarks.provenance import machine, versions
from edge.align import CROP_SIZE
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.errors import InputError
from edge.metrics.pairs import PairRows, images_of, read_pairs
from edge.pictures import read_picture
from edge.types import Floats
from export.gate import accuracy_drop, tar_drop

REFERENCE = "fp32"
FARS = (1e-3, 1e-4)
BATCH = 64
CROP = (CROP_SIZE, CROP_SIZE, 3)


def embed_all(bundle: Bundle, precision: str, pictures: Sequence[Path]) -> tuple[Floats, Sequence[bool]]:
    """(N, D) unit rows, zero where no face was found, and in which pictures one was; everything in one precision."""
    rows, found = list[Floats](), list[bool]()
    options = AnalyzerOptions(precision=precision)
    with FaceAnalyzer(bundle, options) as analyzer:
        crops = []
        for path in tqdm(pictures, desc=precision, unit="photo", disable=None, leave=False):
            image = read_picture(path)
            face = analyzer.main_face(image)
            found.append(face is not None)
            crops.append(analyzer.align(image, [face])[0] if face is not None else np.zeros(CROP, np.uint8))
            if len(crops) == BATCH:
                rows.append(analyzer.embed(np.stack(crops)))
                crops = []
        if crops:
            rows.append(analyzer.embed(np.stack(crops)))
    return np.concatenate(rows) * np.array(found, np.float32)[:, None], found


def compare(
    bundle: Bundle, precisions: Sequence[str], pairs_file: Path, folder: Path, fars: Sequence[float] = FARS
) -> dict[str, Any]:
    """What each precision loses to FP32 on pairs in whose pictures both found a face; TAR over all pairs of pictures.

    Raises InputError where a file is missing, no such pair is left, or the pictures are too few for a FAR.
    """
    if not all(0 < far < 1 for far in fars):
        raise InputError(f"--far {' '.join(map(str, fars))}: each lies between 0 and 1")
    pairs = read_pairs(pairs_file)
    images = images_of(pairs, folder)
    rows = {name: row for row, name in enumerate(images)}
    people = np.unique([path.parent.name for path in images.values()], return_inverse=True)[1].astype(np.int64)
    reference, seen = embed_all(bundle, REFERENCE, list(images.values()))
    figures: dict[str, Any] = {"pictures": len(images), "missed": {REFERENCE: seen.count(False)}}
    for precision in precisions:
        variant, found = embed_all(bundle, precision, list(images.values()))
        both = np.array(seen) & np.array(found)
        kept = [pair for pair in pairs if both[rows[pair.first]] and both[rows[pair.second]]]
        if not kept:
            raise InputError(f"{pairs_file}: in none of the {len(pairs)} pairs both faces were found")
        drops = [accuracy_drop(reference, variant, PairRows.of(kept, rows))]
        drops += [tar_drop(reference[both], variant[both], people[both], far) for far in fars]
        cosine = (reference[both] * variant[both]).sum(axis=1)
        figures["missed"][precision] = found.count(False)
        figures[precision] = {
            "pairs_left_out": len(pairs) - len(kept),
            "cosine": {"median": round(float(np.median(cosine)), 6), "least": round(float(cosine.min()), 6)},
            "drops": {drop.what: drop.to_dict() for drop in drops},
        }
        for drop in drops:
            print(f"{precision}: {drop}, from {100 * drop.reference:.2f} to {100 * drop.variant:.2f} %", flush=True)
    return figures


@command("end_to_end")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line a precision and figure, and keeps them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8.end_to_end", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--pairs", type=Path, required=True, metavar="FILE", help="LFW-style pairs")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures they name")
    parser.add_argument("--precision", nargs="+", default=["int8"], metavar="P", help="(default: int8)")
    parser.add_argument("--far", nargs="+", type=float, default=list(FARS), help="(default: 1e-3 1e-4)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="the figures, with the machine")
    args = parser.parse_args(arguments)
    bundle = Bundle.open(args.bundle)
    figures = compare(bundle, args.precision, args.pairs, args.images, args.far)
    if args.out is not None:
        kept = {"machine": machine(), "versions": versions(), "bundle": bundle.digest(), **figures}
        args.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
