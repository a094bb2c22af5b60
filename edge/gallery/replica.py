"""A gallery that is a copy of a centre's, in SQLite: changes gather beside it and count all at once, or not at all.

What is fetched goes into two tables of its own, a part at a time, so that an interrupted pull goes on where it was.
When everything up to a version is there, one transaction brings it into the gallery, works out the digest of what then
stands in the tables, and ends only if it is the centre's.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge.errors import GalleryError
from edge.gallery import schema
from edge.gallery.centre import Centre, Part, Version, shown_name
from edge.gallery.cipher import Key
from edge.gallery.digest import as_text, combined, embedding_digest, identity_digest
from edge.gallery.milvus_records import split_name
from edge.gallery.sqlite import SqliteStore
from edge.gallery.sqlite_file import COPY


class DigestError(GalleryError):
    """What was fetched does not make what the centre has."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a copy is of: the centre's address, its gallery's 16 bytes in hexadecimal, site, version, digest."""

    centre: str
    gallery: str
    site: str | None
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """What was fetched and does not count yet: changes after one version of the centre (0: all of it), up to another.

    goal, last: the version fetching is on its way to, and the number of the last embedding that came; goal is `until`
    where nothing is half fetched. erase: whether something was among it, or is in the copy, that is to be taken out of
    the files.
    """

    after: int
    until: int
    goal: int
    last: int = 0
    erase: bool = False


class ReplicaStore(SqliteStore):
    """A copy that is being brought up to date. Raises GalleryError for a gallery with people of its own.

    path: of a gallery that exists; centre: what it is, or becomes, a copy of.
    """

    def __init__(self, path: Path, centre: Centre, key: Key | None = None) -> None:
        super().__init__(path, key)
        self._site = centre.site
        try:
            self.source = self._source(centre)
        except BaseException:
            self.close()
            raise

    def is_at(self, version: Version) -> bool:
        """Whether it is the centre's gallery of this version already."""
        return self._origin_text() is not None and (self.source.version, self.source.digest) == (
            version.number,
            as_text(version.digest),
        )

    def incoming(self) -> Incoming:
        """How far fetching has come; begins anew where that was for another version of the copy."""
        found = self._meta().get(schema.INCOMING)
        if found is not None:
            incoming = Incoming(**json.loads(found))
            if incoming.after in (0, self.source.version):
                return incoming
        return self.begin(self.source.version)

    def begin(self, after: int) -> Incoming:
        """Forgets what was fetched; changes after this version are to come, or everything after 0."""
        # What was fetched may have been forgotten since.
        incoming = Incoming(
            after, after, after, erase=schema.INCOMING in self._meta() or (after == 0 and self._people() > 0)
        )
        with self._aside():
            schema.make_incoming(self._connection)
            self._set(schema.INCOMING, incoming)
        return incoming

    def aim(self, goal: int) -> None:
        """The parts that come now lead to this version."""
        with self._aside():
            self._set(schema.INCOMING, replace(self.incoming(), goal=goal, last=0))

    def arrive(self) -> None:
        """All parts up to the version aimed at are there."""
        incoming = self.incoming()
        with self._aside():
            self._set(schema.INCOMING, replace(incoming, until=incoming.goal, last=0))

    def stage(self, part: Part) -> None:
        """Keeps a part; it is on disk when this returns. Records of later parts take the place of earlier ones."""
        before = self.incoming()
        seal, token = self._cipher.seal, self._cipher.token
        called = [(person, shown_name(person, self._site)) for person in part.people]
        people = [(p.number, self._names.token(name), seal(name.encode(), "name"), p.created) for p, name in called]
        rows = [
            (
                *(row.number, row.identity, int(row.negative), token(row.vector, "vector")),
                *(seal(row.vector, "vector"), seal(row.source.encode(), "source"), row.created),
            )
            for row in part.embeddings
        ]
        with self._aside():
            erase = before.erase or (part.erase and self._holds(part))
            run = self._connection.executemany
            run("INSERT OR REPLACE INTO incoming_identity (id) VALUES (?)", [(n,) for n in part.gone_people])
            run("INSERT OR REPLACE INTO incoming_embedding (id) VALUES (?)", [(n,) for n in part.gone_embeddings])
            run("INSERT OR REPLACE INTO incoming_identity VALUES (?, ?, ?, ?)", people)
            run("INSERT OR REPLACE INTO incoming_embedding VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._set(schema.INCOMING, replace(before, last=part.last, erase=erase))

    def apply(self, version: Version) -> None:
        """Makes the copy what the centre was at this version. `erase` is to follow where `incoming` says so.

        Raises DigestError where it would be something else; then nothing has changed.
        """
        incoming = self.incoming()
        everything = incoming.after == 0
        source = Origin(self.source.centre, self.source.gallery, self._site, version.number, as_text(version.digest))
        with self._change(copying=True, erasing=incoming.erase) as change:
            change.revised = everything or incoming.erase or self._revises()
            if everything:
                self._connection.execute("DELETE FROM identity")
            before = 0 if everything else int(self.source.digest, 16)
            gone = self._touched()
            try:
                self._bring_in()
            except sqlite3.IntegrityError as error:
                raise self._wrong(str(error)) from error
            digest = combined(before, self._touched(), gone)
            if digest != version.digest:
                raise self._wrong(f"digest {as_text(digest)[:12]}, not {as_text(version.digest)[:12]}")
            self._set(COPY, source)
            schema.drop_incoming(self._connection)
        self.source = source

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """A transaction that changes nothing of the gallery itself, so that nobody has to look at it again."""
        self.require_writable()
        with self._translated("written"), schema.transaction(self._connection):
            yield

    def _source(self, centre: Centre) -> Origin:
        text, now = self._origin_text(), centre.version()
        if text is None:
            if self._people():
                raise GalleryError(f"{self.address}: is a gallery of its own, not a copy; pull into a new directory")
            return Origin(centre.address, now.gallery.hex(), centre.site, 0, as_text(0))
        source = Origin(**json.loads(text))
        if (source.gallery, source.site) != (now.gallery.hex(), centre.site):
            raise GalleryError(
                f"{self.address}: is a copy of {source.centre}, not of {centre.address}; pull into a new directory"
            )
        return Origin(centre.address, source.gallery, source.site, source.version, source.digest)

    def _bring_in(self) -> None:
        run = self._connection.execute
        run("DELETE FROM embedding WHERE id IN (SELECT id FROM incoming_embedding WHERE vector IS NULL)")
        # Two people may have changed names with each other: first nobody has one.
        run(
            "UPDATE identity SET token = randomblob(32) WHERE id IN "
            "(SELECT id FROM incoming_identity WHERE name IS NOT NULL)"
        )
        run(
            "INSERT INTO identity (id, token, name, created) SELECT id, token, name, created FROM incoming_identity "
            "WHERE name IS NOT NULL ON CONFLICT (id) DO UPDATE SET token = excluded.token, name = excluded.name, "
            "created = excluded.created"
        )
        run(
            "INSERT INTO embedding (id, identity, negative, token, vector, source, created) "
            "SELECT id, identity, negative, token, vector, source, created FROM incoming_embedding "
            "WHERE vector IS NOT NULL ON CONFLICT (id) DO UPDATE SET identity = excluded.identity, "
            "negative = excluded.negative, token = excluded.token, vector = excluded.vector, "
            "source = excluded.source, created = excluded.created"
        )
        # Last, as embeddings that moved to somebody else would go with them.
        run("DELETE FROM identity WHERE id IN (SELECT id FROM incoming_identity WHERE name IS NULL)")

    def _revises(self) -> bool:
        """Whether more is coming than people and embeddings with numbers above all that are there."""
        row = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM incoming_embedding WHERE vector IS NULL "
            "OR id <= (SELECT COALESCE(MAX(id), 0) FROM embedding)) "
            "OR EXISTS (SELECT 1 FROM incoming_identity WHERE name IS NULL "
            "OR id <= (SELECT COALESCE(MAX(id), 0) FROM identity))"
        ).fetchone()
        return bool(row[0])

    def _touched(self) -> int:
        """Sum of the digests of the gallery's rows that incoming ones change, make or take away."""
        total = 0
        for number, identity, vector, source, created, negative in self._connection.execute(
            "SELECT id, identity, vector, source, created, negative FROM embedding "
            "WHERE id IN (SELECT id FROM incoming_embedding) "
            "OR identity IN (SELECT id FROM incoming_identity WHERE name IS NULL)"
        ):
            plain = self._cipher.open(vector, "vector")
            text = self._cipher.open(source, "source").decode()
            total += embedding_digest(number, identity, plain, text, created, bool(negative))
        for number, sealed, created in self._connection.execute(
            "SELECT id, name, created FROM identity WHERE id IN (SELECT id FROM incoming_identity)"
        ):
            name = self._names.opened(sealed)
            site, rest = split_name(name) if self._site is None else (self._site, name)
            total += identity_digest(number, site, rest, created)
        return total

    def _holds(self, part: Part) -> bool:
        """Whether the copy, or what was fetched for it, has anything of what is gone."""
        gone = {"identity": part.gone_people, "embedding": part.gone_embeddings}
        return any(self._any(f"{prefix}{table}", gone[table]) for table in gone for prefix in ("", "incoming_"))

    def _any(self, table: str, numbers: Sequence[int]) -> bool:
        query = f"SELECT 1 FROM {table} WHERE id = ?"  # noqa: S608 - of four constants
        return any(self._connection.execute(query, (number,)).fetchone() for number in numbers)

    def _people(self) -> int:
        return int(self._connection.execute("SELECT COUNT(*) FROM identity").fetchone()[0])

    def _set(self, key: str, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(asdict(value))))

    def _wrong(self, reason: str) -> DigestError:
        return DigestError(
            f"{self.address}: what came from {self.source.centre} does not make what it has ({reason}); the copy stays "
            "as it was"
        )
