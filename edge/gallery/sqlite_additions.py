"""Embeddings and pictures on their way into a SQLite gallery, within one transaction of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge.gallery.cipher import Cipher
from edge.gallery.sqlite_file import Change
from edge.gallery.sqlite_names import Names
from edge.gallery.store import ANOTHERS_PICTURE, NewEntry, Outcome, Picture, as_known

ENROLLED, REJECTED = "enrolled", "rejected"
"""Kinds of tokens of pictures that a person was given one by one."""

SealedEntry = tuple[bytes, bytes, bytes, bytes | None]
"""Token and sealed vector, sealed source, sealed crop."""


def sealed(cipher: Cipher, entry: NewEntry) -> SealedEntry:
    """The entry as its row keeps it."""
    vector, seal = entry.vector.astype("<f4").tobytes(), cipher.seal
    crop = None if entry.crop is None else seal(entry.crop, "crop")
    return cipher.token(vector, "vector"), seal(vector, "vector"), seal(entry.source.encode(), "source"), crop


class Additions:
    """Puts them in, with what is there already in view, and notes in `change` whether they are more than additions."""

    def __init__(self, names: Names, change: Change, now: float) -> None:
        self._names = names
        self._connection: sqlite3.Connection = names.connection
        self._cipher: Cipher = names.cipher
        self._change = change
        self._now = now

    def put_entries(self, entries: Sequence[NewEntry], rows: Sequence[SealedEntry]) -> int:
        """How many said what was not known. Raises GalleryError for a negative of somebody who is not there."""
        numbers = {name: self._names.number_of_new(name, self._now) for name in self._names_to_add(entries)}
        added = 0
        for entry, row in zip(entries, rows, strict=True):
            number = numbers[entry.identity]
            added += self._put(number, *self._recognised(number, entry, row))
            if entry.content is not None:
                self._mark(self._given(entry.content, REJECTED if entry.negative else ENROLLED), number)
        return added

    def put_picture(self, picture: Picture, row: SealedEntry | None) -> Outcome:
        """What became of it; the picture is remembered, with what is wrong with it."""
        outcome, identity, problem = Outcome.NOTHING, None, picture.problem
        if picture.entry is not None and row is not None and picture.content is not None:
            content = self._cipher.token(picture.content, "content")
            owner = self._owner(content)
            if owner is None:
                identity = self._names.number_of_new(picture.entry.identity, self._now)
                entry = replace(picture.entry, content=picture.content)
                added = self._put(identity, *self._recognised(identity, entry, row))
                outcome = Outcome.ADDED if added else Outcome.KNOWN
                self._mark(content, identity)
            else:
                identity = owner[0]
                name = self._connection.execute("SELECT token FROM identity WHERE id = ?", (identity,)).fetchone()
                same = name is not None and name[0] == self._names.token(picture.entry.identity)
                outcome, problem = (Outcome.DUPLICATE, problem) if same else (Outcome.ANOTHERS, ANOTHERS_PICTURE)
        file = self._cipher.token(picture.file, "file")
        self._mark(file, identity)
        if problem is not None:
            text = self._cipher.seal(problem.encode(errors="replace"), "problem")
            self._connection.execute("INSERT OR REPLACE INTO problem VALUES (?, ?)", (file, text))
        return outcome

    def _put(self, identity: int, entry: NewEntry, row: SealedEntry) -> bool:
        """Whether the vector says what was not known."""
        negative = int(entry.negative)
        known = self._connection.execute(
            "SELECT negative FROM embedding WHERE identity = ? AND token = ?", (identity, row[0])
        ).fetchone()
        if known is None:
            self._connection.execute(
                "INSERT INTO embedding (identity, negative, token, vector, source, crop, created) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (identity, negative, *row, self._now),
            )
        elif known[0] != negative:
            self._change.revised = True
            self._connection.execute(
                "UPDATE embedding SET negative = ? WHERE identity = ? AND token = ?", (negative, identity, row[0])
            )
        return known is None or known[0] != negative

    def _recognised(self, identity: int, entry: NewEntry, row: SealedEntry) -> tuple[NewEntry, SealedEntry]:
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
        return (entry, row) if known is entry else (known, sealed(self._cipher, known))

    def _given(self, content: bytes, kind: str) -> bytes:
        """Token of a picture that a person was given; not that of indexing, by which it is one person's alone."""
        return self._cipher.token(f"{kind}\0".encode() + content, kind)

    def _names_to_add(self, entries: Sequence[NewEntry]) -> list[str]:
        """Of the people of `entries`; those of negatives must be known, from before or from the same entries."""
        here = dict.fromkeys(entry.identity for entry in entries if not entry.negative)
        for entry in entries:
            if entry.identity not in here:
                self._names.number(entry.identity)
                here[entry.identity] = None
        return list(here)

    def _mark(self, token: bytes, identity: int | None) -> None:
        self._connection.execute("INSERT OR REPLACE INTO picture VALUES (?, ?)", (token, identity))

    def _owner(self, token: bytes) -> tuple[int | None] | None:
        return owner_of(self._connection, token)


def owner_of(connection: sqlite3.Connection, token: bytes) -> tuple[int | None] | None:
    """Number of the identity a picture's token belongs to; None where it was not seen."""
    row = connection.execute("SELECT identity FROM picture WHERE token = ?", (token,)).fetchone()
    return None if row is None else (row[0],)
