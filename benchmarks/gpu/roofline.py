"""The least a face costs in memory traffic, and how near to it an engine comes.

python -m benchmarks.gpu.roofline embedder-fp16.onnx … says the former of any embedder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.command import command
from benchmarks.provenance import NOT_MEASURED
from edge.errors import MissingExtraError

if TYPE_CHECKING:
    import onnx

_LAYERS = ("Conv", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "Clip", "PRelu")
_FLOAT, _UINT8, _INT8, _FLOAT16 = 1, 2, 3, 10  # of onnx.proto3
_SIZES = {_FLOAT: 4, _FLOAT16: 2, _UINT8: 1, _INT8: 1}


def traffic(model: bytes) -> dict[str, int]:
    """Bytes of activations that one picture of a model of fixed size reads and writes, and its multiply-adds.

    Counted for an engine that fuses whatever can be: a convolution or linear layer reads its input and writes what
    comes behind its activation or sum, a residual sum reads its other input. A tensor is one byte an element behind or
    in front of Q/DQ, else of its own type. Weights are left out: a batch shares them. Raises MissingExtraError without
    the onnx package.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "export") from error
    loaded = onnx.shape_inference.infer_shapes(_one_picture(onnx.load_from_string(model)), data_prop=True)
    graph = loaded.graph
    shapes = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info, *graph.output)}
    weights = {entry.name: tuple(entry.dims) for entry in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def elements(name: str) -> int:
        count = 1
        for dim in shapes[name].shape.dim:
            count *= dim.dim_value
        return count

    def read(name: str) -> int:
        before = producers.get(name)
        if before is not None and before.op_type == "DequantizeLinear":
            return elements(name)
        return elements(name) * _SIZES.get(shapes[name].elem_type, 4)

    def written(name: str) -> int:
        after = consumers.get(name, [])
        if len(after) == 1 and (after[0].op_type in _ACTIVATIONS or after[0].op_type == "Add"):
            return written(after[0].output[0])
        if after and all(node.op_type == "QuantizeLinear" for node in after):
            return elements(name)
        return elements(name) * _SIZES.get(shapes[name].elem_type, 4)

    moved = sums = 0
    for node in graph.node:
        if node.op_type in _LAYERS:
            moved += read(node.input[0]) + written(node.output[0])
            sums += elements(node.output[0]) * _inner(node, _weight(node.input[1], weights, producers))
        elif node.op_type == "Add" and not any(name in weights for name in node.input):
            moved += min(read(name) for name in node.input)
    return {"bytes": moved, "multiply_adds": sums}


def against_roofline(per_second: float | str, moved: int, bandwidth: float | None) -> dict[str, Any]:
    """Faces a second that the bandwidth (bytes a second) allows, and the share of it that was reached."""
    if bandwidth is None or moved <= 0:
        return {"bytes_a_face": moved, "roofline_faces_per_second": NOT_MEASURED, "share": NOT_MEASURED}
    limit = bandwidth / moved
    share = per_second / limit if isinstance(per_second, float) else NOT_MEASURED
    return {"bytes_a_face": moved, "roofline_faces_per_second": limit, "share": share}


def lost_to(times: Mapping[str, float], most: int = 10) -> dict[str, Any]:
    """Where the time of a run goes: milliseconds of the slowest layers, of all others, and of all."""
    ranked = sorted(times.items(), key=lambda item: -item[1])
    whole = sum(times.values())
    return {
        "layers": [{"name": name, "ms": ms, "share": ms / whole if whole > 0 else 0.0} for name, ms in ranked[:most]],
        "others_ms": sum(ms for _, ms in ranked[most:]),
        "all_ms": whole,
        "count": len(ranked),
    }


def _one_picture(loaded: onnx.ModelProto) -> onnx.ModelProto:
    for value in (*loaded.graph.input, *loaded.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].dim_value:
            dims[0].dim_value = 1
    del loaded.graph.value_info[:]
    return loaded


def _weight(
    name: str, weights: Mapping[str, tuple[int, ...]], producers: Mapping[str, onnx.NodeProto]
) -> tuple[int, ...]:
    """Shape of a layer's weight, also behind Q/DQ or a cast."""
    while name not in weights:
        name = producers[name].input[0]
    return weights[name]


def _inner(node: onnx.NodeProto, weight: tuple[int, ...]) -> int:
    """Multiply-adds of one element that a layer gives."""
    if node.op_type == "Conv":
        count = 1
        for size in weight[1:]:
            count *= size
        return count
    transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
    return int(weight[-1] if transposed else weight[-2])


@command("roofline")
def main(arguments: list[str] | None = None) -> None:
    """The command: a line a file."""
    parser = argparse.ArgumentParser(description="What the networks of embedders move in memory at least, a face.")
    parser.add_argument("models", type=Path, nargs="+", help="ONNX files of a bundle")
    for file in parser.parse_args(arguments).models:
        needed = traffic(file.read_bytes())
        print(f"{file}: {needed['bytes']:,} bytes of activations a face, {needed['multiply_adds']:,} multiply-adds")


if __name__ == "__main__":
    sys.exit(main())
