"""Just enough of the ONNX file format to see what a model is, and to take Q/DQ pairs off single layers.

A device has no onnx package, and needs none: the format is Protocol Buffers, a list of numbered fields each either a
number or bytes. Everything that is not a node is copied as it stands. Field numbers are onnx.proto3's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from edge.errors import EngineError

Precision = Literal["fp32", "fp16", "int8"]

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT = 1, 3
_TENSOR_TYPE, _FLOAT16 = 2, 10
_VALUE_NAME = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its number, its value (bytes, or a number) and its whole text in the file."""

    number: int
    value: bytes | int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Node:
    """A node: name, operator, the tensors it takes and gives, and its text in the file."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    raw: bytes

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution in groups, which in the networks here are of one channel each."""
        for entry in fields(self.raw):
            if entry.number == _NODE_ATTRIBUTE:
                parts = {part.number: part.value for part in fields(_bytes(entry))}
                groups = parts.get(_ATTRIBUTE_INT)
                if parts.get(_ATTRIBUTE_NAME) == b"group" and isinstance(groups, int) and groups > 1:
                    return self.operator == "Conv"
        return False

    def with_inputs(self, inputs: tuple[str, ...]) -> Node:
        """The same node, taking other tensors."""
        # Field 1 is written first by every writer there is, and readers must take any order.
        rest = b"".join(entry.raw for entry in fields(self.raw) if entry.number != _NODE_INPUT)
        return replace(self, inputs=inputs, raw=b"".join(_field(_NODE_INPUT, name.encode()) for name in inputs) + rest)


class OnnxFile:
    """A model's nodes, and the rest of it untouched."""

    def __init__(self, data: bytes) -> None:
        """Raises EngineError for what is no ONNX model."""
        try:
            self._model = list(fields(data))
            graph = next(entry.value for entry in self._model if entry.number == _MODEL_GRAPH)
            assert isinstance(graph, bytes)
            self._graph = list(fields(graph))
            self.nodes = tuple(_node(_bytes(entry)) for entry in self._graph if entry.number == _GRAPH_NODE)
            self.outputs = frozenset(
                _text(_bytes(entry), _VALUE_NAME) for entry in self._graph if entry.number == _GRAPH_OUTPUT
            )
        except (StopIteration, ValueError, IndexError, AssertionError) as error:
            raise EngineError("the model is not an ONNX file, or is damaged; export it again") from error

    @property
    def precision(self) -> Precision:
        """What the file carries: int8 where it quantises, fp16 where it holds half-precision weights."""
        if any(node.operator == QUANTISE for node in self.nodes):
            return "int8"
        for entry in self._graph:
            if entry.number == _GRAPH_INITIALIZER and any(
                part.number == _TENSOR_TYPE and part.value == _FLOAT16 for part in fields(_bytes(entry))
            ):
                return "fp16"
        return "fp32"

    def quantised_layers(self) -> tuple[Node, ...]:
        """Nodes that take a tensor behind DequantizeLinear, in the file's order."""
        behind = {node.outputs[0] for node in self.nodes if node.operator == DEQUANTISE}
        return tuple(
            node
            for node in self.nodes
            if node.operator not in (QUANTISE, DEQUANTISE) and any(name in behind for name in node.inputs)
        )

    def pairs_of(self, layer: Node) -> tuple[Node, ...]:
        """The Q/DQ nodes in front of a layer."""
        producers = {name: node for node in self.nodes for name in node.outputs}
        found: list[Node] = []
        for name in layer.inputs:
            while (node := producers.get(name)) is not None and node.operator in (QUANTISE, DEQUANTISE):
                found.append(node)
                name = node.inputs[0]
        return tuple(found)

    def without_pairs(self, layers: Iterable[Node]) -> bytes:
        """The model with the Q/DQ pairs in front of these layers taken off; pairs that others use stay for them."""
        producers = {name: node for node in self.nodes for name in node.outputs}
        chosen = {node.outputs for node in layers}
        nodes = [
            node.with_inputs(tuple(_before_pair(name, producers) for name in node.inputs))
            if node.outputs in chosen
            else node
            for node in self.nodes
        ]
        return self._with(_without_unused_pairs(nodes, self.outputs))

    def _with(self, nodes: list[Node]) -> bytes:
        # Fields of one number keep their order; between numbers there is none.
        parts = [_field(_GRAPH_NODE, node.raw) for node in nodes]
        parts += [entry.raw for entry in self._graph if entry.number != _GRAPH_NODE]
        graph = _field(_MODEL_GRAPH, b"".join(parts))
        return b"".join(graph if entry.number == _MODEL_GRAPH else entry.raw for entry in self._model)


def fields(data: bytes) -> Iterator[Field]:
    """The fields of a message. Raises ValueError or IndexError where it is cut short or no message."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: bytes | int
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            size = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
            if kind == _BYTES:
                size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is cut short")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"no field has wire type {kind}")
        yield Field(number, value, data[start:at])


def _before_pair(name: str, producers: dict[str, Node]) -> str:
    """What stood there before a pair was put behind it."""
    dequantise = producers.get(name)
    if dequantise is None or dequantise.operator != DEQUANTISE:
        return name
    quantise = producers.get(dequantise.inputs[0])
    return quantise.inputs[0] if quantise is not None and quantise.operator == QUANTISE else name


def _without_unused_pairs(nodes: list[Node], outputs: frozenset[str]) -> list[Node]:
    while True:
        used = {name for node in nodes for name in node.inputs} | outputs
        kept = [n for n in nodes if n.operator not in (QUANTISE, DEQUANTISE) or used.intersection(n.outputs)]
        if len(kept) == len(nodes):
            return kept
        nodes = kept


def _node(data: bytes) -> Node:
    texts: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: [], _NODE_NAME: [], _NODE_OP: []}
    for entry in fields(data):
        if entry.number in texts:
            texts[entry.number].append(_bytes(entry).decode())
    name, operator = ("".join(texts[number][-1:]) for number in (_NODE_NAME, _NODE_OP))
    return Node(name, operator, tuple(texts[_NODE_INPUT]), tuple(texts[_NODE_OUTPUT]), data)


def _text(data: bytes, number: int) -> str:
    return next(_bytes(entry).decode() for entry in fields(data) if entry.number == number)


def _bytes(entry: Field) -> bytes:
    if not isinstance(entry.value, bytes):
        raise ValueError("a number stands where bytes belong")  # noqa: TRY004 - the file's fault, not the caller's
    return entry.value


def _field(number: int, value: bytes) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(len(value)) + value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has no end")


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
