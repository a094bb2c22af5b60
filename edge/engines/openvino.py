"""OpenVINO: the fast engine on x86, for FP32 and INT8; `openvino-bf16` where the CPU computes in that."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from edge.engines.base import Array, Engine, Session, SessionOptions, TensorSpec
from edge.errors import EngineError, end_if_interrupted

STEADY = 10
"""Runs of one shape after which a model that takes any is compiled for it as well.

OpenVINO drops turning pictures and features round only where it knows every size: the default INT8 detector takes half
as long then. Compiling it takes as long as some 70 frames save.
"""

MOST_COMPILED = 4
"""Shapes a model is compiled for at most: photos of many sizes are not worth it."""

Shapes = tuple[tuple[int, ...], ...]


def package() -> Any:
    """The package `openvino`, which tells nobody that it is used. Raises ImportError where it is not installed."""
    # By itself each import of it forks a process that tells Google Analytics, keeps a number of this user in ~/intel,
    # and holds up the end of the program. Where this module is missing the package takes a stand-in that does nothing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class OpenVinoSession(Session):
    """A model compiled by OpenVINO for the CPU. hint: "f32", the precision its file carries, or "bf16".

    Where only the batch varies, the model is compiled for one, and a batch runs row by row, which is faster a row.
    """

    def __init__(self, model: bytes, options: SessionOptions, hint: str = "f32") -> None:
        super().__init__()
        ov = package()
        if options.device != "cpu":
            raise EngineError(f"the openvino engine runs on the cpu here; it was asked for {options.device}")
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            # Precision is the file's business: without this, CPUs with bf16 would run an FP32 model in it unasked.
            "INFERENCE_PRECISION_HINT": hint,
        }
        self._options, self._hint = options, hint
        self._core = ov.Core()
        try:
            self._model = self._core.read_model(model)
            self.inputs = tuple(_spec(port) for port in self._model.inputs)
            self.outputs = tuple(_spec(port) for port in self._model.outputs)
            self._row_by_row = all(_varies_in_batch(spec) for spec in (*self.inputs, *self.outputs))
            self._steady: dict[Shapes, Any] = {}
            self._runs: Counter[Shapes] = Counter()
            one = tuple((1, *spec.shape[1:]) for spec in self.inputs)
            self._request = self._compiled(one if self._row_by_row else None)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise EngineError(f"OpenVINO refuses the model: {_last_line(error)}") from error

    def describe(self) -> dict[str, str]:
        return {
            "engine": "openvino",
            "version": package().__version__,
            "device": self._options.device,
            "threads": str(self._options.threads),
            "float layers": self._hint,
        }

    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        try:
            if not self._row_by_row:
                return self._results(self._request_for(tuple(batch[spec.name].shape for spec in self.inputs)), batch)
            counts = {len(array) for array in batch.values()}
            if len(counts) != 1 or counts == {0}:
                raise EngineError(f"a batch has one row or more, as many in each input; this one has {sorted(counts)}")
            rows = [
                self._results(self._request, {name: array[i : i + 1] for name, array in batch.items()})
                for i in range(counts.pop())
            ]
            return (
                rows[0] if len(rows) == 1 else {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
            )
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {_last_line(error)}") from error

    def _request_for(self, shapes: Shapes) -> Any:
        """Of the model compiled for these shapes where they are usual, else of the one that takes any."""
        if shapes not in self._steady and None in [size for spec in self.inputs for size in spec.shape]:
            self._runs[shapes] += 1
            if self._runs[shapes] < STEADY or len(self._steady) == MOST_COMPILED:
                return self._request
            self._steady[shapes] = self._compiled(shapes)
            self._runs.clear()
        return self._steady.get(shapes, self._request)

    def _compiled(self, shapes: Shapes | None) -> Any:
        """A request of the model for inputs of these shapes; None for those its file allows."""
        model = self._model
        if shapes is not None:
            model = model.clone()
            model.reshape({port: list(shape) for port, shape in zip(model.inputs, shapes, strict=True)})
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request()

    def _results(self, request: Any, batch: Mapping[str, Array]) -> dict[str, Array]:
        results = request.infer(dict(batch))
        # The request's buffers are written again by the next run; what leaves here must not change.
        return {spec.name: np.array(results[i]) for i, spec in enumerate(self.outputs)}

    def _close_impl(self) -> None:
        del self._request, self._model
        self._steady.clear()


class OpenVinoEngine(Engine):
    """See the module."""

    name = "openvino"
    extra = "openvino"

    def available(self) -> str | None:
        try:
            package()
        except ImportError as error:
            end_if_interrupted(error)
            return "openvino is not installed; install it with: pip install 'arcedge[openvino]'"
        return None

    def version(self) -> str:
        return str(package().__version__)

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
    return tuple(package().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _varies_in_batch(spec: TensorSpec) -> bool:
    """Whether the first dimension, and no other, is open."""
    return spec.shape[:1] == (None,) and None not in spec.shape[1:]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, shape)
