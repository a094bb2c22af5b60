"""Where the rounding stands in a network: where the export's pairs of `int8-cpu` stand (export/passes/qdq.py).

Behind each layer, after its ReLU, and behind each sum. Pooling, nearest resizing and reshaping give values that are on
the grid already. What feeds an output alone stays float, and pixels are eight bits as they come; a convolution that
feeds an output, and no other layer, keeps its weights in float, a linear layer there does not.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.utils import parametrize

from edge.errors import InputError
from training.qat.fake import FakeActivation, FakeWeight

ACTIVATIONS = (F.relu, torch.relu)
SUMS = (operator.add, torch.add)


def prepare(network: nn.Module, method: str) -> fx.GraphModule:
    """The graph of one of a network's methods with rounding in it; it shares the network's layers, BatchNorm folded.

    Raises InputError for a network that INT8 cannot be imitated of: one with PReLU.
    """
    if any(isinstance(module, nn.PReLU) for module in network.modules()):
        raise InputError("quantisation-aware fine-tuning needs ReLU; a PReLU network is exported as it is")

    class _Tracer(fx.Tracer):
        traced_func_name = method

    graph = _Tracer().trace(network)
    prepared = fx.GraphModule(network, graph)
    final = _final_layers(prepared)
    for number, node in enumerate(list(graph.nodes)):
        if not (_is_layer(prepared, node) or node.target in SUMS):
            continue
        if isinstance(_module(prepared, node), nn.Linear) or node in final:
            continue
        end = _behind_activation(prepared, node)
        name = f"rounded_{number}"
        prepared.add_submodule(name, FakeActivation())
        with graph.inserting_after(end):
            rounded = graph.call_module(name, (end,))
        for user in list(end.users):
            if user is not rounded:
                user.replace_input_with(end, rounded)
    prepared.recompile()
    for node in graph.nodes:
        layer = _module(prepared, node)
        if _is_layer(prepared, node) and node not in final and layer is not None:
            parametrize.register_parametrization(layer, "weight", FakeWeight())
    return prepared


def release(prepared: fx.GraphModule) -> None:
    """Takes the rounding off the layers again: they keep what they learned."""
    for module in prepared.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)


@contextmanager
def in_float(prepared: fx.GraphModule) -> Iterator[None]:
    """Within, nothing is rounded; activations are only observed."""
    found = [module for module in prepared.modules() if isinstance(module, FakeActivation | FakeWeight)]
    for module in found:
        module.rounding = False
    try:
        yield
    finally:
        for module in found:
            module.rounding = True


def observe(prepared: fx.GraphModule, on: bool) -> None:
    """Whether ranges still follow what goes through."""
    for module in prepared.modules():
        if isinstance(module, FakeActivation):
            module.observing = on


def _final_layers(graph: fx.GraphModule) -> set[fx.Node]:
    """The convolutions from which an output is reached without another layer."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    found, stack, seen = set[fx.Node](), [output], set[fx.Node]()
    while stack:
        node = stack.pop()
        for before in node.all_input_nodes:
            if before in seen:
                continue
            seen.add(before)
            if isinstance(_module(graph, before), nn.Conv2d):
                found.add(before)
            elif not _is_layer(graph, before):
                stack.append(before)
    return found


def _behind_activation(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The ReLU that alone takes what `node` gives; else `node`. BatchNorm was folded and left an identity."""
    while len(node.users) == 1:
        (after,) = node.users
        module = _module(graph, after)
        if isinstance(module, nn.ReLU) or after.target in ACTIVATIONS:
            return after
        if not isinstance(module, nn.Identity):
            break
        node = after
    return node


def _is_layer(graph: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(_module(graph, node), nn.Conv2d | nn.Linear)


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None
