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


class SupervisedCapture:
    """The frames of a stream across its losses, until it ends or is stopped; for one thread.

    corrupt, reconnects: counted so far.
    """

    def __init__(self, open_capture: Callable[[], Capture], name: str, how: Supervision) -> None:
        self._open = open_capture
        self._name = name
        self._how = how
        self.corrupt = 0
        self.reconnects = 0

    def frames(self, capture: Capture | None, stopping: threading.Event) -> Iterator[tuple[Picture, float]]:
        """Picture and time of each usable frame, beginning with an opened `capture`, else by opening one.

        Blocks while a capture does, and between attempts.
        """
        current = capture or self._reopen(stopping)
        while current is not None:
            try:
                yield from self._until_lost(current, stopping)
            except SourceError as error:
                _LOG.warning("%s; trying again", error)
            else:
                return
            finally:
                current.close()
            current = self._reopen(stopping)
            self.reconnects += current is not None

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

    def _reopen(self, stopping: threading.Event) -> Capture | None:
        """Tries until the stream is back; None where it was stopped meanwhile."""
        clock = self._how.clock
        lost = clock.monotonic()
        for delay in self._how.backoff.delays(self._how.random):
            if clock.wait(stopping, delay):
                break
            try:
                capture = self._open()
            except SourceError:
                continue
            _LOG.warning("%s: back after %.1f s", self._name, clock.monotonic() - lost)
            return capture
        return None
