"""Who was seen by name: when first and last, where, and how sure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge.live.portraits import BETTER, Portrait, cut, rank_of
from edge.types import Decision, Frame

MOST = 200
"""People who are remembered; beyond, whoever was not seen for longest is left out."""

REST = 0.4
"""Seconds between two thoughts about a better portrait: a frame must cost next to nothing."""


@dataclass(frozen=True, slots=True)
class Person:
    """first, last: seconds of the board's clock. source, similarity: where and how sure when last seen. best: ever."""

    name: str
    first: float
    last: float
    source: str
    similarity: float
    best: float
    frames: int
    portrait: Portrait
    looked: float


class People:
    """Everybody named in this run, bounded; for one thread at a time."""

    def __init__(self) -> None:
        self._people: OrderedDict[str, Person] = OrderedDict()
        self._names: Sequence[str] | None = None

    def see(self, decision: Decision, frame: Frame, now: float) -> None:
        """Counts one frame of somebody who has a name."""
        name, found = decision.match.identity, decision.match.similarity
        assert name is not None, "a person here has a name"
        before = self._people.get(name)
        if before is None:
            if self._names is not None and name not in self._names:
                return  # a frame that was under way when they were forgotten
            portrait = cut(frame.image, decision.face, rank_of(decision.face))
            person = Person(name, now, now, decision.source, found, found, 1, portrait, now)
            if len(self._people) >= MOST:
                self._people.popitem(last=False)
        else:
            person = replace(
                before,
                last=now,
                source=decision.source,
                similarity=found,
                best=max(before.best, found),
                frames=before.frames + 1,
            )
            if now - before.looked >= REST:
                rank = rank_of(decision.face)
                better = rank > BETTER * before.portrait.rank
                portrait = cut(frame.image, decision.face, rank) if better else before.portrait
                person = replace(person, portrait=portrait, looked=now)
        self._people[name] = person
        self._people.move_to_end(name)

    def keep(self, names: Sequence[str]) -> None:
        """Forgets everybody who is not among the names."""
        self._names = names
        left = {name for name in names if name in self._people}
        for name in [*self._people]:
            if name not in left:
                del self._people[name]

    def all(self) -> list[Person]:
        """Last seen first."""
        return [*reversed(self._people.values())]

    def get(self, name: str) -> Person | None:
        """None for somebody who was not seen."""
        return self._people.get(name)
