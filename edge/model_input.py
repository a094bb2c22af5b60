"""Pictures as a model takes them."""

from __future__ import annotations

import numpy as np

from edge.contract import ModelContract
from edge.engines import Array
from edge.types import Image


def to_model(images: Image, contract: ModelContract) -> Array:
    """(N, H, W, 3) uint8 BGR → the tensor the contract asks for. Free for the models of a bundle."""
    batch: Array = images if contract.color == "bgr" else images[..., ::-1]
    if contract.dtype == "float32":
        batch = (batch - np.array(contract.mean, np.float32)) / np.array(contract.std, np.float32)
    if contract.layout == "nchw":
        batch = batch.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(batch)
