"""The toy world of tests/edge with a bundle of three precisions whose differences are built in, and so are known."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from benchmarks.cli import VERB
from edge.manifest import Manifest, Threshold, Variant

_TOY = Path(__file__).resolve().parent.parent / "edge" / "conftest.py"
PEOPLE, PICTURES = 24, 3


def _toy_world() -> Any:
    spec = importlib.util.spec_from_file_location("toy_world", _TOY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_world"] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


toy_world = _toy_world()


def _with(model: bytes, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> bytes:
    """The toy embedder with nodes between its flattened means ("raw") and its output."""
    changed = onnx.load_from_string(model)
    changed.graph.node[-1].output[0] = "raw"
    changed.graph.node.extend(nodes)
    changed.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(changed)
    return changed.SerializeToString()


def slow_embedder(model: bytes) -> bytes:
    """The same embedding after a detour of sixty large products that change nothing."""
    size = 600
    nodes = [helper.make_node("MatMul", ["raw", "widen"], ["w0"])]
    nodes += [helper.make_node("MatMul", [f"w{i}", "turn"], [f"w{i + 1}"]) for i in range(60)]
    nodes += [helper.make_node("MatMul", ["w60", "narrow"], ["embedding"])]
    eye = np.eye(size, dtype=np.float32)
    return _with(model, nodes, {"widen": eye[:48], "turn": eye, "narrow": eye[:, :48]})


def damaged_embedder(model: bytes) -> bytes:
    """Keeps the first of 48 numbers: all that is left of a person is its sign."""
    kept = np.zeros(48, np.float32)
    kept[0] = 1
    return _with(model, [helper.make_node("Mul", ["raw", "kept"], ["embedding"])], {"kept": kept})


def write_bundle(path: Path, embedders: dict[str, bytes], detector: bytes) -> Path:
    path.mkdir(parents=True)
    models = [("detector", "fp32", detector), *(("embedder", name, data) for name, data in embedders.items())]
    variants = []
    for role, precision, data in models:
        name = f"{role}-{precision}"
        (path / f"{name}.onnx").write_bytes(data)
        contract = toy_world.DETECTOR if role == "detector" else toy_world.EMBEDDER
        threshold = Threshold(toy_world.THRESHOLD, 1e-3, 0, "toy textures") if role == "embedder" else None
        digest = hashlib.sha256(data).hexdigest()
        variants.append(Variant(name, role, precision, "onnx", f"{name}.onnx", digest, len(data), contract, threshold))
    (path / "bundle.json").write_text(json.dumps(Manifest(tuple(variants)).to_dict()))
    return path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FP32 is slow, FP16 quick and the same, INT8 quick and damaged."""
    plain = toy_world.embedder_model()
    embedders = {"fp32": slow_embedder(plain), "fp16": plain, "int8": damaged_embedder(plain)}
    return write_bundle(tmp_path_factory.mktemp("bench") / "toy.bundle", embedders, toy_world.detector_model())


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a person, each picture with its own noise; `Name/Name_0001.png`."""
    folder = tmp_path_factory.mktemp("people")
    toy = toy_world.Toy(folder)
    random = np.random.default_rng(0)
    for person in range(PEOPLE):
        home = folder / f"P{person:02d}"
        home.mkdir()
        for picture in range(1, PICTURES + 1):
            scene = toy.scene(160, 160, [(person, 48, 48)]).astype(np.float32)
            noisy = scene + random.normal(0, 12, scene.shape)
            noisy[72:88, 72:88] = (255, 0, 0)  # the patch the toy detector looks for
            cv2.imwrite(str(home / f"{home.name}_{picture:04d}.png"), np.clip(noisy, 0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="session")
def pairs(people: Path) -> Path:
    """Two folds of twelve genuine and twelve impostor pairs."""
    lines = ["2\t12"]
    for fold in range(2):
        own = range(12 * fold, 12 * fold + 12)
        lines += [f"P{i:02d}\t1\t2" for i in own]
        lines += [f"P{i:02d}\t3\tP{(i + 1) % PEOPLE:02d}\t1" for i in own]
    file = people.parent / "pairs.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="session")
def bench() -> Callable[..., int]:
    """Runs `edge bench` with these arguments; gives the exit code, raises the EdgeError of a mistake."""

    def run(*arguments: object) -> int:
        parser = argparse.ArgumentParser()
        VERB.configure(parser)
        return VERB.run(parser.parse_args([str(argument) for argument in arguments]))

    return run


@pytest.fixture(scope="session")
def measured(
    tmp_path_factory: pytest.TempPathFactory, bench: Callable[..., int], bundle: Path, people: Path, pairs: Path
) -> Path:
    """The folder of one full run on the toy world."""
    out = tmp_path_factory.mktemp("report")
    status = bench(
        *("--bundle", bundle, "--pairs", pairs, "--images", people, "--identities", people, "--pictures", people),
        *("--frames", 6, "--seconds", 0.6, "--out", out, "--json"),
    )
    assert status == 0
    return out
