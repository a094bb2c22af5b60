"""The tables of a gallery and how they are opened: WAL, full synchronisation, deleted content overwritten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import GalleryError

DATABASE_NAME = "gallery.sqlite3"
APPLICATION_ID = 0x41454731
VERSION = 1
BUSY_SECONDS = 5.0

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE identity (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created REAL NOT NULL
) STRICT;
CREATE TABLE embedding (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    identity INTEGER NOT NULL REFERENCES identity (id) ON DELETE CASCADE,
    vector BLOB NOT NULL,
    source TEXT NOT NULL,
    crop BLOB,
    created REAL NOT NULL,
    UNIQUE (identity, vector)
) STRICT;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Opens the database at `path`, which must exist. Raises GalleryError."""
    if not path.is_file():
        raise GalleryError(f"{path.parent}: no gallery here; make one with: edge enroll")
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        _prepare(connection)
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise GalleryError(f"{path}: cannot be opened ({error})") from error
    if (application, version) != (APPLICATION_ID, VERSION):
        connection.close()
        raise GalleryError(f"{path}: not a gallery of this arcedge (version {version}, it reads {VERSION})")
    return connection


def create(path: Path, meta: dict[str, str]) -> sqlite3.Connection:
    """Makes an empty gallery, whole or not at all. Raises GalleryError where one is there or none can be made."""
    if path.exists():
        raise GalleryError(f"{path.parent}: a gallery is there already")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        _prepare(connection)
        with transaction(connection):
            for statement in filter(str.strip, _TABLES.split(";\n")):
                connection.execute(statement)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
    except (OSError, sqlite3.Error) as error:
        raise GalleryError(f"{path.parent}: no gallery can be made here ({error})") from error
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block's changes or none; once it ends they survive a kill and a power cut."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        # SQLite itself takes back a transaction that a full disk or a damaged file has ended.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """One consistent view of the database for the block."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("COMMIT")


def erase(connection: sqlite3.Connection) -> bool:
    """Rewrites the file without what was deleted and empties the log; False while another process still reads it."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("VACUUM")
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA secure_delete = ON")
