from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.contract import ModelContract
from edge.errors import GateError
from export.plausibility import alternatives, require_plausible, separation

RIGHT = ModelContract("embedder", (112, 112), "rgb", "nchw", "float32", (127.5,) * 3, (127.5,) * 3, "arcface-112", 64)


def embed(contract: ModelContract, crops: np.ndarray) -> np.ndarray:
    """Knows people by the mean colours of twelve fields, relative to its zero: fed wrongly, it sees worse."""
    pixels = crops[..., ::-1] if contract.color == "rgb" else crops
    values = (pixels.astype(np.float32) - np.float32(contract.mean)) / np.float32(contract.std)
    fields = values[:, :48, :64].reshape(len(crops), 3, 16, 4, 16, 3).mean(axis=(2, 4)).reshape(len(crops), -1)
    # The red of each field counts most; and what lies far from zero saturates.
    rows = np.tanh(3 * fields) * np.tile([1.0, 0.5, 0.05], 12).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    people = random.integers(60, 196, (10, 3, 4, 3))
    crops, labels = [], []
    for person, colours in enumerate(people):
        for _ in range(8):
            noise = random.normal(0, 1, colours.shape) * (45, 25, 12)  # blue is noisiest, as cameras have it
            coloured = np.clip(colours + noise, 0, 255).repeat(16, axis=0).repeat(16, axis=1)
            crop = np.full((112, 112, 3), 128, np.uint8)
            crop[:48, :64] = coloured
            crops.append(crop)
            labels.append(person)
    return np.stack(crops), np.array(labels)


def test_a_right_contract_passes(faces) -> None:
    found = require_plausible(RIGHT, embed, *faces)
    assert found
    assert all(entry.gain < 0.01 for entry in found)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"color": "bgr"}, "color rgb"),
        ({"mean": (0.0,) * 3, "std": (1.0,) * 3}, "mean 127.5"),
        ({"mean": (0.0,) * 3, "std": (255.0,) * 3}, "mean 127.5"),
    ],
)
def test_a_wrong_contract_is_refused_with_the_right_one_named(faces, change, says: str) -> None:
    with pytest.raises(GateError, match=says):
        require_plausible(replace(RIGHT, **change), embed, *faces)


def test_too_few_faces_or_one_person_give_no_verdict(faces) -> None:
    crops, labels = faces
    assert require_plausible(replace(RIGHT, color="bgr"), embed, crops[:10], labels[:10]) == ()
    assert require_plausible(replace(RIGHT, color="bgr"), embed, crops, np.zeros(len(crops), np.int64)) == ()


def test_alternatives_do_not_repeat_the_contract() -> None:
    assert set(alternatives(RIGHT)) == {"color bgr", "mean 0, std 255", "mean 0, std 1", "ImageNet's mean and std"}


def test_separation_is_the_distance_in_units_of_spread() -> None:
    labels = np.repeat(np.arange(40), 10)
    same = labels[:, None] == labels[None]
    random = np.random.default_rng(0)
    scores = np.where(same, 0.8, 0.2) + 0.1 * random.normal(0, 1, same.shape)
    assert separation(scores, same) == pytest.approx(6.0, rel=0.05)
