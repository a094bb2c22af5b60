from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from training.detector.augment import LARGE_FACE, SMALLEST_FACE, Sample, draw, draw_portrait, flip, rotate, window
from training.detector.data import Picture, Pools

NONE = np.zeros((0, 5, 2), np.float32)
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))


def marked(height: int, width: int, x: float, y: float, side: float) -> Picture:
    """A grey picture whose one face is a white square with five discs of different colours on its landmarks."""
    image = np.full((height, width, 3), 60, np.uint8)
    cv2.rectangle(image, (round(x), round(y)), (round(x + side) - 1, round(y + side) - 1), (250, 250, 250), -1)
    points = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]], np.float32) * side + (x, y)
    for point, colour in zip(points, COLOURS, strict=True):
        cv2.circle(image, tuple(round(float(v)) for v in point), max(2, round(side * 0.08)), colour, -1)
    return Picture(image, np.array([[x, y, x + side, y + side]], np.float32), points[None].astype(np.float32))


def colour_at(sample: Sample, landmark: int) -> np.ndarray:
    x, y = (round(float(v)) for v in sample.landmarks[0, landmark])
    return sample.image[y, x].astype(int)


@pytest.mark.parametrize(("x", "y", "scale"), [(0, 0, 1.0), (35.4, 12.7, 1.5), (-40, -30.5, 0.8), (100, 60, 2.0)])
def test_a_window_moves_pixels_and_labels_alike(x: float, y: float, scale: float) -> None:
    sample = window(marked(200, 240, 80, 50, 60), x, y, scale, 160, 0)
    assert len(sample.boxes) == 1
    for landmark, colour in enumerate(COLOURS):
        assert np.abs(colour_at(sample, landmark) - colour).max() < 60
    x1, y1, x2, y2 = (round(float(v)) for v in sample.boxes[0])
    white = (sample.image == 250).all(axis=2)
    rows, columns = np.nonzero(white)
    assert (
        np.abs(np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) - (x1, y1, x2, y2)).max() <= 2
    )


def test_a_face_mostly_out_of_view_is_no_label_and_one_cut_keeps_its_visible_part() -> None:
    picture = marked(200, 200, 100, 100, 60)
    out = window(picture, 150, 100, 1.0, 96, 0)  # 10 of 60 columns in view
    assert len(out.boxes) == 0
    cut = window(picture, 130, 100, 1.0, 96, 0)  # 30 of 60
    assert cut.boxes.tolist() == [[0, 0, 30, 60]]
    gone = window(picture, 170, 0, 1.0, 64, 0)
    assert len(gone.boxes) == 0


def test_faces_that_became_too_small_are_no_labels() -> None:
    sample = window(marked(200, 200, 100, 100, 20), 0, 0, 0.3, 96, 0)
    assert SMALLEST_FACE > 20 * 0.3
    assert len(sample.boxes) == 0


def test_a_mirrored_sample_names_landmarks_by_the_side_they_are_seen_on() -> None:
    sample = flip(window(marked(200, 200, 20, 40, 100), 0, 0, 1.0, 200, 0))
    assert sample.landmarks[0, 0, 0] < sample.landmarks[0, 1, 0]
    assert sample.landmarks[0, 3, 0] < sample.landmarks[0, 4, 0]
    assert np.abs(colour_at(sample, 0) - COLOURS[1]).max() < 60  # what was the right eye is now seen on the left
    back = flip(sample)
    np.testing.assert_allclose(back.boxes, [[20, 40, 120, 140]])
    np.testing.assert_array_equal(flip(back).image, sample.image)


@pytest.mark.parametrize("degrees", [-35.0, 12.0, 90.0])
def test_a_turned_picture_keeps_its_landmarks_on_their_pixels(degrees: float) -> None:
    turned = rotate(marked(240, 240, 60, 90, 80), degrees, 0)
    sample = window(turned, 0, 0, 1.0, 240, 0)
    for landmark, colour in enumerate(COLOURS):
        assert np.abs(colour_at(sample, landmark) - colour).max() < 60
    side = turned.boxes[0, 2:] - turned.boxes[0, :2]
    np.testing.assert_allclose(side, 80, rtol=1e-4)  # a square holds a circle, which turning leaves as it is


def test_turning_by_a_right_angle_swaps_a_boxs_sides() -> None:
    picture = Picture(
        np.zeros((100, 100, 3), np.uint8), np.array([[20, 30, 60, 50]], np.float32), np.zeros((1, 5, 2), np.float32)
    )
    turned = rotate(picture, 90, 0)
    np.testing.assert_allclose(turned.boxes, [[30, 39, 50, 79]], atol=1e-3)


@pytest.mark.parametrize(("make", "smallest"), [(draw, SMALLEST_FACE), (draw_portrait, LARGE_FACE[0])])
def test_drawn_samples_are_well_formed_and_repeatable(make: Callable[..., Sample], smallest: float) -> None:
    pools = Pools(
        scenes=[marked(300, 400, 150, 100, side) for side in (12, 40, 90)],
        portraits=[marked(320, 200, 40, 60, 120)],
        crops=[marked(112, 112, 16, 8, 90)],
        held_out=[],
    )
    faces, sides = 0, []
    for k in range(60):
        sample = make(np.random.default_rng([1, k]), pools, 160)
        again = make(np.random.default_rng([1, k]), pools, 160)
        np.testing.assert_array_equal(sample.image, again.image)
        np.testing.assert_array_equal(sample.boxes, again.boxes)
        assert sample.image.shape == (160, 160, 3)
        assert sample.image.dtype == np.uint8
        assert sample.landmarks.shape == (len(sample.boxes), 5, 2)
        assert bool((sample.boxes >= 0).all())
        assert bool((sample.boxes <= 160).all())
        assert bool((sample.boxes[:, 2:] > sample.boxes[:, :2]).all())
        faces += len(sample.boxes)
        sides += (sample.boxes[:, 2:] - sample.boxes[:, :2]).max(axis=1).tolist()
    assert faces >= 60
    assert min(sides) >= smallest - 1
    assert min(sides) < 2.5 * smallest  # from faces of a few pixels where all count
    assert max(sides) > 0.8 * 160  # to faces that fill the frame
