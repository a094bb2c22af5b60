from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.overlap import Seen, _signs, check_overlap, find_shared
from edge.errors import InputError
from edge.pictures import find_pictures
from edge.signatures import hamming, sign_picture
from edge.types import Image
from edge.weights.digests import digest_of


def photo(seed: int) -> Image:
    """(240, 320, 3) with structure at many scales, as photographs have."""
    random = np.random.default_rng(seed)
    layers = [cv2.resize(random.random((n, n, 3)).astype(np.float32), (320, 240)) / n for n in (3, 6, 12, 24)]
    picture = np.sum(layers, axis=0)
    return np.uint8(255 * (picture - picture.min()) / np.ptp(picture))


def write(path: Path, image: Image, *options: int) -> Path:
    cv2.imwrite(str(path), image, list(options))
    return path


def shared(seen: list[Path], evaluated: list[Path]) -> dict[str, int | None]:
    names = {path.name: path for path in evaluated}
    digests = {name: digest_of(path) for name, path in names.items()}
    found = find_shared([Seen(sign_picture(path), "calibration") for path in seen], digests, names)
    return {one.name: one.bits for one in found}


def test_copies_are_found_encoded_again_resized_and_byte_for_byte(tmp_path: Path) -> None:
    original = write(tmp_path / "original.png", photo(1))
    others = [write(tmp_path / f"other{i}.png", photo(100 + i)) for i in range(40)]
    copy = tmp_path / "copy.png"
    copy.write_bytes(original.read_bytes())
    encoded = write(tmp_path / "encoded.jpg", photo(1), cv2.IMWRITE_JPEG_QUALITY, 40)
    small = write(tmp_path / "small.png", cv2.resize(photo(1), (120, 90), interpolation=cv2.INTER_AREA))
    brighter = write(tmp_path / "brighter.png", cv2.convertScaleAbs(photo(1), alpha=1.1, beta=8))
    found = shared([original], [copy, encoded, small, brighter, *others])
    assert set(found) == {"copy.png", "encoded.jpg", "small.png", "brighter.png"}
    assert found["copy.png"] is None
    assert all(found[name] is not None for name in ("encoded.jpg", "small.png", "brighter.png"))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6))
def test_the_product_of_signs_counts_the_bits_that_differ(hashes: list[int]) -> None:
    signs = _signs(hashes)
    apart = (64 - signs @ signs.T) / 2
    assert apart.tolist() == [[hamming(a, b) for b in hashes] for a in hashes]


@pytest.mark.realdata
@pytest.mark.slow
def test_half_of_the_real_near_duplicates_are_found_and_no_other_pair(shared_data: Path) -> None:
    """The groups were made by looking: crops of one photo are most of what the hash misses."""
    folder = shared_data / "data" / "avengers"
    groups = json.loads((folder / "near_duplicate_groups.json").read_text())["groups"]
    group = {name: i for i, names in enumerate(groups) for name in names}
    paths = find_pictures([folder / "cropped_images"])
    names = [path.relative_to(folder / "cropped_images").as_posix() for path in paths]
    signs = _signs([int(sign_picture(path).phash, 16) for path in paths])
    near = (64 - signs @ signs.T) / 2 <= 8
    same = np.array([[group.get(a, -1) == group.get(b, -2) for b in names] for a in names])
    upper = np.triu(np.ones_like(same), 1)
    assert (near & same & upper).sum() >= 54
    assert (same & upper).sum() == 105
    assert (near & ~same & upper).sum() == 0


def test_among_very_many_a_likeness_counts_and_only_a_copy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, evaluated = tmp_path / "seen", tmp_path / "evaluated"
    for folder in (seen, evaluated):
        folder.mkdir()
    write(seen / "original.png", photo(1))
    mixed = (cv2.addWeighted(photo(1), 1 - share / 100, photo(2), share / 100, 0) for share in range(60))
    alike = next(
        path for path in (write(evaluated / "alike.png", image) for image in mixed)
        if 4 < (shared([seen / "original.png"], [path])["alike.png"] or 0) <= 8
    )  # fmt: skip
    names = {alike.name: alike}
    digests = {alike.name: digest_of(alike)}
    with pytest.raises(InputError, match=r"alike\.png \(looks the same"):
        check_overlap([], digests, names, [seen])
    monkeypatch.setattr("benchmarks.overlap.MANY", 0)
    checked = check_overlap([], digests, names, [seen])
    assert checked["checked"] is True
    assert "within 4 of 64 bits" in checked["statement"]
    assert "1 within 8 bits were kept" in checked["statement"]
    write(alike, photo(1))
    with pytest.raises(InputError, match=r"alike\.png \(the same file"):
        check_overlap([], {alike.name: digest_of(alike)}, names, [seen])
