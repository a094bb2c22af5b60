"""The teachers: a YuNet asked for its answers, and YuNet-s asked for what each of its units computes on the way.

The units' outputs teach the network unit by unit, which needs a hundredth of the pictures learning from boxes needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge.engines import Session, SessionOptions, open_session
from edge.errors import EngineError, InputError
from edge.types import Floats
from training.detector.network import OUTPUT_NAMES

TAPS = {
    "first": "184",
    "stem": "188",
    "narrow_0": "193",
    "narrow_1": "197",
    "narrow_2": "201",
    "narrow_3": "205",
    "stage_8_0": "210",
    "stage_8_1": "214",
    "stage_16_0": "219",
    "stage_16_1": "223",
    "stage_32_0": "228",
    "stage_32_1": "232",
    "neck_32": "236",
    "neck_16": "246",
    "neck_8": "256",
}
"""What a unit gives → name of that tensor in yunet_s_dynamic.onnx. Pooling comes after "stem", "narrow_3", stages; the
necks go from coarse to fine."""


class Teacher:
    """A YuNet behind ONNX Runtime, with `taps`, inner tensors by what they are called here, as further outputs."""

    def __init__(self, path: Path, taps: Mapping[str, str], threads: int = 1) -> None:
        try:
            model = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); name the teacher's ONNX file") from error
        self._session: Session = open_session(
            _with_outputs(model, tuple(taps.values())), options=SessionOptions(threads)
        )
        names = {spec.name for spec in self._session.outputs}
        if missing := sorted(set(OUTPUT_NAMES) - names):
            raise EngineError(f"{path}: has no output {missing[0]}; a teacher is a YuNet with free input size")
        self._input, self._taps = self._session.inputs[0].name, dict(taps)

    def __call__(self, images: Floats) -> dict[str, Floats]:
        """images: (N, 3, H, W) float32 BGR 0–255. Gives the heads by `OUTPUT_NAMES` and the inner tensors by name."""
        outputs = self._session.run({self._input: np.ascontiguousarray(images, dtype=np.float32)})
        return {name: outputs[name] for name in OUTPUT_NAMES} | {name: outputs[tap] for name, tap in self._taps.items()}


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
