"""The main job: frames in, decisions out, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from edge.analyze import FaceAnalyzer
from edge.gallery import Snapshot
from edge.matching import match
from edge.sinks import Sink
from edge.sources import Source
from edge.summary import Summary
from edge.types import Decision, Frame, FrameResult


class Stopwatch:
    """Milliseconds of one stage after another."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Ends `stage`, which began where the one before ended."""
        now = time.perf_counter()
        self.laps[stage] = (now - self._last) * 1000
        self._last = now


def recognise(frame: Frame, analyzer: FaceAnalyzer, gallery: Snapshot, threshold: float) -> FrameResult:
    """Detects, aligns, embeds and matches every face of one frame. Every decision carries the frame's latencies."""
    watch = Stopwatch()
    faces = analyzer.detect(frame.image)
    watch.lap("detect")
    crops = analyzer.align(frame.image, faces)
    watch.lap("align")
    embeddings = analyzer.embed(crops)
    watch.lap("embed")
    matches = match(gallery, embeddings, threshold)
    watch.lap("match")
    decisions = tuple(
        Decision(frame.index, frame.time, frame.source, face, found, watch.laps)
        for face, found in zip(faces, matches, strict=True)
    )
    return FrameResult(frame, decisions, watch.laps)


def run(
    source: Source,
    analyzer: FaceAnalyzer,
    gallery: Callable[[], Snapshot],
    threshold: float,
    sinks: Sequence[Sink] = (),
    max_frames: int | None = None,
) -> Summary:
    """Every frame of `source` through `recognise` into every sink, which are closed in the end whatever happens.

    gallery: gives the snapshot to match against, asked once a frame, so that who is enrolled meanwhile is known.
    Ends with the source, after `max_frames`, or once `source.stop` was called.
    """
    summary = Summary()
    with ExitStack() as closing:
        for sink in sinks:
            closing.callback(sink.close)
        while max_frames is None or summary.frames < max_frames:
            frame = source.read()
            if frame is None:
                break
            result = recognise(frame, analyzer, gallery(), threshold)
            for sink in sinks:
                sink.write(result)
            summary.add(result)
    return summary
