from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge.align import ARCFACE_112, CROP_SIZE, align, similarity_transform


def smooth(size: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (size // 16, size // 16, 3)).astype(np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


@given(
    scale=st.floats(0.05, 20),
    angle=st.floats(-np.pi, np.pi),
    x=st.floats(-2000, 2000),
    y=st.floats(-2000, 2000),
    points=st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=2, max_size=8),
)
def test_a_known_similarity_comes_back(
    scale: float, angle: float, x: float, y: float, points: list[tuple[float, float]]
) -> None:
    source = np.array(points)
    assume(np.ptp(source, axis=0).max() > 1)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    known = np.array([[a, -b, x], [b, a, y]])
    target = source @ known[:, :2].T + known[:, 2]
    found = similarity_transform(source, target)
    np.testing.assert_allclose(found[:, :2], known[:, :2], atol=1e-6 * scale + 1e-8)
    np.testing.assert_allclose(source @ found[:, :2].T + found[:, 2], target, atol=1e-6 * (1 + np.abs(target).max()))


def test_noisy_points_get_the_least_squares_similarity_of_umeyama() -> None:
    random = np.random.default_rng(5)
    source, target = random.normal(size=(5, 2)), random.normal(size=(5, 2))
    found = similarity_transform(source, target)

    def error(matrix: np.ndarray) -> float:
        return float(((source @ matrix[:, :2].T + matrix[:, 2] - target) ** 2).sum())

    for change in np.eye(4) * 1e-3:
        for sign in (-1, 1):
            a, b, tx, ty = np.array([found[0, 0], found[1, 0], found[0, 2], found[1, 2]]) + sign * change
            assert error(np.array([[a, -b, tx], [b, a, ty]])) > error(found)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (17, 5), (88, 143)])
def test_a_whole_shift_is_exact_to_the_pixel(x: int, y: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (256, 200, 3)).astype(np.uint8)
    crop = align(image, (ARCFACE_112 + np.array([x, y])).astype(np.float32))
    expected = image[y : y + CROP_SIZE, x : x + CROP_SIZE]
    np.testing.assert_allclose(crop.astype(int), expected.astype(int), atol=1)
    assert (crop == expected).mean() > 0.99


@pytest.mark.parametrize("zoom", [2.5, 4.0, 7.3])
def test_a_large_face_is_averaged_down_to_the_small_one(zoom: float) -> None:
    small = smooth(112)
    size = round(112 * zoom)
    large = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    # Fine noise that bilinear sampling would let through and averaging removes.
    noise = np.random.default_rng(2).normal(0, 30, large.shape)
    noisy = np.clip(large + noise, 0, 255).astype(np.uint8)
    ratio = size / 112
    crop = align(noisy, ((ARCFACE_112 + 0.5) * ratio - 0.5).astype(np.float32))
    inner = slice(8, -8)
    difference = crop[inner, inner].astype(float) - small[inner, inner]
    assert abs(difference.mean()) < 3
    assert difference.std() < 30 / (ratio * 0.8)


def test_what_lies_outside_the_picture_is_black() -> None:
    white = np.full((60, 60, 3), 255, np.uint8)
    crop = align(white, (ARCFACE_112 - (56, 56)).astype(np.float32))
    assert (crop[57:, 57:] == 255).all()
    assert (crop[:55] == 0).all()
    assert (crop[:, :55] == 0).all()


def test_landmarks_that_coincide_are_refused() -> None:
    with pytest.raises(ValueError, match="coincide"):
        align(np.zeros((50, 50, 3), np.uint8), np.full((5, 2), 20, np.float32))
