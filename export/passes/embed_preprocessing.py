"""Preprocessing into the graph: a model of a bundle takes pixels as the camera gives them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from edge.contract import ModelContract
from edge.errors import ContractError
from export.graph import Graph, attribute, dimensions

INPUT = "pixels"
Floats64 = npt.NDArray[np.float64]


def embed_preprocessing(model: ModelProto, contract: ModelContract) -> ModelProto:
    """Makes a float model take (N, H, W, 3) uint8 BGR, as `bundle_contract(contract)` says.

    contract: what `model` takes now. The colour swap is a permutation of the first convolution's input channels, and
    the division by std a scaling of them: exact and free. The mean is subtracted in the graph and not folded into the
    bias, because the convolution pads with zeros after the subtraction. Raises ContractError where the model does not
    fit.
    """
    graph = Graph(model)
    old, sides = _picture_of(graph, contract)
    mean, std = np.array(contract.mean, np.float64), np.array(contract.std, np.float64)
    swap = contract.color == "rgb"
    layers = graph.consumers().get(old, [])
    if contract.layout == "nchw" and layers and all(_takes_channels(node, old, graph) for node in layers):
        _fold_into({node.input[1] for node in layers}, graph, std, swap=swap)
        mean, std, swap = mean[::-1] if swap else mean, np.ones(3), False
    graph.rename_uses(old, _normalised(graph, contract.layout, mean, std, swap=swap))
    graph.inputs = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [*sides, 3])]
    return graph.close()


def _picture_of(graph: Graph, contract: ModelContract) -> tuple[str, list[int | str]]:
    """The model's input, and batch, height and width: numbers, or names where they are open. Raises ContractError."""
    if len(graph.inputs) != 1:
        raise ContractError(f"a model takes one picture; this one has {len(graph.inputs)} inputs")
    if contract.dtype == "uint8":
        raise ContractError(
            'this model takes uint8 already; its contract has dtype = "float32" where preprocessing is due'
        )
    shape = dimensions(graph.inputs[0])
    places = (0, 1, 2, 3) if contract.layout == "nhwc" else (0, 2, 3, 1)
    if len(shape) != 4 or shape[places[3]] != 3:
        raise ContractError(f"the contract says {contract.layout}, the model takes {shape}")
    named = zip(("batch", "height", "width"), places, strict=False)
    return graph.inputs[0].name, [side if isinstance(side := shape[place], int) else name for name, place in named]


def _takes_channels(node: NodeProto, name: str, graph: Graph) -> bool:
    """Whether a node is a convolution whose weights a permutation and a scaling of `name`'s channels can go into."""
    return (
        node.op_type == "Conv"
        and node.input[0] == name
        and node.input[1] in graph.arrays
        and attribute(node, "group", 1) == 1
    )


def _fold_into(weights: Iterable[str], graph: Graph, std: Floats64, *, swap: bool) -> None:
    for name in weights:
        weight = graph.arrays[name].astype(np.float64) / std.reshape(1, 3, 1, 1)
        graph.arrays[name] = (weight[:, ::-1] if swap else weight).astype(np.float32)


def _normalised(graph: Graph, layout: str, mean: Floats64, std: Floats64, *, swap: bool) -> str:
    """Adds the nodes from pixels to what the network takes, and gives the name of the last one's output."""
    current = graph.fresh(f"{INPUT}.float")
    graph.node("Cast", [INPUT], [current], to=TensorProto.FLOAT)
    if swap:
        order = graph.constant(f"{INPUT}.order", np.array([2, 1, 0], np.int64))
        current = graph.node("Gather", [current, order], [graph.fresh(f"{INPUT}.rgb")], axis=3).output[0]
    channel = (1, 1, 1, 3)
    if layout == "nchw":
        current = graph.node("Transpose", [current], [graph.fresh(f"{INPUT}.nchw")], perm=[0, 3, 1, 2]).output[0]
        channel = (1, 3, 1, 1)
    if mean.any():
        value = graph.constant(f"{INPUT}.mean", mean.astype(np.float32).reshape(channel))
        current = graph.node("Sub", [current, value], [graph.fresh(f"{INPUT}.centred")]).output[0]
    if (std != 1).any():
        value = graph.constant(f"{INPUT}.scale", (1.0 / std).astype(np.float32).reshape(channel))
        current = graph.node("Mul", [current, value], [graph.fresh(f"{INPUT}.normalised")]).output[0]
    return current


def bundle_contract(contract: ModelContract, *, normalised: bool | None = None) -> ModelContract:
    """The contract of the model once `embed_preprocessing` ran; mean, std stay written, in BGR order."""
    flip = contract.color == "rgb"
    return replace(
        contract,
        color="bgr",
        layout="nhwc",
        dtype="uint8",
        mean=contract.mean[::-1] if flip else contract.mean,
        std=contract.std[::-1] if flip else contract.std,
        normalised=contract.normalised if normalised is None else normalised,
    )
