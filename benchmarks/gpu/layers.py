"""What TensorRT's inspector says of an engine's layers: whether the quantised ones really run in INT8.

It says it in a text, JSON, for each range of shapes, with the ranges' shapes set: of an engine alone whose shapes vary
it tells no formats. A layer that is in several texts counts by those that tell its types.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.provenance import NOT_MEASURED
from edge.engines.tensorrt.onnx_file import OnnxFile

_TYPES = (("int8", "int8"), ("fp16", "fp16"), ("half", "fp16"), ("bf16", "bf16"), ("fp32", "fp32"), ("float", "fp32"))
"""What is found in "Thirty-two wide channel vectorized row major Int8 format", which every version words otherwise."""

_PROFILE = re.compile(r"\s*\[profile (\d+)\]$")
_METADATA = re.compile(r"\[ONNX Layer: (.+?)\]")
_PARTS = re.compile(r" \+ |\|\||, |[{}()\[\]]|\.\.\.")


UNTOLD = "?"
"""Of a layer whose types nobody tells: "N/A due to dynamic shapes"."""


def layers_by_precision(texts: Sequence[str]) -> dict[str, int] | str:
    """How many layers take tensors of which type, from the engine inspector's JSON."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for layer in _layers(texts):
        kind = _taken(layer)
        kinds[str(layer.get("Name", ""))].add(kind if kind != UNTOLD else _kinds(layer, "Outputs") or UNTOLD)
    found = Counter(kind for each in kinds.values() for kind in (each - {UNTOLD} or each))
    return dict(found) or NOT_MEASURED


def int8_proof(texts: Sequence[str], model: bytes, in_float: list[str]) -> dict[str, Any] | str:
    """Of a model's quantised layers: how many an engine runs in INT8, and which it does not.

    texts: the inspector's JSON. in_float: layers whose Q/DQ had to come off, which count as not running in INT8. A
    layer is in INT8 where what names it takes an INT8 tensor, in every profile of the engine that names it. untold:
    those of which it does not say what they take.
    """
    quantised = [node.name or node.outputs[0] for node in OnnxFile(model).quantised_layers()]
    seen: dict[str, set[str]] = defaultdict(set)
    for layer in _layers(texts):
        for name in _names(layer):
            seen[name].add(_taken(layer))
    if not quantised or not seen:
        return NOT_MEASURED
    astray, untold = {}, []
    for name in quantised:
        told = seen.get(name, set()) - {UNTOLD}
        if name in in_float:
            astray[name] = "back in float"
        elif name not in seen:
            astray[name] = "not named by the inspector"
        elif not told:
            untold.append(name)
        elif not all("int8" in kind.split("+") for kind in told):
            astray[name] = "another type"
    proved = len(quantised) - len(astray) - len(untold)
    return {"quantised": len(quantised), "in_int8": proved, "astray": astray, "untold": untold}


def _taken(layer: dict[str, Any]) -> str:
    """Types of a layer's inputs; of its weights where nobody tells those."""
    inputs, weights = _kinds(layer, "Inputs"), layer.get("Weights")
    if inputs in ("", UNTOLD) and isinstance(weights, dict):
        return _kind(str(weights.get("Type", "")))
    return inputs or UNTOLD


def _layers(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    for text in texts:
        try:
            layers = json.loads(text)["Layers"]
        except (ValueError, KeyError, TypeError):
            continue
        # Below detailed verbosity a layer is its name alone, which says nothing of types.
        yield from (layer for layer in layers if isinstance(layer, dict))


def _kinds(layer: dict[str, Any], side: str) -> str:
    """Types of a layer's inputs or outputs: "int8", "fp16+int8"; empty where it has none."""
    return "+".join(sorted({_kind(str(tensor.get("Format/Datatype", ""))) for tensor in layer.get(side) or ()}))


def _kind(said: str) -> str:
    return next((kind for word, kind in _TYPES if word in said.lower()), UNTOLD)


def _names(layer: dict[str, Any]) -> set[str]:
    """Nodes of the model in a layer: of its name, and where the version says so of its metadata."""
    name = _PROFILE.sub("", str(layer.get("Name", "")))
    return {part.strip() for part in _PARTS.split(name)} | set(_METADATA.findall(str(layer.get("Metadata", ""))))
