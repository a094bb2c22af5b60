"""Puts a bundle into a folder that any web server can offer, and writes the index that says who takes it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.bundle import MANIFEST_NAME, Bundle
from edge.errors import InputError
from edge.rollout.index import NAME, Canary, Index, Release, read_index
from edge.signing import SIGNATURE_NAME


def publish(bundle: Bundle, folder: Path, percent: float | None = None) -> Index:
    """Copies a bundle to `folder`/DIGEST, then names it in the index: for all, or first for `percent` of the devices.

    For all: a canary of the same bundle ends. An older bundle published for all is how a fleet goes back. Every file
    is checked first. Raises BundleError, and InputError for a share that is none or a folder that cannot be written.
    """
    if percent is not None and not 0 < percent <= 100:
        raise InputError(f"a canary of {percent:g} % of the devices: above 0 to 100 is one")
    for variant in bundle.manifest.variants:
        bundle.load(variant)
    digest = bundle.digest()
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        index = read_index(str(folder)) if (folder / NAME).exists() else Index(None)
        size = (bundle.path / MANIFEST_NAME).stat().st_size
        release = Release(digest, size, bundle.signature() is not None, f"{digest}/")
        _copy(bundle, folder / digest)
        new = _named(index, release, percent)
        _write(new, folder)
    return new


def withdraw(folder: Path) -> Index:
    """Ends the canary: its devices go back to what all have.

    Raises InputError where there is none, or the folder cannot be written.
    """
    index = read_index(str(folder))
    if index.canary is None:
        raise InputError(f"{folder}: has no canary to withdraw")
    new = Index(index.stable)
    with _writing(folder):
        _write(new, folder)
    return new


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from error


def _write(index: Index, folder: Path) -> None:
    """Whole or not at all."""
    part = folder / f".{NAME}.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(index.to_dict(), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / NAME)


def _named(index: Index, release: Release, percent: float | None) -> Index:
    if percent is not None:
        if index.stable is not None and index.stable.digest == release.digest:
            raise InputError(f"{release.digest[:12]} is meant for all devices already; a canary is another bundle")
        return Index(index.stable, Canary(release, percent))
    ended = index.canary is not None and index.canary.release.digest == release.digest
    return Index(release, None if ended else index.canary)


def _copy(bundle: Bundle, target: Path) -> None:
    """Whole or not at all; a signature is brought up to date, as it is no part of the digest."""
    if not target.exists():
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        for name in [MANIFEST_NAME, *dict.fromkeys(variant.file for variant in bundle.manifest.variants)]:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, part / name)
        part.rename(target)
    if bundle.signature() is not None:
        fresh = target / f".{SIGNATURE_NAME}.part"
        shutil.copyfile(bundle.path / SIGNATURE_NAME, fresh)
        fresh.replace(target / SIGNATURE_NAME)
