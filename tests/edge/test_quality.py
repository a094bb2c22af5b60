from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge.align import ARCFACE_112
from edge.quality import BLURRED, frontality, measure, sharpness
from edge.types import Face


def textured() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (112, 112, 3)).astype(np.uint8)


def test_blur_lowers_sharpness_step_by_step() -> None:
    sigmas = (0.5, 1.0, 2.0, 4.0)
    values = [sharpness(cv2.GaussianBlur(textured(), (0, 0), sigma)) for sigma in sigmas]
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[-1]
    assert sharpness(np.full((112, 112, 3), 90, np.uint8)) == 0.0


@pytest.mark.parametrize("angle", [-40, 0, 25])
def test_turning_the_picture_keeps_frontality_and_turning_the_head_lowers_it(angle: float) -> None:
    points = ARCFACE_112.astype(np.float32)
    turn = cv2.getRotationMatrix2D((56, 56), angle, 1.7)
    turned = (points @ turn[:, :2].T + turn[:, 2]).astype(np.float32)
    assert frontality(turned) == pytest.approx(frontality(points), abs=1e-4)
    assert frontality(points) > 0.95
    aside = points.copy()
    last = 1.0
    for nose in (62, 68, 73.5, 90):
        aside[2, 0] = nose
        assert frontality(aside) < last or frontality(aside) == 0.0
        last = frontality(aside)
    assert last == 0.0


def test_eyes_in_one_place_are_no_frontal_face() -> None:
    assert frontality(np.zeros((5, 2), np.float32)) == 0.0


def test_only_a_large_sharp_frontal_face_is_good() -> None:
    points = ARCFACE_112.astype(np.float32)
    face = Face(np.array([0, 0, 112, 112], np.float32), points, 0.9)
    small = Face(np.array([0, 0, 112, 20], np.float32), points, 0.9)
    blurred = cv2.GaussianBlur(textured(), (0, 0), 6)
    assert measure(face, textured()).good
    assert not measure(small, textured()).good
    assert sharpness(blurred) < BLURRED
    assert not measure(face, blurred).good
    assert measure(face, textured()).rank > measure(face, blurred).rank
