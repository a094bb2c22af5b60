"""Detection and embedding on workers; sources, linking, matching and sinks in the caller's thread, turn by turn."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field

from edge.analyze import Analyzer
from edge.clock import SYSTEM_CLOCK, Clock
from edge.errors import EdgeError, EngineError
from edge.gallery import Snapshot
from edge.matching import matches_of
from edge.pipeline.guards import LastingSink, LastSnapshot
from edge.pipeline.job import Detection, Job, Recognition, Stopwatch, embed
from edge.pipeline.stream import Lane, Stream
from edge.pipeline.workers import Line, Workers
from edge.sinks import Sink
from edge.sources import Source
from edge.summary import Summary
from edge.tracking import Pacing, Tracker
from edge.types import Decision, FrameResult, Match, TrackView

_IDLE_SECONDS = 0.1
"""A signal handler cannot wake the thread it interrupted: nothing is waited for longer."""

_HEALTHY = 100
"""Frames without an engine error after which the next one is worth a line in the log."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """late_seconds: a live frame whose turn comes later after its arrival is dropped, as others wait behind it.

    max_failures: frames in a row on which an engine may fail; the next one ends the run.
    """

    late_seconds: float = 1.0
    max_failures: int = 25


@dataclass(slots=True)
class Pipeline:
    """One set of models for any number of sources.

    analyzers: one a worker. gallery: gives the snapshot to match against, asked once a frame, so that who is enrolled
    meanwhile is known. threshold: cosine from which a face has a name. sinks: take the results of all sources, those of
    one source in order. tracker, search_every: of the source given to `run`. recognise: analyzers look for faces in the
    gallery themselves, as a `Recogniser` does.
    """

    analyzers: Sequence[Analyzer]
    gallery: Callable[[], Snapshot]
    threshold: float
    sinks: Sequence[Sink] = ()
    tracker: Tracker | None = None
    search_every: int = 1
    recognise: bool = False
    summary: Summary = field(default_factory=Summary)
    options: PipelineOptions = PipelineOptions()
    clock: Clock = SYSTEM_CLOCK
    _lanes: list[Lane] = field(default_factory=list, init=False, repr=False)

    @property
    def under_way(self) -> dict[str, int]:
        """Frames taken of each source and not finished yet; from any thread."""
        return {lane.stream.source.name: lane.under_way for lane in self._lanes}

    def run(self, source: Source, max_frames: int | None = None) -> Summary:
        """Every frame of one source, see `run_streams`."""
        return self.run_streams([Stream(source, self.tracker, self.search_every)], max_frames)

    def run_streams(self, streams: Sequence[Stream], max_frames: int | None = None) -> Summary:
        """Every frame of each source into the sinks, which are closed in the end, whatever happens.

        A source ends by itself, after `max_frames`, or once its `stop` was called; what is under way is finished. One
        that fails ends alone, noted in the summary; its error is raised where no source came to a good end. Raises
        EngineError where an engine fails time and again, a sink's EdgeError where it failed on its first result, or,
        with files only, on any.
        """
        wake = threading.Event()
        with ExitStack() as closing:
            for sink in (*self.sinks, *(sink for stream in streams for sink in stream.sinks)):
                closing.callback(sink.close)
            workers = Workers(self.analyzers, wake.set)
            closing.callback(workers.close)
            _Run(self, workers, wake).until_all_end(streams, max_frames)
        return self.summary


class _Run:
    """One run of a pipeline: its turns, and what it has to remember between them."""

    def __init__(self, pipeline: Pipeline, workers: Workers, wake: threading.Event) -> None:
        self._pipeline = pipeline
        self._summary = pipeline.summary
        self._workers = workers
        self._wake = wake
        self._detect = Detection(pipeline.clock, pipeline.options.late_seconds)
        self._recognise = Recognition(pipeline.threshold) if pipeline.recognise else None
        self._snapshot = LastSnapshot(pipeline.gallery)
        self._sinks: dict[str, list[Sink]] = {}
        self._failures = 0
        self._healthy = _HEALTHY
        self._last = -1

    def until_all_end(self, streams: Sequence[Stream], max_frames: int | None) -> None:
        lanes = self._pipeline._lanes = [self._lane(stream) for stream in streams]
        self._sinks = self._sinks_by_source(streams)
        while running := [lane for lane in lanes if not lane.done]:
            # Not `any` of a generator: every lane moves on, and does so before a new frame takes a worker.
            moved = [self._advance(lane) for lane in running]
            if not self._take_in_turn(lanes, max_frames) and not any(moved):
                self._pipeline.clock.wait(self._wake, _IDLE_SECONDS)
                self._wake.clear()
        failed = [lane.error for lane in lanes if lane.error is not None]
        if failed and len(failed) == len(lanes):
            raise failed[0]

    def _lane(self, stream: Stream) -> Lane:
        source, ahead = stream.source, self._workers.ahead
        source.listen(self._wake.set)
        self._summary.of(source.name)
        lines = Line(ahead, eager=source.live), Line(ahead, eager=source.live)
        return Lane(stream, *lines, Pacing(stream.search_every))

    def _sinks_by_source(self, streams: Sequence[Stream]) -> dict[str, list[Sink]]:
        shared = self._lasting(self._pipeline.sinks, any(stream.source.live for stream in streams))
        own = {stream.source.name: self._lasting(stream.sinks, stream.source.live) for stream in streams}
        self._summary.sinks = [*shared, *(sink for sinks in own.values() for sink in sinks)]
        return {name: [*shared, *sinks] for name, sinks in own.items()}

    @staticmethod
    def _lasting(sinks: Sequence[Sink], live: bool) -> list[Sink]:
        """A file's results are wanted whole or not at all; a camera goes on."""
        return [LastingSink(sink) for sink in sinks] if live else [*sinks]

    def _take_in_turn(self, lanes: Sequence[Lane], max_frames: int | None) -> bool:
        """The next frame of each lane, as far as there are workers; whether any took one, or ended.

        The lane after the one that took the last is the first: a single free worker goes round.
        """
        moved = False
        first = self._last + 1
        for place in (*range(first, len(lanes)), *range(first)):
            if not lanes[place].done and self._take(lanes[place], max_frames):
                self._last, moved = place, True
        return moved

    def _take(self, lane: Lane, max_frames: int | None) -> bool:
        """The next frame of a lane, where there is one and a worker for it; whether it was taken, or the lane ended."""
        source = lane.stream.source
        if source.live and (lane.under_way > self._workers.ahead or not self._workers.idle):
            return False  # the frame that is newest when a worker is free will be newer
        if max_frames is not None and lane.taken >= max_frames:
            return self._end(lane)
        started = time.perf_counter()
        try:
            frame = source.poll()
        except EdgeError as error:
            return self._fail(lane, error)
        if frame is None:
            return self._end(lane) if source.ended else False
        lane.taken += 1
        job = Job(frame)
        if not source.live:
            job.laps["read"] = (time.perf_counter() - started) * 1000
        lane.prepare(job)
        lane.detecting.put(self._workers.submit(self._detect, job))
        self._advance(lane)
        return True

    def _end(self, lane: Lane) -> bool:
        self._advance(lane, all_of_them=True)
        lane.done = True
        return True

    def _fail(self, lane: Lane, error: EdgeError) -> bool:
        lane.error = error
        self._summary.of(lane.stream.source.name).error = str(error)
        if len(self._sinks) > 1:
            _LOG.warning("%s; the other sources go on", error)
        return self._end(lane)

    def _advance(self, lane: Lane, *, all_of_them: bool = False) -> bool:
        """Takes frames from stage to stage as far as they are; whether any moved."""
        moved = False
        while (future := lane.detecting.take(all_of_them=all_of_them)) is not None:
            moved = True
            job = self._result(lane, future)
            if job is not None and self._link(lane, job):
                lane.embedding.put(self._embed(job))
            self._finish_ready(lane)
        return self._finish_ready(lane, all_of_them=all_of_them) or moved

    def _embed(self, job: Job) -> Future[Job]:
        if self._recognise is None:
            return self._workers.submit(embed, job)
        # Asked here, so that a search on its way knows everybody who was enrolled before it began.
        job.snapshot = self._snapshot()
        return self._workers.submit(self._recognise, job)

    def _finish_ready(self, lane: Lane, *, all_of_them: bool = False) -> bool:
        moved = False
        while (future := lane.embedding.take(all_of_them=all_of_them)) is not None:
            moved = True
            job = self._result(lane, future)
            if job is not None:
                if job.searched or job.places:
                    self._failures, self._healthy = 0, self._healthy + 1
                self._deliver(lane, self._finish(lane, job))
        return moved

    def _result(self, lane: Lane, future: Future[Job]) -> Job | None:
        """What a worker made of a frame; None where the engine failed on it, which is counted, or it came too late."""
        name = lane.stream.source.name
        try:
            job = future.result()
        except EngineError as error:
            self._failures += 1
            self._summary.of(name).failed += 1
            if self._failures > self._pipeline.options.max_failures:
                raise EngineError(
                    f"{name}: {self._failures} frames in a row failed, the last one so: {error}"
                ) from error
            if self._healthy >= _HEALTHY:
                _LOG.warning("%s: %s; going on with the next frame", name, error)
            self._healthy = 0
            return None
        if job.late:
            self._summary.of(name).late += 1
            return None
        return job

    def _link(self, lane: Lane, job: Job) -> bool:
        """Decides which faces are embedded: all, or those the tracker wants to see. False where the frame is lost."""
        tracker = lane.stream.tracker
        if tracker is None:
            job.places = list(range(len(job.faces)))
            return True
        if not job.searched:
            job.sightings = tracker.coast(job.frame)
            if job.sightings is not None:
                job.faces = [sighting.face for sighting in job.sightings]
                return True
            job.searched = True
            lane.pacing.restart()
            if self._result(lane, self._workers.submit(self._detect, job)) is None:
                return False
        watch = Stopwatch(job)
        job.sightings = tracker.begin(job.frame, job.faces)
        job.places = [place for place, sighting in enumerate(job.sightings) if sighting.embed]
        lane.pacing.saw(tracker.agreement)
        watch.lap("track")
        return True

    def _finish(self, lane: Lane, job: Job) -> FrameResult:
        watch = Stopwatch(job)
        snapshot = self._snapshot() if job.snapshot is None else job.snapshot
        decided = self._decide(lane.stream.tracker, job, snapshot)
        watch.lap("match")
        frame, source = job.frame, job.frame.source
        decisions = tuple(
            Decision(frame.index, frame.time, source, face, found, job.laps, look, track, frame.picture)
            for face, (found, look, track) in zip(job.faces, decided, strict=True)
        )
        return FrameResult(frame, decisions, job.laps)

    def _decide(
        self, tracker: Tracker | None, job: Job, snapshot: Snapshot
    ) -> list[tuple[Match, Match | None, TrackView | None]]:
        vectors, sought = job.vectors, job.sought
        if tracker is None or job.sightings is None:
            matches = matches_of(vectors, sought, snapshot, self._pipeline.threshold)
            return [(found, found, None) for found in matches]
        looks = {}
        if vectors is not None:
            pairs = zip(vectors, job.qualities, strict=True)
            looks = dict(zip(job.places, pairs, strict=True))
        # Another frame may have brought a newer gallery up meanwhile.
        same = sought is not None and sought.snapshot.generation == snapshot.generation
        shortlist = sought.shortlist if sought is not None and same else None
        return [*tracker.finish(job.sightings, looks, snapshot, shortlist)]

    def _deliver(self, lane: Lane, result: FrameResult) -> None:
        name = lane.stream.source.name
        started = time.perf_counter()
        for sink in self._sinks[name]:
            sink.write(result)
        self._summary.add(result, name)
        if self._sinks[name]:
            self._summary.add_stage("sinks", (time.perf_counter() - started) * 1000)
