"""What a run came to: frames, faces, who was seen how long, what each stage cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edge.clock import SYSTEM_CLOCK, Clock
from edge.sinks import Sink, SinkCounts, counts_of, name_of
from edge.sources import SourceCounts
from edge.statistics import Latencies
from edge.types import FrameResult

MAX_GAP = 1.0
"""Seconds: a person not seen for longer was away, and the gap is not counted as seen."""


@dataclass(slots=True)
class Presence:
    """One person: frames seen in, seconds in view, first and last time (as the frames have it), best similarity."""

    frames: int
    seconds: float
    first: float
    last: float
    best: float

    def see(self, moment: float, similarity: float) -> None:
        """Counts one more frame."""
        away = moment - self.last
        self.seconds += away if 0 < away <= MAX_GAP else 0.0
        self.frames += 1
        self.last = moment
        self.best = max(self.best, similarity)

    def joined(self, other: Presence) -> Presence:
        """With what another source saw of the same person."""
        return Presence(
            self.frames + other.frames,
            self.seconds + other.seconds,
            min(self.first, other.first),
            max(self.last, other.last),
            max(self.best, other.best),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "first": round(self.first, 3),
            "last": round(self.last, 3),
            "best_similarity": round(self.best, 4),
        }


@dataclass(slots=True)
class SourceFigures:
    """One source: what came of its frames.

    late: frames whose turn came too late; failed: frames an engine failed on; error: what ended the source early.
    """

    frames: int = 0
    faces: int = 0
    unknown: int = 0
    tracks: int = 0
    late: int = 0
    failed: int = 0
    error: str | None = None
    people: dict[str, Presence] = field(default_factory=dict)

    def add(self, result: FrameResult) -> None:
        """Counts one frame."""
        self.frames += 1
        self.faces += len(result.decisions)
        for decision in result.decisions:
            name = decision.match.identity
            if decision.track is not None:
                self.tracks = max(self.tracks, decision.track.number)
            if name is None:
                self.unknown += decision.track is None or decision.track.state != "pending"
                continue
            moment = decision.time
            seen = self.people.setdefault(name, Presence(0, 0.0, moment, moment, decision.match.similarity))
            seen.see(moment, decision.match.similarity)

    def to_dict(self, counts: SourceCounts) -> dict[str, Any]:
        """JSON-ready, people aside."""
        return {
            "frames": self.frames,
            "faces": self.faces,
            "unknown_faces": self.unknown,
            "tracks": self.tracks,
            "captured": counts.frames,
            "dropped": counts.dropped,
            "late": self.late,
            "corrupt": counts.corrupt,
            "reconnects": counts.reconnects,
            "engine_errors": self.failed,
        }


class Summary:
    """Filled frame by frame; its size depends on the number of people and stages, not on the length of the run."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.sources: dict[str, SourceFigures] = {}
        self.stages: dict[str, Latencies] = {}
        self.sinks: Sequence[Sink] = ()
        self._clock = clock
        self._started = clock.monotonic()
        self._cpu_started = time.process_time()

    @property
    def frames(self) -> int:
        """Of all sources."""
        return sum(figures.frames for figures in self.sources.values())

    @property
    def faces(self) -> int:
        """Of all sources."""
        return sum(figures.faces for figures in self.sources.values())

    @property
    def unknown(self) -> int:
        """Faces of nobody known, where that is decided; of all sources."""
        return sum(figures.unknown for figures in self.sources.values())

    @property
    def people(self) -> dict[str, Presence]:
        """Everybody named, over all sources."""
        together: dict[str, Presence] = {}
        for figures in self.sources.values():
            for name, seen in figures.people.items():
                together[name] = together[name].joined(seen) if name in together else seen
        return together

    @property
    def errors(self) -> dict[str, str]:
        """What ended sources early, by source."""
        return {name: figures.error for name, figures in self.sources.items() if figures.error is not None}

    @property
    def sink_counts(self) -> dict[str, SinkCounts]:
        """What came of the results, by the sinks' names; those of one name together."""
        together: dict[str, SinkCounts] = {}
        for sink in self.sinks:
            name = name_of(sink)
            together[name] = together.get(name, SinkCounts()) + counts_of(sink)
        return together

    def of(self, source: str) -> SourceFigures:
        """One source's figures, from its first mention."""
        return self.sources.setdefault(source, SourceFigures())

    def add_stage(self, stage: str, milliseconds: float) -> None:
        """Counts what a stage took beside those in a result's latencies."""
        self.stages.setdefault(stage, Latencies()).add(milliseconds)

    def add(self, result: FrameResult, source: str | None = None) -> None:
        """Counts one frame, of the source its frame names where no other is."""
        self.of(source or result.frame.source).add(result)
        for stage, value in result.latency_ms.items():
            self.add_stage(stage, value)

    def to_dict(self, counts: Mapping[str, SourceCounts]) -> dict[str, Any]:
        """JSON-ready. `cpu_ms_a_frame` is of the whole process, decoding and sinks included."""
        seconds = self._clock.monotonic() - self._started
        each = {name: self.of(name).to_dict(taken) for name, taken in counts.items()}
        total = {key: sum(figures[key] for figures in each.values()) for key in SourceFigures().to_dict(SourceCounts())}
        return {
            **total,
            "seconds": round(seconds, 3),
            "frames_a_second": round(total["frames"] / seconds, 2) if seconds > 0 else 0.0,
            "cpu_ms_a_frame": round(1000 * (time.process_time() - self._cpu_started) / max(1, total["frames"]), 3),
            "people": {name: seen.to_dict() for name, seen in sorted(self.people.items())},
            "sources": {
                name: {**figures, "error": self.of(name).error, "people": sorted(self.of(name).people)}
                for name, figures in each.items()
            },
            "sinks": {name: asdict(counts) for name, counts in self.sink_counts.items()},
            "stages_ms": {
                stage: {
                    "count": latencies.count,
                    "mean": round(latencies.total / max(1, latencies.count), 3),
                    "p50": round(latencies.quantile(0.5), 3),
                    "p95": round(latencies.quantile(0.95), 3),
                }
                for stage, latencies in self.stages.items()
            },
        }


def as_text(summary: dict[str, Any]) -> str:
    """The same for people, from `Summary.to_dict`."""
    lines = [
        f"{summary['frames']} frames in {summary['seconds']:.1f} s ({summary['frames_a_second']:.1f} a second, "
        f"{summary['cpu_ms_a_frame']:.1f} ms CPU each), {summary['faces']} faces, {summary['unknown_faces']} unknown; "
        + _troubles(summary)
    ]
    if len(summary["sources"]) > 1:
        lines += [f"  {name}: {_of_source(figures)}" for name, figures in summary["sources"].items()]
    lines += [
        f"  {name}: {seen['seconds']:.1f} s in {seen['frames']} frames, from {_clock(seen['first'])} "
        f"to {_clock(seen['last'])}, best similarity {seen['best_similarity']:.2f}"
        for name, seen in summary["people"].items()
    ]
    if not summary["people"]:
        lines.append("  nobody known was seen")
    lines += [f"  {name}: {said}" for name, counts in summary["sinks"].items() if (said := _of_sink(counts))]
    if summary["stages_ms"]:
        stages = ", ".join(
            f"{stage} {value['p50']:.1f} / {value['p95']:.1f}" for stage, value in summary["stages_ms"].items()
        )
        lines.append(f"  ms a frame, p50 / p95: {stages}")
    return "\n".join(lines)


def _troubles(figures: dict[str, Any]) -> str:
    """Drops, corrupt frames and reconnects always; what is rarer where there was any."""
    words = f"dropped {figures['dropped']}, corrupt {figures['corrupt']}, reconnects {figures['reconnects']}"
    rare = {"late": "too late", "engine_errors": "lost to engine errors"}
    return words + "".join(f", {figures[key]} {said}" for key, said in rare.items() if figures[key])


def _of_source(figures: dict[str, Any]) -> str:
    seen = ", ".join(figures["people"]) or "nobody known"
    ended = f"; ended early: {figures['error']}" if figures["error"] else ""
    return f"{figures['frames']} frames, {figures['faces']} faces ({seen}); {_troubles(figures)}{ended}"


def _of_sink(counts: dict[str, int]) -> str:
    """What there was of it; empty for a sink that took everything and has nothing to count."""
    words = {
        "lost": "results lost",
        "delivered": "events delivered",
        "waiting": "waiting for the next run",
        "dropped": "dropped for want of room",
        "refused": "refused and set aside",
    }
    return ", ".join(f"{counts[key]} {said}" for key, said in words.items() if counts[key])


def _clock(moment: float) -> str:
    """Seconds of a file as they are; a moment since the epoch as local date and time."""
    if moment < 1e8:
        return f"{moment:.2f} s"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
