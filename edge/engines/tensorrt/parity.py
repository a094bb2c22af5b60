"""A new engine is held against ONNX Runtime on the same pictures before anybody may use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np

from edge.engines.base import Array, Session, TensorSpec
from edge.errors import DivergenceError, EngineError

LEAST_COSINE = {"fp32": 0.9999, "fp16": 0.999, "int8": 0.98}
"""Least mean cosine of each output to ONNX Runtime's on the same file, by precision."""

MADE_UP = 8


@dataclass(frozen=True, slots=True)
class Parity:
    """Cosine of an engine's outputs to ONNX Runtime's: of the worst output the mean and the worst picture's.

    count: pictures. batches: how many of them ran at once, the largest of each of the engine's ranges among them.
    """

    output: str
    mean: float
    worst: float
    count: int
    on: str
    batches: tuple[int, ...] = (1,)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "batches": list(self.batches)}


def compare(
    session: Session, reference: Session, probes: Mapping[str, Array], on: str, batches: Sequence[int]
) -> Parity:
    """Runs both on the same pictures: one at a time, and as many at once as each of the engine's ranges takes.

    batches: the largest of each range, where pictures are repeated until it is full: each has kernels of its own. After
    each of them the first picture runs alone once more: TensorRT 8.5.3 gave something else on the way back from one
    range to another (NVIDIA/TensorRT#2648).

    Raises DivergenceError for what is not finite or of another shape, EngineError where one of them does not run.
    """
    count = len(next(iter(probes.values())))
    one_by_one = [{name: array[i : i + 1] for name, array in probes.items()} for i in range(count)]
    wanted = [reference.run(batch) for batch in one_by_one]
    found = [session.run(batch) for batch in one_by_one]
    judged = [_compare_output(spec.name, found, wanted, on) for spec in session.outputs]
    together = [batch for batch in batches if batch > 1] if session.inputs[0].shape[0] is None else []
    for batch in together:
        places = np.arange(-(-count // batch) * batch) % count
        split = []
        for start in range(0, len(places), batch):
            answers = session.run({name: array[places[start : start + batch]] for name, array in probes.items()})
            split += [{name: array[i : i + 1] for name, array in answers.items()} for i in range(batch)]
        again, repeated = session.run(one_by_one[0]), [wanted[place] for place in places]
        for spec in session.outputs:
            judged += [
                _compare_output(spec.name, split, repeated, on),
                _compare_output(spec.name, [again], wanted[:1], on),
            ]
    return replace(min(judged, key=lambda parity: parity.mean), count=count, batches=(1, *together))


def require_parity(parity: Parity, precision: str) -> None:
    """Raises DivergenceError where an engine gives something else than its model."""
    least = LEAST_COSINE[precision]
    if not parity.mean >= least:
        raise DivergenceError(
            f"the {precision} engine gives something else than its model: output {parity.output} has a mean cosine of "
            f"{parity.mean:.5f} to ONNX Runtime over {parity.count} {parity.on}, at least {least} is needed; "
            "no engine was kept, use another precision"
        )


def made_up_pictures(inputs: Sequence[TensorSpec], side: int) -> dict[str, Array]:
    """Smooth pictures for every input, the same each time; `side` pixels where the model takes any."""
    rng = np.random.default_rng(2015)
    pictures = {}
    for spec in inputs:
        shape = [side if size is None else size for size in spec.shape[1:]]
        channels_last = len(shape) == 3 and shape[2] == 3
        if spec.shape[0] not in (None, 1) or len(shape) != 3 or not (channels_last or shape[0] == 3):
            raise EngineError(f"input {spec.name} {spec.shape} takes no pictures one by one; export the model again")
        height, width = shape[:2] if channels_last else shape[1:]
        images = []
        for _ in range(MADE_UP):
            coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3)).astype(np.uint8)
            images.append(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
        stacked = np.stack(images) if channels_last else np.stack(images).transpose(0, 3, 1, 2)
        pictures[spec.name] = np.ascontiguousarray(stacked).astype(spec.dtype)
    return pictures


def _compare_output(name: str, found: list[dict[str, Array]], wanted: list[dict[str, Array]], on: str) -> Parity:
    cosines = []
    for mine, theirs in zip(found, wanted, strict=True):
        a, b = (side[name].astype(np.float64).reshape(-1) for side in (mine, theirs))
        if a.shape != b.shape or not np.isfinite(a).all():
            raise DivergenceError(f"the engine's output {name} is not finite or of another shape; no engine was kept")
        lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosines.append(float(a @ b) / lengths if lengths > 0 else float(np.array_equal(a, b)))
    return Parity(name, float(np.mean(cosines)), float(np.min(cosines)), len(cosines), on)
