"""Each pass: the graph gives the same numbers afterwards, and what the pass promises has happened."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge.contract import ModelContract
from edge.errors import ContractError, InputError
from export.graph import Graph, parameters_digest
from export.passes import (
    Passes,
    embed_preprocessing,
    fold_batchnorm,
    fold_constants,
    l2_normalise,
    name_tensors,
    prelu_rewrite,
    static_reshapes,
    to_opset,
)


def operators(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return rng(seed).normal(0, 1, shape).astype(np.float32)


def norm_parameters(channels: int, seed: int = 3) -> dict[str, np.ndarray]:
    g = rng(seed)
    return {
        "gamma": g.normal(1, 0.5, channels).astype(np.float32),
        "beta": g.normal(0, 1, channels).astype(np.float32),
        "mu": g.normal(0, 1, channels).astype(np.float32),
        "var": g.uniform(1e-4, 2, channels).astype(np.float32),
    }


NORM = ["gamma", "beta", "mu", "var"]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("epsilon", [1e-5, 1e-3, 0.1])
def test_batchnorm_folds_into_a_convolution(build, run, biased: bool, epsilon: float) -> None:
    arrays = {"c.weight": f32(8, 3, 3, 3), **norm_parameters(8), **({"c.b": f32(8, seed=9)} if biased else {})}
    model = build(
        [
            helper.make_node("Conv", ["x", "c.weight", *(["c.b"] if biased else [])], ["t"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["t", *NORM], ["y"], epsilon=epsilon),
        ],
        arrays,
        ["n", 3, 6, 6],
        ["n", 8, 6, 6],
    )
    folded = fold_batchnorm(model)
    assert operators(folded) == ["Conv"]
    x = f32(2, 3, 6, 6, seed=4)
    np.testing.assert_allclose(run(folded, x)["y"], run(model, x)["y"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("transposed", [0, 1])
def test_batchnorm_folds_into_a_linear_layer(build, run, transposed: int) -> None:
    weight = f32(5, 7) if transposed else f32(7, 5)
    model = build(
        [
            helper.make_node("Gemm", ["x", "l.weight", "l.b"], ["t"], transB=transposed, beta=0.5),
            helper.make_node("BatchNormalization", ["t", *NORM], ["y"]),
        ],
        {"l.weight": weight, "l.b": f32(5, seed=2), **norm_parameters(5)},
        ["n", 7],
        ["n", 5],
    )
    folded = fold_batchnorm(model)
    assert operators(folded) == ["Gemm"]
    x = f32(4, 7, seed=8)
    np.testing.assert_allclose(run(folded, x)["y"], run(model, x)["y"], rtol=1e-4, atol=1e-5)


def test_batchnorm_does_not_fold_where_another_node_sees_what_is_before_it(build, run) -> None:
    model = build(
        [
            helper.make_node("Conv", ["x", "c.weight"], ["t"]),
            helper.make_node("BatchNormalization", ["t", *NORM], ["u"]),
            helper.make_node("Add", ["t", "u"], ["y"]),
        ],
        {"c.weight": f32(3, 3, 1, 1), **norm_parameters(3)},
        ["n", 3, 4, 4],
        ["n", 3, 4, 4],
    )
    folded = fold_batchnorm(model)
    assert "BatchNormalization" in operators(folded)
    x = f32(1, 3, 4, 4)
    np.testing.assert_array_equal(run(folded, x)["y"], run(model, x)["y"])


def test_a_shared_weight_is_not_folded_twice(build, run) -> None:
    second = {f"{name}2": value for name, value in norm_parameters(3, seed=11).items()}
    model = build(
        [
            helper.make_node("Conv", ["x", "c.weight"], ["t"]),
            helper.make_node("BatchNormalization", ["t", *NORM], ["u"]),
            helper.make_node("Conv", ["u", "c.weight"], ["v"]),
            helper.make_node("BatchNormalization", ["v", *(f"{name}2" for name in NORM)], ["y"]),
        ],
        {"c.weight": f32(3, 3, 1, 1), **norm_parameters(3), **second},
        ["n", 3, 4, 4],
        ["n", 3, 4, 4],
    )
    folded = fold_batchnorm(model)
    assert operators(folded) == ["Conv", "Conv"]
    x = f32(1, 3, 4, 4)
    np.testing.assert_allclose(run(folded, x)["y"], run(model, x)["y"], rtol=1e-3, atol=1e-3)


def test_constants_fold_and_reshapes_become_static(build, run) -> None:
    model = build(
        [
            helper.make_node("Constant", [], ["two"], value_float=2.0),
            helper.make_node("Identity", ["x"], ["same"]),
            helper.make_node("CastLike", ["whole", "same"], ["like"]),
            helper.make_node("Mul", ["like", "two"], ["four"]),
            helper.make_node("Mul", ["same", "four"], ["z"]),
            helper.make_node("Shape", ["z"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["batch"]),
            helper.make_node("Unsqueeze", ["batch", "axes"], ["first"]),
            helper.make_node("Concat", ["first", "rest"], ["target"], axis=0),
            helper.make_node("Reshape", ["z", "target"], ["y"], allowzero=1),
        ],
        {
            "whole": np.array([2], np.int64),
            "zero": np.array(0, np.int64),
            "axes": np.array([0], np.int64),
            "rest": np.array([-1, 2], np.int64),
        },
        ["n", 2, 6],
        ["n", 6, 2],
    )
    folded = static_reshapes(fold_constants(model))
    assert operators(folded) == ["Mul", "Reshape"]
    for n in (1, 3):
        x = f32(n, 2, 6)
        np.testing.assert_array_equal(run(folded, x)["y"], (x * 4).reshape(n, 6, 2))


def test_names_do_not_depend_on_the_exporters_counters(relu_graph, run, sample) -> None:
    graph = Graph(relu_graph)
    for i, node in enumerate(graph.nodes):
        for name in list(node.output):
            if name not in graph.output_names:
                graph.rename_tensor(name, f"val_{7 * i}")
    scrambled = graph.close()
    renamed = name_tensors(scrambled)
    wanted = [name for node in relu_graph.graph.node for name in node.output]
    assert [name for node in renamed.graph.node for name in node.output] == wanted
    assert name_tensors(renamed) == renamed
    assert parameters_digest(renamed) == parameters_digest(relu_graph)
    np.testing.assert_array_equal(run(renamed, sample)["features"], run(relu_graph, sample)["features"])


@pytest.mark.parametrize("slopes", [(0.0, 0.25, 1.0), (-0.7, 1.8, -3.0)])
def test_prelu_is_rewritten_exactly_for_slopes_of_any_sign(build, run, slopes: tuple[float, ...]) -> None:
    slope = np.array(slopes, np.float32).reshape(3, 1, 1)
    model = build([helper.make_node("PRelu", ["x", "a"], ["y"])], {"a": slope}, ["n", 3, 4, 4], ["n", 3, 4, 4])
    rewritten = prelu_rewrite(model)
    assert "PRelu" not in operators(rewritten)
    x = f32(2, 3, 4, 4) * 5
    np.testing.assert_allclose(run(rewritten, x)["y"], np.where(x > 0, x, slope * x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("slopes", [(0.0, 0.25, 1.0), (-4.0, -0.5, 0.3), (0.99, -2.0, 1.7), (3.0, 1.5, 2.0)])
def test_prelu_between_convolutions_costs_one_scaling_for_slopes_of_any_size(
    build, run, slopes: tuple[float, ...], biased: bool, depthwise: bool
) -> None:
    arrays = {"c.weight": f32(3, 3, 3, 3), "a": np.array(slopes, np.float32).reshape(3, 1, 1)}
    arrays["d.weight"] = f32(3, 1, 3, 3, seed=2) if depthwise else f32(3, 3, 3, 3, seed=2)
    if biased:
        arrays |= {"c.bias": f32(3, seed=5), "d.bias": f32(3, seed=6)}
    pads = [1, 1, 1, 1]
    nodes = [
        helper.make_node("Conv", ["x", "c.weight", *(["c.bias"] if biased else [])], ["t"], pads=pads),
        helper.make_node("PRelu", ["t", "a"], ["u"]),
        helper.make_node(
            "Conv", ["u", "d.weight", *(["d.bias"] if biased else [])], ["y"], pads=pads, group=3 if depthwise else 1
        ),
    ]
    model = build(nodes, arrays, ["n", 3, 6, 6], ["n", 3, 6, 6])
    rewritten = prelu_rewrite(model)
    assert sorted(operators(rewritten)) == ["Add", "Conv", "Conv", "Conv", "Relu"]
    x = f32(2, 3, 6, 6, seed=7)
    np.testing.assert_allclose(run(rewritten, x)["y"], run(model, x)["y"], rtol=1e-4, atol=1e-4)


def test_tensors_that_were_turned_round_have_other_names(build, run) -> None:
    for slope, names in ((0.5, {"t", "u", "y"}), (1.5, {"t.turned", "u.turned", "y"})):
        arrays = {"c": f32(3, 3, 1, 1), "d": f32(2, 3, 1, 1, seed=2), "a": np.full((3, 1, 1), slope, np.float32)}
        nodes = [
            helper.make_node("Conv", ["x", "c"], ["t"]),
            helper.make_node("PRelu", ["t", "a"], ["u"]),
            helper.make_node("Conv", ["u", "d"], ["y"]),
        ]
        rewritten = prelu_rewrite(build(nodes, arrays, ["n", 3, 4, 4], ["n", 2, 4, 4]))
        made = {name for node in rewritten.graph.node for name in node.output}
        assert made - {name for name in made if ".bent" in name or ".positive" in name} == names


@pytest.mark.parametrize("slope", [0.25, 1.75])
def test_prelu_is_exact_where_other_nodes_see_what_it_takes_and_gives(build, run, slope: float) -> None:
    arrays = {"c.weight": f32(3, 3, 1, 1), "a": np.full((3, 1, 1), slope, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "c.weight"], ["t"]),
        helper.make_node("PRelu", ["t", "a"], ["u"]),
        helper.make_node("Add", ["t", "u"], ["y"]),
    ]
    model = build(nodes, arrays, ["n", 3, 4, 4], ["n", 3, 4, 4])
    rewritten = prelu_rewrite(model)
    assert "PRelu" not in operators(rewritten)
    x = f32(2, 3, 4, 4)
    np.testing.assert_allclose(run(rewritten, x)["y"], run(model, x)["y"], rtol=1e-5, atol=1e-5)


def test_prelu_of_a_whole_network_survives_the_rewrite(prelu_graph, run, sample) -> None:
    rewritten = prelu_rewrite(prelu_graph)
    before, after = run(prelu_graph, sample)["features"], run(rewritten, sample)["features"]
    cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert cosine.min() > 0.999999


def test_a_prelu_with_one_slope_for_all_channels_stays(build) -> None:
    model = build(
        [helper.make_node("PRelu", ["x", "a"], ["y"])],
        {"a": np.full((1, 1, 1), 0.1, np.float32)},
        ["n", 3, 4, 4],
        ["n", 3, 4, 4],
    )
    assert operators(prelu_rewrite(model)) == ["PRelu"]


@pytest.mark.parametrize("color", ["bgr", "rgb"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(("mean", "std"), [((127.5,) * 3, (127.5,) * 3), ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4))])
def test_preprocessing_inside_equals_preprocessing_outside(build, run, color, layout, mean, std) -> None:
    shape: list[int | str] = ["n", 3, 8, 8] if layout == "nchw" else ["n", 8, 8, 3]
    nodes = [helper.make_node("Conv", ["x", "c.weight"], ["y"], pads=[1, 1, 1, 1])]
    if layout == "nhwc":
        nodes[0].input[0] = "t"
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]))
    model = build(nodes, {"c.weight": f32(4, 3, 3, 3)}, shape, ["n", 4, 8, 8])
    contract = ModelContract("embedder", (8, 8), color, layout, "float32", mean, std, "arcface-112", 4)
    pixels = rng(6).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    outside = ((pixels[..., ::-1] if color == "rgb" else pixels).astype(np.float32) - np.float32(mean)) / np.float32(
        std
    )
    if layout == "nchw":
        outside = np.ascontiguousarray(outside.transpose(0, 3, 1, 2))
    wanted = run(model, np.ascontiguousarray(outside, np.float32))["y"]
    inside = embed_preprocessing(model, contract)
    np.testing.assert_allclose(run(inside, pixels)["y"], wanted, rtol=1e-4, atol=1e-4)
    assert inside.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    if layout == "nchw":
        assert "Gather" not in operators(inside), "the colour swap belongs into the first convolution"
        assert "Mul" not in operators(inside), "so does the scale"


def test_preprocessing_refuses_a_contract_that_does_not_fit(build) -> None:
    model = build([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": f32(4, 3, 1, 1)}, ["n", 3, 8, 8], ["n", 4, 8, 8])
    contract = ModelContract("embedder", (8, 8), "bgr", "nhwc", "float32", template="arcface-112", embedding_size=4)
    with pytest.raises(ContractError, match="nhwc"):
        embed_preprocessing(model, contract)


def test_embeddings_come_out_at_unit_length(build, run) -> None:
    model = build([helper.make_node("Gemm", ["x", "w"], ["y"])], {"w": f32(6, 5)}, ["n", 6], ["n", 5])
    x = np.vstack([f32(3, 6) * 1e3, np.zeros((1, 6), np.float32)])
    embeddings = run(l2_normalise(model), x)["embedding"]
    raw = run(model, x)["y"]
    np.testing.assert_allclose(embeddings[:3], raw[:3] / np.linalg.norm(raw[:3], axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_array_equal(embeddings[3], 0)


def test_newer_opsets_are_lowered(build, run) -> None:
    model = build(
        [helper.make_node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)],
        {"axes": np.array([1], np.int64)},
        ["n", 5],
        ["n"],
        opset=18,
    )
    lowered = to_opset(model)
    assert lowered.opset_import[0].version == 17
    x = f32(3, 5)
    np.testing.assert_array_equal(run(lowered, x)["y"], x.max(axis=1))


def test_older_opsets_are_raised(build, run) -> None:
    model = build([helper.make_node("Squeeze", ["x"], ["y"], axes=[1])], {}, ["n", 1], ["n"], opset=11)
    raised = to_opset(model)
    assert raised.opset_import[0].version == 17
    np.testing.assert_array_equal(run(raised, np.ones((2, 1), np.float32))["y"], [1, 1])


def test_an_operator_of_a_later_opset_is_refused_by_name(build) -> None:
    model = build([helper.make_node("Gelu", ["x"], ["y"])], {}, ["n"], ["n"], opset=20)
    with pytest.raises(InputError, match="Gelu"):
        to_opset(model)


def test_the_log_tells_what_changed(build) -> None:
    passes = Passes()
    slope = np.full((3, 1, 1), 0.3, np.float32)
    model = build([helper.make_node("PRelu", ["x", "a"], ["y"])], {"a": slope}, ["n", 3, 4, 4], ["n", 3, 4, 4])
    passes.run("PReLU rewrite", prelu_rewrite, model)
    (record,) = passes.records
    assert (record.nodes_before, record.nodes_after) == (1, 3)
    assert record.operators == {"Add": 1, "Conv": 1, "PRelu": -1, "Relu": 1}
    assert "1 → 3" in passes.explain()
