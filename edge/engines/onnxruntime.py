"""ONNX Runtime: the portable engine, on the CPU or through CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.engines.base import Array, Engine, Session, SessionOptions, TensorSpec
from edge.errors import EngineError

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntimeSession(Session):
    """A model opened by ONNX Runtime on exactly the provider asked for."""

    def __init__(self, model: bytes, options: SessionOptions) -> None:
        super().__init__()
        import onnxruntime as ort

        provider = _PROVIDERS[options.device]
        if provider not in ort.get_available_providers():
            raise EngineError(
                f"this ONNX Runtime has no {provider}; uninstall onnxruntime and install arcedge[gpu], or use the cpu"
            )
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3
        if options.as_written:
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # A pool that spins between two frames burns the core the next stage needs.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(model, settings, providers=[provider])
        except Exception as error:  # the package raises a class of its own for each status
            raise EngineError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error
        if provider not in self._session.get_providers():
            raise EngineError(f"ONNX Runtime could not start {provider}; see edge doctor")
        self._options = options
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def describe(self) -> dict[str, str]:
        import onnxruntime as ort

        return {
            "engine": "onnxruntime",
            "version": ort.__version__,
            "device": self._options.device,
            "threads": str(self._options.threads),
        }

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
        except ImportError:
            return "onnxruntime is not installed; install it with: pip install arcedge (or 'arcedge[gpu]' for CUDA)"
        return None

    def version(self) -> str:
        import onnxruntime as ort

        return str(ort.__version__)

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(model, options)


def provider_names() -> list[str]:
    """What this ONNX Runtime can run on: "CPU", "CUDA", … Needs the package."""
    import onnxruntime as ort

    return [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    if node.type not in _DTYPES:
        raise EngineError(f"tensor {node.name} has type {node.type}, which arcedge does not use")
    return TensorSpec(node.name, _DTYPES[node.type], shape)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
