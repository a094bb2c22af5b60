"""Photos to aligned crops through the runtime's own detection and alignment, so that training sees what a camera sees.

Policy for tight crops: the runtime's (`edge.detect.find_main_face`): the picture as it is, then with wider and wider
borders. A photo in which even that finds nothing teaches nothing and is left out of training; in a test it counts as
not recognised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from edge.align import CROP_SIZE, align
from edge.contract import NO_LANDMARKER, ModelContract
from edge.detect import Detector, Landmarker, find_main_face
from edge.engines import Array, Session, TensorSpec, open_session
from edge.errors import InputError
from edge.pictures import read_picture
from edge.types import Image
from edge.weights import find_weights
from training.data import Dataset

_DETECTOR_CONTRACT = ModelContract(role="detector", size=None, color="bgr", layout="nchw", dtype="float32")


@dataclass(frozen=True, slots=True)
class AlignedFaces:
    """One row a photo, in the order asked for: crops (N, 112, 112, 3) uint8 BGR, black where `found` (N,) is false."""

    crops: Image
    found: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Finder:
    """What finds faces: weights of a detector, and of the landmarker that looks at them again; None for none."""

    detector: Path
    landmarker: Path | None = None

    @property
    def stem(self) -> str:
        """For tables: the files' names without suffix, joined by +."""
        return self.detector.stem if self.landmarker is None else f"{self.detector.stem}+{self.landmarker.stem}"

    @property
    def name(self) -> str:
        """For cards: the files' names."""
        return self.detector.name if self.landmarker is None else f"{self.detector.name}, {self.landmarker.name}"

    def digest(self) -> str:
        """SHA-256 (hex) over the files."""
        files = [self.detector, *([self.landmarker] if self.landmarker is not None else [])]
        return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()

    def open(self) -> Detector:
        """Raises InputError and ContractError where the files are unfit."""
        return open_detector(self.detector, self.landmarker)

    @classmethod
    def of(cls, detector: str | None, landmarker: str | None) -> Finder:
        """By files or names of weights; None for the default, NO_LANDMARKER for none. Raises InputError."""
        closer = None if landmarker == NO_LANDMARKER else find_weights(landmarker, "landmarker")
        return cls(find_weights(detector, "detector"), closer)

    @classmethod
    def parse(cls, text: str | None) -> Finder:
        """`DETECTOR+LANDMARKER`, or `DETECTOR` for its own landmarks; None for both defaults. Raises InputError."""
        if text is None:
            return cls.of(None, None)
        if Path(text).is_file():  # whose name may have a + in it
            return cls.of(text, NO_LANDMARKER)
        detector, plus, landmarker = text.rpartition("+")
        return cls.of(detector, landmarker) if plus else cls.of(text, NO_LANDMARKER)


def open_detector(path: Path, landmarker: Path | None = None) -> Detector:
    """A detector of the YuNet family from its ONNX file, or the project's own from its training weights.

    landmarker: weights of the project's own; None for the detector's landmarks. Raises InputError and ContractError.
    """
    session = open_session(path) if path.suffix == ".onnx" else _detector_session(path)
    return Detector(session, _DETECTOR_CONTRACT, landmarker=None if landmarker is None else open_landmarker(landmarker))


def _detector_session(path: Path) -> _TorchSession:
    from training.detector.network import OUTPUT_NAMES, load

    return _TorchSession(load(path), None, OUTPUT_NAMES)


def open_landmarker(path: Path) -> Landmarker:
    """The project's own from its weights. Raises InputError and ContractError."""
    from training.landmarker.network import CONTRACT, load

    return Landmarker(_TorchSession(load(path), CONTRACT.size, ("landmarks",)), CONTRACT)


class _TorchSession(Session):
    """One of the project's networks as training left it; export is not needed to train an embedder."""

    def __init__(self, network: nn.Module, size: tuple[int, int] | None, outputs: Sequence[str]) -> None:
        super().__init__()
        self._network = network
        self.inputs = (TensorSpec("input", "float32", (None, 3, *(size or (None, None)))),)
        self.outputs = tuple(TensorSpec(name, "float32", (None,) * (2 if size else 3)) for name in outputs)

    def describe(self) -> dict[str, str]:
        return {"engine": "torch", "version": torch.__version__, "device": "cpu"}

    @torch.no_grad()
    def _run_impl(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        answers = self._network(torch.from_numpy(batch["input"]))
        answers = (answers,) if isinstance(answers, torch.Tensor) else answers
        return {spec.name: answer.numpy() for spec, answer in zip(self.outputs, answers, strict=True)}


def align_dataset(dataset: Dataset, detector: Detector) -> AlignedFaces:
    """The main face of every photo."""
    return align_files([dataset.root / photo.path for photo in dataset.photos], detector)


def align_files(paths: Sequence[Path], detector: Detector) -> AlignedFaces:
    """The main face of every picture. Raises InputError where a file is none."""
    crops = np.zeros((len(paths), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    found = np.zeros(len(paths), np.bool_)
    for i, path in enumerate(tqdm(paths, "aligning faces", unit="photo", disable=None, leave=False)):
        image = read_picture(path)
        face = find_main_face(detector, image)
        if face is not None:
            crops[i], found[i] = align(image, face.landmarks), True
    return AlignedFaces(crops, found)


def take_aligned(dataset: Dataset) -> AlignedFaces:
    """For photos that are aligned crops already. Raises InputError where one is not 112×112."""
    crops = np.zeros((len(dataset.photos), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for i, photo in enumerate(dataset.photos):
        image = read_picture(dataset.root / photo.path)
        if image.shape != crops.shape[1:]:
            size = f"{image.shape[1]}×{image.shape[0]}"
            raise InputError(f"{dataset.root / photo.path}: is {size}, and an aligned crop is 112×112; align the faces")
        crops[i] = image
    return AlignedFaces(crops, np.ones(len(crops), np.bool_))


def cached_faces(dataset: Dataset, finder: Finder, cache: Path) -> AlignedFaces:
    """`align_dataset`, kept in the file `cache` (npz) and taken from there while data and finder stay the same."""
    key = hashlib.sha256(f"{dataset.digest} {finder.digest()}".encode())
    kept = _read_cache(cache, key.hexdigest())
    if kept is not None:
        return kept
    faces = align_dataset(dataset, finder.open())
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
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None  # absent, or cut off by a kill: made anew
    return None
