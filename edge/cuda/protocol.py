"""What the rest of arcedge needs of CUDA, and nothing more. Everything here fits pycuda and cuda-python alike.

A device belongs to one process and holds its primary context, which TensorRT and ONNX Runtime share. Work is queued on
streams; what `Event`, `Stream.wait` and `Stream.synchronize` do not order is not ordered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge.cuda.driver import DeviceInfo

Dim3 = tuple[int, int, int]
Launch = Callable[[Dim3, Dim3, "Stream", Sequence[Any]], None]
"""Starts a kernel: grid, block, stream, arguments (integers, floats, addresses) in the order of the kernel."""


class DeviceMemory(Protocol):
    """`size` bytes on the device from `address` on, rubbish until written. Keep the object while the device uses it."""

    address: int
    size: int

    def free(self) -> None:
        """Gives it back; calling it again does nothing."""


@dataclass(slots=True)
class DevicePart:
    """A stretch of somebody else's device memory, who gives it back."""

    address: int
    size: int

    def free(self) -> None:
        return


class PinnedMemory(Protocol):
    """Page-locked memory of the host, which copies pass without a detour: `array` is (size,) uint8 over it."""

    address: int
    size: int
    array: npt.NDArray[np.uint8]

    def free(self) -> None:
        """Gives it back; `array` must not be touched afterwards."""


class Stream(Protocol):
    """Work in order. `handle` is the driver's CUstream, as TensorRT takes it."""

    handle: int

    def synchronize(self) -> None:
        """Waits for everything queued. Raises EngineError where any of it failed."""

    def wait(self, event: Event) -> None:
        """Queues that what comes next waits until the work before a mark, of another stream, is done; nobody else does.

        The mark is where it stands now: it may be set anew afterwards.
        """

    def close(self) -> None:
        """Gives it back."""


class Event(Protocol):
    """A mark in a stream's work."""

    def record(self, stream: Stream) -> None:
        """Sets the mark behind what is queued."""

    def synchronize(self) -> None:
        """Waits until the work before the mark is done."""

    def milliseconds_since(self, earlier: Event) -> float:
        """Time on the device between two marks that are done."""

    def close(self) -> None:
        """Gives it back."""


class CudaDevice(Protocol):
    """A GPU. Every method raises EngineError with the driver's own name of the fault.

    Memory, streams, events and kernels are made, used and given back in any thread that has called `activate`.
    """

    backend: str
    info: DeviceInfo

    def activate(self) -> None:
        """Makes the context current in the calling thread; needed once in each, cheap afterwards."""

    def alloc(self, size: int) -> DeviceMemory:
        """`size` bytes, 1 or more, on the device."""

    def alloc_pinned(self, size: int) -> PinnedMemory:
        """`size` bytes, 1 or more, on the host."""

    def stream(self) -> Stream:
        """A new stream that does not wait for the default one."""

    def event(self) -> Event:
        """A new event that takes the time."""

    def copy_in(self, to: DeviceMemory, source: PinnedMemory, size: int, stream: Stream) -> None:
        """Queues a copy of the first `size` bytes, host to device."""

    def copy_out(self, to: PinnedMemory, source: DeviceMemory, size: int, stream: Stream) -> None:
        """Queues a copy of the first `size` bytes, device to host."""

    def zero(self, memory: DeviceMemory, size: int, stream: Stream) -> None:
        """Queues zeros for the first `size` bytes."""

    def load_kernels(self, image: bytes, signatures: dict[str, str]) -> dict[str, Launch]:
        """Kernels of a fat binary by name. `signatures`: a letter an argument, P address, i int32, f float32.

        Without signatures nothing is looked for: whether the driver loads the binary at all.
        """

    def close(self) -> None:
        """Lets go of the context."""
