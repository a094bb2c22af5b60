"""Calibration keeps to the photos a split learned from."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import InputError
from export.calibration.photos import list_photos, read_training_part
from export.exporter import export
from export.request import ExportRequest


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("ada/1.png", "ada/2.png", "bo/1.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((8, 8, 3), 90, np.uint8))
    return folder


@pytest.mark.parametrize("wrap", [lambda part: part, lambda part: {"split": part, "seed": 0}], ids=["split", "card"])
def test_only_photos_learned_from_are_listed(photos: Path, tmp_path: Path, wrap: object) -> None:
    file = tmp_path / "split.json"
    part = {"train": ["ada/2.png", "bo/1.png"], "valid": [], "test": ["ada/1.png"]}
    file.write_text(json.dumps(wrap(part)))  # type: ignore[operator]
    listed = list_photos(photos, read_training_part(file))
    assert [path.relative_to(photos).as_posix() for path in listed] == ["ada/2.png", "bo/1.png"]


def test_a_split_of_other_photos_is_refused(photos: Path) -> None:
    with pytest.raises(InputError, match=r"1 photos of the split are not here, first cy/1\.png"):
        list_photos(photos, frozenset({"ada/1.png", "cy/1.png"}))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"train": []}', '{"train": "ada/1.png"}', '{"split": 3}'])
def test_what_is_no_split_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "split.json"
    file.write_text(content)
    with pytest.raises(InputError, match=r"split\.json"):
        read_training_part(file)


def test_a_split_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        export(ExportRequest(tmp_path / "out", split=tmp_path / "split.json", calibration=tmp_path / "table.json"))
