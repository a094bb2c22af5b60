"""From the heads of a YuNet-family network to boxes, landmarks and scores (Wu et al., YuNet, 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge.engines import Array
from edge.errors import ContractError
from edge.types import Floats

STRIDES = (8, 16, 32)
OUTPUTS = tuple(f"{head}_{stride}" for head in ("cls", "obj", "bbox", "kps") for stride in STRIDES)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Detections of one image before pruning: boxes (K, 4) x1 y1 x2 y2, landmarks (K, 5, 2), scores (K,), float32."""

    boxes: Floats
    landmarks: Floats
    scores: Floats


def require_heads(names: set[str]) -> None:
    """Raises ContractError where a model lacks one of the twelve YuNet heads."""
    if missing := sorted(set(OUTPUTS) - names):
        raise ContractError(f"the detector has no output {missing[0]}; a YuNet-family model gives {', '.join(OUTPUTS)}")


def decode(outputs: Mapping[str, Array], index: int, height: int, width: int, min_score: float) -> Candidates:
    """Candidates of image `index` of a batch whose score reaches `min_score`.

    height, width: of the network's input, multiples of 32. A cell (row, column) of stride s holds a face centred at
    ((column + dx)·s, (row + dy)·s), of size (exp(dw)·s, exp(dh)·s), with landmarks at ((column + kx)·s, (row + ky)·s);
    its score is √(cls·obj). Only cells above the score are decoded: on a frame that is a few of thousands.
    """
    boxes, landmarks, scores = [], [], []
    for stride in STRIDES:
        rows, columns = height // stride, width // stride
        product = outputs[f"cls_{stride}"][index].reshape(-1) * outputs[f"obj_{stride}"][index].reshape(-1)
        if product.size != rows * columns:
            raise ContractError(f"head cls_{stride} has {product.size} cells; {rows}×{columns} were expected")
        (cells,) = np.nonzero(product >= min_score * min_score)
        if cells.size == 0:
            continue
        origin = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32)
        box = outputs[f"bbox_{stride}"][index][cells].astype(np.float32, copy=False)
        centre = (origin + box[:, :2]) * stride
        # A broken weight must not become an infinite box: e^8·32 px is already far outside any frame.
        half = np.exp(np.minimum(box[:, 2:], 8.0)) * (stride / 2)
        points = outputs[f"kps_{stride}"][index][cells].reshape(-1, 5, 2).astype(np.float32, copy=False)
        boxes.append(np.concatenate([centre - half, centre + half], axis=1))
        landmarks.append((origin[:, None, :] + points) * stride)
        scores.append(np.sqrt(np.clip(product[cells], 0.0, 1.0)))
    if not boxes:
        return Candidates(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros((0,), np.float32))
    return Candidates(
        np.concatenate(boxes).astype(np.float32, copy=False),
        np.concatenate(landmarks).astype(np.float32, copy=False),
        np.concatenate(scores).astype(np.float32, copy=False),
    )
