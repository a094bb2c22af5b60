"""ONNX Runtime: the portable engine, on the CPU, or on a provider that then really runs every node."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.engines.base import Array, Engine, Session, SessionOptions, TensorSpec
from edge.engines.onnxruntime_arena import share
from edge.engines.placement import PlacedNode, described, read_profile, require_placed
from edge.errors import EngineError, end_if_interrupted

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
_PROBE_SIDE = 64
"""Pixels of the picture on which placement is proved, where a model takes any size."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider. name: "CPU", "CUDA", "TensorRT"; options: strings, as its documentation names them."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """As ONNX Runtime has it."""
        return f"{'Tensorrt' if self.name == 'TensorRT' else self.name}ExecutionProvider"


CPU = Provider("CPU")
# Products of float32 are float32: TF32 would round them to ten bits. Searching every convolution's fastest kernel anew
# for each size of a frame takes seconds a size, so the library's own guess is taken.
CUDA = Provider("CUDA", {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})


class OnnxRuntimeSession(Session):
    """A model opened by ONNX Runtime on exactly the provider asked for.

    On a GPU the model is run once, and refused where a node of it ran elsewhere; see `edge.engines.placement`.
    """

    def __init__(self, model: bytes, options: SessionOptions, provider: Provider = CPU) -> None:
        super().__init__()
        import onnxruntime as ort

        if provider.full_name not in ort.get_available_providers():
            raise EngineError(
                f"this ONNX Runtime has no {provider.full_name}; uninstall onnxruntime and install arcedge[gpu], "
                "or use the cpu"
            )
        self._options, self._provider = options, provider
        self._nodes: tuple[PlacedNode, ...] = ()
        if provider == CPU:
            settings = _settings(options)
            if not options.as_written:  # the export's reference takes batches whose memory must not stay
                share(settings)
            self._session = _opened(model, settings, provider)
        else:
            self._session = self._proved(model)
        self.inputs, self.outputs = _specs(self._session)
        self._names = [spec.name for spec in self.outputs]

    def describe(self) -> dict[str, str]:
        import onnxruntime as ort

        values = {
            "engine": "onnxruntime",
            "version": ort.__version__,
            "device": "cpu" if self._provider == CPU else "cuda",
            "threads": str(self._options.threads),
        }
        return values | ({"placed": described(self._nodes)} if self._nodes else {})

    def _proved(self, model: bytes) -> Any:
        import tempfile  # on a GPU alone

        settings = _settings(self._options)
        with tempfile.TemporaryDirectory(prefix="arcedge-") as folder:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder) / "placement")
            session = _opened(model, settings, self._provider)
            try:
                session.run(None, {spec.name: _probe(spec) for spec in _specs(session)[0]})
            except Exception as error:
                raise EngineError(f"ONNX Runtime failed on {self._provider.name}: {_first_line(error)}") from error
            self._nodes = read_profile(Path(session.end_profiling()))
        require_placed(self._nodes, self._provider.name)
        return session

    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(self._names, self._session.run(self._names, dict(batch)), strict=True))
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {_first_line(error)}") from error

    def _close_impl(self) -> None:
        del self._session


class OnnxRuntimeEngine(Engine):
    """See the module."""

    name = "onnxruntime"
    extra = ""

    def available(self) -> str | None:
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            end_if_interrupted(error)
            return "onnxruntime is not installed; install it with: pip install arcedge (or 'arcedge[gpu]' for CUDA)"
        return None

    def version(self) -> str:
        import onnxruntime as ort

        return str(ort.__version__)

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(model, options, CUDA if options.device == "cuda" else CPU)


def provider_names() -> list[str]:
    """What this ONNX Runtime can run on: "CPU", "CUDA", … Needs the package."""
    import onnxruntime as ort

    return [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]


def model_specs(model: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """What an ONNX model takes and gives. Raises EngineError for bytes that are none."""
    return _specs(_opened(model, _settings(SessionOptions(as_written=True)), CPU))


def _settings(options: SessionOptions) -> Any:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if options.as_written:
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # A pool that spins between two frames burns the core the next stage needs.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings


def _opened(model: bytes, settings: Any, provider: Provider) -> Any:
    import onnxruntime as ort

    chosen = [(provider.full_name, dict(provider.options))]
    try:
        if provider != CPU and hasattr(ort, "preload_dlls"):
            # The package prints what it could not find, and standard output may be the events'.
            with contextlib.redirect_stdout(sys.stderr):
                ort.preload_dlls()
        # Without this the package prints that it falls back to another provider, and does.
        session = ort.InferenceSession(model, settings, providers=chosen, enable_fallback=0)
    except Exception as error:  # the package raises a class of its own for each status
        raise EngineError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error
    if provider.full_name not in session.get_providers():
        raise EngineError(f"ONNX Runtime could not start {provider.full_name}; see edge doctor")
    session.disable_fallback()
    # Kept by the package for opening the model again on another provider, which this never does.
    session._model_bytes = b""
    return session


def _probe(spec: TensorSpec) -> Array:
    shape = [(1 if place == 0 else _PROBE_SIDE) if size is None else size for place, size in enumerate(spec.shape)]
    return np.zeros(shape, spec.dtype)


def _specs(session: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    inputs = tuple(_spec(node) for node in session.get_inputs())
    return inputs, tuple(_spec(node) for node in session.get_outputs())


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    if node.type not in _DTYPES:
        raise EngineError(f"tensor {node.name} has type {node.type}, which arcedge does not use")
    return TensorSpec(node.name, _DTYPES[node.type], shape)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
