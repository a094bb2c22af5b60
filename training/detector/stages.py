"""The network's stages beside the teacher's: each alone on what the teacher feeds it, or all in a row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edge.detect.decode import STRIDES
from training.detector.losses import Answers, relative_error
from training.detector.network import EdgeDetector


def teacher_answers(taught: dict[str, Tensor]) -> Answers:
    """The teacher's heads by name → its answers on the grid of cells."""
    heads = {
        head: torch.cat([taught[f"{head}_{stride}"] for stride in STRIDES], dim=1)
        for head in ("cls", "obj", "bbox", "kps")
    }
    return Answers(heads["cls"].squeeze(-1), heads["obj"].squeeze(-1), heads["bbox"], heads["kps"])


def stages_apart(network: EdgeDetector, images: Tensor, taught: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Every stage on the teacher's features: (sum of the stages' relative errors, raw predictions of the levels)."""
    errors = [
        relative_error(network.stem(images), taught["stem"]),
        relative_error(network.widen(taught["stem"]), taught["wide"]),
    ]
    before = taught["wide"]
    raw = []
    for level, stride in enumerate(STRIDES):
        own = network.stages[level](F.max_pool2d(before, 2) if level else before)
        before = taught[f"backbone_{stride}"]
        errors.append(relative_error(own, before))
        coarser = taught[f"neck_{STRIDES[level + 1]}"] if level + 1 < len(STRIDES) else None
        errors.append(relative_error(network.merge(level, before, coarser), taught[f"neck_{stride}"]))
        head = network.head_units[level](taught[f"neck_{stride}"])
        errors.append(relative_error(head, taught[f"head_{stride}"]))
        raw.append(network.heads[level](head))
    return torch.stack(errors).sum(), raw


def stages_together(network: EdgeDetector, images: Tensor, taught: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The whole network: (sum of its stages' relative errors, raw predictions of the levels)."""
    x = network.stem(images)
    errors = [relative_error(x, taught["stem"])]
    x = network.widen(x)
    errors.append(relative_error(x, taught["wide"]))
    backbone: list[Tensor] = []
    for level, stride in enumerate(STRIDES):
        x = network.stages[level](F.max_pool2d(x, 2) if level else x)
        errors.append(relative_error(x, taught[f"backbone_{stride}"]))
        backbone.append(x)
    neck: Tensor | None = None
    raw: list[Tensor] = []
    for level in reversed(range(len(STRIDES))):
        neck = network.merge(level, backbone[level], neck)
        head = network.head_units[level](neck)
        errors.append(relative_error(neck, taught[f"neck_{STRIDES[level]}"]))
        errors.append(relative_error(head, taught[f"head_{STRIDES[level]}"]))
        raw.insert(0, network.heads[level](head))
    return torch.stack(errors).sum(), raw
