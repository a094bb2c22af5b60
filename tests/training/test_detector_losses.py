from __future__ import annotations

import numpy as np
import pytest
import torch

from training.detector.augment import Sample
from training.detector.losses import (
    Answers,
    detection_loss,
    distillation_loss,
    eiou_loss,
    head_error,
    kept_error,
    labelled_landmarks,
    landmark_loss,
    relative_error,
)
from training.detector.targets import grid

SIZE = 64
CELLS = grid(SIZE, SIZE)
FACE = np.array([[16, 16, 48, 48]], np.float32)
POINTS = np.array([[[24, 26], [40, 26], [32, 34], [26, 42], [38, 42]]], np.float32)


def sample(*, landmarks: bool = True, faces: bool = True) -> Sample:
    none = np.zeros((0, 4), np.float32)
    return Sample(
        np.zeros((SIZE, SIZE, 3), np.uint8),
        FACE if faces else none,
        (POINTS if landmarks else np.full_like(POINTS, np.nan))[: 1 if faces else 0],
    )


def perfect(count: int = 1) -> Answers:
    """Every cell gives the face's box and landmarks; the ten nearest to its centre below stride 32 say so."""
    centre, size = torch.tensor([32.0, 32.0]), torch.tensor([32.0, 32.0])
    bbox = torch.cat([(centre - CELLS[:, :2]) / CELLS[:, 2:], (size / CELLS[:, 2:]).log()], 1)
    kps = ((torch.from_numpy(POINTS[0])[None] - CELLS[:, None, :2]) / CELLS[:, None, 2:]).flatten(1)
    near = ((CELLS[:, :2] - centre).abs().max(1).values < 9) & (CELLS[:, 2] < 32)
    logit = torch.where(near, 8.0, -8.0)
    return Answers(*(value.expand(count, *value.shape).clone() for value in (logit, logit, bbox, kps)))


def as_teacher(answers: Answers) -> Answers:
    return Answers(answers.cls.sigmoid(), answers.obj.sigmoid(), answers.bbox, answers.kps)


def test_relative_error_is_zero_for_equals_and_one_for_silence() -> None:
    taught = torch.randn(2, 3, 4, 4)
    assert float(relative_error(taught, taught)) == 0.0
    assert float(relative_error(torch.zeros_like(taught), taught)) == pytest.approx(1.0)


def test_head_error_is_zero_where_the_heads_agree_and_sees_each_of_them() -> None:
    own = perfect()
    taught = as_teacher(own)
    assert float(head_error(own, taught)) == pytest.approx(0.0, abs=1e-4)
    for name in ("cls", "obj", "bbox", "kps"):
        other = perfect()
        getattr(other, name).mul_(0.0)
        assert float(head_error(other, taught)) == pytest.approx(1.0, abs=1e-3), name


def test_eiou_grows_as_a_box_moves_away_also_where_nothing_overlaps() -> None:
    wanted = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 4)
    own = wanted + torch.tensor([[0.0], [3.0], [12.0], [40.0]])
    loss = eiou_loss(own, wanted)
    assert float(loss[0]) == pytest.approx(0.0, abs=1e-6)
    assert bool((loss.diff() > 0).all())


def test_eiou_by_hand() -> None:
    """Boxes (0, 0, 4, 4) and (0, 0, 4, 2): IoU 1/2, centres 1 apart in a hull of 4×4, heights 2 apart."""
    loss = eiou_loss(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[0.0, 0.0, 4.0, 2.0]]))
    assert float(loss) == pytest.approx(1 - 0.5 + 1 / 32 + 4 / 16)


def test_landmarks_are_measured_in_shares_of_the_face() -> None:
    points = torch.from_numpy(POINTS)
    small = landmark_loss(points + 1.0, points, torch.tensor([10.0]))
    large = landmark_loss(points + 10.0, points, torch.tensor([100.0]))
    torch.testing.assert_close(small, large)
    assert float(landmark_loss(points, points, torch.tensor([10.0]))) == 0.0


def test_a_perfect_answer_costs_less_than_any_disturbed_one() -> None:
    taught = as_teacher(perfect())
    best = float(distillation_loss(perfect(), taught, CELLS))
    for name, change in (("obj", 4.0), ("obj", -6.0), ("bbox", 0.4), ("kps", 0.4)):
        own = perfect()
        getattr(own, name).add_(change)
        assert float(distillation_loss(own, taught, CELLS)) > best + 0.01, name


def test_what_counts_for_detection_are_scores_and_boxes() -> None:
    taught = as_teacher(perfect())
    best = float(detection_loss(perfect(), taught, CELLS))
    moved = perfect()
    moved.kps.add_(1.0)
    assert float(detection_loss(moved, taught, CELLS)) == best
    for name, change in (("obj", -6.0), ("cls", -6.0), ("bbox", 0.4)):
        own = perfect()
        getattr(own, name).add_(change)
        assert float(detection_loss(own, taught, CELLS)) > best + 0.01, name


def test_a_teachers_probabilities_become_the_logits_they_came_from() -> None:
    own = perfect()
    logits = as_teacher(own).as_logits()
    torch.testing.assert_close(logits.obj, own.obj, rtol=0, atol=1e-2)
    certain = Answers(torch.zeros(1, 2), torch.ones(1, 2), own.bbox, own.kps).as_logits()
    assert bool(certain.cls.isfinite().all())
    assert bool(certain.obj.isfinite().all())


def test_the_teachers_part_counts_cells_as_its_score_does() -> None:
    """An error of the box where the teacher sees nothing costs nothing."""
    taught = as_teacher(perfect())
    far, near = perfect(), perfect()
    sees = taught.obj[0] > 0.5
    far.bbox[0, ~sees] += 1.0
    near.bbox[0, sees] += 1.0
    base = float(distillation_loss(perfect(), taught, CELLS))
    assert float(distillation_loss(far, taught, CELLS)) == pytest.approx(base)
    assert float(distillation_loss(near, taught, CELLS)) > base + 0.5


def test_what_is_kept_are_scores_and_boxes_and_not_landmarks() -> None:
    before = perfect()
    assert float(kept_error(perfect(), before)) == 0.0
    moved = perfect()
    moved.kps.add_(1.0)
    assert float(kept_error(moved, before)) == 0.0
    for name in ("cls", "obj", "bbox"):
        other = perfect()
        getattr(other, name).mul_(0.0)
        assert float(kept_error(other, before)) == pytest.approx(1.0, abs=1e-3), name


def test_landmarks_are_learned_from_labels_where_a_face_is() -> None:
    before, own = perfect(), perfect()
    assert float(labelled_landmarks(own, before, CELLS, [sample()])) == pytest.approx(0.0, abs=1e-6)
    own.kps.add_(0.5).requires_grad_()
    loss = labelled_landmarks(own, before, CELLS, [sample()])
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) > 0.05
    assert own.kps.grad is not None
    answering = own.kps.grad[0].abs().sum(dim=1) > 0
    assert 1 <= int(answering.sum()) <= 10
    assert bool((before.obj[0, answering] > 0).all()), "the cells that say there is a face"


def test_an_error_that_cancels_between_cells_costs_less_than_one_that_all_share() -> None:
    before = perfect()
    sees = (before.obj[0] > 0).nonzero().flatten()
    sign = torch.ones(len(CELLS))
    sign[sees[::2]] = -1.0
    pixels = 2.0 / CELLS[:, 2:]
    shared, cancelling = perfect(), perfect()
    shared.kps[0] += pixels
    cancelling.kps[0] += sign[:, None] * pixels
    costs = [float(labelled_landmarks(own, before, CELLS, [sample()])) for own in (shared, cancelling)]
    assert costs[1] < 0.8 * costs[0]
    assert costs[1] > 0.4 * costs[0], "each cell's own error still counts"


@pytest.mark.parametrize("known", [sample(landmarks=False), sample(faces=False)])
def test_faces_without_landmarks_teach_none(known: Sample) -> None:
    own = perfect()
    own.kps.add_(0.5).requires_grad_()
    loss = labelled_landmarks(own, perfect(), CELLS, [known])
    assert float(loss.detach()) == 0.0
    loss.backward()  # type: ignore[no-untyped-call]
    assert own.kps.grad is None or not own.kps.grad.any()
