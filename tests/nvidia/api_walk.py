"""Walks Python source as one TensorRT version would run it, and finds names that this version does not have.

Which class a variable is of is told by its name: `engine` is an ICudaEngine everywhere in our code, `builder` a
Builder. `hasattr` on such a name is answered from the table of that version, so that only the branch it would take is
walked. A check must stand in the function that needs it: calls are not followed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

CLASSES = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "timing_cache": "ITimingCache",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}


HELD = ("trt", "runtime", "engine", "context")
"""Those that our objects keep as attributes; `options.profile` is not TensorRT's."""


@dataclass
class Walk:
    """One version's walk: `missing` names it lacks where it would use them, `used` all it would use."""

    names: frozenset[str]
    missing: dict[str, int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def statements(self, body: Iterable[ast.stmt]) -> bool:
        """Walks them in order; whether the end of them is reached."""
        for statement in body:
            if isinstance(statement, ast.If):
                test = self.answer(statement.test)
                self.expression(statement.test)
                branches = [statement.body] if test else [statement.orelse] if test is False else []
                reached = [self.statements(branch) for branch in branches or [statement.body, statement.orelse]]
                if not any(reached):
                    return False
            elif isinstance(statement, ast.Return | ast.Raise):
                self.expression(statement)
                return False
            else:
                self.expression(statement)
        return True

    def expression(self, node: ast.AST) -> None:
        """Notes every name of TensorRT in it; statements inside (functions, loops, with) are walked as such."""
        if isinstance(node, ast.IfExp) and (test := self.answer(node.test)) is not None:
            self.expression(node.test)
            self.expression(node.body if test else node.orelse)
            return
        if isinstance(node, ast.Attribute) and (name := dotted(node)) is not None:
            if "__" not in name:
                self.used.add(name)
                if name not in self.names:
                    self.missing.setdefault(name, node.lineno)
            return
        for _, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self.statements(value)
            elif isinstance(value, list):
                for entry in value:
                    if isinstance(entry, ast.AST):
                        self.expression(entry)
            elif isinstance(value, ast.AST):
                self.expression(value)

    def answer(self, test: ast.expr) -> bool | None:
        """What a condition is in this version; None where that is not a matter of versions."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            inner = self.answer(test.operand)
            return None if inner is None else not inner
        if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "hasattr":
            base, name = test.args
            prefix = dotted(base) if isinstance(base, ast.Attribute) else CLASSES.get(getattr(base, "id", ""))
            if prefix is not None and isinstance(name, ast.Constant):
                return f"{prefix}.{name.value}".strip(".") in self.names
        return None


def dotted(node: ast.Attribute) -> str | None:
    """ "BuilderFlag.FP16" of trt.BuilderFlag.FP16, "Builder.reset" of builder.reset; None of anything else's names."""
    parts: list[str] = []
    base: ast.expr = node
    while isinstance(base, ast.Attribute):
        if base.attr.lstrip("_") in HELD:
            return ".".join([CLASSES[base.attr.lstrip("_")], *reversed(parts)]).strip(".") or None
        parts.append(base.attr)
        base = base.value
    if not isinstance(base, ast.Name) or base.id not in CLASSES:
        return None
    name = ".".join([CLASSES[base.id], *reversed(parts)]).strip(".")
    return ".".join(name.split(".")[:2])


def walk(source: str, names: frozenset[str]) -> Walk:
    """Walks a module for a version that has `names`."""
    walked = Walk(names)
    walked.statements(ast.parse(source).body)
    return walked
