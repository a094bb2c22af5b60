"""Times, memory and disk as the report gives them."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def spread(values: list[float]) -> dict[str, float]:
    """Median, 5th and 95th percentile, rounded."""
    low, high = np.percentile(values, [5, 95])
    return {"median": round(statistics.median(values), 2), "p5": round(float(low), 2), "p95": round(float(high), 2)}


def milliseconds(call: Callable[[], object]) -> float:
    """Of one call."""
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def memory_mb() -> int:
    """Of this process now, mapped files aside."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return _megabytes(int(status.partition("RssAnon:")[2].split()[0]))


def peak_memory_mb() -> int:
    """The most this process has held so far."""
    return _megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _megabytes(kilobytes: int) -> int:
    """Of what the kernel calls kB, which are 1,024 bytes."""
    return kilobytes * 1024 // 1_000_000


def disk_mb(path: Path) -> int:
    """Of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) // 1_000_000
