"""What keeps a gallery's records: a port with few methods, so that another store can stand beside SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

import numpy as np

from edge.errors import GalleryError
from edge.gallery.binding import Binding
from edge.types import Floats


class StoreUnavailableError(GalleryError):
    """The store cannot be used now: locked for longer than one waits, a full or read-only disk, a server away."""


class ChangedMeanwhileError(StoreUnavailableError):
    """Somebody wrote while it was read, so that what came of it may be of two moments."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person: name, number of embeddings, seconds since the epoch of the first, number of negatives."""

    name: str
    embeddings: int
    created: float
    negatives: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One embedding: its number in the gallery, (D,) float32 unit vector, where it came from, its kept crop (PNG).

    negative: the vector is of somebody who is not this person, however alike.
    """

    number: int
    identity: str
    vector: Floats
    source: str
    crop: bytes | None
    created: float
    negative: bool = False


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An embedding on its way into a store: whose, (D,) float32 unit vector, where from, crop as PNG or None.

    negative: it is of somebody who is not this person. content: SHA-256 of the picture's file, by which it is known
    again where another engine has given another vector of it; None where there is no file.
    """

    identity: str
    vector: Floats
    source: str
    crop: bytes | None = None
    negative: bool = False
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that bulk indexing has looked at: whose, what names its file and its content, and what it gave.

    file: says that this file need not be looked at again; content: the same for equal pictures. entry: None where there
    was nothing to add; problem says why, for who asks later.
    """

    file: bytes
    content: bytes | None
    entry: NewEntry | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """An embedding that a search has found: its number, whose, where it came from, its cosine to the probe."""

    number: int
    identity: str
    source: str
    similarity: float


SAME_PICTURE = 0.9
"""Cosine from which a person's vector is that of a picture they were given; below, the picture's own was deleted.
ONNX Runtime, OpenVINO, its bfloat16, and detectors in FP32 and INT8 gave 39 crops of the Avengers 0.990 or more."""


def as_known(entry: NewEntry, there: Iterable[tuple[Floats, str]]) -> NewEntry:
    """An entry of a picture that its person has already, with the vector it has of it; itself where that is gone.

    there: the person's vectors, and where each came from. One from elsewhere is no picture's own, however like it is:
    photos taken one after the other are.
    """
    vectors = [vector for vector, source in there if source == entry.source]
    if not vectors:
        return entry
    scores = np.stack(vectors) @ entry.vector
    best = int(scores.argmax())
    return replace(entry, vector=vectors[best]) if scores[best] >= SAME_PICTURE else entry


class Outcome(Enum):
    """What became of a picture: its vector is new, was there already, the picture was there already, or another's."""

    ADDED = "added"
    KNOWN = "known"
    DUPLICATE = "duplicate"
    ANOTHERS = "another's"
    NOTHING = "nothing"


ANOTHERS_PICTURE = "the same picture is of somebody else already"
"""What is wrong with a picture whose outcome is ANOTHERS."""


@dataclass(frozen=True, slots=True)
class State:
    """What tells copies of the vectors whether they are stale.

    generation: grows with every change. revision: grows with every change but the adding of people and embeddings, so
    that a copy of an older generation but of this revision lacks only the rows with greater numbers than its own.
    replaced: how often another file has taken the place of the one that was read; both may have gone back then.
    """

    generation: int
    revision: int
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class VectorRow:
    """Number of an embedding, number of its identity, (D,) little-endian float32 bytes."""

    number: int
    identity: int
    vector: bytes


class Store(Protocol):
    """Records of one gallery. Names and vectors come in checked. One thread at a time.

    Every method raises StoreUnavailableError where the store cannot be used now, GalleryError where it is damaged, or a
    person or number is not there. What a changing method has done is on disk when it returns.
    """

    binding: Binding
    identifier: bytes
    """16 random bytes that no other gallery has."""

    private: bool
    """Whether nothing of it may stand in the clear on disk, so that copies of the vectors stay in memory."""

    address: str
    """Where it is, for people."""

    def reading(self) -> AbstractContextManager[None]:
        """One consistent view for all reads of the block."""

    def state(self) -> State:
        """Generation and revision as they are now."""

    def add(self, entries: Sequence[NewEntry]) -> int:
        """Adds all or none, to people new or known; gives how many vectors say what was not known yet.

        Negatives are of people who are known. The last word counts: a vector of a person that comes as a negative of
        theirs becomes one, and the other way round. A picture is known by its content, whichever engine saw it.
        """

    def add_pictures(self, pictures: Sequence[Picture]) -> list[Outcome]:
        """Adds what the pictures gave, and remembers files and contents in the same step: no picture counts twice."""

    def seen(self, files: Sequence[bytes]) -> list[bool]:
        """Whether each file was given to `add_pictures` before. Those of a forgotten person were not."""

    def problems(self, files: Sequence[bytes]) -> dict[bytes, str]:
        """What was wrong with those of the files seen before that gave nothing."""

    def identities(self) -> list[Identity]:
        """Everybody, by name."""

    def entries(self, name: str | None = None) -> list[Entry]:
        """The embeddings and negatives of one person, or of all, by name and number."""

    def rename(self, old: str, new: str) -> None:
        """Refused where `new` is somebody else."""

    def merge(self, source: str, target: str) -> int:
        """Moves all of `source` to `target` and drops `source`; gives how many embeddings moved."""

    def forget(self, name: str) -> int:
        """Deletes a person; gives how many embeddings and negatives went with them. `erase` is to follow."""

    def remove(self, number: int) -> None:
        """Deletes one embedding or negative. `erase` is to follow."""

    def erase(self) -> None:
        """Takes what was deleted out of the files as well; refused where others hold on to them."""

    def erasing(self) -> bool:
        """Whether something was deleted and has not been erased yet."""

    def names(self, after: int = 0) -> dict[int, str]:
        """Name by number of every identity with a number greater than `after`."""

    def count(self) -> int:
        """Embeddings, without negatives."""

    def vectors(self, after: int = 0) -> Iterator[VectorRow]:
        """Embeddings with a number greater than `after`, without negatives, those of an identity together."""

    def negatives(self) -> list[VectorRow]:
        """Every negative."""

    def close(self) -> None:
        """Calling it again does nothing."""
