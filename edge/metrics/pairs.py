"""Evaluation sets on disk: LFW's pairs.txt, and folders with one sub-folder an identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from edge.errors import InputError
from edge.pictures import SUFFIXES, is_picture


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures, as paths below the image folder, whether they show one identity, and the fold (from 0)."""

    first: PurePosixPath
    second: PurePosixPath
    same: bool
    fold: int


@dataclass(frozen=True, slots=True)
class PairRows:
    """Pairs as rows of a matrix of embeddings.

    first, second: (P,) int64 rows; same: (P,) bool; folds: (P,) int64, from 0.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    folds: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Sequence[Pair], row: Mapping[PurePosixPath, int]) -> PairRows:
        """row: of each picture's embedding, by the name that the pairs give it."""
        return cls(
            np.array([row[pair.first] for pair in pairs], np.int64),
            np.array([row[pair.second] for pair in pairs], np.int64),
            np.array([pair.same for pair in pairs], np.bool_),
            np.array([pair.fold for pair in pairs], np.int64),
        )


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """A picture and who it shows."""

    path: Path
    identity: str


def read_pairs(file: Path) -> tuple[Pair, ...]:
    """LFW's pairs file: a header `folds<TAB>n`, then for each fold n pairs of one identity and n of two.

    `Name<TAB>1<TAB>4` are pictures 1 and 4 of Name; `Name<TAB>1<TAB>Other<TAB>2` are of two people. A header of one
    number (pairsDevTest.txt) is one fold. Picture 4 of Name is `Name/Name_0004.jpg`.
    Raises InputError with the line's number.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as a pairs file ({error})") from error
    lines = text.splitlines()
    folds, each = _header(file, lines)
    body = [(number, line) for number, line in enumerate(lines[1:], start=2) if line.strip()]
    if len(body) != 2 * folds * each:
        raise InputError(
            f"{file}: line 1 promises {folds} folds of {each} + {each} pairs, {2 * folds * each} lines; "
            f"there are {len(body)}"
        )
    pairs = []
    for position, (number, line) in enumerate(body):
        pair = _pair(f"{file}:{number}", line, fold=position // (2 * each))
        if pair.same != (position % (2 * each) < each):
            wanted = "one person" if not pair.same else "two people"
            raise InputError(
                f"{file}:{number}: a pair of {wanted} belongs here: {each} of each kind alternate in a fold"
            )
        pairs.append(pair)
    return tuple(pairs)


def _header(file: Path, lines: Sequence[str]) -> tuple[int, int]:
    numbers = lines[0].split() if lines else []
    if len(numbers) not in (1, 2) or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise InputError(
            f"{file}:1: a pairs file begins with the number of folds and of pairs a fold, as in 10<TAB>300"
        )
    folds = int(numbers[0]) if len(numbers) == 2 else 1
    return folds, int(numbers[-1])


def _pair(where: str, line: str, fold: int) -> Pair:
    # Tabs are the format; files that went through an editor have blanks.
    parts = [part.strip() for part in line.split("\t")] if "\t" in line else line.split()
    if len(parts) == 3:
        parts = [parts[0], parts[1], parts[0], parts[2]]
        same = True
    elif len(parts) == 4:
        same = False
    else:
        raise InputError(f"{where}: a line has 3 entries (name, picture, picture) or 4, this one {len(parts)}")
    first, second = _picture(where, parts[0], parts[1]), _picture(where, parts[2], parts[3])
    if first == second:
        raise InputError(f"{where}: a picture is paired with itself")
    return Pair(first, second, same, fold)


def _picture(where: str, name: str, number: str) -> PurePosixPath:
    if not number.isdecimal():
        raise InputError(f"{where}: {number!r} is no picture number")
    if not name or "/" in name or "\\" in name or name in (".", ".."):
        raise InputError(f"{where}: {name!r} is no name of a person")
    return PurePosixPath(name, f"{name}_{int(number):04d}.jpg")


def images_of(pairs: Sequence[Pair], folder: Path) -> dict[PurePosixPath, Path]:
    """Where each picture of the pairs lies below `folder`, by name; a .png or another format may stand for the .jpg.

    Raises InputError naming the first that is missing and how many are.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the one that holds the pictures of the pairs")
    names = sorted({name for pair in pairs for name in (pair.first, pair.second)})
    found, missing = {}, []
    for name in names:
        here = next((path for path in _candidates(folder / name) if path.is_file()), None)
        if here is None:
            missing.append(name)
        else:
            found[name] = here
    if missing:
        raise InputError(
            f"{folder}: {len(missing):,} of {len(names):,} pictures of the pairs are missing, first {missing[0]}"
        )
    return found


def _candidates(path: Path) -> list[Path]:
    return [path, *(path.with_suffix(suffix) for suffix in sorted(SUFFIXES - {path.suffix}))]


def read_identities(folder: Path, min_identities: int = 2) -> tuple[LabelledImage, ...]:
    """The pictures of a folder with one sub-folder an identity, by identity, then by name; other files are left alone.

    Raises InputError where there are fewer than `min_identities` with a picture.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that holds a folder for each identity")
    images = tuple(
        LabelledImage(path, home.name)
        for home in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        for path in sorted(home.iterdir())
        if path.is_file() and is_picture(path)
    )
    identities = len({image.identity for image in images})
    if identities < min_identities:
        raise InputError(
            f"{folder}: {identities} identities with pictures, {min_identities} are needed; "
            "a folder an identity, with its pictures inside, is expected"
        )
    return images
