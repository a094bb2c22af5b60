"""What the page and the metrics tell of: one run, read from other threads while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edge.live.board import Board
from edge.live.gallery import WatchedGallery
from edge.sinks import SinkCounts, name_of
from edge.sources import Source
from edge.summary import Summary

STALE_AFTER = 60.0
"""Seconds without a result after which a live source is not well."""

SourceState = Literal["waiting", "running", "stalled", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class Models:
    """digest: SHA-256 of the bundle's manifest, hex. described: detector, embedder, engine and what it runs on."""

    digest: str
    described: Mapping[str, str]
    threshold: float


@dataclass(frozen=True, slots=True)
class Watched:
    """One run. under_way: frames taken and not finished, by source. stale_after: seconds, see STALE_AFTER."""

    sources: Sequence[Source]
    board: Board
    gallery: WatchedGallery
    models: Models
    summary: Callable[[], Summary]
    under_way: Callable[[], Mapping[str, int]] = field(default=dict)
    stale_after: float = STALE_AFTER

    def sinks(self) -> dict[str, SinkCounts]:
        """What came of the results, by the sinks' names; the page itself left out."""
        return {name: counts for name, counts in self.summary().sink_counts.items() if name != name_of(self.board)}

    def state_of(self, source: Source) -> SourceState:
        """How a source is doing."""
        if self.summary().of(source.name).error is not None:
            return "failed"
        if source.ended or self.board.ended:
            return "ended"
        if source.live and self.board.age(source.name) > self.stale_after:
            return "stalled"
        return "running" if self.board.sources[source.name].version else "waiting"

    def troubles(self) -> list[str]:
        """Why the run is not well, a line each: live sources that gave nothing for long, or ended by an error."""
        lines = []
        for source in self.sources:
            state = self.state_of(source)
            if state == "stalled":
                lines.append(f"{source.name}: nothing for {self.board.age(source.name):.0f} s")
            elif state == "failed":
                lines.append(str(self.summary().of(source.name).error))
        return lines
