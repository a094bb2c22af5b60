"""The emulated device runs out of room: whatever opens on it must give everything back, wherever that was."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

from edge.errors import EngineError

driver: Any = ctypes.CDLL("libcuda.so.1")


class Closing(Protocol):
    """What was opened."""

    def close(self) -> None: ...


def held() -> tuple[int, int, int]:
    """Allocations, streams and events that nobody gave back."""
    return driver.emulated_allocations(), driver.emulated_streams(), driver.emulated_events()


def require_all_given_back(opening: Callable[[], Closing], least: int) -> None:
    """Refuses the first thing the opening makes, then the second, and so on, until it opens; `least` refusals of it."""
    before, refused = held(), 0
    while True:
        driver.emulated_room(ctypes.c_long(refused))
        try:
            made = opening()
        except EngineError:
            assert held() == before, f"kept after {refused} had been made"
            refused += 1
        else:
            break
        finally:
            driver.emulated_room(ctypes.c_long(-1))
    made.close()
    assert held() == before
    assert refused >= least
