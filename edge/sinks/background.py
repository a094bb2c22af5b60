"""A thread of its own for what may take its time, behind a queue with a bound."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from edge.errors import EdgeError

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_MOST_AT_ONCE = 256


class Background(Generic[T]):
    """Hands items on to `take`, in their order, as many at once as are there; whoever puts them never waits for it.

    Where `take` raises EdgeError, its items are dropped and counted, with a line in the log when that begins and ends.
    Any other exception is a bug, which the next `put` or `close` raises.
    """

    def __init__(
        self, name: str, take: Callable[[list[T]], None], room: int = 1024, regularly: Callable[[], None] = lambda: None
    ) -> None:
        """room: items that may wait. regularly: called in the thread about once a second, however much comes."""
        self._name = name
        self._take = take
        self._regularly = regularly
        self._queue: queue.Queue[T] = queue.Queue(room)
        self._stop = threading.Event()
        self._bug: BaseException | None = None
        self._failing = False
        self._full = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name=f"{name} background", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Leaves an item; drops and counts it where there is no room."""
        self._raise_bug()
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.dropped += 1
            if not self._full:
                _LOG.warning("%s: does not keep up; events are dropped", self._name)
            self._full = True
        else:
            self._full = False

    def put_waiting(self, item: T) -> None:
        """Leaves an item as soon as there is room."""
        while True:
            self._raise_bug()
            try:
                return self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue

    def close(self, seconds: float) -> None:
        """Hands on what waits, for so long at most; the rest is dropped and counted."""
        self._stop.set()
        self._thread.join(seconds)
        self._raise_bug()
        if self._thread.is_alive():
            _LOG.warning("%s: did not finish within %.0f s; %d events are dropped", self._name, seconds, self.waiting)
            self.dropped += self.waiting

    @property
    def waiting(self) -> int:
        """Items not handed on yet."""
        return self._queue.qsize()

    def _raise_bug(self) -> None:
        if self._bug is not None:
            raise self._bug

    def _run(self) -> None:
        try:
            called = time.monotonic()
            while not (self._stop.is_set() and self._queue.empty()):
                items = self._next(0.1)
                if items:
                    self._hand_on(items)
                if time.monotonic() - called > 1.0:
                    self._regularly()
                    called = time.monotonic()
        except BaseException as error:
            self._bug = error

    def _next(self, seconds: float) -> list[T]:
        items: list[T] = []
        with suppress(queue.Empty):
            items.append(self._queue.get(timeout=seconds))
            while len(items) < _MOST_AT_ONCE:
                items.append(self._queue.get_nowait())
        return items

    def _hand_on(self, items: list[T]) -> None:
        try:
            self._take(items)
        except EdgeError as error:
            self.dropped += len(items)
            if not self._failing:
                _LOG.warning("%s; events are dropped", error)
            self._failing = True
        else:
            if self._failing:
                _LOG.warning("%s: keeps events again; %d were dropped so far", self._name, self.dropped)
            self._failing = False
