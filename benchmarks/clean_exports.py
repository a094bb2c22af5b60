"""Does the gate cry wolf? Exports with nothing wrong, each with other weights and photos, and how many it refuses.

    python -m benchmarks.clean_exports --calibration photos --split card.json --out clean.json

Every export multiplies each weight of the shipped embedder and detector by 1 + N(0, 0.001), calibrates on a random part
of the photos, chooses ranges and options as `edge export` does, and asks those budgets of the gate that need no pairs
of faces. A seed is an export; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.command import command
from benchmarks.provenance import machine
from edge.errors import GateError
from edge.metrics.intervals import Rate
from edge.types import Image
from edge.weights import find_weights
from export.agreement import compare_detections, compare_embeddings, detect_with, embed_with
from export.calibration.photos import Faces, list_photos, mosaics, read_training_part
from export.graph import Graph
from export.passes import Passes
from export.photos import Finder, Photos
from export.request import Budget
from export.sources import Source, load_embedder_checkpoint
from export.variants import build_variants, calibrate_detector, calibrate_embedder, held_out

NOISE = 1e-3
"""Standard deviation of a weight's relative change."""

PHOTOS, MOSAICS = 32, 16
"""Calibration photos of an export, and pictures made of them for the detector: fewer than an export takes, so that more
exports fit into an hour."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Both models, the aligned faces to choose from, and the photos themselves, which the detector sees in mosaics."""

    embedder: Source
    detector: Source
    faces: Faces
    photos: tuple[Path, ...]


def read_inputs(folder: Path, split: Path | None) -> Inputs:
    """The shipped models and the photos of a folder, or of the part a split learned from. Raises InputError."""
    finder = Finder.of(None, None)
    embedder = load_embedder_checkpoint(find_weights(None, "embedder"), Passes())
    only = {} if split is None else {folder: read_training_part(split)}
    aligner = Photos(finder, lambda text: print(text, file=sys.stderr), True, only)
    return Inputs(embedder, finder.detector, aligner.faces(folder), list_photos(folder, only.get(folder)))


def clean_export(inputs: Inputs, seed: int) -> dict[str, Any]:
    """One export: what each variant scored, or what the gate said against it."""
    random = np.random.default_rng(seed)
    embedder, detector = (shaken(source, random) for source in (inputs.embedder, inputs.detector))
    chosen = random.permutation(len(inputs.faces.crops))[:PHOTOS]
    seen = random.permutation(len(inputs.photos))[:PHOTOS]
    try:
        scores = _embedder(embedder, inputs.faces.crops[chosen])
        scores |= _detector(detector, mosaics([inputs.photos[place] for place in seen], MOSAICS))
    except GateError as error:
        return {"seed": seed, "refused": str(error)}
    return {"seed": seed, "refused": None, **scores}


def shaken(source: Source, random: np.random.Generator) -> Source:
    """The same model with every weight a little different."""
    graph = Graph(source.float_model)
    for name, value in graph.arrays.items():
        if value.dtype == np.float32 and value.ndim > 1:
            graph.arrays[name] = (value * (1 + NOISE * random.standard_normal(value.shape))).astype(np.float32)
    return replace(source, float_model=graph.close())


def _embedder(source: Source, crops: Image) -> dict[str, float]:
    table = calibrate_embedder(source, crops, "", quiet=True)
    judged = held_out(crops)
    reference = embed_with(source.float_model.SerializeToString(), source.contract, judged)
    scores = {}
    for built in build_variants(source, ("fp32", "fp16", "int8"), table, Passes()):
        rows = embed_with(built.data, source.contract, judged)
        mean = compare_embeddings(rows, reference, "").mean_cosine
        Budget().require_cosine(built.name, built.precision, mean, f"{len(judged)} crops")
        scores[built.name] = round(mean, 6)
    return scores


def _detector(source: Source, pictures: Sequence[Image]) -> dict[str, float]:
    table = calibrate_detector(source, pictures, "", quiet=True)
    judged = list(pictures[3::4])
    reference = detect_with(source.float_model.SerializeToString(), source.contract, judged)
    scores = {}
    for built in build_variants(source, ("fp32", "fp16", "int8"), table, Passes()):
        agreement = compare_detections(detect_with(built.data, source.contract, judged), reference)
        Budget.require_agreement(built.name, built.precision, agreement.figure, agreement.faces)
        scores[built.name] = round(agreement.figure, 6)
    return scores


def summary(exports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many were refused, with an interval, and the least that each variant scored."""
    refused = sum(export["refused"] is not None for export in exports)
    scores = [{name: value for name, value in e.items() if name not in ("seed", "refused")} for e in exports]
    names = dict.fromkeys(name for entry in scores for name in entry)
    least = {name: min(entry[name] for entry in scores if name in entry) for name in names}
    return {"refused": Rate.of(refused, len(exports)).to_dict(), "least": least}


@command("clean_exports")
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is not in the file yet, and prints what became of all."""
    about = "How many exports with nothing wrong the gate refuses."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clean_exports", description=about)
    parser.add_argument("--calibration", type=Path, required=True, metavar="DIR", help="photos, a folder a person")
    parser.add_argument("--split", type=Path, metavar="FILE", help="take the photos this card.json learned from")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="exports (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON; a run goes on from it")
    args = parser.parse_args(arguments)
    exports = _run(args)
    found = summary(exports)
    print(f"refused: {found['refused']['hits']} of {found['refused']['count']}; least: {found['least']}")
    for export in exports:
        if export["refused"] is not None:
            print(f"seed {export['seed']}: {export['refused']}")
    return 0


def _run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """All exports, those of an earlier run first; the file is written after each."""
    inputs = read_inputs(args.calibration, args.split)
    exports: list[dict[str, Any]] = []
    if args.out.is_file():
        exports = json.loads(args.out.read_text(encoding="utf-8"))["exports"]
    done = {export["seed"] for export in exports}
    for seed in tqdm([seed for seed in range(args.count) if seed not in done], desc="exports", unit="export"):
        exports.append(clean_export(inputs, seed))
        kept = {"machine": machine(), "photos": PHOTOS, "noise": NOISE, **summary(exports), "exports": exports}
        args.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return exports


if __name__ == "__main__":
    sys.exit(main())
