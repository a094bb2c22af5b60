"""How often a stream is searched: seldom while everybody is where they were expected, at once when they are not."""

from __future__ import annotations

AGREEMENT = 0.5
"""Overlap of a detection with where the person was expected from which the expectation may be relied on for longer."""


class Pacing:
    """longest: search every so many frames at most; 1 searches all."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._gap = 1
        self._since = longest

    def due(self, *, settled: bool) -> bool:
        """Whether the next frame is to be searched. settled: everybody in view is decided on."""
        self._since += 1
        if settled and self._since < self._gap:
            return False
        self._since = 0
        return True

    def saw(self, agreement: float) -> None:
        """After a search: how well it agreed with what was expected, see `Tracker.agreement`."""
        self._gap = min(self._longest, self._gap + 1) if agreement >= AGREEMENT else 1

    def restart(self) -> None:
        """A frame was searched that was not due, as the scene had changed."""
        self._gap, self._since = 1, 0
