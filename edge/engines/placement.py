"""Which execution provider each node of a model really ran on, read from ONNX Runtime's own profile of a run.

The providers a session lists are those it may use: one that takes no node at all is listed just the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import EngineError

SHAPE_ELEMENTS = 64
"""Whole numbers that a node may give and still count as arithmetic on shapes; pictures have thousands."""

_WHOLE = frozenset({"int64", "int32", "bool"})
_NAMED = 3


@dataclass(frozen=True, slots=True)
class PlacedNode:
    """A node that ran. provider: "CUDA", "CPU", …; on_shapes: whether it gives a few whole numbers and nothing else."""

    operator: str
    provider: str
    on_shapes: bool


def read_profile(file: Path) -> tuple[PlacedNode, ...]:
    """The nodes of a profile that a session wrote. Raises EngineError where it holds none."""
    try:
        events = json.loads(file.read_text(encoding="utf-8"))
        nodes = tuple(_node(event) for event in events if event.get("cat") == "Node" and "provider" in event["args"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"ONNX Runtime does not say where the model runs ({error}); use another version") from error
    if not nodes:
        raise EngineError("ONNX Runtime does not say where the model runs; use another version of it")
    return nodes


def require_placed(nodes: Sequence[PlacedNode], provider: str) -> None:
    """Raises EngineError, in one line, unless all ran on `provider` but arithmetic on shapes, which the CPU may do.

    ONNX Runtime puts that on the CPU by design: a GPU would have to send each size back before memory can be had.
    """
    astray = [node for node in nodes if node.provider != provider and not (node.on_shapes and node.provider == "CPU")]
    if not astray:
        return
    kinds = Counter(node.operator for node in astray)
    named = ", ".join(f"{count} {operator}" for operator, count in kinds.most_common(_NAMED))
    more = ", …" if len(kinds) > _NAMED else ""
    where = ", ".join(dict.fromkeys(node.provider for node in astray))
    raise EngineError(
        f"ONNX Runtime put {len(astray)} of {len(nodes)} nodes on {where} instead of {provider} ({named}{more}); "
        f"take another --precision, or --engine onnxruntime to run on the CPU"
    )


def described(nodes: Sequence[PlacedNode]) -> str:
    """ "CUDA 61 nodes, CPU 4 nodes", the most first."""
    counts = Counter(node.provider for node in nodes)
    return ", ".join(f"{provider} {count} nodes" for provider, count in counts.most_common())


def _node(event: dict[str, Any]) -> PlacedNode:
    args = event["args"]
    outputs = [(kind, shape) for output in args.get("output_type_shape", ()) for kind, shape in output.items()]
    small = bool(outputs) and all(kind in _WHOLE and _elements(shape) <= SHAPE_ELEMENTS for kind, shape in outputs)
    provider = str(args["provider"]).removesuffix("ExecutionProvider")
    return PlacedNode(str(args.get("op_name", "")), _short(provider), small)


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _short(provider: str) -> str:
    return {"Tensorrt": "TensorRT"}.get(provider, provider)
