"""A toy world in which the real line runs: people are coloured textures, found by a blue patch in their middle.

The detector and the embedder are real ONNX models, built here, that follow the protocols of a bundle: detection,
decoding, alignment, embedding, matching and all after them run as they do on faces, and the truth is known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.align import ARCFACE_112
from edge.bundle import Bundle
from edge.contract import ModelContract
from edge.manifest import Manifest, Threshold, Variant
from edge.types import Image

FACE = 64
"""Pixels of a toy face's side."""

DETECTOR = ModelContract(role="detector", size=None)
EMBEDDER = ModelContract(role="embedder", size=(112, 112), template="arcface-112", embedding_size=48)
THRESHOLD = 0.7


@dataclass(frozen=True)
class Toy:
    """The bundle's directory and how to paint people."""

    path: Path

    detector_contract = DETECTOR
    embedder_contract = EMBEDDER
    threshold = THRESHOLD
    face = FACE

    @property
    def bundle(self) -> Bundle:
        return Bundle.open(self.path)

    @staticmethod
    def portrait(person: int) -> Image:
        """(64, 64, 3): the same texture for the same number, an unrelated one for another."""
        coarse = np.random.default_rng(1000 + person).integers(0, 256, (4, 4, 3)).astype(np.uint8)
        texture = cv2.resize(coarse, (FACE, FACE), interpolation=cv2.INTER_LINEAR)
        middle = slice(FACE // 2 - 8, FACE // 2 + 8)
        texture[middle, middle] = (255, 0, 0)
        return texture

    def scene(self, width: int, height: int, people: Sequence[tuple[int, int, int]]) -> Image:
        """A grey picture with (person, x, y) placed by their upper left corners."""
        canvas = np.full((height, width, 3), 128, np.uint8)
        for person, x, y in people:
            canvas[y : y + FACE, x : x + FACE] = self.portrait(person)
        return canvas

    def write_scene(self, path: Path, width: int, height: int, people: Sequence[tuple[int, int, int]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), self.scene(width, height, people))
        return path

    def write_video(self, path: Path, frames: Sequence[Image], fps: float = 25.0) -> Path:
        height, width = frames[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
        for frame in frames:
            writer.write(frame)
        writer.release()
        return path


def detector_model() -> bytes:
    """Fires at stride 8 where a cell is pure blue; its box is 64x64 around the cell, its landmarks the template's."""
    graph = _Graph()
    pixels = graph.add("Cast", ["input"], to=TensorProto.FLOAT)
    planes = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    weights = np.array([1, -1, -1], np.float32).reshape(1, 3, 1, 1) / 255
    blue = graph.add("Conv", [planes, graph.constant(weights)])
    outputs = []
    for stride in (8, 16, 32):
        mean = graph.add("AveragePool", [blue], kernel_shape=[stride, stride], strides=[stride, stride])
        # Beyond stride 8 nothing ever fires.
        edge = graph.constant(np.float32(0.8 if stride == 8 else 9.0))
        sharp = graph.add("Mul", [graph.add("Sub", [mean, edge]), graph.constant(np.float32(60))])
        flat = graph.add("Reshape", [graph.add("Sigmoid", [sharp]), graph.constant(np.array([0, -1, 1], np.int64))])
        zeros = graph.add("Mul", [flat, graph.constant(np.float32(0))])
        size = np.log(FACE / stride)
        landmarks = (ARCFACE_112 - 55.5) * (FACE / 112) / stride + 0.5
        values = {"bbox": [0.5, 0.5, size, size], "kps": landmarks.reshape(-1).tolist()}
        for head in ("cls", "obj"):
            graph.add("Identity", [flat], output=f"{head}_{stride}")
        for head, row in values.items():
            graph.add("Add", [zeros, graph.constant(np.array(row, np.float32))], output=f"{head}_{stride}")
        outputs += [(f"cls_{stride}", 1), (f"obj_{stride}", 1), (f"bbox_{stride}", 4), (f"kps_{stride}", 10)]
    return graph.build(["n", "h", "w", 3], [(name, ["n", f"k_{name}", columns]) for name, columns in outputs])


def embedder_model() -> bytes:
    """The crop's 4x4 mean colours about grey: 48 numbers."""
    graph = _Graph()
    pixels = graph.add("Cast", ["input"], to=TensorProto.FLOAT)
    planes = graph.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    centred = graph.add("Sub", [planes, graph.constant(np.float32(127.5))])
    mean = graph.add("AveragePool", [centred], kernel_shape=[28, 28], strides=[28, 28])
    graph.add("Flatten", [mean], output="embedding", axis=1)
    return graph.build(["n", 112, 112, 3], [("embedding", ["n", 48])])


class _Graph:
    """Nodes and constants of an ONNX graph with one uint8 input called "input"."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: np.ndarray | np.generic) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, inputs: list[str], output: str | None = None, **attributes: object) -> str:
        name = output or f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def build(self, shape: list[str | int], outputs: list[tuple[str, list[str | int]]]) -> bytes:
        graph = helper.make_graph(
            self._nodes,
            "toy",
            [helper.make_tensor_value_info("input", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs],
            self._constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model.SerializeToString()


def write_bundle(path: Path, models: dict[str, bytes]) -> Path:
    """A bundle with a detector and an embedder."""
    path.mkdir(parents=True)
    variants = []
    for role, contract in (("detector", DETECTOR), ("embedder", EMBEDDER)):
        data = models[role]
        (path / f"{role}.onnx").write_bytes(data)
        threshold = Threshold(THRESHOLD, 1e-3, 0, "toy textures") if role == "embedder" else None
        digest = hashlib.sha256(data).hexdigest()
        variants.append(
            Variant(f"{role}-fp32", role, "fp32", "onnx", f"{role}.onnx", digest, len(data), contract, threshold)
        )
    (path / "bundle.json").write_text(json.dumps(Manifest(tuple(variants)).to_dict()))
    return path


@pytest.fixture(scope="session")
def toy_models() -> dict[str, bytes]:
    """ONNX bytes of the toy detector and embedder."""
    return {"detector": detector_model(), "embedder": embedder_model()}


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory, toy_models: dict[str, bytes]) -> Toy:
    """The toy world with its bundle, which no test may change."""
    return Toy(write_bundle(tmp_path_factory.mktemp("toy") / "bundle", toy_models))


@pytest.fixture
def own_bundle(tmp_path: Path, toy_models: dict[str, bytes]) -> Path:
    """A bundle of the test's own, to be damaged."""
    return write_bundle(tmp_path / "own.bundle", toy_models)
