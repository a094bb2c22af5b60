"""The embedder: aligned crops in, unit vectors out."""

from __future__ import annotations

import numpy as np

from edge.contract import ModelContract
from edge.engines import Array, Session
from edge.errors import ContractError, EngineError
from edge.model_input import run_in_parts, to_model
from edge.types import Floats, Image


class Embedder:
    """Embeds faces with any model whose contract says "embedder"."""

    def __init__(self, session: Session, contract: ModelContract) -> None:
        if contract.role != "embedder" or contract.size is None or contract.embedding_size is None:
            raise ContractError(f"an embedder is needed; this model is of role {contract.role}")
        self._session = session
        self.contract = contract
        self.embedding_size = contract.embedding_size

    def embed(self, crops: Image) -> Floats:
        """(N, 112, 112, 3) uint8 BGR aligned crops → (N, embedding_size) float32, rows of unit length.

        Raises ContractError for crops of another size, EngineError where the model gives what is no embedding.
        """
        size = self.contract.size
        if crops.ndim != 4 or crops.shape[1:] != (*(size or ()), 3) or crops.dtype != np.uint8:
            raise ContractError(
                f"the embedder takes (N, {size}, 3) uint8 crops; it was given {crops.shape} {crops.dtype}"
            )
        if len(crops) == 0:
            return np.zeros((0, self.embedding_size), np.float32)
        answers = run_in_parts(self._session, to_model(crops, self.contract))
        return self.checked(answers.reshape(len(crops), -1))

    def checked(self, answers: Array) -> Floats:
        """What the model gave, (N, anything) → (N, embedding_size) float32 unit rows. Raises EngineError as `embed`."""
        vectors = answers.astype(np.float32, copy=False)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        if vectors.shape[1] != self.embedding_size or not np.isfinite(length).all() or (length < 1e-6).any():
            raise EngineError(
                f"the embedder gave {vectors.shape} with lengths from {length.min():.3g} to {length.max():.3g}; "
                "the model is damaged or its contract wrong"
            )
        return vectors if self.contract.normalised else vectors / length
