"""Photos to aligned crops through the runtime's own detection and alignment, so that training sees what a camera sees.

Policy for tight crops: the runtime's (`edge.detect.find_main_face`): the picture as it is, then with wider and wider
borders. A photo in which even that finds nothing teaches nothing and is left out of training; in a test it counts as
not recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from edge.align import CROP_SIZE, align
from edge.contract import ModelContract
from edge.detect import Detector, find_main_face
from edge.engines import open_session
from edge.errors import InputError
from edge.types import Image
from training.data import Dataset, read_image

_DETECTOR_CONTRACT = ModelContract(role="detector", size=None, color="bgr", layout="nchw", dtype="float32")


@dataclass(frozen=True, slots=True)
class AlignedFaces:
    """One row a photo, in the order asked for: crops (N, 112, 112, 3) uint8 BGR, black where `found` (N,) is false."""

    crops: Image
    found: npt.NDArray[np.bool_]


def open_detector(path: Path) -> Detector:
    """A detector of the YuNet family from its ONNX file: NCHW float32 BGR 0–255 in, its twelve heads out."""
    return Detector(open_session(path), _DETECTOR_CONTRACT)


def align_dataset(dataset: Dataset, detector: Detector, *, progress: bool = True) -> AlignedFaces:
    """The main face of every photo."""
    return align_files([dataset.root / photo.path for photo in dataset.photos], detector, progress=progress)


def align_files(paths: Sequence[Path], detector: Detector, *, progress: bool = True) -> AlignedFaces:
    """The main face of every picture. Raises InputError where a file is none."""
    crops = np.zeros((len(paths), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    found = np.zeros(len(paths), np.bool_)
    for i, path in enumerate(tqdm(paths, "aligning faces", unit="photo", disable=not progress, leave=False)):
        image = read_image(path)
        face = find_main_face(detector, image)
        if face is not None:
            crops[i], found[i] = align(image, face.landmarks), True
    return AlignedFaces(crops, found)


def take_aligned(dataset: Dataset) -> AlignedFaces:
    """For photos that are aligned crops already. Raises InputError where one is not 112×112."""
    crops = np.zeros((len(dataset.photos), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for i, photo in enumerate(dataset.photos):
        image = read_image(dataset.root / photo.path)
        if image.shape != crops.shape[1:]:
            size = f"{image.shape[1]}×{image.shape[0]}"
            raise InputError(f"{dataset.root / photo.path}: is {size}, and an aligned crop is 112×112; align the faces")
        crops[i] = image
    return AlignedFaces(crops, np.ones(len(crops), np.bool_))


def cached_faces(dataset: Dataset, detector_path: Path, cache: Path, *, progress: bool = True) -> AlignedFaces:
    """`align_dataset`, kept in the file `cache` (npz) and taken from there while data and detector stay the same."""
    key = hashlib.sha256(f"{dataset.digest} {hashlib.sha256(detector_path.read_bytes()).hexdigest()}".encode())
    kept = _read_cache(cache, key.hexdigest())
    if kept is not None:
        return kept
    faces = align_dataset(dataset, open_detector(detector_path), progress=progress)
    cache.parent.mkdir(parents=True, exist_ok=True)
    part = cache.with_name(f".{cache.name}.part.npz")
    np.savez(part, key=np.array(key.hexdigest()), crops=faces.crops, found=faces.found)
    part.replace(cache)
    return faces


def _read_cache(cache: Path, key: str) -> AlignedFaces | None:
    try:
        with np.load(cache, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return AlignedFaces(kept["crops"], kept["found"])
    except (OSError, ValueError, KeyError, EOFError):
        return None  # absent, or cut off by a kill: made anew
    return None
