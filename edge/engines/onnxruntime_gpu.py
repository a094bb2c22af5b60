"""ONNX Runtime's CUDA and TensorRT providers, as engines of their own names. They run every node, or nothing."""

from __future__ import annotations

import ctypes
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge.cuda.driver import DeviceInfo, device_info, missing_driver
from edge.engine_cache import EngineCache, EngineIdentity
from edge.engines.base import SessionOptions, TensorSpec
from edge.engines.onnxruntime import CUDA, OnnxRuntimeEngine, OnnxRuntimeSession, Provider, model_specs
from edge.engines.onnxruntime_plans import kept_plans
from edge.engines.tensorrt.onnx_file import OnnxFile
from edge.engines.tensorrt.options import Profile, Shape
from edge.errors import EngineError

WORKSPACE = 1 << 30
"""Bytes TensorRT may try kernels with."""

PROVIDER_LIBRARY = "libonnxruntime_providers_tensorrt.so"


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
    """TensorRT inside ONNX Runtime. It builds an engine the first time, which takes minutes, and keeps it.

    A kept one is given to ONNX Runtime only after its passport was checked; see `edge.engines.onnxruntime_plans`.
    """

    name = "onnxruntime-tensorrt"
    provider = Provider("TensorRT")

    def available(self) -> str | None:
        if missing := super().available():
            return missing
        try:
            self.version()
        except EngineError as error:
            return str(error)
        return None

    def version(self) -> str:
        """Of both: "1.31.1 with TensorRT 10.13.0"."""
        import onnxruntime as ort

        return f"{super().version()} with TensorRT {tensorrt_version(Path(ort.__file__).parent / 'capi')}"

    def open(self, model: bytes, options: SessionOptions) -> OnnxRuntimeSession:
        # This opens the model on the CPU, which refuses one that is a plan in the dress of an ONNX file (EPContext).
        given = tensorrt_options(model, model_specs(model)[0])
        identity = identity_of(model, given, options, self.version(), device_info())
        with kept_plans(EngineCache(), identity) as folder:
            cached = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder)}
            return OnnxRuntimeSession(model, options, Provider("TensorRT", {**given, **cached}))


def tensorrt_options(model: bytes, inputs: Sequence[TensorSpec]) -> dict[str, str]:
    """The provider's options that a model needs, but for the cache: its precision, and the shapes it may get.

    What can bring in engines of others stays off, as it is by default: contexts (trt_dump_ep_context_model), engines
    without weights, for several architectures (trt_engine_hw_compatible) or encrypted. There is no timing cache: it is
    read only where a model is built anew, which after a change of anything that counts must not trust the old one's.
    ONNX Runtime's Python refuses a switch that is neither "True" nor "False". Raises EngineError where the model is
    none, or its shapes fit no profile.
    """
    shapes = {spec.name: Profile().whole(spec.name, spec.shape) for spec in inputs if None in spec.shape}
    precision = OnnxFile(model).precision
    return {
        "device_id": "0",
        "trt_max_workspace_size": str(WORKSPACE),
        # To TensorRT 10 a file's types alone do not allow half and eight bits; these do. Eight bits with half: a layer
        # without an integer kernel would fall back to FP32 otherwise.
        "trt_fp16_enable": str(precision != "fp32"),
        "trt_int8_enable": str(precision == "int8"),
        **{
            f"trt_profile_{which}_shapes": ",".join(_shape(name, three[place]) for name, three in shapes.items())
            for place, which in enumerate(("min", "opt", "max"))
            if shapes
        },
    }


def identity_of(
    model: bytes, given: Mapping[str, str], options: SessionOptions, version: str, info: DeviceInfo
) -> EngineIdentity:
    """What the provider's engines for this model are. given: its options; version: ONNX Runtime's and TensorRT's."""
    shapes = {name: value for name, value in given.items() if name.startswith("trt_profile_")}
    return EngineIdentity(
        model=hashlib.sha256(model).hexdigest(),
        engine=TensorRtProviderEngine.name,
        version=version,
        device=info.module,
        capability=info.architecture,
        driver=info.driver_name,
        precision=OnnxFile(model).precision,
        profile=" ".join(shapes.values()),
        flags=(
            *(f"{name}={value}" for name, value in given.items() if name not in shapes),
            # ONNX Runtime rewrites a graph before the provider sees it, or leaves it alone.
            f"as-written={options.as_written}",
        ),
    )


def tensorrt_version(folder: Path) -> str:
    """Version of the TensorRT that ONNX Runtime's provider in `folder` will run on: "10.3.0". Needs a driver.

    Asked of TensorRT's library, under the name by which the provider needs it; the provider itself can be loaded by
    ONNX Runtime alone. Raises EngineError where there is no such provider or library.
    """
    provider = folder / PROVIDER_LIBRARY
    try:
        needed = re.search(rb"libnvinfer\.so\.\d+", provider.read_bytes())
    except OSError as error:
        raise EngineError(f"{provider}: cannot be read ({error.strerror}); install arcedge[gpu]") from error
    if needed is None:
        raise EngineError(f"{provider}: does not say which TensorRT it needs; use another version of ONNX Runtime")
    library = needed.group().decode()
    try:
        number = int(ctypes.CDLL(library).getInferLibVersion())
    except (OSError, AttributeError) as error:
        raise EngineError(
            f"this ONNX Runtime needs TensorRT's {library}, which cannot be loaded; "
            "install that TensorRT and put its libraries' folder into LD_LIBRARY_PATH"
        ) from error
    # 8.6.1 is 8601, and 10.3.0 is 100300.
    major, rest = divmod(number, 10000 if number >= 10000 else 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _shape(name: str, shape: Shape) -> str:
    return f"{name}:{'x'.join(map(str, shape))}"
