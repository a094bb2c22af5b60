"""SCRFD (Guo et al., 2021, https://arxiv.org/abs/2105.04714) as a peer to measure against, not for the runtime."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge.detect.nms import nms
from edge.engines import open_session
from edge.errors import ContractError
from edge.types import Face, Floats, Image

STRIDES = (8, 16, 32)
ANCHORS = 2
"""Anchors a cell."""

LONG_SIDE = 640
MAX_IOU = 0.4


class Scrfd:
    """An SCRFD with five landmarks, from its ONNX file: nine outputs, scores, then boxes, then landmarks."""

    def __init__(self, path: Path, min_score: float = 0.5) -> None:
        self._session = open_session(path)
        if len(self._session.outputs) != 9:
            raise ContractError(f"{path}: has {len(self._session.outputs)} outputs; SCRFD with landmarks has 9")
        self._names = [spec.name for spec in self._session.outputs]
        self._input = self._session.inputs[0].name
        self._min_score = min_score

    def detect(self, image: Image) -> list[Face]:
        """Faces of an image (H, W, 3) uint8 BGR, in its pixels, best score first."""
        scale = min(1.0, LONG_SIDE / max(image.shape[:2]))
        seen = cv2.resize(image, None, fx=scale, fy=scale) if scale < 1.0 else image
        height, width = (-(-side // 32) * 32 for side in seen.shape[:2])
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: seen.shape[0], : seen.shape[1]] = seen
        batch = ((canvas[..., ::-1].astype(np.float32) - 127.5) / 128.0).transpose(2, 0, 1)[None]
        outputs = self._session.run({self._input: np.ascontiguousarray(batch)})
        heads = [outputs[name] for name in self._names]
        boxes, points, scores = self._decode(heads, width)
        kept = nms(boxes, scores, MAX_IOU, 1000)
        return [Face(boxes[i] / scale, points[i] / scale, float(min(1.0, scores[i]))) for i in kept]

    def _decode(self, heads: list[Floats], width: int) -> tuple[Floats, Floats, Floats]:
        boxes, points, scores = [], [], []
        for level, stride in enumerate(STRIDES):
            score = heads[level].reshape(-1)
            (hits,) = np.nonzero(score >= self._min_score)
            cell = hits // ANCHORS
            columns = width // stride
            origin = np.stack([cell % columns, cell // columns], axis=1).astype(np.float32) * stride
            sides = heads[3 + level].reshape(-1, 4)[hits] * stride
            boxes.append(np.concatenate([origin - sides[:, :2], origin + sides[:, 2:]], axis=1))
            points.append(origin[:, None] + heads[6 + level].reshape(-1, 5, 2)[hits] * stride)
            scores.append(score[hits])
        return np.concatenate(boxes), np.concatenate(points), np.concatenate(scores)
