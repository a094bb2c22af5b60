"""Pictures as a model takes them, and as many at once."""

from __future__ import annotations

import numpy as np

from edge.contract import ModelContract
from edge.engines import Array, Session
from edge.types import Image


def to_model(images: Image, contract: ModelContract) -> Array:
    """(N, H, W, 3) uint8 BGR → the tensor the contract asks for. Free for the models of a bundle."""
    batch: Array = images if contract.color == "bgr" else images[..., ::-1]
    if contract.dtype == "float32":
        batch = (batch - np.array(contract.mean, np.float32)) / np.array(contract.std, np.float32)
    if contract.layout == "nchw":
        batch = batch.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(batch)


def run_in_parts(session: Session, batch: Array) -> Array:
    """The first output for a batch (N, …) of the first input, N ≥ 1: (N, …). Raises EngineError as `Session.run` does.

    A model exported with a batch of one is run picture by picture, a compiled one as many at once as it was built for.
    """
    fed, given = session.inputs[0], session.outputs[0].name
    step = fed.shape[0] or session.largest_batch or len(batch)
    return np.concatenate([session.run({fed.name: batch[i : i + step]})[given] for i in range(0, len(batch), step)])
