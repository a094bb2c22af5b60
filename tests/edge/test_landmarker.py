"""The landmarker: what it looks at, where it puts what it sees, and when it is not believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.align import ARCFACE_112, WIDE_96, WIDE_96_SIZE, align, similarity_transform
from edge.contract import LANDMARKER_SIZE, ModelContract
from edge.detect import Landmarker
from edge.detect.landmarker import MAX_MOVE, placed, views_of
from edge.engines import Array, Session, TensorSpec
from edge.errors import ContractError, EngineError
from edge.types import Face, Floats

CONTRACT = ModelContract(role="landmarker", size=LANDMARKER_SIZE, template="arcface-wide-96")
EYES = float(np.linalg.norm(WIDE_96[1] - WIDE_96[0]))


class Scripted(Session):
    """A session whose answer the test computes from the pixels it is shown."""

    def __init__(self, answer: Callable[[Array], Array], batch: int | None = None) -> None:
        super().__init__()
        self.inputs = (TensorSpec("pixels", "uint8", (batch, WIDE_96_SIZE, WIDE_96_SIZE, 3)),)
        self.outputs = (TensorSpec("landmarks", "float32", (batch, 10)),)
        self.seen: list[Array] = []
        self._answer = answer

    def describe(self) -> dict[str, str]:
        return {"engine": "scripted"}

    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        self.seen.append(batch["pixels"])
        return {"landmarks": self._answer(batch["pixels"])}


def nothing(pixels: Array) -> Array:
    return np.zeros((len(pixels), 10), np.float32)


def face_at(landmarks: Floats, *, refined: bool = False) -> Face:
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    return Face(np.concatenate([low, high]).astype(np.float32), landmarks.astype(np.float32), 0.9, refined)


def turned(degrees: float, scale: float, shift: tuple[float, float]) -> Floats:
    """The template's landmarks somewhere in a picture."""
    angle = np.radians(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    landmarks: Floats = ((ARCFACE_112 - 56) @ turn.T + shift).astype(np.float32)
    return landmarks


places = st.builds(
    turned,
    st.floats(-180, 180),
    st.floats(0.3, 5),
    st.tuples(st.floats(0, 600), st.floats(0, 400)),
)


@settings(deadline=None, max_examples=60)
@given(places, st.lists(st.floats(-3, 3), min_size=10, max_size=10))
def test_what_is_seen_in_the_view_is_put_where_it_is_in_the_picture(landmarks: Floats, offsets: list[float]) -> None:
    face = face_at(landmarks)
    wanted = WIDE_96 + np.array(offsets).reshape(5, 2)
    (moved,) = placed([face], views_of([face]), wanted[None].astype(np.float32))
    matrix = similarity_transform(landmarks, WIDE_96)
    seen = moved.landmarks @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(seen, wanted, atol=0.05)
    assert moved.refined
    assert moved.score == face.score
    assert (moved.box == face.box).all()


@settings(deadline=None, max_examples=30)
@given(places)
def test_a_face_that_lies_right_stays_where_it_is(landmarks: Floats) -> None:
    matrix = similarity_transform(landmarks, WIDE_96)
    seen = landmarks @ matrix[:, :2].T + matrix[:, 2]
    (moved,) = placed([face_at(landmarks)], views_of([face_at(landmarks)]), seen[None].astype(np.float32))
    np.testing.assert_allclose(moved.landmarks, landmarks, atol=0.02)


def test_a_mark_in_the_picture_is_found_through_the_view() -> None:
    """The whole way: a white spot beside the nose is what this landmarker calls the nose."""
    landmarks = turned(20, 2.0, (300, 200))
    image = np.zeros((400, 600, 3), np.uint8)
    spot = landmarks[2] + (9, -6)
    y, x = np.mgrid[0:400, 0:600]
    image[(x - spot[0]) ** 2 + (y - spot[1]) ** 2 <= 36] = 255

    def brightest(pixels: Array) -> Array:
        answers = np.zeros((len(pixels), 5, 2), np.float32)
        for row, view in enumerate(pixels):
            weight = view[..., 0].astype(np.float64)
            grid = np.stack(np.mgrid[0:WIDE_96_SIZE, 0:WIDE_96_SIZE][::-1], axis=-1)
            answers[row, 2] = (grid * weight[..., None]).sum(axis=(0, 1)) / weight.sum() - WIDE_96[2]
        return answers.reshape(-1, 10)

    session = Scripted(brightest)
    (moved,) = Landmarker(session, CONTRACT).refine(image, [face_at(landmarks)])
    np.testing.assert_allclose(moved.landmarks[2], spot, atol=0.5)
    np.testing.assert_allclose(moved.landmarks[[0, 1, 3, 4]], placed_back(landmarks)[[0, 1, 3, 4]], atol=0.05)
    wanted = align(image, landmarks, WIDE_96, WIDE_96_SIZE)
    assert (session.seen[0][0] == wanted).all()


def placed_back(landmarks: Floats) -> Floats:
    """The template's points in the picture: what an answer of zeros means."""
    matrix = similarity_transform(landmarks, WIDE_96)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    points: Floats = (WIDE_96 @ inverse[:2, :2].T + inverse[:2, 2]).astype(np.float32)
    return points


def test_what_it_moves_too_far_it_did_not_see() -> None:
    landmarks = turned(0, 1.0, (100, 100))
    image = np.zeros((200, 200, 3), np.uint8)
    for share, believed in ((0.98 * MAX_MOVE, True), (1.02 * MAX_MOVE, False)):
        session = Scripted(lambda pixels, far=share * EYES: np.tile(np.float32([far, 0]), (len(pixels), 5)))
        (moved,) = Landmarker(session, CONTRACT).refine(image, [face_at(landmarks)])
        assert moved.refined, "it is not asked again"
        assert (moved.landmarks == landmarks).all() == (not believed)


def test_landmarks_that_coincide_are_left_alone_and_the_others_are_not_mixed_up() -> None:
    good = [turned(0, 1.0, (100, 100)), turned(30, 1.5, (300, 150))]
    faces = [face_at(good[0]), face_at(np.full((5, 2), 40, np.float32)), face_at(good[1])]
    session = Scripted(nothing)
    moved = Landmarker(session, CONTRACT).refine(np.zeros((300, 400, 3), np.uint8), faces)
    assert [face.refined for face in moved] == [True, False, True]
    assert moved[1] is faces[1]
    for face, landmarks in ((moved[0], good[0]), (moved[2], good[1])):
        np.testing.assert_allclose(face.landmarks, placed_back(landmarks), atol=0.01)
    assert len(session.seen[0]) == 2
    assert Landmarker(session, CONTRACT).refine(np.zeros((300, 400, 3), np.uint8), []) == []


def test_a_model_of_one_face_a_run_sees_them_one_by_one() -> None:
    session = Scripted(nothing, batch=1)
    faces = [face_at(turned(0, 1.0, (100 + 10 * n, 100))) for n in range(3)]
    assert len(Landmarker(session, CONTRACT).refine(np.zeros((300, 400, 3), np.uint8), faces)) == 3
    assert [len(batch) for batch in session.seen] == [1, 1, 1]


@pytest.mark.parametrize("answer", [np.full((1, 10), np.nan, np.float32), np.zeros((1, 8), np.float32)])
def test_what_is_no_landmarks_is_an_error(answer: Array) -> None:
    session = Scripted(lambda pixels: answer)
    with pytest.raises(EngineError, match="ten finite numbers"):
        Landmarker(session, CONTRACT).refine(np.zeros((200, 200, 3), np.uint8), [face_at(turned(0, 1, (100, 100)))])


def test_contracts_of_landmarkers() -> None:
    assert ModelContract.from_dict(CONTRACT.to_dict()) == CONTRACT
    for wrong in ({"size": (112, 112)}, {"template": "arcface-112"}, {"template": None}, {"size": None}):
        with pytest.raises(ContractError):
            ModelContract(**{"role": "landmarker", "size": LANDMARKER_SIZE, "template": "arcface-wide-96", **wrong})
    with pytest.raises(ContractError, match="a landmarker is needed"):
        Landmarker(Scripted(nothing), ModelContract(role="detector", size=None))
