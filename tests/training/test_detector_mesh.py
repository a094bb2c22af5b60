"""The face mesh as a teacher. MediaPipe's file is not here: a small network of its shapes stands for it, which "places"
all 468 points about the middle of what is bright, so that what geometry does to a view shows in where they come out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mesh import write_mesh
from onnx import TensorProto, helper, save_model

from edge.errors import InputError
from training.detector.labels import LandmarkTeacher
from training.detector.mesh import SIDE, FaceMesh


def spot(x: float, y: float) -> np.ndarray:
    """A dark picture with one bright disc, anti-aliased, about (x, y)."""
    image = np.zeros((200, 240, 3), np.uint8)
    cv2.circle(image, (round(x * 16), round(y * 16)), 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return image


def around(x: float, y: float, side: float) -> np.ndarray:
    return np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2], np.float32)


@pytest.mark.parametrize("degrees", [0.0, 20.0, -35.0])
def test_what_the_mesh_places_comes_back_in_pixels_of_the_picture(tmp_path: Path, degrees: float) -> None:
    mesh = FaceMesh(write_mesh(tmp_path / "mesh.onnx"))
    x, y, side = 117.25, 96.5, 90.0
    turn = np.radians(degrees)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # right and down of a turned face
    rough = (np.array([[-15, -10], [15, -10], [0, 0], [-10, 12], [10, 12]]) @ axes + (x, y)).astype(np.float32)
    found = mesh.landmarks(spot(x, y), around(x + 4, y - 3, side), rough)
    assert found is not None
    assert found.dtype == np.float32
    # The points span 52 by 36 pixels of the view (the rest lies in the middle), whose side is 1.5 of that afterwards:
    # a second look at 78 / 192 of the first one's scale, on average over the views' shares 1, 1, 0.9 and 1.15.
    first = 1.5 * side / SIDE
    second = 1.5 * 52 * first / SIDE * np.mean([1.0, 1.0, 0.9, 1.15])
    wanted = np.array([[-20, -16], [20, -16], [0, 0], [-14, 20], [14, 20]]) * second @ axes + (x, y)
    np.testing.assert_allclose(found, wanted, atol=0.35)


def test_where_the_mesh_sees_no_face_there_is_no_label(tmp_path: Path) -> None:
    mesh = FaceMesh(write_mesh(tmp_path / "mesh.onnx", presence=-4.0))
    rough = np.array([[100, 80], [140, 80], [120, 100], [105, 120], [135, 120]], np.float32)
    assert mesh.landmarks(spot(120, 100), around(120, 100, 80), rough) is None


def test_another_file_is_no_mesh(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edge weights fetch mediapipe-face-mesh"):
        FaceMesh(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("nothing of the kind")
    with pytest.raises(InputError, match="cannot read"):
        FaceMesh(tmp_path / "text.tflite")
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "other",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "o.onnx")
    with pytest.raises(InputError, match="its tensors are"):
        FaceMesh(tmp_path / "o.onnx")


@pytest.mark.realdata
def test_the_mesh_places_large_faces_and_leaves_the_others_as_they_were(shared_data: Path, tmp_path: Path) -> None:
    yunet = shared_data / "models" / "yunet_n_dynamic.onnx"
    image = cv2.imread(str(shared_data / "data" / "scenes" / "six_faces.jpg"))
    plain = LandmarkTeacher(yunet)
    boxes = np.array([face.box for face in plain.detector.detect(image)], np.float32)
    assert len(boxes) >= 6
    before = plain.landmarks(image, boxes, (1.0,))
    placed = LandmarkTeacher(yunet, write_mesh(tmp_path / "mesh.onnx"))
    assert placed.digest != plain.digest
    assert not np.allclose(placed.landmarks(image, boxes, (1.0,)), before, equal_nan=True)
    unseen = LandmarkTeacher(yunet, write_mesh(tmp_path / "blind.onnx", presence=-4.0))
    np.testing.assert_array_equal(unseen.landmarks(image, boxes, (1.0,)), before)
    small = cv2.resize(image, None, fx=0.1, fy=0.1, interpolation=cv2.INTER_AREA)
    few = boxes * 0.1
    assert (few[:, 2:] - few[:, :2]).max() < 24
    np.testing.assert_array_equal(placed.landmarks(small, few, (3.0,)), plain.landmarks(small, few, (3.0,)))
