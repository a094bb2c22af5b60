"""What TensorRT's inspector says of an engine's layers: whether the quantised ones really run in INT8."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from benchmarks.provenance import NOT_MEASURED
from edge.engines.tensorrt.onnx_file import OnnxFile

_TYPES = (("int8", "int8"), ("fp16", "fp16"), ("half", "fp16"), ("bf16", "bf16"), ("fp32", "fp32"), ("float", "fp32"))
"""What is found in "Thirty-two wide channel vectorized row major Int8 format", which every version words otherwise."""

_PROFILE = re.compile(r"\s*\[profile (\d+)\]$")
_METADATA = re.compile(r"\[ONNX Layer: (.+?)\]")
_PARTS = re.compile(r" \+ |\|\||, |[{}()\[\]]|\.\.\.")


def layers_by_precision(text: str) -> dict[str, int] | str:
    """How many layers take tensors of which type, from the engine inspector's JSON."""
    found = Counter(_kinds(layer, "Inputs") or _kinds(layer, "Outputs") or "?" for layer in _layers(text))
    return dict(found) or NOT_MEASURED


def int8_proof(text: str, model: bytes, in_float: list[str]) -> dict[str, Any] | str:
    """Of a model's quantised layers: how many an engine runs in INT8, and which it does not.

    text: the inspector's JSON. in_float: layers whose Q/DQ had to come off, which count as not running in INT8. A layer
    is in INT8 where what names it takes an INT8 tensor, in every profile of the engine that names it.
    """
    quantised = [node.name or node.outputs[0] for node in OnnxFile(model).quantised_layers()]
    seen: dict[str, list[bool]] = defaultdict(list)
    for layer in _layers(text):
        for name in _names(layer):
            seen[name].append("int8" in _kinds(layer, "Inputs").split("+"))
    if not quantised or not seen:
        return NOT_MEASURED
    astray = {
        name: "back in float"
        if name in in_float
        else "another type"
        if seen.get(name)
        else "not named by the inspector"
        for name in quantised
        if name in in_float or not seen.get(name) or not all(seen[name])
    }
    return {"quantised": len(quantised), "in_int8": len(quantised) - len(astray), "astray": astray}


def _layers(text: str) -> Iterator[dict[str, Any]]:
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return
    # Below detailed verbosity a layer is its name alone, which says nothing of types.
    yield from (layer for layer in layers if isinstance(layer, dict))


def _kinds(layer: dict[str, Any], side: str) -> str:
    """Types of a layer's inputs or outputs: "int8", "fp16+int8"; empty where it has none."""
    found = set()
    for tensor in layer.get(side) or ():
        said = str(tensor.get("Format/Datatype", "")).lower()
        found.add(next((kind for word, kind in _TYPES if word in said), "?"))
    return "+".join(sorted(found))


def _names(layer: dict[str, Any]) -> set[str]:
    """Nodes of the model in a layer: of its name, and where the version says so of its metadata."""
    name = _PROFILE.sub("", str(layer.get("Name", "")))
    return {part.strip() for part in _PARTS.split(name)} | set(_METADATA.findall(str(layer.get("Metadata", ""))))
