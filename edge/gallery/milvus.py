"""A gallery in Milvus, for more than one machine: a Milvus Lite file or a server, through the same calls.

A view of one site sees and changes only that site's people; a view of all calls them SITE/NAME.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace

import numpy as np

from edge.errors import GalleryError
from edge.gallery.binding import Binding
from edge.gallery.lease import Lease
from edge.gallery.looking import looking_again
from edge.gallery.milvus_change import (
    BEGUN,
    ROW_FIELDS,
    Additions,
    Change,
    carry_out,
    decoded_crop,
    plan_merge,
    recover,
)
from edge.gallery.milvus_client import Client, Row
from edge.gallery.milvus_records import (
    EMBEDDING_INDEXES,
    HEAD,
    LEASE,
    RECORD_FIELDS,
    RECORD_INDEXES,
    SEARCH_PARAMS,
    Head,
    Person,
    checked_site,
    embedding_fields,
    joined_name,
    picture_key,
    record,
    split_name,
)
from edge.gallery.milvus_tables import Tables
from edge.gallery.place import MilvusPlace
from edge.gallery.store import (
    ChangedMeanwhileError,
    Entry,
    Hit,
    Identity,
    NewEntry,
    Outcome,
    Picture,
    State,
    StoreUnavailableError,
    VectorRow,
)
from edge.types import Floats

BUSY_SECONDS = 5.0
"""What a reader waits for a change to end."""

_writing = threading.RLock()
"""A Milvus Lite file is open in one process only: a lock keeps its writers apart, and no lease is needed."""


class MilvusStore:
    """See `edge.gallery.store.Store`. Raises GalleryError, also where the collection is not a gallery's."""

    private = False

    def __init__(self, place: MilvusPlace, client: Client | None = None) -> None:
        checked_site(place.site, place)
        self.address = str(place)
        self.place = place
        self._client = Client(place) if client is None else client
        try:
            self.tables = Tables(self._client, place)
            head = self.tables.head() if self._client.has(self.tables.records) else None
        except BaseException:
            self._client.close()
            raise
        if head is None:
            self._client.close()
            raise GalleryError(f"{place}: no gallery here; make one with: edge enroll")
        self.binding = head.binding
        self.identifier = bytes.fromhex(head.identifier)
        self._lease = Lease(_LeaseRows(self.tables), self.address)
        self._closed = False

    @classmethod
    def exists(cls, place: MilvusPlace) -> bool:
        """Whether there is a gallery. Raises StoreUnavailableError where nobody answers."""
        client = Client(place)
        try:
            tables = Tables(client, place)
            return client.has(tables.records) and bool(client.get(tables.records, [HEAD], ["key"]))
        finally:
            client.close()

    @classmethod
    def create(cls, place: MilvusPlace, binding: Binding) -> MilvusStore:
        """An empty store. Raises FileExistsError where one is there, GalleryError where none can be made."""
        checked_site(place.site, place)
        if cls.exists(place):
            raise FileExistsError(str(place))
        client = Client(place)
        tables = Tables(client, place)
        try:
            for left in (tables.embeddings, tables.records):
                client.drop(left)
            about = f"arcedge: contract {binding.contract_digest}, model {binding.model} {binding.model_sha256}"
            client.create(tables.embeddings, embedding_fields(binding.embedding_size), EMBEDDING_INDEXES, about)
            client.create(tables.records, RECORD_FIELDS, RECORD_INDEXES, f"{about}; records")
            # The head is what makes it a gallery: it comes last.
            tables.put_head(Head(binding, secrets.token_hex(16), 0, 0, 0, 0, "0" * 64))
        except BaseException:
            client.close()
            raise
        return cls(place, client)

    @contextmanager
    def reading(self) -> Iterator[None]:
        before = self.settled()
        yield
        if self.tables.head().version != before.version:
            raise ChangedMeanwhileError(f"{self.address}: was changed while it was read; try again")

    def state(self) -> State:
        head = self.tables.head()
        return State(head.version, head.revision)

    def add(self, entries: Sequence[NewEntry]) -> int:
        with self._change() as change:
            named = [(*self._local(entry.identity), entry) for entry in entries]
            additions = Additions(self.tables, change, {(site, name) for site, name, _ in named}, time.time())
            for site, name, entry in named:
                if not entry.negative:
                    additions.new_person(site, name)
            added = 0
            for site, name, entry in named:
                person = additions.person(site, name)
                if person is None:
                    raise self._nobody(entry.identity)
                added += additions.put(entry, person)
        return added

    def add_pictures(self, pictures: Sequence[Picture]) -> list[Outcome]:
        with self._change() as change:
            placed = [
                (*(self._local("" if picture.entry is None else picture.entry.identity)), picture)
                for picture in pictures
            ]
            names = {(site, name) for site, name, picture in placed if picture.entry is not None}
            additions = Additions(self.tables, change, names, time.time())
            return additions.put_pictures(placed, self.place.site or "")

    def seen(self, files: Sequence[bytes]) -> list[bool]:
        return [told is not None for told in self._told_of(files)]

    def problems(self, files: Sequence[bytes]) -> dict[bytes, str]:
        return {file: told for file, told in zip(files, self._told_of(files), strict=True) if told}

    def _told_of(self, files: Sequence[bytes]) -> list[str | None]:
        """Of each file what was wrong with it, empty where nothing was; None where it was not seen."""
        keys = [picture_key("file", self.place.site or "", file) for file in files]
        rows = self._client.get(self.tables.records, keys, ["key", "version", "value"])
        version = self.tables.head().version
        there = {row["key"]: str(row["value"]) for row in rows if row["version"] <= version}
        return [there.get(key) for key in keys]

    @looking_again(ChangedMeanwhileError)
    def identities(self) -> list[Identity]:
        with self.reading():
            people = self._people()
            counts = {person.number: [0, 0] for person in people}
            for row in self._rows(("identity", "negative")):
                counts[row["identity"]][row["negative"]] += 1
        listed = [
            Identity(self._shown(person), counts[person.number][0], person.created, counts[person.number][1])
            for person in people
        ]
        return sorted(listed, key=lambda identity: identity.name)

    @looking_again(ChangedMeanwhileError)
    def entries(self, name: str | None = None) -> list[Entry]:
        with self.reading():
            if name is None:
                names = self.names()
                rows = list(self._rows(ROW_FIELDS))
            else:
                person = self._person(name)
                names = {person.number: name}
                rows = list(self.tables.rows_of([person.number], ROW_FIELDS, self.tables.head().version))
        entries = [
            Entry(
                row["number"],
                names[row["identity"]],
                np.asarray(row["vector"], "<f4"),
                row["source"],
                decoded_crop(row),
                row["created"],
                row["negative"],
            )
            for row in rows
        ]
        return sorted(entries, key=lambda entry: (entry.identity, entry.number))

    def rename(self, old: str, new: str) -> None:
        with self._change() as change:
            person = self._person(old)
            site, name = self._local(new)
            if site != person.site:
                raise GalleryError(f"{old!r} and {new!r} are of two sites; nobody moves between sites")
            if (site, name) == (person.site, person.name):
                return
            if self.tables.people([(site, name)], change.head.version):
                raise GalleryError(f"{new!r} is in the gallery already; to make them one: edge gallery merge")
            renamed = replace(person, name=name)
            change.count_out(site, person.digest)
            change.count_in(site, renamed.digest)
            change.revised, change.left = (
                True,
                {"deed": "rename", "person": astuple(renamed), "before": astuple(person)},
            )

    def merge(self, source: str, target: str) -> int:
        with self._change() as change:
            old, new = self._person(source), self._person(target)
            if old == new:
                raise GalleryError(f"{source!r} cannot be merged with itself")
            if old.site != new.site:
                raise GalleryError(f"{source!r} and {target!r} are of two sites; nobody moves between sites")
            rows = list(self.tables.rows_of([old.number, new.number], (*ROW_FIELDS, "digest"), change.head.version))
            moved, dropped = plan_merge(rows, old, new)
            digests = {row["number"]: int(row["digest"], 16) for row in rows}
            for row in moved:
                change.count_in(new.site, int(row["digest"], 16))
            change.count_out(new.site, old.digest + sum(digests[row["number"]] for row in (*moved, *dropped)))
            change.revised = True
            change.left = {"deed": "merge", "source": astuple(old), "target": astuple(new)}
        return sum(not row["negative"] for row in moved)

    def forget(self, name: str) -> int:
        with self._change() as change:
            person = self._person(name)
            rows = list(self.tables.rows_of([person.number], ("digest",), change.head.version))
            change.count_out(person.site, person.digest + sum(int(row["digest"], 16) for row in rows))
            change.revised, change.left = True, {"deed": "forget", "person": astuple(person)}
        return len(rows)

    def remove(self, number: int) -> None:
        with self._change() as change:
            rows = self.tables.rows_at([number], ("digest", "site"))
            if not rows or (self.place.site is not None and rows[0]["site"] != self.place.site):
                raise GalleryError(f"no embedding has number {number}; see: edge gallery show")
            change.count_out(rows[0]["site"], int(rows[0]["digest"], 16))
            change.revised, change.left = True, {"deed": "remove", "numbers": [number]}

    def erase(self) -> None:
        for collection in (self.tables.embeddings, self.tables.records):
            self._client.flush_and_compact(collection)

    def erasing(self) -> bool:
        return False  # Milvus deletes from its files in its own time, and says no more of it

    def names(self, after: int = 0) -> dict[int, str]:
        return {person.number: self._shown(person) for person in self._people(after)}

    def count(self) -> int:
        return self._client.count(self.tables.embeddings, self._where("negative == false"))

    def vectors(self, after: int = 0) -> Iterator[VectorRow]:
        rows = self._rows(("number", "identity", "vector"), "negative == false", f"number > {after}")
        yield from sorted(map(_vector_row, rows), key=lambda row: (row.identity, row.number))

    def negatives(self) -> list[VectorRow]:
        rows = self._rows(("number", "identity", "vector"), "negative == true")
        return sorted(map(_vector_row, rows), key=lambda row: row.number)

    @looking_again(ChangedMeanwhileError)
    def search(self, probes: Floats, limit: int) -> list[list[Hit]]:
        """For each of (F, D) unit probes the `limit` nearest vectors, best first, as Milvus' index finds them.

        The index is exact, unless somebody has put another one in its place.
        """
        with self.reading():
            found = self._client.search(
                self.tables.embeddings,
                probes,
                limit,
                self._where("negative == false"),
                ("number", "identity", "source"),
                SEARCH_PARAMS,
            )
            owners = {hit["entity"]["identity"] for hits in found for hit in hits}
            people = {number: self.tables.person(number) for number in owners}
        return [
            [
                Hit(hit["entity"]["number"], self._shown(person), hit["entity"]["source"], float(hit["distance"]))
                for hit in hits
                if (person := people[hit["entity"]["identity"]]) is not None
            ]
            for hits in found
        ]

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                self._lease.give_back()
            except StoreUnavailableError:
                pass  # it ends by itself
            finally:
                self._client.close()

    @contextmanager
    def _change(self) -> Iterator[Change]:
        """Collects a change in the block, and then carries it out."""
        with _writing:
            if not self.place.embedded:
                self._lease.take()
            change = Change(recover(self.tables))
            yield change
            if not change.idle:
                carry_out(self.tables, change, self._breathe)

    def _breathe(self) -> None:
        if not self.place.embedded:
            self._lease.take()

    def settled(self) -> Head:
        """The head when no change is half done; what a killed writer left is ended first."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            head = self.tables.head()
            if head.pending is None or head.pending["deed"] == BEGUN:
                return head
            if time.monotonic() > deadline or self.place.embedded:
                with self._change():
                    return self.tables.head()
            time.sleep(0.05)

    def _where(self, *conditions: str) -> str:
        site = () if self.place.site is None else (f'site == "{self.place.site}"',)
        return " and ".join((*conditions, *site, f"version <= {self.tables.head().version}"))

    def _rows(self, fields: Sequence[str], *conditions: str) -> Iterator[Row]:
        return self._client.rows(self.tables.embeddings, self._where(*conditions), fields)

    def _people(self, after: int = 0) -> list[Person]:
        where = self._where('kind == "person"', f"number > {after}")
        rows = self._client.rows(self.tables.records, where, ("number", "site", "value"))
        return sorted(map(Person.from_row, rows), key=lambda person: person.number)

    def _person(self, name: str) -> Person:
        found = self.tables.people([self._local(name)], self.tables.head().version)
        if not found:
            raise self._nobody(name)
        return next(iter(found.values()))

    def _nobody(self, name: str) -> GalleryError:
        return GalleryError(f"{self.address}: nobody here is called {name!r}; see: edge gallery list")

    def _local(self, name: str) -> tuple[str, str]:
        """Site and name there."""
        return split_name(name) if self.place.site is None else (self.place.site, name)

    def _shown(self, person: Person) -> str:
        return joined_name(person.site, person.name) if self.place.site is None else person.name


class _LeaseRows:
    """See `edge.gallery.lease.Register`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def read(self) -> dict[str, str]:
        rows = self._tables.client.rows(self._tables.records, f'kind == "{LEASE}"', ["key", "value"])
        return {row["key"].removeprefix(LEASE): row["value"] for row in rows}

    def write(self, name: str, text: str) -> None:
        self._tables.put_records([record(LEASE + name, LEASE, text)])

    def remove(self, names: Iterable[str]) -> None:
        self._tables.client.delete_keys(self._tables.records, [LEASE + name for name in names])


def _vector_row(row: Row) -> VectorRow:
    return VectorRow(row["number"], row["identity"], np.asarray(row["vector"], "<f4").tobytes())
