"""Who was seen and is nobody known: kept in memory for a while, so that somebody may say who it was."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from edge.align import align
from edge.live.people import REST
from edge.live.portraits import BETTER, Portrait, cut, rank_of
from edge.quality import Quality, measure
from edge.types import Decision, Image

MOST = 48
"""Strangers kept; beyond, whoever was not seen for longest goes."""

FORGOTTEN_AFTER = 30 * 60.0
"""Seconds after which a stranger who did not come back is gone."""

LOOKS = 4
"""Crops kept of one stranger, the best ones: what an enrolment takes."""

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Look:
    """An aligned crop (112, 112, 3), its quality, and where from: source and time as the frame has it."""

    crop: Image
    quality: Quality
    where: str


@dataclass(frozen=True, slots=True)
class Stranger:
    """number: of this run. first, last: seconds since the epoch. nearest, similarity: who in the gallery came closest,
    None in an empty one.
    """

    number: int
    key: Key
    source: str
    first: float
    last: float
    frames: int
    nearest: str | None
    similarity: float
    portrait: Portrait
    looks: tuple[Look, ...]
    looked: float


class Strangers:
    """Bounded in number, size and time; for one thread at a time.

    A tracked stranger is one entry a track. Where frames are decided on alone, each face is one, and no more than one
    in REST seconds is taken of a source.
    """

    def __init__(self) -> None:
        self._by_key: OrderedDict[Key, Stranger] = OrderedDict()
        self._next = 1
        self._untracked: dict[str, float] = {}

    def see(self, decision: Decision, image: Image, now: float) -> None:
        """One more frame of somebody unknown."""
        if decision.track is None:
            if now - self._untracked.get(decision.source, -REST) < REST:
                return
            self._untracked[decision.source] = now
            key = decision.source, -self._next
        else:
            key = decision.source, decision.track.number
        before = self._by_key.get(key)
        stranger = self._new(key, decision, image, now) if before is None else _seen_again(before, decision, image, now)
        self._by_key[key] = stranger
        self._by_key.move_to_end(key)
        if len(self._by_key) > MOST:
            self._by_key.popitem(last=False)

    def named(self, decision: Decision) -> None:
        """A face has a name now: its track is no stranger's any more."""
        if decision.track is not None:
            self._by_key.pop((decision.source, decision.track.number), None)

    def all(self, now: float) -> list[Stranger]:
        """Last seen first; those who are to be forgotten by now are."""
        for key, stranger in [*self._by_key.items()]:
            if now - stranger.last > FORGOTTEN_AFTER:
                del self._by_key[key]
        return [*reversed(self._by_key.values())]

    def get(self, number: int) -> Stranger | None:
        """None for one who is gone."""
        return next((stranger for stranger in self._by_key.values() if stranger.number == number), None)

    def number_of(self, source: str, track: int) -> int | None:
        """The number of the stranger whom a track shows."""
        stranger = self._by_key.get((source, track))
        return None if stranger is None else stranger.number

    def drop(self, number: int) -> bool:
        """Forgets one; whether there was one."""
        stranger = self.get(number)
        return stranger is not None and self._by_key.pop(stranger.key, None) is not None

    def _new(self, key: Key, decision: Decision, image: Image, now: float) -> Stranger:
        self._next += 1
        match = decision.match
        portrait = cut(image, decision.face, rank_of(decision.face))
        looks = (_look(decision, image),)
        seen = (now, now, 1, match.nearest, match.similarity)
        return Stranger(self._next - 1, key, decision.source, *seen, portrait, looks, now)


def _seen_again(before: Stranger, decision: Decision, image: Image, now: float) -> Stranger:
    match = decision.match
    stranger = replace(before, last=now, frames=before.frames + 1, nearest=match.nearest, similarity=match.similarity)
    expected = decision.track is not None and not decision.track.detected
    if expected or now - before.looked < REST:
        return stranger
    rank = rank_of(decision.face)
    portrait = cut(image, decision.face, rank) if rank > BETTER * before.portrait.rank else before.portrait
    looks = sorted((*before.looks, _look(decision, image)), key=lambda look: -look.quality.rank)[:LOOKS]
    return replace(stranger, portrait=portrait, looks=tuple(looks), looked=now)


def _look(decision: Decision, image: Image) -> Look:
    crop = align(image, decision.face.landmarks)
    return Look(crop, measure(decision.face, crop), f"{decision.source} at {decision.time:.2f} s")
