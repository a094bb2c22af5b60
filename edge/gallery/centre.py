"""What a copy is made from: a gallery with versions, of which the changes between two can be asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edge.gallery.binding import Binding
from edge.gallery.milvus import MilvusStore
from edge.gallery.milvus_change import site_digest
from edge.gallery.milvus_client import Row
from edge.gallery.milvus_records import Person, checked_site, joined_name
from edge.gallery.place import MilvusPlace

PART_ROWS = 4_000
"""Rows fetched before they are kept: what an interruption costs is fetched again."""

_FIELDS = ("number", "identity", "vector", "source", "created", "negative")


@dataclass(frozen=True, slots=True)
class Version:
    """A gallery, or a site's part of it, at one moment: which gallery, how many changes since it began, its digest."""

    gallery: bytes
    number: int
    digest: int


@dataclass(frozen=True, slots=True)
class Copied:
    """An embedding or negative without its crop: numbers of it and of its person, little-endian float32 bytes."""

    number: int
    identity: int
    vector: bytes
    source: str
    created: float
    negative: bool


@dataclass(slots=True)
class Part:
    """Some of what came and went up to a version: people, embeddings, numbers of both that are there no more.

    last: the greatest number of an embedding so far; from there fetching can go on. erase: whether something of it was
    deleted to be forgotten.
    """

    last: int = 0
    people: list[Person] = field(default_factory=list)
    embeddings: list[Copied] = field(default_factory=list)
    gone_people: list[int] = field(default_factory=list)
    gone_embeddings: list[int] = field(default_factory=list)
    erase: bool = False

    def __len__(self) -> int:
        """Records."""
        return len(self.people) + len(self.embeddings) + len(self.gone_people) + len(self.gone_embeddings)


class Centre(Protocol):
    """Raises StoreUnavailableError from every method where it cannot be reached."""

    binding: Binding
    site: str | None
    """The one site it gives; None where it gives all, whose people are then called SITE/NAME."""

    address: str

    def version(self) -> Version:
        """As it is now."""

    def parts(self, after: int, until: int, last: int) -> Iterator[Part]:
        """What has changed after one version up to another: people and all that is gone, then embeddings by number.

        last: fetching was interrupted after the part that ended there; 0: it begins. A record that has changed again
        since, later than `until`, is left out: it comes with its later version.
        """


class MilvusCentre:
    """See `Centre`. A context manager."""

    def __init__(self, place: MilvusPlace) -> None:
        self._store = MilvusStore(place)
        self._tables = self._store.tables
        self.binding = self._store.binding
        self.site = checked_site(place.site, place)
        self.address = str(place)

    def version(self) -> Version:
        head = self._store.settled()
        digest = int(head.digest, 16) if self.site is None else site_digest(self._tables, self.site, head.version)
        return Version(bytes.fromhex(head.identifier), head.version, digest)

    def parts(self, after: int, until: int, last: int) -> Iterator[Part]:
        site = "" if self.site is None else f' and site == "{self.site}"'
        between = f"version > {after} and version <= {until}{site}"
        client = self._tables.client
        if last == 0:
            records = f'kind in ["person", "gone person", "gone embedding"] and {between}'
            fields = ("kind", "number", "site", "value")
            for page in client.pages(self._tables.records, records, fields, PART_ROWS):
                yield _part_of(page)
        embeddings = f"{between} and number > {last}"
        for page in client.pages(self._tables.embeddings, embeddings, _FIELDS, PART_ROWS):
            yield Part(max(row["number"] for row in page), embeddings=[_copied(row) for row in page])

    def __enter__(self) -> MilvusCentre:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()


def shown_name(person: Person, site: str | None) -> str:
    """What a person is called in a copy of one site, or of all."""
    return joined_name(person.site, person.name) if site is None else person.name


def _copied(row: Row) -> Copied:
    vector = np.asarray(row["vector"], "<f4").tobytes()
    return Copied(row["number"], row["identity"], vector, row["source"], row["created"], row["negative"])


def _part_of(records: Iterable[Row]) -> Part:
    part = Part()
    for row in records:
        if row["kind"] == "person":
            part.people.append(Person.from_row(row))
            continue
        (part.gone_people if row["kind"] == "gone person" else part.gone_embeddings).append(row["number"])
        part.erase |= row["value"] == "erase"
    return part
