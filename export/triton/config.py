"""`config.pbtxt`: what Triton must know of a model, in the text form of its own schema (model_config.proto)."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edge.engines import TensorSpec
from edge.engines.triton.agreement import CONTRACT, SHA256, VARIANT, VERSION
from edge.errors import ContractError, GateError
from edge.manifest import Variant
from export.triton.options import TritonOptions

TYPES = {"uint8": "TYPE_UINT8", "int8": "TYPE_INT8", "float16": "TYPE_FP16", "float32": "TYPE_FP32"}

SCHEMA = "grpc/model_config_pb2.py"
"""In the package `tritonclient`, whose version is the server's."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the configuration is of: the model's name in the repository, its version there, and the variant."""

    name: str
    version: int
    variant: Variant


def config_text(
    model: Identity, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], options: TritonOptions
) -> str:
    """The configuration of one model. inputs, outputs: as ONNX Runtime states them, the batch first.

    Raises ContractError for a model whose batch is fixed while batching is asked for.
    """
    if options.max_batch > 1 and any(spec.shape[0] is not None for spec in (*inputs, *outputs)):
        raise ContractError(
            f"{model.variant.name}: takes a batch of {inputs[0].shape[0]} alone; use a largest batch of 1"
        )
    kind = "KIND_GPU" if options.device == "gpu" else "KIND_CPU"
    lines = [
        f"name: {_quoted(model.name)}",
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {options.max_batch}",
        *(_tensor("input", spec) for spec in inputs),
        *(_tensor("output", spec) for spec in outputs),
        f"instance_group [ {{ count: {options.instances} kind: {kind} }} ]",
    ]
    if options.max_batch > 1:
        sizes = ", ".join(str(size) for size in options.preferred)
        delay = f"max_queue_delay_microseconds: {options.max_delay}"
        lines.append(f"dynamic_batching {{ preferred_batch_size: [ {sizes} ] {delay} }}")
    lines.append("version_policy { latest { num_versions: 1 } }")
    lines += [_parameter(key, value) for key, value in _parameters(model, options).items()]
    return "\n".join(lines) + "\n"


def schema() -> ModuleType | None:
    """Triton's generated schema; None where its client package is not installed.

    The file is loaded by itself: the package around it would import gRPC, which nothing here talks.
    """
    package = importlib.util.find_spec("tritonclient")
    if package is None or not package.submodule_search_locations:
        return None
    file = Path(package.submodule_search_locations[0]) / SCHEMA
    spec = importlib.util.spec_from_file_location("arcedge_triton_model_config", file)
    if not file.is_file() or spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def require_valid(text: str, module: ModuleType) -> Any:
    """The configuration as Triton's schema reads it. Raises GateError where it does not."""
    from google.protobuf import text_format  # type: ignore[import-untyped]

    try:
        return text_format.Parse(text, module.ModelConfig())
    except text_format.ParseError as error:
        raise GateError(f"config.pbtxt does not fit Triton's schema ({error}); nothing was written") from error


def _parameters(model: Identity, options: TritonOptions) -> dict[str, str]:
    """What Triton's ONNX Runtime backend takes, and what a client of ours needs."""
    variant = model.variant
    values = {
        "arcedge.contract": json.dumps(variant.contract.to_dict(), sort_keys=True),
        CONTRACT: variant.contract.digest(),
        SHA256: variant.sha256,
        VARIANT: variant.name,
        VERSION: str(model.version),
    }
    if variant.threshold is not None:
        values["arcedge.threshold"] = f"{variant.threshold.similarity:.6f} at FAR {variant.threshold.far:g}"
    if variant.detection_score is not None:
        values["arcedge.detection_score"] = f"{variant.detection_score.score:g}"
    if options.device == "cpu":
        # One thread an instance: instances are what shares the cores.
        values |= {"intra_op_thread_count": "1", "inter_op_thread_count": "1"}
    return values


def _tensor(field: str, spec: TensorSpec) -> str:
    if spec.dtype not in TYPES:
        raise ContractError(f"tensor {spec.name} is {spec.dtype}, which the repository does not use")
    dims = ", ".join(str(-1 if size is None else size) for size in spec.shape[1:])
    return f"{field} [ {{ name: {_quoted(spec.name)} data_type: {TYPES[spec.dtype]} dims: [ {dims} ] }} ]"


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"


def _quoted(text: str) -> str:
    """A string of the text format: JSON's escapes are a part of its own."""
    return json.dumps(text)
