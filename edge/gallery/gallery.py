"""The gallery itself. The store is the truth; the copies of the vectors only make it quick to search."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType

import numpy as np

from edge.bundle import Bundle
from edge.errors import GalleryError
from edge.gallery import schema
from edge.gallery.binding import Binding
from edge.gallery.cipher import Key
from edge.gallery.copies import Copies
from edge.gallery.looking import looking_again
from edge.gallery.milvus import MilvusStore
from edge.gallery.place import MilvusPlace, Place
from edge.gallery.snapshot import Snapshot
from edge.gallery.sqlite import SqliteStore
from edge.gallery.store import (
    ChangedMeanwhileError,
    Entry,
    Hit,
    Identity,
    NewEntry,
    Outcome,
    Picture,
    Store,
    StoreUnavailableError,
)
from edge.manifest import Variant
from edge.types import Floats

MAX_NAME = 200

PATIENCE_SECONDS = 3.0
"""How long the last snapshot stands for a store that is locked or away, before its error is raised."""


class Gallery:
    """The people one model knows. A context manager; one thread at a time, many processes at once.

    One that this process may not write, as on a read-only file system, is opened to be read.

    Once `add` or another change has returned it is on disk: a kill or a power cut loses none of it.
    """

    def __init__(self, store: Store, path: Place) -> None:
        """path: the directory where copies of the vectors stand, to be mapped, unless the store is private.

        Of a gallery in Milvus the vectors are copied to memory alone.
        """
        self._store = store
        self.path = path
        self.binding = store.binding
        self._copies = Copies(store, None if store.private or isinstance(path, MilvusPlace) else path)
        self._snapshot: Snapshot | None = None
        self._replaced = 0
        self._away_since: float | None = None

    @classmethod
    def open(cls, path: Place, key: Key | None = None) -> Gallery:
        """Raises GalleryError where there is none, it is damaged, or the key does not open it."""
        if isinstance(path, MilvusPlace):
            return cls(MilvusStore(path), path)
        gallery = cls(SqliteStore(path, key), path)
        gallery._finish_erasing()
        return gallery

    @classmethod
    def create(cls, path: Place, binding: Binding, key: Key | None = None) -> Gallery:
        """An empty gallery for vectors of one model, encrypted where there is a key (in a directory).

        Raises GalleryError where one is there already.
        """
        try:
            return cls(_created(path, binding, key), path)
        except FileExistsError as error:
            raise GalleryError(f"{path}: a gallery is there already") from error

    @classmethod
    def open_or_create(cls, path: Place, binding: Binding, key: Key | None = None) -> Gallery:
        """To be changed. Raises GalleryError where the one there is of another model, or may only be read."""
        if not cls.exists(path):
            try:
                return cls(_created(path, binding, key), path)
            except FileExistsError:
                pass  # another process has made it meanwhile
        gallery = cls.open(path, key)
        try:
            gallery.require_same_model(binding)
            gallery.require_writable()
        except GalleryError:
            gallery.close()
            raise
        return gallery

    @staticmethod
    def exists(path: Place) -> bool:
        """Whether there is a gallery at `path`.

        Raises GalleryError for a folder that may not be looked into, StoreUnavailableError for a server that does not
        answer.
        """
        if isinstance(path, MilvusPlace):
            return MilvusStore.exists(path)
        return schema.is_there(path / schema.DATABASE_NAME)

    @property
    def private(self) -> bool:
        """Whether it is encrypted."""
        return self._store.private

    @property
    def origin(self) -> str | None:
        """What it is a copy of, for people; None where it is a gallery of its own."""
        return self._store.origin() if isinstance(self._store, SqliteStore) else None

    def require_writable(self) -> None:
        """Raises GalleryError where this process may read it and not change it."""
        if isinstance(self._store, SqliteStore):
            self._store.require_writable()

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
        if variant is None and not self.identities():
            raise GalleryError(
                f"{self.path}: holds nobody, but was made for {self.binding.model} "
                f"({self.binding.model_sha256[:12]}), which {bundle.path} does not have; remove it, or name another"
            )
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
        contents: Sequence[bytes | None] | None = None,
    ) -> int:
        """Adds (K, D) unit vectors to a person, new or known; gives how many were not there yet.

        sources: K times where the vector came from; crops: K times the aligned crop as PNG, or None to keep none.
        contents: K times the SHA-256 of the picture's file: a picture that this person has already is not kept twice,
        though another engine gave another vector of it.

        Raises GalleryError for an unfit name, ValueError for vectors that are not unit rows of this model's length.
        """
        return self.add_entries(self._entries(identity, embeddings, sources, crops, contents))

    def add_entries(self, entries: Sequence[NewEntry]) -> int:
        """Adds embeddings and negatives of any number of people, all or none; gives how many are new.

        The last word counts: a vector that was a person's becomes a negative of theirs, and the other way round.
        Raises as `add` and `reject` do.
        """
        self._check(entries)
        return self._store.add([replace(entry, identity=checked_name(entry.identity)) for entry in entries])

    def reject(
        self,
        identity: str,
        embeddings: Floats,
        sources: Sequence[str],
        crops: Sequence[bytes | None] | None = None,
        contents: Sequence[bytes | None] | None = None,
    ) -> int:
        """Says of (K, D) unit vectors that they are not this person; gives how many were not there yet.

        A probe that is more like one of them than like any vector of the person is not given the name.
        Raises GalleryError where the person is not here, ValueError as `add` does.
        """
        entries = self._entries(identity, embeddings, sources, crops, contents)
        return self.add_entries([replace(entry, negative=True) for entry in entries])

    def add_pictures(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Adds what bulk indexing has found, and remembers the pictures in the same step: none counts twice.

        Raises as `add` does.
        """
        checked = []
        for picture in pictures:
            entry = picture.entry
            if entry is not None:
                self._check([entry])
                entry = replace(entry, identity=checked_name(entry.identity))
            checked.append(replace(picture, entry=entry))
        return self._store.add_pictures(checked)

    def seen(self, files: Sequence[bytes]) -> list[bool]:
        """Whether each picture's file was given to `add_pictures`, and its person not forgotten since."""
        return self._store.seen(files)

    def problems(self, files: Sequence[bytes]) -> dict[bytes, str]:
        """Of files seen before: what was wrong with each that gave nothing."""
        return self._store.problems(files)

    def identities(self) -> list[Identity]:
        """Everybody, by name."""
        return self._store.identities()

    def entries(self, identity: str | None = None) -> list[Entry]:
        """The embeddings and negatives of one person, or of all. Raises GalleryError for a person who is not here."""
        return self._store.entries(identity)

    def rename(self, old: str, new: str) -> None:
        """Raises GalleryError where `old` is not here or `new` is somebody else: those are merged."""
        self._store.rename(old, checked_name(new))

    def merge(self, source: str, target: str) -> int:
        """Gives `source`'s embeddings to `target` and drops `source`; gives how many moved. Raises GalleryError."""
        return self._store.merge(source, target)

    def forget(self, identity: str) -> int:
        """Deletes a person, name, vectors and crops, from the tables and from the files; gives the vectors deleted.

        Raises GalleryError where the person is not here, or the files could not be cleaned because others use them.
        """
        with self.cleaning():
            return self._store.forget(identity)

    def remove(self, number: int) -> None:
        """Deletes one embedding or negative, from the files too. Raises GalleryError for a number that is not here."""
        with self.cleaning():
            self._store.remove(number)

    def compact(self) -> None:
        """Rewrites the files so that nothing deleted stays in them. Raises GalleryError where others use them."""
        with self.cleaning():
            if isinstance(self._store, SqliteStore):
                self._store.renew_copies()

    @contextmanager
    def cleaning(self) -> Iterator[None]:
        """Takes what the block deletes out of all files, once it has ended well.

        Raises GalleryError where others use the files.
        """
        self.require_writable()
        copies = self._copies
        with ExitStack() as stack:
            try:
                held = stack.enter_context(copies.held())
            except OSError as error:
                raise GalleryError(f"{self.path}: a copy of the vectors cannot be changed ({error})") from error
            yield
            self._snapshot = None
            try:
                copies.erase(held)
                self._store.erase()
                copies.erase_older()
            except OSError as error:
                raise GalleryError(
                    f"{self.path}: deleted, but a copy of the vectors still holds traces ({error}); then run: "
                    "edge gallery compact"
                ) from error

    def rekey(self, key: Key | None) -> None:
        """Encrypts the gallery with a key, with another one, or with None no more. All or nothing.

        Raises GalleryError where others use it, or its store cannot be encrypted.
        """
        if not isinstance(self._store, SqliteStore) or isinstance(self.path, MilvusPlace):
            raise GalleryError(f"{self.path}: only galleries in a directory can be encrypted")
        with self.cleaning():
            self._store.rekey(key)
            self._copies = Copies(self._store, None if self._store.private else self.path)

    def snapshot(self) -> Snapshot:
        """The gallery for search, as it is now; the same object as before while nothing has changed.

        While the store cannot be used the last snapshot, for PATIENCE_SECONDS. GalleryError after that, where there is
        none yet, or where the store is damaged.
        """
        if self._snapshot is None:
            return looking_again(ChangedMeanwhileError)(self._look)()
        try:
            snapshot = self._look()
        except StoreUnavailableError:
            now = time.monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            if now - self._away_since >= PATIENCE_SECONDS:
                raise
            return self._snapshot
        self._away_since = None
        return snapshot

    def search(self, probes: Floats, limit: int) -> list[list[Hit]]:
        """For each of (F, D) unit probes the `limit` nearest vectors, best first; negatives do not count.

        In Milvus its index answers, so that no vector has to come here.
        """
        if isinstance(self._store, MilvusStore):
            return self._store.search(probes, limit)
        entries = [entry for entry in self._store.entries() if not entry.negative]
        if not entries:
            return [[] for _ in probes]
        scores = probes @ np.stack([entry.vector for entry in entries]).T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return [
            [Hit(entries[i].number, entries[i].identity, entries[i].source, float(row[i])) for i in found]
            for row, found in zip(scores, best, strict=True)
        ]

    def close(self) -> None:
        """Calling it again does nothing."""
        self._snapshot = None
        self._store.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _look(self) -> Snapshot:
        with self._store.reading():
            state = self._store.state()
            fresh = self._snapshot
            if fresh is None or (self._replaced, fresh.generation) != (state.replaced, state.generation):
                fresh = self._copies.snapshot(state)
        # Only now: a store without transactions says at the end whether the view was of one moment.
        self._snapshot, self._replaced = fresh, state.replaced
        return fresh

    def _finish_erasing(self) -> None:
        """What a `forget` that was killed had begun. Where others use the gallery it stays for the next opening."""
        if not self._store.erasing():
            return
        try:
            self.compact()
        except GalleryError:
            return

    def _entries(
        self,
        identity: str,
        embeddings: Floats,
        sources: Sequence[str],
        crops: Sequence[bytes | None] | None,
        contents: Sequence[bytes | None] | None,
    ) -> list[NewEntry]:
        if embeddings.ndim != 2:
            raise ValueError(f"this gallery takes (K, {self.binding.embedding_size}) vectors, not {embeddings.shape}")
        none = [None] * len(embeddings)
        rows = zip(embeddings, sources, crops or none, contents or none, strict=True)
        return [NewEntry(identity, vector, source, crop, content=content) for vector, source, crop, content in rows]

    def _check(self, entries: Sequence[NewEntry]) -> None:
        size = self.binding.embedding_size
        for entry in entries:
            if entry.vector.shape != (size,):
                raise ValueError(f"this gallery takes vectors of length {size}, not {entry.vector.shape}")
            if not abs(float(np.linalg.norm(entry.vector)) - 1.0) <= 1e-3:
                raise ValueError("a gallery takes vectors of unit length")


def _created(path: Place, binding: Binding, key: Key | None) -> Store:
    if not isinstance(path, MilvusPlace):
        return SqliteStore.create(path, binding, key)
    if key is not None:
        raise GalleryError(f"{path}: only galleries in a directory can be encrypted; leave the key out")
    return MilvusStore.create(path, binding)


def checked_name(name: str) -> str:
    """The name without surrounding blanks. Raises GalleryError where it is empty, too long or unprintable."""
    stripped = name.strip()
    if not stripped or len(stripped) > MAX_NAME or not stripped.isprintable():
        raise GalleryError(f"{name!r} is no name: 1 to {MAX_NAME} printable characters are")
    return stripped
