"""Remembers what torch's exporter gave for a network, across test sessions and between processes that share the tests.

The exporter takes seconds a network, whatever its weights are: it writes them into the graph as they stand. So a graph
is found again for the same layers, shapes, network code, exporter code and versions, and gets the weights of the
network that is asked for. Every caller of the exporter compares what it got with torch, so that a graph found wrongly
would fail there.
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
            return with_weights(onnx.load(file), network)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if file.is_file():
                return with_weights(onnx.load(file), network)
            model = real(network, sample, shapes, outputs)
            before = model.SerializeToString()
            assert with_weights(model, network).SerializeToString() == before, "the exporter changed a weight"
            part = file.with_suffix(".part")
            part.write_bytes(model.SerializeToString())
            part.replace(file)
            for old in sorted(folder.glob("*.onnx"), key=lambda path: path.stat().st_mtime)[:-MOST]:
                old.unlink(missing_ok=True)
        return model

    return export


def with_weights(model: onnx.ModelProto, network: nn.Module) -> onnx.ModelProto:
    """`model` with the values of `network` in its initialisers of the same name; it is changed in place."""
    state = network.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in state:
            tensor.raw_data = np.ascontiguousarray(state[tensor.name].numpy()).tobytes()
    return model


def key(network: nn.Module, sample: np.ndarray, shapes: Any, outputs: Sequence[str]) -> str:
    """SHA-256 (hex) over all that an export depends on, but for the values of weights and sample and its free sizes.

    Of a free size only 0 and 1 are told from others: the exporter takes these for fixed.
    """
    digest = hashlib.sha256()
    free = {place for places in shapes.values() for place in places}
    sizes = [min(size, 2) if place in free else size for place, size in enumerate(sample.shape)]
    versions = [sys.version, *(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxscript"))]
    digest.update(repr((versions, shapes, list(outputs), sizes, sample.dtype, str(network))).encode())
    files = {inspect.getsourcefile(type(module)) for module in network.modules()} | {to_onnx.__file__}
    for file in sorted(file for file in files if file and "site-packages" not in file):
        digest.update(Path(file).read_bytes())
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} {value.requires_grad}".encode())
    return digest.hexdigest()
