"""Whether a model on a server is the one of the bundle: its digest, its contract, and what it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge.engines.base import TensorSpec, shape_text
from edge.errors import EngineError

MODELS = ("arcedge_embedder", "arcedge_detector", "arcedge_landmarker")
"""What `edge triton` calls them."""

SHA256, CONTRACT, VERSION, VARIANT = (
    f"arcedge.{name}" for name in ("sha256", "contract_sha256", "model_version", "variant")
)
"""Parameters of a model's configuration, which `edge triton` writes."""

_DTYPES = {"UINT8": "uint8", "INT8": "int8", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32"}


@dataclass(frozen=True, slots=True)
class Served:
    """A model of a server, found to be the bundle's. most: rows a request may have; 0: the server adds no batching."""

    name: str
    version: str
    variant: str
    most: int


def parameters_of(config: Any) -> dict[str, str]:
    """The string parameters of a `ModelConfig`."""
    return {key: str(value.string_value) for key, value in config.parameters.items()}


def find_served(configs: Mapping[str, Any], sha256: str, contract: str | None, where: str) -> Served:
    """The model of these bytes among a server's. contract: digest it must state; None to ask for none.

    Raises EngineError, in one line that says what the server has instead.
    """
    stated = {name: parameters_of(config) for name, config in configs.items()}
    name = next((name for name, values in stated.items() if values.get(SHA256) == sha256), None)
    if name is None:
        there = ", ".join(f"{values.get(VARIANT, '?')} in {name}" for name, values in stated.items())
        raise EngineError(
            f"{where}: serves no model of this bundle ({there or 'none called ' + ' or '.join(MODELS)}); take the "
            "--precision it serves, or serve this bundle: edge triton"
        )
    values = stated[name]
    if not values.get(VERSION):
        raise EngineError(f"{where}: {name} was written by an older edge triton; write the repository again")
    if contract is not None and values.get(CONTRACT) != contract:
        raise EngineError(
            f"{where}: {name} states another model contract than the bundle; write the repository again: edge triton"
        )
    return Served(name, values[VERSION], values.get(VARIANT, ""), int(configs[name].max_batch_size))


def require_same(metadata: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], where: str) -> None:
    """Raises EngineError unless the server's model takes and gives what the bundle's does.

    metadata: Triton's `ModelMetadataResponse`, whose shapes have the batch first.
    """
    for kind, wanted, found in (("input", inputs, metadata.inputs), ("output", outputs, metadata.outputs)):
        there = {tensor.name: _spec(tensor) for tensor in found}
        names = {spec.name for spec in wanted}
        if there.keys() != names:
            have, want = (", ".join(sorted(some)) or "none" for some in (there, names))
            raise EngineError(f"{where}: its {kind}s are {have}, the bundle's {want}")
        for spec in wanted:
            served = there[spec.name]
            # The batch is the server's affair: its configuration limits it.
            if (served.dtype, served.shape[1:]) != (spec.dtype, spec.shape[1:]):
                raise EngineError(f"{where}: {kind} {spec.name} is {_words(served)}, the bundle's {_words(spec)}")


def _spec(tensor: Any) -> TensorSpec:
    shape = tuple(int(size) if size >= 0 else None for size in tensor.shape)
    return TensorSpec(tensor.name, _DTYPES.get(tensor.datatype, tensor.datatype), shape)


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype} {shape_text(spec.shape)}"
