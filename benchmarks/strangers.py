"""Whom a bundle names at its own threshold: the test photos of the people it was fine-tuned on, and strangers.

    python -m benchmarks.strangers --bundle avengers.bundle --dataset photos --card card.json --strangers lfw/images

The photos the training learned from are the gallery, as a user would enrol them. Every precision finds, aligns and
embeds by itself, and the nearest picture decides at the threshold that the bundle states, as on a camera.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.accuracy.embeddings import embed_pictures
from benchmarks.provenance import machine
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.errors import EdgeError, InputError
from edge.metrics.intervals import Rate
from edge.metrics.pairs import read_identities
from edge.types import Floats
from training.evaluate import open_set


@dataclass(frozen=True, slots=True)
class Photos:
    """train, test: of the people known, their folder's name being who it is. strangers: of nobody known."""

    train: tuple[Path, ...]
    test: tuple[Path, ...]
    strangers: tuple[Path, ...]

    @property
    def everything(self) -> tuple[Path, ...]:
        """All of them, in this order."""
        return (*self.train, *self.test, *self.strangers)


def read_photos(dataset: Path, card: Path, strangers: Path) -> Photos:
    """The parts of a training's split, and the pictures of whoever is none of its people.

    Raises InputError for a card without a split, photos that are missing, or no strangers.
    """
    try:
        split = json.loads(card.read_text(encoding="utf-8"))["split"]
        parts = {part: tuple(dataset / str(name) for name in split[part]) for part in ("train", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{card}: holds no split with train and test; name the card.json of edge train") from error
    if missing := [path for paths in parts.values() for path in paths if not path.is_file()]:
        raise InputError(f"{dataset}: {len(missing)} photos of the split are not here, first {missing[0].name}")
    known = {_who(path.parent.name) for path in parts["train"]}
    others = tuple(image.path for image in read_identities(strangers) if _who(image.identity) not in known)
    if not others:
        raise InputError(f"{strangers}: shows nobody who is not in {dataset}; give a folder for each of other people")
    return Photos(parts["train"], parts["test"], others)


def named(analyzers: dict[str, FaceAnalyzer], photos: Photos) -> dict[str, Any]:
    """By precision: the threshold, known people named right and strangers named, each with an interval."""
    baseline = next(iter(analyzers))
    with tqdm(total=1.0, desc="photos", unit="", bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        embedded = embed_pictures(analyzers, baseline, photos.everything, True, lambda done: bar.update(done - bar.n))
    place = embedded.positions()
    people = sorted({path.parent.name for path in photos.train})
    result = {}
    for precision, analyzer in analyzers.items():
        threshold = analyzer.threshold
        if threshold is None:
            raise InputError(f"the bundle states no threshold for {precision}; export it with --pairs-from and --far")

        def rows(paths: Sequence[Path], of: str = precision) -> tuple[Floats, Any]:
            at = np.array([place[path] for path in paths])
            return embedded.vectors[of][at], embedded.found[of][at]

        gallery, shown = rows(photos.train)
        test, seen = rows(photos.test)
        strangers, met = rows(photos.strangers)
        labels = [np.array([people.index(path.parent.name) for path in paths]) for paths in (photos.train, photos.test)]
        found = open_set(
            gallery[shown],
            labels[0][shown],
            np.where(seen[:, None], test, np.nan).astype(np.float32),
            labels[1],
            strangers[met],
            threshold.similarity,
        )
        result[precision] = {"far": threshold.far, **found.to_dict(), "gallery": int(shown.sum())}
        result[precision]["no_face"] = int((~shown).sum() + (~seen).sum() + (~met).sum())
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line a precision, and the figures as JSON where `--json` is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strangers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", required=True, type=Path, metavar="DIR", help="of edge export, with thresholds")
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="the photos that were learned from")
    parser.add_argument("--card", required=True, type=Path, metavar="FILE", help="card.json of edge train")
    parser.add_argument("--strangers", required=True, type=Path, metavar="DIR", help="a folder for each other person")
    parser.add_argument("--json", action="store_true", help="the figures, with the machine, as JSON")
    args = parser.parse_args(arguments)
    try:
        bundle = Bundle.open(args.bundle)
        precisions = dict.fromkeys(v.precision for v in bundle.manifest.variants if v.contract.role == "embedder")
        analyzers = {precision: FaceAnalyzer(bundle, AnalyzerOptions(precision)) for precision in precisions}
        figures = named(analyzers, read_photos(args.dataset, args.card, args.strangers))
    except EdgeError as error:
        print(f"strangers: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps({"machine": machine(), "bundle": bundle.digest(), **figures}, indent=1))
    else:
        for precision, found in figures.items():
            print(_line(precision, found))
    return 0


def _line(precision: str, found: dict[str, Any]) -> str:
    known, strangers = (_percent(found[key]) for key in ("known_named_right", "strangers_named"))
    return f"{precision} at {found['threshold']:.4f} (FAR {found['far']:g}): known {known}, strangers named {strangers}"


def _percent(rate: dict[str, Any]) -> str:
    return Rate.of(rate["hits"], rate["count"]).percent()


def _who(name: str) -> str:
    return name.casefold().replace(" ", "_")


if __name__ == "__main__":
    sys.exit(main())
