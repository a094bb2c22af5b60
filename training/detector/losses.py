"""What the network is asked to match: the teacher's answers, its own of before, and labelled landmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edge.detect.decode import STRIDES
from training.detector.augment import Sample
from training.detector.network import HEADS
from training.detector.targets import assign, decode_boxes, decode_landmarks

OBJ, CLS, BOX, LANDMARKS = 1.0, 0.5, 2.0, 3.0
"""Weights of the parts of `distillation_loss`."""

LANDMARK_BETA = 0.02
"""Share of the face's size at which the landmark loss turns from squared to absolute."""


@dataclass(frozen=True, slots=True)
class Answers:
    """A batch's answers in P cells: cls, obj (N, P), logits of ours, probabilities of the teacher's; bbox and kps."""

    cls: Tensor
    obj: Tensor
    bbox: Tensor
    kps: Tensor

    @classmethod
    def of_levels(cls, raw: Sequence[Tensor]) -> Answers:
        """From the raw predictions (N, 16, h, w) of the levels."""
        flat = torch.cat([level.flatten(2) for level in raw], dim=2).transpose(1, 2)
        c, o, bbox, kps = flat.split(HEADS, dim=-1)  # type: ignore[no-untyped-call]
        return cls(c.squeeze(-1), o.squeeze(-1), bbox, kps)

    @classmethod
    def of_heads(cls, heads: Mapping[str, Tensor]) -> Answers:
        """From a teacher's heads by their names, (N, h·w, C) each."""
        c, o, bbox, kps = (
            torch.cat([heads[f"{head}_{stride}"] for stride in STRIDES], dim=1)
            for head in ("cls", "obj", "bbox", "kps")
        )
        return cls(c.squeeze(-1), o.squeeze(-1), bbox, kps)


def relative_error(own: Tensor, taught: Tensor) -> Tensor:
    """Mean square difference over the mean square of what is taught: 0 is equal, 1 is as good as silence."""
    return (own - taught).square().mean() / taught.square().mean().clamp(min=1e-6)


def head_error(own: Answers, taught: Answers) -> Tensor:
    """Relative errors of what the heads compute, in every cell, cls and obj as logits: their sum."""
    pairs = [
        (own.cls, taught.cls.logit(1e-5)),
        (own.obj, taught.obj.logit(1e-5)),
        (own.bbox, taught.bbox),
        (own.kps, taught.kps),
    ]
    return torch.stack([relative_error(one, other) for one, other in pairs]).sum()


def eiou_loss(own: Tensor, wanted: Tensor) -> Tensor:
    """1 − EIoU of boxes (K, 4) and (K, 4), in [0, …): (K,) (Zhang et al., 2021, https://arxiv.org/abs/2101.08158)."""
    low, high = torch.maximum(own[:, :2], wanted[:, :2]), torch.minimum(own[:, 2:], wanted[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    size, wanted_size = own[:, 2:] - own[:, :2], wanted[:, 2:] - wanted[:, :2]
    iou = shared / (size.prod(dim=1) + wanted_size.prod(dim=1) - shared).clamp(min=1e-6)
    hull = (torch.maximum(own[:, 2:], wanted[:, 2:]) - torch.minimum(own[:, :2], wanted[:, :2])).clamp(min=1e-3)
    away = (own[:, :2] + own[:, 2:] - wanted[:, :2] - wanted[:, 2:]) / 2
    distance = away.square().sum(dim=1) / hull.square().sum(dim=1)
    shape = ((size - wanted_size) / hull).square().sum(dim=1)
    return 1 - iou + distance + shape


def landmark_loss(own: Tensor, wanted: Tensor, size: Tensor) -> Tensor:
    """Smooth L1 of landmarks (K, 5, 2) in shares of the face's `size` (K,) pixels, mean over a face's values: (K,)."""
    share = (own - wanted) / size[:, None, None]
    return F.smooth_l1_loss(share, torch.zeros_like(share), beta=LANDMARK_BETA, reduction="none").mean(dim=(1, 2))


def _side(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=1.0).prod(dim=1).sqrt()


def distillation_loss(own: Answers, taught: Answers, cells: Tensor) -> Tensor:
    """How far the answers are from the teacher's, as they count for detection.

    Where the teacher sees no face only obj counts; boxes and landmarks weigh as its score does.
    """
    score = (taught.cls * taught.obj).sqrt()
    count = score.sum().clamp(min=1.0)
    obj = F.binary_cross_entropy_with_logits(own.obj, taught.obj, reduction="none").sum() / count
    care = taught.obj + 0.02
    cls = (F.binary_cross_entropy_with_logits(own.cls, taught.cls, reduction="none") * care).sum() / count
    sure = score > 0.2
    weight = score[sure]
    at = cells.expand(*score.shape, 3)[sure]
    boxes, wanted = decode_boxes(own.bbox[sure], at), decode_boxes(taught.bbox[sure], at)
    box = (eiou_loss(boxes, wanted) * weight).sum() / count
    points, targets = decode_landmarks(own.kps[sure], at), decode_landmarks(taught.kps[sure], at)
    landmarks = (landmark_loss(points, targets, _side(wanted)) * weight).sum() / count
    return OBJ * obj + CLS * cls + BOX * box + LANDMARKS * landmarks


def kept_error(own: Answers, before: Answers) -> Tensor:
    """Relative errors of what must not change while landmarks are learned: cls and bbox where there is a face, obj.

    Both with logits for cls and obj.
    """
    face = (before.cls.sigmoid() * before.obj.sigmoid()).sqrt() + 0.02

    def error(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
        return ((one - other).square() * weight).mean() / (other.square() * weight).mean()

    parts = (
        error(own.cls, before.cls, face),
        error(own.obj, before.obj, torch.ones_like(face)),
        error(own.bbox, before.bbox, face.unsqueeze(-1)),
    )
    return torch.stack(parts).sum()


def labelled_landmarks(own: Answers, before: Answers, cells: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Mean landmark loss over the cells that answer for a face whose landmarks are known; 0 where there is none.

    Which cells those are is decided by the answers `before`, for they are the ones that will be asked.
    """
    scores = (before.cls.sigmoid() * before.obj.sigmoid()).sqrt()
    boxes = decode_boxes(before.bbox, cells)
    faces = [assign(boxes[i], scores[i], cells, torch.from_numpy(s.boxes)) for i, s in enumerate(samples)]
    positive = torch.stack(faces) >= 0
    which = [face[face >= 0] for face in faces]
    points = torch.cat([torch.from_numpy(s.landmarks)[w] for s, w in zip(samples, which, strict=True)])
    wanted = torch.cat([torch.from_numpy(s.boxes)[w] for s, w in zip(samples, which, strict=True)])
    known = points.isfinite().all(dim=2).all(dim=1)
    at = cells.expand(*positive.shape, 3)[positive][known]
    losses = landmark_loss(decode_landmarks(own.kps[positive][known], at), points[known], _side(wanted[known]))
    return losses.sum() / known.sum().clamp(min=1)
