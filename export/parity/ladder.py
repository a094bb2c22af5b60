"""The rungs of one model, each compared with the one it stands on, and the tensor at fault in the first that breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto

from edge.contract import ModelContract
from edge.detect import Detector
from edge.engines import open_session
from edge.errors import EdgeError
from edge.model_input import to_model
from edge.types import Floats, Image
from export.agreement import compare_detections, compare_embeddings
from export.graph import Array
from export.parity.bounds import MAX_LAYER_ERROR, least_agreement, least_cosine
from export.parity.locate import TensorError, first_beyond, layer_errors, shared_tensors, values_of

LOCATE_ON = 4
"""Pictures the layers are compared on."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A form of a model on an engine.

    name: as printed; on: the rung it is compared with, None for the first. precision: of its arithmetic; engine: its
    name in edge.engines. model: the graph; None for torch, where `outputs` and `values` take its place.
    """

    name: str
    on: str | None
    precision: str
    engine: str
    model: ModelProto | None
    outputs: Callable[[Image], Floats] | None = None
    values: Callable[[Image], dict[str, Array]] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rung came to. figure: mean cosine, or agreement (detector), with the rung it stands on.

    least: smallest cosine, None for a detector. max_error: largest absolute difference of an output. bound: of
    `figure`. problem: why the rung could not be run. tensor: the first whose layer is beyond `tensor_bound`, None
    where none is; tensors: the layers that are off most, by their own fault.
    """

    role: str
    rung: str
    on: str
    figure: float
    least: float | None
    max_error: float
    bound: float
    problem: str | None = None
    tensor: str | None = None
    tensor_bound: float | None = None
    tensors: tuple[TensorError, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the rung is within its bounds: a wrong layer may hide in a network that makes up for it."""
        return self.problem is None and self.figure >= self.bound and self.tensor is None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        values = {**asdict(self), "holds": self.holds}
        return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in values.items()}


def climb(rungs: Sequence[Rung], contract: ModelContract, pictures: Sequence[Image]) -> Iterator[Verdict]:
    """A verdict a rung, in order, the first rung apart: it is what the others are compared with.

    pictures: (H, W, 3) uint8 BGR, of one size; aligned crops for an embedder.
    """
    by_name = {rung.name: rung for rung in rungs}
    given: dict[str, Any] = {}
    for rung in rungs:
        try:
            given[rung.name] = _outputs(rung, contract, pictures)
        except EdgeError as error:
            bound = _bound(contract.role, rung.precision)
            yield Verdict(contract.role, rung.name, rung.on or "", 0.0, None, float("nan"), bound, problem=str(error))
            continue
        if rung.on is None or rung.on not in given:
            continue
        verdict = _compare(contract.role, rung, given[rung.name], given[rung.on])
        yield _located(verdict, rung, by_name[rung.on], np.stack(pictures[:LOCATE_ON]))


def _outputs(rung: Rung, contract: ModelContract, pictures: Sequence[Image]) -> Any:
    if rung.outputs is not None:
        return rung.outputs(np.stack(pictures))
    assert rung.model is not None
    with open_session(rung.model.SerializeToString(), rung.engine) as session:
        name = session.inputs[0].name
        if contract.role == "detector":
            detector = Detector(session, contract)
            raw = [session.run({name: picture[None]}) for picture in pictures]
            return raw, [detector.detect(picture) for picture in pictures]
        batches = [to_model(np.stack(pictures[i : i + 16]), contract) for i in range(0, len(pictures), 16)]
        return np.concatenate([next(iter(session.run({name: batch}).values())) for batch in batches])


def _compare(role: str, rung: Rung, given: Any, wanted: Any) -> Verdict:
    bound, on = _bound(role, rung.precision), rung.on or ""
    if role == "detector":
        (raw, faces), (wanted_raw, wanted_faces) = given, wanted
        error = max(
            float(np.abs(one[key].astype(np.float64) - other[key]).max())
            for one, other in zip(raw, wanted_raw, strict=True)
            for key in other
        )
        return Verdict(role, rung.name, on, compare_detections(faces, wanted_faces).figure, None, error, bound)
    rows = np.where(np.isfinite(given), given, 0).astype(np.float32)
    agreement = compare_embeddings(rows, wanted, "")
    error = float(np.abs(rows.astype(np.float64) - wanted).max())
    return Verdict(role, rung.name, on, agreement.mean_cosine, agreement.min_cosine, error, bound)


def _located(verdict: Verdict, rung: Rung, below: Rung, pixels: Image) -> Verdict:
    """The verdict with each layer's own error."""
    if rung.model is None:
        return verdict
    if below.model is None:
        original = below.values(pixels) if below.values is not None else {}
    else:
        original = values_of(below.model, shared_tensors(below.model, rung.model), pixels, below.engine)
    try:
        errors = layer_errors(rung.model, original, pixels, rung.engine)
    except EdgeError as error:
        return replace(verdict, problem=f"the engine does not run the model cut into layers: {error}")
    bound = MAX_LAYER_ERROR[rung.precision]
    first = first_beyond(errors, bound)
    worst = tuple(sorted(errors, key=lambda entry: -entry.error)[:5])
    return replace(verdict, tensor=None if first is None else first.tensor, tensor_bound=bound, tensors=worst)


def _bound(role: str, precision: str) -> float:
    return least_agreement(precision) if role == "detector" else least_cosine(precision)
