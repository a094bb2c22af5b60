from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from training.data import read_dataset
from training.detector.network import EdgeDetector, save
from training.faces import Finder, align_dataset, cached_faces, open_detector


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A detector that begins as it is made: sure that nothing is a face."""
    torch.manual_seed(0)
    save(EdgeDetector(), tmp_path / "untrained.safetensors", steps=0, seed=0)
    return tmp_path / "untrained.safetensors"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        image = np.random.default_rng(len(name)).integers(0, 256, (60, 50, 3), np.uint8)
        cv2.imwrite(str(tmp_path / "set" / name / "1.png"), image)
    return tmp_path / "set"


def test_a_photo_without_a_face_is_said_to_have_none(photos: Path, untrained: Path) -> None:
    faces = align_dataset(read_dataset(photos), open_detector(untrained))
    assert faces.found.tolist() == [False, False]
    assert faces.crops.shape == (2, 112, 112, 3)
    assert not faces.crops.any()


def test_faces_are_kept_until_photos_or_detector_change(photos: Path, untrained: Path, tmp_path: Path) -> None:
    cache = tmp_path / "out" / "faces.npz"
    cached_faces(read_dataset(photos), Finder(untrained), cache)
    # What is taken from the cache, and what is made anew, shows in a mark left in it.
    with np.load(cache) as kept:
        key = kept["key"]
    mark = np.full((2, 112, 112, 3), 7, np.uint8)

    def leave_mark() -> None:
        np.savez(cache, key=key, crops=mark, found=np.ones(2, np.bool_))

    leave_mark()
    assert (cached_faces(read_dataset(photos), Finder(untrained), cache).crops == 7).all()
    torch.manual_seed(1)
    save(EdgeDetector(), untrained, steps=0, seed=1)
    assert not cached_faces(read_dataset(photos), Finder(untrained), cache).crops.any()
    leave_mark()
    os.truncate(cache, 100)
    assert not cached_faces(read_dataset(photos), Finder(untrained), cache).crops.any()


@pytest.mark.realdata
def test_tight_crops_of_real_faces_are_found_and_stand_on_the_template(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "data/avengers/cropped_images"
    for name in ("chris_evans", "mark_ruffalo"):
        (tmp_path / name).mkdir()
        for path in sorted((source / name).iterdir())[:8]:
            (tmp_path / name / path.name).symlink_to(path)
    detector = open_detector(shared_data / "models/yunet_s_dynamic.onnx")
    faces = align_dataset(read_dataset(tmp_path), detector)
    assert faces.found.all()
    # Detected again, the eyes of an aligned crop lie where the template has them.
    for crop in faces.crops:
        found = detector.detect(cv2.copyMakeBorder(crop, 56, 56, 56, 56, cv2.BORDER_CONSTANT))
        assert found
        eyes = found[0].landmarks[:2] - 56
        assert np.abs(eyes - [[38.3, 51.7], [73.5, 51.5]]).max() < 8
