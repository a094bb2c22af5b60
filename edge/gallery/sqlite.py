"""The embedded store: one SQLite file. Fields go through a cipher before SQLite sees them."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.errors import GalleryError
from edge.gallery import schema
from edge.gallery.binding import Binding
from edge.gallery.cipher import Cipher, Key, Plain, Sealed
from edge.gallery.looking import looking_again
from edge.gallery.read_only import stamp_of
from edge.gallery.store import (
    ANOTHERS_PICTURE,
    ChangedMeanwhileError,
    Entry,
    Identity,
    NewEntry,
    Outcome,
    Picture,
    State,
    StoreUnavailableError,
    VectorRow,
    as_known,
)

ERASE_ATTEMPTS = 50
COPY = "copy"
"""Key of what says that the gallery is a copy, which only the next pull may change."""

ENROLLED, REJECTED = "enrolled", "rejected"
"""Kinds of tokens of pictures that a person was given one by one."""

_PROOF = b"arcedge"
_Row = tuple[bytes, bytes, bytes, bytes | None]
"""Token and sealed vector, sealed source, sealed crop."""


@dataclass(slots=True)
class _Change:
    """What a transaction turns out to be: whether more than additions."""

    revised: bool


class SqliteStore:
    """See `edge.gallery.store.Store`. `path` is the gallery's directory."""

    def __init__(self, path: Path, key: Key | None = None) -> None:
        """Opens the gallery that is there. Raises GalleryError, also for a key that is missing, wrong or not needed."""
        self.address = str(path)
        self._file = path / schema.DATABASE_NAME
        self._opened = schema.connect(self._file)
        self._within = False
        self.identifier = b""
        try:
            meta = looking_again(ChangedMeanwhileError)(self._meta)()
            self.binding = Binding.from_json(meta["binding"])
            self.identifier = bytes.fromhex(meta["gallery"])
            self._cipher = self._unlock(meta.get("proof"), key)
        except BaseException:
            self.close()
            raise
        self.private = self._cipher.private

    @classmethod
    def create(cls, path: Path, binding: Binding, key: Key | None = None) -> SqliteStore:
        """An empty store. Raises GalleryError where none can be made, FileExistsError where one is there."""
        identifier = secrets.token_bytes(16)
        meta = {"binding": binding.to_json(), "gallery": identifier.hex(), "generation": "0", "revision": "0"}
        if key is not None:
            meta["proof"] = _proof(Sealed(key, identifier))
        schema.create(path / schema.DATABASE_NAME, meta)
        return cls(path, key)

    @property
    def _connection(self) -> sqlite3.Connection:
        return self._opened.connection

    def require_writable(self) -> None:
        """Raises GalleryError where this process may only read it."""
        if not self._opened.writable:
            raise GalleryError(
                f"{self.address}: cannot be changed: its file system is read-only, or this user may not write there"
            )

    @contextmanager
    def reading(self) -> Iterator[None]:
        with self._read():
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("COMMIT")

    @looking_again(ChangedMeanwhileError)
    def state(self) -> State:
        meta = self._meta()
        return State(int(meta["generation"]), int(meta["revision"]))

    def add(self, entries: Sequence[NewEntry]) -> int:
        now = time.time()
        # Sealed before the lock is taken: others need not wait for the cipher.
        rows = [self._row(entry) for entry in entries]
        added = 0
        with self._change() as change:
            numbers = {name: self._number(name, now) for name in self._names_to_add(entries)}
            for entry, row in zip(entries, rows, strict=True):
                number = numbers[entry.identity]
                added += self._put(number, *self._recognised(number, entry, row), now, change)
                if entry.content is not None:
                    self._mark(self._given(entry.content, REJECTED if entry.negative else ENROLLED), number)
        return added

    def add_pictures(self, pictures: Sequence[Picture]) -> list[Outcome]:
        now = time.time()
        rows = [None if picture.entry is None else self._row(picture.entry) for picture in pictures]
        with self._change() as change:
            schema.make_problems(self._connection)
            return [self._add_picture(picture, row, now, change) for picture, row in zip(pictures, rows, strict=True)]

    @looking_again(ChangedMeanwhileError)
    def seen(self, files: Sequence[bytes]) -> list[bool]:
        with self._read():
            return [self._owner(self._cipher.token(file, "file")) is not None for file in files]

    @looking_again(ChangedMeanwhileError)
    def problems(self, files: Sequence[bytes]) -> dict[bytes, str]:
        found = {}
        with self._read():
            if schema.has_problems(self._connection):
                for file in files:
                    token = self._cipher.token(file, "file")
                    row = self._connection.execute("SELECT text FROM problem WHERE token = ?", (token,)).fetchone()
                    if row is not None:
                        found[file] = self._cipher.open(row[0], "problem").decode()
        return found

    @looking_again(ChangedMeanwhileError)
    def identities(self) -> list[Identity]:
        with self._read():
            rows = self._connection.execute(
                "SELECT name, COUNT(embedding.id), COALESCE(SUM(negative), 0), identity.created FROM identity "
                "LEFT JOIN embedding ON embedding.identity = identity.id GROUP BY identity.id"
            ).fetchall()
        people = [
            Identity(self._name(name), every - negatives, created, negatives)
            for name, every, negatives, created in rows
        ]
        return sorted(people, key=lambda person: person.name)

    @looking_again(ChangedMeanwhileError)
    def entries(self, name: str | None = None) -> list[Entry]:
        with self._read():
            rows = self._connection.execute(
                "SELECT embedding.id, name, vector, source, crop, embedding.created, negative FROM embedding "
                "JOIN identity ON embedding.identity = identity.id WHERE :one IS NULL OR identity = :one "
                "ORDER BY embedding.id",
                {"one": None if name is None else self._id_of(name)},
            ).fetchall()
        entries = [
            Entry(
                number,
                self._name(owner),
                np.frombuffer(self._cipher.open(vector, "vector"), "<f4"),
                self._cipher.open(source, "source").decode(),
                None if crop is None else self._cipher.open(crop, "crop"),
                created,
                bool(negative),
            )
            for number, owner, vector, source, crop, created, negative in rows
        ]
        return sorted(entries, key=lambda entry: (entry.identity, entry.number))

    def rename(self, old: str, new: str) -> None:
        with self._change(revised=True):
            row = self._id_of(old)
            token = self._token(new)
            if self._connection.execute("SELECT 1 FROM identity WHERE token = ? AND id <> ?", (token, row)).fetchone():
                raise GalleryError(f"{new!r} is in the gallery already; to make them one: edge gallery merge")
            sealed = self._cipher.seal(new.encode(), "name")
            self._connection.execute("UPDATE identity SET token = ?, name = ? WHERE id = ?", (token, sealed, row))

    def merge(self, source: str, target: str) -> int:
        with self._change(revised=True):
            old, new = self._id_of(source), self._id_of(target)
            if old == new:
                raise GalleryError(f"{source!r} cannot be merged with itself")
            # Where one of the two said of a picture that it is not them, and the other that it is, it is.
            self._connection.execute(
                "DELETE FROM embedding WHERE negative AND identity IN (:old, :new) AND token IN "
                "(SELECT token FROM embedding WHERE NOT negative AND identity IN (:old, :new))",
                {"old": old, "new": new},
            )
            before = self._positives(new)
            self._connection.execute("UPDATE OR IGNORE embedding SET identity = ? WHERE identity = ?", (new, old))
            self._connection.execute("UPDATE picture SET identity = ? WHERE identity = ?", (new, old))
            self._connection.execute("DELETE FROM identity WHERE id = ?", (old,))
            return self._positives(new) - before

    def forget(self, name: str) -> int:
        with self._change(revised=True, erasing=True):
            row = self._id_of(name)
            gone = self._connection.execute("DELETE FROM embedding WHERE identity = ?", (row,)).rowcount
            self._connection.execute("DELETE FROM identity WHERE id = ?", (row,))
        return gone

    def remove(self, number: int) -> None:
        with self._change(revised=True, erasing=True):
            if self._connection.execute("DELETE FROM embedding WHERE id = ?", (number,)).rowcount == 0:
                raise GalleryError(f"no embedding has number {number}; see: edge gallery show")

    def erase(self) -> None:
        self.require_writable()
        advice = "stop what uses the gallery, then run: edge gallery compact"
        try:
            schema.vacuum(self._connection)
            for _ in range(ERASE_ATTEMPTS):
                if schema.empty_log(self._connection):
                    self._connection.execute("DELETE FROM meta WHERE key = 'erasing'")
                    schema.empty_log(self._connection)
                    return
                time.sleep(0.1)
        except sqlite3.Error as error:
            raise GalleryError(
                f"{self.address}: deleted, but the files still hold traces ({error}); {advice}"
            ) from error
        raise GalleryError(f"{self.address}: deleted, but another process keeps the log with its traces; {advice}")

    @looking_again(ChangedMeanwhileError)
    def origin(self) -> str | None:
        """What the gallery is a copy of, for people; None where it is one of its own."""
        with self._read():
            text = self._origin_text()
        if text is None:
            return None
        fields = json.loads(text)
        return f"{fields['centre']}, version {fields['version']}"

    @looking_again(ChangedMeanwhileError)
    def erasing(self) -> bool:
        return "erasing" in self._meta()

    def names(self, after: int = 0) -> dict[int, str]:
        rows = self._connection.execute("SELECT id, name FROM identity WHERE id > ?", (after,))
        return {number: self._name(name) for number, name in rows}

    def count(self) -> int:
        # Two counts that an index answers: a scan of the table would read every vector.
        rows = self._connection.execute(
            "SELECT (SELECT COUNT(*) FROM embedding) - (SELECT COUNT(*) FROM embedding WHERE negative)"
        )
        return int(rows.fetchone()[0])

    def vectors(self, after: int = 0) -> Iterator[VectorRow]:
        # INDEXED BY keeps SQLite from sorting vectors in a temporary file; a few new rows are quicker by number.
        source = "embedding NOT INDEXED" if after else "embedding INDEXED BY embedding_identity"
        rows = self._connection.execute(
            f"SELECT id, identity, vector FROM {source} WHERE id > ? AND NOT negative "  # noqa: S608 - two constants
            f"ORDER BY {'id' if after else 'identity, id'}",
            (after,),
        )
        for number, identity, vector in rows:
            yield VectorRow(number, identity, self._cipher.open(vector, "vector"))

    def negatives(self) -> list[VectorRow]:
        rows = self._connection.execute(
            "SELECT id, identity, vector FROM embedding INDEXED BY embedding_negative WHERE negative ORDER BY id"
        )
        return [VectorRow(number, identity, self._cipher.open(vector, "vector")) for number, identity, vector in rows]

    def rekey(self, key: Key | None) -> None:
        """Encrypts every field with another key, or with None decrypts them; the old content is erased from the file.

        All or nothing. Raises GalleryError where others use the gallery.
        """
        cipher: Cipher = Plain() if key is None else Sealed(key, self.identifier)
        with self._change(revised=True, erasing=True, copying=True):
            schema.drop_incoming(self._connection)
            self._rewrite("identity", ("name",), cipher, "name")
            self._rewrite("embedding", ("vector", "source", "crop"), cipher, "vector")
            # Their content is not kept, so no token of the new key can be made; indexing looks at the files again.
            self._connection.execute("DELETE FROM picture")
            self._connection.execute("DELETE FROM meta WHERE key = 'proof'")
            if key is not None:
                self._connection.execute("INSERT INTO meta VALUES ('proof', ?)", (_proof(cipher),))
        self._cipher, self.private = cipher, cipher.private
        self.erase()

    def close(self) -> None:
        self._connection.close()

    def _rewrite(self, table: str, columns: Sequence[str], cipher: Cipher, found_by: str) -> None:
        numbers = [row[0] for row in self._connection.execute(f"SELECT id FROM {table}")]  # noqa: S608 - constants
        for number in numbers:
            row = self._connection.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE id = ?", (number,))  # noqa: S608
            plain = {
                column: None if data is None else self._cipher.open(data, column)
                for column, data in zip(columns, row.fetchone(), strict=True)
            }
            values = [None if data is None else cipher.seal(data, column) for column, data in plain.items()]
            assignments = ", ".join(f"{column} = ?" for column in columns)
            self._connection.execute(
                f"UPDATE {table} SET token = ?, {assignments} WHERE id = ?",  # noqa: S608 - constants
                (cipher.token(plain[found_by] or b"", found_by), *values, number),
            )

    def _recognised(self, identity: int, entry: NewEntry, row: _Row) -> tuple[NewEntry, _Row]:
        """An entry and its row; of a picture that the person was given before, with the vector that was kept of it."""
        if entry.content is None:
            return entry, row
        indexed = self._cipher.token(entry.content, "content")
        tokens = [indexed, *(self._given(entry.content, kind) for kind in (ENROLLED, REJECTED))]
        if (identity,) not in [self._owner(token) for token in tokens]:
            return entry, row
        rows = self._connection.execute("SELECT vector, source FROM embedding WHERE identity = ?", (identity,))
        there = (
            (np.frombuffer(self._cipher.open(vector, "vector"), "<f4"), self._cipher.open(source, "source").decode())
            for vector, source in rows
        )
        known = as_known(entry, there)
        return (entry, row) if known is entry else (known, self._row(known))

    def _given(self, content: bytes, kind: str) -> bytes:
        """Token of a picture that a person was given; not that of indexing, by which it is one person's alone."""
        return self._cipher.token(f"{kind}\0".encode() + content, kind)

    def _put(self, identity: int, entry: NewEntry, row: _Row, now: float, change: _Change) -> bool:
        """Whether the vector says what was not known."""
        negative = int(entry.negative)
        known = self._connection.execute(
            "SELECT negative FROM embedding WHERE identity = ? AND token = ?", (identity, row[0])
        ).fetchone()
        if known is None:
            self._connection.execute(
                "INSERT INTO embedding (identity, negative, token, vector, source, crop, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (identity, negative, *row, now),
            )
        elif known[0] != negative:
            change.revised = True
            self._connection.execute(
                "UPDATE embedding SET negative = ? WHERE identity = ? AND token = ?", (negative, identity, row[0])
            )
        return known is None or known[0] != negative

    def _add_picture(self, picture: Picture, row: _Row | None, now: float, change: _Change) -> Outcome:
        outcome, identity, problem = Outcome.NOTHING, None, picture.problem
        if picture.entry is not None and row is not None and picture.content is not None:
            content = self._cipher.token(picture.content, "content")
            owner = self._owner(content)
            if owner is None:
                identity = self._number(picture.entry.identity, now)
                entry = replace(picture.entry, content=picture.content)
                added = self._put(identity, *self._recognised(identity, entry, row), now, change)
                outcome = Outcome.ADDED if added else Outcome.KNOWN
                self._mark(content, identity)
            else:
                identity = owner[0]
                name = self._connection.execute("SELECT token FROM identity WHERE id = ?", (identity,)).fetchone()
                same = name is not None and name[0] == self._token(picture.entry.identity)
                outcome, problem = (Outcome.DUPLICATE, problem) if same else (Outcome.ANOTHERS, ANOTHERS_PICTURE)
        file = self._cipher.token(picture.file, "file")
        self._mark(file, identity)
        if problem is not None:
            text = self._cipher.seal(problem.encode(errors="replace"), "problem")
            self._connection.execute("INSERT OR REPLACE INTO problem VALUES (?, ?)", (file, text))
        return outcome

    def _owner(self, token: bytes) -> tuple[int | None] | None:
        """Number of the identity a picture's token belongs to; None where it was not seen."""
        row = self._connection.execute("SELECT identity FROM picture WHERE token = ?", (token,)).fetchone()
        return None if row is None else (row[0],)

    def _mark(self, token: bytes, identity: int | None) -> None:
        self._connection.execute("INSERT OR REPLACE INTO picture VALUES (?, ?)", (token, identity))

    def _names_to_add(self, entries: Sequence[NewEntry]) -> list[str]:
        """Of the people of `entries`; those of negatives must be known, from before or from the same entries."""
        here = dict.fromkeys(entry.identity for entry in entries if not entry.negative)
        for entry in entries:
            if entry.identity not in here:
                self._id_of(entry.identity)
                here[entry.identity] = None
        return list(here)

    def _number(self, name: str, now: float) -> int:
        self._connection.execute(
            "INSERT OR IGNORE INTO identity (token, name, created) VALUES (?, ?, ?)",
            (self._token(name), self._cipher.seal(name.encode(), "name"), now),
        )
        return self._id_of(name)

    def _row(self, entry: NewEntry) -> _Row:
        vector, seal = entry.vector.astype("<f4").tobytes(), self._cipher.seal
        crop = None if entry.crop is None else seal(entry.crop, "crop")
        return self._cipher.token(vector, "vector"), seal(vector, "vector"), seal(entry.source.encode(), "source"), crop

    def _name(self, sealed: bytes) -> str:
        return self._cipher.open(sealed, "name").decode()

    def _token(self, name: str) -> bytes:
        return self._cipher.token(name.encode(), "name")

    def _id_of(self, name: str) -> int:
        row = self._connection.execute("SELECT id FROM identity WHERE token = ?", (self._token(name),)).fetchone()
        if row is None:
            raise GalleryError(f"{self.address}: nobody here is called {name!r}; see: edge gallery list")
        return int(row[0])

    def _origin_text(self) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (COPY,)).fetchone()
        return None if row is None else str(row[0])

    def _positives(self, identity: int) -> int:
        rows = self._connection.execute(
            "SELECT COUNT(*) FROM embedding WHERE identity = ? AND NOT negative", (identity,)
        )
        return int(rows.fetchone()[0])

    def _meta(self) -> dict[str, str]:
        with self._read():
            meta = dict(self._connection.execute("SELECT key, value FROM meta"))
        if not {"binding", "gallery", "generation", "revision"} <= meta.keys():
            raise GalleryError(f"{self.address}: the gallery's own records are missing; restore it from a copy")
        return meta

    def _unlock(self, proof: str | None, key: Key | None) -> Cipher:
        if proof is None and key is not None:
            raise GalleryError(f"{self.address}: is not encrypted; encrypt it with: edge gallery rekey, or give no key")
        if proof is None or key is None:
            if proof is not None:
                raise GalleryError(
                    f"{self.address}: is encrypted; name its key with --key-file or ARCEDGE_GALLERY_KEY_FILE"
                )
            return Plain()
        cipher = Sealed(key, self.identifier)
        try:
            cipher.open(bytes.fromhex(proof), "proof")
        except (GalleryError, ValueError) as error:
            raise GalleryError(f"{self.address}: this is not the key it was encrypted with") from error
        return cipher

    @contextmanager
    def _change(self, *, revised: bool = False, erasing: bool = False, copying: bool = False) -> Iterator[_Change]:
        """A transaction that also tells every process what has become stale.

        Raises GalleryError for a copy of another gallery, unless `copying`.
        """
        self.require_writable()
        change = _Change(revised)
        with self._translated("written"), schema.transaction(self._connection):
            if not copying and (origin := self._origin_text()) is not None:
                centre = json.loads(origin)["centre"]
                raise GalleryError(f"{self.address}: is a copy of {centre}; make the change there and pull it")
            yield change
            for key in ("generation", "revision") if change.revised else ("generation",):
                self._connection.execute(
                    "UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE key = ?", (key,)
                )
            if erasing:
                self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('erasing', '1')")

    @contextmanager
    def _read(self) -> Iterator[None]:
        """A read; of a file that is read as it stands, of one moment. Within another one it does nothing of its own."""
        if self._opened.writable or self._within:
            with self._translated("read"):
                yield
            return
        self._renew()
        self._within = True
        try:
            with self._translated("read"):
                yield
        except Exception as error:
            self._require_still(error)
            raise
        finally:
            self._within = False
        self._require_still()

    def _require_still(self, error: Exception | None = None) -> None:
        """Raises ChangedMeanwhileError where the file has changed, which then is also why it seemed damaged."""
        if self._changed():
            raise ChangedMeanwhileError(f"{self.address}: was changed while it was read; try again") from error

    def _changed(self) -> bool:
        """Whether a file that is read as it stands is not what it was."""
        stamp = self._opened.stamp
        return stamp is not None and stamp_of(self._file) != stamp

    def _renew(self) -> None:
        """Looks at the file again where it has changed."""
        if self._changed():
            fresh = schema.connect(self._file)
            self.close()
            self._opened = fresh
            if self.identifier and self._meta()["gallery"] != self.identifier.hex():
                raise GalleryError(f"{self.address}: another gallery has taken its place; start again")

    @contextmanager
    def _translated(self, deed: str) -> Iterator[None]:
        """SQLite's errors as the port's."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreUnavailableError(f"{self.address}: cannot be {deed} ({error})") from error
        except sqlite3.DatabaseError as error:
            raise GalleryError(f"{self.address}: damaged ({error}); restore it from a copy") from error


def _proof(cipher: Cipher) -> str:
    """What only the right key opens."""
    return cipher.seal(_PROOF, "proof").hex()
