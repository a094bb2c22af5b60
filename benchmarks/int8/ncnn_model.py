"""InsightFace's MobileFaceNet as ncnn keeps it, in ONNX terms: trained weights with PReLU, to be measured.

    python -m benchmarks.int8.ncnn_model mobilefacenet_insightface_128.param --out prelu.onnx

writes the model and its contract, prelu.toml, for `edge export --onnx prelu.onnx --contract prelu.toml`.

Only the layers of that network are read. https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure says how
the two files are laid out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.command import command
from edge.errors import InputError
from export.graph import Array

MAGIC = "7767517"

CONTRACT = """role = "embedder"
size = [112, 112]
color = "rgb"
layout = "nchw"
dtype = "float32"
mean = [127.5, 127.5, 127.5]
std = [128.008192, 128.008192, 128.008192]
template = "arcface-112"
embedding_size = 128
normalised = false
"""
"""How the network is fed: its own two first layers subtract 127.5 and multiply by 0.007812."""


class _Weights:
    """The .bin, read from front to back."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> Array:
        """The next float32 values. Raises InputError where the file ends before."""
        end = self._at + 4 * count
        if end > len(self._data):
            raise InputError("the ncnn weights end too early: not the .bin of this .param")
        values = np.frombuffer(self._data[self._at : end], np.float32).copy()
        self._at = end
        return values

    def take_tagged(self, count: int) -> Array:
        """Values behind a tag that says how they are stored; 0 is float32, the only one read here."""
        if self.take(1).view(np.uint32)[0] != 0:
            raise InputError("the ncnn weights are not stored as float32")
        return self.take(count)

    @property
    def used_up(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._data)


def read_ncnn(param: Path, weights: Path) -> ModelProto:
    """The network from normalised pixels (N, 3, 112, 112) float32 to embeddings (N, 128), BatchNorm and PReLU as kept.

    Raises InputError where the files are others.
    """
    try:
        lines, data = param.read_text(encoding="utf-8", errors="replace").splitlines(), weights.read_bytes()
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}") from error
    if not lines or lines[0].strip() != MAGIC:
        raise InputError(f"{param}: not ncnn's .param")
    stored = _Weights(data)
    names, nodes, arrays = dict[str, str](), list[NodeProto](), dict[str, Array]()
    for line in lines[2:]:
        kind, name, inputs, outputs, *rest = line.split()
        taken, made = rest[: int(inputs)], rest[int(inputs) :][: int(outputs)]
        values = dict(part.split("=") for part in rest[int(inputs) + int(outputs) :])
        before = [names.get(blob, blob) for blob in taken]
        if kind == "Split" or name in ("_minusscalar0", "_mulscalar0"):
            names.update(dict.fromkeys(made, before[0]))
        elif kind != "Input":
            if kind not in _LAYERS:
                raise InputError(f"{param}: a layer {kind} is not read here")
            nodes += _LAYERS[kind](name, before, values, stored, arrays)
            names[made[0]] = name
    if not stored.used_up:
        raise InputError(f"{weights}: holds more than {param.name} takes")
    graph = helper.make_graph(
        nodes,
        "mobilefacenet",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["batch", 3, 112, 112])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["batch", 128])],
        [numpy_helper.from_array(value, key) for key, value in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


_Made = list[NodeProto]
_Layer = Callable[[str, list[str], Mapping[str, str], _Weights, dict[str, Array]], _Made]


def _convolution(
    name: str, before: list[str], values: Mapping[str, str], stored: _Weights, arrays: dict[str, Array]
) -> _Made:
    out, kernel, group = int(values["0"]), int(values["1"]), int(values.get("7", 1))
    weight = stored.take_tagged(int(values["6"]))
    arrays[f"{name}.weight"] = weight.reshape(out, -1, kernel, kernel)
    pads, stride = [int(values.get("4", 0))] * 4, [int(values.get("3", 1))] * 2
    made = helper.make_node(
        "Conv", [*before, f"{name}.weight"], [name], kernel_shape=[kernel] * 2, pads=pads, strides=stride, group=group
    )
    return [made]


def _batch_norm(
    name: str, before: list[str], values: Mapping[str, str], stored: _Weights, arrays: dict[str, Array]
) -> _Made:
    size = int(values["0"])
    slope, mean, variance, bias = (stored.take(size) for _ in range(4))
    keys = [f"{name}.{what}" for what in ("scale", "bias", "mean", "variance")]
    arrays.update(zip(keys, (slope, bias, mean, variance), strict=True))
    return [helper.make_node("BatchNormalization", [*before, *keys], [name], epsilon=float(values.get("1", 0.0)))]


def _prelu(
    name: str, before: list[str], values: Mapping[str, str], stored: _Weights, arrays: dict[str, Array]
) -> _Made:
    arrays[f"{name}.slope"] = stored.take(int(values["0"])).reshape(-1, 1, 1)
    return [helper.make_node("PRelu", [*before, f"{name}.slope"], [name])]


def _linear(
    name: str, before: list[str], values: Mapping[str, str], stored: _Weights, arrays: dict[str, Array]
) -> _Made:
    out = int(values["0"])
    arrays[f"{name}.weight"] = stored.take_tagged(int(values["2"])).reshape(out, -1)
    arrays[f"{name}.bias"] = stored.take(out) if int(values.get("1", 0)) else np.zeros(out, np.float32)
    flat = helper.make_node("Flatten", before, [f"{name}.flat"])
    return [flat, helper.make_node("Gemm", [f"{name}.flat", f"{name}.weight", f"{name}.bias"], [name], transB=1)]


def _sum(name: str, before: list[str], values: Mapping[str, str], stored: _Weights, arrays: dict[str, Array]) -> _Made:
    if values.get("0", "0") != "0" or len(before) != 2:
        raise InputError(f"{name}: of ncnn's BinaryOp only the sum of two is read here")
    return [helper.make_node("Add", before, [name])]


_LAYERS: dict[str, _Layer] = {
    "Convolution": _convolution,
    "ConvolutionDepthWise": _convolution,
    "BatchNorm": _batch_norm,
    "PReLU": _prelu,
    "InnerProduct": _linear,
    "BinaryOp": _sum,
}


@command("ncnn_model")
def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the ONNX file and the contract beside it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8.ncnn_model", description="InsightFace's MobileFaceNet of ncnn as ONNX."
    )
    parser.add_argument("param", type=Path, metavar="FILE.param", help="its .bin beside it")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    args = parser.parse_args(arguments)
    model = read_ncnn(args.param, args.param.with_suffix(".bin"))
    args.out.write_bytes(model.SerializeToString())
    args.out.with_suffix(".toml").write_text(CONTRACT, encoding="utf-8")
    print(f"{args.out} and {args.out.with_suffix('.toml').name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
