"""Times on the device, by CUDA events, with the copy bandwidth they are held against."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.provenance import NOT_MEASURED
from benchmarks.statistics import quantiles
from edge.cuda import CudaDevice, DeviceMemory, Stream
from edge.cuda.driver import check, library

COPY_BYTES = 256 << 20


def device_times(
    device: CudaDevice, stream: Stream, work: Callable[[], None], rounds: int, inner: int = 1
) -> list[float]:
    """Milliseconds of one `work`, `rounds` times, each over `inner` of them in a row; the first rounds warm up."""
    before, after = device.event(), device.event()
    times = []
    for _ in range(rounds + max(3, rounds // 10)):
        before.record(stream)
        for _ in range(inner):
            work()
        after.record(stream)
        after.synchronize()
        times.append(after.milliseconds_since(before) / inner)
    return times[-rounds:]


def figures(times: list[float]) -> dict[str, Any]:
    """Quantiles with intervals, and count, in milliseconds; p99 only of enough samples."""
    return quantiles(np.array(times)).to_dict()


def copy_bandwidth(device: CudaDevice, stream: Stream, rounds: int, size: int = COPY_BYTES) -> float | None:
    """Bytes a second read and written by the driver's own copy on the device; None where no time passed."""
    source, to = device.alloc(size), device.alloc(size)
    driver = library()
    assert driver is not None

    def copy() -> None:
        addresses = (ctypes.c_void_p(to.address), ctypes.c_void_p(source.address))
        check(
            driver.cuMemcpyDtoDAsync_v2(*addresses, ctypes.c_size_t(size), ctypes.c_void_p(stream.handle)),
            "cuMemcpyDtoDAsync",
        )

    median = float(np.median(device_times(device, stream, copy, rounds)))
    source.free()
    to.free()
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
