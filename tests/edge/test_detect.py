from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract import ModelContract
from edge.detect import Detector, DetectorOptions, find_main_face
from edge.detect.crops import LARGE_SIDE, _framed
from edge.detect.decode import STRIDES, Candidates, decode, require_heads
from edge.detect.nms import nms
from edge.detect.vote import vote
from edge.engines import Session, TensorSpec, open_session
from edge.errors import ContractError
from edge.model_input import to_model
from edge.types import Face


def empty_heads(height: int, width: int, batch: int = 1) -> dict[str, np.ndarray]:
    columns = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    return {
        f"{head}_{s}": np.zeros((batch, (height // s) * (width // s), count), np.float32)
        for head, count in columns.items()
        for s in STRIDES
    }


@given(
    stride=st.sampled_from(STRIDES),
    row=st.integers(0, 2),
    column=st.integers(0, 4),
    centre=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    size=st.tuples(st.floats(4, 90), st.floats(4, 90)),
)
def test_a_face_written_into_the_heads_is_read_back(
    stride: int, row: int, column: int, centre: tuple[float, float], size: tuple[float, float]
) -> None:
    height, width = 96, 160
    heads = empty_heads(height, width, batch=2)
    cell = row * (width // stride) + column
    heads[f"cls_{stride}"][1, cell] = 0.81
    heads[f"obj_{stride}"][1, cell] = 0.64
    heads[f"bbox_{stride}"][1, cell] = [*centre, np.log(size[0] / stride), np.log(size[1] / stride)]
    heads[f"kps_{stride}"][1, cell] = np.arange(10) / 7
    found = decode(heads, 1, height, width, 0.6)
    x, y = (column + centre[0]) * stride, (row + centre[1]) * stride
    expected = [x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2]
    np.testing.assert_allclose(found.boxes, [expected], rtol=1e-4, atol=1e-3)
    points = (np.array([[column, row]]) + np.arange(10).reshape(5, 2) / 7) * stride
    np.testing.assert_allclose(found.landmarks[0], points, rtol=1e-5)
    assert found.scores[0] == pytest.approx(0.72, abs=1e-6)
    assert decode(heads, 1, height, width, 0.73).scores.size == 0
    assert decode(heads, 0, height, width, 0.6).boxes.shape == (0, 4)


def test_a_broken_weight_gives_no_infinite_box() -> None:
    heads = empty_heads(32, 32)
    heads["cls_8"][0, 3] = heads["obj_8"][0, 3] = 1.0
    heads["bbox_8"][0, 3] = [0, 0, 900, 900]
    assert np.isfinite(decode(heads, 0, 32, 32, 0.5).boxes).all()


def test_heads_of_another_size_and_missing_heads_are_refused() -> None:
    with pytest.raises(ContractError, match="cells"):
        decode(empty_heads(64, 64), 0, 32, 32, 0.5)
    with pytest.raises(ContractError, match="no output obj_16"):
        require_heads(set(empty_heads(32, 32)) - {"obj_16"})


def iou(a: np.ndarray, b: np.ndarray) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return w * h / union if union > 0 else 0.0


@given(seed=st.integers(0, 2**31), count=st.integers(0, 30), limit=st.integers(1, 8), max_iou=st.floats(0.05, 0.95))
@settings(max_examples=60)
def test_pruning_agrees_with_its_definition(seed: int, count: int, limit: int, max_iou: float) -> None:
    random = np.random.default_rng(seed)
    corner, extent = random.uniform(0, 40, (count, 2)), random.uniform(0, 30, (count, 2))
    boxes = np.concatenate([corner, corner + extent], axis=1).astype(np.float32)
    scores = random.integers(0, 6, count).astype(np.float32) / 6
    kept = list(nms(boxes, scores, max_iou, limit))
    expected: list[int] = []
    for i in sorted(range(count), key=lambda i: (-scores[i], i)):
        if len(expected) < limit and all(iou(boxes[i], boxes[j]) <= max_iou + 1e-6 for j in expected):
            expected.append(i)
    assert kept == expected


@given(seed=st.integers(0, 2**31), seen=st.integers(1, 12))
@settings(max_examples=40)
def test_where_a_face_is_is_the_mean_of_those_that_saw_it(seed: int, seen: int) -> None:
    random = np.random.default_rng(seed)
    true = random.uniform(20, 80, (5, 2))
    boxes = np.array([10, 10, 90, 90]) + random.uniform(-4, 4, (seen, 4))
    far = np.array([[200, 200, 280, 280]])
    found = Candidates(
        np.concatenate([boxes, far]).astype(np.float32),
        np.concatenate([true + random.normal(0, 3, (seen, 5, 2)), np.full((1, 5, 2), 240.0)]).astype(np.float32),
        np.concatenate([random.uniform(0.6, 1.0, seen), [0.9]]).astype(np.float32),
    )
    kept = nms(found.boxes, found.scores, 0.3, 10)
    assert len(kept) == 2
    voted = vote(found, kept)
    one, other = list(kept).index(kept[kept < seen][0]), list(kept).index(seen)
    weights = found.scores[:seen] ** 2
    landmarks = (found.landmarks[:seen] * weights[:, None, None]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(voted.landmarks[one], landmarks, rtol=1e-5)
    np.testing.assert_allclose(voted.boxes[one], np.average(found.boxes[:seen], axis=0, weights=weights), rtol=1e-5)
    np.testing.assert_allclose(voted.landmarks[other], np.full((5, 2), 240.0), rtol=1e-6)
    np.testing.assert_allclose(voted.boxes[other], far[0], rtol=1e-6)
    assert (voted.scores == found.scores[kept]).all()


def test_a_box_without_an_area_keeps_its_own_place() -> None:
    found = Candidates(np.full((1, 4), 7, np.float32), np.ones((1, 5, 2), np.float32), np.ones(1, np.float32))
    voted = vote(found, nms(found.boxes, found.scores, 0.3, 5))
    assert (voted.landmarks == 1).all()
    assert (voted.boxes == 7).all()
    nothing = Candidates(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))
    voted = vote(nothing, np.zeros(0, np.intp))
    assert (voted.landmarks.shape, voted.boxes.shape) == ((0, 5, 2), (0, 4))


@pytest.mark.parametrize(("width", "height"), [(320, 192), (333, 211), (250, 470)])
def test_faces_are_found_where_they_are_at_any_picture_size(
    toy: Any, toy_models: dict[str, bytes], width: int, height: int
) -> None:
    with open_session(toy_models["detector"]) as session:
        detector = Detector(session, toy.detector_contract)
        people = [(1, 24, 40), (2, 160, 96)]
        faces = sorted(detector.detect(toy.scene(width, height, people)), key=lambda face: face.box[0])
        assert len(faces) == 2
        for face, (_, x, y) in zip(faces, people, strict=True):
            np.testing.assert_allclose(face.box, [x, y, x + 64, y + 64], atol=8.5)
            assert face.score > 0.9
        assert detector.detect(toy.scene(width, height, [])) == []


def test_a_picture_above_the_long_side_is_scaled_and_boxes_come_back_in_its_own_pixels(
    toy: Any, toy_models: dict[str, bytes]
) -> None:
    big = np.repeat(np.repeat(toy.scene(320, 160, [(3, 200, 64)]), 3, axis=0), 3, axis=1)
    with open_session(toy_models["detector"]) as session:
        (face,) = Detector(session, toy.detector_contract, DetectorOptions(long_side=320)).detect(big)
        np.testing.assert_allclose(face.box, np.array([200, 64, 264, 128]) * 3, atol=26)
        assert len(Detector(session, toy.detector_contract, DetectorOptions(max_faces=1)).detect(big)) == 1


def test_an_embedder_is_no_detector(toy: Any, toy_models: dict[str, bytes]) -> None:
    with open_session(toy_models["embedder"]) as session:
        with pytest.raises(ContractError, match="detector is needed"):
            Detector(session, toy.embedder_contract)
        with pytest.raises(ContractError, match="no output"):
            Detector(session, toy.detector_contract)


@pytest.mark.parametrize("values", [{"long_side": 8}, {"min_score": 0}, {"max_iou": 2}, {"max_faces": 0}])
def test_options_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="out of range"):
        DetectorOptions(**values)


def test_a_contract_decides_colour_scale_and_layout_of_the_tensor() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 4, 6, 3)).astype(np.uint8)
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    contract = ModelContract("detector", None, color="rgb", layout="nchw", dtype="float32", mean=mean, std=std)
    expected = ((image[..., ::-1].astype(np.float64) - mean) / std).transpose(0, 3, 1, 2)
    batch = to_model(image, contract)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    np.testing.assert_allclose(batch, expected, rtol=1e-6)
    assert to_model(image, ModelContract("detector", None)) is image


class TestMainFace:
    def test_of_two_alike_the_one_in_the_middle_counts(self, toy: Any, toy_models: dict[str, bytes]) -> None:
        picture = toy.scene(400, 400, [(1, 0, 0), (2, 168, 168)])
        with open_session(toy_models["detector"]) as session:
            face = find_main_face(Detector(session, toy.detector_contract), picture)
        assert face is not None
        np.testing.assert_allclose(face.box, [168, 168, 232, 232], atol=8.5)

    def test_a_small_picture_is_enlarged_and_the_box_comes_back_in_its_pixels(
        self, toy: Any, toy_models: dict[str, bytes]
    ) -> None:
        tiny = np.full((40, 40, 3), 128, np.uint8)
        tiny[14:26, 10:22] = (255, 0, 0)
        with open_session(toy_models["detector"]) as session:
            detector = Detector(session, toy.detector_contract, DetectorOptions(max_iou=0.01))
            face = find_main_face(detector, tiny)
        assert face is not None
        # Four times enlarged the patch is 48 pixels, the toy's box 64: 16 in the picture's own pixels.
        assert face.width == pytest.approx(16, abs=0.1)
        centre = (face.box[:2] + face.box[2:]) / 2
        np.testing.assert_allclose(centre, [15.5, 19.5], atol=5)

    def test_a_large_picture_is_framed_scaled_down_and_what_is_found_comes_back_in_its_pixels(self) -> None:
        large = np.zeros((40, 8192, 3), np.uint8)
        large[8:24, 4000:4256] = 255
        view = _framed(large, 0.6)
        assert max(view.image.shape) <= 2.2 * LARGE_SIDE + 2
        rows, columns = np.nonzero(view.image[..., 0] > 127)
        corners = [columns.min(), rows.min(), columns.max(), rows.max()]
        found = view.back(Face(np.array(corners, np.float32), np.zeros((5, 2), np.float32), 0.9))
        # Within two pixels: four of the picture's make one of the view's.
        np.testing.assert_allclose(found.box, [4000, 8, 4255, 23], atol=2)

    def test_a_picture_without_a_face_gives_none(self, toy: Any, toy_models: dict[str, bytes]) -> None:
        with open_session(toy_models["detector"]) as session:
            assert find_main_face(Detector(session, toy.detector_contract), toy.scene(200, 100, [])) is None


class WrittenHeads(Session):
    """Gives the same constructed heads for every picture of 96×160."""

    def __init__(self, heads: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.inputs = (TensorSpec("image", "uint8", (1, None, None, 3)),)
        self.outputs = tuple(TensorSpec(name, "float32", (None, None, None)) for name in heads)
        self._heads = heads

    def describe(self) -> dict[str, str]:
        return {}

    def _run_impl(self, batch: Any) -> dict[str, np.ndarray]:
        return self._heads


def written(faces: list[tuple[int, float, float]]) -> WrittenHeads:
    """Faces as (cell of stride 32, side in pixels, score), on 96×160."""
    heads = empty_heads(96, 160)
    for cell, side, score in faces:
        heads["cls_32"][0, cell] = heads["obj_32"][0, cell] = score
        heads["bbox_32"][0, cell] = (0.5, 0.5, np.log(side / 32), np.log(side / 32))
        heads["kps_32"][0, cell] = np.arange(10) / 10
    return WrittenHeads(heads)


@pytest.mark.parametrize(
    ("faces", "side"),
    [
        pytest.param([(6, 30.0, 0.95), (8, 50.0, 0.90)], 50.0, id="the larger of two that are sure"),
        pytest.param([(6, 30.0, 0.95), (8, 50.0, 0.70)], 30.0, id="not a larger one that is much less sure"),
    ],
)
def test_the_main_face_is_large_and_sure(faces: list[tuple[int, float, float]], side: float) -> None:
    detector = Detector(written(faces), ModelContract(role="detector", size=None))
    face = find_main_face(detector, np.zeros((96, 160, 3), np.uint8))
    assert face is not None
    assert face.width == pytest.approx(side, rel=1e-4)
