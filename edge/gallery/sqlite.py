"""The embedded store: one SQLite file. Fields go through a cipher before SQLite sees them."""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edge.errors import GalleryError
from edge.gallery import schema
from edge.gallery.binding import Binding
from edge.gallery.cipher import Cipher, Key, Plain, Sealed
from edge.gallery.looking import looking_again
from edge.gallery.sqlite_additions import Additions, owner_of, sealed
from edge.gallery.sqlite_file import SqliteFile, proof
from edge.gallery.store import ChangedMeanwhileError, Entry, Identity, NewEntry, Outcome, Picture, State, VectorRow

ERASE_ATTEMPTS = 50


class SqliteStore(SqliteFile):
    """See `edge.gallery.store.Store`. `path` is the gallery's directory."""

    @classmethod
    def create(cls, path: Path, binding: Binding, key: Key | None = None) -> SqliteStore:
        """An empty store. Raises GalleryError where none can be made, FileExistsError where one is there."""
        identifier = secrets.token_bytes(16)
        meta = {"binding": binding.to_json(), "gallery": identifier.hex(), "generation": "0", "revision": "0"}
        if key is not None:
            meta["proof"] = proof(Sealed(key, identifier))
        schema.create(path / schema.DATABASE_NAME, meta)
        return cls(path, key)

    @looking_again(ChangedMeanwhileError)
    def state(self) -> State:
        meta = self._require_same_key()
        return State(int(meta["generation"]), int(meta["revision"]), self._replaced)

    def add(self, entries: Sequence[NewEntry]) -> int:
        now = time.time()
        # Sealed before the lock is taken: others need not wait for the cipher.
        rows = [sealed(self._cipher, entry) for entry in entries]
        with self._change() as change:
            return Additions(self._names, change, now).put_entries(entries, rows)

    def add_pictures(self, pictures: Sequence[Picture]) -> list[Outcome]:
        now = time.time()
        rows = [None if picture.entry is None else sealed(self._cipher, picture.entry) for picture in pictures]
        with self._change() as change:
            schema.make_problems(self._connection)
            additions = Additions(self._names, change, now)
            return [additions.put_picture(picture, row) for picture, row in zip(pictures, rows, strict=True)]

    @looking_again(ChangedMeanwhileError)
    def seen(self, files: Sequence[bytes]) -> list[bool]:
        with self._read():
            return [owner_of(self._connection, self._cipher.token(file, "file")) is not None for file in files]

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
            Identity(self._names.opened(name), every - negatives, created, negatives)
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
                {"one": None if name is None else self._names.number(name)},
            ).fetchall()
        entries = [
            Entry(
                number,
                self._names.opened(owner),
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
            row = self._names.number(old)
            token = self._names.token(new)
            if self._connection.execute("SELECT 1 FROM identity WHERE token = ? AND id <> ?", (token, row)).fetchone():
                raise GalleryError(f"{new!r} is in the gallery already; to make them one: edge gallery merge")
            sealed = self._cipher.seal(new.encode(), "name")
            self._connection.execute("UPDATE identity SET token = ?, name = ? WHERE id = ?", (token, sealed, row))

    def merge(self, source: str, target: str) -> int:
        with self._change(revised=True):
            old, new = self._names.number(source), self._names.number(target)
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
            row = self._names.number(name)
            gone = self._connection.execute("DELETE FROM embedding WHERE identity = ?", (row,)).rowcount
            self._connection.execute("DELETE FROM identity WHERE id = ?", (row,))
        return gone

    def remove(self, number: int) -> None:
        with self._change(revised=True, erasing=True):
            if self._connection.execute("DELETE FROM embedding WHERE id = ?", (number,)).rowcount == 0:
                raise GalleryError(f"no embedding has number {number}; see: edge gallery show")

    def renew_copies(self) -> None:
        """Tells every process that copies of the vectors made before this are out of date. `erase` is to follow."""
        with self._change(revised=True, erasing=True, copying=True):
            pass

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
        return {number: self._names.opened(name) for number, name in rows}

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
        """Encrypts every field with another key, or with None decrypts them. All or nothing. `erase` is to follow."""
        cipher: Cipher = Plain() if key is None else Sealed(key, self.identifier)
        fresh = None if key is None else proof(cipher)
        with self._change(revised=True, erasing=True, copying=True):
            schema.drop_incoming(self._connection)
            self._rewrite("identity", ("name",), cipher, "name")
            self._rewrite("embedding", ("vector", "source", "crop"), cipher, "vector")
            # Their content is not kept, so no token of the new key can be made; indexing looks at the files again.
            self._connection.execute("DELETE FROM picture")
            self._connection.execute("DELETE FROM meta WHERE key = 'proof'")
            if fresh is not None:
                self._connection.execute("INSERT INTO meta VALUES ('proof', ?)", (fresh,))
        self._cipher, self.private, self._proof = cipher, cipher.private, fresh

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

    def _positives(self, identity: int) -> int:
        rows = self._connection.execute(
            "SELECT COUNT(*) FROM embedding WHERE identity = ? AND NOT negative", (identity,)
        )
        return int(rows.fetchone()[0])
