"""`model_weights/README.md` is made of the cards, and is up to date."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from edge.weights.cards import read_cards
from edge.weights.shipped import FOLDER
from training.weights_table import main, render

WEIGHTS = b"weights"
CARD = {
    "name": "net-512",
    "role": "embedder",
    "file": "net-512.safetensors",
    "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
    "size": len(WEIGHTS),
    "parameters": 1_200_512,
    "licence": "Apache-2.0",
    "data": "10 crops of 2 people",
    "figures": [
        {
            "what": "accuracy | pairs",
            "value": 99.13,
            "low": 98.7,
            "high": 99.4,
            "count": 3000,
            "on": "LFW",
            "unit": "%",
        },
        {"what": "TAR", "value": 96.5, "on": "all pairs", "unit": "%", "target": "at least 97 %", "met": False},
        {"what": "time on a Jetson", "value": None},
    ],
    "limits": ["few people"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net-512.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "net-512.card.json").write_text(json.dumps(CARD))
    return tmp_path


def test_the_page_says_what_the_cards_say(folder: Path) -> None:
    page = render(read_cards(folder))
    assert "| [net-512](#net-512) | embedder | 0.00 MB | 1,200,512 |" in page
    assert "| accuracy \\| pairs | 99.13 % | 98.7–99.4 | 3,000 | LFW |  |" in page
    assert "| TAR | 96.5 % |  |  | all pairs | at least 97 %: **missed** |" in page
    assert "| time on a Jetson | not measured |" in page
    assert "- few people" in page


def test_a_page_that_differs_from_the_cards_is_found(folder: Path) -> None:
    arguments = ["--folder", str(folder)]
    assert main([*arguments, "--check"]) == 1
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 0
    changed = json.loads(json.dumps(CARD))
    changed["figures"][0]["value"] = 99.2
    (folder / "net-512.card.json").write_text(json.dumps(changed))
    assert main([*arguments, "--check"]) == 1


def test_a_card_of_other_weights_makes_no_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "net-512.safetensors").write_bytes(WEIGHTS + b"!")
    assert main(["--folder", str(folder)]) == 2
    assert "its card says" in capsys.readouterr().err
    assert not (folder / "README.md").exists()


def test_the_page_that_ships_is_up_to_date() -> None:
    assert main(["--check", "--folder", str(FOLDER)]) == 0
