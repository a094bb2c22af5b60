"""Pictures that are one photo: byte for byte, encoded again, or cropped anew.

A perceptual hash finds a photo that was resized or compressed again, and misses one that was cropped. Aligned faces do
not depend on the crop: two of one photo lie on each other, after a small affine correction, almost pixel for pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from edge.signatures import NEAR, hamming
from edge.types import Floats, Image
from export.doctor.survey import Look

LIKE = 0.6
"""Cosine of two faces from which it is worth laying one on the other."""

NEIGHBOURS = 10
"""Of one face, no more than this many likest ones are laid on it."""

SAME_PIXELS = 0.975
"""Correlation of two registered faces from which they are one photo."""

SAME_FACE, SIMILAR_PIXELS = 0.9, 0.8
"""Where the embeddings are this close as well, less correlation will do: filters and retouching change pixels."""

Way = Literal["bytes", "hash", "face"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures that are one photo, by their places in the two lists compared; way: how it was found."""

    first: int
    second: int
    way: Way


def find_pairs(
    first: Sequence[Look], first_rows: Floats, second: Sequence[Look] | None = None, second_rows: Floats | None = None
) -> list[Pair]:
    """Pictures of `first` that are one photo with a picture of `second`; without it, with another one of `first`.

    rows: (N, D) unit embeddings, zero where a picture has no face.
    """
    within = second is None or second_rows is None
    others, rows = (first, first_rows) if second is None or second_rows is None else (second, second_rows)
    found: dict[tuple[int, int], Way] = {}
    for i, j in _by_face(first, first_rows, others, rows, within):
        found[i, j] = "face"
    for i, j in _by_hash(first, others, within):
        found[i, j] = "hash"
    digests: dict[str, list[int]] = {}
    for j, look in enumerate(others):
        digests.setdefault(look.signature.sha256, []).append(j)
    for i, look in enumerate(first):
        for j in digests.get(look.signature.sha256, ()):
            if not within or i < j:
                found[i, j] = "bytes"
    return [Pair(i, j, way) for (i, j), way in sorted(found.items())]


def grouped(count: int, pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    """Groups of two or more of `count` pictures that pairs link, each sorted."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for pair in pairs:
        parent[root(pair.second)] = root(pair.first)
    groups: dict[int, list[int]] = {}
    for i in range(count):
        groups.setdefault(root(i), []).append(i)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def registered_correlation(first: Image, second: Image) -> float:
    """Correlation of two aligned crops (112, 112, 3) inside the face, the second moved onto the first by an affine map.

    Evangelidis and Psarakis, Parametric image alignment using enhanced correlation coefficient maximization, 2008.
    -1 where the search finds no such map.
    """
    mask = np.zeros(first.shape[:2], np.uint8)
    mask[20:104, 20:92] = 255
    end = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-4)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        return float(cv2.findTransformECC(_smooth(first), _smooth(second), start, cv2.MOTION_AFFINE, end, mask, 1)[0])
    except cv2.error:  # it does not converge, as for two pictures that have little in common
        return -1.0


def _smooth(crop: Image) -> Floats:
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.5), np.float32)


def _by_face(
    first: Sequence[Look], first_rows: Floats, second: Sequence[Look], second_rows: Floats, within: bool
) -> list[tuple[int, int]]:
    found = []
    for i, look in enumerate(first):
        if look.crop is None:
            continue
        cosine = second_rows @ first_rows[i]
        if within:
            cosine[: i + 1] = -1.0
        for j in np.argsort(-cosine)[:NEIGHBOURS]:
            other = second[j].crop
            if cosine[j] < LIKE or other is None:
                break
            least = SIMILAR_PIXELS if cosine[j] >= SAME_FACE else SAME_PIXELS
            if registered_correlation(look.crop, other) >= least:
                found.append((i, int(j)))
    return found


def _by_hash(first: Sequence[Look], second: Sequence[Look], within: bool) -> list[tuple[int, int]]:
    hashes = [int(look.signature.phash, 16) for look in second]
    found = []
    for i, look in enumerate(first):
        # A picture of one colour has no frequencies to take the signs of.
        if look.spread < FLAT:
            continue
        mine = int(look.signature.phash, 16)
        found += [
            (i, j)
            for j in range(i + 1 if within else 0, len(hashes))
            if hamming(mine, hashes[j]) <= NEAR and second[j].spread >= FLAT
        ]
    return found


FLAT = 4.0
"""Standard deviation of a picture's values (0-255) below which it shows nothing."""
