"""What the measuring command needs of the machine, and says before it begins: its parts take minutes each."""

from __future__ import annotations

import shutil
from hashlib import sha256
from importlib.util import find_spec

from benchmarks.energy.jetson import find_rails
from benchmarks.energy.nvml import find_gpus
from benchmarks.gpu.sanitizer import PROGRAM as SANITIZER
from edge.cuda import CudaDevice
from edge.cuda.kernels import Kernels, read_fat_binary
from edge.engines.onnxruntime import OnnxRuntimeEngine
from edge.engines.tensorrt import TensorRtEngine
from edge.errors import EdgeError, EngineError

PICTURES = {"skimage": "scikit-image", "matplotlib": "matplotlib"}
"""Whose photographs of people the frames are made of: by module the package."""


def require_engines() -> None:
    """Raises EngineError without TensorRT or its judge: engines would take minutes each to be built for nothing."""
    reasons = [TensorRtEngine().available()]
    if missing := OnnxRuntimeEngine().available():
        reasons.append(f"no engine is kept that was not held against ONNX Runtime: {missing}")
    if any(reasons):
        raise EngineError("; ".join(filter(None, reasons)))


def will_be_missed(device: CudaDevice, image: bytes | None) -> list[str]:
    """Of what only some figures need, a line for each thing that is not here. image: of the kernels; None for the
    fat binary.
    """
    found = []
    try:
        Kernels(device, image)
    except EdgeError as error:
        found.append(f"kernels, search and frames will not be measured: {error}")
    without = [package for module, package in PICTURES.items() if find_spec(module) is None]
    if without:
        names = " ".join(without)
        found.append(f"frames will not be measured: {' and '.join(without)} not installed; pip install {names}")
    if find_spec("onnx") is None:
        found.append("the roofline will not be measured: onnx is not installed; install it with: pip install onnx")
    (gpus, no_gpu), (rails, no_rails) = find_gpus(), find_rails()
    if not gpus and not rails:
        found.append(f"the GPU's joules will not be measured: {'; '.join(filter(None, (no_gpu, no_rails)))}")
    if shutil.which(SANITIZER) is None:
        found.append(f"the kernels will not be looked at by {SANITIZER}: it is not here")
    return found


def kernels_digest(image: bytes | None) -> str | None:
    """SHA-256 of the kernels, None where there are none. image: as `will_be_missed` takes it."""
    try:
        return sha256(image or read_fat_binary()).hexdigest()
    except EdgeError:
        return None
