"""Who is at a source now: from decisions, many a second, to what changed, a few an hour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edge.draw import is_pending
from edge.types import Decision, FrameResult

GONE_AFTER = 5.0
"""Seconds: somebody not seen for longer has left."""

Reason = Literal["gone", "merged", "stalled", "stopped"]
"""Why a visit ended: not seen any more, found to be somebody who is there already, no picture, or the run's end."""

Key = str | int
"""A person's name, or the number of a stranger's track."""

_NO_TRACK = -1


@dataclass(slots=True)
class Visit:
    """One person's stay. since, last: as the frames have it; came, moment: the same on a clock that nobody sets."""

    identity: str | None
    number: str
    since: float
    last: float
    came: float
    moment: float
    best: float


class Visits:
    """The people at one source, by name, and strangers by their tracks, or as one where nobody is tracked.

    Somebody whose track is lost and found again within `gone_after` seconds has stayed. Whoever is not decided on yet
    is not there yet.
    """

    def __init__(self, source: str, number: Callable[[], str], gone_after: float = GONE_AFTER) -> None:
        """number: gives what tells one visit from all others."""
        self._source = source
        self._gone_after = gone_after
        self._number = number
        self._visits: dict[Key, Visit] = {}
        self._keys: dict[int, Key] = {}
        self._changed: float | None = None

    def see(self, result: FrameResult) -> list[dict[str, Any]]:
        """The events of one frame: who `appeared`, about whom the decision `changed`, who `left`."""
        frame = result.frame
        moment = frame.time if frame.arrived is None else frame.arrived
        events = []
        for decision in result.decisions:
            if not is_pending(decision):
                events += self._seen(decision, moment)
        gone = [key for key, visit in self._visits.items() if moment - visit.moment > self._gone_after]
        events += [event for key in gone for event in self._left(key, "gone")]
        if events:
            self._changed = frame.time
        return events

    def end(self, reason: Reason) -> list[dict[str, Any]]:
        """Everybody leaves."""
        self._changed = max((visit.last for visit in self._visits.values()), default=self._changed)
        return [event for key in [*self._visits] for event in self._left(key, reason)]

    def present(self) -> dict[str, Any]:
        """Who is there, JSON-ready. `time` is that of the last change, None before any."""
        names = sorted(visit.identity for visit in self._visits.values() if visit.identity is not None)
        return {
            "source": self._source,
            "people": names,
            "unknown": len(self._visits) - len(names),
            "count": len(self._visits),
            "time": None if self._changed is None else round(self._changed, 3),
        }

    def _seen(self, decision: Decision, moment: float) -> list[dict[str, Any]]:
        track = _NO_TRACK if decision.track is None else decision.track.number
        key = track if decision.match.identity is None else decision.match.identity
        before = key if decision.track is None else self._keys.get(track, key)
        self._keys[track] = key
        events = []
        # Another track may have the name that this one lost.
        if before != key and before in self._visits and before not in self._keys.values():
            if key in self._visits:
                events += self._left(before, "merged")
            else:
                visit = self._visits[key] = self._visits.pop(before)
                visit.identity = decision.match.identity
                events.append(self._event("changed", visit, decision) | {"before": _name(before)})
        if key not in self._visits:
            since = decision.time if decision.track is None else decision.track.since
            came = moment - max(0.0, decision.time - since)
            visit = Visit(decision.match.identity, self._number(), since, decision.time, came, moment, -1.0)
            self._visits[key] = visit
            events.append(self._event("appeared", visit, decision))
        visit = self._visits[key]
        visit.last, visit.moment = decision.time, moment
        visit.best = max(visit.best, decision.match.similarity)
        return events

    def _event(self, kind: str, visit: Visit, decision: Decision) -> dict[str, Any]:
        match = decision.match
        return {
            "type": kind,
            "source": self._source,
            "time": round(decision.time, 4),
            "visit": visit.number,
            "since": round(visit.since, 4),
            "identity": visit.identity,
            "nearest": match.nearest,
            "similarity": None if match.nearest is None else round(match.similarity, 4),
            "threshold": round(match.threshold, 4),
            "frame": decision.frame,
            "box": [round(float(value), 1) for value in decision.face.box],
            "score": round(decision.face.score, 4),
        }

    def _left(self, key: str | int, reason: Reason) -> list[dict[str, Any]]:
        visit = self._visits.pop(key)
        self._keys = {track: kept for track, kept in self._keys.items() if kept != key}
        return [
            {
                "type": "left",
                "source": self._source,
                "time": round(visit.last, 4),
                "visit": visit.number,
                "since": round(visit.since, 4),
                "identity": visit.identity,
                "seconds": round(visit.moment - visit.came, 3),
                "best_similarity": round(visit.best, 4),
                "reason": reason,
            }
        ]


def _name(key: Key) -> str | None:
    return key if isinstance(key, str) else None
