"""Preprocessing into the graph: a model of a bundle takes pixels as the camera gives them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import ModelProto, TensorProto, helper

from edge.contract import ModelContract
from edge.errors import ContractError
from export.graph import Graph, attribute, dimensions

INPUT = "pixels"


def embed_preprocessing(model: ModelProto, contract: ModelContract) -> ModelProto:
    """Makes a float model take (N, H, W, 3) uint8 BGR, as `bundle_contract(contract)` says.

    contract: what `model` takes now. The colour swap is a permutation of the first convolution's input channels, and
    the division by std a scaling of them: exact and free. The mean is subtracted in the graph and not folded into the
    bias, because the convolution pads with zeros after the subtraction. Raises ContractError where the model does not
    fit.
    """
    graph = Graph(model)
    if len(graph.inputs) != 1:
        raise ContractError(f"a model takes one picture; this one has {len(graph.inputs)} inputs")
    if contract.dtype == "uint8":
        raise ContractError(
            'this model takes uint8 already; its contract has dtype = "float32" where preprocessing is due'
        )
    old = graph.inputs[0]
    shape = dimensions(old)
    channels_last = contract.layout == "nhwc"
    if len(shape) != 4 or shape[3 if channels_last else 1] != 3:
        raise ContractError(f"the contract says {contract.layout}, the model takes {shape}")
    batch, height, width = (shape[0], *(shape[1:3] if channels_last else shape[2:4]))

    consumers = graph.consumers().get(old.name, [])
    mean, std = np.array(contract.mean, np.float64), np.array(contract.std, np.float64)
    foldable = (
        not channels_last
        and bool(consumers)
        and all(
            node.op_type == "Conv"
            and node.input[0] == old.name
            and node.input[1] in graph.arrays
            and attribute(node, "group", 1) == 1
            for node in consumers
        )
    )
    swap = contract.color == "rgb"
    if foldable:
        for name in {node.input[1] for node in consumers}:
            weight = graph.arrays[name].astype(np.float64) / std.reshape(1, 3, 1, 1)
            graph.arrays[name] = (weight[:, ::-1] if swap else weight).astype(np.float32)
        if swap:
            mean = mean[::-1]
        swap, std = False, np.ones(3)

    current = graph.fresh(f"{INPUT}.float")
    graph.node("Cast", [INPUT], [current], to=TensorProto.FLOAT)
    if swap:
        order = graph.constant(f"{INPUT}.order", np.array([2, 1, 0], np.int64))
        current = graph.node("Gather", [current, order], [graph.fresh(f"{INPUT}.rgb")], axis=3).output[0]
    channel = (1, 1, 1, 3)
    if not channels_last:
        current = graph.node("Transpose", [current], [graph.fresh(f"{INPUT}.nchw")], perm=[0, 3, 1, 2]).output[0]
        channel = (1, 3, 1, 1)
    if mean.any():
        value = graph.constant(f"{INPUT}.mean", mean.astype(np.float32).reshape(channel))
        current = graph.node("Sub", [current, value], [graph.fresh(f"{INPUT}.centred")]).output[0]
    if (std != 1).any():
        value = graph.constant(f"{INPUT}.scale", (1.0 / std).astype(np.float32).reshape(channel))
        current = graph.node("Mul", [current, value], [graph.fresh(f"{INPUT}.normalised")]).output[0]
    graph.rename_uses(old.name, current)
    named = [
        b if isinstance(b, int) else a
        for a, b in zip(("batch", "height", "width"), (batch, height, width), strict=True)
    ]
    graph.inputs = [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [*named, 3])]
    return graph.close()


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
