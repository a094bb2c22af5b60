"""What the detector is fine-tuned on: windows of photos, and what it answers to them in float."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import is_zipfile

import cv2
import numpy as np
import torch
from torch import Tensor, fx
from tqdm import tqdm

from edge.detect.decode import decode
from edge.detect.nms import nms
from edge.errors import InputError
from edge.pictures import find_pictures, read_picture
from edge.types import Floats, Image
from training.detector.augment import draw
from training.detector.data import Picture, Pools, is_held_out, read_zip, unknown_landmarks
from training.detector.labels import with_faces
from training.detector.losses import Answers
from training.detector.network import OUTPUT_NAMES, EdgeDetector, load, save
from training.qat.equalise import equalise
from training.qat.folding import unfold
from training.qat.prepare import prepare, release

MIN_SCORE, MAX_IOU, MOST_FACES = 0.5, 0.45, 100
"""Of the faces that windows are placed around."""

LONG_SIDE = 640

MEASURED, BATCHES = 8, 8
"""Windows in a batch, and batches, that ranges are measured on."""

TRAINING, MEASURING, JUDGING = range(3)
"""Streams of random numbers."""


class DetectorTask:
    """Student and teacher of one detector, and the windows they look at.

    pictures: photos to learn from; judges: photos that only judge. The student is equalised before anything is rounded.
    """

    def __init__(self, weights: Path, pictures: Sequence[Image], judges: Sequence[Image], size: int, seed: int) -> None:
        self.teacher = load(weights)
        self._pools, self._judges = (_pools(self.teacher, part) for part in (pictures, judges))
        self._size, self._seed = size, seed
        self.network = copy.deepcopy(self.teacher)
        equalise(self.network, self.measuring())
        self.prepared: fx.GraphModule = prepare(self.network, "predictions")

    def batch(self, step: int, count: int) -> Tensor:
        """(count, 3, S, S) float32 pixels of training step `step`."""
        return self._windows(self._pools, (TRAINING, step), count)

    def measuring(self) -> Iterator[Tensor]:
        """Batches that ranges are measured on."""
        return (self._windows(self._pools, (MEASURING, i), MEASURED) for i in range(BATCHES))

    def judging(self) -> Iterator[Tensor]:
        """Batches of photos that nothing is learned from."""
        return (self._windows(self._judges, (JUDGING, i), MEASURED) for i in range(BATCHES))

    def loss(self, pixels: Tensor) -> Tensor:
        """How far the rounded student's answers are from the teacher's, in shares of these."""
        with torch.no_grad():
            taught = Answers.of_levels(self.teacher.predictions(pixels))
        return answer_error(Answers.of_levels(self.prepared(pixels)), taught)

    def save(self, path: Path, steps: int) -> None:
        """Writes the student as `edge train detector` writes a detector. The task is over then."""
        release(self.prepared)
        fresh = EdgeDetector()
        unfold(self.network, fresh)
        save(fresh.eval(), path, steps=steps, seed=self._seed)

    def _windows(self, pools: Pools, key: tuple[int, int], count: int) -> Tensor:
        rng = np.random.default_rng([self._seed, *key])
        images = np.stack([draw(rng, pools, self._size).image for _ in range(count)])
        pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
        return pixels.contiguous(memory_format=torch.channels_last)


def answer_error(own: Answers, taught: Answers) -> Tensor:
    """Square error of cls, obj (logits), bbox and kps, each in shares of the teacher's mean square, summed.

    A cell weighs as the teacher's score there: what is said of a face where there is none is not read. Squares alone,
    for they end at zero gently: rounding leaves no gradient that is exact.
    """
    weight = (taught.cls.sigmoid() * taught.obj.sigmoid()).sqrt() + 0.02

    def error(one: Tensor, other: Tensor) -> Tensor:
        share = weight if one.ndim == 2 else weight.unsqueeze(-1)
        return ((one - other).square() * share).mean() / (other.square() * share).mean().clamp(min=1e-6)

    parts = [error(getattr(own, name), getattr(taught, name)) for name in ("cls", "obj", "bbox", "kps")]
    return torch.stack(parts).sum()


def read_photos(sources: Sequence[Path], hold_out: int) -> tuple[list[Image], list[Image]]:
    """Photos of folders and zip archives: to learn from, and one in `hold_out`, by its name, to judge.

    Raises InputError where there are too few of either.
    """
    learn, judge = list[Image](), list[Image]()
    for source in sources:
        for name, image in _photos(source):
            (judge if is_held_out(name, hold_out) else learn).append(image)
    if not learn or not judge:
        raise InputError(f"{len(learn)} photos to learn from, {len(judge)} to judge: too few; name more --pictures")
    return learn, judge


def _photos(source: Path) -> Iterator[tuple[str, Image]]:
    if is_zipfile(source):
        for number, picture in enumerate(read_zip(source)):
            yield f"{source.name}/{number}", picture.image
        return
    for path in find_pictures([source]):
        yield path.name, read_picture(path)


def _pools(detector: EdgeDetector, photos: Sequence[Image]) -> Pools:
    """The photos with the faces that the detector itself finds in them."""
    pictures = [Picture(photo, boxes, unknown_landmarks(len(boxes))) for photo, boxes in _found(detector, photos)]
    faces = with_faces(pictures)
    if not faces:
        raise InputError(f"no face was found in {len(pictures)} photos; are these photos of faces?")
    return Pools(scenes=pictures, portraits=faces, crops=[], held_out=[])


@torch.no_grad()
def _found(detector: EdgeDetector, photos: Sequence[Image]) -> Iterator[tuple[Image, Floats]]:
    for photo in tqdm(photos, desc="faces", unit="photo", disable=None, leave=False):
        scale = min(1.0, LONG_SIDE / max(photo.shape[:2]))
        seen = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else photo
        height, width = (-(-side // 32) * 32 for side in seen.shape[:2])
        canvas = np.zeros((1, 3, height, width), np.float32)
        canvas[0, :, : seen.shape[0], : seen.shape[1]] = seen.transpose(2, 0, 1)
        answers = detector(torch.from_numpy(canvas).contiguous(memory_format=torch.channels_last))
        outputs = {name: value.numpy() for name, value in zip(OUTPUT_NAMES, answers, strict=True)}
        found = decode(outputs, 0, height, width, MIN_SCORE)
        kept = nms(found.boxes, found.scores, MAX_IOU, MOST_FACES)
        yield photo, (found.boxes[kept] / np.float32(scale)).astype(np.float32)
