"""What every sink is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edge.types import FrameResult


class Sink(Protocol):
    """Takes results one by one, in the order of their frames; from one thread.

    A sink may have a `name`, which the summary calls it by.
    """

    def write(self, result: FrameResult) -> None:
        """Takes one result; raises EdgeError where it cannot."""

    def close(self) -> None:
        """Finishes what was written, so that it survives; calling it again does nothing."""


@dataclass(frozen=True, slots=True)
class SinkCounts:
    """What came of what a sink was given.

    lost: results it could not take. Of a sink that sends events on: delivered: acknowledged by the other side; waiting:
    kept for later; dropped: given up because there was no room; refused: set aside because the other side will never
    take them.
    """

    lost: int = 0
    delivered: int = 0
    waiting: int = 0
    dropped: int = 0
    refused: int = 0

    def __add__(self, other: SinkCounts) -> SinkCounts:
        return SinkCounts(
            self.lost + other.lost,
            self.delivered + other.delivered,
            self.waiting + other.waiting,
            self.dropped + other.dropped,
            self.refused + other.refused,
        )


@runtime_checkable
class CountingSink(Sink, Protocol):
    """A sink that knows what came of its results."""

    def counts(self) -> SinkCounts:
        """Up to now; from any thread, also after `close`."""


def name_of(sink: Sink) -> str:
    """What the summary calls a sink."""
    return str(getattr(sink, "name", type(sink).__name__.lower()))


def counts_of(sink: Sink) -> SinkCounts:
    """All zero for a sink that does not count."""
    return sink.counts() if isinstance(sink, CountingSink) else SinkCounts()
