"""Who was seen and is nobody known: kept in memory for a while, so that somebody may say who it was."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from edge.align import align
from edge.live.people import REST
from edge.live.portraits import BETTER, Portrait, cut, rank_of
from edge.quality import BLURRED, Quality, measure
from edge.types import Decision, Floats, Frame, Image

MOST = 48
"""Strangers kept; beyond, whoever was not seen for longest goes."""

FORGOTTEN_AFTER = 30 * 60.0
"""Seconds after which a stranger who did not come back is gone."""

LOOKS = 4
"""Crops kept of one stranger, the best ones: what an enrolment takes."""

ALIKE = 0.1
"""How far beyond the threshold two strangers' templates are one person's: means of looks are more alike than looks."""

MOST_TRACKS = 8
"""Tracks of one stranger that are told apart: those in view are among the last."""

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Look:
    """An aligned crop (112, 112, 3), its quality, and where from: source and time as the frame has it."""

    crop: Image
    quality: Quality
    where: str


@dataclass(frozen=True, slots=True)
class Stranger:
    """number: of this run. keys: source and track of each time they came. first, last: seconds of the board's clock.

    nearest, similarity: who in the gallery came closest, None in an empty one. template: (D,) unit mean embedding, None
    where frames are decided on alone. looked: when their picture was last thought about.
    """

    number: int
    keys: tuple[Key, ...]
    source: str
    first: float
    last: float
    frames: int
    nearest: str | None
    similarity: float
    template: Floats | None
    portrait: Portrait
    looks: tuple[Look, ...]
    looked: float


class Strangers:
    """Bounded in number, size and time; for one thread at a time.

    Whoever comes back is the same entry if their face is sharp, and as alike as `threshold` and a little more. Where
    frames are decided on alone, each face is an entry, and no more than one in REST seconds is taken of a source.
    """

    def __init__(self, threshold: float) -> None:
        self._alike = min(threshold + ALIKE, 0.99)
        self._strangers: OrderedDict[int, Stranger] = OrderedDict()
        self._numbers: dict[Key, int] = {}
        self._next = 1
        self._untracked: dict[str, float] = {}

    def see(self, decision: Decision, frame: Frame, now: float, beside: Collection[int] = ()) -> None:
        """One more frame of somebody unknown. beside: the tracks of its source in this frame, each of somebody else."""
        if decision.track is None:
            if now - self._untracked.get(decision.source, -REST) < REST:
                return
            self._untracked[decision.source] = now
            key = decision.source, -self._next
        else:
            key = decision.source, decision.track.number
        stranger = self._entry(key, decision, frame, now, beside)
        if key not in stranger.keys:
            stranger = replace(stranger, keys=(*stranger.keys, key)[-MOST_TRACKS:])
        self._keep(stranger)
        if len(self._strangers) > MOST:
            self.drop(next(iter(self._strangers)))

    def named(self, decision: Decision) -> None:
        """A face has a name now: its track is no stranger's any more."""
        if decision.track is not None:
            number = self.number_of(decision.source, decision.track.number)
            if number is not None:
                self.drop(number)

    def forget_old(self, now: float) -> None:
        """Forgets those who did not come back for FORGOTTEN_AFTER seconds."""
        # In the order they were last seen, so that a frame pays for one look.
        while self._strangers and now - (oldest := next(iter(self._strangers.values()))).last > FORGOTTEN_AFTER:
            self.drop(oldest.number)

    def keep(self, names: Sequence[str]) -> None:
        """Says of nobody any more that they are most like somebody who is not among the names."""
        nearest = {stranger.nearest for stranger in self._strangers.values()}
        left = {name for name in names if name in nearest}
        for number, stranger in [*self._strangers.items()]:
            if stranger.nearest not in left:
                self._strangers[number] = replace(stranger, nearest=None, similarity=0.0)

    def all(self) -> list[Stranger]:
        """Last seen first."""
        return [*reversed(self._strangers.values())]

    def get(self, number: int) -> Stranger | None:
        """None for one who is gone."""
        return self._strangers.get(number)

    def number_of(self, source: str, track: int) -> int | None:
        """The number of the stranger whom a track shows."""
        return self._numbers.get((source, track))

    def drop(self, number: int) -> bool:
        """Forgets one; whether there was one."""
        stranger = self._strangers.pop(number, None)
        if stranger is None:
            return False
        for key in stranger.keys:
            self._numbers.pop(key, None)
        return True

    def _entry(self, key: Key, decision: Decision, frame: Frame, now: float, beside: Collection[int]) -> Stranger:
        """The entry of a face with this frame in it: that of its track, of whom it comes back as, or a new one."""
        if (known := self._known_by(key)) is not None:
            return _seen_again(known, decision, frame, now)
        look = _look(decision, frame)
        if (back := self._come_back(decision, look.quality, beside)) is not None:
            return _seen_again(back, decision, frame, now)
        return self._new(key, decision, frame, look, now)

    def _known_by(self, key: Key) -> Stranger | None:
        number = self._numbers.get(key)
        return None if number is None else self._strangers[number]

    def _come_back(self, decision: Decision, quality: Quality, beside: Collection[int]) -> Stranger | None:
        """The stranger most like a face whose track is new here, if one is alike enough and not seen beside it.

        Nobody for a face that is blurred: templates of such are alike whoever it is, those of a sharp and a blurred one
        are not.
        """
        template = None if decision.track is None else decision.track.template
        if template is None or quality.sharpness < BLURRED:
            return None
        there = {self._numbers.get((decision.source, track)) for track in beside}
        best, similarity = None, self._alike
        for stranger in self._strangers.values():
            if stranger.number in there:
                continue
            if stranger.template is not None and (found := float(stranger.template @ template)) >= similarity:
                best, similarity = stranger, found
        return best

    def _keep(self, stranger: Stranger) -> None:
        before = self._strangers.get(stranger.number)
        if before is not None:
            for key in set(before.keys) - set(stranger.keys):
                self._numbers.pop(key, None)
        for key in stranger.keys:
            self._numbers[key] = stranger.number
        self._strangers[stranger.number] = stranger
        self._strangers.move_to_end(stranger.number)

    def _new(self, key: Key, decision: Decision, frame: Frame, look: Look, now: float) -> Stranger:
        self._next += 1
        return Stranger(
            number=self._next - 1,
            keys=(key,),
            source=decision.source,
            first=now,
            last=now,
            frames=1,
            nearest=decision.match.nearest,
            similarity=decision.match.similarity,
            template=None if decision.track is None else decision.track.template,
            portrait=cut(frame.image, decision.face, rank_of(decision.face)),
            looks=(look,),
            looked=now,
        )


def _seen_again(before: Stranger, decision: Decision, frame: Frame, now: float) -> Stranger:
    match, track = decision.match, decision.track
    stranger = replace(
        before,
        source=decision.source,
        last=now,
        frames=before.frames + 1,
        nearest=match.nearest,
        similarity=match.similarity,
    )
    expected = track is not None and not track.detected
    if expected or now - before.looked < REST:
        return stranger
    rank = rank_of(decision.face)
    portrait = cut(frame.image, decision.face, rank) if rank > BETTER * before.portrait.rank else before.portrait
    looks = sorted((*before.looks, _look(decision, frame)), key=lambda look: -look.quality.rank)[:LOOKS]
    template = before.template if track is None else track.template
    return replace(stranger, template=template, portrait=portrait, looks=tuple(looks), looked=now)


def _look(decision: Decision, frame: Frame) -> Look:
    crop = align(frame.image, decision.face.landmarks)
    return Look(crop, measure(decision.face, crop), f"{decision.source} at {decision.time:.2f} s")
