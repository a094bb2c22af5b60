"""Keeps a stream going: unusable frames are borne, a lost stream is opened again, each change of state is logged."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edge.clock import SYSTEM_CLOCK, Clock
from edge.errors import SourceError
from edge.sources.backoff import Backoff
from edge.sources.capture import Capture, CorruptFrame, EndOfStream
from edge.types import Picture

MAX_CORRUPT_RUN = 50
"""Unusable frames in a row after which a stream counts as lost."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Supervision:
    """How a stream is looked after: waits between attempts, the clock they are measured on, and what spreads them."""

    backoff: Backoff = field(default_factory=Backoff)
    clock: Clock = SYSTEM_CLOCK
    random: random.Random = field(default_factory=random.Random)


@dataclass(frozen=True, slots=True)
class _Loss:
    """From a stream's last usable frame to its next: one that opens and gives nothing has not come back.

    since: monotonic. delays: seconds between attempts, for all of them, and those of the next loss where it follows
    soon. was_there: whether it was ever opened before.
    """

    since: float
    delays: Iterator[float]
    was_there: bool


class SupervisedCapture:
    """The frames of a stream across its losses, until it ends or is stopped; for one thread.

    corrupt, reconnects: counted so far; the latter once the first usable frame is there.
    """

    def __init__(self, open_capture: Callable[[], Capture], name: str, how: Supervision) -> None:
        self._open = open_capture
        self._name = name
        self._how = how
        self._loss: _Loss | None = None
        self._last: tuple[_Loss, float] | None = None
        self.corrupt = 0
        self.reconnects = 0

    def frames(self, capture: Capture | None, stopping: threading.Event) -> Iterator[tuple[Picture, float]]:
        """Picture and time of each usable frame, beginning with an opened `capture`, else by opening one.

        Blocks while a capture does, and between attempts.
        """
        current = capture
        if current is None:
            # Whoever could not open it has said so.
            self._loss = self._new_loss(was_there=False)
            current = self._reopen(self._loss, stopping)
        while current is not None:
            try:
                for taken in self._until_lost(current, stopping):
                    self._is_back()
                    yield taken
            except SourceError as error:
                loss = self._is_lost(error)
            else:
                return
            finally:
                current.close()
            current = self._reopen(loss, stopping)

    def _is_lost(self, error: SourceError) -> _Loss:
        if self._loss is None:
            _LOG.warning("%s; trying again", error)
            self._loss = self._new_loss(was_there=True)
        return self._loss

    def _is_back(self) -> None:
        if self._loss is not None:
            now = self._how.clock.monotonic()
            _LOG.warning("%s: back after %.1f s", self._name, now - self._loss.since)
            self.reconnects += self._loss.was_there
            self._last = self._loss, now
            self._loss = None

    def _new_loss(self, *, was_there: bool) -> _Loss:
        """Waits go on growing where the stream was back for less than the longest of them: else one that gives a frame
        and dies, as a camera that restarts under load, would be called, and logged, twice a second for ever."""
        now = self._how.clock.monotonic()
        if self._last is not None and now - self._last[1] < self._how.backoff.longest:
            return _Loss(now, self._last[0].delays, was_there)
        return _Loss(now, self._how.backoff.delays(self._how.random), was_there)

    def _until_lost(self, capture: Capture, stopping: threading.Event) -> Iterator[tuple[Picture, float]]:
        corrupt_run = 0
        while not stopping.is_set():
            try:
                taken = capture.read()
            except EndOfStream:
                return
            except CorruptFrame:
                self.corrupt += 1
                corrupt_run += 1
                if corrupt_run >= MAX_CORRUPT_RUN:
                    raise SourceError(f"{self._name}: {corrupt_run} unusable frames in a row") from None
                continue
            corrupt_run = 0
            yield taken

    def _reopen(self, loss: _Loss, stopping: threading.Event) -> Capture | None:
        """Tries until it can be opened; None where it was stopped meanwhile."""
        for delay in loss.delays:
            if self._how.clock.wait(stopping, delay):
                break
            try:
                return self._open()
            except SourceError:
                continue
        return None
