"""Whom a bundle names at its own threshold: the test photos of the people it was fine-tuned on, and strangers.

    python -m benchmarks.strangers --bundle avengers.bundle --dataset photos --card card.json --strangers lfw/images

The photos the training learned from are the gallery, as a user would enrol them. Every precision finds, aligns and
embeds by itself, and the nearest picture decides at the threshold that the bundle states, as on a camera.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.accuracy.embeddings import embed_pictures
from benchmarks.command import command
from benchmarks.provenance import machine
from edge.analyze import AnalyzerOptions, FaceAnalyzer
from edge.bundle import Bundle
from edge.errors import InputError
from edge.metrics.pairs import read_identities
from training.evaluate import OpenSet, open_set


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


@dataclass(frozen=True, slots=True)
class Named:
    """What one precision does at its threshold. gallery: pictures enrolled; no_face: pictures none was found in."""

    far: float
    found: OpenSet
    gallery: int
    no_face: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"far": self.far, **self.found.to_dict(), "gallery": self.gallery, "no_face": self.no_face}

    def __str__(self) -> str:
        known, strangers = self.found.known_named.percent(), self.found.strangers_named
        assert strangers is not None, "there are some, or `read_photos` had refused"
        at = f"{self.found.threshold:.4f} (FAR {self.far:g})"
        return f"at {at}: known {known}, strangers named {strangers.percent()}"


def named(analyzers: Mapping[str, FaceAnalyzer], photos: Photos) -> dict[str, Named]:
    """By precision. Raises InputError for a bundle without thresholds."""
    thresholds = {precision: analyzer.threshold for precision, analyzer in analyzers.items()}
    with tqdm(total=1.0, desc="photos", bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        embedded = embed_pictures(
            analyzers, next(iter(analyzers)), photos.everything, True, lambda done: bar.update(done - bar.n)
        )
    place = embedded.positions()
    rows = [np.array([place[path] for path in part]) for part in (photos.train, photos.test, photos.strangers)]
    people = sorted({path.parent.name for path in photos.train})
    own, wanted = (np.array([people.index(path.parent.name) for path in part]) for part in (photos.train, photos.test))
    result = {}
    for precision, threshold in thresholds.items():
        if threshold is None:
            raise InputError(f"the bundle states no threshold for {precision}; export it with --pairs-from and --far")
        gallery, test, strangers = (embedded.vectors[precision][part] for part in rows)
        shown, seen, met = (embedded.found[precision][part] for part in rows)
        # A test photo without a face counts as not named.
        test = np.where(seen[:, None], test, np.nan).astype(np.float32)
        found = open_set(gallery[shown], own[shown], test, wanted, strangers[met], threshold.similarity)
        no_face = sum(int((~part).sum()) for part in (shown, seen, met))
        result[precision] = Named(threshold.far, found, int(shown.sum()), no_face)
    return result


@command("strangers")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line a precision, and the figures as JSON where `--json` is given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strangers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--bundle", required=True, type=Path, metavar="DIR", help="of edge export, with thresholds")
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="the photos that were learned from")
    parser.add_argument("--card", required=True, type=Path, metavar="FILE", help="card.json of edge train")
    parser.add_argument("--strangers", required=True, type=Path, metavar="DIR", help="a folder for each other person")
    parser.add_argument("--json", action="store_true", help="the figures, with the machine, as JSON")
    args = parser.parse_args(arguments)
    bundle, photos = Bundle.open(args.bundle), read_photos(args.dataset, args.card, args.strangers)
    precisions = dict.fromkeys(v.precision for v in bundle.manifest.variants if v.contract.role == "embedder")
    with ExitStack() as opened:
        analyzers = {p: opened.enter_context(FaceAnalyzer(bundle, AnalyzerOptions(p))) for p in precisions}
        figures = named(analyzers, photos)
    if args.json:
        by_precision = {precision: found.to_dict() for precision, found in figures.items()}
        print(json.dumps({"machine": machine(), "bundle": bundle.digest(), **by_precision}, indent=1))
    else:
        for precision, found in figures.items():
            print(f"{precision} {found}")
    return 0


def _who(name: str) -> str:
    return name.casefold().replace(" ", "_")


if __name__ == "__main__":
    sys.exit(main())
