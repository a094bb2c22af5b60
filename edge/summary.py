"""What a run came to: frames, faces, who was seen how long, what each stage cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from edge.sources import SourceCounts
from edge.statistics import Latencies
from edge.types import FrameResult

MAX_GAP = 1.0
"""Seconds: a person not seen for longer was away, and the gap is not counted as seen."""


@dataclass(slots=True)
class Sighting:
    """One person: frames seen in, seconds in view, first and last time (as the frames have it), best similarity."""

    frames: int
    seconds: float
    first: float
    last: float
    best: float


class Summary:
    """Filled frame by frame; its size depends on the number of people and stages, not on the length of the run."""

    def __init__(self) -> None:
        self.frames = 0
        self.faces = 0
        self.unknown = 0
        self.tracks = 0
        self.people: dict[str, Sighting] = {}
        self.stages: dict[str, Latencies] = {}
        self._started = time.monotonic()
        self._cpu_started = time.process_time()

    def add_stage(self, stage: str, milliseconds: float) -> None:
        """Counts what a stage took beside those in a result's latencies."""
        self.stages.setdefault(stage, Latencies()).add(milliseconds)

    def add(self, result: FrameResult) -> None:
        """Counts one frame."""
        self.frames += 1
        self.faces += len(result.decisions)
        for stage, value in result.latency_ms.items():
            self.add_stage(stage, value)
        for decision in result.decisions:
            name = decision.match.identity
            if decision.track is not None:
                self.tracks = max(self.tracks, decision.track.number)
            if name is None:
                self.unknown += decision.track is None or decision.track.state != "pending"
                continue
            moment, similarity = decision.time, decision.match.similarity
            seen = self.people.setdefault(name, Sighting(0, 0.0, moment, moment, similarity))
            away = moment - seen.last
            seen.seconds += away if 0 < away <= MAX_GAP else 0.0
            seen.frames += 1
            seen.last = moment
            seen.best = max(seen.best, similarity)

    def to_dict(self, counts: SourceCounts) -> dict[str, Any]:
        """JSON-ready. `cpu_ms_a_frame` is of the whole process, decoding and sinks included."""
        seconds = time.monotonic() - self._started
        frames = max(1, self.frames)
        return {
            "frames": self.frames,
            "faces": self.faces,
            "unknown_faces": self.unknown,
            "tracks": self.tracks,
            "seconds": round(seconds, 3),
            "frames_a_second": round(self.frames / seconds, 2) if seconds > 0 else 0.0,
            "cpu_ms_a_frame": round(1000 * (time.process_time() - self._cpu_started) / frames, 3),
            "captured": counts.frames,
            "dropped": counts.dropped,
            "corrupt": counts.corrupt,
            "reconnects": counts.reconnects,
            "people": {
                name: {
                    "frames": seen.frames,
                    "seconds": round(seen.seconds, 3),
                    "first": round(seen.first, 3),
                    "last": round(seen.last, 3),
                    "best_similarity": round(seen.best, 4),
                }
                for name, seen in sorted(self.people.items())
            },
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
        f"dropped {summary['dropped']}, corrupt {summary['corrupt']}, reconnects {summary['reconnects']}"
    ]
    lines += [
        f"  {name}: {seen['seconds']:.1f} s in {seen['frames']} frames, from {_clock(seen['first'])} "
        f"to {_clock(seen['last'])}, best similarity {seen['best_similarity']:.2f}"
        for name, seen in summary["people"].items()
    ]
    if not summary["people"]:
        lines.append("  nobody known was seen")
    if summary["stages_ms"]:
        stages = ", ".join(
            f"{stage} {value['p50']:.1f} / {value['p95']:.1f}" for stage, value in summary["stages_ms"].items()
        )
        lines.append(f"  ms a frame, p50 / p95: {stages}")
    return "\n".join(lines)


def _clock(moment: float) -> str:
    """Seconds of a file as they are; a moment since the epoch as local date and time."""
    if moment < 1e8:
        return f"{moment:.2f} s"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
