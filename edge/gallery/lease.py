"""Who may write to a gallery that many machines reach: one row that a writer takes, keeps for a while and gives back.

Milvus has neither transactions nor a compare-and-set. With reads and writes alone, Fischer's algorithm keeps writers
apart: see that the row is free, write your name, wait longer than any such write may take, and go on only if your name
is still there (L. Lamport, "A Fast Mutual Exclusion Algorithm", ACM TOCS 5(1), 1987, section 2). A writer whose own
write took longer than that steps back, so that no bound has to be believed.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Protocol

from edge.gallery.store import StoreUnavailableError

SETTLE_SECONDS = 0.25
"""What a writer waits before it looks whether its name is still there; no write of a name may take longer."""

KEEP_SECONDS = 60.0
"""A writer that was killed keeps others waiting for so long."""

WAIT_SECONDS = 5.0
"""What a writer waits for another one."""


class Register(Protocol):
    """A row that is read and written as a whole; a read gives what the last finished write has written."""

    def read(self) -> str:
        """Empty where it was never written."""

    def write(self, text: str) -> None:
        """Raises StoreUnavailableError."""


class Lease:
    """One writer's claim. Clocks of the writers' machines may be apart by much less than KEEP_SECONDS."""

    def __init__(self, register: Register, address: str, clock: Callable[[], float] = time.time) -> None:
        self._register = register
        self._address = address
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._until = 0.0

    def take(self) -> None:
        """Waits for its turn. Raises StoreUnavailableError where others keep it for too long."""
        if self._clock() < self._until - KEEP_SECONDS / 2:
            return
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._claim():
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    f"{self._address}: another one is writing, or was killed while it was; try again in a minute"
                )
            time.sleep(SETTLE_SECONDS / 5)

    def give_back(self) -> None:
        """Lets the next writer in; nothing happens where the lease is not held."""
        if self._clock() < self._until:
            self._register.write("")
        self._until = 0.0

    def _claim(self) -> bool:
        holder, until = _parse(self._register.read())
        if holder not in ("", self._name) and self._clock() < until:
            return False
        started = time.monotonic()
        mine = self._clock() + KEEP_SECONDS
        self._register.write(json.dumps([self._name, mine]))
        if time.monotonic() - started > SETTLE_SECONDS:
            return False
        if holder != self._name or self._clock() >= until:
            time.sleep(SETTLE_SECONDS)
        if _parse(self._register.read())[0] != self._name:
            return False
        self._until = mine
        return True


def _parse(text: str) -> tuple[str, float]:
    if not text:
        return "", 0.0
    holder, until = json.loads(text)
    return str(holder), float(until)
