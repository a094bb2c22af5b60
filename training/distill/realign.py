"""Crops of other programs cut anew by the runtime's own finder, so that training sees faces as a camera's lie."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from edge.align import align
from edge.detect import Detector, find_main_face
from edge.types import Image
from training.distill.crops import CropStore
from training.distill.harvest import QUALITY


def realign(sources: list[Path], detector: Detector, output: Path) -> int:
    """Writes the crops of `sources` (folders, zip archives) to the zip archive `output`, cut anew; how many were.

    A crop in which no face is found stays as it is. What lies beyond a crop's edge looks as the edge does. Names stay.
    """
    crops = CropStore.open(sources)
    moved = 0
    partial = output.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for index, name in enumerate(tqdm(crops.names, "crops cut anew", unit="crop", leave=False)):
            image = crops.image(index)
            again = cut_anew(image, detector)
            moved += again is not None
            done, data = cv2.imencode(".jpg", image if again is None else again, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
            assert done
            # A fixed date keeps the archive's bytes a function of the crops.
            archive.writestr(zipfile.ZipInfo(str(Path(name).with_suffix(".jpg"))), data.tobytes())
    partial.replace(output)
    return moved


def cut_anew(crop: Image, detector: Detector) -> Image | None:
    """(112, 112, 3) uint8 BGR, from the landmarks found in it; None where no face is found."""
    margin = crop.shape[0] // 2
    framed = np.asarray(cv2.copyMakeBorder(crop, margin, margin, margin, margin, cv2.BORDER_REPLICATE), np.uint8)
    face = find_main_face(detector, framed)
    return None if face is None else align(framed, face.landmarks)
