"""Third-party ONNX: what must be true of a model before the exporter's passes may have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, checker, helper, load_model_from_string

from edge.contract import ModelContract
from edge.engines import open_session
from edge.errors import ContractError, EdgeError, InputError
from export.graph import Array, Graph, attribute, dimensions
from export.passes.constants import fold_constants, static_reshapes
from export.passes.fold_batchnorm import fold_batchnorm
from export.passes.opset import to_opset
from export.passes.pipeline import Passes

MAX_BYTES = 2 << 30


def read_onnx(path: Path) -> ModelProto:
    """An ONNX file, checked. Raises InputError where it is none, is damaged, or keeps its weights elsewhere."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than ONNX allows (2 GiB)")
        model = load_model_from_string(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file, or a damaged one") from error
    if not model.graph.node or not model.opset_import:
        raise InputError(f"{path}: not an ONNX file, or an empty one")
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise InputError(f"{path}: keeps its weights in other files; save it as a single file")
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise InputError(f"{path}: not a valid ONNX model ({str(error).splitlines()[0]})") from error
    return model


def import_embedder(model: ModelProto, contract: ModelContract, passes: Passes) -> ModelProto:
    """Makes a third-party embedder fit for the passes: constants folded, opset 17, batch free, output (N, D).

    Raises ContractError where it does not take or give what its contract says.
    """
    model = _tidy(model, passes)
    graph = Graph(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ContractError(
            f"an embedder has one input and one output; this has {len(graph.inputs)}, {len(graph.outputs)}"
        )
    if contract.size is None:
        raise ContractError("an embedder's contract states its size")
    height, width = contract.size
    wanted = (3, height, width) if contract.layout == "nchw" else (height, width, 3)
    shape = dimensions(graph.inputs[0])
    if len(shape) != 4 or any(isinstance(h, int) and h != w for h, w in zip(shape[1:], wanted, strict=True)):
        raise ContractError(f"the contract says {contract.layout} {contract.size}; the model takes {shape}")
    model = passes.run("free the batch", lambda m: free_batch(m, (*wanted,)), model)
    size = dimensions(model.graph.output[0])
    if len(size) != 2 or size[1] != contract.embedding_size:
        raise ContractError(f"the contract says embedding_size {contract.embedding_size}; the model gives {size}")
    return model


def import_detector(model: ModelProto, passes: Passes) -> ModelProto:
    """Makes a third-party YuNet fit for the passes. Raises ContractError where its size is fixed."""
    model = _tidy(model, passes)
    shape = dimensions(Graph(model).inputs[0])
    if len(shape) != 4 or shape[1] != 3:
        raise ContractError(f"a detector takes (N, 3, H, W); this takes {shape}")
    if any(isinstance(side, int) for side in shape[2:]):
        raise ContractError(f"this detector takes {shape[2:]} pictures alone; export it with dynamic height and width")
    return model


def free_batch(model: ModelProto, shape: tuple[int, ...]) -> ModelProto:
    """Makes a batch of one a batch of any size, and proves it: three pictures give the rows they give alone.

    shape: of one picture in the model's layout. Raises ContractError where the graph mixes pictures or refuses.
    """
    graph = Graph(model)
    source = graph.inputs[0]
    for node in graph.nodes:
        if node.op_type == "Reshape":
            target = graph.array(node.input[1])
            if target is not None and target.ndim == 1 and len(target) > 1 and int(target[0]) in (1, -1):
                fixed = target.copy()
                fixed[0] = 0
                if (fixed == -1).sum() == 0 and int(target[0]) == -1:
                    continue  # -1 for the batch is free already
                node.input[1] = graph.constant(node.input[1], fixed)
    kind = source.type.tensor_type.elem_type
    graph.inputs = [helper.make_tensor_value_info(source.name, kind, ["batch", *shape])]
    outputs = []
    for value in graph.outputs:
        rest = dimensions(value)[1:]
        outputs.append(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, ["batch", *rest]))
    graph.outputs = outputs
    freed = graph.close()
    _prove_batch(freed, shape)
    return freed


def _prove_batch(model: ModelProto, shape: tuple[int, ...]) -> None:
    pictures: Array = np.random.default_rng(0).uniform(-1, 1, (3, *shape)).astype(np.float32)
    try:
        with open_session(model.SerializeToString()) as session:
            name = session.inputs[0].name
            together = session.run({name: pictures})
            alone = [session.run({name: pictures[i : i + 1]}) for i in range(3)]
    except EdgeError as error:
        raise ContractError(f"the model takes no batch but one ({error}); export it with a dynamic batch") from error
    for output, values in together.items():
        rows = np.concatenate([one[output] for one in alone])
        if rows.shape != values.shape or not np.allclose(rows, values, rtol=1e-3, atol=1e-4):
            raise ContractError("the model mixes the pictures of a batch; export it with a dynamic batch")


def _tidy(model: ModelProto, passes: Passes) -> ModelProto:
    # The importer keeps the file's own names: they are as stable as the file.
    model = passes.run("opset 17, IR 8", to_opset, model)
    model = passes.run("fold constants", fold_constants, model)
    model = passes.run("static reshapes", static_reshapes, model)
    model = passes.run("drop dropouts", drop_dropouts, model)
    return passes.run("fold BatchNorm", fold_batchnorm, model)


def drop_dropouts(model: ModelProto) -> ModelProto:
    """Takes out Dropout nodes, which do nothing at inference."""
    graph = Graph(model)
    for node in [node for node in graph.nodes if node.op_type == "Dropout" and not attribute(node, "training_mode")]:
        if node.output[0] not in graph.output_names:
            graph.rename_uses(node.output[0], node.input[0])
            graph.remove([node])
    return graph.close()
