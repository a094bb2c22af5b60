"""Groups of one photo cropped or encoded again. A split that lets a group cross tests on what it trained with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge.errors import InputError
from edge.signatures import NEAR, hamming
from edge.types import Floats
from training.data import Dataset

MIN_COSINE = 0.9

Groups = tuple[tuple[str, ...], ...]
"""Paths of the photos of each group, sorted; a photo without a duplicate is a group of one."""


def find_groups(dataset: Dataset, hashes: Sequence[int], embeddings: Floats | None = None) -> Groups:
    """Links photos of one identity whose hashes differ in ≤ 8 of 64 bits or whose embeddings' cosine is above 0.9.

    hashes: one a photo, in the data set's order. embeddings: (N, D) unit rows in the same order, NaN where no face was
    found, or None for hashes alone.
    """
    parent = list(range(len(dataset.photos)))
    for members in _by_identity(dataset):
        for i, j in _linked(members, hashes, embeddings):
            parent[_root(parent, i)] = _root(parent, j)
    return _gathered(dataset, parent)


def read_groups(path: Path, dataset: Dataset) -> Groups:
    """Groups of a JSON file {"groups": [["<identity>/<name>", …], …]}; photos it does not name stand alone.

    Raises InputError where the file is no such thing, or where it names none of the data set's photos.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["groups"]
        groups = [[str(name) for name in group] for group in listed]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a file of near-duplicate groups") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path}: not a file of groups: {{"groups": [["person/photo.png", …], …]}}') from error
    index = {photo.path: i for i, photo in enumerate(dataset.photos)}
    if groups and not any(name in index for group in groups for name in group):
        raise InputError(f"{path}: names no photo of {dataset.root}; it belongs to another data set")
    parent = list(range(len(dataset.photos)))
    for group in groups:
        there = [index[name] for name in group if name in index]
        for other in there[1:]:
            parent[_root(parent, other)] = _root(parent, there[0])
    return _gathered(dataset, parent)


def _linked(
    members: npt.NDArray[np.intp], hashes: Sequence[int], embeddings: Floats | None
) -> Iterable[tuple[int, int]]:
    for place, i in enumerate(members):
        for j in members[place + 1 :]:
            near = hamming(hashes[i], hashes[j]) <= NEAR
            # NaN compares as false: a photo without a face is linked by its hash alone.
            if near or (embeddings is not None and float(embeddings[i] @ embeddings[j]) > MIN_COSINE):
                yield int(i), int(j)


def _by_identity(dataset: Dataset) -> Iterable[npt.NDArray[np.intp]]:
    names = np.array([photo.identity for photo in dataset.photos])
    return (np.flatnonzero(names == name) for name in dataset.identities)


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def _gathered(dataset: Dataset, parent: list[int]) -> Groups:
    groups: dict[int, list[str]] = {}
    for i, photo in enumerate(dataset.photos):
        groups.setdefault(_root(parent, i), []).append(photo.path)
    return tuple(sorted(tuple(sorted(group)) for group in groups.values()))
