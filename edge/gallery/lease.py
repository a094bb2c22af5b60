"""Who may write to a gallery that many machines reach: a row for each who wants to, kept for a while and taken back.

Milvus has neither transactions nor a compare-and-set. With reads and writes alone, Lamport's bakery keeps writers apart
(L. Lamport, "A New Solution of Dijkstra's Concurrent Programming Problem", CACM 17(8), 1974): say that you draw a
number, draw one greater than all there are, and wait for everybody who is drawing or has a smaller one. However long a
read or a write takes, no two are in at once. Time decides one thing alone: the row of a writer that was killed ends.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from edge.gallery.store import StoreUnavailableError

KEEP_SECONDS = 60.0
"""A writer that was killed keeps others waiting for so long."""

WAIT_SECONDS = 5.0
"""What a writer waits for others."""

LOOK_SECONDS = 0.05
"""From one look at who is before to the next."""


class Register(Protocol):
    """Rows by name, each read and written as a whole; a read gives what the last finished writes have written.

    All of it raises StoreUnavailableError.
    """

    def read(self) -> Mapping[str, str]:
        """All rows."""

    def write(self, name: str, text: str) -> None:
        """One row, in place of the one before."""

    def remove(self, names: Iterable[str]) -> None:
        """Nothing happens where they are not there."""


@dataclass(frozen=True, slots=True)
class _Row:
    """number: 0 while it is drawn. until: seconds of the clock at which the row ends."""

    number: int
    until: float

    @classmethod
    def of(cls, text: str) -> _Row:
        number, until = json.loads(text)
        return cls(int(number), float(until))

    @property
    def text(self) -> str:
        return json.dumps([self.number, self.until])


class Lease:
    """One writer's claim. Clocks of the writers' machines may be apart by much less than KEEP_SECONDS."""

    def __init__(self, register: Register, address: str, clock: Callable[[], float] = time.time) -> None:
        self._register = register
        self._address = address
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._held: _Row | None = None

    def take(self) -> None:
        """Waits for its turn. Raises StoreUnavailableError where others keep it for too long."""
        if self._held is not None and self._is_fresh(self._held):
            return
        held, self._held = self._held, None
        self._held = (held and self._prolonged(held)) or self._queued()

    def give_back(self) -> None:
        """Lets the next writer in; nothing happens where the lease is not held."""
        if self._held is not None:
            self._held = None
            self._leave()

    def _queued(self) -> _Row:
        try:
            return self._waited()
        except BaseException:
            with suppress(StoreUnavailableError):  # then the row ends by itself
                self._leave()
            raise

    def _waited(self) -> _Row:
        deadline, mine = time.monotonic() + WAIT_SECONDS, self._draw()
        while self._is_behind(mine) or not self._is_fresh(mine):
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"{self._address}: another one is writing, or was killed while it was; try again in a minute"
                )
            time.sleep(LOOK_SECONDS)
            if not self._is_fresh(mine):
                mine = self._prolonged(mine) or self._draw()
        return mine

    def _draw(self) -> _Row:
        while True:
            drawing = self._write(0)
            mine = self._write(1 + max((row.number for row in self._others().values()), default=0))
            if self._clock() < drawing.until:  # else somebody may have drawn the same without waiting for it
                return mine
            self._leave()

    def _prolonged(self, mine: _Row) -> _Row | None:
        """The row with more time; None where the one that others went by had ended before the new one was there."""
        later = self._write(mine.number)
        if self._clock() < mine.until:
            return later
        self._leave()
        return None

    def _is_fresh(self, mine: _Row) -> bool:
        return self._clock() < mine.until - KEEP_SECONDS / 2

    def _is_behind(self, mine: _Row) -> bool:
        turn = mine.number, self._name
        return any(row.number == 0 or (row.number, name) < turn for name, row in self._others().items())

    def _others(self) -> dict[str, _Row]:
        """The rows of others that have not ended. Those that ended long ago go."""
        now = self._clock()  # before: what is read may be as old as that, and be prolonged since
        rows = {name: _Row.of(text) for name, text in self._register.read().items() if name != self._name}
        if left := [name for name, row in rows.items() if now > row.until + KEEP_SECONDS]:
            self._register.remove(left)
        return {name: row for name, row in rows.items() if now < row.until}

    def _write(self, number: int) -> _Row:
        row = _Row(number, self._clock() + KEEP_SECONDS)
        self._register.write(self._name, row.text)
        return row

    def _leave(self) -> None:
        """Takes the row away, and never writes under its name again: somebody may be about to remove it as left."""
        left, self._name = self._name, secrets.token_hex(8)
        self._register.remove([left])
