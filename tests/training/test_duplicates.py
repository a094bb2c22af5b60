from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import InputError
from edge.pictures import read_picture
from edge.signatures import perceptual_hash
from edge.types import Image
from training.data import Dataset, Photo, read_dataset
from training.duplicates import find_groups, read_groups


def _scene(seed: int) -> Image:
    """A smooth picture with structure, as a photo has."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(noise, (200, 240), interpolation=cv2.INTER_CUBIC)


def _distance(a: Image, b: Image) -> int:
    return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()


def _dataset(*paths: str) -> Dataset:
    return Dataset(Path("set"), tuple(Photo(path, path) for path in sorted(paths)))


@pytest.mark.parametrize("seed", range(5))
def test_a_photo_encoded_resized_or_brightened_keeps_its_hash(seed: int) -> None:
    image = _scene(seed)
    jpeg = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    assert jpeg is not None
    assert _distance(image, jpeg) <= 4
    assert _distance(image, cv2.resize(image, (90, 110), interpolation=cv2.INTER_AREA)) <= 4
    assert _distance(image, cv2.convertScaleAbs(image, alpha=0.8, beta=15)) <= 4
    assert _distance(image, _scene(seed + 100)) > 15
    assert _distance(image, cv2.flip(image, 1)) > 15


def test_links_by_hash_or_embedding_chain_up_but_never_across_people() -> None:
    dataset = _dataset("a/1", "a/2", "a/3", "a/4", "b/1", "b/2")
    far = (1 << 64) - 1
    hashes = [0, 0xFF, far, 0xF0F0F0F0, 0, far]
    embeddings = np.eye(6, dtype=np.float32)
    embeddings[1, 2] = embeddings[2, 1] = 1.0
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    embeddings[3] = np.nan
    groups = find_groups(dataset, hashes, embeddings)
    assert groups == (("a/1", "a/2", "a/3"), ("a/4",), ("b/1",), ("b/2",))
    assert find_groups(dataset, hashes) == (("a/1", "a/2"), ("a/3",), ("a/4",), ("b/1",), ("b/2",))


def test_a_hash_nine_bits_away_is_another_photo() -> None:
    assert len(find_groups(_dataset("a/1", "a/2"), [0, 0x1FF])) == 2
    assert len(find_groups(_dataset("a/1", "a/2"), [0, 0xFF])) == 1


def test_groups_of_a_file(tmp_path: Path) -> None:
    dataset = _dataset("a/1", "a/2", "a/3", "b/1")
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"method": "by eye", "groups": [["a/3", "a/1", "a/gone"]]}))
    assert read_groups(path, dataset) == (("a/1", "a/3"), ("a/2",), ("b/1",))
    for content in ["not json", "[]", '{"groups": [1]}', '{"groups": [["c/1", "c/2"]]}']:
        path.write_text(content)
        with pytest.raises(InputError, match=r"groups\.json"):
            read_groups(path, dataset)
    with pytest.raises(InputError, match="cannot be read"):
        read_groups(tmp_path / "absent.json", dataset)


@pytest.mark.realdata
def test_hashes_of_the_avengers_agree_with_the_published_groups(shared_data: Path) -> None:
    dataset = read_dataset(shared_data / "data/avengers/cropped_images")
    found = find_groups(dataset, [perceptual_hash(read_picture(dataset.root / photo.path)) for photo in dataset.photos])
    given = read_groups(shared_data / "data/avengers/near_duplicate_groups.json", dataset)
    assert len(given) == 191
    of = {path: group for group in given for path in group}
    pairs = [(a, b) for group in found for a in group for b in group if a < b]
    assert len(pairs) > 50
    wrong = [pair for pair in pairs if pair[1] not in of[pair[0]]]
    assert wrong == []
