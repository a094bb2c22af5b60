"""TensorRT: engines built on the device from a bundle's ONNX files, kept with a passport, run through CUDA graphs."""

from __future__ import annotations

from edge.engines.tensorrt.engine import TensorRtEngine
from edge.engines.tensorrt.options import Profile, TensorRtOptions

__all__ = ["Profile", "TensorRtEngine", "TensorRtOptions"]
