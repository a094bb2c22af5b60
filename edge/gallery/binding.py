"""What ties a gallery to one model: vectors of two models have nothing to say to each other."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from edge.bundle import Bundle
from edge.errors import ContractError, GalleryError
from edge.manifest import Variant


@dataclass(frozen=True, slots=True)
class Binding:
    """The embedder whose vectors a gallery holds.

    contract_digest: of the model contract; model_sha256: of the model file; model: its name in the bundle, for people;
    embedding_size: length of the vectors.
    """

    contract_digest: str
    model_sha256: str
    model: str
    embedding_size: int

    @classmethod
    def of(cls, variant: Variant) -> Binding:
        """Raises ContractError where the variant is no embedder."""
        if variant.contract.embedding_size is None:
            raise ContractError(f"{variant.name} is no embedder; a gallery holds embeddings")
        return cls(variant.contract.digest(), variant.sha256, variant.name, variant.contract.embedding_size)

    def same_model(self, other: Binding) -> bool:
        """Whether vectors of both may stand in one gallery."""
        return (self.contract_digest, self.model_sha256) == (other.contract_digest, other.model_sha256)

    def variant_in(self, bundle: Bundle) -> Variant | None:
        """The variant of `bundle` that made the vectors; None where it is of another model.

        Probes may come from any embedder of that bundle: its variants are one network at several precisions.
        """
        for variant in bundle.variants("embedder"):
            if self.same_model(Binding.of(variant)):
                return variant
        return None

    def to_json(self) -> str:
        """One line, read back by `from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Binding:
        """Raises GalleryError where the text is no binding."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise GalleryError(f"the gallery's binding to its model is damaged ({error})") from error
