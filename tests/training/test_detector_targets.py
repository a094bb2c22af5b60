from __future__ import annotations

import torch

from training.detector.targets import assign, decode_boxes, decode_landmarks, grid, pairwise_iou


def test_the_grid_lists_rows_before_columns_and_fine_levels_first() -> None:
    cells = grid(64, 96)
    assert len(cells) == 8 * 12 + 4 * 6 + 2 * 3
    assert cells[0].tolist() == [0, 0, 8]
    assert cells[13].tolist() == [8, 8, 8]
    assert cells[8 * 12 + 1].tolist() == [16, 0, 16]
    assert cells[-1].tolist() == [64, 32, 32]


def test_decoding_inverts_what_a_cell_would_say() -> None:
    cells = torch.tensor([[16.0, 24.0, 8.0]])
    raw = torch.tensor([[0.5, -1.0, 2.0, 1.0]])
    x, y, w, h = 16 + 4, 24 - 8, 8 * torch.e**2, 8 * torch.e
    torch.testing.assert_close(decode_boxes(raw, cells), torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]]))
    points = decode_landmarks(torch.arange(10.0)[None], cells)
    torch.testing.assert_close(points[0, 2], torch.tensor([16 + 4 * 8.0, 24 + 5 * 8.0]))


def test_iou_of_known_boxes() -> None:
    a = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    b = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[1.0, 1 / 3, 0.0]]))


def test_a_face_goes_to_the_level_whose_boxes_fit_it() -> None:
    """Every cell predicts a box of 1.5 strides: of a face of 24 and one of 48 pixels, levels 16 and 32 fit best."""
    cells = grid(320, 320)
    half = cells[:, 2:] * 0.75
    boxes = torch.cat([cells[:, :2] - half, cells[:, :2] + half], 1)
    faces = torch.tensor([[52.0, 52.0, 76.0, 76.0], [200.0, 200.0, 248.0, 248.0]])
    assigned = assign(boxes, torch.full((len(cells),), 0.1), cells, faces)
    for face, stride in ((0, 16), (1, 32)):
        mine = cells[assigned == face]
        overlap = pairwise_iou(boxes, faces)[:, face]
        assert cells[(overlap * (assigned == face)).argmax(), 2] == stride
        assert 1 <= len(mine) <= 10


def test_two_faces_on_one_spot_each_keep_their_own_cells() -> None:
    cells = grid(128, 128)
    faces = torch.tensor([[40.0, 40.0, 80.0, 80.0], [44.0, 42.0, 84.0, 82.0]])
    near_second = (cells[:, 0] - 64).abs() + (cells[:, 1] - 62).abs() < 20
    boxes = torch.where(near_second[:, None], faces[1], faces[0])
    assigned = assign(boxes, torch.full((len(cells),), 0.5), cells, faces)
    assert bool((assigned == 0).any())
    assert bool((assigned == 1).any())
    taken = assigned >= 0
    assert bool((pairwise_iou(boxes[taken], faces).gather(1, assigned[taken, None])[:, 0] > 0.5).all())


def test_a_higher_score_wins_between_equal_boxes() -> None:
    cells = torch.tensor([[32.0, 32.0, 8.0], [40.0, 32.0, 8.0]])
    boxes = torch.tensor([[28.0, 24.0, 48.0, 44.0]] * 2)
    face = torch.tensor([[28.0, 24.0, 48.0, 44.0]])
    boxes = boxes + torch.tensor([0.0, 0.0, 14.0, 14.0])  # IoU a third each: the sum of both asks for one cell
    assert assign(boxes, torch.tensor([0.1, 0.9]), cells, face).tolist() == [-1, 0]
    assert assign(boxes, torch.tensor([0.9, 0.1]), cells, face).tolist() == [0, -1]


def test_without_faces_no_cell_answers() -> None:
    cells = grid(64, 64)
    assigned = assign(torch.zeros(len(cells), 4), torch.zeros(len(cells)), cells, torch.zeros(0, 4))
    assert bool((assigned == -1).all())


def test_a_face_smaller_than_a_cell_still_gets_one() -> None:
    """A face of 6 pixels, smaller than any cell: the nearest answers."""
    cells = grid(64, 64)
    face = torch.tensor([[31.0, 31.0, 37.0, 37.0]])
    half = cells[:, 2:] / 2
    boxes = torch.cat([cells[:, :2] - half, cells[:, :2] + half], 1)
    assigned = assign(boxes, torch.full((len(cells),), 0.01), cells, face)
    assert int((assigned == 0).sum()) == 1
    assert cells[assigned == 0][0, 2] == 8
