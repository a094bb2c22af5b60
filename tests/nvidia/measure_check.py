"""The measuring command on the emulated driver: it runs to its end. Its figures mean nothing there."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import fake_tensorrt  # noqa: E402
import models  # noqa: E402

from edge.contract import ModelContract  # noqa: E402
from edge.manifest import Manifest, Variant  # noqa: E402


def make_bundle(folder: Path) -> None:
    """An embedder of 8 numbers in FP32 and INT8, with the CPU's INT8 that TensorRT cannot take."""
    contract = ModelContract("embedder", (16, 16), template="arcface-112", embedding_size=8)
    plain = models.small_model()
    kinds = [
        ("fp32", "onnx", plain),
        ("int8", "onnx", b"not for TensorRT"),
        ("int8", "tensorrt", models.quantised(plain)),
    ]
    variants = []
    folder.mkdir()
    for precision, engine, data in kinds:
        name = f"embedder-{precision}-{engine}"
        (folder / f"{name}.onnx").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        variants.append(Variant(name, "embedder", precision, engine, f"{name}.onnx", digest, len(data), contract))
    text = json.dumps(Manifest(tuple(variants)).to_dict())
    (folder / "bundle.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _, backend, version, folder = sys.argv
    sys.modules["tensorrt"] = fake_tensorrt.make(version)
    root = Path(folder)
    make_bundle(root / "bundle")
    from benchmarks.gpu.measure import main

    command = [
        "--bundle",
        root / "bundle",
        "--out",
        root / "out.json",
        "--rounds",
        3,
        "--rows",
        64,
        "--frame",
        "160x120",
    ]
    code = main([str(part) for part in [*command, "--copy-bytes", 4096, "--backend", backend]])
    assert code == 0, code
    print(json.dumps(json.loads((root / "out.json").read_text(encoding="utf-8"))))
