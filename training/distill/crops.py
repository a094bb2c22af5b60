"""Face crops in memory, in an order that depends on nothing but the seed, and their augmentation."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError

SIZE = 112
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
Image = NDArray[np.uint8]


class CropStore:
    """Encoded face crops, 112×112 aligned to the ArcFace template, sorted by source and name.

    Labels play no part in distillation; the folder a crop lies in (its identity) only decides on which side of the
    hold-out it falls, so that no person is on both.
    """

    def __init__(self, names: list[str], encoded: list[bytes]) -> None:
        self.names = names
        self._encoded = encoded

    @classmethod
    def open(cls, sources: Iterable[Path]) -> CropStore:
        """All crops of zip archives and folders (searched through). Raises `InputError` for what holds none."""
        names: list[str] = []
        encoded: list[bytes] = []
        for source in sorted(sources, key=lambda path: path.name):
            before = len(names)
            if source.is_dir():
                for path in sorted(source.rglob("*")):
                    if path.suffix.lower() in IMAGE_SUFFIXES:
                        names.append(f"{source.name}/{path.relative_to(source).as_posix()}")
                        encoded.append(path.read_bytes())
            elif zipfile.is_zipfile(source):
                with zipfile.ZipFile(source) as archive:
                    for member in sorted(archive.namelist()):
                        if member.lower().endswith(IMAGE_SUFFIXES):
                            names.append(f"{source.stem}/{member}")
                            encoded.append(archive.read(member))
            else:
                raise InputError(f"crops {source}: neither a folder nor a zip archive")
            if len(names) == before:
                raise InputError(f"crops {source}: holds no image (*.jpg, *.jpeg, *.png)")
        return cls(names, encoded)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image:
        """(112, 112, 3) uint8 BGR. Raises `InputError` where a file is no such image."""
        image = cv2.imdecode(np.frombuffer(self._encoded[index], np.uint8), cv2.IMREAD_COLOR)
        if image is None or image.shape != (SIZE, SIZE, 3):
            raise InputError(f"crop {self.names[index]}: not an image of {SIZE}×{SIZE} pixels; align the faces first")
        return _image(image)

    def digest(self) -> str:
        """SHA-256 over names and bytes, in hexadecimal."""
        sha = hashlib.sha256()
        for name, data in zip(self.names, self._encoded, strict=True):
            sha.update(name.encode() + b"\0" + len(data).to_bytes(8, "little") + data)
        return sha.hexdigest()

    def split(self, one_in: int) -> tuple[list[int], list[int]]:
        """(training, held out) indices: one identity in `one_in` is held out, chosen by a hash of its folder's name."""
        training: list[int] = []
        held_out: list[int] = []
        for index, name in enumerate(self.names):
            identity = name.rpartition("/")[0]
            bucket = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big") % one_in
            (held_out if bucket == 0 else training).append(index)
        return training, held_out


class EpochOrder:
    """Which crops make up which step: every crop once an epoch, shuffled anew, computed from the seed alone.

    A resumed run sees the very crops an uninterrupted one would have seen.
    """

    def __init__(self, indices: list[int], batch: int, seed: int) -> None:
        if not indices:
            raise InputError("no crops to train on")
        self._indices = np.asarray(indices)
        self._batch = batch
        self._seed = seed
        self._epoch = -1
        self._order = self._indices

    def step(self, step: int) -> list[int]:
        """The crops of step `step` (from 0)."""
        positions = range(step * self._batch, (step + 1) * self._batch)
        return [self._at(*divmod(position, len(self._indices))) for position in positions]

    def _at(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self._indices)
            self._epoch = epoch
        return int(self._order[place])


def augment(image: Image, rng: np.random.Generator, spoil: float = 1.0) -> Image:
    """A face as a camera might show it: (112, 112, 3) uint8 BGR → the same. Label and teacher see what comes out.

    `spoil` in [0, 1] is a factor on how often what is to be seen is taken away; where the face lies in the picture and
    its light vary as ever.
    """
    image = _move(image, rng)
    if rng.random() < 0.25 * spoil:
        image = _lower_resolution(image, rng)
    if rng.random() < 0.15 * spoil:
        image = _blur(image, rng)
    if rng.random() < 0.6:
        image = _light(image, rng)
    if rng.random() < 0.1 * spoil:
        image = _grey(image)
    if rng.random() < 0.15 * spoil:
        image = _occlude(image, rng)
    if rng.random() < 0.2 * spoil:
        image = _compress(image, rng)
    return image


def _move(image: Image, rng: np.random.Generator) -> Image:
    """Flip, turn, scale and shift in one warp: what a detector's landmarks are off by, and a little more."""
    strong = rng.random() < 0.3
    angle = rng.normal(0.0, 8.0 if strong else 3.0)
    scale = float(np.exp(rng.normal(0.0, 0.10 if strong else 0.03)))
    shift = rng.normal(0.0, 4.0 if strong else 1.5, 2)
    centre = (SIZE - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, scale)
    matrix[:, 2] += shift
    if rng.random() < 0.5:
        matrix[:, 2] += matrix[:, 0] * (SIZE - 1)
        matrix[:, 0] *= -1
    border = cv2.BORDER_CONSTANT if rng.random() < 0.5 else cv2.BORDER_REPLICATE
    return _image(cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=border))


def _lower_resolution(image: Image, rng: np.random.Generator) -> Image:
    side = int(rng.integers(24, 80))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return _image(cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR))


def _blur(image: Image, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        return _image(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, 2.0))))
    length = int(rng.integers(3, 9))
    kernel = np.zeros((length, length), np.float32)
    kernel[length // 2] = 1.0 / length
    turn = cv2.getRotationMatrix2D(((length - 1) / 2, (length - 1) / 2), float(rng.uniform(0, 180)), 1.0)
    kernel = cv2.warpAffine(kernel, turn, (length, length))
    return _image(cv2.filter2D(image, -1, kernel / max(float(kernel.sum()), 1e-6)))


def _light(image: Image, rng: np.random.Generator) -> Image:
    """Brightness, contrast, gamma and colour cast, as one table of 256 entries for each channel."""
    levels = np.linspace(0.0, 1.0, 256)[:, None] ** float(np.exp(rng.normal(0.0, 0.25)))
    gain = float(np.exp(rng.normal(0.0, 0.2))) * np.exp(rng.normal(0.0, 0.05, 3))
    table = (levels - 0.5) * gain + 0.5 + rng.normal(0.0, 0.08)
    lookup = np.clip(table * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return _image(cv2.LUT(image, lookup.reshape(1, 256, 3)))


def _grey(image: Image) -> Image:
    return _image(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR))


def _occlude(image: Image, rng: np.random.Generator) -> Image:
    height, width = (int(side) for side in rng.integers(12, 56, 2))
    top, left = int(rng.integers(0, SIZE - height)), int(rng.integers(0, SIZE - width))
    image = image.copy()
    image[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    return image


def _compress(image: Image, rng: np.random.Generator) -> Image:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 80))])
    return _image(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _image(pixels: Any) -> Image:
    """What OpenCV gives, under its real type: its stubs allow any number."""
    image: Image = pixels
    return image
