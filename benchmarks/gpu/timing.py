"""Times on the device, by CUDA events, with the copy bandwidth they are held against."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.provenance import NOT_MEASURED
from benchmarks.statistics import quantiles
from edge.cuda import CudaDevice, DeviceMemory, Stream
from edge.cuda.driver import check, library
from edge.cuda.graphs import Recorded

COPY_BYTES = 256 << 20
LEAST_MS = 0.5
"""Of one sample, so that neither the clock of the events, half a microsecond, nor the start of a graph shows."""
MOST_IN_A_ROW = 100


@dataclass(frozen=True, slots=True)
class DeviceTimes:
    """Milliseconds of one piece of work on the device. in_a_row: of so many each is the mean. graphless: why CUDA could
    not record the work, so that the host's time is in its figures; empty where it could.
    """

    values: list[float]
    in_a_row: int
    graphless: str

    @property
    def median(self) -> float:
        """Milliseconds."""
        return float(np.median(self.values))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        without = {"without_graph": self.graphless} if self.graphless else {}
        return {**figures(self.values), "in_a_row": self.in_a_row, **without}


def device_times(device: CudaDevice, stream: Stream, work: Callable[[], None], rounds: int) -> DeviceTimes:
    """Times of `work` on the device, `rounds` of them; rounds before these warm up.

    To queue a kernel of microseconds takes the host longer than the device to run it. So the work is one CUDA graph, as
    often in a row as takes LEAST_MS, and started twice: the device is busy with the first while the host sets the mark
    and starts the second, which alone is timed. What fits in the device's cache is read from there from the second on.
    """
    with ExitStack() as held:
        before, after = device.event(), device.event()
        held.callback(before.close)
        held.callback(after.close)

        def sample(run: Recorded) -> float:
            run.start()
            before.record(stream)
            run.start()
            after.record(stream)
            after.synchronize()
            return after.milliseconds_since(before)

        count = 1
        while True:
            run = Recorded(stream, partial(_repeat, work, count))
            held.callback(run.close)
            length = min(sample(run) for _ in range(4))
            if not 0 < length < LEAST_MS or count == MOST_IN_A_ROW:
                break
            count = min(MOST_IN_A_ROW, math.ceil(1.1 * count * LEAST_MS / length))
        times = [sample(run) / count for _ in range(rounds + max(3, rounds // 10))]
        return DeviceTimes(times[-rounds:], count, run.graphless)


def _repeat(work: Callable[[], None], count: int) -> None:
    for _ in range(count):
        work()


def figures(times: list[float]) -> dict[str, Any]:
    """Quantiles with intervals, and count, in milliseconds; p99 only of enough samples."""
    return quantiles(np.array(times)).to_dict()


def copy_bandwidth(device: CudaDevice, stream: Stream, rounds: int, size: int = COPY_BYTES) -> float | None:
    """Bytes a second read and written by the driver's own copy on the device; None where no time passed."""
    driver = library()
    assert driver is not None
    with ExitStack() as held:
        source = device.alloc(size)
        held.callback(source.free)
        to = device.alloc(size)
        held.callback(to.free)

        def copy() -> None:
            addresses = (ctypes.c_void_p(to.address), ctypes.c_void_p(source.address))
            check(
                driver.cuMemcpyDtoDAsync_v2(*addresses, ctypes.c_size_t(size), ctypes.c_void_p(stream.handle)),
                "cuMemcpyDtoDAsync",
            )

        median = device_times(device, stream, copy, rounds).median
    return 2 * size / (median / 1e3) if median > 0 else None


def against_bandwidth(median_ms: float, moved: int, bandwidth: float | None) -> dict[str, Any]:
    """What a kernel moves at least (bytes it must read and write once), and its share of the copy's speed."""
    if bandwidth is None or median_ms <= 0:
        return {"bytes": moved, "share_of_copy_bandwidth": NOT_MEASURED}
    return {"bytes": moved, "share_of_copy_bandwidth": moved / (median_ms / 1e3) / bandwidth}


def upload(device: CudaDevice, stream: Stream, array: np.ndarray[Any, Any]) -> DeviceMemory:
    """A copy of an array on the device."""
    raw = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    pinned, memory = device.alloc_pinned(raw.size), device.alloc(raw.size)
    pinned.array[:] = raw
    device.copy_in(memory, pinned, raw.size, stream)
    stream.synchronize()
    pinned.free()
    return memory
