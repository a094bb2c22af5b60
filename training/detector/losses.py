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

LABEL_BETA = 0.03
"""The same for labels, as a share of the eye distance: less than they are apart when the training begins."""

PROFILE = 0.3
"""Share of a face's side that its eye distance counts at least: seen from the side, eyes nearly coincide."""

ANSWERING = 0.2
"""Score from which a cell's landmarks count."""

SURE = 1e-5
"""Probabilities are held this far from 0 and 1 before their logit is taken."""


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

    def of(self, samples: slice) -> Answers:
        """Those of some of the samples."""
        return Answers(self.cls[samples], self.obj[samples], self.bbox[samples], self.kps[samples])

    def as_logits(self) -> Answers:
        """A teacher's probabilities as the logits ours are, between −11.5 and 11.5."""
        return Answers(self.cls.logit(SURE), self.obj.logit(SURE), self.bbox, self.kps)


def relative_error(own: Tensor, taught: Tensor) -> Tensor:
    """Mean square difference over the mean square of what is taught: 0 is equal, 1 is as good as silence."""
    return (own - taught).square().mean() / taught.square().mean().clamp(min=1e-6)


def head_error(own: Answers, taught: Answers) -> Tensor:
    """Relative errors of what the heads compute, in every cell, cls and obj as logits: their sum."""
    taught = taught.as_logits()
    pairs = [(own.cls, taught.cls), (own.obj, taught.obj), (own.bbox, taught.bbox), (own.kps, taught.kps)]
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


def detection_loss(own: Answers, taught: Answers, cells: Tensor) -> Tensor:
    """How far scores and boxes are from the teacher's, as they count for detection.

    Where the teacher sees no face only obj counts; boxes weigh as its score does.
    """
    score = (taught.cls * taught.obj).sqrt()
    count = score.sum().clamp(min=1.0)
    obj = F.binary_cross_entropy_with_logits(own.obj, taught.obj, reduction="none").sum() / count
    care = taught.obj + 0.02
    cls = (F.binary_cross_entropy_with_logits(own.cls, taught.cls, reduction="none") * care).sum() / count
    sure = score > ANSWERING
    at = cells.expand(*score.shape, 3)[sure]
    boxes, wanted = decode_boxes(own.bbox[sure], at), decode_boxes(taught.bbox[sure], at)
    box = (eiou_loss(boxes, wanted) * score[sure]).sum() / count
    return OBJ * obj + CLS * cls + BOX * box


def distillation_loss(own: Answers, taught: Answers, cells: Tensor) -> Tensor:
    """`detection_loss`, and how far the landmarks are from the teacher's where it sees a face."""
    score = (taught.cls * taught.obj).sqrt()
    sure = score > ANSWERING
    at = cells.expand(*score.shape, 3)[sure]
    points, targets = decode_landmarks(own.kps[sure], at), decode_landmarks(taught.kps[sure], at)
    losses = landmark_loss(points, targets, _side(decode_boxes(taught.bbox[sure], at))) * score[sure]
    return detection_loss(own, taught, cells) + LANDMARKS * losses.sum() / score.sum().clamp(min=1.0)


def kept_error(own: Answers, taught: Answers) -> Tensor:
    """Relative errors of scores and boxes in all cells: cls and bbox where there is a face, obj everywhere.

    Both with logits for cls and obj.
    """
    face = (taught.cls.sigmoid() * taught.obj.sigmoid()).sqrt() + 0.02

    def error(one: Tensor, other: Tensor, weight: Tensor) -> Tensor:
        return ((one - other).square() * weight).mean() / (other.square() * weight).mean()

    parts = (
        error(own.cls, taught.cls, face),
        error(own.obj, taught.obj, torch.ones_like(face)),
        error(own.bbox, taught.bbox, face.unsqueeze(-1)),
    )
    return torch.stack(parts).sum()


def labelled_landmarks(own: Answers, taught: Answers, cells: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Mean landmark loss over the faces whose landmarks are known; 0 where there is none.

    Which cells answer for a face is decided by what is `taught`, with logits, for they are the ones that will be asked.
    A face's loss is that of each such cell, weighed by its squared score, and once more that of their mean, which is
    what `edge.detect.vote` gives: errors that cancel in the mean do no harm, those that all cells share do.
    """
    scores = (taught.cls.sigmoid() * taught.obj.sigmoid()).sqrt()
    boxes = decode_boxes(taught.bbox, cells)
    losses = [0.0 * own.kps.sum()]  # keeps the graph where no face is known
    for i, sample in enumerate(samples):
        wanted, sides = torch.from_numpy(sample.landmarks), _side(torch.from_numpy(sample.boxes))
        face = assign(boxes[i], scores[i], cells, torch.from_numpy(sample.boxes))
        for k in wanted.isfinite().all(dim=2).all(dim=1).nonzero().flatten().tolist():
            answers = (face == k) & (scores[i] > ANSWERING)
            if not bool(answers.any()):
                continue
            eyes = torch.maximum((wanted[k, 1] - wanted[k, 0]).norm(), PROFILE * sides[k])
            away = (decode_landmarks(own.kps[i][answers], cells[answers]) - wanted[k]) / eyes
            weight = scores[i][answers].square()
            weight = (weight / weight.sum())[:, None, None]
            losses.append((weight * _near(away)).sum() / away[0].numel() + _near((weight * away).sum(dim=0)).mean())
    return torch.stack(losses).sum() / max(len(losses) - 1, 1)


def _near(away: Tensor) -> Tensor:
    return F.smooth_l1_loss(away, torch.zeros_like(away), beta=LABEL_BETA, reduction="none")
