"""What a change of a gallery in Milvus is made of, so that a kill leaves it done or not done, without transactions.

1. The head says that a change has begun. New rows are written; their version is above the head's, so nobody sees them.
2. The head gets the new version, digest and counters, and what is left to do. It is one row, one write: now it counts.
3. What is left (renaming, moving, deleting) is done, and the head says so. Each step may be repeated without harm.

Whoever writes next finishes a change that was killed after 2, and deletes the rows of one that was killed before.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edge.errors import GalleryError
from edge.gallery.digest import as_text, combined
from edge.gallery.milvus_client import Row
from edge.gallery.milvus_records import (
    Head,
    Person,
    embedding_row,
    name_key,
    picture_key,
    record,
    row_digest,
    site_key,
    vector_token,
)
from edge.gallery.milvus_tables import Tables
from edge.gallery.store import ANOTHERS_PICTURE, NewEntry, Outcome, Picture, as_known

BEGUN = "begun"
"""The head's pending deed during step 1."""

ROW_FIELDS = ("number", "identity", "site", "token", "vector", "negative", "source", "crop", "created", "version")
_OLD_FIELDS = ("number", "identity", "token", "negative", "digest", "version")


@dataclass(slots=True)
class Change:
    """One change before it is carried out: the head it starts from, new rows, what they are by site, what is left then.

    people and pictures: by token and key. came, went: sums of digests by site. left: the deed of step 3.
    """

    head: Head
    people: dict[str, Person] = field(default_factory=dict)
    embeddings: dict[int, Row] = field(default_factory=dict)
    pictures: dict[str, Row] = field(default_factory=dict)
    came: dict[str, int] = field(default_factory=dict)
    went: dict[str, int] = field(default_factory=dict)
    revised: bool = False
    left: dict[str, Any] | None = None

    @property
    def version(self) -> int:
        """Of the gallery once it counts."""
        return self.head.version + 1

    @property
    def idle(self) -> bool:
        """Whether nothing would be different."""
        return not (self.people or self.embeddings or self.pictures or self.left)

    def count_in(self, site: str, digest: int) -> None:
        """A record of this digest comes to a site."""
        self.came[site] = self.came.get(site, 0) + digest

    def count_out(self, site: str, digest: int) -> None:
        """And one goes."""
        self.went[site] = self.went.get(site, 0) + digest

    def next_head(self) -> Head:
        """The head that makes it count."""
        total = combined(int(self.head.digest, 16), sum(self.came.values()), sum(self.went.values()))
        return replace(
            self.head,
            version=self.version,
            revision=self.head.revision + self.revised,
            last_identity=max([self.head.last_identity, *(person.number for person in self.people.values())]),
            last_embedding=max([self.head.last_embedding, *self.embeddings]),
            digest=as_text(total),
            pending=self.left,
        )


class Additions:
    """Puts embeddings and pictures into a change, with what is there already in view."""

    def __init__(self, tables: Tables, change: Change, names: Iterable[tuple[str, str]], now: float) -> None:
        """names: (site, name) of everybody it will be about."""
        self._tables = tables
        self._change = change
        self._now = now
        self._known = tables.people(names, change.head.version)
        numbers = [person.number for person in self._known.values()]
        rows = tables.rows_of(numbers, _OLD_FIELDS, change.head.version)
        self._there = {(row["identity"], row["token"]): row for row in rows}
        self._marks: dict[str, tuple[int, str] | None] = {}
        """Of pictures by key, as they will be: whose, and what was wrong; None where there is none."""

    def person(self, site: str, name: str) -> Person | None:
        """Somebody who is there, or comes with this change."""
        return self._known.get(name_key(site, name))

    def new_person(self, site: str, name: str) -> Person:
        """Somebody who is there now."""
        token = name_key(site, name)
        if token not in self._known:
            number = self._change.head.last_identity + len(self._change.people) + 1
            self._known[token] = self._change.people[token] = Person(number, site, name, self._now)
            self._change.count_in(site, self._known[token].digest)
        return self._known[token]

    def put(self, entry: NewEntry, person: Person) -> bool:
        """Whether the vector says what was not known. The last word counts."""
        if (content := entry.content) is not None:
            kind = "rejected" if entry.negative else "enrolled"
            entry = self._recognised(entry, person, content)
            self._mark(picture_key(kind, person.site, content), person.site, person.number)
        token = vector_token(entry.vector)
        before = self._there.get((person.number, token))
        if before is not None and before["negative"] == entry.negative:
            return False
        number = self._change.head.last_embedding + len(self._change.embeddings) + 1
        replaces = 0
        if before is not None and before["version"] < self._change.version:
            replaces = before["number"]
            self._change.count_out(person.site, int(before["digest"], 16))
            self._change.revised, self._change.left = True, {"deed": "replace"}
        elif before is not None:  # said twice in this very change
            self._change.count_out(person.site, int(before["digest"], 16))
            number, replaces = before["number"], before["replaces"]
        row = embedding_row(entry, person, number, self._change.version, self._now, replaces)
        if before is not None:
            row = self._with_its_past(row, before)
        self._there[person.number, token] = self._change.embeddings[number] = row
        self._change.count_in(person.site, int(row["digest"], 16))
        return True

    def _recognised(self, entry: NewEntry, person: Person, content: bytes) -> NewEntry:
        """Of a picture that the person was given before, with the vector that was kept of it."""
        keys = [picture_key(kind, person.site, content) for kind in ("content", "enrolled", "rejected")]
        if person.number not in self._owners(keys).values():
            return entry
        rows = self._tables.rows_of([person.number], ("number", "vector", "source"), self._change.head.version)
        fresh = (row for row in self._change.embeddings.values() if row["identity"] == person.number)
        return as_known(entry, [(np.asarray(row["vector"], "<f4"), row["source"]) for row in (*rows, *fresh)])

    def _with_its_past(self, row: Row, before: Row) -> Row:
        """A row that changes its sign keeps where it came from."""
        if "crop" not in before:
            (before,) = self._tables.rows_at([before["number"]], ROW_FIELDS)
        kept = {**row, **{name: before[name] for name in ("source", "crop", "created")}}
        return {**kept, "digest": row_digest(kept)}

    def put_pictures(self, pictures: Sequence[tuple[str, str, Picture]], view: str) -> list[Outcome]:
        """Site, name within it and picture, each. view: the site of the view whose files they are."""
        keys = [
            picture_key("content", site, picture.content)
            for site, _, picture in pictures
            if picture.content is not None
        ]
        self._look_up([picture_key("file", view, picture.file) for _, _, picture in pictures])
        seen = self._owners(keys)
        outcomes = []
        for site, name, picture in pictures:
            outcome, owner = self._put_picture(site, name, picture, seen)
            problem = ANOTHERS_PICTURE if outcome is Outcome.ANOTHERS else picture.problem
            self._mark(picture_key("file", view, picture.file), site, owner, problem or "")
            outcomes.append(outcome)
        return outcomes

    def _put_picture(self, site: str, name: str, picture: Picture, seen: dict[str, int]) -> tuple[Outcome, int]:
        """And the number of the person it is of."""
        outcome, owner = Outcome.NOTHING, 0
        if picture.entry is not None and picture.content is not None:
            content = picture_key("content", site, picture.content)
            if content in seen:
                owner = seen[content]
                known = self.person(site, name)
                same = known is not None and known.number == owner
                outcome = Outcome.DUPLICATE if same else Outcome.ANOTHERS
            else:
                person = self.new_person(site, name)
                owner = seen[content] = person.number
                entry = self._recognised(picture.entry, person, picture.content)
                outcome = Outcome.ADDED if self.put(entry, person) else Outcome.KNOWN
                self._mark(content, site, owner)
        return outcome, owner

    def _mark(self, key: str, site: str, owner: int, problem: str = "") -> None:
        """Only where it says something else: it takes the place of what is there, and goes if this writer is killed."""
        self._look_up([key])
        if self._marks[key] != (owner, problem):
            self._marks[key] = owner, problem
            row = record(key, "picture", problem, site, number=owner, version=self._change.version)
            self._change.pictures[key] = row

    def _owners(self, keys: Sequence[str]) -> dict[str, int]:
        """By key, whose the pictures are that are marked."""
        self._look_up(keys)
        return {key: mark[0] for key in keys if (mark := self._marks[key]) is not None}

    def _look_up(self, keys: Sequence[str]) -> None:
        """Reads those marks that were not looked at yet."""
        fresh = [key for key in keys if key not in self._marks]
        self._marks.update(dict.fromkeys(fresh))
        for row in self._tables.client.get(self._tables.records, fresh, ["key", "number", "value"]):
            self._marks[row["key"]] = row["number"], row["value"]


def carry_out(tables: Tables, change: Change, breathe: Callable[[], None]) -> None:
    """Steps 1 to 3. Raises StoreUnavailableError; then it counts or does not, and whoever writes next ends it."""
    head = change.next_head()
    tables.put_head(replace(change.head, pending={"deed": BEGUN}))
    tables.put_embeddings(list(change.embeddings.values()), breathe)
    tables.put_records([row for person in change.people.values() for row in person.to_rows(change.version)])
    tables.put_records(list(change.pictures.values()))
    _put_site_digests(tables, change)
    breathe()
    if tables.head().version != change.head.version:
        raise GalleryError(f"{tables.place}: somebody else wrote at the same time; nothing was changed, try again")
    tables.put_head(head)
    if head.pending is not None:
        finish(tables, head)


def recover(tables: Tables) -> Head:
    """The head, after what a killed writer began was ended: done if it counted, else gone."""
    head = tables.head()
    if head.pending is None:
        return head
    if head.pending["deed"] != BEGUN:
        return finish(tables, head)
    tables.client.delete(tables.embeddings, f"version > {head.version}")
    tables.client.delete(tables.records, f'version > {head.version} and kind in ["person", "name", "picture"]')
    touched = list(tables.client.rows(tables.records, f'kind == "site" and version > {head.version}', ["site"]))
    for row in touched:
        digest = site_digest(tables, row["site"], head.version)
        tables.put_records([_site_row(row["site"], head.version, [(head.version, digest)])])
    head = replace(head, pending=None)
    tables.put_head(head)
    return head


def finish(tables: Tables, head: Head) -> Head:
    """Step 3 of the head's pending change."""
    pending = head.pending or {}
    DEEDS[pending["deed"]](tables, head.version, pending)
    done = replace(head, pending=None)
    tables.put_head(done)
    return done


def plan_merge(rows: Iterable[Row], source: Person, target: Person) -> tuple[list[Row], list[Row]]:
    """Rows of both → those that move, as they will be, and those that go.

    Where one of the two said of a picture that it is not them, and the other that it is, it is.
    """
    every = list(rows)
    positive = {row["token"] for row in every if not row["negative"]}
    dropped = [row for row in every if row["negative"] and row["token"] in positive]
    stays = [row for row in every if not (row["negative"] and row["token"] in positive)]
    there = {row["token"] for row in stays if row["identity"] == target.number}
    moved = []
    for row in stays:
        if row["identity"] == source.number and row["token"] in there:
            dropped.append(row)
        elif row["identity"] == source.number:
            moving = {**row, "identity": target.number}
            moved.append({**moving, "digest": row_digest(moving), "replaces": 0})
    return moved, dropped


def _put_site_digests(tables: Tables, change: Change) -> None:
    """The digests of the sites it touches: of this version and of the one before, as the head decides which counts."""
    rows = []
    for site in sorted(change.came.keys() | change.went.keys()):
        before = site_digest(tables, site, change.head.version)
        after = combined(before, change.came.get(site, 0), change.went.get(site, 0))
        rows.append(_site_row(site, change.version, [(change.head.version, before), (change.version, after)]))
    tables.put_records(rows)


def _site_row(site: str, version: int, digests: Sequence[tuple[int, int]]) -> Row:
    value = " ".join(f"{number}:{as_text(digest)}" for number, digest in digests)
    return record(site_key(site), "site", value, site, version=version)


def site_digest(tables: Tables, site: str, version: int) -> int:
    """Of what a site had at a version of the gallery that is not older than the last but one that touched it."""
    rows = tables.client.get(tables.records, [site_key(site)], ["value"])
    pairs = [pair.split(":") for pair in rows[0]["value"].split()] if rows else []
    fitting = [digest for number, digest in pairs if int(number) <= version]
    return int(fitting[-1], 16) if fitting else 0


def _rename(tables: Tables, version: int, pending: dict[str, Any]) -> None:
    person, before = Person(*pending["person"]), Person(*pending["before"])
    tables.put_records(person.to_rows(version))
    tables.client.delete_keys(tables.records, [name_key(before.site, before.name)])


def _merge(tables: Tables, version: int, pending: dict[str, Any]) -> None:
    source, target = (Person(*pending[which]) for which in ("source", "target"))
    moved, dropped = plan_merge(tables.rows_of([source.number, target.number], ROW_FIELDS, version), source, target)
    tables.put_embeddings([{**row, "version": version} for row in moved])
    tables.delete_embeddings(dropped, version, erase=False)
    for row in tables.client.rows(
        tables.records, f'kind == "picture" and number == {source.number}', ["key", "site", "version", "value"]
    ):
        marked = record(row["key"], "picture", row["value"], row["site"], number=target.number, version=row["version"])
        tables.put_records([marked])
    tables.delete_person(source, version, erase=False)


def _forget(tables: Tables, version: int, pending: dict[str, Any]) -> None:
    person = Person(*pending["person"])
    tables.delete_embeddings(list(tables.rows_of([person.number], ("number", "site"), version)), version, erase=True)
    tables.delete_person(person, version, erase=True)


def _remove(tables: Tables, version: int, pending: dict[str, Any]) -> None:
    tables.delete_embeddings(tables.rows_at(pending["numbers"], ("number", "site")), version, erase=True)


def _replace(tables: Tables, version: int, pending: dict[str, Any]) -> None:
    fresh = tables.client.rows(tables.embeddings, f"version == {version} and replaces > 0", ["replaces"])
    old = tables.rows_at([row["replaces"] for row in fresh], ("number", "site"))
    tables.delete_embeddings(old, version, erase=False)


DEEDS: dict[str, Callable[[Tables, int, dict[str, Any]], None]] = {
    "rename": _rename,
    "merge": _merge,
    "forget": _forget,
    "remove": _remove,
    "replace": _replace,
}


def decoded_crop(row: Row) -> bytes | None:
    """The PNG of an embedding's row."""
    return base64.b64decode(row["crop"]) or None
