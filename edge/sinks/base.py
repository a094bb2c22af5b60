"""What every sink is."""

from __future__ import annotations

from typing import Protocol

from edge.types import FrameResult


class Sink(Protocol):
    """Takes results one by one, in the order of their frames; from one thread."""

    def write(self, result: FrameResult) -> None:
        """Takes one result; raises EdgeError where it cannot."""

    def close(self) -> None:
        """Finishes what was written, so that it survives; calling it again does nothing."""
