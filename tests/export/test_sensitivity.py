from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from edge.contract import ModelContract
from export.agreement import compare_embeddings, embed_with
from export.calibration import observe
from export.calibration.methods import min_max
from export.graph import Graph
from export.passes import embed_preprocessing, l2_normalise
from export.passes.embed_preprocessing import bundle_contract
from export.passes.qdq import placement
from export.sensitivity import LayerSensitivity, Scores, layer_sensitivity, orders, repair
from export.variants import int8_model

CONTRACT = ModelContract("embedder", (16, 16), "bgr", "nchw", "float32", (127.5,) * 3, (127.5,) * 3, "arcface-112", 24)


@pytest.fixture(scope="module")
def network(build):
    """Eight bits ruin what goes from the first layer to the second: a channel that counts for nothing is far larger."""
    random = np.random.default_rng(0)
    first = random.normal(0, 0.3, (12, 3, 3, 3)).astype(np.float32)
    first[0] *= 3000.0
    second = random.normal(0, 0.3, (16, 12, 3, 3)).astype(np.float32)
    second[:, 0] = 0.0
    third = random.normal(0, 0.3, (24, 16, 16, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["a.relu"]),
        helper.make_node("Conv", ["a.relu", "b.weight"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["b"], ["b.relu"]),
        helper.make_node("Conv", ["b.relu", "d.weight"], ["d"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d", "e.weight"], ["e"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["e", "flat"], ["flattened"]),
        helper.make_node("Gemm", ["flattened", "c.weight"], ["y"], transB=1),
    ]
    arrays = {
        "d.weight": random.normal(0, 0.1, (16, 16, 3, 3)).astype(np.float32),
        "e.weight": random.normal(0, 0.1, (16, 16, 3, 3)).astype(np.float32),
        "a.weight": first, "b.weight": second, "c.weight": third.reshape(24, -1), "flat": np.array([0, 4096], np.int64),
    }  # fmt: skip
    model = build(nodes, arrays, ["batch", 3, 16, 16], ["batch", 24])
    return l2_normalise(embed_preprocessing(model, CONTRACT))


@pytest.fixture(scope="module")
def judged(network):
    pictures = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)
    histograms = observe(network, placement(network).tensors, lambda: [pictures[:8]])
    ranges = {name: min_max(histogram) for name, histogram in histograms.items()}
    contract = bundle_contract(CONTRACT, normalised=True)
    wanted = embed_with(network.SerializeToString(), contract, pictures[8:])

    def judge(data: bytes) -> float:
        return compare_embeddings(embed_with(data, contract, pictures[8:]), wanted, "").mean_cosine

    return ranges, judge


def test_the_layer_that_eight_bits_ruin_is_found_and_kept(network, judged) -> None:
    ranges, judge = judged
    whole = judge(int8_model(network, ranges, "int8-cpu").SerializeToString())
    assert whole < 0.9, "the fault is there"

    def build(keep: frozenset[str]) -> bytes:
        return int8_model(network, ranges, "int8-cpu", keep).SerializeToString()

    layers = layer_sensitivity(network, build, lambda data: Scores(judge(data)), quiet=True)
    assert {entry.layer for entry in layers} == {"a", "b", "d", "e", "y"}
    assert {entry.layer for entry in layers[:2]} == {"a", "b"}
    for entry in layers:
        assert entry.without.figure == judge(build(frozenset({entry.layer})))
        alone = int8_model(network, ranges, "int8-cpu", frozenset({"a", "b", "d", "e", "y"}) - {entry.layer})
        assert entry.alone.figure == judge(alone.SerializeToString())
    found = repair(orders(layers)["what each loses alone"], 0.99, build, judge)
    assert found.reached
    assert found.keep == {"a", "b"}
    repaired = int8_model(network, ranges, "int8-cpu", found.keep)
    assert judge(repaired.SerializeToString()) >= 0.99
    assert Graph(repaired).arrays["b.weight"].dtype == np.float32


@pytest.mark.parametrize("needed", range(1, 11))
def test_the_fewest_layers_are_kept(needed: int) -> None:
    order = [f"layer{i}" for i in range(20)]
    found = repair(order, 0.97, lambda keep: b"x" * len(keep), lambda data: 0.95 + 0.02 * (len(data) >= needed))
    assert found.reached
    assert found.keep == {f"layer{i}" for i in range(needed)}
    assert len(found.steps) <= 6


def test_a_model_that_half_its_layers_cannot_save_is_given_up() -> None:
    order = [f"layer{i}" for i in range(20)]
    found = repair(order, 0.97, lambda keep: b"x" * len(keep), lambda data: 0.5 + len(data) / 100)
    assert not found.reached
    assert found.keep == frozenset()
    assert found.to_dict()["reached"] is False


def test_the_two_orders_ask_two_questions() -> None:
    """What hurts most alone need not be what is best kept: its error may be made up for elsewhere."""
    layers = [
        LayerSensitivity("first", Scores(0.90), Scores(0.95)),
        LayerSensitivity("second", Scores(0.95), Scores(0.99)),
    ]
    assert orders(layers) == {
        "what each loses alone": ("first", "second"),
        "what keeping each wins": ("second", "first"),
    }
