from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import checker

from edge.errors import GateError
from export.to_onnx import _Features as Features
from export.to_onnx import compare_with_torch, embedder_to_onnx


def operators(model) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_the_graph_gives_what_torch_gives_at_other_batch_sizes(relu_network, relu_graph, run) -> None:
    faces = np.random.default_rng(5).uniform(-1, 1, (5, 3, 112, 112)).astype(np.float32)
    with torch.inference_mode():
        wanted = relu_network.features(torch.from_numpy(faces)).numpy()
    assert np.abs(run(relu_graph, faces)["features"] - wanted).max() < 1e-4
    assert np.abs(run(relu_graph, faces[:1])["features"] - wanted[:1]).max() < 1e-4


def test_batchnorm_is_folded_and_nothing_is_computed_from_shapes(relu_graph, prelu_graph) -> None:
    for model in (relu_graph, prelu_graph):
        assert operators(model) <= {"Conv", "Relu", "PRelu", "Add", "Reshape", "Gemm"}


def test_opset_and_ir_are_what_tensorrt_8_5_reads(relu_graph) -> None:
    assert [(entry.domain, entry.version) for entry in relu_graph.opset_import] == [("", 17)]
    assert relu_graph.ir_version == 8
    checker.check_model(relu_graph, full_check=True)


def test_names_come_from_the_parameters(relu_graph) -> None:
    names = {name for node in relu_graph.graph.node for name in node.output}
    assert {"conv1.conv", "conv1.conv.relu", "conv_3.model.0.project.conv.add", "conv_6_dw.conv"} <= names


def test_no_path_and_no_trace_leaves_with_the_graph(relu_graph) -> None:
    text = relu_graph.SerializeToString()
    for word in (b"/root", b"/home", b"site-packages", b"stack_trace", b".py"):
        assert word not in text


def test_a_stale_graph_is_caught(relu_network, relu_graph, sample) -> None:
    """A checkpoint that moved on since the graph was made differs, and the comparison says so."""
    import copy

    changed = copy.deepcopy(relu_network)
    with torch.no_grad():
        changed.conv_4.model[3].conv.bn.bias.add_(0.05)
    with pytest.raises(GateError, match="differs from torch"):
        compare_with_torch(Features(changed), relu_graph, sample)


@pytest.mark.slow
def test_two_exports_of_one_network_are_the_same_bytes(exporter_itself, relu_network, relu_graph, sample) -> None:
    again = embedder_to_onnx(relu_network, sample)
    assert again.SerializeToString(deterministic=True) == relu_graph.SerializeToString(deterministic=True)
