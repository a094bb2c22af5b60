from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.strangers import main

KNOWN = [f"P{i:02d}" for i in range(10)]


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """Ten people learned from two pictures each and tested on the third; the other fourteen are strangers."""
    split = {
        "train": [f"{name}/{name}_{picture:04d}.png" for name in KNOWN for picture in (1, 2)],
        "test": [f"{name}/{name}_0003.png" for name in KNOWN],
    }
    file = tmp_path / "card.json"
    file.write_text(json.dumps({"split": split}), encoding="utf-8")
    return file


def _run(bundle: Path, people: Path, card: Path, *more: str) -> int:
    words = ["--bundle", bundle, "--dataset", people, "--card", card, "--strangers", people, *more]
    return main([str(word) for word in words])


def test_a_sound_precision_names_its_people_and_a_damaged_one_everybody(
    bundle: Path, people: Path, card: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(bundle, people, card, "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    sound, damaged = figures["fp32"], figures["int8"]
    assert (sound["known_named_right"]["hits"], sound["known_named_right"]["count"]) == (10, 10)
    assert (sound["strangers_named"]["hits"], sound["strangers_named"]["count"]) == (0, 14 * 3)
    assert (sound["threshold"], sound["gallery"], sound["no_face"]) == (0.7, 20, 0)
    # All that is left of a face is the sign of one number: whoever has the same sign as somebody known gets a name.
    assert damaged["strangers_named"]["hits"] == 14 * 3
    assert damaged["known_named_right"]["hits"] < 5
    assert _run(bundle, people, card) == 0
    assert "strangers named 0.00 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ('{"split": {"train": []}}', "holds no split"),
        ("no JSON", "holds no split"),
        ('{"split": {"train": ["P00/none.png"], "test": []}}', "not here, first none.png"),
    ],
)
def test_an_unfit_card_is_one_line(
    bundle: Path, people: Path, tmp_path: Path, split: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "card.json"
    file.write_text(split, encoding="utf-8")
    assert _run(bundle, people, file) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in told


def test_without_strangers_nothing_is_claimed(
    bundle: Path, people: Path, card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in KNOWN[:2]:
        (tmp_path / "none" / name.lower()).mkdir(parents=True)
        (tmp_path / "none" / name.lower() / "1.png").write_bytes((people / name / f"{name}_0001.png").read_bytes())
    words = ["--bundle", bundle, "--dataset", people, "--card", card, "--strangers", tmp_path / "none"]
    assert main([str(word) for word in words]) == 2
    assert "shows nobody who is not" in capsys.readouterr().err
