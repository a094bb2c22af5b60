"""Each integer layer by this machine's kernels against exact integer arithmetic."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from edge.engines import SessionOptions, open_session
from edge.types import Image
from export.graph import Array, Graph
from export.passes.integer_pixels import integer_pixels
from export.passes.pair_sums import LIMIT, is_depthwise, largest_pair_sums
from export.passes.qdq import Ranges, behind_activation, final_layers, placement, quantise

_EXACT = SessionOptions(as_written=True)


@dataclass(frozen=True, slots=True)
class LayerReport:
    """A layer quantised alone. cosine: least over pictures, kernel against exact. worst_pair_sum: of its weights."""

    layer: str
    cosine: float
    worst_pair_sum: int
    can_saturate: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def layer_reports(model: ModelProto, ranges: Ranges, pictures: Image) -> list[LayerReport]:
    """Every integer layer of an `int8-cpu` model. pictures: for the model's input.

    Exact is the file as written, computed in float32: integers below 2²⁴ are exact there, and so are these sums.
    """
    prepared = integer_pixels(model)
    every = frozenset(placement(prepared).nodes)
    convolutions = {n.output[0] for n in prepared.graph.node if n.op_type == "Conv"}
    consumers = Graph(prepared).consumers()
    found = []
    for name in sorted((every & convolutions) - final_layers(prepared)):
        alone = Graph(quantise(prepared, ranges, "int8-cpu", every - {name}))
        layer = next(node for node in alone.nodes if node.output[0] == name)
        weight = alone.arrays[layer.input[1].replace(".dq", ".int8")].astype(np.int64)
        out = _quantised(alone, behind_activation(name, consumers))
        alone.outputs = [helper.make_tensor_value_info(out, 1, None)]
        data = alone.close().SerializeToString()
        kernel, exact = (_run(data, options, pictures, out) for options in (SessionOptions(), _EXACT))
        lengths = np.linalg.norm(kernel, axis=1) * np.linalg.norm(exact, axis=1)
        cosine = float(((kernel * exact).sum(axis=1) / np.maximum(lengths, 1e-12)).min())
        worst = int(largest_pair_sums(weight, 0).max())
        found.append(LayerReport(name, cosine, worst, worst > LIMIT and not is_depthwise(weight)))
    return found


def _run(data: bytes, options: SessionOptions, pictures: Image, output: str) -> Array:
    with open_session(data, options=options) as session:
        rows = session.run({session.inputs[0].name: pictures})[output]
    return rows.reshape(len(rows), -1).astype(np.float64)


def _quantised(graph: Graph, tensor: str) -> str:
    """What comes out of the pair behind `tensor`."""
    rounded = next(n.output[0] for n in graph.nodes if n.op_type == "QuantizeLinear" and n.input[0] == tensor)
    return next(str(n.output[0]) for n in graph.nodes if n.op_type == "DequantizeLinear" and n.input[0] == rounded)
