"""A gallery that this process may not write: on a read-only file system, or of another user.

SQLite reads a database in WAL mode only beside its log and the index of that (`-wal`, `-shm`), which it makes where
they are missing (https://www.sqlite.org/wal.html#read_only_databases). Where it may not, and nobody else has made them,
the file is read as it stands, `immutable`: SQLite then neither locks nor looks whether it changes. So we look: before
and after each read it must be the same file, with no log beside it.

Who opens or closes it for writing makes or removes those files one after the other: opening looks again, a few times.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edge.errors import GalleryError
from edge.gallery.looking import looking_again


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells a file from what it was: a writer that has come and gone has changed one of these."""

    inode: int
    size: int
    changed: int


class _UnsettledError(GalleryError):
    """It cannot be opened, unless somebody who writes is just making or removing what stands beside it."""


def may_write(path: Path) -> bool:
    """Whether the database at `path` can be written, with what SQLite keeps beside it."""
    if not _writable(path):
        return False
    return _writable(path.parent) or all(_writable(_beside(path, name)) for name in ("-wal", "-shm"))


@looking_again(_UnsettledError)
def open_read_only(path: Path, timeout: float) -> tuple[sqlite3.Connection, Stamp | None]:
    """A connection to a database that may not be written, and its stamp where it is read as it stands.

    Raises sqlite3.Error, and GalleryError where the last changes are only in a log that cannot be read in.
    """
    stamp = stamp_of(path)
    if stamp is None and not _beside(path, "-shm").exists():
        raise _UnsettledError(
            f"{path.parent}: its last changes are in {path.name}-wal alone, which is read in by writing; open the "
            "gallery once as who may write it, with: edge gallery list"
        )
    as_it_stands = "&immutable=1" if stamp is not None else ""
    address = f"{path.absolute().as_uri()}?mode=ro{as_it_stands}"
    connection = sqlite3.connect(address, uri=True, timeout=timeout, isolation_level=None)
    try:
        # SQLite looks for what stands beside the file only now; what it has found stays as long as it is open.
        connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error):
            raise  # it has waited for that already
        raise _UnsettledError(f"{path}: cannot be opened ({error})") from error
    except BaseException:
        connection.close()
        raise
    return connection, stamp


def stamp_of(path: Path) -> Stamp | None:
    """Of a database that is all in its file; None where somebody has it open, or a log is left.

    An index without its log says nothing: SQLite removes the log first, once all of it is in the file.
    """
    try:
        log = _beside(path, "-wal")
        if log.exists() and (log.stat().st_size or _beside(path, "-shm").exists()):
            return None
        journal = _beside(path, "-journal")
        if journal.exists() and journal.stat().st_size:
            return None
        status = path.stat()
    except OSError:
        return None
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def _beside(path: Path, name: str) -> Path:
    return path.with_name(path.name + name)


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)
