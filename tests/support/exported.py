"""Remembers what torch's exporter gave for a network, across test sessions and between processes that share the tests.

The exporter takes seconds a network and is most of these tests' time. A graph is found again only for the same weights,
network code, exporter code and versions; and every caller of the exporter compares what it got with torch, so that a
graph found wrongly would fail there.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from export import to_onnx

MOST = 32
"""Graphs kept; the oldest go first."""

REAL_EXPORTER = to_onnx._export
"""torch's exporter itself."""

Export = Callable[[nn.Module, np.ndarray, Any, Sequence[str]], onnx.ModelProto]


def remembering(real: Export, folder: Path) -> Export:
    """`real`, asked only for what is not in `folder` yet, and by one process at a time: the next finds it there."""

    def export(network: nn.Module, sample: np.ndarray, shapes: Any, outputs: Sequence[str]) -> onnx.ModelProto:
        file = folder / f"{key(network, sample, shapes, outputs)}.onnx"
        if file.is_file():
            return onnx.load(file)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if file.is_file():
                return onnx.load(file)
            model = real(network, sample, shapes, outputs)
            part = file.with_suffix(".part")
            part.write_bytes(model.SerializeToString())
            part.replace(file)
            for old in sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime)[:-MOST]:
                old.unlink(missing_ok=True)
        return model

    return export


def key(network: nn.Module, sample: np.ndarray, shapes: Any, outputs: Sequence[str]) -> str:
    """SHA-256 (hex) over all that an export depends on."""
    digest = hashlib.sha256()
    versions = [sys.version, *(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript"))]
    digest.update(repr((versions, shapes, list(outputs), sample.shape, str(network))).encode())
    digest.update(sample.tobytes())
    files = {inspect.getsourcefile(type(module)) for module in network.modules()} | {to_onnx.__file__}
    for file in sorted(file for file in files if file and "site-packages" not in file):
        digest.update(Path(file).read_bytes())
    for name, value in network.state_dict().items():
        array = value.numpy()
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
