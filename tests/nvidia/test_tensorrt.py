"""The TensorRT engine as far as it can be proved without a GPU: its logic and its files, on each major's API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import fake_tensorrt
import models
import numpy as np
import onnx
import pytest
from measure_check import make_bundle

from edge.bundle import Bundle
from edge.cli.main import main
from edge.cuda.driver import DeviceInfo, driver_release
from edge.device_engines import tensorrt_variants
from edge.engine_cache import EngineCache, EngineIdentity
from edge.engines import SessionOptions, get_engine, open_session
from edge.engines.base import TensorSpec
from edge.engines.tensorrt import Profile, TensorRtOptions
from edge.engines.tensorrt.builder import build_plan, layers_without_kernel
from edge.engines.tensorrt.engine import identity_of, timings_name
from edge.engines.tensorrt.onnx_file import OnnxFile, fields
from edge.engines.tensorrt.parity import Parity, made_up_pictures, require_parity
from edge.errors import BundleError, EngineError
from edge.manifest import Manifest

HERE = Path(__file__).parent
CHECKS = re.findall(r"^def check_(\w+)", (HERE / "engine_checks.py").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("version", ["8.5.3.1", "8.6.0", "10.0.1", "10.3.0", "11.4.0.106"])
def test_engine_from_model_to_results(
    on_emulator: Callable[..., str], backend: str, version: str, tmp_path: Path
) -> None:
    if backend == "pycuda" and version != "10.3.0":
        pytest.skip("one version shows what another backend changes")
    said = on_emulator("engine_checks.py", version, str(tmp_path / "cache"))
    assert re.findall(r"(\w+) holds", said) == CHECKS


def test_the_measuring_command_runs_to_its_end(
    on_emulator: Callable[..., str], backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "pycuda":
        pytest.skip("one backend is enough to see that it runs")
    monkeypatch.setenv("ARCEDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")  # a sanitizer of the machine has nothing to look at in the emulator
    found = json.loads(on_emulator("measure_check.py", "10.3.0", str(tmp_path)).splitlines()[-1])
    assert found["gpu"]["architecture"] == "sm_90"
    assert set(found["kernels"]["kernels"]) == {
        *(f"letterbox_{kind}{how}" for kind in ("bgr", "nv12") for how in ("", "_normalised")),
        *(f"align_{kind}_5_faces" for kind in ("bgr", "nv12", "wide_bgr", "wide_nv12")),
        *("place_5_faces", "sharpness_5_faces", "decode_suppress_vote"),
    }
    assert all(entry["bytes"] > 0 for entry in found["kernels"]["kernels"].values())
    assert set(found["search"]) == {"search", "normalise"}
    assert all(entry["rows"] == 64 and entry["bytes"] > 0 for entry in found["search"].values())
    assert set(found["bundles"]) == {"one.bundle", "two.bundle"}
    engines = found["bundles"]["two.bundle"]["engines"]
    assert set(engines) == {"embedder-fp32-onnx", "embedder-int8-tensorrt"}
    for entry in engines.values():
        assert set(entry["batches"]) == {"1", "8", "64"}
        assert all(batch["cuda_graph"] for batch in entry["batches"].values())
        for batch in entry["batches"].values():
            times = {way: batch[way]["p50"]["value"] for way in ("runtime", "graph_with_copies", "pure_enqueue")}
            assert batch["runtime_over_graph"] == pytest.approx(times["runtime"] / times["graph_with_copies"])
            assert batch["runtime_over_enqueue"] == pytest.approx(times["runtime"] / times["pure_enqueue"])
        assert entry["parity"]["mean"] > 0.98
        assert entry["best"]["bytes_a_face"] > 1000
        assert entry["best"]["lost_to"]["layers"][0]["ms"] > entry["best"]["lost_to"]["layers"][1]["ms"]
    assert engines["embedder-int8-tensorrt"]["int8"] == {
        "quantised": 3,
        "in_int8": 3,
        "astray": {},
        "untold": [],
    }
    # No time passes on the emulator: what would be divided by it says so instead, and no goal counts as met by it.
    assert found["copy_bandwidth"] == "not measured"
    by_goal = {(entry["goal"].split(",")[0].split(" <=")[0], entry["of"]): entry for entry in found["goals"]}
    assert by_goal["faces a second", "one.bundle embedder-fp32-onnx"]["met"] is None
    assert by_goal["runtime over pure enqueue", "one.bundle embedder-fp32-onnx"]["figure"] > 0
    assert by_goal["ms of one face", "one.bundle embedder-fp32-onnx"]["figure"] > 0
    # The bundle has no detector: said where it is needed, and nothing else is lost.
    assert found["bundles"]["one.bundle"]["frames"] == {}
    assert "measured" in found["bundles"]["one.bundle"]["energy"]["embedder-fp32-onnx"]
    assert all("not_measured" in found["sanitizer"][tool] for tool in ("memcheck", "racecheck"))


def test_each_engine_gets_the_files_it_can_read(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.select("embedder", "int8").engine == "onnx"
    assert bundle.select("embedder", "int8", "openvino").engine == "onnx"
    assert bundle.select("embedder", "int8", "tensorrt").engine == "tensorrt"
    assert bundle.select("embedder", None, "tensorrt").precision == "fp32"
    assert [v.name for v in tensorrt_variants(bundle)] == ["embedder-fp32-onnx", "embedder-int8-tensorrt"]
    plain = replace(bundle, manifest=Manifest(bundle.manifest.variants[:2]))
    with pytest.raises(BundleError, match=r"no int8 embedder for tensorrt; there is fp32; export it with --target"):
        plain.select("embedder", "int8", "tensorrt")


def test_precision_is_what_the_file_carries() -> None:
    assert OnnxFile(models.small_model()).precision == "fp32"
    assert OnnxFile(models.small_model(half=True)).precision == "fp16"
    assert OnnxFile(models.quantised(models.small_model())).precision == "int8"


def test_nodes_are_read_as_onnx_reads_them() -> None:
    data = models.quantised(models.small_model())
    want = [(n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in onnx.load_from_string(data).graph.node]
    assert [(n.name, n.operator, n.inputs, n.outputs) for n in OnnxFile(data).nodes] == want


def test_taking_no_pairs_off_changes_no_byte() -> None:
    data = models.quantised(models.small_model())
    assert onnx.load_from_string(OnnxFile(data).without_pairs([])) == onnx.load_from_string(data)


def test_taking_every_pair_off_gives_the_float_model_back() -> None:
    plain = models.small_model()
    file = OnnxFile(models.quantised(plain))
    bare = file.without_pairs(file.quantised_layers())
    assert OnnxFile(bare).precision == "fp32"
    onnx.checker.check_model(onnx.load_from_string(bare))
    batch = {"pixels": np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)}
    with open_session(bare) as one, open_session(plain) as other:
        np.testing.assert_allclose(one.run(batch)["embedding"], other.run(batch)["embedding"], rtol=1e-5, atol=1e-6)


def test_taking_one_layers_pairs_off_leaves_the_others() -> None:
    file = OnnxFile(models.quantised(models.small_model()))
    first, second, added = file.quantised_layers()
    less = OnnxFile(file.without_pairs([second]))
    assert [node.name for node in less.quantised_layers()] == [first.name, added.name]
    # The layer had a pair on its input and one on its weight; nothing of them is left over.
    assert len(less.nodes) == len(file.nodes) - 4
    onnx.checker.check_model(onnx.load_from_string(less.without_pairs([])))


@pytest.mark.parametrize("cut", [1, 10, 200, 900])
def test_a_damaged_model_is_one_line(cut: int) -> None:
    with pytest.raises(EngineError, match=r"^[^\n]+$"):
        OnnxFile(models.small_model()[:-cut])


def test_endless_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="no end"):
        list(fields(b"\xff" * 12))


@pytest.mark.parametrize(
    ("said", "layers"),
    [
        (
            "Error Code 10: Internal Error (Could not find any implementation for node first_out + first_relu.)",
            ["first_out"],
        ),
        (
            "[optimizer.cpp::computeCosts::4048] Error Code 10: Could not find any implementation for node "
            "w2 + w2.q + second_out + sum_out due to insufficient workspace. See verbose log",
            ["second_out", "sum_out"],
        ),
        (
            "Could not find any implementation for node {ForeignNode[first_out...second_out]}.",
            ["first_out", "second_out"],
        ),
        ("Could not find any implementation for node node_of_first_out.", ["first_out"]),
        # Its ends are no layers: the cast of the pixels, and what gives the vector.
        (
            "Could not find any implementation for node {ForeignNode[numbers...flat]}.",
            ["first_out", "second_out", "sum_out"],
        ),
        ("Could not find any implementation for node {ForeignNode[numbers...nowhere]}.", []),
        # As TensorRT 8.2 to 9.2 said it of others' models: an end of several names, a weight's, one of TensorRT's own.
        (
            "Error Code 10: Internal Error (Could not find any implementation for node "
            "{ForeignNode[w1 + (Unnamed Layer* 72) [Shuffle]...second_out + (Unnamed Layer* 171) [Shuffle]]}.)",
            ["first_out", "second_out"],
        ),
        ("Could not find any implementation for node {ForeignNode[w2...sum_out]}.", ["second_out", "sum_out"]),
        (
            "Could not find any implementation for node {ForeignNode[second_out...(Unnamed Layer* 39) [Shuffle]]}.",
            ["second_out", "sum_out"],
        ),
        (
            "Could not find any implementation for node {ForeignNode[(Unnamed Layer* 2) [Shuffle]...first_relu]}.",
            ["first_out"],
        ),
        ("Could not find any implementation for node second_out + PWN(sum_out)", ["second_out", "sum_out"]),
        ("Could not find any implementation for node PWN(PWN(sum_out), other).", ["sum_out"]),
        # Only the Q/DQ in front of a layer is named.
        ("Could not find any implementation for node w2 + w2.dq.", ["second_out"]),
        ("Could not find any implementation for node first_out_2.", []),
        ("Cuda failure: out of memory", []),
    ],
)
def test_layers_are_found_in_what_tensorrt_says(said: str, layers: list[str]) -> None:
    quantised = OnnxFile(models.quantised(models.small_model()))
    assert [node.name for node in layers_without_kernel([said], quantised)] == layers


def test_profile_ranges() -> None:
    profile = Profile(batch=(1, 8, 64), frames=(2, 4), side=(32, 320, 640))
    assert profile.ranges("crops", (None, 112, 112, 3)) == (
        ((1, 112, 112, 3), (1, 112, 112, 3), (1, 112, 112, 3)),
        ((2, 112, 112, 3), (8, 112, 112, 3), (8, 112, 112, 3)),
        ((9, 112, 112, 3), (64, 112, 112, 3), (64, 112, 112, 3)),
    )
    assert profile.ranges("frame", (None, None, None, 3)) == (
        ((1, 32, 32, 3), (2, 320, 320, 3), (2, 640, 640, 3)),
        ((3, 32, 32, 3), (4, 320, 320, 3), (4, 640, 640, 3)),
    )
    assert profile.ranges("one frame", (1, None, None, 3)) == (((1, 32, 32, 3), (1, 320, 320, 3), (1, 640, 640, 3)),)
    assert profile.whole("crops", (None, 112, 112, 3)) == ((1, 112, 112, 3), (1, 112, 112, 3), (64, 112, 112, 3))
    assert str(profile) == "batch 1/8/64 frames 2/4 side 32/320/640"
    with pytest.raises(EngineError, match="no profile describes"):
        profile.ranges("odd", (None, None, 112, 3))
    for values in ((), (0, 1), (8, 1), (4, 4)):
        with pytest.raises(EngineError, match="from 1 or more up"):
            Profile(batch=values)
    with pytest.raises(EngineError, match="side goes from 1 or more up"):
        Profile(side=(64, 32, 640))


def test_key_depends_on_everything_that_decides() -> None:
    base = EngineIdentity(
        "a" * 64, "tensorrt", "10.3.0", "Orin", "sm_87", "12060-540.4", "fp16", "batch 1/1/64", ("x",)
    )
    others = [
        EngineIdentity(*values[:i], change, *values[i + 1 :])
        for values in [tuple(getattr(base, name) for name in EngineIdentity.__slots__)]
        for i, change in enumerate(
            ["b" * 64, "other", "10.3.1", "Thor", "sm_110", "12060-540.5", "int8", "batch 1/1/8", ("y",)]
        )
    ]
    assert len({entry.key() for entry in [base, *others]}) == 10
    for other in others:
        assert (base.difference(other) or "").endswith("is needed")
    assert base.difference(EngineIdentity(**{n: getattr(base, n) for n in EngineIdentity.__slots__})) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"capability": "sm_80"}, "capability is sm_80, sm_87 is needed"),
        ({"driver": "12060-535.1"}, "driver is 12060-535.1, 12060-540.4 is needed"),
        ({"device": "Orin, 8 SMs, 7 GiB"}, "device is Orin, 8 SMs, 7 GiB, Orin, 16 SMs, 30 GiB is needed"),
        ({"version": "10.3.1"}, "version is 10.3.1, 10.3.0 is needed"),
    ],
)
def test_a_plan_of_another_machine_is_refused_though_its_passport_is_in_order(
    change: dict[str, str], said: str, tmp_path: Path
) -> None:
    """As where a folder of engines was copied, and files in it were renamed until they were found."""
    mine = EngineIdentity(
        "a" * 64, "tensorrt", "10.3.0", "Orin, 16 SMs, 30 GiB", "sm_87", "12060-540.4", "fp16", "batch 1/8/64", ("x",)
    )
    other, folder = replace(mine, **change), EngineCache(tmp_path / "cache")
    passport = folder.store(other, b"a plan of another machine", {"parity": {"mean": 1.0}})
    assert folder.find(other) == (b"a plan of another machine", passport)
    assert folder.find(mine) is None, "under its own name it is not even found"
    for there, here in zip(folder.paths(other), folder.paths(mine), strict=True):
        there.rename(here)
    with pytest.raises(EngineError, match=re.escape(f"was built for something else: {said}; delete")):
        folder.find(mine)


def test_modules_of_one_name_have_engines_of_their_own() -> None:
    """Every Orin is called Orin and is an sm_87: what is tuned for 16 multiprocessors is not for 8, or for half the
    memory. What a system keeps of the memory for itself makes no other module.
    """
    trt = SimpleNamespace(__version__="10.3.0", NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1))
    nx = DeviceInfo(0, "Orin", (8, 7), 15 << 30, 12060, "540.4.0", 8)
    infos = [nx, replace(nx, processors=16), replace(nx, memory=30 << 30), replace(nx, memory=(15 << 30) + 4096)]
    found = [identity_of(trt, models.small_model(), info, TensorRtOptions()) for info in infos]
    assert len({identity.key() for identity in found}) == len({timings_name(identity) for identity in found}) == 3
    assert found[0] == found[3]


@pytest.mark.parametrize(
    ("said", "release"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56\nGCC version: 12.3\n",
            "550.54.15",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain)\n", "540.4.0"),
        ("GCC version:  gcc version 11.4.0\n", ""),
        (None, ""),
    ],
)
def test_the_driver_is_known_by_its_own_version(said: str | None, release: str, tmp_path: Path) -> None:
    """Two drivers may speak the same CUDA; what one built is not the other's."""
    if said is not None:
        (tmp_path / "version").write_text(said, encoding="ascii")
    assert driver_release(tmp_path / "version") == release
    info = DeviceInfo(0, "Orin", (8, 7), 1, 12060, release)
    assert info.driver_name == (f"12060-{release}" if release else "12060")


@pytest.mark.parametrize(
    ("precision", "mean", "good"), [("fp32", 0.99995, True), ("fp32", 0.999, False), ("int8", 0.985, True)]
)
def test_parity_budget(precision: str, mean: float, good: bool) -> None:
    parity = Parity("embedding", mean, mean, 8, "made-up pictures")
    if good:
        require_parity(parity, precision)
    else:
        with pytest.raises(EngineError, match="no engine was kept"):
            require_parity(parity, precision)
    with pytest.raises(EngineError):
        require_parity(Parity("embedding", float("nan"), 0.0, 8, "made-up pictures"), precision)


def test_made_up_pictures_are_pictures() -> None:
    spec = TensorSpec("pixels", "uint8", (None, 112, 112, 3))
    pictures = made_up_pictures([spec], 640)["pixels"]
    assert pictures.shape == (8, 112, 112, 3)
    assert spec.admits(pictures)
    np.testing.assert_array_equal(pictures, made_up_pictures([spec], 640)["pixels"])
    assert pictures.std() > 30, "flat pictures would judge nothing"
    assert np.abs(np.diff(pictures.astype(int), axis=2)).mean() < 15, "noise is not what networks see"
    planar = made_up_pictures([TensorSpec("pixels", "float32", (1, 3, None, None))], 64)["pixels"]
    assert planar.shape == (8, 3, 64, 64)


def test_without_a_gpu_the_engine_says_so_in_one_line() -> None:
    missing = get_engine("tensorrt").available()
    if missing is None:
        pytest.skip("there is a GPU")
    assert "\n" not in missing
    with pytest.raises(EngineError, match=r"NVIDIA|pycuda|tensorrt"):
        open_session(models.small_model(), "tensorrt", SessionOptions())


def test_building_ahead_without_a_gpu_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = get_engine("tensorrt").available()
    if missing is None:
        pytest.skip("there is a GPU")
    make_bundle(tmp_path / "bundle")
    assert main(["bundle", "build", str(tmp_path / "bundle")]) == 2
    assert capsys.readouterr().err.splitlines() == [f"edge bundle: {missing}"]


@pytest.mark.parametrize("role", ["embedder", "detector"])
def test_a_gpu_without_int8_kernels_for_depthwise_convolutions_gets_its_engine(
    shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """Each build takes minutes: after the second of the models' depthwise convolutions all are back in float."""
    model = models.quantised((shipped_bundle / f"{role}-fp32.onnx").read_bytes())
    layers = OnnxFile(model).quantised_layers()
    graph = {node.output[0]: node for node in onnx.load_from_string(model).graph.node}
    groups = {name: next((a.i for a in node.attribute if a.name == "group"), 1) for name, node in graph.items()}
    depthwise = [node.name for node in layers if groups[node.outputs[0]] > 1]
    assert len(depthwise) == 17
    assert [node.name for node in layers if node.is_depthwise] == depthwise
    built, said = count_builds(monkeypatch), list[str]()
    monkeypatch.setattr(fake_tensorrt, "without_kernel", set(depthwise))
    trt = fake_tensorrt.make("8.6.0")
    plan = build_plan(trt, model, TensorRtOptions(quiet=True), say=said.append)
    assert len(built) == 3
    assert sorted(plan.in_float) == sorted(depthwise)
    kept = OnnxFile(plan.data.partition(b"\0")[2])
    assert [node.name for node in kept.quantised_layers()] == [n.name for n in layers if n.name not in depthwise]
    assert said == [
        f"TensorRT has no INT8 kernel for {depthwise[0]}: back in float, building again",
        f"TensorRT has no INT8 kernel for {depthwise[1]}: back in float, and with it all depthwise convolutions "
        f"({', '.join(depthwise[2:])}), building again",
    ]


def test_as_many_layers_as_are_quantised_may_lack_a_kernel(
    shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none is left, what would be built is no INT8 engine, and says so."""
    model = models.quantised((shipped_bundle / "embedder-fp32.onnx").read_bytes())
    plain = [node.name for node in OnnxFile(model).quantised_layers() if not node.is_depthwise]
    trt, options = fake_tensorrt.make("8.6.0"), TensorRtOptions(quiet=True)
    monkeypatch.setattr(fake_tensorrt, "without_kernel", set(plain))
    assert list(build_plan(trt, model, options).in_float) == plain
    monkeypatch.setattr(fake_tensorrt, "without_kernel", {node.name for node in OnnxFile(model).quantised_layers()})
    with pytest.raises(EngineError, match=r"^TensorRT 8\.6\.0 has an INT8 kernel for no layer of the model; use fp16"):
        build_plan(trt, model, options)


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the stand-in is given to build from now on, in order."""
    built: list[bytes] = []
    monkeypatch.setattr(fake_tensorrt, "built", built)
    return built
