"""A small workbench for ONNX graphs: look-ups and edits that every pass needs, on a copy of the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Array = npt.NDArray[Any]


class Graph:
    """A copy of a model, opened for edits. `close` gives the edited model, in topological order and without leftovers.

    Initialisers are numpy arrays while the graph is open. `inserted` nodes may be added anywhere: `close` sorts.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        self.nodes: list[NodeProto] = list(graph.node)
        self.arrays: dict[str, Array] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self.inputs: list[ValueInfoProto] = [value for value in graph.input if value.name not in self.arrays]
        self.outputs: list[ValueInfoProto] = list(graph.output)
        self._names = {name for node in self.nodes for name in (*node.input, *node.output)} | set(self.arrays)

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), 0)

    @property
    def output_names(self) -> set[str]:
        """Names of the graph's outputs."""
        return {value.name for value in self.outputs}

    def producers(self) -> dict[str, NodeProto]:
        """Tensor name → the node that makes it."""
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> dict[str, list[NodeProto]]:
        """Tensor name → the nodes that take it, once a use."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                if name:
                    found.setdefault(name, []).append(node)
        return found

    def fresh(self, name: str) -> str:
        """`name`, or `name` with a number behind it where it is taken; taken from now on."""
        candidate, number = name, 1
        while candidate in self._names:
            number += 1
            candidate = f"{name}.{number}"
        self._names.add(candidate)
        return candidate

    def constant(self, name: str, value: Array) -> str:
        """Adds an initialiser and gives the name it got."""
        fresh = self.fresh(name)
        self.arrays[fresh] = np.asarray(value)
        return fresh

    def node(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
        """Adds a node, named after its first output, and gives it."""
        made = helper.make_node(kind, inputs, outputs, name=outputs[0], **attributes)
        self._names.update(outputs)
        self.nodes.append(made)
        return made

    def remove(self, nodes: Iterable[NodeProto]) -> None:
        """Takes nodes out."""
        gone = {id(node) for node in nodes}
        self.nodes = [node for node in self.nodes if id(node) not in gone]

    def rename_uses(self, old: str, new: str) -> None:
        """Every node that took `old` takes `new`. Graph outputs keep their names: see `rename_tensor`."""
        for node in self.nodes:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new

    def rename_tensor(self, old: str, new: str) -> None:
        """Gives a tensor another name, where it is made and where it is used."""
        self.rename_tensors({old: new})

    def rename_tensors(self, names: Mapping[str, str]) -> None:
        """Gives each tensor in `names` the name that stands there for it, all at once."""
        for node in self.nodes:
            for places in (node.input, node.output):
                for i, name in enumerate(places):
                    if name in names:
                        places[i] = names[name]
        for old, new in names.items():
            if old in self.arrays:
                self.arrays[new] = self.arrays.pop(old)
        self._names.update(names.values())

    def array(self, name: str) -> Array | None:
        """The initialiser `name`; None where it is computed, an input, or absent."""
        return self.arrays.get(name) if name else None

    def close(self) -> ModelProto:
        """The edited model: sorted, with neither dead nodes nor unused initialisers, and without stale shapes."""
        self._drop_dead()
        self._sort()
        for node in self.nodes:
            node.name = node.output[0]  # unique, as engines demand of names
        graph = self.model.graph
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.initializer[:]
        graph.initializer.extend(numpy_helper.from_array(np.asarray(v, order="C"), k) for k, v in self.arrays.items())
        for kept, field in ((self.inputs, graph.input), (self.outputs, graph.output)):
            copies = []
            for value in kept:
                copy = ValueInfoProto()
                copy.CopyFrom(value)
                copies.append(copy)
            del field[:]
            field.extend(copies)
        # Shapes noted before an edit may be wrong after it; engines infer their own.
        del graph.value_info[:]
        return self.model

    def _drop_dead(self) -> None:
        needed, producers, stack = set[str](), self.producers(), list(self.output_names)
        while stack:
            name = stack.pop()
            if name in needed:
                continue
            needed.add(name)
            if name in producers:
                stack.extend(x for x in producers[name].input if x)
        self.nodes = [node for node in self.nodes if any(name in needed for name in node.output)]
        self.arrays = {name: value for name, value in self.arrays.items() if name in needed}

    def _sort(self) -> None:
        """Stable: a node moves only where something it takes is made behind it."""
        producers = self.producers()
        done, order = set[int](), list[NodeProto]()

        def visit(root: NodeProto) -> None:
            stack = [(root, False)]
            while stack:
                node, ready = stack.pop()
                if id(node) in done:
                    continue
                if ready:
                    done.add(id(node))
                    order.append(node)
                    continue
                stack.append((node, True))
                stack.extend((producers[x], False) for x in reversed(node.input) if x in producers)

        for node in self.nodes:
            visit(node)
        self.nodes = order


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute, text decoded; `default` where it is not there."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode() if entry.type == AttributeProto.STRING else value
    return default


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Sets or replaces a node's attribute; None takes it away."""
    kept = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def element_type(value: ValueInfoProto) -> int:
    """ONNX element type of an input or output."""
    return int(value.type.tensor_type.elem_type)


def dimensions(value: ValueInfoProto) -> tuple[int | str, ...]:
    """Shape of an input or output: a number where fixed, a name (perhaps empty) where dynamic."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in value.type.tensor_type.shape.dim
    )


def float_tensor(name: str, shape: Sequence[int | str | None]) -> ValueInfoProto:
    """A float32 input or output."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def parameters_digest(model: ModelProto) -> str:
    """SHA-256 (hex) over names and values of the float parameters that convolutions and linear layers use.

    It names the weights, whatever rewriting or another exporter version did to the graph around them.
    """
    graph = Graph(model)
    digest = hashlib.sha256()
    names = {name for node in graph.nodes if node.op_type in ("Conv", "Gemm", "MatMul") for name in node.input[1:]}
    for name in sorted(names & set(graph.arrays)):
        value = np.ascontiguousarray(graph.arrays[name], dtype="<f4")
        digest.update(f"{name}{value.shape}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
