"""The collections of a gallery in Milvus, read and written in the gallery's terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from edge.errors import GalleryError
from edge.gallery.milvus_client import Client, Row
from edge.gallery.milvus_records import HEAD, Head, Person, gone_row, name_key, person_key
from edge.gallery.place import MilvusPlace

MANY = 400
"""Numbers in one expression."""

_VECTOR_BYTES = 6 << 20
"""About what a message of rows may have, far below the 64 MB a server takes."""


class Tables:
    """The two collections of a gallery, read and written in the gallery's terms. `place.site` is not looked at."""

    def __init__(self, client: Client, place: MilvusPlace) -> None:
        self.client = client
        self.place = place
        self.embeddings = f"arcedge_{place.gallery}"
        self.records = f"arcedge_{place.gallery}_records"

    def head(self) -> Head:
        """Raises GalleryError where there is none."""
        rows = self.client.get(self.records, [HEAD], ["value"])
        if not rows:
            raise GalleryError(f"{self.place}: no gallery here; make one with: edge enroll")
        return Head.from_text(rows[0]["value"], self.place)

    def put_head(self, head: Head) -> None:
        """One write."""
        self.client.upsert(self.records, [head.to_row()])

    def put_embeddings(self, rows: Sequence[Row], breathe: Callable[[], None] = lambda: None) -> None:
        """`breathe` is called between messages."""
        if rows:
            size = len(rows[0]["vector"]) * 4 + max(len(row["crop"]) for row in rows) + 1000
            page = max(1, min(len(rows), _VECTOR_BYTES // size))
            for start in range(0, len(rows), page):
                breathe()
                self.client.upsert(self.embeddings, rows[start : start + page])

    def put_records(self, rows: Sequence[Row]) -> None:
        """Writes records."""
        self.client.upsert(self.records, rows)

    def person(self, number: int) -> Person | None:
        """By number."""
        rows = self.client.get(self.records, [person_key(number)], ["number", "site", "value"])
        return Person.from_row(rows[0]) if rows else None

    def people(self, names: Iterable[tuple[str, str]], version: int) -> dict[str, Person]:
        """Those of these (site, name) who are there at a version, by key of the name."""
        fields = ("key", "number", "version")
        found = self.client.get(self.records, [name_key(*name) for name in names], fields)
        keys = {person_key(row["number"]): row["key"] for row in found if row["version"] <= version}
        rows = self.client.get(self.records, list(keys), ("key", "number", "site", "value"))
        return {keys[row["key"]]: Person.from_row(row) for row in rows}

    def rows_of(self, identities: Sequence[int], fields: Sequence[str], version: int) -> Iterator[Row]:
        """Embeddings and negatives of identities, by number of the identity, at a version."""
        for start in range(0, len(identities), MANY):
            listed = list(identities[start : start + MANY])
            yield from self.client.rows(self.embeddings, f"identity in {listed} and version <= {version}", fields)

    def rows_at(self, numbers: Sequence[int], fields: Sequence[str]) -> list[Row]:
        """Embeddings and negatives of these numbers."""
        return self.client.get(self.embeddings, numbers, fields)

    def delete_embeddings(self, rows: Sequence[Row], version: int, *, erase: bool) -> None:
        """Says that they are gone, then deletes them. Rows need number and site."""
        self.put_records([gone_row("embedding", row["number"], row["site"], version, erase=erase) for row in rows])
        self.client.delete_keys(self.embeddings, [row["number"] for row in rows])

    def delete_person(self, person: Person, version: int, *, erase: bool) -> None:
        """Says that they are gone, then deletes their records and which pictures of theirs were seen."""
        self.put_records([gone_row("person", person.number, person.site, version, erase=erase)])
        self.client.delete(self.records, f'kind == "picture" and number == {person.number}')
        self.client.delete_keys(self.records, [name_key(person.site, person.name), person_key(person.number)])
