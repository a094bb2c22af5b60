"""Brings a release into a store's `incoming`: resumed, checked against digests, without what the device has already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from edge.bundle import MANIFEST_NAME, Bundle
from edge.errors import BundleError, DownloadError, InputError
from edge.manifest import Variant
from edge.rollout.index import Index, Release
from edge.rollout.store import Store
from edge.signing import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, PublicKey
from edge.weights.digests import Digest
from edge.weights.download import DownloadOptions, discard, download

Progress = Callable[[int, int], None]
"""Called with the bytes that are there, and those there will be."""

_SPARE = 1.1


def bring(
    index: Index, release: Release, store: Store, key: PublicKey | None, options: DownloadOptions, progress: Progress
) -> Bundle:
    """The release under `incoming`, every byte as its manifest says, signed with `key` where one is given.

    The signature is checked before the manifest is parsed, and both before a model is fetched. What was fetched stays,
    for the next time. Raises BundleError for a bundle that is not as it should be, DownloadError, and InputError.
    """
    folder = store.incoming / release.digest
    folder.mkdir(parents=True, exist_ok=True)
    if key is not None and not release.signed:
        raise BundleError(f"{index.name}: {release.digest[:12]} is not signed, and {key.file} is required")
    manifest = Digest("sha256", release.digest)
    _get(index.address(release, MANIFEST_NAME), folder / MANIFEST_NAME, manifest, release.size, options, lambda _: None)
    if release.signed:
        _get_signature(index.address(release, SIGNATURE_NAME), folder / SIGNATURE_NAME, options)
    bundle = Bundle.open(folder, key)
    files = {variant.file: variant for variant in bundle.manifest.variants}
    total, there = sum(variant.size for variant in files.values()), 0
    for name, variant in files.items():
        path = folder / name
        _reuse(variant, path, store)
        if not _is_there(path, variant):
            _require_room(path, total - there)
            address = index.address(release, quote(name))
            _get(
                address, path, Digest("sha256", variant.sha256), variant.size, options, _beyond(there, total, progress)
            )
        there += variant.size
        progress(there, total)
    for variant in bundle.manifest.variants:
        bundle.load(variant)
    _leave_only(folder, {MANIFEST_NAME, SIGNATURE_NAME, *files} if release.signed else {MANIFEST_NAME, *files})
    return bundle


def _beyond(before: int, total: int, progress: Progress) -> Callable[[int], None]:
    return lambda got: progress(before + got, total)


def _get(
    address: str, path: Path, digest: Digest, size: int, options: DownloadOptions, progress: Callable[[int], None]
) -> None:
    if path.is_file() and digest.matches(path):
        return
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if "://" in address:
        download(address, part, size, size=size, options=options, progress=progress)
    else:
        _copy(Path(address), part, size)
    if not digest.matches(part):
        discard(part)
        raise DownloadError(f"{address}: is not what the index or manifest says ({digest}); what came was removed")
    part.replace(path)
    discard(part)


def _get_signature(address: str, path: Path, options: DownloadOptions) -> None:
    part = path.with_name(path.name + ".part")
    discard(part)  # it has no digest by which halves of two could be told
    if "://" in address:
        download(address, part, MAX_SIGNATURE_BYTES, size=None, options=options, progress=lambda _: None)
    else:
        _copy(Path(address), part, MAX_SIGNATURE_BYTES)
    part.replace(path)
    discard(part)


def _copy(source: Path, part: Path, limit: int) -> None:
    try:
        if source.stat().st_size > limit:
            raise DownloadError(f"{source}: larger than the {limit} bytes it should have")
        shutil.copyfile(source, part)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error


def _reuse(variant: Variant, path: Path, store: Store) -> None:
    """Links, or copies, a model that another bundle of the store has already."""
    if path.exists():
        return
    for digest in store.kept():
        there = store.path(digest) / variant.file
        if there.is_file() and there.stat().st_size == variant.size and Digest("sha256", variant.sha256).matches(there):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(there, path)
            except OSError:  # a file system without hard links
                shutil.copyfile(there, path)
            return


def _is_there(path: Path, variant: Variant) -> bool:
    return path.is_file() and path.stat().st_size == variant.size and Digest("sha256", variant.sha256).matches(path)


def _require_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent if path.parent.is_dir() else path.parent.parent).free
    if free < size * _SPARE:
        raise InputError(f"{path.parent}: {free / 1e6:.0f} MB are free, {size * _SPARE / 1e6:.0f} MB needed; make room")


def _leave_only(folder: Path, files: set[str]) -> None:
    """Removes leftovers of downloads: a bundle is what its manifest names and nothing else."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in files:
            path.unlink()
