"""A card written with its weights is of those very weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.errors import InputError
from edge.weights.cards import Figure, read_card
from training.checkpoint import save_embedder
from training.mobilefacenet import MobileFaceNet
from training.shipping import count_parameters, write_shipped_card

FIGURE = Figure("accuracy", 99.0, 98.5, 99.4, 3000, "LFW folds 1-5", "%", "at least 99.0 %", True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_embedder(path, MobileFaceNet(64, "relu"), {})
    return path


def test_counts_what_the_network_learns(weights: Path) -> None:
    assert count_parameters(weights) == sum(p.numel() for p in MobileFaceNet(64, "relu").parameters())


def test_a_written_card_is_of_its_weights_and_keeps_the_rest(weights: Path) -> None:
    path = write_shipped_card(
        weights,
        role="embedder",
        licence="Apache-2.0",
        data="crops",
        figures=[FIGURE, Figure("on a Jetson", None)],
        limits=["few people"],
        more={"recipe": {"seed": 1}, "sha256": "of something else"},
    )
    card = read_card(path)
    assert card.fault() is None
    assert card.figures == (FIGURE, Figure("on a Jetson", None))
    assert json.loads(path.read_text(encoding="utf-8"))["recipe"] == {"seed": 1}


def test_a_file_that_is_no_safetensors_gets_no_card(tmp_path: Path) -> None:
    for data in (b"", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0[]", b"\x04\0\0\0\0\0\0\0null"):
        path = tmp_path / "net.safetensors"
        path.write_bytes(data)
        with pytest.raises(InputError, match="not a safetensors file"):
            count_parameters(path)
