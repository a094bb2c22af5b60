"""The CUDA protocol through pycuda, on the primary context, which TensorRT and ONNX Runtime use as well.

pycuda keeps a stack of contexts of its own for each thread: it makes and frees nothing in a thread whose stack is
empty, whatever context the driver has there, and aborts the process where a thread ends with a context left on it. So
the context is there while something is made or freed (`PycudaDevice.current`), and not between: any thread may do both.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.cuda.driver import check, device_info, library
from edge.cuda.protocol import DeviceMemory, Dim3, Event, Launch, PinnedMemory, Stream
from edge.errors import EngineError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


def _call(function: Any, *arguments: Any, **named: Any) -> Any:
    """Calls pycuda. Raises EngineError with the driver's name of the fault."""
    import pycuda.driver as cuda

    try:
        return function(*arguments, **named)
    except cuda.Error as error:
        raise EngineError(f"CUDA: {str(error).strip().splitlines()[0]}; see edge doctor") from error


Current = Callable[[], AbstractContextManager[None]]
"""`PycudaDevice.current`."""


class PycudaMemory:
    """Device memory."""

    def __init__(self, size: int, current: Current) -> None:
        import pycuda.driver as cuda

        self._current = current
        with current():
            self._allocation = _call(cuda.mem_alloc, size)
        self.address, self.size = int(self._allocation), size

    def free(self) -> None:
        if self.address:
            with self._current():
                _call(self._allocation.free)
            self.address = 0


class PycudaPinned:
    """Pinned memory of the host."""

    def __init__(self, size: int, current: Current) -> None:
        import pycuda.driver as cuda

        self._current = current
        with current():
            self.array: npt.NDArray[np.uint8] = _call(cuda.pagelocked_empty, size, np.uint8)
        self._allocation = self.array.base
        self.address, self.size = int(self.array.ctypes.data), size

    def free(self) -> None:
        if self.address:
            with self._current():
                _call(self._allocation.free)  # type: ignore[union-attr]
            self.address = 0


class PycudaStream:
    """A stream."""

    def __init__(self, current: Current) -> None:
        import pycuda.driver as cuda

        self._current = current
        with current():
            self.native = _call(cuda.Stream, _NON_BLOCKING)
        self.handle = int(self.native.handle)

    def synchronize(self) -> None:
        _call(self.native.synchronize)

    def wait(self, event: Event) -> None:
        assert isinstance(event, PycudaEvent)
        _call(self.native.wait_for_event, event.native)

    def close(self) -> None:
        with self._current():
            self.native, self.handle = None, 0


class PycudaEvent:
    """An event."""

    def __init__(self, current: Current) -> None:
        import pycuda.driver as cuda

        self._current = current
        with current():
            self.native = _call(cuda.Event)

    def record(self, stream: Stream) -> None:
        _call(self.native.record, _native(stream))

    def synchronize(self) -> None:
        _call(self.native.synchronize)

    def milliseconds_since(self, earlier: Event) -> float:
        assert isinstance(earlier, PycudaEvent)
        return float(_call(self.native.time_since, earlier.native))

    def close(self) -> None:
        with self._current():
            self.native = None


class PycudaDevice:
    """See the module."""

    backend = "pycuda"

    def __init__(self, index: int = 0) -> None:
        self.info = device_info(index)
        import pycuda.driver as cuda

        _call(cuda.init)
        # What pycuda.autoprimaryctx does, but on the device asked for and without a context pushed at import.
        self._context = _call(_call(cuda.Device, index).retain_primary_context)
        self._modules: dict[bytes, Any] = {}
        self._open = True
        self.activate()

    def activate(self) -> None:
        # Past pycuda's stack, which would abort when the thread ends.
        driver = library()
        assert driver is not None
        check(driver.cuCtxSetCurrent(ctypes.c_void_p(int(self._context.handle))), "cuCtxSetCurrent")

    @contextmanager
    def current(self) -> Iterator[None]:
        """The context on pycuda's stack of the calling thread, for what makes or frees something."""
        _call(self._context.push)
        try:
            yield
        finally:
            _call(self._context.pop)

    def alloc(self, size: int) -> DeviceMemory:
        return PycudaMemory(size, self.current)

    def alloc_pinned(self, size: int) -> PinnedMemory:
        return PycudaPinned(size, self.current)

    def stream(self) -> Stream:
        return PycudaStream(self.current)

    def event(self) -> Event:
        return PycudaEvent(self.current)

    def copy_in(self, to: DeviceMemory, source: PinnedMemory, size: int, stream: Stream) -> None:
        import pycuda.driver as cuda

        _call(cuda.memcpy_htod_async, to.address, source.array[:size], _native(stream))

    def copy_out(self, to: PinnedMemory, source: DeviceMemory, size: int, stream: Stream) -> None:
        import pycuda.driver as cuda

        _call(cuda.memcpy_dtoh_async, to.array[:size], source.address, _native(stream))

    def zero(self, memory: DeviceMemory, size: int, stream: Stream) -> None:
        import pycuda.driver as cuda

        _call(cuda.memset_d8_async, memory.address, 0, size, _native(stream))

    def load_kernels(self, image: bytes, signatures: dict[str, str]) -> dict[str, Launch]:
        import pycuda.driver as cuda

        with self.current():
            # Kept with the device: a module is unloaded where its context is current.
            if image not in self._modules:
                self._modules[image] = _call(cuda.module_from_buffer, image)
            module = self._modules[image]
            return {
                name: _launcher(_call(module.get_function, name), signature) for name, signature in signatures.items()
            }

    def close(self) -> None:
        if self._open:
            self._open = False
            with self.current():
                self._modules.clear()
            _call(self._context.detach)


def _launcher(function: Any, signature: str) -> Launch:
    function.prepare(signature)

    def launch(grid: Dim3, block: Dim3, stream: Stream, arguments: Sequence[Any]) -> None:
        _call(function.prepared_async_call, grid, block, _native(stream), *arguments)

    return launch


def _native(stream: Stream) -> Any:
    assert isinstance(stream, PycudaStream)
    return stream.native
