"""Where the camera leaves what the page shows: the newest result of each source, counts, people and strangers."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge.draw import is_pending
from edge.live.people import People, Person
from edge.live.strangers import Stranger, Strangers
from edge.types import Decision, FrameResult, TrackState

STATES: tuple[TrackState, ...] = ("known", "unknown", "pending")


@dataclass(slots=True)
class SourceBoard:
    """One source. newest: its last result, None before the first; version: how many there were; at: monotonic seconds
    of the last, or of the start. decisions: faces so far, by what was decided.
    """

    at: float
    newest: FrameResult | None = None
    version: int = 0
    decisions: dict[TrackState, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))


class Board:
    """A sink that keeps the newest, so that nobody who looks makes the camera wait. Its readers are other threads."""

    def __init__(
        self,
        sources: Sequence[str],
        threshold: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """sources: their names. threshold: cosine from which two faces are one person.

        run: tells this run from earlier and later ones at the same address, in which numbers begin anew.
        now: seconds of a clock that nobody sets, also in a replay: the page's times are worked out when it is shown.
        """
        self.run = secrets.token_hex(4)
        self.now = now
        self._lock = threading.Lock()
        self._people = People()
        self._strangers = Strangers(threshold)
        self.sources = {name: SourceBoard(now()) for name in sources}
        self.ended = False

    def write(self, result: FrameResult) -> None:
        now = self.now()
        with self._lock:
            self._strangers.forget_old(now)
            board = self.sources[result.frame.source]
            board.newest, board.version, board.at = result, board.version + 1, now
            tracks = [decision.track.number for decision in result.decisions if decision.track is not None]
            for decision in result.decisions:
                state = state_of(decision)
                board.decisions[state] += 1
                if decision.match.identity is not None:
                    self._strangers.named(decision)
                    self._people.see(decision, result.frame, now)
                elif state == "unknown":
                    self._strangers.see(decision, result.frame, now, tracks)

    def close(self) -> None:
        self.ended = True

    def age(self, source: str) -> float:
        """Seconds since a source's last result, or since the start where there was none."""
        return max(0.0, self.now() - self.sources[source].at)

    def gallery_is(self, names: Sequence[str]) -> None:
        """Who is in the gallery from now on; who is not any more is forgotten here too."""
        with self._lock:
            self._people.keep(names)
            self._strangers.keep(names)

    def decisions(self, source: str) -> dict[TrackState, int]:
        """Faces of a source so far, by what was decided."""
        with self._lock:
            return dict(self.sources[source].decisions)

    def people(self) -> list[Person]:
        """Everybody named, last seen first."""
        with self._lock:
            return self._people.all()

    def person(self, name: str) -> Person | None:
        """Somebody who was seen."""
        with self._lock:
            return self._people.get(name)

    def strangers(self) -> list[Stranger]:
        """Those not yet forgotten, last seen first."""
        with self._lock:
            self._strangers.forget_old(self.now())
            return self._strangers.all()

    def stranger(self, number: int) -> Stranger | None:
        """One of them."""
        with self._lock:
            self._strangers.forget_old(self.now())
            return self._strangers.get(number)

    def stranger_of(self, decision: Decision) -> int | None:
        """The number of the stranger a decision is about; None where it is about none."""
        if decision.track is None:
            return None
        with self._lock:
            return self._strangers.number_of(decision.source, decision.track.number)

    def drop_stranger(self, number: int) -> bool:
        """Forgets a stranger; whether there was one."""
        with self._lock:
            return self._strangers.drop(number)


def state_of(decision: Decision) -> TrackState:
    """What was decided: of the track, or of the frame alone where the stream is not tracked."""
    if decision.match.identity is not None:
        return "known"
    return "pending" if is_pending(decision) else "unknown"
