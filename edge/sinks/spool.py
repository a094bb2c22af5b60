"""Events that wait for the network, in a SQLite file: what was put in survives a kill and a power cut."""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import InputError

_LOG = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE event (number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
CREATE TABLE refused (number INTEGER PRIMARY KEY, body TEXT NOT NULL, reason TEXT NOT NULL);
PRAGMA user_version = 1;
"""
_KEPT_REFUSED = 1000


@dataclass(frozen=True, slots=True)
class Spooled:
    """One event. number: grows with the order they came in. id: no other event ever has it, on any device."""

    number: int
    id: str
    entries: dict[str, Any]

    @property
    def source(self) -> str:
        """The name of the source it is about."""
        return str(self.entries["source"])

    def named(self) -> dict[str, Any]:
        """The entries as they are sent, id first."""
        return {"id": self.id, **self.entries}

    def payload(self) -> bytes:
        """The same as JSON."""
        return json.dumps(self.named(), ensure_ascii=False, allow_nan=False).encode()


class Spool:
    """Events in the order they came, until they are removed; of one process at a time, for any of its threads.

    Once the events exceed `max_bytes`, the oldest are dropped. A file that is damaged is put aside as FILE.damaged.
    """

    def __init__(self, path: Path, max_bytes: int = 100_000_000) -> None:
        """Raises InputError where the file cannot be used, also because another process does."""
        self.path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection = _opened(path)
        self._prefix = self._connection.execute("SELECT value FROM meta WHERE key = 'spool'").fetchone()[0]
        row = self._connection.execute("SELECT COUNT(*), COALESCE(SUM(LENGTH(CAST(body AS BLOB))), 0) FROM event")
        self._waiting: int
        self._bytes: int
        self._waiting, self._bytes = row.fetchone()
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Events not removed yet."""
        return self._waiting

    def put(self, events: Sequence[dict[str, Any]]) -> list[str]:
        """Keeps JSON-ready events; their ids. They are on the disk when this returns. Raises InputError."""
        bodies = [json.dumps(event, ensure_ascii=False, allow_nan=False) for event in events]
        with self._change() as connection:
            numbers = [
                connection.execute("INSERT INTO event (body) VALUES (?)", (body,)).lastrowid or 0 for body in bodies
            ]
            more = sum(len(body.encode()) for body in bodies)
            gone, less = self._overflow(connection, self._bytes + more - self._max_bytes)
            self._commit(connection, len(bodies) - gone, more - less)
            if gone and not self.dropped:
                _LOG.warning("%s: full; the oldest events are dropped", self.path)
            self.dropped += gone
        return [self._id(number) for number in numbers]

    def first(self, count: int) -> list[Spooled]:
        """The oldest events, at most so many. Raises InputError."""
        with self._change() as connection:
            rows = connection.execute("SELECT number, body FROM event ORDER BY number LIMIT ?", (count,)).fetchall()
        return [Spooled(number, self._id(number), json.loads(body)) for number, body in rows]

    def remove(self, events: Sequence[Spooled]) -> None:
        """Forgets events that arrived. Raises InputError."""
        with self._change() as connection:
            self._commit(connection, *self._delete(connection, events))

    def set_aside(self, event: Spooled, reason: str) -> None:
        """Keeps an event that nobody will take where it holds up no other; the newest thousand. Raises InputError."""
        with self._change() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO refused SELECT number, body, ? FROM event WHERE number = ?",
                (reason, event.number),
            )
            connection.execute(
                "DELETE FROM refused WHERE number NOT IN (SELECT number FROM refused ORDER BY number DESC LIMIT ?)",
                (_KEPT_REFUSED,),
            )
            self._commit(connection, *self._delete(connection, [event]))

    def close(self) -> None:
        """Frees the file; calling it again does nothing."""
        with self._lock:
            self._connection.close()

    def _id(self, number: int) -> str:
        return f"{self._prefix}-{number}"

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """The connection for one thread; what was not committed is undone."""
        try:
            with self._lock, self._connection:
                yield self._connection
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: the spool cannot be used ({error})") from error

    def _commit(self, connection: sqlite3.Connection, events: int, size: int) -> None:
        connection.commit()
        # Only now: a commit that failed changed nothing.
        self._waiting += events
        self._bytes += size

    @staticmethod
    def _delete(connection: sqlite3.Connection, events: Sequence[Spooled]) -> tuple[int, int]:
        """Minus the number and bytes of those deleted: an event may have been dropped meanwhile."""
        marks = ", ".join("?" * len(events))
        numbers = [event.number for event in events]
        rows = connection.execute(
            f"SELECT LENGTH(CAST(body AS BLOB)) FROM event WHERE number IN ({marks})",  # noqa: S608 - question marks
            numbers,
        ).fetchall()
        connection.executemany("DELETE FROM event WHERE number = ?", [(number,) for number in numbers])
        return -len(rows), -sum(size for (size,) in rows)

    @staticmethod
    def _overflow(connection: sqlite3.Connection, excess: int) -> tuple[int, int]:
        """Deletes the oldest events until `excess` bytes are gone, though never the newest; their number and bytes."""
        gone = freed = last = 0
        if excess > 0:
            rows = connection.execute(
                "SELECT number, LENGTH(CAST(body AS BLOB)) FROM event "
                "WHERE number < (SELECT MAX(number) FROM event) ORDER BY number"
            )
            for number, size in rows:
                if freed >= excess:
                    break
                gone, freed, last = gone + 1, freed + size, number
            connection.execute("DELETE FROM event WHERE number <= ?", (last,))
        return gone, freed


def _opened(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return _connected(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            _put_aside(path, error)
            return _connected(path)
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise InputError(
                f"{path}: another edge run sends to the same place; give this one a --spool of its own"
            ) from error
        raise InputError(f"{path}: the spool cannot be opened ({error}); name a folder with --spool") from error
    except OSError as error:
        raise InputError(f"{path}: the spool cannot be made ({error.strerror}); name a folder with --spool") from error


def _connected(path: Path) -> sqlite3.Connection:
    # Names and times are nobody else's business.
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
    try:
        # Exclusive: two processes would send the same events. FULL: a commit outlives a power cut.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('spool', ?)", (secrets.token_hex(8),))
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def _put_aside(path: Path, error: sqlite3.Error) -> None:
    aside = path.with_name(f"{path.name}.damaged")
    _LOG.warning("%s: damaged (%s); put aside as %s", path, error, aside.name)
    path.replace(aside)
    for ending in ("-wal", "-shm"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
