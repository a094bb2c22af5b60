"""What the network is asked to match: the teacher's features, the teacher's answers, and the true faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training.detector.augment import Sample
from training.detector.network import HEADS
from training.detector.targets import Assignment, assign, decode_boxes, decode_landmarks, inside_any

LANDMARK_BETA = 0.02
"""Share of the face's size at which the landmark loss turns from squared to absolute."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the parts of the loss. `truth`, [0, 1]: how much true boxes count against the teacher's answers.

    Landmarks come from the teacher's cells (`taught_landmarks`) or from labels (`landmarks`), whatever `truth` is.
    """

    obj: float = 1.0
    cls: float = 0.5
    box: float = 2.0
    taught_landmarks: float = 3.0
    landmarks: float = 0.0
    truth: float = 0.0


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


def distillation_loss(own: Answers, taught: Answers, cells: Tensor, weights: Weights, keep: Tensor) -> Tensor:
    """How far the answers are from the teacher's. keep: (N, P), how much of the obj loss counts in each cell.

    Where the teacher sees no face only obj counts; boxes and landmarks weigh as its score does.
    """
    score = (taught.cls * taught.obj).sqrt()
    count = score.sum().clamp(min=1.0)
    obj = (F.binary_cross_entropy_with_logits(own.obj, taught.obj, reduction="none") * keep).sum() / count
    care = taught.obj + 0.02
    cls = (F.binary_cross_entropy_with_logits(own.cls, taught.cls, reduction="none") * care).sum() / count
    sure = score > 0.2
    weight = score[sure]
    at = cells.expand(*score.shape, 3)[sure]
    boxes, wanted = decode_boxes(own.bbox[sure], at), decode_boxes(taught.bbox[sure], at)
    box = (eiou_loss(boxes, wanted) * weight).sum() / count
    loss = (1 - weights.truth) * (weights.obj * obj + weights.cls * cls + weights.box * box)
    if weights.taught_landmarks == 0.0:
        return loss
    points, targets = decode_landmarks(own.kps[sure], at), decode_landmarks(taught.kps[sure], at)
    return loss + weights.taught_landmarks * (landmark_loss(points, targets, _side(wanted)) * weight).sum() / count


def truth_loss(
    own: Answers, cells: Tensor, samples: Sequence[Sample], assigned: Sequence[Assignment], weights: Weights
) -> tuple[Tensor, Tensor]:
    """(boxes' part, landmarks' part): how far the answers are from the true faces.

    obj counts outside of regions to ignore, cls and the box where a face is, landmarks where they are known.
    """
    positive = torch.stack([a.face >= 0 for a in assigned])
    ignored = torch.stack([inside_any(cells, torch.from_numpy(s.ignore)) for s in samples]) & ~positive
    count = positive.sum().clamp(min=1)
    obj = F.binary_cross_entropy_with_logits(own.obj, positive.float(), reduction="none")
    obj = (obj * ~ignored).sum() / count
    if not positive.any():
        return weights.truth * weights.obj * obj, obj.new_zeros(())
    overlap = torch.stack([a.overlap for a in assigned])[positive]
    wanted = torch.cat([torch.from_numpy(s.boxes)[a.face[a.face >= 0]] for s, a in zip(samples, assigned, strict=True)])
    points = torch.cat(
        [torch.from_numpy(s.landmarks)[a.face[a.face >= 0]] for s, a in zip(samples, assigned, strict=True)]
    )
    at = cells.expand(*positive.shape, 3)[positive]
    cls = F.binary_cross_entropy_with_logits(own.cls[positive], overlap, reduction="sum") / count
    box = eiou_loss(decode_boxes(own.bbox[positive], at), wanted).sum() / count
    known = points.isfinite().all(dim=2).all(dim=1)
    landmarks = landmark_loss(
        decode_landmarks(own.kps[positive][known], at[known]), points[known], _side(wanted[known])
    )
    return (
        weights.truth * (weights.obj * obj + weights.cls * cls + weights.box * box),
        weights.landmarks * landmarks.sum() / known.sum().clamp(min=1),
    )


def answer_loss(
    own: Answers, taught: Answers, cells: Tensor, samples: Sequence[Sample], weights: Weights
) -> dict[str, Tensor]:
    """The parts of the loss by name, weighted: "teacher", and "truth" and "landmarks" where their weights ask for them.

    Where a true face stands, a teacher that sees none is not heard: it misses faces that fill a frame.
    """
    if weights.truth == 0.0 and weights.landmarks == 0.0:
        return {"teacher": distillation_loss(own, taught, cells, weights, torch.ones_like(own.obj))}
    score = (own.cls.detach().sigmoid() * own.obj.detach().sigmoid()).sqrt()
    boxes = decode_boxes(own.bbox.detach(), cells)
    assigned = [assign(boxes[i], score[i], cells, torch.from_numpy(sample.boxes)) for i, sample in enumerate(samples)]
    denied = torch.stack([a.face >= 0 for a in assigned]) & (taught.obj < 0.5)
    teacher = distillation_loss(own, taught, cells, weights, (~denied).float())
    truth, landmarks = truth_loss(own, cells, samples, assigned, weights)
    return {"teacher": teacher, "truth": truth, "landmarks": landmarks}
