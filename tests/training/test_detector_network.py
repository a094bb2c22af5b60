from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge.detect.decode import decode, require_heads
from edge.errors import ContractError, InputError
from training.detector.network import ARCH, OUTPUT_NAMES, EdgeDetector, load, save
from training.weights_file import read_metadata


@pytest.fixture(scope="module")
def network() -> EdgeDetector:
    """Random weights, with BatchNorm statistics that are not the initial ones."""
    torch.manual_seed(3)
    network = EdgeDetector().train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 64, 96) * 255)
    return network.eval()


def test_the_network_stays_within_its_budget() -> None:
    assert sum(parameter.numel() for parameter in EdgeDetector().parameters()) <= 150_000


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 160), (96, 64)])
def test_outputs_follow_the_yunet_protocol(network: EdgeDetector, height: int, width: int) -> None:
    with torch.no_grad():
        outputs = dict(zip(OUTPUT_NAMES, network(torch.rand(2, 3, height, width) * 255), strict=True))
    require_heads(set(outputs))
    for name, output in outputs.items():
        head, stride = name.split("_")
        cells = (height // int(stride)) * (width // int(stride))
        assert tuple(output.shape) == (2, cells, {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}[head])
        if head in ("cls", "obj"):
            assert float(output.min()) >= 0
            assert float(output.max()) <= 1


def test_cells_run_along_rows_as_the_decoder_reads_them(network: EdgeDetector) -> None:
    """A head that answers at one place only must be decoded at that place."""
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 128) * 255
        raw = network.predictions(image)
        outputs = {name: value.numpy() for name, value in zip(OUTPUT_NAMES, network(image), strict=True)}
    row, column = 3, 11
    for name in OUTPUT_NAMES:
        if name.startswith("obj"):
            outputs[name] = np.zeros_like(outputs[name])
    outputs["obj_8"][0, row * 16 + column, 0] = 1.0
    outputs["cls_8"][0, row * 16 + column, 0] = 1.0
    found = decode(outputs, 0, 64, 128, 0.5)
    assert found.scores.tolist() == [1.0]
    dx, dy, dw, dh = raw[0][0, 2:6, row, column].numpy()
    centre = np.array([column + dx, row + dy]) * 8
    half = np.exp([dw, dh]) * 4
    np.testing.assert_allclose(found.boxes[0], [*(centre - half), *(centre + half)], rtol=1e-4)
    points = raw[0][0, 6:, row, column].numpy().reshape(5, 2)
    np.testing.assert_allclose(found.landmarks[0], (np.array([column, row]) + points) * 8, rtol=1e-4)


def test_saved_weights_come_back_folded_and_compute_the_same(network: EdgeDetector, tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    save(network, path, steps=7, seed=3)
    metadata = read_metadata(path)
    assert (metadata["role"], metadata["steps"], metadata["seed"]) == ("detector", "7", "3")
    folded = load(path)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        for own, other in zip(network(image), folded(image), strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


def test_files_that_hold_no_detector_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.safetensors"
    text.write_text("no weights")
    with pytest.raises(InputError, match="notes"):
        load(text)
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other, {"role": "embedder", "arch": "mobilefacenet"})
    with pytest.raises(ContractError, match="detector"):
        load(other)
    cut = tmp_path / "cut.safetensors"
    save_file({"weight": torch.zeros(2)}, cut, {"role": "detector", "arch": ARCH})
    with pytest.raises(ContractError, match="do not fit"):
        load(cut)
