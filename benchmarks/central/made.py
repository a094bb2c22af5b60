"""The gallery that is measured: made vectors, four a person, over ten sites."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.central.figures import disk_mb, memory_mb, peak_memory_mb
from benchmarks.vectors import SIZE, face_blocks
from edge.gallery import Binding, Gallery, MilvusPlace, NewEntry

BINDING = Binding("c" * 64, "a" * 64, "made", SIZE)
AXES, SEED = 128, 0
SITES = 10
SITE = "site3"
EACH = 4
"""Vectors a person."""

BATCH = 10_000


def site_of(number: int) -> str:
    """Of a vector: those of one person are of one site."""
    return f"site{number // EACH % SITES}"


def fill(place: MilvusPlace, count: int) -> dict[str, Any]:
    """Makes the gallery, and gives what that cost, and how it grew."""
    started, cpu, growth = time.monotonic(), time.process_time(), []
    with Gallery.create(place, BINDING) as gallery:
        first = 0
        for block in face_blocks(count, AXES, SEED):
            for start in range(first, first + len(block), BATCH):
                numbers = range(start, min(start + BATCH, first + len(block)))
                gallery.add_entries(
                    [NewEntry(f"{site_of(n)}/p{n // EACH}", block[n - first], f"{n}.jpg") for n in numbers]
                )
            first += len(block)
            growth.append(_used(first, started, cpu))
            print(growth[-1], file=sys.stderr)
        gallery.compact()
        gallery.search(block[:1], 1)
    return {
        **_used(count, started, cpu),
        "disk_mb": disk_mb(Path(place.uri)) if place.embedded else None,
        "growth": growth,
    }


def _used(vectors: int, started: float, cpu: float) -> dict[str, Any]:
    return {
        "vectors": vectors,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "memory_mb": memory_mb(),
        "peak_memory_mb": peak_memory_mb(),
    }
