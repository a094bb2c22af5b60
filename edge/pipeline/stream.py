"""One source's way through the pipeline: what it alone has, where all share the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edge.pipeline.job import Job
from edge.pipeline.workers import Line
from edge.sinks import Sink
from edge.sources import Source
from edge.tracking import Pacing, Tracker


@dataclass(slots=True)
class Stream:
    """A source with what decides about its frames.

    tracker: None decides on each frame alone. search_every: with a tracker, search only every so many frames at most
    while everybody in view is decided on and where they were expected. sinks: for this source's results only.
    """

    source: Source
    tracker: Tracker | None = None
    search_every: int = 1
    sinks: Sequence[Sink] = ()


@dataclass(slots=True)
class Lane:
    """A stream while it runs: its frames at each stage, and how far it has come."""

    stream: Stream
    detecting: Line
    embedding: Line
    pacing: Pacing
    taken: int = 0
    done: bool = False
    error: Exception | None = field(default=None)

    @property
    def under_way(self) -> int:
        """Frames taken and not yet finished."""
        return len(self.detecting) + len(self.embedding)

    def prepare(self, job: Job) -> None:
        """Decides whether the frame, the next of this stream, is searched."""
        tracker = self.stream.tracker
        job.searched = tracker is None or self.pacing.due(settled=tracker.settled)
