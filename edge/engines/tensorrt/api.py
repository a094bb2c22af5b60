"""TensorRT 8.5 to 11 behind names that mean the same in all of them. Nothing else here asks which version it is.

What a version has is asked by name (`hasattr`), never by number: enum values moved between majors. A test walks this
package with a recorded table of every version's names and fails where one is used that is not there.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from edge.cuda.driver import missing_driver
from edge.errors import EngineError, MissingExtraError, end_if_interrupted

OLDEST = (8, 5)
_KEPT = 1000
"""Errors of TensorRT: of a build that fails many, of an engine that fails at each frame one a frame."""

DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""By name, because trt.nptype of 8.x names numpy types that numpy has dropped."""


def load() -> Any:
    """The package. Raises EngineError without a driver: 8.6 ends the process where a runtime is made without one."""
    if missing := missing_driver():
        raise EngineError(missing)
    try:
        import tensorrt as trt
    except ImportError as error:
        end_if_interrupted(error)
        raise MissingExtraError("tensorrt", "tensorrt") from error
    if tuple(int(part) for part in trt.__version__.split(".")[:2]) < OLDEST:
        raise EngineError(f"TensorRT {trt.__version__} is too old; arcedge needs 8.5 or newer")
    return trt


@cache
def logger_of(trt: Any) -> Any:
    """The process's logger, which keeps errors, one line each: `since` a `count` of them.

    One for all: TensorRT holds on to the first it is given, may tell it what concerns others, and nothing says that it
    lets go of it.
    """

    class Recorder(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=_KEPT)
            self.count = 0
            self.said = ""

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(message.split())
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self._errors.append(line)
                self.count += 1
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR, trt.ILogger.WARNING):
                self.said = line

        def since(self, count: int) -> list[str]:
            new = min(self.count - count, len(self._errors))
            return list(self._errors)[len(self._errors) - new :]

        @property
        def why(self) -> str:
            """The last error."""
            return self._errors[-1] if self._errors else "it does not say why"

    return Recorder()


def create_builder(trt: Any) -> Any:
    """A builder. Raises EngineError."""
    return _created(trt, trt.Builder)


def create_runtime(trt: Any) -> Any:
    """A runtime. Raises EngineError."""
    return _created(trt, trt.Runtime)


def _created(trt: Any, kind: Any) -> Any:
    logger = logger_of(trt)
    try:
        return kind(logger)
    except TypeError as error:
        # All that the bindings say is that there is none. Why, as a driver older than its CUDA, is a warning of before.
        said = logger.said or str(error)
        raise EngineError(f"TensorRT {trt.__version__} does not start: {said}; see edge doctor") from error


def carries_precision(trt: Any) -> bool:
    """Whether a network takes its types from the file; before 10 flags of the builder do."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def create_network(trt: Any, builder: Any) -> Any:
    """An empty network: strongly typed where that exists, else with the batch among its dimensions."""
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))


def set_precision(trt: Any, config: Any, precision: str) -> tuple[str, ...]:
    """Flags for a precision, where the network does not carry it; gives their names.

    INT8 goes with FP16: a layer without an integer kernel would fall back to FP32 otherwise. TF32 is off throughout, so
    that FP32 is FP32.
    """
    config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return ("strongly-typed",)
    flags = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}[precision]
    if precision in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    return flags


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Gives whether Ctrl-C was pressed inside; it is raised at the end.

    Raised while TensorRT reports progress it is lost: the bindings print it, and the build only seems to have failed.
    """
    pressed = threading.Event()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield pressed.is_set
        return
    signal.signal(signal.SIGINT, lambda number, frame: pressed.set())
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed.is_set():
        raise KeyboardInterrupt


def show_progress(trt: Any, config: Any, label: str, stopped: Callable[[], bool]) -> None:
    """A progress bar over the build's outermost phase, where the version reports one (10 and newer).

    The build is given up where it was `stopped`.
    """
    if not hasattr(trt, "IProgressMonitor"):
        return
    from tqdm import tqdm

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outer: str | None = None
            self._bar: Any = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self._outer is None:
                self._outer = phase_name
                self._bar = tqdm(total=num_steps, desc=label, unit="step", leave=False)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self._outer:
                self._bar.update(step + 1 - self._bar.n)
            return not stopped()

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self._outer:
                self._bar.close()
                self._outer = None

    config.progress_monitor = Monitor()


def time_layers(trt: Any, context: Any) -> dict[str, list[float]]:
    """Has a context report how long its layers take: milliseconds of each run by layer, filled as it runs."""
    times: dict[str, list[float]] = {}

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            times.setdefault(layer_name, []).append(ms)

    context.profiler = Profiler()
    return times


def contexts_share_profiles(trt: Any) -> bool:
    """Whether several contexts may use one profile at a time; before 10 each needs its own."""
    return hasattr(trt, "ExecutionContextAllocationStrategy")


def create_bare_context(trt: Any, engine: Any) -> Any:
    """An execution context without memory of its own: several can share one."""
    if hasattr(engine, "create_execution_context_without_device_memory"):
        return engine.create_execution_context_without_device_memory()
    return engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)


def device_memory_size(engine: Any) -> int:
    """Bytes a context works in, for any shape of the profile."""
    if hasattr(engine, "device_memory_size_v2"):
        return int(engine.device_memory_size_v2)
    return int(engine.device_memory_size)


def give_memory(context: Any, address: int, size: int) -> None:
    """Has a bare context work in this memory."""
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(address, size)
    else:
        context.device_memory = address


def dtype_of(engine: Any, name: str) -> str:
    """numpy's name for the type of an engine's tensor. Raises EngineError for one arcedge does not use."""
    kind = engine.get_tensor_dtype(name).name
    if kind not in DTYPES:
        raise EngineError(f"tensor {name} has type {kind}, which arcedge does not use")
    return DTYPES[kind]
