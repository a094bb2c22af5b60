"""The fault catalogue: what goes wrong in exports, done on purpose to a real model on real faces, and caught."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from edge.contract import ModelContract
from edge.detect import Detector
from edge.engines import open_session
from edge.errors import GateError
from export.agreement import compare_embeddings, embed_with
from export.calibration import METHODS, observe
from export.calibration.observer import outputs_of
from export.calibration.photos import Faces, align_photos
from export.graph import Graph
from export.passes import Passes, qdq
from export.plausibility import EmbedAs, require_plausible
from export.request import Budget
from export.sources import Source, load_detector, load_embedder_onnx
from export.to_onnx import _Features as Features
from export.to_onnx import compare_with_torch
from export.variants import int8_model

pytestmark = [pytest.mark.realdata, pytest.mark.slow]

CONTRACT = """
role = "embedder"
size = [112, 112]
color = "rgb"
layout = "nchw"
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
embedding_size = 128
template = "arcface-112"
"""


@pytest.fixture(scope="module")
def source(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    contract = tmp_path_factory.mktemp("contract") / "model.toml"
    contract.write_text(CONTRACT)
    return load_embedder_onnx(shared_data / "models" / "mobilefacenet_foamliu_128.onnx", contract, Passes())


@pytest.fixture(scope="module")
def fed_as(source: Source) -> EmbedAs:
    """What the imported model gives for a contract, computed once a contract: the tests compare the same few."""
    assert source.fed_as is not None
    real, seen = source.fed_as, dict[tuple[str, bytes], np.ndarray]()

    def remembered(contract: ModelContract, crops: np.ndarray) -> np.ndarray:
        key = contract.digest(), crops.tobytes()
        if key not in seen:
            seen[key] = real(contract, crops)
        return seen[key]

    return remembered


@pytest.fixture(scope="module")
def detector(shared_data: Path) -> Source:
    return load_detector(shared_data / "models" / "yunet_s_dynamic.onnx", Passes())


@pytest.fixture(scope="module")
def faces(shared_data: Path, detector: Source) -> Faces:
    with open_session(detector.float_model.SerializeToString()) as session:
        opened = Detector(session, detector.contract)
        return align_photos(shared_data / "data" / "avengers" / "cropped_images", opened, quiet=True)


@pytest.fixture(scope="module")
def reference(source: Source, faces: Faces) -> np.ndarray:
    assert source.reference is not None
    return source.reference(faces.crops[::8])


def batches_of(crops: np.ndarray) -> list[np.ndarray]:
    return [crops[i : i + 8] for i in range(0, len(crops), 8)]


def ranges_over(source: Source, crops: np.ndarray) -> dict[str, tuple[float, float]]:
    tensors = qdq.placement(source.float_model).tensors
    histograms = observe(source.float_model, tensors, lambda: batches_of(crops))
    return {name: METHODS["min-max"](histogram) for name, histogram in histograms.items()}


def extremes_over(source: Source, crops: np.ndarray) -> dict[str, tuple[float, float]]:
    """What `ranges_over` gives, without what only other methods need: a look at the crops less, and no histograms."""
    found: dict[str, tuple[float, float]] = {}
    tensors = qdq.placement(source.float_model).tensors
    for values in outputs_of(source.float_model, tensors, batches_of(crops)):
        for name, array in values:
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = min(low, float(array.min())), max(high, float(array.max()))
    return found


@pytest.fixture(scope="module")
def ranges(source: Source, faces: Faces) -> dict[str, tuple[float, float]]:
    return ranges_over(source, faces.crops[1::8])


def gate(source: Source, faces: Faces, reference: np.ndarray, ranges: dict[str, tuple[float, float]]) -> float:
    data = int8_model(source.float_model, ranges, "int8-cpu").SerializeToString()
    agreement = compare_embeddings(embed_with(data, source.contract, faces.crops[::8]), reference, "faces")
    Budget().require_cosine("embedder-int8", "int8", agreement.mean_cosine, f"{agreement.count} faces")
    return agreement.mean_cosine


def test_clean_exports_raise_no_false_alarm(source, faces, reference, ranges) -> None:
    """Twelve exports, each calibrated on other photos."""
    assert extremes_over(source, faces.crops[1::8]) == ranges
    random = np.random.default_rng(0)
    for _ in range(12):
        chosen = random.choice(len(faces.crops), 24, replace=False)
        assert gate(source, faces, reference, extremes_over(source, faces.crops[chosen])) > 0.98


def test_calibrated_on_one_random_picture(source, faces, reference) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 112, 112, 3)).astype(np.uint8)
    with pytest.raises(GateError):
        gate(source, faces, reference, ranges_over(source, noise))


def test_saturated_scales(source, faces, reference, ranges) -> None:
    with pytest.raises(GateError):
        gate(source, faces, reference, {name: (0.2 * low, 0.2 * high) for name, (low, high) in ranges.items()})


def test_one_scale_for_all_channels_of_a_depthwise_layer(source, faces, reference, ranges, monkeypatch) -> None:
    per_channel = qdq.channel_scales

    def per_tensor(weight: np.ndarray, axis: int) -> np.ndarray:
        scales = per_channel(weight, axis)
        return np.full_like(scales, scales.max()) if weight.ndim == 4 and weight.shape[1] == 1 else scales

    monkeypatch.setattr(qdq, "channel_scales", per_tensor)
    with pytest.raises(GateError):
        gate(source, faces, reference, ranges)


@pytest.mark.parametrize(
    "change",
    [
        {"color": "bgr", "mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)},
        {"mean": (0.0,) * 3, "std": (1.0,) * 3},
        {"mean": (0.0,) * 3, "std": (255.0,) * 3},
    ],
    ids=["wrong colour order", "no normalisation", "no mean"],
)
def test_a_contract_that_feeds_the_model_wrongly(source, fed_as, faces, change) -> None:
    assert source.stated is not None
    with pytest.raises(GateError, match="feeds this model wrongly"):
        require_plausible(replace(source.stated, **change), fed_as, faces.crops, faces.labels)


def test_the_right_contract_passes(source, fed_as, faces) -> None:
    assert source.stated is not None
    assert require_plausible(source.stated, fed_as, faces.crops, faces.labels)


@pytest.mark.parametrize("order", [(1, 0, 2, 4, 3), (3, 4, 2, 0, 1)], ids=["left and right", "eyes and mouth"])
def test_swapped_landmarks(shared_data: Path, tmp_path: Path, detector: Source, order: tuple[int, ...]) -> None:
    graph = Graph(detector.float_model)
    columns = graph.constant("order", np.array([2 * point + axis for point in order for axis in (0, 1)], np.int64))
    for stride in (8, 16, 32):
        graph.rename_tensor(f"kps_{stride}", f"kps_{stride}.true")
        graph.nodes.append(helper.make_node("Gather", [f"kps_{stride}.true", columns], [f"kps_{stride}"], axis=2))
    person = shared_data / "data" / "avengers" / "cropped_images" / "chris_evans"
    few = tmp_path / "few"
    few.mkdir()
    for photo in sorted(person.glob("*.png"))[:6]:
        (few / photo.name).write_bytes(photo.read_bytes())
    with open_session(graph.close().SerializeToString()) as session:
        swapped = Detector(session, detector.contract)
        with pytest.raises(GateError, match="another order"):
            align_photos(few, swapped, quiet=True)


@pytest.mark.parametrize("fault", ["BatchNorm epsilon", "stale checkpoint", "one slope"])
def test_a_graph_that_is_not_the_networks(fault: str, prelu_network, prelu_graph, sample) -> None:
    changed = copy.deepcopy(prelu_network)
    with torch.no_grad():
        for name, module in changed.named_modules():
            if fault == "BatchNorm epsilon" and isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 1e-3
            elif fault == "stale checkpoint" and name == "conv_45.project.conv":
                module.weight.mul_(1.01)
            elif fault == "one slope" and name == "conv_5.model.1.conv.prelu":
                module.weight[3] += 0.05
    with pytest.raises(GateError, match="differs from torch"):
        compare_with_torch(Features(changed), prelu_graph, sample)
