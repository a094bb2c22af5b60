"""The CUDA protocol through cuda-python, NVIDIA's own bindings: wheels for x86-64 and aarch64, no compiler needed."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import driver

from edge.cuda.driver import check, device_info
from edge.cuda.protocol import DeviceMemory, Dim3, Event, Launch, PinnedMemory, Stream

_TYPES = {"P": ctypes.c_void_p, "i": ctypes.c_int, "f": ctypes.c_float}
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


def _call(function: Any, *arguments: Any) -> Any:
    """Calls the driver; gives what it gives besides its status, one value alone. Raises EngineError."""
    status, *values = function(*arguments)
    check(status, function.__name__)
    return values[0] if len(values) == 1 else values


class CudaPythonMemory:
    """Device memory."""

    def __init__(self, size: int) -> None:
        self._pointer = _call(driver.cuMemAlloc, size)
        self.address, self.size = int(self._pointer), size

    def free(self) -> None:
        if self.address:
            _call(driver.cuMemFree, self._pointer)
            self.address = 0


class CudaPythonPinned:
    """Pinned memory of the host."""

    def __init__(self, size: int) -> None:
        self.address, self.size = int(_call(driver.cuMemHostAlloc, size, 0)), size
        self.array: npt.NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))

    def free(self) -> None:
        if self.address:
            _call(driver.cuMemFreeHost, self.address)
            self.address = 0


class CudaPythonStream:
    """A stream."""

    def __init__(self) -> None:
        self._stream = _call(driver.cuStreamCreate, _NON_BLOCKING)
        self.handle = int(self._stream)

    def synchronize(self) -> None:
        _call(driver.cuStreamSynchronize, self._stream)

    def wait(self, event: Event) -> None:
        assert isinstance(event, CudaPythonEvent)
        _call(driver.cuStreamWaitEvent, self._stream, event.native, 0)

    def close(self) -> None:
        if self.handle:
            _call(driver.cuStreamDestroy, self._stream)
            self.handle = 0


class CudaPythonEvent:
    """An event."""

    def __init__(self) -> None:
        self.native: Any = _call(driver.cuEventCreate, 0)

    def record(self, stream: Stream) -> None:
        _call(driver.cuEventRecord, self.native, stream.handle)

    def synchronize(self) -> None:
        _call(driver.cuEventSynchronize, self.native)

    def milliseconds_since(self, earlier: Event) -> float:
        assert isinstance(earlier, CudaPythonEvent)
        return float(_call(driver.cuEventElapsedTime, earlier.native, self.native))

    def close(self) -> None:
        if self.native is not None:
            _call(driver.cuEventDestroy, self.native)
            self.native = None


class CudaPythonDevice:
    """See the module."""

    backend = "cuda-python"

    def __init__(self, index: int = 0) -> None:
        self.info = device_info(index)
        _call(driver.cuInit, 0)
        self._device = _call(driver.cuDeviceGet, index)
        self._context = _call(driver.cuDevicePrimaryCtxRetain, self._device)
        self._modules: dict[bytes, Any] = {}
        self.activate()

    def activate(self) -> None:
        _call(driver.cuCtxSetCurrent, self._context)

    def alloc(self, size: int) -> DeviceMemory:
        return CudaPythonMemory(size)

    def alloc_pinned(self, size: int) -> PinnedMemory:
        return CudaPythonPinned(size)

    def stream(self) -> Stream:
        return CudaPythonStream()

    def event(self) -> Event:
        return CudaPythonEvent()

    def copy_in(self, to: DeviceMemory, source: PinnedMemory, size: int, stream: Stream) -> None:
        _call(driver.cuMemcpyHtoDAsync, to.address, source.address, size, stream.handle)

    def copy_out(self, to: PinnedMemory, source: DeviceMemory, size: int, stream: Stream) -> None:
        _call(driver.cuMemcpyDtoHAsync, to.address, source.address, size, stream.handle)

    def zero(self, memory: DeviceMemory, size: int, stream: Stream) -> None:
        _call(driver.cuMemsetD8Async, memory.address, 0, size, stream.handle)

    def load_kernels(self, image: bytes, signatures: dict[str, str]) -> dict[str, Launch]:
        if image not in self._modules:
            self._modules[image] = _call(driver.cuModuleLoadData, image)
        module = self._modules[image]
        return {
            name: _launcher(
                _call(driver.cuModuleGetFunction, module, name.encode()), tuple(_TYPES[c] for c in signature)
            )
            for name, signature in signatures.items()
        }

    def close(self) -> None:
        for module in self._modules.values():
            _call(driver.cuModuleUnload, module)
        self._modules.clear()
        if self._context is not None:
            _call(driver.cuDevicePrimaryCtxRelease, self._device)
            self._context = None


def _launcher(function: Any, types: tuple[Any, ...]) -> Launch:
    def launch(grid: Dim3, block: Dim3, stream: Stream, arguments: Sequence[Any]) -> None:
        _call(driver.cuLaunchKernel, function, *grid, *block, 0, stream.handle, (tuple(arguments), types), 0)

    return launch
