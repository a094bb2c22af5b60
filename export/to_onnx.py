"""A torch module to an ONNX model: the dynamo exporter, our own tidying, and a comparison with torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edge.detect.decode import STRIDES
from edge.engines import open_session
from edge.errors import GateError
from export.graph import Array, Graph
from export.passes.constants import fold_constants, static_reshapes
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.name_tensors import name_tensors
from export.passes.opset import to_opset
from export.passes.pipeline import Passes
from export.passes.yunet_heads import yunet_heads

LANDMARKS = "landmarks"
"""A landmarker's output."""

MAX_ERROR = 1e-4
"""Largest difference from torch, as a share of the output's largest value: float32 summed in another order."""

ROUNDING = 1e-6
"""A difference that always passes: a detector's probabilities on a picture without faces are all near 0."""


class _Features(nn.Module):
    """The network up to its embedding before unit length; that last step is a pass of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.network.features(x))  # type: ignore[operator]


class _Predictions(nn.Module):
    """A detector up to its raw maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.predictions(x))  # type: ignore[operator]


def embedder_to_onnx(network: nn.Module, sample: Array, passes: Passes | None = None) -> ModelProto:
    """MobileFaceNet → (N, 3, 112, 112) float32 normalised → (N, D) features, with BatchNorm folded and names that last.

    sample: (N, 3, 112, 112) float32, N ≥ 2, real or real-like normalised faces to compare with torch on.
    Raises GateError where the graph does not give what torch gives.
    """
    wrapped = _Features(network).eval()
    batch = torch.export.Dim("batch")
    exported = _export(wrapped, sample, {"x": {0: batch}}, ["features"])
    model = tidy(_without_prefix(exported, "network."), passes or Passes())
    compare_with_torch(wrapped, model, sample)
    return model


def landmarker_to_onnx(network: nn.Module, sample: Array, passes: Passes | None = None) -> ModelProto:
    """A landmarker → (N, 3, 96, 96) float32 BGR 0-255 → (N, 10) pixels from the template, with a free N.

    sample: (N, 3, 96, 96) float32, N ≥ 2. Raises GateError where the graph does not give what torch gives.
    """
    network = network.eval()
    exported = _export(network, sample, {"x": {0: torch.export.Dim("batch")}}, [LANDMARKS])
    model = tidy(exported, passes or Passes())
    compare_with_torch(network, model, sample)
    return model


def detector_to_onnx(
    network: nn.Module, sample: Array, channels: Sequence[int], passes: Passes | None = None
) -> ModelProto:
    """A YuNet-family network → (N, 3, H, W) float32 BGR 0-255 → its twelve heads, with free N, H and W.

    The network's `predictions` gives one raw map a stride; the layout of the heads is a pass of ours, because exporters
    turn it into sequences and run-time shapes. sample: (N, 3, H, W) float32. channels: see `yunet_heads`.
    Raises GateError where the graph does not give what torch gives, also at another size.
    """
    network = network.eval()
    passes = passes or Passes()
    # The coarser half of the pyramid is added to the finer one: only whole multiples of the last stride fit together.
    rows, columns = torch.export.Dim("rows", min=1, max=512), torch.export.Dim("columns", min=1, max=512)
    free = {0: torch.export.Dim("batch"), 2: 32 * rows, 3: 32 * columns}
    wrapped = _Predictions(network).eval()
    exported = _export(wrapped, sample, {"x": free}, [f"predictions_{stride}" for stride in STRIDES])
    model = tidy(_without_prefix(exported, "network."), passes)
    model = passes.run("heads", lambda m: yunet_heads(m, channels), model)
    compare_with_torch(network, model, sample)
    compare_with_torch(network, model, np.ascontiguousarray(sample[:1, :, : sample.shape[2] // 64 * 32, :]))
    return model


def tidy(model: ModelProto, passes: Passes) -> ModelProto:
    """What every exported or imported graph goes through before anything else is done to it."""
    model = passes.run("fold constants", fold_constants, model)
    model = passes.run("static reshapes", static_reshapes, model)
    model = passes.run("fold BatchNorm", fold_batchnorm, model)
    model = passes.run("name tensors", name_tensors, model)
    return passes.run("opset 17, IR 8", to_opset, model)


def compare_with_torch(network: nn.Module, model: ModelProto, sample: Array) -> None:
    """Runs both on `sample`. Raises GateError beyond MAX_ERROR."""
    with torch.inference_mode():
        given = network(torch.from_numpy(sample))
    wanted = [given] if isinstance(given, Tensor) else list(given.values() if isinstance(given, dict) else given)
    with open_session(model.SerializeToString()) as session:
        outputs = session.run({session.inputs[0].name: sample})
    for name, reference in zip((spec.name for spec in session.outputs), wanted, strict=True):
        expected = reference.numpy()
        error = float(np.abs(outputs[name] - expected).max())
        if not error <= MAX_ERROR * float(np.abs(expected).max()) + ROUNDING:
            raise GateError(f"the exported graph differs from torch by {error:.2g} at {name}; nothing was written")


def _export(network: nn.Module, sample: Array, shapes: Any, outputs: Sequence[str]) -> ModelProto:
    with _quiet():
        program = torch.onnx.export(
            network,
            (torch.from_numpy(sample),),
            dynamo=True,
            # What the exporter gives without a conversion of its own; `to_opset` lowers it, and says what it cannot.
            opset_version=18,
            # Our passes fold, so that names and values do not depend on the exporter's version.
            optimize=False,
            dynamic_shapes=shapes,
            input_names=["input"],
            output_names=list(outputs),
            verbose=False,
        )
    if program is None:  # only the older exporter gives None
        raise RuntimeError("torch.onnx.export gave no program")
    return cast(ModelProto, program.model_proto)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints, logs and warns about itself; what matters is an exception, or shows in the comparison."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _without_prefix(model: ModelProto, prefix: str) -> ModelProto:
    graph = Graph(model)
    graph.rename_tensors({name: name.removeprefix(prefix) for name in graph.arrays if name.startswith(prefix)})
    return graph.close()
