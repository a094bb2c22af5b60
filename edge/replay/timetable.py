"""What of a plan is going on at a moment, for moments that only go on: a day of it costs next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from edge.replay.scenario import Window

T = TypeVar("T")


class Timetable(Generic[T]):
    """entries with their windows; asked with moments that never go back."""

    def __init__(self, entries: Sequence[T], window: Callable[[T], Window]) -> None:
        self._window = window
        self._coming = sorted(entries, key=lambda entry: window(entry).start, reverse=True)
        self._current: list[T] = []

    def at(self, moment: float) -> list[T]:
        """The entries whose windows hold `moment`, by their beginning."""
        while self._coming and self._window(self._coming[-1]).start <= moment:
            self._current.append(self._coming.pop())
        self._current = [entry for entry in self._current if moment < self._window(entry).end]
        return self._current

    def next_start(self) -> float:
        """When the next one begins, after the last moment asked for; infinite where none does."""
        return self._window(self._coming[-1]).start if self._coming else float("inf")
