"""Q/DQ placement: what each scheme promises of its graph, and that the numbers survive."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from vectors import least_cosine

from edge.contract import ModelContract
from edge.errors import InputError
from export.calibration import observe
from export.calibration.methods import min_max
from export.graph import Graph, attribute
from export.passes import embed_preprocessing, prelu_rewrite
from export.passes.integer_pixels import integer_pixels
from export.passes.qdq import asymmetric, behind_last_bend, channel_scales, final_layers, placement, quantise, symmetric

CONTRACT = ModelContract(
    "embedder", (112, 112), "rgb", "nchw", "float32", (127.5,) * 3, (127.5,) * 3, "arcface-112", 64
)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    coarse = np.random.default_rng(2).integers(0, 256, (6, 14, 14, 3)).astype(np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def model(relu_graph) -> onnx.ModelProto:
    return embed_preprocessing(relu_graph, CONTRACT)


@pytest.fixture(scope="module")
def ranges(model, pixels) -> dict[str, tuple[float, float]]:
    return {name: min_max(h) for name, h in observe(model, placement(model).tensors, lambda: [pixels]).items()}


def test_every_layer_of_the_cpu_scheme_becomes_an_integer_kernel(model, ranges, pixels, run, tmp_path) -> None:
    quantised = quantise(integer_pixels(model), ranges, "int8-cpu")
    checker.check_model(quantised, full_check=True)
    assert least_cosine(run(quantised, pixels)["features"], run(model, pixels)["features"]) > 0.99
    assert quantised.ByteSize() < 0.35 * model.ByteSize()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["QLinearConv"] == 49
    assert kinds["QLinearAdd"] == 12
    assert kinds["QGemm"] == 1
    assert not {"Conv", "Add", "Relu", "Gemm", "Cast", "Sub", "QuantizeLinear"} & set(kinds)


def test_bends_of_prelu_are_integer_kernels_but_for_the_last(prelu_graph, pixels, run, tmp_path) -> None:
    model = integer_pixels(embed_preprocessing(prelu_rewrite(prelu_graph), CONTRACT))
    kept = final_layers(model)
    ranges = {name: min_max(h) for name, h in observe(model, placement(model, kept).tensors, lambda: [pixels]).items()}
    quantised = quantise(model, ranges, "int8-cpu", kept)
    checker.check_model(quantised, full_check=True)
    assert least_cosine(run(quantised, pixels)["features"], run(model, pixels)["features"]) > 0.98
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    bends = sum(node.op_type == "PRelu" for node in prelu_graph.graph.node)
    assert kinds["QLinearAdd"] == 12 + bends - 1
    assert kinds["QLinearConv"] == 48 + bends - 1
    assert not {"QuantizeLinear", "Relu", "QGemm"} & set(kinds), "eight bits from the picture to the last bend"


def test_weights_are_stored_as_int8_and_biases_as_int32(model, ranges) -> None:
    graph = Graph(quantise(model, ranges, "int8-cpu"))
    kinds = Counter(str(value.dtype) for value in graph.arrays.values() if value.ndim > 1)
    assert kinds["int8"] == 50
    assert kinds["float32"] == 1  # the mean
    for node in graph.nodes:
        if node.op_type == "Conv":
            assert len(node.input) == 3


def test_tensorrt_placement(model, ranges, pixels) -> None:
    quantised = quantise(model, ranges, "int8-tensorrt")
    checker.check_model(quantised, full_check=True)
    graph = Graph(quantised)
    producers, consumers = graph.producers(), graph.consumers()
    for name, value in graph.arrays.items():
        if name.endswith(".zero"):
            assert value.dtype == np.int8
            assert not value.any(), "symmetric: zero points are 0"
    for node in graph.nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert [producers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert graph.arrays[node.input[2]].dtype == np.float32, "bias stays float32"
            scale = graph.arrays[producers[node.input[1]].input[1]]
            assert scale.shape == (graph.arrays[producers[producers[node.input[1]].input[0]].input[0]].shape[0],)
            assert len(consumers[node.input[0]]) == 1, "a pair serves one layer"
            after = {used.op_type for used in consumers.get(node.output[0], [])}
            assert "Relu" not in after or after == {"Relu"}, "nothing stands between a layer and its activation"
        if node.op_type == "Add":
            kinds = sorted(producers[name].op_type for name in node.input)
            assert kinds == ["Conv", "DequantizeLinear"], "only the skip input is quantised"
    # ONNX Runtime, told to change nothing, computes what the file says.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = [m.SerializeToString() for m in (quantised, model)]
    a, b = (
        ort.InferenceSession(d, options, providers=["CPUExecutionProvider"]).run(None, {"pixels": pixels})[0]
        for d in data
    )
    assert least_cosine(a, b) > 0.99


def test_tensorrt_placement_of_a_pyramid(build) -> None:
    """What is enlarged and added is eight bits throughout: read in float by the sum, the layer before would give float.
    All that reads a tensor, behind pooling and resizing too, has one scale, so that the layer gives it once.
    """
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(size=(4, 4, 1, 1)).astype(np.float32) for name in "abcdef"}
    weights["twice"] = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["fine"]),
        helper.make_node("Relu", ["fine"], ["fine.relu"]),
        helper.make_node("MaxPool", ["fine.relu"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pooled", "b"], ["coarse"]),
        helper.make_node("Relu", ["coarse"], ["coarse.relu"]),
        helper.make_node("Conv", ["coarse.relu", "c"], ["head"]),
        helper.make_node("Resize", ["coarse.relu", "", "twice"], ["enlarged"], mode="nearest"),
        helper.make_node("Add", ["fine.relu", "enlarged"], ["sum"]),
        helper.make_node("Conv", ["sum", "d"], ["skip"]),
        helper.make_node("Conv", ["skip", "e"], ["bent"]),
        helper.make_node("Relu", ["bent"], ["bent.relu"]),
        helper.make_node("Add", ["skip", "bent.relu"], ["bend"]),
        helper.make_node("Resize", ["head", "", "twice"], ["head.enlarged"], mode="nearest"),
        helper.make_node("Conv", ["bend", "f"], ["end"]),
        helper.make_node("Mul", ["end", "head.enlarged"], ["y"]),
    ]
    model = build(nodes, weights, ["n", 4, 8, 8], ["n", 4, 8, 8])
    # Percentiles of what was pooled or enlarged need not be those of what was not.
    ranges = {name: (-1.0 - place, 2.0 + place) for place, name in enumerate(placement(model).tensors)}
    quantised = quantise(model, ranges, "int8-tensorrt")
    checker.check_model(quantised, full_check=True)
    graph = Graph(quantised)
    producers = graph.producers()
    sums = {node.output[0]: node for node in graph.nodes if node.op_type == "Add"}
    assert [producers[name].op_type for name in sums["sum"].input] == ["DequantizeLinear"] * 2
    assert [producers[name].op_type for name in sums["bend"].input] == ["DequantizeLinear", "Relu"]
    scales: dict[str, set[float]] = {}
    for node in graph.nodes:
        if node.op_type == "QuantizeLinear" and node.input[0] not in graph.arrays:
            source = {"pooled": "fine.relu", "enlarged": "coarse.relu"}.get(node.input[0], node.input[0])
            scales.setdefault(source, set()).add(float(graph.arrays[node.input[1]]))
    assert {name: len(values) for name, values in scales.items()} == dict.fromkeys(scales, 1)
    assert {"fine.relu", "coarse.relu"} <= scales.keys()


def test_a_missing_range_is_named(model, ranges) -> None:
    lacking = {name: value for name, value in ranges.items() if name != "conv2_dw.conv.relu"}
    with pytest.raises(InputError, match=r"conv2_dw\.conv\.relu"):
        quantise(model, lacking, "int8-cpu")


def test_kept_layers_stay_in_float(model, ranges, pixels, run) -> None:
    everything = frozenset(placement(model).nodes)
    assert placement(model, everything).nodes == ()
    kept = quantise(model, ranges, "int8-cpu", frozenset({"conv1.conv", "features"}))
    arrays = Graph(kept).arrays
    assert arrays["conv1.conv.weight"].dtype == np.float32
    assert arrays["linear.weight"].dtype == np.float32
    assert "conv2_dw.conv.weight" not in arrays


def test_onnxruntime_does_not_round_the_weights_of_kept_layers(build, run) -> None:
    """Behind one scale for all channels it would, with one scale for the whole weight, whatever the file says."""
    rng = np.random.default_rng(8)
    unlike = (3.0 ** -np.arange(4)).reshape(4, 1, 1, 1)
    weights = {name: rng.normal(size=(4, 4, 1, 1)).astype(np.float32) for name in "uvw"}
    weights["v"] = (weights["v"] * unlike).astype(np.float32)
    weights["half"] = np.array(0.5, np.float32)
    nodes = [onnx.helper.make_node("Mul", ["x", "half"], ["s"])] + [
        onnx.helper.make_node("Conv", [x, w], [y]) for x, w, y in (("s", "u", "a"), ("a", "v", "b"), ("b", "w", "y"))
    ]
    model = build(nodes, weights, ["n", 4, 4, 4], ["n", 4, 4, 4])
    x = rng.normal(size=(2, 4, 4, 4)).astype(np.float32)
    seen = {name: min_max(h) for name, h in observe(model, placement(model).tensors, lambda: [x]).items()}
    kept = Graph(quantise(model, seen, "int8-cpu", frozenset({"b"})))
    rounded = next(node.output[0] for node in kept.nodes if node.op_type == "QuantizeLinear" and node.input[0] == "b")
    kept.outputs = [onnx.helper.make_tensor_value_info(rounded, onnx.TensorProto.UINT8, None)]
    data = kept.close().SerializeToString()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    as_written, optimised = (
        ort.InferenceSession(data, chosen, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0].astype(int)
        for chosen in (options, None)
    )
    assert np.ptp(as_written[:, 3]) > 4
    assert (as_written != optimised).mean() < 0.01


def test_per_channel_scales_save_a_depthwise_layer() -> None:
    """Channels a thousand times apart: one scale for all would turn the small one into zeros."""
    weight = np.stack([np.full((1, 3, 3), v, np.float32) for v in (1.0, 1e-3)])
    scales = channel_scales(weight, 0)
    np.testing.assert_allclose(scales, [1 / 127, 1e-3 / 127], rtol=1e-6)


def test_zero_is_exact_and_ranges_are_covered() -> None:
    for low, high in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0), (-1e-12, 1e-12)):
        scale, zero = asymmetric(low, high)
        assert 0 <= zero <= 255
        assert (0 - float(zero)) * scale <= min(low, 0.0) + scale / 2
        assert (255 - float(zero)) * scale >= max(high, 0.0) - scale / 2
    assert symmetric(-2.54, 1.0) == pytest.approx(0.02)


def test_a_bias_far_above_its_weights_does_not_overflow(build, run) -> None:
    """BatchNorm can switch a channel almost off, and leave a bias that no int32 of weight-sized steps can hold."""
    weight = np.stack([np.full((1, 1, 1), 1e-9, np.float32), np.ones((1, 1, 1), np.float32)])
    nodes = [
        onnx.helper.make_node("Conv", ["x", "c.weight", "c.bias"], ["y"]),
    ]
    arrays = {"c.weight": weight, "c.bias": np.array([50.0, -1.0], np.float32)}
    model = build(nodes, arrays, ["n", 1, 2, 2], ["n", 2, 2, 2])
    quantised = quantise(model, {"x": (0.0, 1.0), "y": (-1.0, 51.0)}, "int8-cpu")
    x = np.full((1, 1, 2, 2), 0.5, np.float32)
    np.testing.assert_allclose(run(quantised, x)["y"], run(model, x)["y"], atol=0.3)


def first_layer(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = Graph(model)
    graph.outputs = [onnx.helper.make_tensor_value_info("conv1.conv", 1, ["n", 64, 56, 56])]
    return graph.close()


def test_integer_pixels_change_the_inside_of_a_picture_by_nothing(model, pixels, run) -> None:
    graph = Graph(model)
    float_first, whole = first_layer(model), first_layer(integer_pixels(model))
    assert "Sub" in {node.op_type for node in graph.nodes}
    assert [node.op_type for node in whole.graph.node] == ["DequantizeLinear", "Transpose", "Conv"]
    a, b = run(float_first, pixels)["conv1.conv"], run(whole, pixels)["conv1.conv"]
    np.testing.assert_allclose(a[:, :, 1:, 1:], b[:, :, 1:, 1:], rtol=1e-3, atol=1e-3)
    assert np.abs(a - b).max() < 0.02 * np.abs(a).max()


def test_integer_pixels_leave_other_normalisations_alone(relu_graph) -> None:
    contract = ModelContract(
        "embedder", (112, 112), "rgb", "nchw", "float32", (123.7, 116.3, 103.5), (58.4,) * 3, "arcface-112", 64
    )
    model = embed_preprocessing(relu_graph, contract)
    assert integer_pixels(model) == model


def test_heads_are_found(model, prelu_graph) -> None:
    assert final_layers(model) == frozenset(), "the last layer of MobileFaceNet is linear and gives float anyway"


def test_behind_the_last_bend_of_a_prelu_network_everything_is_float(prelu_graph, run, sample) -> None:
    model = prelu_rewrite(prelu_graph)
    kept = final_layers(model)
    layers = {node.output[0]: node for node in model.graph.node}
    assert sorted(layers[name].op_type for name in kept) == ["Add", "Conv", "Conv", "Gemm"]
    assert all(attribute(layers[name], "group", 1) > 1 for name in kept if layers[name].op_type == "Conv")
    assert not kept & set(placement(model, kept).nodes)
    assert sum(node.op_type == "Add" for node in model.graph.node) > 30, "the other bends are in eight bits"
    assert sum(layers[name].op_type == "Add" for name in placement(model, kept).nodes) > 30


def _bent(slope: list[float], blocks: int = 0) -> ModelProto:
    """Conv → PReLU → mean → Gemm, or `blocks` of Conv → sum with what came in → PReLU before the mean; rewritten."""
    rng = np.random.default_rng(3)
    values = {
        "w": rng.normal(size=(4, 3, 1, 1)),
        "s": np.array(slope).reshape(4, 1, 1),
        "wg": rng.normal(size=(4, 5)),
        **{f"w{k}": rng.normal(size=(4, 4, 3, 3)) for k in range(blocks)},
    }
    nodes = [helper.make_node("Conv", ["in", "w"], ["x"])]
    last = "x"
    for k in range(blocks):
        nodes.append(helper.make_node("Conv", [last, f"w{k}"], [f"c{k}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Add", [f"c{k}", last], [f"sum{k}"]))
        nodes.append(helper.make_node("PRelu", [f"sum{k}", "s"], [f"y{k}"]))
        last = f"y{k}"
    if not blocks:
        nodes.append(helper.make_node("PRelu", ["x", "s"], ["y"]))
        last = "y"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "wg"], ["out"]))
    graph = helper.make_graph(
        nodes,
        "bent",
        [helper.make_tensor_value_info("in", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    return prelu_rewrite(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def test_a_steep_last_bend_that_cannot_be_turned_is_kept_as_well() -> None:
    assert {"y", "y.bent", "y.below", "out"} <= behind_last_bend(Graph(_bent([-0.5, 0.2, 1.0, 1.7])))


def test_a_way_round_the_last_convolution_is_not_behind_it() -> None:
    kept = behind_last_bend(Graph(_bent([0.1, 0.2, 0.3, 0.4], blocks=4)))
    assert {name.partition(".")[0] for name in kept} == {"sum3", "y3", "out"}
