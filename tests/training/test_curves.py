from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training.curves import draw_curves
from training.recipe import EpochRow


def test_one_epoch_alone_is_seen(tmp_path: Path) -> None:
    draw_curves(tmp_path / "c.png", [EpochRow(1, 1e-3, 0.7, 0.5, 0.1, 0.2, 0.9, 0.4)], 1)
    picture = cv2.imread(str(tmp_path / "c.png")).astype(int)
    third = picture.shape[1] // 3
    # In the middle, away from the legend: the points of a panel stand where the line of the best epoch does.
    orange = (np.abs(picture - np.array([14, 127, 255])).sum(axis=2) < 60)[:, third // 3 : third // 3 * 2]
    assert orange.any()
