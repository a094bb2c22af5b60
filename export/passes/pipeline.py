"""Runs passes one after the other and remembers what each changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from onnx import ModelProto

Pass = Callable[[ModelProto], ModelProto]


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What one pass did to one graph: nodes and bytes before and after, operators gained and lost."""

    name: str
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    operators: dict[str, int]

    def __str__(self) -> str:
        changed = ", ".join(f"{kind} {count:+d}" for kind, count in self.operators.items()) or "no operator changed"
        size = f"{self.bytes_before:>9,} → {self.bytes_after:<9,} bytes"
        return f"{self.name:<22} {self.nodes_before:>4} → {self.nodes_after:<4} nodes  {size}  {changed}"


@dataclass(slots=True)
class Passes:
    """A log of passes; `run` applies one and records it."""

    records: list[PassRecord] = field(default_factory=list)

    def run(self, name: str, step: Pass, model: ModelProto) -> ModelProto:
        """The model after `step`, with the change on record."""
        after = step(model)
        gained, lost = _operators(after), _operators(model)
        difference = {kind: gained[kind] - lost[kind] for kind in sorted(gained | lost) if gained[kind] != lost[kind]}
        self.records.append(
            PassRecord(
                name, len(model.graph.node), len(after.graph.node), model.ByteSize(), after.ByteSize(), difference
            )
        )
        return after

    def explain(self) -> str:
        """One line a pass."""
        return "\n".join(str(record) for record in self.records)


def _operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)
