"""Peers on tiny models of their own formats, whose answers can be worked out; the real ones where they are there."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.accuracy import load_evaluation
from benchmarks.accuracy.detection import Labelled, measure_detection
from benchmarks.interleave import Plan
from benchmarks.peers import PEERS
from benchmarks.peers.base import PeerModels
from benchmarks.peers.fold import with_normalisation_inside
from benchmarks.peers.measure import measure_latency, measure_pairs
from benchmarks.peers.opening import open_peers
from benchmarks.peers.words import sentences
from edge.align import ARCFACE_112, align
from edge.contract import ModelContract
from edge.errors import InputError
from edge.types import Face, Floats, Image

CONTRACT = """
role = "embedder"
size = [112, 112]
color = "rgb"
mean = [120.0, 110.0, 100.0]
std = [60.0, 50.0, 40.0]
template = "arcface-112"
embedding_size = 48
"""

NCNN = """7767517
2 2
Input            data 0 1 data
Pooling          pool 1 1 data fc1 0=1 1=28 2=28
"""


def write_embedder(folder: Path) -> Path:
    """Means of 4×4 cells of what it is fed, as published embedders are: float32 NCHW, a batch of one."""
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["mean"], kernel_shape=[28, 28], strides=[28, 28]),
            helper.make_node("Flatten", ["mean"], ["embedding"], axis=1),
        ],
        "means",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 48])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "mobilefacenet_toy.onnx"
    onnx.save(model, str(path))
    path.with_suffix(".toml").write_text(CONTRACT)
    return path


@pytest.fixture
def picture() -> Image:
    return np.random.default_rng(0).integers(0, 256, (200, 240, 3)).astype(np.uint8)


@pytest.fixture
def face() -> Face:
    return Face(np.array([40, 30, 150, 150], np.float32), (ARCFACE_112 + np.float32([40, 30])).astype(np.float32), 0.9)


def means(crop: Image) -> Floats:
    """(3, 4, 4) RGB means of 28×28 cells."""
    cells = crop[..., ::-1].astype(np.float32).reshape(4, 28, 4, 28, 3).mean(axis=(1, 3))
    return np.ascontiguousarray(cells.transpose(2, 0, 1))


def unit(vector: Floats) -> Floats:
    return vector.reshape(-1) / np.linalg.norm(vector)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_plain_engine_is_fed_by_the_models_contract(name: str, tmp_path: Path, picture: Image, face: Face) -> None:
    pytest.importorskip(name)
    file = write_embedder(tmp_path)
    with open_peers([name], tmp_path) as (peers, missing):
        assert missing == []
        (row,) = peers[name].embed(picture, [face])
        described = peers[name].describe()
    cells = means(align(picture, face.landmarks))
    expected = (cells - np.float32([120, 110, 100])[:, None, None]) / np.float32([60, 50, 40])[:, None, None]
    # OpenVINO may compute in bf16 by default where the processor does.
    assert float(row @ unit(expected)) > 0.999
    assert described["files"][0]["name"] == file.name
    assert described["version"].startswith(name)


def test_ncnn_is_fed_rgb_pixels_as_they_are(tmp_path: Path, picture: Image, face: Face) -> None:
    pytest.importorskip("ncnn")
    (tmp_path / "mobilefacenet_toy.param").write_text(NCNN)
    (tmp_path / "mobilefacenet_toy.bin").write_bytes(b"")
    with open_peers(["ncnn"], tmp_path) as (peers, missing):
        assert missing == []
        rows = peers["ncnn"].embed(picture, [face, face])
    assert np.allclose(rows[0], unit(means(align(picture, face.landmarks))), atol=2e-3)
    assert np.array_equal(rows[0], rows[1])


def test_folding_the_normalisation_in_changes_no_embedding(tmp_path: Path) -> None:
    import onnxruntime as ort

    path = write_embedder(tmp_path)
    contract = ModelContract.from_toml(path.with_suffix(".toml"))
    folded = with_normalisation_inside(path, contract)
    raw = np.random.default_rng(1).integers(0, 256, (1, 3, 112, 112)).astype(np.float32)
    mean, std = (np.float32(value).reshape(1, 3, 1, 1) for value in (contract.mean, contract.std))
    one = ort.InferenceSession(path.read_bytes()).run(None, {"input": (raw - mean) / std})[0]
    two = ort.InferenceSession(folded.SerializeToString()).run(None, {"input": raw})[0]
    assert np.allclose(one, two, atol=1e-5)
    assert [node.name for node in folded.graph.node][:2] == ["Sub_0", "Mul_0"]


@pytest.mark.parametrize(
    ("name", "package", "said"),
    [
        (
            "insightface",
            "insightface",
            "insightface: insightface is not installed; install it with: pip install --no-deps",
        ),
        ("ncnn", "ncnn", r"ncnn: ncnn is not installed; install it with: pip install 'arcedge\[peers\]'"),
        ("openvino", "openvino", r"install it with: pip install 'arcedge\[openvino\]'"),
    ],
)
def test_a_missing_peer_says_how_to_install_it(
    name: str, package: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with open_peers([name], tmp_path) as (peers, missing):
        assert peers == {}
    (line,) = missing
    assert line.startswith("not measured: ")
    assert re.search(said, line)


def test_a_missing_model_says_which_file_to_bring(tmp_path: Path) -> None:
    with open_peers(["opencv", "onnxruntime"], tmp_path) as (peers, missing):
        assert peers == {}
    assert "opencv: needs YuNet for FaceDetectorYN in" in missing[0]
    assert "face_detection_yunet*.onnx" in missing[0]
    assert "onnxruntime: needs an embedder, *mobilefacenet*.onnx, in" in missing[1]
    write_embedder(tmp_path).with_suffix(".toml").unlink()
    with open_peers(["onnxruntime"], tmp_path) as (_, missing):
        assert "needs the contract of mobilefacenet_toy.onnx as mobilefacenet_toy.toml" in missing[0]


def test_mistakes_with_peers_are_named(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="no peer is called 'dlib'; there is insightface"),
        open_peers(["dlib"], tmp_path),
    ):
        pass
    with pytest.raises(InputError, match="--peer needs --peer-models"), open_peers(["ncnn"], None):
        pass
    with pytest.raises(InputError, match="no such folder"), open_peers(["ncnn"], tmp_path / "gone"):
        pass


@dataclass
class Line:
    """A line whose cost and answers are set. `says`: the embedding of a picture by its blue level."""

    name: str
    spin: float = 0.0
    stages: tuple[Any, ...] = ("detect", "embed")
    working_score: float = 0.5
    faces: list[Face] = field(default_factory=list)
    says: Callable[[int], Floats] = lambda level: np.float32([level, 1])

    def detect(self, image: Image, min_score: float | None = None) -> list[Face]:
        return [face for face in self.faces if face.score >= (self.working_score if min_score is None else min_score)]

    def embed(self, image: Image, faces: Sequence[Face]) -> Floats:
        end = time.process_time() + self.spin
        while time.process_time() < end:
            pass
        vector = self.says(int(image[0, 0, 0]))
        return np.float32([vector / np.linalg.norm(vector)] * len(faces))

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass


def test_a_peer_that_takes_twice_the_time_is_found_to_and_one_stage_alone_is_compared(
    picture: Image, face: Face
) -> None:
    lines = {
        "FP32": Line("FP32", 0.002, faces=[face]),
        "twice": Line("twice", 0.004, faces=[face]),
        "half": Line("half", 0.001, ("embed",)),
    }
    found = measure_latency(lines, "FP32", [(picture, [face])], Plan(seconds=0, min_rounds=40))
    twice, half = found["lines"]["twice"], found["lines"]["half"]
    assert 1.8 < twice["embed"]["times_cpu"]["value"] < 2.2
    assert 1.7 < twice["frame"]["times_cpu"]["value"] < 2.2
    assert 0.4 < half["embed"]["times_cpu"]["value"] < 0.6
    assert set(half) == {"embed"}
    said = sentences("half", "FP32", found, None, None)
    assert said["better"][0].startswith("alignment and embedding takes ")
    assert "times less processor time" in said["better"][0]
    assert sentences("twice", "FP32", found, None, None)["worse"]


@pytest.fixture
def lfw(tmp_path: Path) -> tuple[Path, Path]:
    """Thirty people with two pictures each, told apart by their blue level; two folds of pairs."""
    lines = ["2\t15"]
    for person in range(30):
        (tmp_path / f"P{person:02d}").mkdir()
        for i in (1, 2):
            path = tmp_path / f"P{person:02d}" / f"P{person:02d}_{i:04d}.png"
            cv2.imwrite(str(path), np.full((40, 40, 3), 8 * person + 4, np.uint8))
    for fold in range(2):
        people = range(15 * fold, 15 * fold + 15)
        lines += [f"P{i:02d}\t1\t2" for i in people]
        lines += [f"P{i:02d}\t1\tP{(i + 3) % 30:02d}\t2" for i in people]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "pairs.txt", tmp_path


def test_pairs_show_a_peer_that_is_worse_and_one_that_is_given_faces(lfw: tuple[Path, Path], face: Face) -> None:
    evaluation = load_evaluation(lfw[0], lfw[1], None)
    assert evaluation is not None

    def apart(level: int) -> Floats:
        return np.float32([np.cos(level), np.sin(level), np.cos(3 * level), np.sin(3 * level)])

    lines = {
        "FP32": Line("FP32", faces=[face], says=apart),
        "confused": Line("confused", faces=[face], says=lambda level: np.float32([1, 1])),
        "blind": Line("blind", says=apart),
        "given": Line("given", stages=("embed",), says=apart),
    }
    found = measure_pairs(lines, "FP32", evaluation)["lines"]
    assert found["FP32"]["accuracy"]["value"] == found["given"]["accuracy"]["value"] == 1.0
    assert found["given"]["against_baseline"]["loss"]["value"] == 0.0
    # Whoever sees no face, or all faces as one, can do no better than chance.
    assert found["blind"]["without_face"] == 60
    assert found["blind"]["accuracy"]["value"] == found["confused"]["accuracy"]["value"] == 0.5
    assert found["confused"]["against_baseline"]["loss"]["low"] > 0.3
    assert found["confused"]["against_baseline"]["mcnemar"]["only_first"] == 30


def test_detection_counts_what_the_working_threshold_finds(tmp_path: Path) -> None:
    lines = []
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((200, 200, 3), np.uint8))
        lines.append(f"# {i}.png 200 200\n40 30 150 150\n10 160 40 190")
    (tmp_path / "labels.txt").write_text("\n".join(lines) + "\n")
    marks = (ARCFACE_112 + np.float32([40, 30])).astype(np.float32)
    large = Face(np.array([40, 30, 150, 150], np.float32), marks, 0.9)
    small = Face(np.array([10, 160, 40, 190], np.float32), marks, 0.3)
    wrong = Face(np.array([100, 0, 190, 40], np.float32), marks, 0.8)
    found = measure_detection(
        {
            "FP32": Line("FP32", faces=[large, small]),
            "lenient": Line("lenient", faces=[large, small, wrong], working_score=0.2),
            "embedder": Line("embedder", stages=("embed",)),
        },
        "FP32",
        Labelled(tmp_path, portraits=tuple(sorted(tmp_path.glob("*.png")))),
    )
    assert set(found["lines"]) == {"FP32", "lenient"}
    strict, lenient = found["lines"]["FP32"], found["lines"]["lenient"]
    assert (found["faces"], strict["found"], strict["false_alarms"]) == (24, 12, 0)
    assert strict["recall"]["value"] == 0.5
    assert strict["average_precision"]["value"] == 1.0
    assert (lenient["found"], lenient["false_alarms"]) == (24, 12)
    assert lenient["against_baseline"]["recall_loss"]["value"] == -0.5
    assert lenient["average_precision"]["value"] < 1.0
    assert found["landmarks"]["lines"]["lenient"]["median"]["value"] == 0.0
    said = sentences("lenient", "FP32", {"lines": {"lenient": {}}}, None, found)
    assert said["better"] == [
        "finds 100.00 % [100.00, 100.00] of 24 faces at its threshold, with 12 false alarms; "
        "FP32 50.00 % [50.00, 50.00], with 0"
    ]


@pytest.mark.realdata
@pytest.mark.parametrize("name", list(PEERS))
def test_a_real_peer_finds_and_tells_apart_the_same_people(name: str, shared_data: Path) -> None:
    """Six people in one picture: every peer's embeddings tell them apart, and know each of them mirrored."""
    image = cv2.imread(str(shared_data / "data" / "scenes" / "six_faces.jpg"))
    from benchmarks.detection import open_detector

    faces = open_detector(shared_data / "models" / "yunet_s_dynamic.onnx").detect(image)
    with open_peers([name], shared_data / "models") as (peers, missing):
        if missing and "is not installed" in missing[0]:
            pytest.skip(missing[0])
        peer = peers[name]
        if "detect" in peer.stages:
            assert len(peer.detect(image)) >= 4
        rows = peer.embed(image, faces)
        mirrored = peer.embed(np.ascontiguousarray(image[:, ::-1]), [mirror(face, image.shape[1]) for face in faces])
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-3)
    others = (rows @ rows.T)[~np.eye(len(rows), dtype=bool)]
    assert others.max() < 0.6
    assert (rows * mirrored).sum(axis=1).min() > max(0.75, others.max())


def mirror(face: Face, width: int) -> Face:
    x1, y1, x2, y2 = face.box
    marks = face.landmarks[[1, 0, 2, 4, 3]] * np.float32([-1, 1]) + np.float32([width - 1, 0])
    return Face(np.float32([width - 1 - x2, y1, width - 1 - x1, y2]), marks, face.score)


def test_peer_models_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--peer-models names one"):
        PeerModels(tmp_path / "none")
