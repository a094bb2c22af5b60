"""Cards, the page made of them, and the promise that what ships is small and is what its cards say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from edge.errors import InputError
from edge.weights.cards import read_card, read_cards
from edge.weights.inventory import faults, inventory
from edge.weights.shipped import FOLDER, list_weights

MAX_SHIPPED_BYTES = 12_000_000
WEIGHTS = b"weights of some network"


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCEDGE_CACHE", str(tmp_path / "cache"))


def _values(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": "net",
        "role": "embedder",
        "file": "net.safetensors",
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "size": len(WEIGHTS),
        "parameters": 1_200_512,
        "licence": "Apache-2.0",
        "data": "10 crops of 2 people",
        "figures": [
            {
                "what": "accuracy | pairs",
                "value": 99.13,
                "low": 98.73,
                "high": 99.43,
                "count": 3000,
                "on": "LFW folds 1-5",
                "unit": "%",
                "target": "at least 99.0 %",
                "met": True,
            },
            {"what": "TAR at FAR 1e-3", "value": 96.5, "on": "all pairs", "unit": "%", "target": "97 %", "met": False},
            {"what": "on a Jetson", "value": None},
        ],
        "limits": ["few people", "no profile views"],
        "recipe": {"anything": "else"},
    }
    return values | changes


def _write(folder: Path, **changes: Any) -> Path:
    (folder / "net.safetensors").write_bytes(WEIGHTS)
    path = folder / "net.card.json"
    path.write_text(json.dumps(_values(**changes)))
    return path


def test_a_card_reads_back(tmp_path: Path) -> None:
    card = read_card(_write(tmp_path))
    assert (card.name, card.parameters, card.limits) == ("net", 1_200_512, ("few people", "no profile views"))
    assert [figure.value for figure in card.figures] == [99.13, 96.5, None]
    assert card.fault() is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": None}, "sha256 must be text"),
        ({"size": "many"}, "size must be a whole number"),
        ({"file": "../net.safetensors"}, "beside its file"),
        ({"name": "other"}, "NAME.card.json"),
        ({"figures": [{"what": "x", "value": 3.0}]}, "which data"),
        ({"figures": [{"what": "x", "value": 3.0, "low": 4.0, "high": 5.0, "on": "y"}]}, "outside its interval"),
        ({"figures": [{"what": "x", "value": float("nan"), "on": "y"}]}, "finite"),
        ({"figures": [{"what": "x", "value": 1.0, "on": "y", "colour": "red"}]}, "colour"),
    ],
)
def test_an_unfit_card_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_card(_write(tmp_path, **changes))


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path)
    for key in ("licence", "data", "figures", "limits", "parameters"):
        path.write_text(json.dumps({k: v for k, v in _values().items() if k != key}))
        with pytest.raises(InputError, match=f"'?{key}'? is missing"):
            read_card(path)


def test_a_file_that_is_not_its_cards_is_found(tmp_path: Path) -> None:
    _write(tmp_path)
    assert faults(folder=tmp_path) == {"net": None}
    (tmp_path / "net.safetensors").write_bytes(WEIGHTS[::-1])
    assert "its card says" in (faults(folder=tmp_path)["net"] or "")
    (tmp_path / "net.safetensors").write_bytes(WEIGHTS[:-1])
    assert f"has {len(WEIGHTS) - 1} bytes" in (faults(folder=tmp_path)["net"] or "")
    (tmp_path / "net.safetensors").unlink()
    assert faults(folder=tmp_path) == {"net": "is missing"}
    (tmp_path / "cardless.safetensors").write_bytes(WEIGHTS)
    assert faults(folder=tmp_path)["cardless"] == "has no card"
    assert next((row.name, row.state) for row in inventory(folder=tmp_path)) == ("cardless", "ships")


def test_what_ships_is_small() -> None:
    sizes = {weights.path.name: weights.path.stat().st_size for weights in list_weights()}
    assert sum(sizes.values()) <= MAX_SHIPPED_BYTES, sizes


def test_what_ships_is_what_its_cards_say() -> None:
    found = {name: faults([name])[name] for name in (weights.name for weights in list_weights())}
    assert {name: fault for name, fault in found.items() if fault} == {}


def test_every_card_has_its_weights() -> None:
    assert {card.file for card in read_cards(FOLDER)} == {weights.path.name for weights in list_weights()}
