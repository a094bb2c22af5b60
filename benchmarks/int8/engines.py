"""The INT8 embedder as engines compute it: how far from FP32, and from the file's own arithmetic, on faces and probes.

    python -m benchmarks.int8.engines --bundle face.bundle --crops faces.zip

Beside the engines of this machine: exact arithmetic, as the file writes it; the same without the rounding before
residual sums, which OpenVINO leaves out; the same with every scale moved by a hair, which rounds elsewhere; and, on the
probes of the runtime's self-test alone, weights of the full range as a CPU without VNNI multiplies them, which that
test must tell. Nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from benchmarks.command import command
from benchmarks.int8.__main__ import held_out_crops
from benchmarks.provenance import machine, versions
from edge.bundle import Bundle
from edge.engines import SessionOptions, get_engine, open_session
from edge.errors import InputError
from edge.selftest import Rows, answers, probes
from edge.types import Image
from export.graph import Array, Graph, attribute, set_attribute
from export.passes.pair_sums import is_depthwise
from export.passes.qdq import channel_scales
from export.selftest import self_test_entry

ENGINES = ("onnxruntime", "openvino")
HAIR = 1e-6
FILE, UNROUNDED, PROBES = "as the file writes it", "not rounded before sums", "probes"
CARRIERS = ("Reshape", "Transpose")
LOWEST, HIGHEST = -(2.0**15), 2.0**15 - 1


def unrounded_sums(model: ModelProto) -> ModelProto:
    """Without the pair between a convolution and a sum: what a kernel computes that adds before it rounds."""
    graph = Graph(model)
    producers, consumers = graph.producers(), graph.consumers()
    for add in [node for node in graph.nodes if node.op_type == "Add"]:
        for i, name in enumerate(add.input):
            quantised = producers.get(producers[name].input[0]) if name in producers else None
            source = quantised.input[0] if quantised is not None else ""
            if source in producers and producers[source].op_type == "Conv" and len(consumers[name]) == 1:
                add.input[i] = source
    return graph.close()


def moved_scales(model: ModelProto, share: float) -> ModelProto:
    """With the scale of every activation larger by `share` of itself."""
    graph = Graph(model)
    for name in {node.input[1] for node in graph.nodes if node.op_type == "QuantizeLinear"}:
        graph.arrays[name] = (graph.arrays[name] * np.float32(1 + share)).astype(np.float32)
    return graph.close()


def full_range(model: ModelProto, reference: ModelProto) -> ModelProto:
    """With int8 weights that use all of their eight bits. reference: FP32 of the same weights, by name."""
    graph, floats = Graph(model), Graph(reference).arrays
    producers = graph.producers()
    for node in [node for node in graph.nodes if node.op_type in ("Conv", "Gemm")]:
        stored = producers.get(node.input[1])
        weight = floats.get(stored.input[0].removesuffix(".int8")) if stored is not None else None
        if stored is None or weight is None or weight.shape != graph.arrays[stored.input[0]].shape:
            continue
        axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
        scales = channel_scales(weight, axis)
        along = [-1 if i == axis else 1 for i in range(weight.ndim)]
        wider = graph.arrays[stored.input[1]] / scales
        integers = np.clip(np.rint(weight / scales.reshape(along)), -127, 127).astype(np.int8)
        graph.arrays[stored.input[0]], graph.arrays[stored.input[1]] = integers, scales
        if len(node.input) > 2:
            bias = producers[node.input[2]]
            kept = np.rint(graph.arrays[bias.input[0]] * wider.astype(np.float64))
            graph.arrays[bias.input[0]] = np.clip(kept, -(2**31) + 1, 2**31 - 1).astype(np.int32)
            graph.arrays[bias.input[1]] = (graph.arrays[bias.input[1]] / wider).astype(np.float32)
    return graph.close()


def without_vnni(model: ModelProto) -> ModelProto:
    """Every integer convolution but depthwise ones as vpmaddubsw sums it: two neighbours at once, in 16 bits.

    Intel's manual: uint8 × int8, the products of two neighbours added and saturated. Neighbours are two input channels
    of one position, as both engines lay them out where the channels are even in number.
    """
    graph = Graph(model)
    producers = graph.producers()
    for node in [node for node in graph.nodes if node.op_type == "Conv" and node.input[1] in producers]:
        stored = producers[node.input[1]]
        weight = graph.arrays[stored.input[0]]
        if not is_depthwise(weight) and weight.shape[1] % 2 == 0:
            _saturate(graph, node, producers, weight.astype(np.float32))
    return graph.close()


def _saturate(graph: Graph, node: NodeProto, producers: Mapping[str, NodeProto], weight: Array) -> None:
    """The convolution by bytes: a channel for each pair and output, cut to 16 bits, then summed."""
    moved, source = list[NodeProto](), producers[node.input[0]]
    while source.op_type in CARRIERS:  # of pixels: what turns them round stands behind their DequantizeLinear
        moved.insert(0, source)
        source = producers[source.input[0]]
    stored, scale, zero = source.input
    name, level = node.output[0], float(graph.arrays[zero])
    outputs, channels, height, width = weight.shape
    # Groups of two channels; each kernel position is a convolution of its own, zero elsewhere.
    apart = np.zeros((channels // 2, height * width, outputs, 2, height, width), np.float32)
    for place in range(height * width):
        y, x = divmod(place, width)
        apart[:, place, :, :, y, x] = weight[:, :, y, x].reshape(outputs, channels // 2, 2).transpose(1, 0, 2)
    kernel = graph.constant(f"{name}.pairs", apart.reshape(-1, 2, height, width))
    top, left, bottom, right = attribute(node, "pads", [0] * 4)
    around = graph.constant(f"{name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    byte = graph.node("Cast", [stored], [graph.fresh(f"{name}.bytes")], to=1).output[0]
    for carrier in moved:
        kept = NodeProto()
        kept.CopyFrom(carrier)
        kept.input[0], kept.output[0] = byte, graph.fresh(f"{carrier.output[0]}.bytes")
        graph.nodes.append(kept)
        byte = kept.output[0]
    fill = graph.constant(f"{name}.level", np.array(level, np.float32))
    padded = graph.node("Pad", [byte, around, fill], [graph.fresh(f"{name}.padded")]).output[0]
    strides = attribute(node, "strides", [1, 1])
    pairs = graph.node(
        "Conv", [padded, kernel], [graph.fresh(f"{name}.products")], group=channels // 2, strides=strides
    ).output[0]
    bounds = [graph.constant(f"{name}.{i}", np.array(value, np.float32)) for i, value in enumerate((LOWEST, HIGHEST))]
    cut = graph.node("Clip", [pairs, *bounds], [graph.fresh(f"{name}.cut")]).output[0]
    adding = np.tile(np.eye(outputs, dtype=np.float32), (1, channels // 2 * height * width))
    summed = graph.constant(f"{name}.sum", adding.reshape(outputs, -1, 1, 1))
    total = graph.node("Conv", [cut, summed], [graph.fresh(f"{name}.total")]).output[0]
    shift = (level * weight.reshape(outputs, -1).sum(axis=1)).astype(np.float32).reshape(1, -1, 1, 1)
    centred = graph.node("Sub", [total, graph.constant(f"{name}.shift", shift)], [graph.fresh(f"{name}.centred")])
    steps = (graph.arrays[producers[node.input[1]].input[1]] * graph.arrays[scale]).reshape(1, -1, 1, 1)
    real = graph.node(
        "Mul",
        [centred.output[0], graph.constant(f"{name}.steps", steps.astype(np.float32))],
        [name if len(node.input) < 3 else graph.fresh(f"{name}.real")],
    )
    if len(node.input) > 2:
        shape = graph.constant(f"{name}.along", np.array([1, -1, 1, 1], np.int64))
        bias = graph.node("Reshape", [node.input[2], shape], [graph.fresh(f"{name}.bias")]).output[0]
        graph.node("Add", [real.output[0], bias], [name])
    set_attribute(node, "pads", None)
    graph.remove([node])


def compare(bundle: Bundle, sets: Mapping[str, Image]) -> dict[str, Any]:
    """By set of pictures and arithmetic: mean and least cosine to FP32, mean cosine to the file's own arithmetic, and
    to that without the rounding before sums.

    Of the probes also the least the self-test allows for, and whether it tells of that arithmetic.
    """
    variant = bundle.select("embedder", "int8")
    data, reference = bundle.load(variant), bundle.load(bundle.select("embedder", "fp32"))
    model = onnx.load_from_string(data)
    exact = SessionOptions(as_written=True)
    ways: dict[str, Way] = {
        FILE: Way(data),
        UNROUNDED: Way(unrounded_sums(model).SerializeToString()),
        f"scales moved by {HAIR:g}": Way(moved_scales(model, HAIR).SerializeToString()),
    }
    ways |= {name: Way(data, name, SessionOptions()) for name in ENGINES if get_engine(name).available() is None}
    wide = full_range(model, onnx.load_from_string(reference))
    on_probes = ways | {
        "without VNNI": Way(without_vnni(model).SerializeToString()),
        "full range": Way(wide.SerializeToString()),
        "full range, without VNNI": Way(without_vnni(wide).SerializeToString()),
    }
    least = {
        full: self_test_entry(file, reference, variant.contract, "int8")["least_cosine"]
        for full, file in ((False, data), (True, wide.SerializeToString()))
    }
    found = dict[str, Any]()
    for told, pictures in {PROBES: probes(variant.contract), **sets}.items():
        wanted = Way(reference, options=exact).rows(pictures)
        written, unrounded = (ways[name].rows(pictures) for name in (FILE, UNROUNDED))
        found[told] = {"pictures": len(pictures), "ways": dict[str, Any]()}
        for name, way in (on_probes if told == PROBES else ways).items():
            given = way.rows(pictures)
            cosine = (given * wanted).sum(axis=1)
            row = {
                "to_fp32": round(float(cosine.mean()), 6),
                "least": round(float(cosine.min()), 6),
                "to_the_file": round(float((given * written).sum(axis=1).mean()), 6),
                "to_unrounded": round(float((given * unrounded).sum(axis=1).mean()), 6),
            }
            if told == PROBES:
                allowed = least["full range" in name]
                row |= {"allowed": allowed, "told": bool(row["to_fp32"] < allowed)}
            found[told]["ways"][name] = row
    return found


@dataclass(frozen=True, slots=True)
class Way:
    """A model and how it is computed; as it is written, unless said otherwise."""

    data: bytes
    engine: str = "onnxruntime"
    options: SessionOptions = field(default_factory=lambda: SessionOptions(as_written=True))

    def rows(self, pictures: Image) -> Rows:
        """(N, D) unit embeddings."""
        with open_session(self.data, self.engine, self.options) as session:
            found = answers(session, pictures)
        unit: Rows = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit


@command("engines")
def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table a set of pictures, and keeps the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8.engines", description="The INT8 embedder as engines compute it."
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="with FP32 and INT8 of the embedder")
    parser.add_argument("--crops", type=Path, nargs="*", default=[], metavar="ZIP", help="aligned crops of people")
    parser.add_argument("--most", type=int, default=300, help="of those crops (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the figures, with the machine, as JSON")
    args = parser.parse_args(arguments)
    bundle = Bundle.open(args.bundle)
    if args.most < 1:
        raise InputError("--most takes 1 crop or more")
    sets = {"crops": held_out_crops(args.crops, args.most)[0]} if args.crops else {}
    found = compare(bundle, sets)
    for told, figures in found.items():
        print(f"{figures['pictures']} {told}".ljust(30) + "to FP32   least     to file   unrounded self-test")
        for name, row in figures["ways"].items():
            cosines = "   ".join(f"{row[key]:.5f}" for key in ("to_fp32", "least", "to_the_file", "to_unrounded"))
            verdict = f"{'told' if row['told'] else 'passes'}, least {row['allowed']:.5f}" if "told" in row else "–"
            print(f"  {name:<28}{cosines}   {verdict}")
    if args.out is not None:
        kept = {"machine": machine(), "versions": versions(), "bundle": bundle.digest(), **found}
        args.out.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
