"""Bringing a copy up to its centre: fetch what has changed, then let it count at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from edge.gallery.centre import Centre, Version
from edge.gallery.cipher import Key
from edge.gallery.gallery import Gallery
from edge.gallery.replica import DigestError, ReplicaStore
from edge.gallery.store import StoreUnavailableError

ROUNDS = 20
"""How often a pull looks for what changed while it fetched, before it leaves the centre to calm down."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull came to: the copy's version before and after, and the records fetched."""

    before: int
    after: int
    records: int


def pull(
    centre: Centre,
    path: Path,
    key: Key | None = None,
    progress: Callable[[int], object] = lambda records: None,
) -> Pulled:
    """Makes the gallery at `path` what the centre is now, or leaves it as it was. A copy that is not there is made.

    progress gets the records fetched since it was called last. Raises StoreUnavailableError where the centre is
    away or never rests; what was fetched is kept for the next time. Raises GalleryError where the gallery is no copy of
    this centre, or is of another model, or what deleted records have left in its files cannot be cleaned.
    """
    Gallery.open_or_create(path, centre.binding, key).close()
    store = ReplicaStore(path, centre, key)
    with Gallery(store, path) as gallery:
        before = store.source.version
        fetched, target = _fetch(centre, store, progress)
        if store.is_at(target):
            return Pulled(before, before, 0)
        try:
            _apply(gallery, store, target)
        except DigestError:
            # A change was lost on the way, or the copy was damaged: once more, everything.
            if store.incoming().after == 0:
                store.begin(0)
                raise
            store.begin(0)
            more, target = _fetch(centre, store, progress)
            fetched += more
            _apply(gallery, store, target)
        return Pulled(before, target.number, fetched)


def _apply(gallery: Gallery, store: ReplicaStore, version: Version) -> None:
    with gallery.cleaning() if store.incoming().erase else nullcontext():
        store.apply(version)


def _fetch(centre: Centre, store: ReplicaStore, progress: Callable[[int], object]) -> tuple[int, Version]:
    """Stages all up to a version that is still the centre's when it is there. Gives the records fetched."""
    done = 0
    for _ in range(ROUNDS):
        target = centre.version()
        incoming = store.incoming()
        if target.number < incoming.goal:
            # The centre was set back to an older state, which versions cannot tell from the copy's.
            incoming = store.begin(0)
        if incoming.goal == incoming.until != target.number:
            store.aim(target.number)
        # Else an interrupted pull is ended first; what has changed since comes in the next round.
        incoming = store.incoming()
        if incoming.goal > incoming.until:
            for part in centre.parts(incoming.until, incoming.goal, incoming.last):
                store.stage(part)
                done += len(part)
                progress(len(part))
            store.arrive()
        if incoming.goal == target.number and centre.version() == target:
            return done, target
    raise StoreUnavailableError(f"{centre.address}: changes faster than it can be copied; try again later")
