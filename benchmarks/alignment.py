"""`python -m benchmarks.alignment DETECTOR[+LANDMARKER]…`: what landmarks are worth to recognition.

Crops of an archive stand in a grey frame; each detector finds the face and its landmarks say how it is cut. Then one
embedder tells people apart: the better the faces lie in their crops, the more pairs of one person it accepts.
"""

from __future__ import annotations

import argparse
import json
import zipfile
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.command import command
from edge.align import align
from edge.detect import Detector, find_main_face
from edge.errors import InputError
from edge.metrics.scores import all_pair_scores
from edge.metrics.verification import tar_at_far
from edge.types import Image
from edge.weights import find_weights
from training.checkpoint import load_embedder
from training.embedding import embed
from training.faces import Finder

FARS = (1e-2, 1e-3, 1e-4)
GREY = (110, 110, 110)
BATCH = 32


def read_people(archive: Path, most: int) -> tuple[list[Image], np.ndarray[Any, np.dtype[np.int64]]]:
    """Crops of `PERSON/NAME.jpg`, the first `most` of each person by name, and whose they are. Raises InputError."""
    crops, people = [], []
    try:
        with zipfile.ZipFile(archive) as file:
            names = sorted(name for name in file.namelist() if name.lower().endswith(".jpg") and "/" in name)
            for person, (_, own) in enumerate(groupby(names, lambda name: name.split("/")[-2])):
                for name in list(own)[:most]:
                    image = cv2.imdecode(np.frombuffer(file.read(name), np.uint8), cv2.IMREAD_COLOR)
                    if image is not None:
                        crops.append(np.asarray(image, np.uint8))
                        people.append(person)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive}: not a zip archive that can be read ({error})") from error
    if len(set(people)) < 2:
        raise InputError(f"{archive}: holds no PERSON/NAME.jpg of two people")
    return crops, np.array(people, np.int64)


def measure(detector: Detector, name: str, embedder: Path, crops: list[Image], people: Any) -> dict[str, Any]:
    """Share of the faces found, and TAR at `FARS` over all pairs of the crops found and cut anew; others stay uncut."""
    found, cut = 0, []
    for crop in crops:
        margin = crop.shape[0] // 2
        framed = cv2.copyMakeBorder(crop, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=GREY)
        face = find_main_face(detector, framed)
        found += face is not None
        cut.append(crop if face is None else align(framed, face.landmarks))
    model, _ = load_embedder(embedder)
    embeddings = np.concatenate([embed(model, np.stack(cut[k : k + BATCH])) for k in range(0, len(cut), BATCH)])
    scores = all_pair_scores(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), people)
    tars = [tar_at_far(scores.genuine, scores.impostor, far) for far in FARS]
    return {
        "detector": name,
        "found": found,
        "crops": len(crops),
        "tar_at_far": [{"far": t.far, "tar": t.tar.to_dict() if t.tar else t.refusal} for t in tars],
    }


@command("benchmarks.alignment")
def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alignment", description=__doc__)
    add = parser.add_argument
    add(
        "detectors",
        nargs="+",
        metavar="DETECTOR",
        help="names of weights, or files (.safetensors, YuNet .onnx), with + and a landmarker's or without",
    )
    add("--crops", type=Path, required=True, metavar="ZIP", help="aligned crops, PERSON/NAME.jpg")
    add("--embedder", default="mobilefacenet-512", metavar="NAME", help="default: %(default)s")
    add("--most", type=int, default=24, metavar="N", help="crops of a person at most (default: %(default)s)")
    add("--json", action="store_true", help="the figures as JSON")
    args = parser.parse_args()
    if args.most < 2:
        raise InputError(f"--most {args.most}: two crops of a person are the least that make a pair")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    crops, people = read_people(args.crops, args.most)
    embedder = find_weights(args.embedder, "embedder")
    rows = [measure(Finder.parse(name).open(), name, embedder, crops, people) for name in args.detectors]
    if args.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        parts = [
            f"{100 * t['tar']['value']:.2f} % at FAR {t['far']:g}" if isinstance(t["tar"], dict) else t["tar"]
            for t in row["tar_at_far"]
        ]
        print(f"{row['detector']}: found {row['found']} of {row['crops']}; TAR {', '.join(parts)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
