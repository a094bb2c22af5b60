"""What it takes to be doubted at enrolment: the group rule of `edge.likeness` beside asking for one look-alike alone.

    python -m benchmarks.likeness --bundle my.bundle --identities photos

Each person is enrolled from nobody known, once with `--right` pictures of theirs, once with `--wrong` of the next
person among them. A rule is good that doubts many wrong pictures and few right ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy.embeddings import embed_pictures
from benchmarks.command import command
from edge.analyze import FaceAnalyzer
from edge.bundle import Bundle
from edge.enrolment import UNLIKE_SHARE
from edge.errors import InputError
from edge.likeness import kinships
from edge.metrics.intervals import Rate
from edge.metrics.pairs import read_identities
from edge.types import Floats

Doubts = npt.NDArray[np.bool_]
Rule = Callable[[Floats, float], Doubts]
"""(N, D) pictures said to be of one person, cosine from which two are alike → (N,) which are doubted."""


def by_nearest(vectors: Floats, least: float) -> Doubts:
    """(N,) doubts a picture that is like no other. vectors: (N, D) unit rows."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1.0)
    doubted: Doubts = scores.max(axis=1) < least
    return doubted


def by_group(vectors: Floats, least: float) -> Doubts:
    """(N,) doubts a picture outside the person's group, as enrolment does. vectors: (N, D) unit rows."""
    return np.array([kin.stray for kin in kinships(vectors, vectors[:0], least)])


RULES: dict[str, Rule] = {"by the nearest picture": by_nearest, "by the group": by_group}


def compare(people: Sequence[Floats], right: int, wrong: int, least: float) -> dict[str, tuple[Rate, Rate]]:
    """By rule: wrong pictures doubted, and right pictures doubted where none was wrong.

    people: (N, D) unit rows of each, at least `right` and `wrong` of them.
    """
    found = {}
    for name, rule in RULES.items():
        caught = false = 0
        for one, other in zip(people, [*people[1:], people[0]], strict=True):
            false += int(rule(one[:right], least).sum())
            caught += int(rule(np.concatenate([one[:right], other[:wrong]]), least)[right:].sum())
        found[name] = Rate.of(caught, wrong * len(people)), Rate.of(false, right * len(people))
    return found


@command("likeness")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line a rule."""
    about = "How many wrong pictures enrolment doubts, and how many right ones."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.likeness", description=about)
    parser.add_argument("--bundle", required=True, type=Path, metavar="DIR", help="of edge export, with a threshold")
    parser.add_argument("--identities", required=True, type=Path, metavar="DIR", help="a folder for each person")
    parser.add_argument("--right", type=int, default=8, metavar="N", help="pictures of each (default %(default)s)")
    parser.add_argument("--wrong", type=int, default=3, metavar="N", help="of the next person (default %(default)s)")
    args = parser.parse_args(arguments)
    if args.right < 2 or args.wrong < 1:
        raise InputError(f"--right {args.right} --wrong {args.wrong}: at least 2 and 1")
    with FaceAnalyzer(Bundle.open(args.bundle)) as analyzer:
        if analyzer.threshold is None:
            raise InputError(f"{args.bundle}: states no threshold; export it with --pairs-from and --far")
        threshold = analyzer.threshold.similarity
        people = _people(analyzer, args.identities, max(args.right, args.wrong))
    print(f"{len(people)} people, {args.right} right and {args.wrong} wrong pictures each, threshold {threshold:.4f}")
    for name, (wrong, right) in compare(people, args.right, args.wrong, UNLIKE_SHARE * threshold).items():
        print(f"{name}: wrong pictures doubted {wrong.percent()}, right ones {right.percent()}")
    return 0


def _people(analyzer: FaceAnalyzer, folder: Path, least: int) -> list[Floats]:
    """The first `least` pictures with a face of everybody who has so many. Raises InputError for fewer than two."""
    images = read_identities(folder)
    embedded = embed_pictures({"": analyzer}, "", [image.path for image in images])
    place, found = embedded.positions(), embedded.found[""]
    rows: dict[str, list[int]] = {}
    for image in images:
        if found[place[image.path]]:
            rows.setdefault(image.identity, []).append(place[image.path])
    people = [embedded.vectors[""][own[:least]] for own in rows.values() if len(own) >= least]
    if len(people) < 2:
        raise InputError(f"{folder}: two people with {least} pictures that show a face are needed")
    return people


if __name__ == "__main__":
    sys.exit(main())
