"""An ONNX model of one node, written without the onnx package, which no device has: uint8 × int8 → int32 products.

ONNX Runtime multiplies one row by a matrix without rearranging it first, if there is no zero point: 35 ms instead of
132 for a million rows of 512. So who calls subtracts it. Field numbers are those of onnx.proto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
"""

from __future__ import annotations

_UINT8, _INT8, _INT32 = 2, 3, 6


def product_model() -> bytes:
    """probe (1, K) uint8 and rows (B, K, N) int8 → sums (B, 1, N) int32."""
    node = _text(1, "probe") + _text(1, "rows") + _text(2, "sums")
    graph = (
        _bytes(1, node + _text(4, "MatMulInteger"))
        + _text(2, "product")
        + _bytes(11, _tensor("probe", _UINT8, ("one", "k")))
        + _bytes(11, _tensor("rows", _INT8, ("blocks", "k", "n")))
        + _bytes(12, _tensor("sums", _INT32, ("blocks", "one", "n")))
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, 13))


def _tensor(name: str, dtype: int, dimensions: tuple[str, ...]) -> bytes:
    """A ValueInfoProto with a name for each dimension."""
    shape = b"".join(_bytes(1, _text(2, dimension)) for dimension in dimensions)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, dtype) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
