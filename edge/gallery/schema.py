"""The tables of a gallery and how they are opened: WAL, full synchronisation, deleted content overwritten."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.errors import GalleryError
from edge.gallery.read_only import Stamp, may_write, open_read_only

DATABASE_NAME = "gallery.sqlite3"
APPLICATION_ID = 0x41454731
VERSION = 2
BUSY_SECONDS = 5.0

# Names, sources, vectors and crops are blobs that may be encrypted; tokens are digests by which names, vectors and the
# pictures that bulk indexing has seen are found. The index by identity gives the vectors in the order of the matrix
# without a sort, which could spill to disk.
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE identity (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token BLOB NOT NULL UNIQUE,
    name BLOB NOT NULL,
    created REAL NOT NULL
) STRICT;
CREATE TABLE embedding (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    identity INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    negative INTEGER NOT NULL,
    token BLOB NOT NULL,
    vector BLOB NOT NULL,
    source BLOB NOT NULL,
    crop BLOB,
    created REAL NOT NULL,
    UNIQUE (identity, token)
) STRICT;
CREATE TABLE picture (
    token BLOB PRIMARY KEY,
    identity INTEGER REFERENCES identity (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX picture_identity ON picture (identity);
CREATE INDEX embedding_identity ON embedding (identity);
CREATE INDEX embedding_negative ON embedding (negative) WHERE negative;
"""

# What was wrong with pictures that bulk indexing has seen. Galleries from before have no such table until they index.
_PROBLEMS = """
CREATE TABLE IF NOT EXISTS problem (
    token BLOB PRIMARY KEY REFERENCES picture (token) ON DELETE CASCADE,
    text BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""

# What a copy has fetched of its centre and does not count yet. Rows that are only a number say that it is gone.
_INCOMING = """
CREATE TABLE IF NOT EXISTS incoming_identity (id INTEGER PRIMARY KEY, token BLOB, name BLOB, created REAL) STRICT;
CREATE TABLE IF NOT EXISTS incoming_embedding (
    id INTEGER PRIMARY KEY, identity INTEGER, negative INTEGER, token BLOB, vector BLOB, source BLOB, created REAL
) STRICT;
"""
INCOMING = "incoming"
"""Key of what says how far that has come."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database. writable: whether this process may change it. stamp: of one that is read as it stands."""

    connection: sqlite3.Connection
    writable: bool = True
    stamp: Stamp | None = None


def is_there(path: Path) -> bool:
    """Whether there is a database at `path`. Raises GalleryError where its folder may not be looked into."""
    try:
        return path.is_file()
    except OSError as error:
        raise GalleryError(f"{path.parent}: cannot be looked at ({error.strerror})") from error


def connect(path: Path) -> Opened:
    """Opens the database at `path`, which must exist; one of version 1 is brought up to date.

    One that may not be written is opened to be read. Raises GalleryError.
    """
    if not is_there(path):
        raise GalleryError(f"{path.parent}: no gallery here; make one with: edge enroll")
    try:
        opened = _open(path)
        application, version = _identify(opened.connection)
        if (application, version) == (APPLICATION_ID, 1) and opened.writable:
            _upgrade(opened.connection)
            application, version = _identify(opened.connection)
    except sqlite3.Error as error:
        raise GalleryError(f"{path}: cannot be opened ({error})") from error
    if (application, version) != (APPLICATION_ID, VERSION):
        opened.connection.close()
        if (application, version) == (APPLICATION_ID, 1):
            raise GalleryError(f"{path}: of an older arcedge; open it once as who may write it: edge gallery list")
        if application == APPLICATION_ID and version > VERSION:
            raise GalleryError(
                f"{path}: of a newer arcedge (version {version}, this one reads {VERSION}); update arcedge"
            )
        raise GalleryError(f"{path}: not a gallery of this arcedge (version {version}, it reads {VERSION})")
    return opened


def create(path: Path, meta: Mapping[str, str]) -> None:
    """Makes an empty gallery in one step: another process sees none, or all of it. Raises GalleryError.

    Raises FileExistsError where one is there already.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Faces are nobody else's business. Who shares a gallery says so by the directory's mode.
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        # FileExistsError among them: it means here that a file has the folder's name, and no gallery.
        raise GalleryError(f"{path.parent}: no gallery can be made here ({error.strerror}); name a folder") from error
    try:
        temporary.unlink(missing_ok=True)
        connection = sqlite3.connect(temporary, isolation_level=None)
        try:
            with transaction(connection):
                _make_tables(connection)
                connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        finally:
            connection.close()
        # A link, unlike a rename, never takes the place of a gallery that somebody else has just made.
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise GalleryError(f"{path.parent}: no gallery can be made here ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block's changes or none; once it ends they survive a kill and a power cut."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite itself takes back a transaction that a full disk or a damaged file has ended.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def make_problems(connection: sqlite3.Connection) -> None:
    """The table of problems, where there is none yet; inside a transaction."""
    connection.execute(_PROBLEMS)


def has_problems(connection: sqlite3.Connection) -> bool:
    """Whether the table is there."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'problem'").fetchone()
    return found is not None


def make_incoming(connection: sqlite3.Connection) -> None:
    """Empty tables for what a copy fetches; inside a transaction."""
    drop_incoming(connection)
    for statement in filter(str.strip, _INCOMING.split(";\n")):
        connection.execute(statement)


def drop_incoming(connection: sqlite3.Connection) -> None:
    """Forgets what was fetched; inside a transaction."""
    for table in ("incoming_identity", "incoming_embedding"):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    connection.execute("DELETE FROM meta WHERE key = ?", (INCOMING,))


def vacuum(connection: sqlite3.Connection) -> None:
    """Rewrites the file without what was deleted; the log still holds it until `empty_log`."""
    empty_log(connection)
    connection.execute("VACUUM")


def empty_log(connection: sqlite3.Connection) -> bool:
    """Moves the log's content to the file and truncates it; False while another process still reads it."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _open(path: Path) -> Opened:
    if not may_write(path):
        connection, stamp = open_read_only(path, BUSY_SECONDS)
        return Opened(connection, writable=False, stamp=stamp)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    _prepare(connection)
    return Opened(connection)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")


def _identify(connection: sqlite3.Connection) -> tuple[int, int]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return application, connection.execute("PRAGMA user_version").fetchone()[0]


def _make_tables(connection: sqlite3.Connection) -> None:
    for statement in filter(str.strip, _TABLES.split(";\n")):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _upgrade(connection: sqlite3.Connection) -> None:
    """From version 1, which knew neither negatives nor encryption: every row with its number, time and content."""
    connection.create_function("digest", 1, lambda data: hashlib.sha256(data).digest(), deterministic=True)
    with transaction(connection):
        if _identify(connection)[1] != 1:
            return  # another process was quicker
        for table in ("meta", "identity", "embedding"):
            connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
        _make_tables(connection)
        connection.execute("INSERT INTO meta SELECT key, value FROM old_meta")
        connection.execute("INSERT INTO meta VALUES ('revision', '0')")
        connection.execute(
            "INSERT INTO identity SELECT id, digest(CAST(name AS BLOB)), CAST(name AS BLOB), created FROM old_identity"
        )
        connection.execute(
            "INSERT INTO embedding SELECT id, identity, 0, digest(vector), vector, CAST(source AS BLOB), crop, created "
            "FROM old_embedding"
        )
        for table in ("embedding", "identity", "meta"):
            connection.execute(f"DROP TABLE old_{table}")
