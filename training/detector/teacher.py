"""The teacher: YuNet-n, asked for its answers and for what its stages compute on the way.

Its features teach the network stage by stage, which needs a hundredth of the pictures that learning from boxes needs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge.engines import Session, SessionOptions, open_session
from edge.errors import EngineError, InputError
from edge.types import Floats
from training.detector.network import OUTPUT_NAMES

TAPS = {
    "stem": "216",
    "wide": "233",
    "backbone_8": "241",
    "backbone_16": "250",
    "backbone_32": "259",
    "neck_8": "283",
    "neck_16": "273",
    "neck_32": "263",
    "head_8": "287",
    "head_16": "291",
    "head_32": "295",
}
"""What a stage gives → name of that tensor in yunet_n_dynamic.onnx."""


class Teacher:
    """YuNet-n behind ONNX Runtime, with its stages as further outputs."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        try:
            model = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); name the teacher's ONNX file") from error
        self._session: Session = open_session(
            _with_outputs(model, tuple(TAPS.values())), options=SessionOptions(threads)
        )
        names = {spec.name for spec in self._session.outputs}
        if missing := sorted(set(OUTPUT_NAMES) - names):
            raise EngineError(f"{path}: has no output {missing[0]}; the teacher is yunet_n_dynamic.onnx")
        self._input = self._session.inputs[0].name

    def __call__(self, images: Floats) -> dict[str, Floats]:
        """images: (N, 3, H, W) float32 BGR 0–255. Gives the heads by `OUTPUT_NAMES` and the stages by `TAPS`."""
        outputs = self._session.run({self._input: np.ascontiguousarray(images, dtype=np.float32)})
        return {name: outputs[name] for name in OUTPUT_NAMES} | {name: outputs[tap] for name, tap in TAPS.items()}


def _with_outputs(model: bytes, names: tuple[str, ...]) -> bytes:
    """An ONNX file with inner tensors among its outputs.

    Two protobuf messages written one after the other are read as one, merged: what is appended here is a model whose
    graph has these outputs and nothing else (ModelProto.graph = 7, GraphProto.output = 12, ValueInfoProto.name = 1).
    """
    return model + b"".join(_field(7, _field(12, _field(1, name.encode()))) for name in names)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    length, size = bytearray(), len(payload)
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2]) + bytes([*length, size]) + payload
