"""A frame on its way, and the two stages that need the models."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

from edge.analyze import Analyzer, Recogniser
from edge.clock import Clock
from edge.gallery import Snapshot
from edge.quality import Quality, measure
from edge.recognition import Sought
from edge.tracking import Sighting
from edge.types import Face, Floats, Frame


@dataclass(slots=True)
class Job:
    """What was found in a frame so far, and milliseconds by stage.

    searched: the detector is to look at it, or has. late: its turn came so late that it was left out. places: of the
    faces to be embedded, in `faces`; vectors and qualities: theirs. snapshot: the gallery's, where it was asked before
    they were embedded; sought: what was found in one on a GPU, after which there may be no vectors.
    """

    frame: Frame
    laps: dict[str, float] = field(default_factory=dict)
    faces: list[Face] = field(default_factory=list)
    sightings: list[Sighting] | None = None
    places: list[int] = field(default_factory=list)
    vectors: Floats | None = None
    qualities: list[Quality] = field(default_factory=list)
    searched: bool = True
    late: bool = False
    snapshot: Snapshot | None = None
    sought: Sought | None = None


class Stopwatch:
    """Milliseconds of one stage after another, into a job. What a stage costs is real time, whatever clock rules."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Ends `stage`, which began where the one before ended."""
        now = time.perf_counter()
        self._job.laps[stage] = (now - self._last) * 1000
        self._last = now


@dataclass(frozen=True, slots=True)
class Detection:
    """Fills in the faces of a frame that is to be searched; one older than `late_seconds` by now is left out."""

    clock: Clock
    late_seconds: float

    def __call__(self, analyzer: Analyzer, job: Job) -> Job:
        arrived = job.frame.arrived
        if arrived is not None and self.clock.monotonic() - arrived > self.late_seconds:
            job.late = True
        elif job.searched:
            watch = Stopwatch(job)
            job.faces = analyzer.detect(job.frame.pixels)
            watch.lap("detect")
        return job


def embed(analyzer: Analyzer, job: Job) -> Job:
    """Aligns and embeds the faces at `job.places`, together; stages that have nothing to do leave no time behind."""
    if not job.places:
        return job
    watch = Stopwatch(job)
    faces = [job.faces[place] for place in job.places]
    crops = analyzer.align(job.frame.pixels, faces)
    watch.lap("align")
    if job.sightings is not None:
        job.qualities = [measure(face, crop) for face, crop in zip(faces, crops, strict=True)]
        watch.lap("quality")
    job.vectors = analyzer.embed(crops)
    watch.lap("embed")
    return job


@dataclass(frozen=True, slots=True)
class Recognition:
    """As `embed`, by analyzers that look for the faces in a gallery in the same go."""

    threshold: float

    def __call__(self, analyzer: Analyzer, job: Job) -> Job:
        if not job.places:
            return job
        watch = Stopwatch(job)
        faces, tracked = [job.faces[place] for place in job.places], job.sightings is not None
        threshold = None if tracked else self.threshold
        found = cast(Recogniser, analyzer).recognise(job.frame.pixels, faces, threshold)
        job.vectors, job.qualities, job.sought = found.vectors, found.qualities, found.sought
        watch.lap("recognise")
        return job
