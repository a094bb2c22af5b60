"""Copies of a store's vectors made for search, and the snapshots put together from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edge.gallery.files import Held, holding, remove_leftovers
from edge.gallery.screen import Screen, build_screen
from edge.gallery.screen_file import SCREEN_NAME, matrix_of, read_screen, write_screen
from edge.gallery.snapshot import Loose, Positions, Snapshot
from edge.gallery.store import State, Store
from edge.gallery.vectors import MATRIX_NAME, Matrix, Stamp, digest_of, map_matrix, read_head, read_rows, write_matrix

SCREEN_FROM = 50_000
"""Vectors from which an INT8 copy is kept: below, plain search takes a few milliseconds anyway."""

LATE_SHARE, LATE_ROWS = 0.02, 1000
"""The copy is made again once this share of it, and so many rows, have come since."""


class Copies:
    """The matrix, its INT8 screen and the names, kept from one snapshot to the next while they hold.

    folder: where they stand as files; None keeps them in memory alone.
    """

    def __init__(self, store: Store, folder: Path | None) -> None:
        self._store = store
        self._folder = folder
        self._base: _Base | None = None

    def snapshot(self, state: State) -> Snapshot:
        """Of the store as it is; inside its `reading`. The matrix is made again only where it is no base any more."""
        base = self._base
        if base is None or (base.replaced, base.revision) != (state.replaced, state.revision) or self._many(base):
            base = self._base = self._load(state)
        rows = list(self._store.vectors(after=base.matrix.last))
        added = list(dict.fromkeys(row.identity for row in rows if row.identity not in base.places))
        places = base.places
        if added:
            names = {**base.without_vectors, **self._store.names(after=base.last_identity)}
            places = {**places, **{identity: len(base.named) + i for i, identity in enumerate(added)}}
        late = read_rows(rows, self._store.binding.embedding_size)
        return Snapshot(
            base.named + tuple(names[identity] for identity in added) if added else base.named,
            base.matrix.vectors,
            base.starts,
            state.generation,
            Loose(late.vectors, _places(late, places)) if rows else None,
            self._negatives(places),
            base.screen,
            base.places_by_name,
        )

    @contextmanager
    def held(self) -> Iterator[list[Held]]:
        """The files as they are now. Raises OSError.

        Held before a deletion, they can be zeroed after it: a running camera that reads the store in between maps files
        of its own making, and whoever still maps these looks at the store before the next search.
        """
        with holding(self._paths) as held:
            yield held

    def erase(self, held: Sequence[Held]) -> None:
        """Zeroes and removes files that are out of date, and what killed writers of them left. Raises OSError."""
        self._base = None
        files = {old.path.name: old for old in held}
        if (screen := files.get(SCREEN_NAME)) is not None and self._holds_still(screen, files.get(MATRIX_NAME)):
            del files[SCREEN_NAME]
        for old in files.values():
            old.overwrite()
        for path in self._paths:
            remove_leftovers(path)

    def erase_older(self) -> None:
        """Zeroes and removes what readers have written since who had begun before the deletion. Raises OSError."""
        if self._folder is None:
            return
        state = self._store.state()
        with holding(self._paths) as held:
            matrix = next((read_head(old.file) for old in held if old.path.name == MATRIX_NAME), None)
            if matrix is None or matrix.stamp.revision >= state.revision:
                return
            for old in held:
                if old.path.name == MATRIX_NAME or matrix_of(old.file) == matrix.digest:
                    old.overwrite()

    def _holds_still(self, screen: Held, matrix: Held | None) -> bool:
        """Whether a screen, of which nothing was deleted, may have been mapped anew since: it has no revision."""
        head = None if matrix is None else read_head(matrix.file)
        if head is None or matrix_of(screen.file) != head.digest:
            return False
        return digest_of(row for row in self._store.vectors() if row.number <= head.last) == head.digest

    @property
    def _paths(self) -> list[Path]:
        return [] if self._folder is None else [self._folder / name for name in (SCREEN_NAME, MATRIX_NAME)]

    def _many(self, base: _Base) -> bool:
        since = self._store.count() - len(base.matrix.owners)
        return since > max(LATE_ROWS, LATE_SHARE * len(base.matrix.owners))

    def _negatives(self, places: dict[int, int]) -> Loose | None:
        # A person may have negatives and no vectors: then there is nothing to take back.
        rows = [row for row in self._store.negatives() if row.identity in places]
        if not rows:
            return None
        matrix = read_rows(rows, self._store.binding.embedding_size)
        return Loose(matrix.vectors, _places(matrix, places))

    def _load(self, state: State) -> _Base:
        stamp = Stamp(self._store.identifier, state.revision, self._store.binding.embedding_size)
        matrix = self._matrix(stamp)
        return _Base(state, matrix, self._store.names(), self._screen(matrix))

    def _matrix(self, stamp: Stamp) -> Matrix:
        if self._folder is None:
            return read_rows(self._store.vectors(), stamp.columns)
        file = self._folder / MATRIX_NAME
        mapped = map_matrix(file, stamp)
        if mapped is None or self._store.count() - len(mapped.owners) > max(LATE_ROWS, LATE_SHARE * len(mapped.owners)):
            try:
                write_matrix(file, stamp, self._store.vectors())
                mapped = map_matrix(file, stamp)
            except OSError:
                mapped = None  # a read-only or full disk: the vectors are held in memory instead
        return mapped if mapped is not None else read_rows(self._store.vectors(), stamp.columns)

    def _screen(self, matrix: Matrix) -> Screen | None:
        if len(matrix.vectors) < SCREEN_FROM:
            return None
        if self._folder is None:
            return build_screen(matrix.vectors)
        file = self._folder / SCREEN_NAME
        screen = read_screen(file, matrix)
        if screen is None:
            screen = build_screen(matrix.vectors)
            try:
                write_screen(file, screen, matrix)
            except OSError:
                return screen
            screen = read_screen(file, matrix) or screen
        return screen


class _Base:
    """A matrix with everything that belongs to it, by identity number."""

    def __init__(self, state: State, matrix: Matrix, names: dict[int, str], screen: Screen | None) -> None:
        identities, starts = np.unique(matrix.owners, return_index=True)
        self.revision, self.replaced = state.revision, state.replaced
        self.matrix = matrix
        self.screen = screen
        self.starts: Positions = starts.astype(np.intp)
        self.places = {identity: place for place, identity in enumerate(identities.tolist())}
        self.named = tuple(names[identity] for identity in self.places)
        self.without_vectors = {identity: name for identity, name in names.items() if identity not in self.places}
        self.last_identity = max(names, default=0)
        self.places_by_name: dict[str, int] = {}


def _places(matrix: Matrix, places: dict[int, int]) -> Positions:
    return np.array([places[owner] for owner in matrix.owners.tolist()], np.intp)
