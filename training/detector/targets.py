"""Which cell answers for which face: SimOTA (Ge et al., YOLOX, 2021, https://arxiv.org/abs/2107.08430)."""

from __future__ import annotations

import torch
from torch import Tensor

from edge.detect.decode import STRIDES

CENTRE_RADIUS = 2.5
"""A cell may answer for a face whose centre is within so many strides of it on both axes."""

MOST_CELLS = 10
"""At most so many cells answer for one face; how many is the sum of its best overlaps."""

OVERLAP_WEIGHT = 3.0


def grid(height: int, width: int) -> Tensor:
    """(P, 3): x, y and stride in pixels of every cell of the three levels, in the order of the network's outputs."""
    levels = []
    for stride in STRIDES:
        rows, columns = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        points = torch.stack([columns.flatten(), rows.flatten()], 1) * stride
        levels.append(torch.cat([points, torch.full((len(points), 1), stride)], 1))
    return torch.cat(levels).float()


def decode_boxes(raw: Tensor, cells: Tensor) -> Tensor:
    """bbox outputs (…, P, 4) → x1 y1 x2 y2 in pixels (…, P, 4)."""
    stride = cells[:, 2:]
    centre = cells[:, :2] + raw[..., :2] * stride
    half = raw[..., 2:].clamp(max=6.0).exp() * stride / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def decode_landmarks(raw: Tensor, cells: Tensor) -> Tensor:
    """kps outputs (…, P, 10) → pixels (…, P, 5, 2)."""
    points = raw.unflatten(-1, (5, 2))  # type: ignore[no-untyped-call]
    return cells[:, None, :2] + points * cells[:, None, 2:]  # type: ignore[no-any-return]


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (P, 4) and (K, 4): (P, K)."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area_a, area_b = (a[:, 2:] - a[:, :2]).prod(dim=1), (b[:, 2:] - b[:, :2]).prod(dim=1)
    return shared / (area_a[:, None] + area_b[None] - shared).clamp(min=1e-6)


@torch.no_grad()
def assign(boxes: Tensor, scores: Tensor, cells: Tensor, faces: Tensor) -> Tensor:
    """Gives every face the cells that already answer best for it: (P,) int64, the face's index, −1 for none.

    boxes: (P, 4) predicted, pixels; scores: (P,) predicted, [0, 1]; cells: (P, 3) of `grid`; faces: (K, 4) true boxes.
    A cell may answer where it lies in the face's box or near its centre; the cost is the score's cross-entropy plus
    three times −log IoU, and far higher outside of either. A cell wanted by two faces goes to the cheaper.
    """
    face = torch.full((len(cells),), -1, dtype=torch.int64)
    if not len(faces):
        return face
    x, y, stride = cells[:, None, 0], cells[:, None, 1], cells[:, None, 2]
    centre = (faces[:, :2] + faces[:, 2:]) / 2
    inside = (x > faces[:, 0]) & (y > faces[:, 1]) & (x < faces[:, 2]) & (y < faces[:, 3])
    near = torch.maximum((x - centre[:, 0]).abs(), (y - centre[:, 1]).abs()) < CENTRE_RADIUS * stride
    may = inside | near
    (candidates,) = may.any(dim=1).nonzero(as_tuple=True)
    if not len(candidates):
        return face
    iou = pairwise_iou(boxes[candidates], faces)
    cost = (
        -scores[candidates, None].clamp(min=1e-6).log()
        - OVERLAP_WEIGHT * iou.clamp(min=1e-6).log()
        + 1e5 * ~(inside & near)[candidates]
        + 1e8 * ~may[candidates]
    )
    wanted = iou.topk(min(MOST_CELLS, len(candidates)), dim=0).values.sum(dim=0).int().clamp(min=1)
    order = cost.argsort(dim=0)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(candidates))[:, None].expand_as(order))
    chosen = (rank < wanted) & may[candidates]
    cheapest = torch.where(chosen, cost, torch.inf).min(dim=1)
    taken = cheapest.values.isfinite()
    face[candidates[taken]] = cheapest.indices[taken]
    return face
