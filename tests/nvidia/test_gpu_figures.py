"""What the measuring command concludes: INT8 proved by the inspector, traffic, goals, the sanitizer. No GPU needed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.gpu import kernels, needs, roofline, timing
from benchmarks.gpu.engines import LEAST_ROUNDS, WantedEngine, is_whole, within_time
from benchmarks.gpu.goals import as_text, goals
from benchmarks.gpu.layers import int8_proof, layers_by_precision
from benchmarks.gpu.report import Report, picture_digests
from benchmarks.gpu.roofline import against_roofline, lost_to, traffic
from benchmarks.gpu.sanitizer import TOOLS, complaints, is_clean, sanitize
from edge.detect import DetectorOptions
from edge.detect.decode import OUTPUTS
from edge.errors import EngineError, InputError, MissingExtraError
from tests.support.servers import until

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
HALF = "Channel major FP16 format where channel % 8 == 0"
UNTOLD = "N/A due to dynamic shapes"


def inspected(*layers: tuple[str, str, str]) -> str:
    """As the inspector answers: (name, format, metadata) of each layer."""
    return json.dumps(
        {
            "Layers": [
                {
                    "Name": name,
                    "Inputs": [{"Name": "x", "Format/Datatype": kind}],
                    "Outputs": [{"Name": "y", "Format/Datatype": UNTOLD if kind == UNTOLD else HALF}],
                    **({"Metadata": said} if said else {}),
                }
                for name, kind, said in layers
            ]
        }
    )


QUANTISED = models.quantised(models.small_model())


def test_detection_is_measured_as_the_runtime_detects(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its own thresholds, and with as many cells above the score as five faces have."""
    heads: list[np.ndarray[Any, Any]] = []
    asked: list[Any] = []

    def upload(_device: object, _stream: object, array: np.ndarray[Any, Any]) -> Any:
        heads.append(array)
        return SimpleNamespace(size=array.nbytes, address=len(heads), free=lambda: None)

    def memory(_device: object, images: int, limit: int) -> Any:
        asked.append((images, limit))
        return SimpleNamespace(free=lambda: None)

    monkeypatch.setattr(kernels, "upload", upload)
    monkeypatch.setattr(kernels, "DetectionMemory", SimpleNamespace(on=memory))
    kept = SimpleNamespace(detect=lambda *arguments: asked.append(arguments[3:5]))
    stream: Any = SimpleNamespace(synchronize=lambda: None)
    kernels._detect(None, kept, (480, 640), stream, lambda work, moved: work() or {})  # type: ignore[arg-type, func-returns-value]
    runtime = DetectorOptions()
    assert asked == [(1, runtime.max_faces), (runtime.score, runtime.max_iou)]
    named = dict(zip(OUTPUTS, heads, strict=True))
    scores = np.sqrt(np.concatenate([named[f"cls_{stride}"] * named[f"obj_{stride}"] for stride in (8, 16, 32)]))
    assert 1 / 450 < float((scores >= runtime.score).mean()) < 1 / 200


def test_a_figure_takes_no_more_rounds_than_its_time_holds() -> None:
    assert within_time(1000, 0.001) == 1000
    assert within_time(1000, 0.02) == 500
    assert within_time(1000, 0.5) == LEAST_ROUNDS
    assert within_time(4, 0.5) == 4


class Clocks:
    """A host and a device, in microseconds: what is queued is begun once the device is free and the host has queued it.
    A stand-in for `Recorded` besides: recorded work starts with one call.
    """

    def __init__(self, call: float, kernel: float) -> None:
        self.call, self.kernel = call, kernel
        self.host = self.device = 0.0
        self.recording: list[float] | None = None

    def queue(self, length: float) -> None:
        if self.recording is not None:
            self.recording.append(length)
            return
        self.host += self.call
        self.device = max(self.device, self.host) + length

    def event(self) -> Any:
        made = SimpleNamespace(at=0.0, close=lambda: None)

        def record(_stream: object) -> None:
            self.host += 2
            made.at = self.device = max(self.device, self.host)

        def synchronize() -> None:
            self.host = max(self.host, self.device)

        made.record, made.synchronize = record, synchronize
        made.milliseconds_since = lambda earlier: (made.at - earlier.at) / 1e3
        return made

    def recorded(self, _stream: object, enqueue: Any) -> Any:
        self.recording = lengths = []
        enqueue()
        self.recording = None
        return SimpleNamespace(start=lambda: self.queue(sum(lengths)), close=lambda: None, graphless="")


CRASHING = """
import os, sys
from pathlib import Path
from benchmarks.gpu.report import Report
report = Report(Path(sys.argv[1]), {"gpu": "one"})
report.part("crashes", lambda: os.kill(os.getpid(), 11))
report.part("others", lambda: {"ms": 1.0})
print(report.failed)
"""


def test_a_part_that_ends_the_command_does_not_keep_it_from_the_others_for_ever(
    tmp_path: Path, repository: Path
) -> None:
    """Libraries that crash crash again: started anew, the command came to the same part each time, and no further."""
    out = tmp_path / "out.json"

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", CRASHING, str(out)]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    assert [run().returncode for _ in range(2)] == [-signal.SIGSEGV] * 2
    done = run()
    assert done.stdout.strip() == "['device: crashes']", done.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["others"] == {"ms": 1.0}
    assert "ended twice while it was measured" in found["crashes"]["not_measured"]
    found["unfinished"].clear()
    out.write_text(json.dumps(found), encoding="utf-8")
    assert run().returncode == -signal.SIGSEGV, "it is tried again"


def test_a_part_that_is_interrupted_is_begun_again(tmp_path: Path) -> None:
    """However often: somebody stopped it, and nothing crashed."""

    def stopped() -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out.json"
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            Report(out, {"gpu": "one"}).part("engine", stopped)
    again = Report(out, {"gpu": "one"})
    again.part("engine", lambda: {"ms": 1.0})
    assert again.values["engine"] == {"ms": 1.0}
    assert not again.failed


@pytest.mark.parametrize("kernel", [2.0, 40.0, 3000.0])
def test_the_time_of_a_kernel_is_the_devices_and_not_the_hosts(kernel: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes 30 microseconds to start one; alone between two marks each seemed to take them, however short."""
    clocks = Clocks(call=30.0, kernel=kernel)
    monkeypatch.setattr(timing, "Recorded", clocks.recorded)
    device: Any = SimpleNamespace(event=clocks.event)
    stream: Any = SimpleNamespace()
    found = timing.device_times(device, stream, lambda: clocks.queue(kernel), 20)
    assert len(found.values) == 20
    assert found.median * 1e3 == pytest.approx(kernel, rel=0.01)
    assert found.to_dict()["in_a_row"] == found.in_a_row >= 1


def test_a_gallery_is_drawn_in_parts_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million vectors drawn at once are 4 GB of float64 on the host: more than many a Jetson has free."""
    there = np.zeros((100, kernels.DIMENSIONS), np.float32)
    parts: list[int] = []

    def copy_in(to: Any, source: Any, size: int, stream: object) -> None:
        there.view(np.uint8).reshape(-1)[to.address : to.address + size] = source.array[:size]
        parts.append(size)

    device: Any = SimpleNamespace(
        alloc=lambda size: SimpleNamespace(address=0, size=size),
        alloc_pinned=lambda size: SimpleNamespace(array=np.zeros(size, np.uint8), free=lambda: None),
        copy_in=copy_in,
    )
    stream: Any = SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(kernels, "_CHUNK", 32)
    kernels._drawn(device, stream, np.random.default_rng(1), 100)
    assert parts == [4 * kernels.DIMENSIONS * rows for rows in (32, 32, 32, 4)]
    assert abs(there.std() - 1) < 0.05
    assert len(np.unique(there[:, 0])) == 100, "no part is another's"
    monkeypatch.setattr(kernels, "free_memory", lambda: 4 << 30)
    assert 4 * kernels.DIMENSIONS * kernels.rows_that_fit() < 2 << 30
    monkeypatch.setattr(kernels, "free_memory", lambda: 64 << 30)
    assert kernels.rows_that_fit() == kernels.MOST_ROWS


def test_int8_is_proved_layer_by_layer() -> None:
    whole = inspected(
        ("w1 + w1.q + first_out + first_relu", INT8, ""),
        ("w2 + w2.q + second_out + sum_out", INT8, ""),
        ("Reformatting CopyNode for Input Tensor 0 to pooled", HALF, ""),
    )
    assert int8_proof([whole], QUANTISED, []) == {"quantised": 3, "in_int8": 3, "astray": {}, "untold": []}
    assert layers_by_precision([whole]) == {"int8": 2, "fp16": 1}


def test_layers_that_do_not_run_in_int8_are_named() -> None:
    said = inspected(
        # From 8.6 on the fused name may be a hash, and the nodes are in the metadata.
        ("__myl_Fused_0x1", INT8, "[ONNX Layer: first_out]\u001e[ONNX Layer: first_relu]"),
        ("__myl_Fused_0x1 [profile 1]", HALF, "[ONNX Layer: first_out]"),
        ("w2 + second_out", HALF, ""),
    )
    assert int8_proof([said], QUANTISED, ["second_out"]) == {
        "quantised": 3,
        "in_int8": 0,
        "astray": {
            "first_out": "another type",
            "second_out": "back in float",
            "sum_out": "not named by the inspector",
        },
        "untold": [],
    }


def test_types_are_told_by_the_text_of_a_layers_own_profile() -> None:
    """Of another profile, whose shapes are not set, the inspector tells no formats."""
    names = "first_out", "second_out", "sum_out"
    own = [(name, INT8, "") for name in names], [(f"{name} [profile 1]", INT8, "") for name in names]
    untold = [(name, UNTOLD, "") for name, _, _ in own[0]], [(name, UNTOLD, "") for name, _, _ in own[1]]
    texts = [inspected(*own[0], *untold[1]), inspected(*untold[0], *own[1])]
    assert int8_proof(texts, QUANTISED, []) == {"quantised": 3, "in_int8": 3, "astray": {}, "untold": []}
    assert layers_by_precision(texts) == {"int8": 6}
    own[1][1] = ("second_out [profile 1]", HALF, "")
    texts[1] = inspected(*untold[0], *own[1])
    assert int8_proof(texts, QUANTISED, [])["astray"] == {"second_out": "another type"}  # type: ignore[index]


def test_types_that_nobody_tells_are_no_proof_either_way() -> None:
    """A layer's weights tell its type besides; where nothing does the goal is not missed, but not measured."""
    said = json.loads(inspected(*((name, UNTOLD, "") for name in ("first_out", "second_out", "sum_out"))))
    said["Layers"][0]["Weights"] = {"Type": "Int8", "Count": 108}
    said["Layers"][1]["Weights"] = {"Type": "Half", "Count": 144}
    proof = int8_proof([json.dumps(said)], QUANTISED, [])
    assert proof == {
        "quantised": 3,
        "in_int8": 1,
        "astray": {"second_out": "another type"},
        "untold": ["sum_out"],
    }
    (entry,) = goals({"bundles": {"a": {"engines": {"e": {"int8": proof}}}}})[1:]
    assert (entry["met"], entry["why"]) == (None, "the inspector does not tell what 1 of 3 layers take")


@pytest.mark.parametrize("said", ["", "null", "[]", '{"Layers": []}', '{"Layers": ["first_out"]}', '{"Bindings": []}'])
def test_an_inspector_that_says_nothing_proves_nothing(said: str) -> None:
    assert int8_proof([said], QUANTISED, []) == "not measured"
    assert layers_by_precision([said]) == "not measured"


def test_a_model_without_quantised_layers_is_not_proved() -> None:
    assert int8_proof([inspected(("first_out", HALF, ""))], models.small_model(), []) == "not measured"


def test_traffic_of_a_network_counted_by_hand() -> None:
    """16×16: 3 planes read, 4 written behind the Relu; 4 read, 4 written; the sum reads 4; the linear layer 4 and 8."""
    pixels = 16 * 16
    sums = pixels * 4 * 27 + pixels * 4 * 36 + 8 * 4
    counted = (3 + 4 + 4 + 4 + 4) * pixels + 4 + 8
    assert traffic(models.small_model()) == {"bytes": 4 * counted, "multiply_adds": sums}
    assert traffic(models.small_model(half=True)) == {"bytes": 2 * counted, "multiply_adds": sums}


def test_quantised_tensors_count_one_byte() -> None:
    # In front of each layer and sum eight bits; what no Q takes leaves in float: second_out, and the linear layer.
    pixels = 16 * 16
    int8 = (3 + 4 + 4) * pixels
    floats = 4 * (4 * pixels + 4 + 8)
    first_relu = 4 * pixels  # taken by two Q, so written in eight bits
    assert traffic(QUANTISED)["bytes"] == int8 + floats + first_relu
    assert traffic(QUANTISED)["multiply_adds"] == traffic(models.small_model())["multiply_adds"]


def test_traffic_of_a_linear_layer_that_is_transposed() -> None:
    weight = numpy_helper.from_array(np.ones((8, 32), np.float32), "w")
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", size]) for n, size in (("x", 32), ("y", 8))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    assert traffic(model.SerializeToString()) == {"bytes": 4 * 40, "multiply_adds": 256}


def test_the_roofline_of_a_file_that_is_none_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, absent = tmp_path / "model.onnx", tmp_path / "absent.onnx"
    model.write_bytes(models.small_model())
    assert roofline.main([str(model)]) == 0
    assert capsys.readouterr().out.startswith(f"{model}: {traffic(models.small_model())['bytes']:,} bytes")
    assert roofline.main([str(absent)]) == 2
    assert capsys.readouterr().err == f"roofline: {absent}: cannot be used (No such file or directory)\n"


def test_without_onnx_the_traffic_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the images for devices, where the rest is measured all the same."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"onnx is not installed.*arcedge\[export\]"):
        traffic(QUANTISED)


def test_a_best_batch_is_chosen_again_where_more_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = {"1": {"runtime": {}}, "8": {"runtime": {}}, "64": {"not_measured": "why"}}
    best = {"among": [1, 8], "roofline_faces_per_second": 1e5}
    assert is_whole(best, batches)
    assert is_whole({**best, "roofline_faces_per_second": "not measured"}, batches), (
        "no time passed: it is no other now"
    )
    assert not is_whole({**best, "among": [1]}, batches)
    without = {**best, "roofline_faces_per_second": f"not measured: {MissingExtraError('onnx', 'export')}"}
    assert not is_whole(without, batches)
    monkeypatch.setattr("benchmarks.gpu.engines.find_spec", lambda name: None)
    assert is_whole(without, batches), "there is no onnx still"


def test_a_part_that_cannot_be_measured_costs_the_others_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path / "out.json", {"gpu": "one"})

    def no_kernel() -> None:
        raise EngineError("the CUDA kernels are not there")

    def no_package() -> None:
        import a_package_that_nobody_has  # noqa: F401

    report.part("kernels", no_kernel)
    report.part("frame", no_package)

    def no_number() -> None:
        raise ValueError("no number")

    report.part("energy", no_number)
    report.part("engines", lambda: {"fp32": 1})
    kept = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert kept["kernels"] == {"not_measured": "the CUDA kernels are not there"}
    assert kept["frame"]["not_measured"].startswith("a_package_that_nobody_has is not installed")
    assert kept["energy"] == {"not_measured": "ValueError: no number"}
    said = capsys.readouterr().err
    assert "in no_number" in said, "a bug keeps its traceback"
    assert "edge: device: kernels: the CUDA kernels are not there\n" in said
    assert "edge: device: frame: a_package_that_nobody_has is not installed" in said
    assert "edge: device: energy: ValueError: no number\n" in said
    assert report.failed == ["device: kernels", "device: frame", "device: energy"]
    report.part("batch", lambda: {"not_measured": "the engine was built for batches of 1 to 2"})
    report.part("joules", lambda: {"measured": False, "reason": "no meter"})
    said = capsys.readouterr().err
    assert "edge: device: batch: the engine was built for batches of 1 to 2\n" in said
    assert "edge: device: joules: no meter\n" in said
    assert len(report.failed) == 3, "what cannot be here is no failure"
    # Gone on with: what is there stays, what was not measured is tried again.
    again = Report(tmp_path / "out.json", {"gpu": "one"})
    again.part("kernels", lambda: {"letterbox": 2})
    again.part("engines", no_kernel)
    assert again.values["kernels"] == {"letterbox": 2}
    assert again.values["engines"] == {"fp32": 1}
    again.part("engines", lambda: {"fp32": 2}, settled=lambda found: found["fp32"] == 2)
    assert again.values["engines"] == {"fp32": 2}
    with pytest.raises(InputError, match="another GPU"):
        Report(tmp_path / "out.json", {"gpu": "two"})


def test_photographs_that_are_not_here_are_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are made of them: they come last, hours after it could have been said."""
    monkeypatch.setattr(needs, "Kernels", lambda device, image: None)
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name == "skimage" else name)
    device: Any = None
    told = [line for line in needs.will_be_missed(device, b"") if "frames" in line]
    assert told == ["frames will not be measured: scikit-image not installed; pip install scikit-image"]
    monkeypatch.setattr(needs, "find_spec", lambda name: name)
    assert not any("frames" in line for line in needs.will_be_missed(device, b""))


def test_the_packages_of_the_fresh_machine_are_those_that_are_needed(repository: Path) -> None:
    """What the page has installed is all that the command imports: nothing else is there."""
    said = (repository / "docs" / "nvidia.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"pip install -e \. (.+)", said)
    assert {*needs.PICTURES.values(), "onnx", "nvidia-ml-py"} <= set(line.split())


def test_an_engine_that_failed_is_not_built_again() -> None:
    tried: list[int] = []

    def load() -> Any:
        tried.append(len(tried))
        raise EngineError("it gives something else than its model")

    wanted = WantedEngine(load)
    wanted.require_not_failed()
    for _ in range(3):
        with pytest.raises(EngineError, match="something else"):
            wanted()
    with pytest.raises(EngineError, match="something else"):
        wanted.require_not_failed()
    assert tried == [0]
    good = WantedEngine(lambda: tried.append(1) or "ready")  # type: ignore[func-returns-value, arg-type, return-value]
    assert good() == good() == "ready"
    assert tried == [0, 1]


def test_figures_of_other_kernels_are_measured_again(tmp_path: Path) -> None:
    """Kernels that were mended and built anew are not those that the file holds figures of; engines stay the same."""
    out = tmp_path / "out.json"

    def started(digest: str | None, ms: float) -> dict[str, Any]:
        report = Report(out, {"gpu": "one"})
        report.of_kernels(digest)
        entries = report.values["bundles"].setdefault("a", {"engines": {}, "frames": {}})
        for name in ("kernels", "search"):
            report.part(name, lambda: {"ms": ms})
        report.part("clean", lambda: {"ms": ms}, report.values.setdefault("sanitizer", {}))
        report.part("fp32", lambda: {"ms": ms}, entries["frames"])
        report.part("fp32", lambda: {"ms": ms}, entries["engines"])
        return {
            **{name: report.values[name]["ms"] for name in ("kernels", "search")},
            "sanitizer": report.values["sanitizer"]["clean"]["ms"],
            **{name: entries[name]["fp32"]["ms"] for name in ("frames", "engines")},
        }

    every = ("kernels", "search", "sanitizer", "frames", "engines")
    assert started("first", 1.0) == dict.fromkeys(every, 1.0)
    assert started("first", 2.0) == dict.fromkeys(every, 1.0)
    assert started(None, 3.0) == dict.fromkeys(every, 1.0), "none are here, and those are not other ones"
    assert started("second", 4.0) == {**dict.fromkeys(every, 4.0), "engines": 1.0}


def test_results_of_other_pictures_are_not_gone_on_with(tmp_path: Path) -> None:
    """Another list, another picture of it, another photo: figures of both would stand in one file."""
    pairs, images, photos = tmp_path / "pairs.txt", tmp_path / "images", tmp_path / "photos"
    pairs.write_text("1\t1\nA\t1\t2\nA\t1\tB\t1\n", encoding="utf-8")
    for file in ("A/A_0001.jpg", "A/A_0002.jpg", "B/B_0001.jpg", "B/B_0002.jpg"):
        (images / file).parent.mkdir(parents=True, exist_ok=True)
        (images / file).write_bytes(file.encode())
    photos.mkdir()
    (photos / "one.jpg").write_bytes(b"one")
    (images / "B" / "B_0002.jpg").write_bytes(b"of no pair")
    seen = [picture_digests(pairs, images, photos)]
    (images / "B" / "B_0002.jpg").write_bytes(b"of no pair either")
    assert picture_digests(pairs, images, photos) == seen[0]
    changes = [
        lambda: (images / "B" / "B_0001.jpg").write_bytes(b"another picture"),
        lambda: pairs.write_text("1\t1\nA\t1\t2\nA\t2\tB\t1\n", encoding="utf-8"),
        lambda: (photos / "one.jpg").write_bytes(b"another photo"),
        lambda: (photos / "two.jpg").write_bytes(b"two"),
    ]
    for change in changes:
        change()
        seen.append(picture_digests(pairs, images, photos))
        assert seen.count(seen[-1]) == 1
    assert picture_digests(None, None, None) == {"pairs": None, "images": None, "photos": None}
    with pytest.raises(InputError, match="no such file"):
        picture_digests(None, None, tmp_path / "nothing")
    Report(tmp_path / "out.json", {"picture_digests": seen[0]})
    with pytest.raises(InputError, match="of other pictures"):
        Report(tmp_path / "out.json", {"picture_digests": seen[1]})


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written.*name another file"):
        Report(tmp_path / "nowhere" / "out.json", {"gpu": "one"})
    with pytest.raises(InputError, match="holds no results"):
        Report(tmp_path, {"gpu": "one"})


def test_the_roofline_is_bandwidth_over_traffic() -> None:
    assert against_roofline(100_000.0, 12_000_000, 4.3e12) == {
        "bytes_a_face": 12_000_000,
        "roofline_faces_per_second": pytest.approx(358_333, abs=1),
        "share": pytest.approx(0.27907, abs=1e-4),
    }
    assert against_roofline("not measured", 12, 1e9)["share"] == "not measured"
    assert against_roofline(1.0, 12, None)["roofline_faces_per_second"] == "not measured"


def test_the_slowest_layers_are_named_and_the_rest_is_summed() -> None:
    found = lost_to({"a": 1.0, "b": 3.0, "c": 0.5, "d": 0.5}, most=2)
    assert [(entry["name"], entry["ms"], entry["share"]) for entry in found["layers"]] == [
        ("b", 3.0, 0.6),
        ("a", 1.0, 0.2),
    ]
    assert (found["others_ms"], found["all_ms"], found["count"]) == (1.0, 5.0, 4)


def result(
    *,
    over: Any = 1.05,
    ms: float = 0.25,
    graph: bool = True,
    rate: Any = 120_000.0,
    p50: float = 1.2,
    faces: Any = (5, 5),
) -> Any:
    one = {"runtime_over_enqueue": over, "runtime": {"p50": {"value": ms}}, "cuda_graph": graph}
    engine = {
        "role": "embedder",
        "batches": {"1": one},
        "best": {"faces_per_second_device": rate},
        "int8": {"quantised": 4, "in_int8": 3, "untold": []},
    }
    frame = {
        "faces": dict(zip(("least", "most"), faces, strict=True)),
        "preprocess_gpu_ms": {"p50": {"value": p50}, "p99_over_p50": "not measured"},
    }
    return {"bundles": {"a": {"engines": {"e": engine, "failed": {"not_measured": "why"}}, "frames": {"int8": frame}}}}


def verdicts(found: Any) -> dict[str, bool | None]:
    return {entry["goal"]: entry["met"] for entry in goals(found) if entry["of"] != "a failed"}


def test_goals_are_met_missed_or_not_measured() -> None:
    assert verdicts(result()) == {
        "runtime over pure enqueue, batch 1 <= 1.1": True,
        "ms of one face, CUDA graph <= 0.3": True,
        "faces a second, best batch >= 100000": True,
        "ms of a frame with five faces, p50 <= 1.5": True,
        "p99 over p50 of such a frame <= 1.5": None,
        "share of quantised layers in INT8 1": False,
    }
    slow = verdicts(result(over=1.2, ms=0.4, rate=9e4, p50=1.6))
    assert list(slow.values()).count(False) == 5
    without = verdicts(result(over="not measured", graph=False, rate="not measured"))
    assert without["ms of one face, CUDA graph <= 0.3"] is None, "a run without a graph is not one with it"
    assert without["runtime over pure enqueue, batch 1 <= 1.1"] is None
    looking = result()
    looking["bundles"]["a"]["engines"]["e"]["role"] = "landmarker"
    assert "faces a second, best batch >= 100000" not in verdicts(looking), "the goals of faces are those of embedders"
    assert verdicts(looking)["runtime over pure enqueue, batch 1 <= 1.1"] is True
    # An engine of which no batch could be measured has no best: said so, where the command ended in a KeyError.
    nothing = result()
    nothing["bundles"]["a"]["engines"]["e"] |= {
        "batches": {"1": {"not_measured": "no memory"}},
        "best": {"not_measured": "no batch was measured"},
    }
    whys = {entry["goal"]: entry.get("why") for entry in goals(nothing) if entry["met"] is None}
    assert whys["faces a second, best batch >= 100000"] == "no batch was measured"
    assert whys["ms of one face, CUDA graph <= 0.3"] == "no memory"
    text = as_text(goals(result()))
    assert "MISSED       share of quantised layers in INT8 1: 0.75 (a e)" in text
    assert "not measured runtime over pure enqueue, batch 1 <= 1.1: why (a failed)" in text, "the reason is shown"


@pytest.mark.parametrize("faces", [(4, 5), (5, 6), (0, 0), (6, 6)])
def test_a_frame_with_other_faces_shows_no_goal(faces: tuple[int, int]) -> None:
    found = result(faces=faces)
    assert verdicts(found)["ms of a frame with five faces, p50 <= 1.5"] is None
    line = "not shown    ms of a frame with five faces, p50 <= 1.5: frames had {} to {} faces, not 5 (a int8)"
    assert line.format(*faces) in as_text(goals(found)).splitlines()
    found["bundles"]["a"]["frames"]["int8"]["preprocess_gpu_ms"]["p99_over_p50"] = 1.1
    assert verdicts(found)["p99 over p50 of such a frame <= 1.5"] is None


def test_the_sanitizer_is_run_with_every_tool_and_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in its place that runs what it is given, and finds something with one tool."""
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        "tool, code, rest = sys.argv[2], int(sys.argv[4]), sys.argv[5:]\n"
        f"options, command = rest[: rest.index({sys.executable!r})], rest[rest.index({sys.executable!r}) :]\n"
        "assert options == (['--report-api-errors', 'no'] if tool == 'memcheck' else []), options\n"
        "subprocess.run(command, check=True)\n"
        "print('========= COMPUTE-SANITIZER')\n"
        "if tool == 'racecheck':\n"
        "    print('========= Error: Race reported between Write access\\n=========     and Read access')\n"
        "    print('========= RACECHECK SUMMARY: 1 hazard displayed')\n"
        "    sys.exit(code)\n",
        encoding="ascii",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = tmp_path / "checks.py"
    checks.write_text(
        "import sys, pathlib\nassert sys.argv[2:] == ['--harmless']\n"
        f"pathlib.Path({str(tmp_path)!r}, sys.argv[1]).touch()\n",
        encoding="ascii",
    )
    found: dict[str, Any] = {tool: sanitize(tool, "cuda-python", checks) for tool in TOOLS}
    assert (tmp_path / "cuda-python").exists(), "the checks were not run"
    race = "exit 86: Error: Race reported between Write access; RACECHECK SUMMARY: 1 hazard displayed"
    assert found["racecheck"] == race
    assert {found[tool] for tool in TOOLS if tool != "racecheck"} == {"clean"}
    assert complaints(found) == f"racecheck: {race}"
    assert not complaints(dict.fromkeys(TOOLS, "clean"))
    assert not complaints({"memcheck": {"not_measured": "compute-sanitizer is not here"}})
    assert [tool for tool in TOOLS if not is_clean(found[tool])] == ["racecheck"], "what found something is run again"
    checks.write_text("raise SystemExit('wrong')", encoding="ascii")
    assert str(sanitize("memcheck", "cuda-python", checks)).startswith("exit 1")
    checks.write_text("import time\ntime.sleep(600)", encoding="ascii")
    assert sanitize("memcheck", "cuda-python", checks, seconds=0.2) == "not done after 0 s"
    checks.write_text(
        f"import os, pathlib, time\npathlib.Path({str(tmp_path)!r}, 'pid').write_text(str(os.getpid()))\n"
        "time.sleep(600)",
        encoding="ascii",
    )
    pid = tmp_path / "pid"

    def interrupt() -> None:
        until(lambda: pid.exists() and pid.read_text(encoding="ascii") != "")
        os.kill(os.getpid(), signal.SIGINT)

    # A shell may have it ignored in what it does not wait for.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        sanitize("memcheck", "cuda-python", checks)
    signal.signal(signal.SIGINT, handler)
    left = Path("/proc", pid.read_text(encoding="ascii"), "stat")
    until(lambda: not left.exists() or left.read_text(encoding="ascii").split()[2] == "Z")
    assert "not_measured" in sanitize("memcheck", "cuda-python", tmp_path / "absent.py")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "CUDA toolkit" in str(sanitize("memcheck", "cuda-python", checks))
