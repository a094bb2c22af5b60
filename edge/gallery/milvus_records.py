"""What a gallery in Milvus consists of: a collection of embeddings, and one of records about them.

    arcedge_GALLERY          a row an embedding or negative, searched by vector, filtered by site
    arcedge_GALLERY_records  the head (version, counters, what is under way), people, sites' digests, numbers that are
                             gone, pictures that bulk indexing has seen, and who writes or waits for it

Every row carries the version of the gallery it came or changed with. Rows above the head's version do not count: their
writer is under way, or was killed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edge.errors import GalleryError
from edge.gallery.binding import Binding
from edge.gallery.digest import as_text, embedding_digest, identity_digest
from edge.gallery.milvus_client import MAX_TEXT, Row
from edge.gallery.place import MilvusPlace
from edge.gallery.store import NewEntry

FORMAT = 1
HEAD, LEASE = "head", "lease"
_SITE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_TEXT = {"datatype": "VARCHAR", "max_length": MAX_TEXT}
_SHORT = {"datatype": "VARCHAR", "max_length": 128}
_NUMBER = {"datatype": "INT64"}

RECORD_FIELDS: dict[str, Row] = {
    "key": {**_SHORT, "is_primary": True},
    "kind": _SHORT,
    "site": _SHORT,
    "number": _NUMBER,
    "version": _NUMBER,
    "value": _TEXT,
    # Milvus has no collection without a vector.
    "nothing": {"datatype": "FLOAT_VECTOR", "dim": 2},
}
_INVERTED = {"index_type": "INVERTED"}
RECORD_INDEXES: dict[str, Row] = {
    "nothing": {"index_type": "FLAT", "metric_type": "L2"},
    # All fields of an expression, or Milvus Lite looks at every row.
    **dict.fromkeys(("kind", "site", "number", "version"), _INVERTED),
}

EMBEDDING_INDEXES: dict[str, Row] = {
    # Exact. HNSW lost the nearest of every seventh probe at 100,000, and more at one site; see docs/central.md.
    "vector": {"index_type": "FLAT", "metric_type": "IP"},
    **dict.fromkeys(("number", "identity", "site", "negative", "version", "replaces"), _INVERTED),
}
SEARCH_PARAMS: Row = {"metric_type": "IP"}


def embedding_fields(size: int) -> dict[str, Row]:
    """Of the collection of embeddings of this length."""
    return {
        "number": {**_NUMBER, "is_primary": True},
        "identity": _NUMBER,
        "site": _SHORT,
        "token": _SHORT,
        "vector": {"datatype": "FLOAT_VECTOR", "dim": size},
        "negative": {"datatype": "BOOL"},
        "source": _TEXT,
        "crop": _TEXT,
        "created": {"datatype": "DOUBLE"},
        "version": _NUMBER,
        "digest": _SHORT,
        # Number of the row this one takes the place of, as the last word on a vector; else 0.
        "replaces": _NUMBER,
    }


@dataclass(frozen=True, slots=True)
class Head:
    """The one row that says what counts. pending: what a change that is under way, or was killed, is about."""

    binding: Binding
    identifier: str
    version: int
    revision: int
    last_identity: int
    last_embedding: int
    digest: str
    pending: dict[str, Any] | None = None

    def to_row(self) -> Row:
        """As it stands in Milvus."""
        fields = {**{name: getattr(self, name) for name in self.__slots__}, "binding": asdict(self.binding)}
        return record(HEAD, HEAD, json.dumps({**fields, "format": FORMAT}))

    @classmethod
    def from_text(cls, text: str, place: MilvusPlace) -> Head:
        """Raises GalleryError where it is none."""
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise GalleryError(f"{place}: was made by another version of arcedge; export it there, import it here")
            return cls(**{**fields, "binding": Binding(**fields["binding"])})
        except (KeyError, TypeError, ValueError) as error:
            raise GalleryError(f"{place}: the gallery's head is damaged ({error}); restore it from a copy") from error


@dataclass(frozen=True, slots=True)
class Person:
    """An identity's record: number, site (empty for none), name within it, seconds since the epoch."""

    number: int
    site: str
    name: str
    created: float

    @property
    def digest(self) -> int:
        """What it adds to the gallery's."""
        return identity_digest(self.number, self.site, self.name, self.created)

    def to_rows(self, version: int) -> list[Row]:
        """As it stands in Milvus: the person by number, and the number by name."""
        value = json.dumps([self.name, self.created])
        numbers = {"number": self.number, "version": version}
        return [
            record(person_key(self.number), "person", value, self.site, **numbers),
            record(name_key(self.site, self.name), "name", "", self.site, **numbers),
        ]

    @classmethod
    def from_row(cls, row: Row) -> Person:
        """Needs number, site and value."""
        name, created = json.loads(row["value"])
        return cls(int(row["number"]), row["site"], name, created)


def record(key: str, kind: str, value: str = "", site: str = "", *, number: int = 0, version: int = 0) -> Row:
    """A row of the collection of records."""
    return {
        "key": key,
        "kind": kind,
        "site": site,
        "number": number,
        "version": version,
        "value": value,
        "nothing": [0.0, 0.0],
    }


def person_key(number: int) -> str:
    """Primary key of an identity's record."""
    return f"person{number}"


def gone_row(kind: str, number: int, site: str, version: int, *, erase: bool) -> Row:
    """Says that an "embedding" or "person" is there no more; erase: copies take it out of their files, too."""
    return record(f"gone{kind}{number}", f"gone {kind}", "erase" if erase else "", site, number=number, version=version)


def site_key(site: str) -> str:
    """Primary key of the record that holds a site's digests."""
    return "site" + hashlib.sha256(site.encode()).hexdigest()


def name_key(site: str, name: str) -> str:
    """Primary key of the record by which a person is found."""
    return "name" + hashlib.sha256(f"{site}\0{name}".encode()).hexdigest()


def picture_key(kind: str, site: str, data: bytes) -> str:
    """Primary key of what says that a picture's "file" or "content" was seen at a site."""
    return "picture" + hashlib.sha256(f"{kind}\0{site}\0".encode() + data).hexdigest()


def embedding_row(entry: NewEntry, person: Person, number: int, version: int, created: float, replaces: int) -> Row:
    """As it stands in Milvus. Raises GalleryError for a crop or source too long for it."""
    vector = entry.vector.astype("<f4").tobytes()
    crop = "" if entry.crop is None else base64.b64encode(entry.crop).decode()
    if len(crop) > MAX_TEXT or len(entry.source.encode()) > MAX_TEXT:
        raise GalleryError(
            f"{entry.source[:100]}: its crop or its source's name is too long for Milvus ({MAX_TEXT} bytes); leave "
            "--keep-crops out"
        )
    row = {
        "number": number,
        "identity": person.number,
        "site": person.site,
        "token": vector_token(entry.vector),
        "vector": np.frombuffer(vector, "<f4"),
        "negative": entry.negative,
        "source": entry.source,
        "crop": crop,
        "created": created,
        "version": version,
        "replaces": replaces,
    }
    return {**row, "digest": row_digest(row)}


def row_digest(row: Row) -> str:
    """Digest of an embedding's row, in hexadecimal."""
    return as_text(
        embedding_digest(
            int(row["number"]),
            int(row["identity"]),
            np.asarray(row["vector"], "<f4").tobytes(),
            row["source"],
            row["created"],
            bool(row["negative"]),
        )
    )


def vector_token(vector: Any) -> str:
    """By which equal vectors of one person are found."""
    return hashlib.sha256(np.asarray(vector, "<f4").tobytes()).hexdigest()


def checked_site(site: str | None, place: MilvusPlace) -> str | None:
    """The site of an address. Raises GalleryError where it is none."""
    if site is not None and not _SITE.fullmatch(site):
        raise GalleryError(f"{place}: {site!r} is no site: up to 100 letters, digits, '.', '_' and '-' are")
    return site


def split_name(name: str) -> tuple[str, str]:
    """Site and name of somebody as a view of all sites calls them: SITE/NAME, or NAME for one of no site."""
    site, slash, rest = name.partition("/")
    return (site, rest) if slash and rest and _SITE.fullmatch(site) else ("", name)


def joined_name(site: str, name: str) -> str:
    """The reverse of `split_name`."""
    return f"{site}/{name}" if site else name
