"""Splits into photos to learn from, to choose by, and to test on."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from edge.errors import InputError
from training.data import Dataset
from training.duplicates import Groups

PARTS = ("train", "valid", "test")
FRACTIONS = (0.6, 0.15, 0.25)


@dataclass(frozen=True, slots=True)
class Split:
    """Paths of the photos of each part, sorted, and how they were divided."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]
    method: str
    seed: int | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the lists of files."""
        return {"method": self.method, "seed": self.seed, **{part: list(getattr(self, part)) for part in PARTS}}


def group_split(
    dataset: Dataset, groups: Groups, seed: int, fractions: tuple[float, float, float] = FRACTIONS
) -> Split:
    """Divides each identity's groups by `fractions` (train, valid, test), whole groups only, by chance from `seed`.

    Fractions count groups, for a photo that was encoded five times is one photo. An identity gives one group to
    training first, then one to the test, then one to validation, and only then by fractions.
    """
    if min(fractions) < 0 or not 0.999 < sum(fractions) < 1.001 or fractions[0] == 0:
        raise InputError(f"the fractions {fractions} are shares of train, valid and test that sum to 1, train above 0")
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    warnings: list[str] = []
    for label, identity in enumerate(dataset.identities):
        own = [group for group in groups if PurePosixPath(group[0]).parts[0] == identity]
        order = np.random.default_rng([seed, label]).permutation(len(own))
        sizes = _sizes(len(own), fractions)
        if 0 in sizes and len(own) < 3:
            warnings.append(f"{identity}: {len(own)} distinct photos are too few for all of train, valid and test")
        bounds = np.cumsum((0, *sizes))
        for part, start, end in zip(PARTS, bounds[:-1], bounds[1:], strict=True):
            parts[part] += [path for i in order[start:end] for path in own[i]]
    train, valid, test = (tuple(sorted(parts[part])) for part in PARTS)
    return Split(train, valid, test, "group", seed, tuple(warnings))


def published_split(folder: Path, dataset: Dataset) -> Split:
    """The split of train.csv, valid.csv and test.csv with columns `Image` (file name) and `Label` (identity).

    Rows whose photo is not there, and photos no row names, are passed over with a warning. Raises InputError where a
    table is missing or is none.
    """
    known = {photo.path for photo in dataset.photos}
    parts: dict[str, tuple[str, ...]] = {}
    warnings: list[str] = []
    for part in PARTS:
        rows = _rows(folder / f"{part}.csv")
        warnings += [f"{folder.name}/{part}.csv: {row} is not in the data set" for row in sorted(rows - known)]
        parts[part] = tuple(sorted(rows & known))
    return _checked(Split(parts["train"], parts["valid"], parts["test"], "published", None, tuple(warnings)), dataset)


def read_split(path: Path, dataset: Dataset) -> Split:
    """The split of a JSON file {"train": [...], "valid": [...], "test": [...]}, or of a card that holds one as `split`.

    Raises InputError where the file is no such thing or names photos that are not there.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a split file") from error
    except ValueError as error:
        raise InputError(f"{path}: not a JSON file ({error})") from error
    lists: Any = content.get("split", content) if isinstance(content, Mapping) else None
    if not isinstance(lists, Mapping) or not all(_is_names(lists.get(part)) for part in PARTS):
        raise InputError(f'{path}: not a split: it has the lists "train", "valid" and "test" of paths')
    split = split_of(lists)
    known = {photo.path for photo in dataset.photos}
    if absent := sorted({*split.train, *split.valid, *split.test} - known):
        raise InputError(f"{path}: {len(absent)} of its photos are not in {dataset.root}, {absent[0]} the first")
    return _checked(split, dataset)


def split_of(lists: Mapping[str, Any]) -> Split:
    """The split whose `to_dict` gave `lists`."""
    train, valid, test = (tuple(sorted(lists[part])) for part in PARTS)
    return Split(train, valid, test, str(lists.get("method", "file")), lists.get("seed"))


def write_tables(split: Split, folder: Path) -> None:
    """Writes the split as train.csv, valid.csv and test.csv in the published format: `published_split` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        with (folder / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(("", "Image", "Label"))
            for row, path in enumerate(getattr(split, part)):
                table.writerow((row, PurePosixPath(path).name, PurePosixPath(path).parts[0]))


def crossing_groups(split: Split, groups: Groups) -> Groups:
    """Groups with photos in two parts or more: what leaks."""
    part_of = {path: part for part in PARTS for path in getattr(split, part)}
    return tuple(group for group in groups if len({part_of[path] for path in group if path in part_of}) > 1)


def _sizes(count: int, fractions: tuple[float, float, float]) -> tuple[int, int, int]:
    """(train, valid, test) of `count` groups."""
    test = min(count - 1, max(1, round(count * fractions[2]))) if fractions[2] else 0
    left = count - max(0, test)
    valid = min(left - 1, max(1, round(count * fractions[1]))) if fractions[1] else 0
    return left - max(0, valid), max(0, valid), max(0, test)


def _rows(path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        return {str(PurePosixPath(row["Label"]) / PurePosixPath(row["Image"]).name) for row in rows}
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); a published split has one table a part"
        ) from error
    except (KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table with the columns Image and Label") from error


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _checked(split: Split, dataset: Dataset) -> Split:
    parts = [set(split.train), set(split.valid), set(split.test)]
    if twice := (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2]):
        raise InputError(f"the split has {sorted(twice)[0]} in two parts; a photo belongs to one")
    learned = {PurePosixPath(path).parts[0] for path in split.train}
    if lacking := sorted(set(dataset.identities) - learned):
        raise InputError(f"the split has no training photo of {lacking[0]}; every identity needs one")
    left = len(dataset.photos) - sum(len(part) for part in parts)
    more = (f"{left} photos of the data set are in no part of the split, and are not used",) if left else ()
    return Split(split.train, split.valid, split.test, split.method, split.seed, (*split.warnings, *more))
