"""The main job: frames in, decisions out, in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

from edge.analyze import FaceAnalyzer
from edge.gallery import Snapshot
from edge.matching import match
from edge.quality import Quality, measure
from edge.sinks import Sink
from edge.sources import Source
from edge.summary import Summary
from edge.tracking import Sighting, Tracker
from edge.types import Decision, Face, Floats, Frame, FrameResult, Match, TrackView

T = TypeVar("T")


@dataclass(slots=True)
class Job:
    """A frame on its way: what was found so far, and milliseconds by stage."""

    frame: Frame
    laps: dict[str, float] = field(default_factory=dict)
    faces: list[Face] = field(default_factory=list)
    sightings: list[Sighting] | None = None
    places: list[int] = field(default_factory=list)
    vectors: Floats | None = None
    qualities: list[Quality] = field(default_factory=list)
    searched: bool = True


class Stopwatch:
    """Milliseconds of one stage after another, into a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Ends `stage`, which began where the one before ended."""
        now = time.perf_counter()
        self._job.laps[stage] = (now - self._last) * 1000
        self._last = now


class Workers:
    """As many threads as analyzers; with one analyzer the caller's own thread, so that nothing waits for anything."""

    def __init__(self, analyzers: Sequence[FaceAnalyzer]) -> None:
        self._free: SimpleQueue[FaceAnalyzer] = SimpleQueue()
        for analyzer in analyzers:
            self._free.put(analyzer)
        self._pool = ThreadPoolExecutor(len(analyzers), "edge") if len(analyzers) > 1 else None
        self.ahead = len(analyzers) if len(analyzers) > 1 else 0
        """Jobs of one stage that may be under way at once."""

    def submit(self, work: Callable[[FaceAnalyzer, Job], Job], job: Job) -> Future[Job]:
        """Runs `work` with an analyzer that nobody else uses meanwhile."""
        if self._pool is not None:
            return self._pool.submit(self._with_analyzer, work, job)
        done: Future[Job] = Future()
        done.set_result(self._with_analyzer(work, job))
        return done

    def close(self) -> None:
        """Waits for what runs, drops what has not begun."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _with_analyzer(self, work: Callable[[FaceAnalyzer, Job], Job], job: Job) -> Job:
        analyzer = self._free.get()
        try:
            return work(analyzer, job)
        finally:
            self._free.put(analyzer)


class Line(Generic[T]):
    """Futures in the order of their frames."""

    def __init__(self, ahead: int, *, eager: bool) -> None:
        self._futures: deque[Future[T]] = deque()
        self._ahead = ahead
        self._eager = eager

    def put(self, future: Future[T]) -> None:
        """Adds the next frame's."""
        self._futures.append(future)

    def take(self, *, all_of_them: bool = False) -> T | None:
        """The first result where it is time: more are under way than may be, or, eagerly, as soon as it is there.

        For files it depends on the count alone, never on which thread was quicker: two runs give the same.
        """
        if not self._futures:
            return None
        if all_of_them or len(self._futures) > self._ahead or (self._eager and self._futures[0].done()):
            return self._futures.popleft().result()
        return None


@dataclass(slots=True)
class Pipeline:
    """Detection and embedding on workers; linking, matching and the sinks in the caller's thread, frame by frame.

    analyzers: one a worker. gallery: gives the snapshot to match against, asked once a frame, so that who is enrolled
    meanwhile is known. threshold: cosine from which a face has a name. tracker: None decides on each frame alone.
    search_every: with a tracker, search only every so many frames while everybody in view is decided on.
    """

    analyzers: Sequence[FaceAnalyzer]
    gallery: Callable[[], Snapshot]
    threshold: float
    sinks: Sequence[Sink] = ()
    tracker: Tracker | None = None
    search_every: int = 1
    summary: Summary = field(default_factory=Summary)

    def run(self, source: Source, max_frames: int | None = None) -> Summary:
        """Every frame of `source` into every sink; the sinks are closed in the end, whatever happens.

        Ends with the source, after `max_frames`, or once `source.stop` was called; what is under way is finished.
        """
        with ExitStack() as closing:
            for sink in self.sinks:
                closing.callback(sink.close)
            workers = Workers(self.analyzers)
            closing.callback(workers.close)
            detecting: Line[Job] = Line(workers.ahead, eager=source.live)
            embedding: Line[Job] = Line(workers.ahead, eager=source.live)
            taken, since_search = 0, self.search_every
            while max_frames is None or taken < max_frames:
                started = time.perf_counter()
                frame = source.read()
                if frame is None:
                    break
                taken += 1
                job = Job(frame)
                if not source.live:
                    job.laps["read"] = (time.perf_counter() - started) * 1000
                since_search += 1
                job.searched = self.tracker is None or since_search >= self.search_every or not self.tracker.settled
                if job.searched:
                    since_search = 0
                detecting.put(workers.submit(detect, job))
                self._advance(workers, detecting, embedding)
            self._advance(workers, detecting, embedding, all_of_them=True)
        return self.summary

    def _advance(
        self, workers: Workers, detecting: Line[Job], embedding: Line[Job], *, all_of_them: bool = False
    ) -> None:
        while (job := detecting.take(all_of_them=all_of_them)) is not None:
            self._link(workers, job)
            embedding.put(workers.submit(embed, job))
            self._finish_ready(embedding)
        self._finish_ready(embedding, all_of_them=all_of_them)

    def _finish_ready(self, embedding: Line[Job], *, all_of_them: bool = False) -> None:
        while (job := embedding.take(all_of_them=all_of_them)) is not None:
            self._deliver(self._finish(job))

    def _link(self, workers: Workers, job: Job) -> None:
        """Decides which faces are embedded: all, or those the tracker wants to look at."""
        if self.tracker is None:
            job.places = list(range(len(job.faces)))
            return
        if not job.searched:
            job.sightings = self.tracker.coast(job.frame)
            if job.sightings is not None:
                job.faces = [sighting.face for sighting in job.sightings]
                return
            job.searched = True
            workers.submit(detect, job).result()
        watch = Stopwatch(job)
        job.sightings = self.tracker.begin(job.frame, job.faces)
        job.places = [place for place, sighting in enumerate(job.sightings) if sighting.embed]
        watch.lap("track")

    def _finish(self, job: Job) -> FrameResult:
        watch = Stopwatch(job)
        snapshot = self.gallery()
        vectors = job.vectors
        decided: list[tuple[Match, Match | None, TrackView | None]]
        if self.tracker is None or job.sightings is None:
            matches = match(snapshot, vectors, self.threshold) if vectors is not None else []
            decided = [(found, found, None) for found in matches]
        else:
            looks = (
                {
                    place: (vector, quality)
                    for place, vector, quality in zip(job.places, vectors, job.qualities, strict=True)
                }
                if vectors is not None
                else {}
            )
            decided = [*self.tracker.finish(job.frame.time, job.sightings, looks, snapshot)]
        watch.lap("match")
        frame = job.frame
        decisions = tuple(
            Decision(frame.index, frame.time, frame.source, face, found, job.laps, look, track)
            for face, (found, look, track) in zip(job.faces, decided, strict=True)
        )
        return FrameResult(frame, decisions, job.laps)

    def _deliver(self, result: FrameResult) -> None:
        started = time.perf_counter()
        for sink in self.sinks:
            sink.write(result)
        self.summary.add(result)
        if self.sinks:
            self.summary.add_stage("sinks", (time.perf_counter() - started) * 1000)


def detect(analyzer: FaceAnalyzer, job: Job) -> Job:
    """Fills in the faces of a frame that is to be searched."""
    if not job.searched:
        return job
    watch = Stopwatch(job)
    job.faces = analyzer.detect(job.frame.image)
    watch.lap("detect")
    return job


def embed(analyzer: FaceAnalyzer, job: Job) -> Job:
    """Aligns and embeds the faces at `job.places`, together; stages that have nothing to do leave no time behind."""
    if not job.places:
        return job
    watch = Stopwatch(job)
    faces = [job.faces[place] for place in job.places]
    crops = analyzer.align(job.frame.image, faces)
    watch.lap("align")
    if job.sightings is not None:
        job.qualities = [measure(face, crop) for face, crop in zip(faces, crops, strict=True)]
        watch.lap("quality")
    job.vectors = analyzer.embed(crops)
    watch.lap("embed")
    return job
