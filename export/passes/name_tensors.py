"""Names that last: tensors called after the parameters of the network, not after an exporter's counters."""

from __future__ import annotations

from onnx import ModelProto

from export.graph import Graph

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def name_tensors(model: ModelProto) -> ModelProto:
    """Renames what nodes give: `NAME` for the layer whose weight is `NAME.weight`, else `INPUT.op` after the latest
    input.

    A calibration table keyed by these names fits the graph of any torch version. Inputs and outputs keep their names.
    Biases are called `NAME.bias`. The pass changes nothing the second time.
    """
    graph = Graph(model)
    position = {name: i for i, node in enumerate(graph.nodes) for name in node.output}
    new_names: dict[str, str] = {}
    taken = set(graph.arrays) | graph.output_names | {value.name for value in graph.inputs}
    for node in graph.nodes:
        if node.op_type in LAYERS and node.input[1] in graph.arrays and node.input[1].endswith(".weight"):
            base = node.input[1].removesuffix(".weight")
            if len(node.input) > 2 and node.input[2] in graph.arrays and node.input[2] != f"{base}.bias":
                graph.arrays[f"{base}.bias"] = graph.arrays[node.input[2]]
                node.input[2] = f"{base}.bias"
        else:
            computed = [name for name in node.input if name in position]
            latest = max(computed, key=position.__getitem__, default=next(iter(node.input), ""))
            base = f"{new_names.get(latest, latest)}.{node.op_type.lower()}"
        for i, old in enumerate(node.output):
            if not old or old in graph.output_names:
                continue
            name = base if i == 0 else f"{base}:{i}"
            number = 1
            while name in taken:
                number += 1
                name = f"{base}.{number}"
            taken.add(name)
            new_names[old] = name
    for node in graph.nodes:
        for i, name in enumerate(node.input):
            node.input[i] = new_names.get(name, name)
        for i, name in enumerate(node.output):
            node.output[i] = new_names.get(name, name)
    return graph.close()
