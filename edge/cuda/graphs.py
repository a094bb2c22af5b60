"""CUDA graphs: a sequence of work recorded once and started with one call.

Through the driver's own library, because pycuda has no graphs; a stream's handle is the same whoever made it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from edge.cuda.driver import check, library
from edge.cuda.protocol import Stream
from edge.errors import EngineError

_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class CudaGraph:
    """Recorded work, ready to start on a stream."""

    def __init__(self, executable: ctypes.c_void_p) -> None:
        self._executable = executable

    @classmethod
    def record(cls, stream: Stream, enqueue: Callable[[], None]) -> CudaGraph:
        """Records what `enqueue` queues on `stream`; nothing of it runs. Raises EngineError where CUDA cannot.

        What is queued must not allocate or wait, and its addresses are fixed from here on.
        """
        driver = library()
        assert driver is not None
        handle, graph, executable = ctypes.c_void_p(stream.handle), ctypes.c_void_p(), ctypes.c_void_p()
        check(driver.cuStreamBeginCapture_v2(handle, _THREAD_LOCAL), "cuStreamBeginCapture")
        try:
            enqueue()
        except BaseException:
            # A stream left in capture takes no other work.
            if driver.cuStreamEndCapture(handle, ctypes.byref(graph)) == 0 and graph:
                driver.cuGraphDestroy(graph)
            raise
        check(driver.cuStreamEndCapture(handle, ctypes.byref(graph)), "cuStreamEndCapture")
        try:
            check(
                driver.cuGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)),
                "cuGraphInstantiate",
            )
        finally:
            driver.cuGraphDestroy(graph)
        return cls(executable)

    def launch(self, stream: Stream) -> None:
        """Queues everything recorded."""
        driver = library()
        assert driver is not None
        check(driver.cuGraphLaunch(self._executable, ctypes.c_void_p(stream.handle)), "cuGraphLaunch")

    def close(self) -> None:
        """Frees it; calling it again does nothing."""
        driver = library()
        if driver is not None and self._executable:
            driver.cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p()


class Recorded:
    """Work on a stream that is always the same: queued plainly first, then recorded, from then on one call.

    plain: how often it is queued plainly, once or more, because TensorRT sets a context up in the first run, which no
    graph can hold. Other streams may take part, where they wait for this one first and this one for them last.
    graphless: why the work could not be recorded, in one line; it is queued plainly then. Empty where it could, or was
    not tried yet.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[], None], plain: int = 1) -> None:
        self._stream, self._enqueue = stream, enqueue
        self._graph: CudaGraph | None = None
        self._plain = plain
        self.graphless = ""

    @property
    def is_graph(self) -> bool:
        """Whether it is one call by now."""
        return self._graph is not None

    def start(self) -> None:
        """Queues the work. Raises EngineError."""
        if self._plain <= 0 and self._graph is None and not self.graphless:
            try:
                self._graph = CudaGraph.record(self._stream, self._enqueue)
            except EngineError as error:
                self.graphless = str(error)
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue()
            self._plain -= 1  # of runs that failed none set a context up

    def close(self) -> None:
        """Frees the graph; calling it again does nothing."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None
