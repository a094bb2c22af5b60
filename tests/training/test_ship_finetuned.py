"""A finished run becomes shipped weights: the card says what the run measured, no more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge.errors import InputError
from edge.weights.cards import read_card
from training.ship_finetuned import KEPT, main, ship


@pytest.fixture
def run(tmp_path: Path, repository: Path) -> Path:
    """A run's folder, put together again from what was shipped of one."""
    shipped = repository / "model_weights" / "mobilefacenet-avengers.card.json"
    card = json.loads(shipped.read_text(encoding="utf-8"))
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copyfile(shipped.with_name(card["file"]), folder / "mobilefacenet.safetensors")
    _write(folder, {key: card[key] for key in KEPT} | {"data": card["dataset"]})
    return folder


def _write(folder: Path, card: dict[str, Any]) -> None:
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")


def _change(folder: Path, *path: str, to: Any) -> None:
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    inner = card
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    _write(folder, card)


def test_the_card_says_what_the_run_measured(run: Path, tmp_path: Path) -> None:
    path = ship(run, "mine", tmp_path, terms="Web photos.", published=None)
    card = read_card(path)
    assert card.fault() is None
    assert card.weights.name == "mine.safetensors"
    assert card.data.endswith("of 5 people. Web photos.")
    figures = {figure.what: figure for figure in card.figures}
    metrics = json.loads((run / "card.json").read_text(encoding="utf-8"))["metrics"]
    strangers = figures["strangers named at the threshold"]
    assert strangers.value == round(100 * metrics["tuned"]["open_set"]["strangers_named"]["value"], 3)
    assert (strangers.count, strangers.target, strangers.met) == (3810, "<= 1 %", True)
    assert f"{metrics['tuned']['open_set']['threshold']:.4f}" in strangers.on
    assert figures["distinct test photos named right, by the head"].count == 48


_MANY = {"value": 0.0101, "low": 0.007, "high": 0.0139, "hits": 38, "count": 3810}


@pytest.mark.parametrize(
    ("path", "value", "figure"),
    [
        (("tuned", "open_set", "strangers_named"), _MANY, "strangers named at the threshold"),
        (("tuned", "open_set", "known_named_right", "value"), 0.969, "test photos named right at the threshold"),
        (("pairs_points_lost",), 0.11, "verification accuracy lost to fine-tuning"),
        (("closed_set_by_head", "photos", "hits"), 74, "test photos named right, by the head"),
    ],
)
def test_a_missed_target_says_so(run: Path, tmp_path: Path, path: tuple[str, ...], value: Any, figure: str) -> None:
    _change(run, "metrics", *path, to=value)
    card = read_card(ship(run, "mine", tmp_path, terms="", published=None))
    assert {found.what for found in card.figures if found.met is False} == {figure}


def test_the_published_split_stands_beside_with_its_leaks(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    _change(other, "split_leaks", "groups_in_two_parts", to=12)
    card = read_card(ship(run, "mine", tmp_path, terms="", published=other))
    assert "12 groups of near-duplicates" in card.figures[-1].on


def test_figures_that_were_not_measured_are_asked_for(run: Path, tmp_path: Path) -> None:
    _change(run, "metrics", "tuned", "pairs", to="not measured")
    with pytest.raises(InputError, match="train with --strangers and --pairs"):
        ship(run, "mine", tmp_path, terms="", published=None)


def test_an_unfinished_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["ship_finetuned", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "card.json: cannot be read" in capsys.readouterr().err
