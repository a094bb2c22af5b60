"""ONNX Runtime's GPU providers: what can be proved of them without a GPU, and on one where it is there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.bundle import Bundle
from edge.engines import SessionOptions, get_engine, open_session
from edge.engines.onnxruntime import CUDA, OnnxRuntimeSession, Provider, model_specs
from edge.engines.onnxruntime_gpu import tensorrt_options
from edge.engines.placement import PlacedNode, described, read_profile, require_placed
from edge.errors import BundleError, EngineError

NAMES = ("onnxruntime-cuda", "onnxruntime-tensorrt")


def shape_model() -> bytes:
    """Flattens each picture by a size that it reads off it: Shape and Gather give numbers, the rest gives pixels."""
    nodes = [
        helper.make_node("Cast", ["input"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Shape", ["pixels"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["count"]),
        helper.make_node("Concat", ["count", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["pixels", "wanted"], ["flat"]),
        helper.make_node("Relu", ["flat"], ["output"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([value], np.int64), name) for name, value in (("first", 0), ("rest", -1))
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.UINT8, ["n", "h", "w", 3])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", "k"])]
    graph = helper.make_graph(nodes, "shapes", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture
def nodes(tmp_path: Path) -> tuple[PlacedNode, ...]:
    """Where the nodes of `shape_model` really ran, on the CPU."""
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.enable_profiling, settings.profile_file_prefix = True, str(tmp_path / "run")
    session = ort.InferenceSession(shape_model(), settings, providers=["CPUExecutionProvider"])
    session.run(None, {"input": np.zeros((2, 64, 64, 3), np.uint8)})
    return read_profile(Path(session.end_profiling()))


def test_a_profile_says_where_each_node_ran_and_which_only_count(nodes: tuple[PlacedNode, ...]) -> None:
    assert {node.operator: node.on_shapes for node in nodes} == {
        "Cast": False, "Shape": True, "Gather": True, "Concat": True, "Reshape": False, "Relu": False,
    }  # fmt: skip
    assert described(nodes) == "CPU 6 nodes"
    require_placed(nodes, "CPU")


def test_nodes_on_another_provider_are_refused_in_one_line_that_names_them(nodes: tuple[PlacedNode, ...]) -> None:
    with pytest.raises(EngineError) as caught:
        require_placed(nodes, "CUDA")
    assert "put 3 of 6 nodes on CPU instead of CUDA (1 Cast, 1 Reshape, 1 Relu)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cpu_may_count_shapes_and_nothing_else(nodes: tuple[PlacedNode, ...]) -> None:
    moved = [node if node.on_shapes else replace(node, provider="CUDA") for node in nodes]
    require_placed(moved, "CUDA")
    assert described(moved) == "CUDA 3 nodes, CPU 3 nodes"
    back = [replace(node, provider="CPU") if node.operator == "Relu" else node for node in moved]
    with pytest.raises(EngineError, match=r"1 of 6 nodes on CPU instead of CUDA \(1 Relu\)"):
        require_placed(back, "CUDA")
    elsewhere = [replace(node, provider="TensorRT") if node.operator == "Shape" else node for node in moved]
    with pytest.raises(EngineError, match="on TensorRT instead of CUDA"):
        require_placed(elsewhere, "CUDA")


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"cat": "Node"}]', '[{"cat": "Session", "args": {}}]'])
def test_a_profile_that_says_nothing_proves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(EngineError, match="does not say where the model runs"):
        read_profile(tmp_path / "profile.json")


def test_a_provider_that_takes_no_node_is_found_out(toy_models: dict[str, bytes]) -> None:
    """ONNX Runtime itself opens this session without a word, lists the provider, and runs all on the CPU."""
    if "AzureExecutionProvider" not in ort.get_available_providers():
        pytest.skip("this ONNX Runtime has no second provider")
    plain = ort.InferenceSession(toy_models["embedder"], providers=["AzureExecutionProvider"])
    assert plain.get_providers()[0] == "AzureExecutionProvider"
    with pytest.raises(EngineError, match=r"nodes on CPU instead of Azure .*--engine onnxruntime"):
        OnnxRuntimeSession(toy_models["embedder"], SessionOptions(), Provider("Azure"))


def test_a_session_that_is_proved_computes_as_before_and_says_where(toy_models: dict[str, bytes]) -> None:
    # With an option the CPU's provider is one to be proved like any other.
    proved = Provider("CPU", {"use_arena": "1"})
    batch = np.random.default_rng(3).integers(0, 256, (3, 112, 112, 3)).astype(np.uint8)
    with (
        open_session(toy_models["embedder"]) as plain,
        OnnxRuntimeSession(toy_models["embedder"], SessionOptions(), proved) as session,
    ):
        assert session.describe()["placed"].startswith("CPU ")
        assert "placed" not in plain.describe()
        np.testing.assert_array_equal(
            session.run({"input": batch})["embedding"], plain.run({"input": batch})["embedding"]
        )


def test_tensorrt_is_given_the_shapes_and_the_precision(toy_models: dict[str, bytes]) -> None:
    found = {role: tensorrt_options(model, model_specs(model)[0]) for role, model in toy_models.items()}
    assert found["embedder"]["trt_profile_min_shapes"] == "input:1x112x112x3"
    assert found["embedder"]["trt_profile_max_shapes"] == "input:64x112x112x3"
    assert found["detector"]["trt_profile_min_shapes"] == "input:1x32x32x3"
    assert found["detector"]["trt_profile_opt_shapes"] == "input:1x640x640x3"
    for options in found.values():
        assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("False", "False")
        assert all(isinstance(value, str) for value in options.values())


def test_half_precision_is_allowed_for_files_that_hold_it_alone() -> None:
    weights = numpy_helper.from_array(np.ones((1, 3), np.float16), "weights")
    node = helper.make_node("Mul", ["input", "weights"], ["output"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 3]) for name in ("input", "output")]
    graph = helper.make_graph([node], "half", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    options = tensorrt_options(model, model_specs(model)[0])
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("True", "False")
    assert options["trt_profile_max_shapes"] == "input:64x3"


def test_eight_bits_are_allowed_with_half_precision_for_layers_without_an_integer_kernel() -> None:
    constants = [
        numpy_helper.from_array(np.float32(0.5), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["output"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "quantised", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    options = tensorrt_options(model, model_specs(model)[0])
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("True", "True")


def test_products_of_float32_stay_float32_on_cuda() -> None:
    assert CUDA.options["use_tf32"] == "0"
    assert CUDA.full_name == "CUDAExecutionProvider"
    assert Provider("TensorRT").full_name == "TensorrtExecutionProvider"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_without_a_gpu_the_engine_says_what_is_missing(name: str, toy_models: dict[str, bytes]) -> None:
    missing = get_engine(name).available()
    if missing is None:
        pytest.skip("this machine has it")
    assert "\n" not in missing
    assert "--engine onnxruntime" in missing or "arcedge[gpu]" in missing or "nvidia-smi" in missing
    with pytest.raises(EngineError) as caught:
        open_session(toy_models["embedder"], name)
    assert str(caught.value) == missing


def test_a_user_who_asks_for_it_gets_one_line_and_no_result(name: str, own_bundle: Path, tmp_path: Path) -> None:
    if get_engine(name).available() is None:
        pytest.skip("this machine has it")
    out = tmp_path / "out.npz"
    arguments = ["embed", "--bundle", str(own_bundle), "--engine", name, str(tmp_path), "--out", str(out)]
    (tmp_path / "a.png").write_bytes(b"")
    done = subprocess.run([sys.executable, "-m", "edge", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_variants_laid_out_for_cpus_are_not_given_to_gpus(own_bundle: Path) -> None:
    bundle = Bundle.open(own_bundle)
    first = bundle.variants("embedder")[0]
    eight = replace(first, name="embedder-int8", precision="int8")
    for_trt = replace(eight, name="embedder-int8-tensorrt", engine="tensorrt")

    def holding(*variants: object) -> Bundle:
        return replace(bundle, manifest=replace(bundle.manifest, variants=variants))

    for engine in NAMES:
        assert holding(first, eight).select("embedder", None, engine) == first
        with pytest.raises(BundleError, match="no int8 embedder"):
            holding(first, eight).select("embedder", "int8", engine)
    assert holding(first, eight, for_trt).select("embedder", "int8", NAMES[1]) == for_trt
    assert holding(first, eight, for_trt).select("embedder", "int8") == eight
    with pytest.raises(BundleError, match="no int8 embedder"):
        holding(first, for_trt).select("embedder", "int8", NAMES[0])


@pytest.mark.gpu
def test_on_a_gpu_every_node_runs_there_and_gives_the_same(name: str, toy_models: dict[str, bytes]) -> None:
    if missing := get_engine(name).available():
        pytest.skip(missing)
    batch = np.random.default_rng(3).integers(0, 256, (3, 112, 112, 3)).astype(np.uint8)
    with open_session(toy_models["embedder"]) as plain, open_session(toy_models["embedder"], name) as session:
        wanted, found = (one.run({"input": batch})["embedding"] for one in (plain, session))
        assert session.describe()["placed"].startswith({"onnxruntime-cuda": "CUDA"}.get(name, "TensorRT"))
    np.testing.assert_allclose(found, wanted, atol=1e-3)
