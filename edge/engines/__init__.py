"""Engines by name. An engine's package is imported when the engine is used, never before."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edge.engines.base import Array, Engine, Session, SessionOptions, TensorSpec
from edge.errors import EngineError, InputError

__all__ = [
    "ENGINES",
    "REMOTE_ENGINES",
    "Array",
    "Engine",
    "Session",
    "SessionOptions",
    "TensorSpec",
    "get_engine",
    "open_session",
]

ENGINES: dict[str, str] = {
    "onnxruntime": "edge.engines.onnxruntime:OnnxRuntimeEngine",
    "onnxruntime-cuda": "edge.engines.onnxruntime_gpu:CudaProviderEngine",
    "onnxruntime-tensorrt": "edge.engines.onnxruntime_gpu:TensorRtProviderEngine",
    "openvino": "edge.engines.openvino:OpenVinoEngine",
    "openvino-bf16": "edge.engines.openvino:OpenVinoBf16Engine",
    "tensorrt": "edge.engines.tensorrt:TensorRtEngine",
    "triton": "edge.engines.triton:TritonEngine",
}

REMOTE_ENGINES = frozenset({"triton"})
"""Engines that compute on another machine: used where a user names them, never because they happen to be there."""


def get_engine(name: str) -> Engine:
    """The engine registered under `name`, whether or not it can run here. Raises EngineError for an unknown name."""
    if name not in ENGINES:
        raise EngineError(f"no engine is called {name!r}; there is {', '.join(ENGINES)}")
    module, _, attribute = ENGINES[name].partition(":")
    engine: Engine = getattr(import_module(module), attribute)()
    return engine


def open_session(model: bytes | Path, engine: str = "onnxruntime", options: SessionOptions | None = None) -> Session:
    """Opens an ONNX model, from bytes or a file, on the engine named.

    Raises EngineError where the engine is unknown, missing or refuses the model; InputError for an unreadable file.
    """
    chosen = get_engine(engine)
    if missing := chosen.available():
        raise EngineError(missing)
    return chosen.open(_read(model) if isinstance(model, Path) else model, options or SessionOptions())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
