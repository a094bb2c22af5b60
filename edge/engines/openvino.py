"""OpenVINO: the fast engine on x86, for FP32 and INT8; `openvino-bf16` where the CPU computes in that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge.engines.base import Array, Engine, Session, SessionOptions, TensorSpec
from edge.errors import EngineError


class OpenVinoSession(Session):
    """A model compiled by OpenVINO for the CPU. hint: "f32", the precision its file carries, or "bf16"."""

    def __init__(self, model: bytes, options: SessionOptions, hint: str = "f32") -> None:
        super().__init__()
        import openvino as ov

        if options.device != "cpu":
            raise EngineError(f"the openvino engine runs on the cpu here; it was asked for {options.device}")
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            # Precision is the file's business: without this, CPUs with bf16 would run an FP32 model in it unasked.
            "INFERENCE_PRECISION_HINT": hint,
        }
        try:
            core = ov.Core()
            compiled = core.compile_model(core.read_model(model), "CPU", settings)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO refuses the model: {str(error).strip().splitlines()[-1]}") from error
        self._options, self._hint = options, hint
        self._request = compiled.create_infer_request()
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_spec(port) for port in compiled.outputs)

    def describe(self) -> dict[str, str]:
        import openvino as ov

        return {
            "engine": "openvino",
            "version": ov.__version__,
            "device": self._options.device,
            "threads": str(self._options.threads),
            "float layers": self._hint,
        }

    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        try:
            results = self._request.infer(dict(batch))
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {str(error).strip().splitlines()[-1]}") from error
        # The request's buffers are written again by the next run; what leaves here must not change.
        return {spec.name: np.array(results[i]) for i, spec in enumerate(self.outputs)}

    def _close_impl(self) -> None:
        del self._request


class OpenVinoEngine(Engine):
    """See the module."""

    name = "openvino"
    extra = "openvino"

    def available(self) -> str | None:
        try:
            import openvino  # noqa: F401
        except ImportError:
            return "openvino is not installed; install it with: pip install 'arcedge[openvino]'"
        return None

    def version(self) -> str:
        import openvino as ov

        return str(ov.__version__)

    def open(self, model: bytes, options: SessionOptions) -> OpenVinoSession:
        return OpenVinoSession(model, options)


class OpenVinoBf16Engine(OpenVinoEngine):
    """OpenVINO with float layers in bf16, on CPUs that compute in it. Asked for by name: it is another precision."""

    name = "openvino-bf16"

    def available(self) -> str | None:
        if missing := super().available():
            return missing
        if "BF16" not in capabilities():
            return "this CPU does not compute in bf16 (needs AVX-512 BF16 or AMX); use --engine openvino"
        return None

    def open(self, model: bytes, options: SessionOptions) -> OpenVinoSession:
        return OpenVinoSession(model, options, "bf16")


def capabilities() -> tuple[str, ...]:
    """What OpenVINO says this CPU computes in: "FP32", "INT8", "BF16", … Needs the package."""
    import openvino as ov

    return tuple(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, shape)
