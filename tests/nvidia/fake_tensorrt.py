"""A stand-in for the tensorrt package, for machines without a GPU: it builds by keeping the ONNX file, and runs it with
ONNX Runtime on the addresses it is given, through the emulated driver.

`make(version)` gives a module with exactly those names that the recorded table has for this version: code that uses
another one fails as it would with the real package. It is strict where the real one is: types must come from flags or
from strong typing, shapes must be set and in the profile, memory given, a profile chosen, and before 10 two contexts
may not share one. Of kernels, precision and speed it says nothing.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import signal
import types
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

TABLE = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text(encoding="utf-8"))

ENUMS = (
    *("BuilderFlag", "DataType", "ExecutionContextAllocationStrategy", "LayerInformationFormat", "MemoryPoolType"),
    *("NetworkDefinitionCreationFlag", "ProfilingVerbosity", "TensorIOMode"),
)

INT8, FP32 = "Thirty-two wide channel vectorized row major Int8", "Row major linear FP32"

starts = True
"""Whether there can be builders and runtimes: not on a driver that is older than the package's CUDA."""
executes = True
"""Whether contexts take work."""
tells_shapes = True
"""Whether contexts say how large outputs are."""
without_kernel: set[str] = set()
"""Layers, by node name, that cannot be built while they take a dequantised tensor."""

built: list[bytes] = []
"""Every model that was to be built, in order."""

timings: list[bytes] = []
"""The timing cache that each build was given, in order."""

interrupt_builds = False
"""Ctrl-C is pressed while progress is reported."""

spoil_plans = False
"""Whether engines give something else than their model."""

spoil_ranges: set[int] = set()
"""Profiles whose kernels give something else than the model."""

spoil_way_back = False
"""Whether a profile gives something else once a higher one has run."""


class Enum:
    def __init__(self, name: str, value: int) -> None:
        self.name, self.value = name, value

    def __int__(self) -> int:
        return self.value


def make(version: str) -> types.ModuleType:
    """The package as of `version`, one of the table's."""
    place = TABLE["versions"].index(version)
    names = {name for name, has in TABLE["names"].items() if has[place] == "1"}
    module = types.ModuleType("tensorrt")
    module.__version__ = version  # type: ignore[attr-defined]
    strongly_typed = "NetworkDefinitionCreationFlag.STRONGLY_TYPED" in names
    sharing = "ExecutionContextAllocationStrategy" in names

    for enum in ENUMS:
        members = sorted(name.split(".")[1] for name in names if re.fullmatch(rf"{enum}\.[A-Z0-9_]+", name))
        if enum in names:
            # Numbers of this version alone, so that code that writes numbers fails.
            offset = place + 3
            setattr(module, enum, types.SimpleNamespace(**{m: Enum(m, i + offset) for i, m in enumerate(members)}))

    class ILogger:
        ERROR, INTERNAL_ERROR, WARNING = Enum("ERROR", 1), Enum("INTERNAL_ERROR", 0), Enum("WARNING", 2)

    class IProgressMonitor:
        pass

    class IProfiler:
        pass

    class HostMemory(bytes):
        pass

    class Network:
        def __init__(self, flags: int) -> None:
            self.strong = strongly_typed and flags == 1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            if not strongly_typed:
                assert flags == 1 << int(module.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
            self.data = b""

        @property
        def num_inputs(self) -> int:
            return len(onnx.load_from_string(self.data).graph.input)

        def get_input(self, i: int) -> Any:
            value = onnx.load_from_string(self.data).graph.input[i]
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
            return types.SimpleNamespace(name=value.name, shape=shape)

    class Profile:
        def __init__(self) -> None:
            self.shapes: dict[str, Any] = {}

        def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
            self.shapes[name] = [list(low), list(best), list(high)]

    class Config:
        def __init__(self) -> None:
            self.flags: set[str] = {"TF32"}
            self.profiles: list[Profile] = []
            self.monitor: Any = None
            self.timings = b""

        def clear_flag(self, flag: Enum) -> None:
            self.flags.discard(flag.name)

        def set_flag(self, flag: Enum) -> None:
            self.flags.add(flag.name)

        def set_memory_pool_limit(self, pool: Enum, size: int) -> None:
            assert pool.name == "WORKSPACE"
            assert size > 0

        def add_optimization_profile(self, profile: Profile) -> int:
            self.profiles.append(profile)
            return len(self.profiles) - 1

        def create_timing_cache(self, data: bytes) -> Any:
            return types.SimpleNamespace(data=data, serialize=lambda: f"timings of {version}".encode())

        def set_timing_cache(self, timing_cache: Any, ignore_mismatch: bool) -> bool:
            fits: bool = timing_cache.data in (b"", f"timings of {version}".encode())
            if fits:
                self.timings = timing_cache.data
            return fits

    if "IBuilderConfig.progress_monitor" in names:
        Config.progress_monitor = property(  # type: ignore[attr-defined]
            lambda self: self.monitor, lambda self, monitor: setattr(self, "monitor", monitor)
        )

    class Parser:
        def __init__(self, network: Network, logger: Any) -> None:
            self.network, self.errors = network, []

        def parse(self, data: bytes) -> bool:
            try:
                onnx.checker.check_model(onnx.load_from_string(data))
            except Exception as error:
                self.errors = [types.SimpleNamespace(desc=lambda said=str(error): said)]
                return False
            self.network.data = data
            return True

        @property
        def num_errors(self) -> int:
            return len(self.errors)

        def get_error(self, i: int) -> Any:
            return self.errors[i]

    def start(logger: Any) -> None:
        loggers.add(logger)
        if not starts:
            logger.log(
                ILogger.WARNING, "CUDA initialization failure with error: 35. Please check your CUDA installation"
            )
            raise TypeError("pybind11::init(): factory function returned nullptr")

    class Builder:
        def __init__(self, logger: Any) -> None:
            start(logger)
            self.logger = logger

        def create_network(self, flags: int) -> Network:
            return Network(flags)

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> HostMemory | None:
            built.append(network.data)
            timings.append(config.timings)
            model = onnx.load_from_string(network.data)
            assert "TF32" not in config.flags
            if not network.strong:
                operators = {node.op_type for node in model.graph.node}
                assert ("INT8" in config.flags) == ("QuantizeLinear" in operators)
            if config.monitor is not None:
                config.monitor.phase_start("Building", None, 2)
                config.monitor.phase_start("Inner", "Building", 1)
                config.monitor.phase_finish("Inner")
                goes_on = lost_in_bindings(config.monitor.step_complete, "Building", 1)
                config.monitor.phase_finish("Building")
                if not goes_on:
                    self.logger.log(ILogger.ERROR, "Error Code 1: the build was cancelled")
                    return None
            dequantised = {n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
            for node in model.graph.node:
                if node.name in without_kernel and dequantised & set(node.input):
                    said = f"10: Could not find any implementation for node w + Quantize_1 + {node.name} + Relu_7."
                    self.logger.log(ILogger.WARNING, "nothing that matters")
                    self.logger.log(ILogger.ERROR, f"[optimizer.cpp::computeCosts::3728] Error Code {said}")
                    return None
            head = json.dumps({"version": version, "profiles": [profile.shapes for profile in config.profiles]})
            return HostMemory(head.encode() + b"\0" + network.data)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            start(logger)
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            head, _, model = bytes(plan).partition(b"\0")
            if json.loads(head)["version"] != version:
                self.logger.log(ILogger.ERROR, "the plan is of another version")
                return None
            return Engine(json.loads(head)["profiles"] or [{}], model)

    class Engine:
        def __init__(self, profiles: list[dict[str, Any]], model: bytes) -> None:
            self.profiles = profiles
            self.highest = 0
            self.model = onnx.load_from_string(model)
            self.digest = hashlib.sha256(model).digest()
            # One thread: others would spin for as long as there is nothing to do, which is most of a test's time.
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self.ort = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self.tensors = {node.name: (node, True) for node in self.ort.get_inputs()}
            self.tensors |= {node.name: (node, False) for node in self.ort.get_outputs()}
            self.contexts: weakref.WeakSet[Context] = weakref.WeakSet()

        @property
        def num_optimization_profiles(self) -> int:
            return len(self.profiles)

        @property
        def num_io_tensors(self) -> int:
            return len(self.tensors)

        def get_tensor_name(self, i: int) -> str:
            return list(self.tensors)[i]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(size if isinstance(size, int) else -1 for size in self.tensors[name][0].shape)

        def get_tensor_mode(self, name: str) -> Enum:
            return module.TensorIOMode.INPUT if self.tensors[name][1] else module.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Enum:
            kind = {"tensor(float)": "FLOAT", "tensor(uint8)": "UINT8"}[self.tensors[name][0].type]
            return getattr(module.DataType, kind)

        def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
            return self.profiles[profile][name]

        def create_engine_inspector(self) -> Any:
            assert self.model is not None
            return Inspector(self)

        def layers(self, context: Context | None) -> list[dict[str, Any]]:
            """As the inspector words them: a layer with what feeds it and, of all profiles but the first, a number.

            Formats only of the profile of a context whose shapes are set.
            """
            integer = {n.output[0] for n in self.model.graph.node if n.op_type == "DequantizeLinear"}
            found = []
            for profile in range(len(self.profiles)):
                for node in self.model.graph.node:
                    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                        continue
                    told = context is not None and context.shapes and context.active_optimization_profile == profile
                    tensors = [
                        {
                            "Name": name,
                            "Format/Datatype": f"{INT8 if name in integer else FP32} format"
                            if told
                            else "N/A due to dynamic shapes",
                        }
                        for name in node.input
                    ]
                    name = f"{node.input[1]} + {node.name}" if len(node.input) > 1 else node.name
                    suffix = f" [profile {profile}]" if profile else ""
                    found.append({"Name": name + suffix, "Inputs": tensors, "Outputs": []})
            return found

    class Inspector:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine
            self.execution_context: Context | None = None

        def get_engine_information(self, kind: Any) -> str:
            return json.dumps({"Layers": self.engine.layers(self.execution_context)})

    def create_context(engine: Engine, strategy: Any = None) -> Context:
        assert strategy is None or strategy.name == "USER_MANAGED"
        return Context(engine)

    if "ICudaEngine.create_execution_context_without_device_memory" in names:
        Engine.create_execution_context_without_device_memory = create_context  # type: ignore[attr-defined]
    Engine.create_execution_context = create_context  # type: ignore[attr-defined]
    for name in ("device_memory_size", "device_memory_size_v2"):
        if f"ICudaEngine.{name}" in names:
            setattr(Engine, name, property(lambda self: 4096))

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine
            self.active_optimization_profile = -1
            if not engine.contexts:
                self._take(0)
            engine.contexts.add(self)
            self.memory = 0
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}
            self.flushed: Any = None
            self.profiler: Any = None

        def _take(self, profile: int) -> None:
            others = {c.active_optimization_profile for c in self.engine.contexts if c is not self}
            assert sharing or profile not in others, "two contexts of one profile"
            self.active_optimization_profile = profile

        def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
            self._take(profile)
            self.shapes.clear()
            self.flushed = None
            return 0 <= profile < len(self.engine.profiles)

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            assert self.active_optimization_profile >= 0, "no profile was chosen"
            low, _, high = self.engine.profiles[self.active_optimization_profile].get(name, [shape, shape, shape])
            self.shapes[name] = tuple(shape)
            return all(a <= s <= b for a, s, b in zip(low, shape, high, strict=True))

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            asked = self.engine.digest, tuple((n, s[1:]) for n, s in self.shapes.items())
            if asked not in one_row:
                found = self._run({n: np.zeros((1, *s[1:]), self._dtype(n)) for n, s in self.shapes.items()})
                one_row[asked] = {n: value.shape[1:] for n, value in found.items()}
            return (next(iter(self.shapes.values()))[0] if tells_shapes else -1, *one_row[asked][name])

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            assert self.memory, "no memory was given"
            if not executes:
                next(iter(loggers)).log(
                    ILogger.ERROR, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (no room)"
                )
                return False
            state = (dict(self.shapes), dict(self.addresses))
            # The first run after a change of shape does work that a graph cannot hold.
            assert not driver().emulated_capturing(ctypes.c_void_p(stream)) or self.flushed == state
            self.flushed = state
            jobs.append((weakref.ref(self), *state))
            status = driver().emulated_work(ctypes.c_void_p(stream), CALLBACK, len(jobs) - 1)
            return status == 0

        def _dtype(self, name: str) -> Any:
            return {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}[self.engine.tensors[name][0].type]

        def _run(self, feeds: dict[str, Any]) -> dict[str, Any]:
            outputs = [node.name for node in self.engine.ort.get_outputs()]
            return dict(zip(outputs, self.engine.ort.run(outputs, feeds), strict=True))

        def _work(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
            feeds = {n: _array(addresses[n], s, self._dtype(n)).copy() for n, s in shapes.items()}
            for place, node in enumerate(self.engine.model.graph.node if self.profiler is not None else ()):
                self.profiler.report_layer_time(node.name, 0.25 * (place + 1))
            profile = self.active_optimization_profile
            wrong = spoil_plans or profile in spoil_ranges or (spoil_way_back and profile < self.engine.highest)
            self.engine.highest = max(self.engine.highest, profile)
            for name, value in self._run(feeds).items():
                there = _array(addresses[name], value.shape, value.dtype)
                there[...] = value[..., ::-1] if wrong else value

    def set_memory(context: Context, address: int, size: int = 0) -> None:
        context.memory = address

    if "IExecutionContext.set_device_memory" in names:
        Context.set_device_memory = set_memory  # type: ignore[attr-defined]
    Context.device_memory = property(lambda self: self.memory, set_memory)  # type: ignore[attr-defined]

    for cls in (ILogger, IProgressMonitor, IProfiler, Builder, Runtime):
        if cls.__name__ in names:
            setattr(module, cls.__name__, cls)
    module.OnnxParser = Parser  # type: ignore[attr-defined]
    return module


def lost_in_bindings(callback: Any, *arguments: Any) -> bool:
    """What a callback gives; False where it raises, which the bindings print."""
    try:
        if interrupt_builds:
            os.kill(os.getpid(), signal.SIGINT)
        return bool(callback(*arguments))
    except BaseException as error:
        print(f"[ERROR] Exception caught in {callback.__name__}(): {error!r}")
        return False


jobs: list[Any] = []

loggers: set[Any] = set()
"""Those that builders and runtimes were given."""

one_row: dict[Any, dict[str, tuple[int, ...]]] = {}
"""Shapes of a model's outputs for one row, by its digest and the shapes of its inputs, as a run of it gave them."""


@ctypes.CFUNCTYPE(None, ctypes.c_long)
def CALLBACK(job: int) -> None:  # noqa: N802
    context, shapes, addresses = jobs[job]
    context()._work(shapes, addresses)


def driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _array(address: int, shape: tuple[int, ...], dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = (ctypes.c_uint8 * size).from_address(address)
    return np.frombuffer(raw, dtype).reshape(shape)
