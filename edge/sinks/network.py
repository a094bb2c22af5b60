"""A sink that tells others what happens, without ever making the camera wait for them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Any, Protocol, runtime_checkable

from edge.sinks.background import Background
from edge.sinks.base import SinkCounts
from edge.sinks.delivery import Delivery, Transport
from edge.sinks.jsonl import event
from edge.sinks.spool import Spool
from edge.sinks.visits import GONE_AFTER, Visits
from edge.types import FrameResult

SPOOL_SECONDS = 3.0
NETWORK_SECONDS = 5.0
"""At the end of a run: three slow receivers are done before systemd, told to wait 30 seconds, loses its patience."""

STALLED_AFTER = 2 * GONE_AFTER


def new_run() -> str:
    """What no other run is called."""
    return secrets.token_hex(4)


class Feed(Enum):
    """What is told: comings and goings, or every face of every frame."""

    VISITS = "visits"
    DECISIONS = "decisions"


@dataclass(frozen=True, slots=True)
class Watched:
    """A source, as far as its events depend on it. moving: its frames follow each other; live: in real time."""

    moving: bool = True
    live: bool = True


@runtime_checkable
class Presence(Protocol):
    """A transport that also says who is there at any time."""

    def show(self, source: str, present: Mapping[str, Any]) -> None:
        """Takes what `Visits.present` gives; from any thread."""


@dataclass(slots=True)
class _Lane:
    """A source's visits. heard: monotonic seconds of its last result."""

    watched: Watched
    visits: Visits
    present: dict[str, Any]
    heard: float = field(default_factory=time.monotonic)


class NetworkSink:
    """Puts events into a spool, from where they are delivered, each step in a thread of its own.

    Of live sources an event is dropped, and counted, where the spool's disk does not keep up; those of files wait.
    """

    def __init__(
        self,
        name: str,
        device: str,
        sources: Mapping[str, Watched],
        spool: Spool,
        transport: Transport,
        feed: Feed = Feed.VISITS,
        run: str | None = None,
    ) -> None:
        """device: what this box is called in the events. The spool is closed in the end.

        run: what visits are numbered after; sinks that are given the same results give them the same numbers.
        """
        self.name = name
        self._device = device
        self._spool = spool
        self._feed = feed
        self._presence = transport if isinstance(transport, Presence) else None
        self._lanes = {}
        run, numbers = run or new_run(), count(1)
        for source, watched in sources.items():
            visits = Visits(source, lambda: f"{run}-{next(numbers)}")
            self._lanes[source] = _Lane(watched, visits, visits.present())
            self._show(self._lanes[source])
        self._lock = threading.Lock()
        self._closed = False
        self._delivery = Delivery(name, spool, transport)
        self._background = Background(name, self._keep, regularly=self._look_for_stalled)

    def write(self, result: FrameResult) -> None:
        lane = self._lanes[result.frame.source]
        with self._lock:
            lane.heard = time.monotonic()
            visits = lane.visits.see(result) if lane.watched.moving else []
            told = visits if self._tells_visits(lane) else self._decisions(lane, result)
            self._tell(lane, told, changed=bool(visits))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with self._lock:
            for lane in self._lanes.values():
                left = lane.visits.end("stopped")
                self._tell(lane, left if self._tells_visits(lane) else [], changed=bool(left))
        self._background.close(SPOOL_SECONDS)
        if self._delivery.close(NETWORK_SECONDS):
            self._spool.close()

    def counts(self) -> SinkCounts:
        return SinkCounts(
            delivered=self._delivery.delivered,
            waiting=self._spool.waiting,
            dropped=self._background.dropped + self._spool.dropped,
            refused=self._delivery.refused,
        )

    def _tells_visits(self, lane: _Lane) -> bool:
        return self._feed is Feed.VISITS and lane.watched.moving

    @staticmethod
    def _decisions(lane: _Lane, result: FrameResult) -> list[dict[str, Any]]:
        kind = "decision" if lane.watched.moving else "picture"
        return [{"type": kind, **event(decision)} for decision in result.decisions]

    def _tell(self, lane: _Lane, events: Sequence[dict[str, Any]], *, changed: bool) -> None:
        put = self._background.put if lane.watched.live else self._background.put_waiting
        for each in events:
            put({"device": self._device, **each})
        if changed:
            lane.present = lane.visits.present()
            self._show(lane)

    def _show(self, lane: _Lane) -> None:
        if self._presence is not None:
            self._presence.show(str(lane.present["source"]), lane.present)

    def _keep(self, events: list[dict[str, Any]]) -> None:
        self._spool.put(events)
        self._delivery.wake()

    def _look_for_stalled(self) -> None:
        """Whoever was before a camera that gives no picture any more is not known to be there."""
        # Whoever holds the lock may be waiting for this very thread to make room.
        if not self._lock.acquire(blocking=False):
            return
        try:
            now = time.monotonic()
            for lane in self._lanes.values():
                if lane.watched.live and lane.watched.moving and now - lane.heard > STALLED_AFTER:
                    left = lane.visits.end("stalled")
                    self._tell(lane, left if self._tells_visits(lane) else [], changed=bool(left))
        finally:
            self._lock.release()
