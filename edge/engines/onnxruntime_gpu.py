"""ONNX Runtime's CUDA and TensorRT providers, as engines of their own names. They run every node, or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from edge.cuda.driver import missing_driver
from edge.engine_cache import EngineCache
from edge.engines.base import SessionOptions, TensorSpec
from edge.engines.onnxruntime import CUDA, OnnxRuntimeEngine, OnnxRuntimeSession, Provider, model_specs
from edge.engines.tensorrt.onnx_file import OnnxFile
from edge.engines.tensorrt.options import Profile, Shape

WORKSPACE = 1 << 30
"""Bytes TensorRT may try kernels with."""


class CudaProviderEngine(OnnxRuntimeEngine):
    """ONNX Runtime's own CUDA kernels and cuDNN: no engine is built, so it starts at once."""

    name = "onnxruntime-cuda"
    extra = "gpu"
    provider = CUDA

    def available(self) -> str | None:
        if missing := super().available() or missing_driver():
            return missing
        import onnxruntime as ort

        if self.provider.full_name not in ort.get_available_providers():
            return (
                f"this ONNX Runtime has no {self.provider.full_name}: "
                "pip uninstall onnxruntime, then pip install 'arcedge[gpu]'"
            )
        return None

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(model, options, self.provider)


class TensorRtProviderEngine(CudaProviderEngine):
    """TensorRT inside ONNX Runtime. It builds an engine the first time, which takes minutes, and keeps it."""

    name = "onnxruntime-tensorrt"
    provider = Provider("TensorRT")

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(model, options, tensorrt_provider(model, model_specs(model)[0], self.version()))


def tensorrt_provider(
    model: bytes, inputs: Sequence[TensorSpec], version: str, cache: EngineCache | None = None
) -> Provider:
    """The provider with the options a model needs: its precision, the shapes it may get, and a cache of its own.

    Engines are kept in a folder named by a digest over the model, ONNX Runtime's version and these options, so that a
    stale one is never picked up; ONNX Runtime itself tells GPUs and TensorRT versions apart within it. Raises
    EngineError where the model is none, its shapes fit no profile, or the cache cannot be used.
    """
    shapes = {spec.name: Profile().whole(spec.name, spec.shape) for spec in inputs if None in spec.shape}
    precision = OnnxFile(model).precision
    options = {
        "device_id": "0",
        "trt_max_workspace_size": str(WORKSPACE),
        # To TensorRT 10 a file's types alone do not allow half and eight bits; these do. Eight bits with half: a layer
        # without an integer kernel would fall back to FP32 otherwise.
        "trt_fp16_enable": "0" if precision == "fp32" else "1",
        "trt_int8_enable": "1" if precision == "int8" else "0",
        **{
            f"trt_profile_{which}_shapes": ",".join(_shape(name, three[place]) for name, three in shapes.items())
            for place, which in enumerate(("min", "opt", "max"))
            if shapes
        },
    }
    text = json.dumps([hashlib.sha256(model).hexdigest(), version, options], sort_keys=True)
    kept = (cache or EngineCache()).folder / f"onnxruntime-tensorrt-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    kept.mkdir(mode=0o700, exist_ok=True)
    return Provider(
        "TensorRT",
        {
            **options,
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(kept),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(kept),
        },
    )


def _shape(name: str, shape: Shape) -> str:
    return f"{name}:{'x'.join(map(str, shape))}"
