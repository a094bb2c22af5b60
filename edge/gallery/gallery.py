"""The gallery itself. SQLite is the truth; the matrix beside it only makes it quick to search."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from edge.bundle import Bundle
from edge.errors import GalleryError
from edge.gallery import schema
from edge.gallery.binding import Binding
from edge.gallery.vectors import MATRIX_NAME, Snapshot, Stamp, map_matrix, overwrite, write_matrix
from edge.manifest import Variant
from edge.types import Floats

MAX_NAME = 200
ERASE_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class Identity:
    """A person of the gallery: name, number of embeddings, seconds since the epoch of the first."""

    name: str
    embeddings: int
    created: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One embedding: its number in the gallery, (D,) float32 unit vector, where it came from, its kept crop (PNG)."""

    number: int
    identity: str
    vector: Floats
    source: str
    crop: bytes | None
    created: float


class Gallery:
    """A directory with the people one model knows. A context manager; one thread at a time, many processes at once.

    Once `add` or another change has returned it is on disk: a kill or a power cut loses none of it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        if not {"binding", "gallery", "generation"} <= meta.keys():
            raise GalleryError(f"{path}: the gallery's own records are missing; restore it from a copy")
        self.binding = Binding.from_json(meta["binding"])
        self._gallery = bytes.fromhex(meta["gallery"])
        self._snapshot: Snapshot | None = None

    @classmethod
    def open(cls, path: Path) -> Gallery:
        """Raises GalleryError where there is none or it is damaged."""
        return cls(path, schema.connect(path / schema.DATABASE_NAME))

    @classmethod
    def create(cls, path: Path, binding: Binding) -> Gallery:
        """An empty gallery for vectors of one model. Raises GalleryError where one is there already."""
        meta = {"binding": binding.to_json(), "gallery": secrets.token_hex(16), "generation": "0"}
        return cls(path, schema.create(path / schema.DATABASE_NAME, meta))

    @classmethod
    def open_or_create(cls, path: Path, binding: Binding) -> Gallery:
        """Raises GalleryError where the gallery that is there holds vectors of another model."""
        if not (path / schema.DATABASE_NAME).exists():
            return cls.create(path, binding)
        gallery = cls.open(path)
        gallery.require_same_model(binding)
        return gallery

    def require_same_model(self, binding: Binding) -> None:
        """Raises GalleryError unless vectors of `binding` may be added here."""
        if not self.binding.same_model(binding):
            raise GalleryError(
                f"{self.path}: holds vectors of {self.binding.model} ({self.binding.model_sha256[:12]}), not of "
                f"{binding.model} ({binding.model_sha256[:12]}); use its model, or move it: edge gallery migrate"
            )

    def variant_in(self, bundle: Bundle) -> Variant:
        """The embedder of `bundle` that made these vectors; its other precisions may be matched against them.

        Raises GalleryError where the bundle holds another model.
        """
        variant = self.binding.variant_in(bundle)
        if variant is None:
            raise GalleryError(
                f"{self.path}: holds vectors of {self.binding.model} ({self.binding.model_sha256[:12]}), which "
                f"{bundle.path} does not have; use its bundle, or move it: edge gallery migrate"
            )
        return variant

    def add(
        self,
        identity: str,
        embeddings: Floats,
        sources: Sequence[str],
        crops: Sequence[bytes | None] | None = None,
    ) -> int:
        """Adds (K, D) unit vectors to a person, new or known; gives how many were not there yet.

        sources: K times where the vector came from; crops: K times the aligned crop as PNG, or None to keep none.
        Raises GalleryError for an unfit name, ValueError for vectors that are not unit rows of this model's length.
        """
        name = checked_name(identity)
        kept = crops if crops is not None else [None] * len(embeddings)
        self._check(embeddings)
        now = time.time()
        with self._change():
            self._connection.execute("INSERT OR IGNORE INTO identity (name, created) VALUES (?, ?)", (name, now))
            before = self._connection.total_changes
            self._connection.executemany(
                "INSERT OR IGNORE INTO embedding (identity, vector, source, crop, created) "
                "SELECT id, ?, ?, ?, ? FROM identity WHERE name = ?",
                [
                    (vector.astype("<f4").tobytes(), source, crop, now, name)
                    for vector, source, crop in zip(embeddings, sources, kept, strict=True)
                ],
            )
            return self._connection.total_changes - before

    def identities(self) -> list[Identity]:
        """Everybody, by name."""
        rows = self._connection.execute(
            "SELECT name, COUNT(embedding.id), identity.created FROM identity "
            "LEFT JOIN embedding ON embedding.identity = identity.id GROUP BY identity.id ORDER BY name"
        )
        return [Identity(*row) for row in rows]

    def entries(self, identity: str | None = None) -> list[Entry]:
        """The embeddings of one person, or of all. Raises GalleryError for a person who is not here."""
        if identity is not None:
            self._id_of(identity)
        rows = self._connection.execute(
            "SELECT embedding.id, name, vector, source, crop, embedding.created FROM embedding "
            "JOIN identity ON embedding.identity = identity.id WHERE ?1 IS NULL OR name = ?1 "
            "ORDER BY name, embedding.id",
            (identity,),
        )
        return [
            Entry(number, name, np.frombuffer(vector, "<f4"), source, crop, created)
            for number, name, vector, source, crop, created in rows
        ]

    def rename(self, old: str, new: str) -> None:
        """Raises GalleryError where `old` is not here or `new` is somebody else: those are merged."""
        name = checked_name(new)
        with self._change():
            row = self._id_of(old)
            if self._connection.execute("SELECT 1 FROM identity WHERE name = ? AND id <> ?", (name, row)).fetchone():
                raise GalleryError(f"{name!r} is in the gallery already; to make them one: edge gallery merge")
            self._connection.execute("UPDATE identity SET name = ? WHERE id = ?", (name, row))

    def merge(self, source: str, target: str) -> int:
        """Gives `source`'s embeddings to `target` and drops `source`; gives how many moved. Raises GalleryError."""
        with self._change():
            old, new = self._id_of(source), self._id_of(target)
            if old == new:
                raise GalleryError(f"{source!r} cannot be merged with itself")
            moved = self._connection.execute(
                "UPDATE OR IGNORE embedding SET identity = ? WHERE identity = ?", (new, old)
            ).rowcount
            self._connection.execute("DELETE FROM identity WHERE id = ?", (old,))
        return moved

    def forget(self, identity: str) -> int:
        """Deletes a person, name, vectors and crops, from the tables and from the files; gives the embeddings deleted.

        Raises GalleryError where the person is not here, or the files could not be cleaned because others use them.
        """
        with self._change():
            row = self._id_of(identity)
            gone = self._connection.execute("DELETE FROM embedding WHERE identity = ?", (row,)).rowcount
            self._connection.execute("DELETE FROM identity WHERE id = ?", (row,))
        self._erase()
        return gone

    def remove(self, number: int) -> None:
        """Deletes one embedding, from the files too. Raises GalleryError where there is none of that number."""
        with self._change():
            if self._connection.execute("DELETE FROM embedding WHERE id = ?", (number,)).rowcount == 0:
                raise GalleryError(f"no embedding has number {number}; see: edge gallery show")
        self._erase()

    def snapshot(self) -> Snapshot:
        """The gallery for search, as it is now; the same object as before while nothing has changed.

        While another process keeps the database locked, the last snapshot; GalleryError where there is none yet, or
        where the database is damaged.
        """
        try:
            with schema.reading(self._connection):
                generation = self._generation()
                if self._snapshot is None or self._snapshot.generation != generation:
                    self._snapshot = self._load(generation)
        except sqlite3.OperationalError as error:
            if self._snapshot is None:
                raise GalleryError(f"{self.path}: cannot be read ({error})") from error
        except sqlite3.DatabaseError as error:
            raise GalleryError(f"{self.path}: damaged ({error}); restore it from a copy") from error
        return self._snapshot

    def close(self) -> None:
        """Calling it again does nothing."""
        self._snapshot = None
        self._connection.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """A transaction that also tells every process that the matrix is stale."""
        try:
            with schema.transaction(self._connection):
                yield
                self._connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
        except sqlite3.DatabaseError as error:
            raise GalleryError(f"{self.path}: cannot be written ({error})") from error

    def _check(self, embeddings: Floats) -> None:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.binding.embedding_size:
            raise ValueError(f"this gallery takes (K, {self.binding.embedding_size}) vectors, not {embeddings.shape}")
        if len(embeddings) and not np.allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-3):
            raise ValueError("a gallery takes vectors of unit length")

    def _id_of(self, name: str) -> int:
        row = self._connection.execute("SELECT id FROM identity WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise GalleryError(f"{self.path}: nobody here is called {name!r}; see: edge gallery list")
        return int(row[0])

    def _generation(self) -> int:
        return int(self._connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0])

    def _load(self, generation: int) -> Snapshot:
        """Maps the matrix, after making it again where it is not of this generation. Inside a reading transaction."""
        count = self._connection.execute("SELECT COUNT(*) FROM embedding").fetchone()[0]
        stamp = Stamp(self._gallery, generation, count, self.binding.embedding_size)
        file = self.path / MATRIX_NAME
        mapped = map_matrix(file, stamp)
        if mapped is None:
            rows = self._connection.execute("SELECT identity, vector FROM embedding ORDER BY identity, id")
            try:
                write_matrix(file, stamp, rows)
                mapped = map_matrix(file, stamp)
            except OSError:
                pass  # a read-only or full disk: the vectors are held in memory instead
        if mapped is None:
            table = self._connection.execute("SELECT identity, vector FROM embedding ORDER BY identity, id").fetchall()
            joined = b"".join(vector for _, vector in table)
            vectors = np.frombuffer(joined, "<f4").reshape(count, stamp.columns)
            mapped = vectors, np.array([identity for identity, _ in table], np.int64)
        vectors, owners = mapped
        ids, starts = np.unique(owners, return_index=True)
        names: dict[int, str] = dict(self._connection.execute("SELECT id, name FROM identity"))
        return Snapshot(tuple(names[int(i)] for i in ids), vectors, starts.astype(np.intp), generation)

    def _erase(self) -> None:
        self._snapshot = None
        try:
            overwrite(self.path / MATRIX_NAME)
            for _ in range(ERASE_ATTEMPTS):
                if schema.erase(self._connection):
                    return
                time.sleep(0.1)
        except (OSError, sqlite3.OperationalError) as error:
            raise GalleryError(
                f"{self.path}: deleted, but the files still hold traces ({error}); stop what uses the gallery, "
                "then run: edge gallery compact"
            ) from error
        raise GalleryError(
            f"{self.path}: deleted, but another process keeps the log with its traces; stop it, then run: "
            "edge gallery compact"
        )

    def compact(self) -> None:
        """Rewrites the files so that nothing deleted stays in them. Raises GalleryError where others use them."""
        self._erase()


def checked_name(name: str) -> str:
    """The name without surrounding blanks. Raises GalleryError where it is empty, too long or unprintable."""
    stripped = name.strip()
    if not stripped or len(stripped) > MAX_NAME or not stripped.isprintable():
        raise GalleryError(f"{name!r} is no name: 1 to {MAX_NAME} printable characters are")
    return stripped
