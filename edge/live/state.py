"""What the page shows besides the video, as JSON-ready entries."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from edge import __version__
from edge.draw import is_pending
from edge.live.latencies import RecentLatencies
from edge.live.people import Person
from edge.live.strangers import Stranger
from edge.live.watched import Watched
from edge.sources import Source
from edge.types import Decision, FrameResult


@dataclass(slots=True)
class PageState:
    """Makes the entries; for one thread at a time."""

    watched: Watched
    started: float = field(default_factory=time.time)
    _recent: RecentLatencies = field(default_factory=RecentLatencies)

    def entries(self) -> dict[str, Any]:
        """Everything as it is now. Times are seconds since the epoch."""
        watched, now = self.watched, time.time()
        epoch = now - watched.board.now()
        models = watched.models
        stages = self._recent.of(watched.summary().stages, now)
        return {
            "now": round(now, 3),
            "run": watched.board.run,
            "started": round(self.started, 3),
            "ended": watched.board.ended,
            "version": __version__,
            "bundle": {"digest": models.digest, "threshold": round(models.threshold, 4), **models.described},
            "troubles": watched.troubles(),
            "sources": [self._source(source) for source in watched.sources],
            "people": [_person(person, epoch) for person in watched.board.people()],
            "strangers": [_stranger(watched.board.run, stranger, epoch) for stranger in watched.board.strangers()],
            "stages": [
                {
                    "name": stage,
                    "p50": round(latencies.quantile(0.5), 3),
                    "p95": round(latencies.quantile(0.95), 3),
                    "count": latencies.count,
                }
                for stage, latencies in stages.items()
            ],
            "gallery": {
                "identities": watched.gallery.identities,
                "vectors": watched.gallery.vectors,
                "readable": watched.gallery.readable,
            },
            "sinks": [{"name": name, **asdict(counts)} for name, counts in watched.sinks().items()],
        }

    def _source(self, source: Source) -> dict[str, Any]:
        watched, counts = self.watched, source.counts()
        figures = watched.summary().of(source.name)
        newest = watched.board.sources[source.name].newest
        return {
            "name": source.name,
            "state": watched.state_of(source),
            "error": figures.error,
            "live": source.live,
            "size": None if newest is None else [*newest.frame.size[::-1]],
            "age": round(watched.board.age(source.name), 1),
            "frames": figures.frames,
            "captured": counts.frames,
            "dropped": counts.dropped,
            "late": figures.late,
            "corrupt": counts.corrupt,
            "engine_errors": figures.failed,
            "reconnects": counts.reconnects,
            "under_way": watched.under_way().get(source.name, 0),
            "in_view": 0 if newest is None else len(newest.decisions),
        }


def faces_of(watched: Watched, result: FrameResult) -> list[dict[str, Any]]:
    """What is drawn over a frame: boxes as shares of its width and height, who, and how sure."""
    return [_face(watched, result, decision) for decision in result.decisions]


def _face(watched: Watched, result: FrameResult, decision: Decision) -> dict[str, Any]:
    height, width = result.frame.size
    x1, y1, x2, y2 = (float(value) for value in decision.face.box)
    match = decision.match
    state = "known" if match.identity is not None else "pending" if is_pending(decision) else "unknown"
    stranger = watched.board.stranger_of(decision) if state == "unknown" else None
    return {
        "box": [round(x1 / width, 4), round(y1 / height, 4), round((x2 - x1) / width, 4), round((y2 - y1) / height, 4)],
        "state": state,
        "name": match.identity,
        "similarity": None if match.nearest is None else round(match.similarity, 3),
        "stranger": None if stranger is None else _id(watched.board.run, stranger),
    }


def _id(run: str, number: int) -> str:
    """Of a stranger: a number alone may be somebody else's after a restart."""
    return f"{run}-{number}"


def _person(person: Person, epoch: float) -> dict[str, Any]:
    return {
        "name": person.name,
        "first": round(epoch + person.first, 3),
        "last": round(epoch + person.last, 3),
        "source": person.source,
        "similarity": round(person.similarity, 3),
        "best": round(person.best, 3),
        "frames": person.frames,
        "portrait": round(person.portrait.rank),
    }


def _stranger(run: str, stranger: Stranger, epoch: float) -> dict[str, Any]:
    return {
        "id": _id(run, stranger.number),
        "first": round(epoch + stranger.first, 3),
        "last": round(epoch + stranger.last, 3),
        "source": stranger.source,
        "frames": stranger.frames,
        "nearest": stranger.nearest,
        "similarity": None if stranger.nearest is None else round(stranger.similarity, 3),
        "looks": len(stranger.looks),
        "portrait": round(stranger.portrait.rank),
    }
