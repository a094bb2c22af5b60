"""From an entry of the registry to a verified file in the cache."""

from __future__ import annotations

import fcntl
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from edge.errors import DownloadError, InputError
from edge.weights.cache import cached_path
from edge.weights.digests import Digest, digest_of
from edge.weights.download import DownloadOptions, Progress, discard, download, shown
from edge.weights.registry import MAX_UNSTATED_BYTES, Archive, Entry

_CHUNK = 1 << 20


def _no_progress(_: int) -> None:
    pass


def fetch(
    entry: Entry,
    *,
    source: str | None = None,
    offline: bool = False,
    options: DownloadOptions | None = None,
    progress: Progress = _no_progress,
) -> Path:
    """The verified file of an entry, from the cache or else brought there.

    source: another address or a file to take the weights from instead (a .zip stands for the entry's archive); its
    bytes must have the registry's digest all the same. offline: use no network. Raises InputError and DownloadError;
    nothing that was not verified ever lies at the returned path.
    """
    final = cached_path(entry)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with _alone(final):
            if final.is_file():
                if entry.digest.matches(final):
                    return final
                final.unlink()  # damaged since it was fetched
            _bring(entry, final, source, offline, options or DownloadOptions(), progress)
    except OSError as error:
        raise DownloadError(f"{error.filename or final}: cannot be written ({error.strerror or error})") from error
    return final


def source_size(entry: Entry, source: str | None = None) -> int | None:
    """Bytes a fetch will bring at most, for a progress bar; None where the registry does not know."""
    archived = entry.archive is not None and (source is None or source.endswith(".zip"))
    return entry.archive.size if archived and entry.archive is not None else entry.size


def _bring(
    entry: Entry, final: Path, source: str | None, offline: bool, options: DownloadOptions, progress: Progress
) -> None:
    wanted = source or entry.address
    if wanted is None:
        raise DownloadError(
            f"{entry.name}: has no public address; {entry.by_hand}; then: edge weights fetch {entry.name} --from FILE"
        )
    remote = "://" in wanted
    if remote and offline:
        raise DownloadError(
            f"{entry.name}: not in the cache, and offline; fetch it where there is a network, or: "
            f"edge weights fetch {entry.name} --from FILE"
        )

    def into(part: Path, size: int | None) -> None:
        limit = size or MAX_UNSTATED_BYTES
        if remote:
            download(wanted, part, limit, size=size, options=options, progress=progress)
        else:
            _copy_file(Path(wanted), part, limit, progress)

    if entry.archive is not None and (source is None or source.endswith(".zip")):
        _from_archive(entry, entry.archive, final, wanted, into)
        return
    part = _part(final)
    into(part, entry.size)
    _accept(part, final, entry.digest, wanted)


def _from_archive(
    entry: Entry, archive: Archive, final: Path, wanted: str, into: Callable[[Path, int | None], None]
) -> None:
    packed, part = _part(final.with_name(final.name + ".zip")), _part(final)
    into(packed, archive.size)
    _verify(packed, archive.sha256, wanted)
    try:
        _extract(packed, archive.member, part, entry.size or MAX_UNSTATED_BYTES)
        _accept(part, final, entry.digest, f"{archive.member} in {wanted}")
    finally:
        discard(packed)


def _extract(packed: Path, member: str, part: Path, limit: int) -> None:
    """Unpacks the one entry of that file name, whatever folder of the archive it lies in."""
    try:
        with zipfile.ZipFile(packed) as archive:
            found = [info for info in archive.infolist() if PurePosixPath(info.filename).name == member]
            if len(found) != 1:
                raise DownloadError(f"{packed.name}: holds {len(found)} files {member}; one is needed")
            with archive.open(found[0]) as source, part.open("wb") as target:
                _copy(source, target, limit, str(found[0].filename), _no_progress)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{packed.name}: not a zip archive that can be read ({error})") from error


def _accept(part: Path, final: Path, digest: Digest, wanted: str) -> None:
    _verify(part, digest, wanted)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(final)
    discard(part)


def _verify(part: Path, digest: Digest, wanted: str) -> None:
    if not digest.matches(part):
        found = digest_of(part, digest.algorithm)
        discard(part)
        name = shown(wanted) if "://" in wanted else wanted
        raise DownloadError(f"{name}: its {digest.algorithm} is {found}, not {digest.value}; what came was removed")


def _copy_file(source: Path, part: Path, limit: int, progress: Progress) -> None:
    discard(part)
    try:
        opened = source.open("rb")
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror})") from error
    with opened, part.open("wb") as target:
        _copy(opened, target, limit, str(source), progress)


def _copy(source: IO[bytes], target: IO[bytes], limit: int, name: str, progress: Progress) -> None:
    got = 0
    while block := source.read(_CHUNK):
        got += len(block)
        if got > limit:
            target.close()
            discard(Path(target.name))
            raise DownloadError(f"{name}: larger than the {limit} bytes it should have")
        target.write(block)
        progress(got)


def _part(final: Path) -> Path:
    return final.with_name(final.name + ".part")


@contextmanager
def _alone(final: Path) -> Iterator[None]:
    """Holds a lock beside the file. Raises DownloadError where another process is fetching it."""
    with final.with_name(f".{final.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadError(f"{final.name}: another process is fetching it; wait for that one to end") from error
        yield
