"""The tracker: links faces to people, says which are worth embedding, and keeps one decision a person.

Two steps a frame, so that embedding can go on elsewhere in between: `begin` links the detections, `finish` takes the
embeddings made and gives the decisions. Both are called in the order of frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.boxes import iou
from edge.gallery import Snapshot
from edge.matching import match, similarity_to
from edge.quality import Quality, frontality
from edge.shortlist import Shortlist
from edge.tracking.evidence import Evidence, EvidenceOptions
from edge.tracking.linking import CutDetector, link
from edge.types import Face, Floats, Frame, Match, TrackView


@dataclass(frozen=True, slots=True)
class TrackerOptions:
    """evidence: how decisions are taken. min_iou: overlap with where a person was expected that continues their track.

    lost_seconds: how long somebody may be out of sight and still be the same track, if the face is as alike as the
    threshold asks. other_share: share of the threshold below which a good face in the same place is somebody else.
    doubts: poor looks of that kind in a row that count as much as a good one. look_seconds: how long a decided track
    goes without being looked at again.
    """

    evidence: EvidenceOptions
    min_iou: float = 0.25
    lost_seconds: float = 2.0
    other_share: float = 0.3
    doubts: int = 3
    look_seconds: float = 0.4


@dataclass(eq=False, slots=True)
class Track:
    """One person in view, or lost from it less than `lost_seconds` ago."""

    number: int
    since: float
    evidence: Evidence
    face: Face
    velocity: Floats
    seen: float
    looked: float = float("-inf")
    looked_size: float = 0.0
    doubts: int = 0
    unlike: bool = False
    """Whether the last look showed a good face that is less like who it is said to be than the threshold asks."""

    def expected(self, moment: float) -> Floats:
        """(4,) box at `moment`, if the person moves on as before; for a quarter of a second at most."""
        return self.face.box + self.velocity * np.float32(min(max(moment - self.seen, 0.0), 0.25))

    def expected_face(self, moment: float) -> Face:
        """The face at `moment`, with its landmarks moved and scaled as the box is."""
        box = self.expected(moment)
        scale = (box[2:] - box[:2]) / np.maximum(self.face.box[2:] - self.face.box[:2], 1e-3)
        return Face(box, box[:2] + (self.face.landmarks - self.face.box[:2]) * scale, self.face.score)

    def follow(self, face: Face, moment: float) -> None:
        """Moves the track to a detection."""
        elapsed = moment - self.seen
        if elapsed > 1e-6:
            # Half old, half new: one frame's jitter must not throw the expectation.
            measured = (face.box - self.face.box) / np.float32(elapsed)
            self.velocity = np.float32(0.5) * (self.velocity + measured)
        self.face, self.seen = face, moment


@dataclass(slots=True)
class Sighting:
    """A face of a frame, the track it continues, whether it should be embedded, and whether it was detected."""

    face: Face
    track: Track
    embed: bool
    detected: bool = True


@dataclass(slots=True)
class _Population:
    """Tracks in view and lost ones."""

    active: list[Track] = field(default_factory=list)
    lost: list[Track] = field(default_factory=list)


class Tracker:
    """Follows the people of one stream. Frames in order; one thread."""

    def __init__(self, options: TrackerOptions) -> None:
        self._options = options
        self._people = _Population()
        self._cuts = CutDetector()
        self._cut = False
        self._next = 1
        self._generation: int | None = None
        self.agreement = 0.0
        """How well the last `begin` agreed with what was expected: the least overlap of a face with it, or 0 where
        somebody came or went."""

    @property
    def settled(self) -> bool:
        """Whether everybody in view is decided on, so that a frame need not be searched."""
        return all(track.evidence.state != "pending" and track.doubts == 0 for track in self._people.active)

    def coast(self, frame: Frame) -> list[Sighting] | None:
        """A sighting for everybody in view where they are expected, without a search; None where the scene was cut.

        After None the frame has to be searched: call `begin`.
        """
        if self._cuts.is_cut(frame.pixels):
            self._cut = True
            return None
        active = self._people.active
        return [Sighting(track.expected_face(frame.time), track, embed=False, detected=False) for track in active]

    def begin(self, frame: Frame, faces: Sequence[Face]) -> list[Sighting]:
        """Links a frame's faces to tracks, new ones where none fits; a sighting for each face, in their order."""
        people, moment = self._people, frame.time
        if self._cut or self._cuts.is_cut(frame.pixels):
            self._cut = False
            people.lost += people.active
            people.active = []
        boxes = np.array([face.box for face in faces], np.float32).reshape(-1, 4)
        expected = np.array([track.expected(moment) for track in people.active], np.float32).reshape(-1, 4)
        overlap = iou(expected, boxes)
        continued = {column: row for row, column in link(overlap, self._options.min_iou)}
        everybody = len(continued) == len(faces) == len(people.active)
        self.agreement = min((float(overlap[r, c]) for c, r in continued.items()), default=1.0) if everybody else 0.0
        sightings = []
        for place, face in enumerate(faces):
            if place in continued:
                track = people.active[continued[place]]
                track.follow(face, moment)
            else:
                track = self._new_track(face, moment)
            sightings.append(Sighting(face, track, self._worth_a_look(track, face, moment)))
        here = [sighting.track for sighting in sightings]
        people.lost += [track for track in people.active if track not in here]
        people.lost = [track for track in people.lost if 0 <= moment - track.seen <= self._options.lost_seconds]
        people.active = here
        return sightings

    def finish(
        self,
        sightings: Sequence[Sighting],
        looks: Mapping[int, tuple[Floats, Quality]],
        gallery: Snapshot,
        shortlist: Shortlist | None = None,
    ) -> list[tuple[Match, Match | None, TrackView]]:
        """Decisions of a frame's sightings: of the track, of this frame alone (None where not embedded), the track.

        looks: (D,) embedding and quality by place in `sightings`. shortlist: what a search of this gallery has found
        for them already.
        """
        if gallery.generation != self._generation:
            # Somebody was enrolled or forgotten: it counts for everybody in view at once.
            self._generation = gallery.generation
            for track in self._people.active:
                track.evidence.judge(gallery)
        for place, (embedding, quality) in looks.items():
            self._look(sightings[place].track, embedding, quality, gallery)
        single = self._frame_matches(looks, gallery, shortlist)
        return [
            (decided, single.get(place), self._view(sighting))
            for place, (sighting, decided) in enumerate(zip(sightings, self._one_to_one(sightings), strict=True))
        ]

    def _look(self, track: Track, embedding: Floats, quality: Quality, gallery: Snapshot) -> None:
        template = track.evidence.template
        if template is None:
            self._find_lost(track, embedding)
        elif float(template @ embedding) < self._options.other_share * self._options.evidence.threshold:
            track.doubts += 1
            if not quality.good and track.doubts < self._options.doubts:
                return  # a face turned away or blurred looks like nobody; it says neither yes nor no
            self._becomes_somebody_else(track)
        track.doubts = 0
        track.evidence.add(embedding, max(0.05, quality.rank))
        track.evidence.judge(gallery)
        name = track.evidence.match.identity
        place = None if name is None else gallery.place_of(name)
        # Not by the track's own template: that comes to be like whoever stands there now.
        track.unlike = (
            place is not None
            and quality.good
            and similarity_to(gallery, place, embedding) < self._options.evidence.threshold
        )

    def _find_lost(self, track: Track, embedding: Floats) -> None:
        """Continues the lost track of the same person, if one is alike enough."""
        best, similarity = None, self._options.evidence.threshold
        for lost in self._people.lost:
            template = lost.evidence.template
            if template is not None and (found := float(template @ embedding)) >= similarity:
                best, similarity = lost, found
        if best is not None:
            self._people.lost.remove(best)
            track.number, track.since = best.number, best.since
            track.evidence.absorb(best.evidence)

    def _becomes_somebody_else(self, track: Track) -> None:
        """The face in this place is of another person: the track begins anew and the former one is lost."""
        former = Track(
            track.number, track.since, track.evidence, track.face, np.zeros(4, np.float32), track.seen, track.looked
        )
        self._people.lost.append(former)
        track.number, track.since = self._number(), track.seen
        track.evidence = Evidence(self._options.evidence)

    def _worth_a_look(self, track: Track, face: Face, moment: float) -> bool:
        """Undecided and doubtful tracks always, others now and then, and when the face is seen much better."""
        size = min(face.width, face.height) * frontality(face.landmarks)
        waited = moment - track.looked
        # Near the threshold a few looks more may settle it, and where somebody else may have stepped into this place.
        rest = self._options.look_seconds / (4 if track.evidence.close or track.unlike else 1)
        due = (
            track.evidence.state == "pending"
            or track.doubts > 0
            or not 0 <= waited < rest
            or size > 1.5 * track.looked_size
        )
        if due:
            track.looked = moment
            track.looked_size = max(size, 0.9 * track.looked_size)
        return due

    def _one_to_one(self, sightings: Sequence[Sighting]) -> list[Match]:
        """The tracks' matches; where two in one frame have one name, the more similar keeps it."""
        holder: dict[str, float] = {}
        for sighting in sightings:
            found = sighting.track.evidence.match
            if found.identity is not None:
                holder[found.identity] = max(holder.get(found.identity, -2.0), found.similarity)
        matches = []
        for sighting in sightings:
            found = sighting.track.evidence.match
            if found.identity is not None and holder.get(found.identity) != found.similarity:
                found = Match(None, found.similarity, found.threshold, found.nearest)
            elif found.identity is not None:
                del holder[found.identity]
            matches.append(found)
        return matches

    def _frame_matches(
        self, looks: Mapping[int, tuple[Floats, Quality]], gallery: Snapshot, shortlist: Shortlist | None
    ) -> dict[int, Match]:
        if not looks:
            return {}
        vectors = np.stack([embedding for embedding, _ in looks.values()])
        return dict(zip(looks, match(gallery, vectors, self._options.evidence.threshold, shortlist), strict=True))

    def _new_track(self, face: Face, moment: float) -> Track:
        evidence = Evidence(self._options.evidence)
        return Track(self._number(), moment, evidence, face, np.zeros(4, np.float32), moment)

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    @staticmethod
    def _view(sighting: Sighting) -> TrackView:
        track = sighting.track
        evidence = track.evidence
        return TrackView(
            track.number, evidence.state, evidence.looks, track.since, sighting.detected, evidence.template
        )
