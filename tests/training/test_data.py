from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import InputError
from edge.pictures import read_picture
from training.data import read_dataset


def _picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (40, 30, 3), np.uint8)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def two_people(tmp_path: Path) -> Path:
    for seed, name in enumerate(["zoe/b.png", "zoe/a.png", "adam/x.jpg", "adam/y.bmp"]):
        _picture(tmp_path / "set" / name, seed)
    return tmp_path / "set"


def test_photos_come_sorted_with_labels_by_name(two_people: Path) -> None:
    dataset = read_dataset(two_people)
    assert [p.path for p in dataset.photos] == ["adam/x.jpg", "adam/y.bmp", "zoe/a.png", "zoe/b.png"]
    assert dataset.identities == ("adam", "zoe")
    assert dataset.counts() == {"adam": 2, "zoe": 2}
    assert dataset.warnings == ()
    assert read_picture(two_people / dataset.photos[3].path).shape == (40, 30, 3)
    expected = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    assert np.array_equal(read_picture(two_people / dataset.photos[3].path), expected)


def test_digest_follows_names_and_contents_and_nothing_else(two_people: Path, tmp_path: Path) -> None:
    before = read_dataset(two_people).digest
    moved = two_people.rename(tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("stray")
    assert read_dataset(moved).digest == before
    (moved / "adam" / "x.jpg").rename(moved / "adam" / "w.jpg")
    renamed = read_dataset(moved).digest
    assert renamed != before
    _picture(moved / "zoe" / "a.png", 99)
    assert read_dataset(moved).digest != renamed


def test_what_cannot_be_used_is_passed_over_and_named(two_people: Path) -> None:
    (two_people / "readme.txt").write_text("hello")
    (two_people / "adam" / "notes.txt").write_text("hello")
    (two_people / "adam" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    (two_people / "adam" / "empty.jpg").write_bytes(b"")
    (two_people / "adam" / ".DS_Store").write_bytes(b"x")
    (two_people / "adam" / "inner").mkdir()
    (two_people / "nobody").mkdir()
    (two_people / "zoe" / "as_adam.jpg").write_bytes((two_people / "adam" / "x.jpg").read_bytes())
    dataset = read_dataset(two_people)
    assert len(dataset.photos) == 5
    warned = {warning.split(":")[0] for warning in dataset.warnings}
    assert warned == {
        "readme.txt", "adam/notes.txt", "adam/broken.png", "adam/empty.jpg", "adam/inner", "nobody", "zoe/as_adam.jpg",
    }  # fmt: skip


def test_folders_nobody_can_learn_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_dataset(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture of anybody"):
        read_dataset(tmp_path / "empty")
    _picture(tmp_path / "one" / "only" / "a.png", 0)
    with pytest.raises(InputError, match="one identity, only"):
        read_dataset(tmp_path / "one")
    _picture(tmp_path / "flat" / "a.png", 0)
    with pytest.raises(InputError, match=r"a\.png"):
        read_dataset(tmp_path / "flat")
