from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.detection import found, landmark_error, open_detector, precision, read_truth
from benchmarks.scrfd import Scrfd
from edge.errors import ContractError, InputError
from edge.types import Face, Image

POINTS = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)


def face(x: float, y: float, score: float = 0.9) -> Face:
    shift = np.array([x, y], np.float32)
    return Face(np.array([x, y, x + 100, y + 120], np.float32), POINTS + shift, score)


@dataclass
class Says:
    """A detector that always gives the same faces."""

    faces: list[Face]

    def detect(self, image: Image) -> list[Face]:
        return self.faces


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for path in paths:
        cv2.imwrite(str(path), np.zeros((200, 200, 3), np.uint8))
    return paths


def test_landmarks_are_compared_in_shares_of_the_eye_distance(pictures: list[Path]) -> None:
    reference = face(50, 40)
    shifted = replace(reference, landmarks=reference.landmarks + np.array([3, 4], np.float32))
    report = landmark_error(Says([shifted]), Says([reference]), pictures)
    assert report.median.value == pytest.approx(5 / 40)
    assert (report.faces, report.missed) == (6, 0)


def test_the_face_in_the_middle_is_the_one_compared(pictures: list[Path]) -> None:
    middle, corner = face(50, 40), face(-60, -80, 0.99)
    assert landmark_error(Says([corner, middle]), Says([corner, middle]), pictures).median.value == 0.0
    blind = landmark_error(Says([corner, middle]), Says([middle]), pictures[:3])
    assert (blind.faces, blind.missed) == (3, 0)


def test_faces_found_elsewhere_are_missed(pictures: list[Path]) -> None:
    mixed = [Says([face(50, 40)]), Says([face(150, 150)])]

    class Alternates:
        calls = 0

        def detect(self, image: Image) -> list[Face]:
            self.calls += 1
            return mixed[self.calls % 3 == 0].detect(image)

    report = landmark_error(Alternates(), Says([face(50, 40)]), pictures)
    assert (report.faces, report.missed) == (4, 2)


def test_precision_of_an_oracle_and_of_a_detector_that_adds_a_false_face(pictures: list[Path]) -> None:
    truth = [(path, face(50, 40).box[None]) for path in pictures]
    assert precision(Says([face(50, 40)]), truth).average.value == 1.0
    report = precision(Says([face(0, 80, 0.95), face(50, 40, 0.5)]), truth)
    assert report.average.value == pytest.approx(0.5)
    assert (report.faces, report.images) == (6, 6)
    assert [share.value for share in report.found.values()] == [0, 0, 0, 1], "a false alarm on each picture"


def test_pictures_without_a_face_are_named(pictures: list[Path]) -> None:
    rate, missed = found(lambda image: [], pictures)
    assert (rate.hits, rate.count, len(missed)) == (0, 6, 6)
    assert missed[0].endswith("/0.png")
    with pytest.raises(InputError, match=r"gone\.png"):
        found(lambda image: [1], [pictures[0].with_name("gone.png")])


@pytest.mark.realdata
def test_published_detectors_agree_on_six_faces(shared_data: Path) -> None:
    """The peer's decoder is right where it finds the same faces as YuNet does through the runtime's."""
    image = cv2.imread(str(shared_data / "data" / "scenes" / "six_faces.jpg"))
    scrfd = Scrfd(shared_data / "models" / "scrfd_2.5g.onnx").detect(image)
    yunet = open_detector(shared_data / "models" / "yunet_n_dynamic.onnx").detect(image)
    assert len(scrfd) == len(yunet) == 6
    away = []
    for one in scrfd:
        other = min(yunet, key=lambda f: float(np.hypot(*(f.landmarks[2] - one.landmarks[2]))))
        eyes = float(np.hypot(*(one.landmarks[1] - one.landmarks[0])))
        away.append(float(np.hypot(*(one.landmarks - other.landmarks).T).mean()) / eyes)
    assert float(np.median(away)) < 0.15
    assert max(away) < 0.5  # YuNet sees a face that leans as if it stood upright


@pytest.mark.realdata
def test_yunet_reaches_its_anchor_on_part_of_wider(shared_data: Path) -> None:
    from benchmarks.detection import MEASURED

    detector = open_detector(shared_data / "models" / "yunet_n_dynamic.onnx", MEASURED)
    report = precision(detector, read_truth(shared_data / "data" / "wider" / "eval")[:30])
    assert report.average.value > 0.8
    assert report.average.low < report.average.value < report.average.high


@pytest.mark.realdata
def test_a_detector_of_another_family_is_refused(shared_data: Path) -> None:
    with pytest.raises(ContractError, match="9"):
        Scrfd(shared_data / "models" / "yunet_n_dynamic.onnx")
    with pytest.raises(ContractError, match="cls_16"):
        open_detector(shared_data / "models" / "scrfd_500m.onnx")
