"""A folder of identities as a data set: one folder a person, pictures in it, in an order that does not change."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge.errors import InputError
from edge.pictures import is_picture, read_picture
from edge.weights.digests import digest_of

_IGNORED = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True, slots=True)
class Photo:
    """path: relative to the data set, with forward slashes, `<identity>/<name>`. digest: SHA-256 (hex) of the file."""

    path: str
    digest: str

    @property
    def identity(self) -> str:
        """Name of the person: the folder's."""
        return PurePosixPath(self.path).parts[0]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Photos in sorted order. warnings: what was passed over and why, one line each."""

    root: Path
    photos: tuple[Photo, ...]
    warnings: tuple[str, ...] = ()

    @property
    def identities(self) -> tuple[str, ...]:
        """Sorted; the position of a name is its label."""
        return tuple(sorted({photo.identity for photo in self.photos}))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the names and contents of the photos, in order."""
        lines = (f"{photo.path}\0{photo.digest}\n" for photo in self.photos)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def counts(self) -> dict[str, int]:
        """Photos of each identity."""
        return dict(sorted(Counter(photo.identity for photo in self.photos).items()))


def read_dataset(root: Path) -> Dataset:
    """Reads a folder of identities; every picture is opened once.

    Passed over, with a warning each: broken pictures, files that are no pictures, files outside an identity's folder,
    folders inside one, folders without a picture, and one photo under two names. Raises InputError where there is no
    such folder, no picture, or one identity only.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; name a folder that holds one folder a person")
    warnings: list[str] = []
    photos: list[Photo] = []
    for entry in _listed(root):
        if not entry.is_dir():
            warnings.append(f"{entry.name}: passed over, for it lies outside the folder of an identity")
            continue
        found = _photos_of(entry, warnings)
        if not found:
            warnings.append(f"{entry.name}: passed over, for it holds no picture that can be read")
        photos += found
    dataset = Dataset(root, tuple(photos), (*warnings, *_under_two_names(photos)))
    if not photos:
        detail = f" ({warnings[0]})" if warnings else ""
        raise InputError(f"{root}: holds no picture of anybody{detail}; it needs one folder a person, pictures inside")
    if len(dataset.identities) < 2:
        raise InputError(
            f"{root}: holds one identity, {dataset.identities[0]}; telling people apart needs two or more folders"
        )
    return dataset


def _photos_of(folder: Path, warnings: list[str]) -> list[Photo]:
    photos: list[Photo] = []
    for path in _listed(folder):
        name = f"{folder.name}/{path.name}"
        if path.is_dir():
            warnings.append(f"{name}: passed over, for a folder inside that of an identity is not looked into")
        elif not is_picture(path):
            warnings.append(f"{name}: passed over, for it is no picture by its name")
        elif not _can_be_read(path):
            warnings.append(f"{name}: passed over, for it cannot be read as a picture")
        else:
            photos.append(Photo(name, digest_of(path)))
    return photos


def _can_be_read(path: Path) -> bool:
    try:
        read_picture(path)
    except InputError:
        return False
    return True


def _listed(folder: Path) -> list[Path]:
    there = (p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _IGNORED)
    return sorted(there, key=lambda path: path.name)


def _under_two_names(photos: Iterable[Photo]) -> list[str]:
    first: dict[str, Photo] = {}
    return [
        f"{photo.path}: is the same file as {earlier.path}, under another person's name; one of them is wrong"
        for photo in photos
        if (earlier := first.setdefault(photo.digest, photo)).identity != photo.identity
    ]
