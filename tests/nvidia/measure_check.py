"""The measuring command on the emulated driver: it runs to its end. Its figures mean nothing there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from hashlib import sha256
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
        digest = sha256(data).hexdigest()
        variants.append(Variant(name, "embedder", precision, engine, f"{name}.onnx", digest, len(data), contract))
    text = json.dumps(Manifest(tuple(variants)).to_dict())
    (folder / "bundle.json").write_text(text, encoding="utf-8")


def add_detector(folder: Path) -> None:
    """So that a bundle has frames to measure; it finds nothing."""
    data = models.small_model(side=None)
    (folder / "detector.onnx").write_bytes(data)
    contract = ModelContract("detector", None, layout="nhwc", dtype="uint8")
    found = Variant(
        "detector", "detector", "fp32", "onnx", "detector.onnx", sha256(data).hexdigest(), len(data), contract
    )
    variants = (*Manifest.from_dict(json.loads((folder / "bundle.json").read_text(encoding="utf-8"))).variants, found)
    (folder / "bundle.json").write_text(json.dumps(Manifest(variants).to_dict()), encoding="utf-8")


def require_one_build_each(root: Path, command: list[str]) -> None:
    """An engine that fails its proof is built once, for all figures that would need it, and each says why."""
    make_bundle(root / "failing.bundle")
    add_detector(root / "failing.bundle")
    os.environ["ARCEDGE_CACHE"] = str(root / "empty")
    fake_tensorrt.built.clear()
    fake_tensorrt.spoil_plans = True
    only = ["--bundle", str(root / "failing.bundle"), "--out", str(root / "failing.json"), "--frames", "1"]
    code, said = running([*command, *only])
    fake_tensorrt.spoil_plans = False
    assert len(fake_tensorrt.built) == len(set(fake_tensorrt.built)) == 3, "built more than once"
    (entries,) = json.loads((root / "failing.json").read_text(encoding="utf-8"))["bundles"].values()
    for part in ("engines", "energy", "frames"):
        assert entries[part]
        for found in entries[part].values():
            assert "no engine was kept" in found["not_measured"], (part, found)
    assert code == 1
    assert "edge: failing.bundle, engine: detector: the fp32 engine gives something else than its model" in said
    assert said.splitlines()[-1].startswith("edge: not measured: failing.bundle, engine: embedder-fp32-onnx, ")


def require_told_before(root: Path, command: list[str]) -> None:
    """Without TensorRT or ONNX Runtime nothing is measured, and all that is missing is said at once."""
    there = {name: sys.modules[name] for name in ("tensorrt", "onnxruntime")}
    sys.modules.update(dict.fromkeys(there))
    code, said = running([*command, "--out", str(root / "nothing.json")])
    sys.modules.update(there)
    assert (code, said.count("\n")) == (2, 1), said
    assert "tensorrt is not installed" in said
    assert "held against ONNX Runtime: onnxruntime is not installed" in said
    assert not (root / "nothing.json").exists()


def running(command: list[str]) -> tuple[int, str]:
    """The command's exit code, and what it says beside its figures."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(command)
    return code, said.getvalue()


if __name__ == "__main__":
    _, backend, version, folder = sys.argv
    sys.modules["tensorrt"] = fake_tensorrt.make(version)
    root = Path(folder)
    make_bundle(root / "one.bundle")
    make_bundle(root / "two.bundle")
    from benchmarks.gpu import engines
    from benchmarks.gpu.measure import main

    engines.LAYER_RUNS = 4  # as few as the rounds
    command = ["--bundle", root / "one.bundle", root / "two.bundle", "--out", root / "out.json", "--rounds", 4]
    command += ["--rows", 64, "--frame", "160x120", "--batches", "1,8,64", "--energy-seconds", 0.01]
    command = [str(part) for part in [*command, "--copy-bytes", 4096, "--backend", backend]]
    code = main(command)
    assert code == 0, code
    first = (root / "out.json").read_text(encoding="utf-8")

    # Started again it measures nothing that is there, and what is of something else it refuses.
    kept = json.loads(first)
    del kept["bundles"]["two.bundle"]["engines"]["embedder-int8-tensorrt"]
    kept["kernels"] = {"not_measured": "no fat binary"}
    (root / "out.json").write_text(json.dumps(kept), encoding="utf-8")
    assert main(command) == 0
    again = json.loads((root / "out.json").read_text(encoding="utf-8"))
    assert again["time"] == kept["time"]
    assert again["bundles"]["one.bundle"]["engines"] == kept["bundles"]["one.bundle"]["engines"]
    assert "embedder-int8-tensorrt" in again["bundles"]["two.bundle"]["engines"]
    assert "kernels" in again["kernels"]
    assert main([*command, "--frames", "1,2"]) == 2
    # Nor does it mix figures of two TensorRTs.
    kept["tensorrt"] = "8.5.3.1"
    (root / "older.json").write_text(json.dumps(kept), encoding="utf-8")
    assert main([*command, "--out", str(root / "older.json")]) == 2
    # A damaged model of the last bundle is told before anything of the first is measured.
    model = root / "two.bundle" / "embedder-int8-tensorrt.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    assert main([*command, "--out", str(root / "other.json")]) == 2
    assert not (root / "other.json").exists()
    model.write_bytes(whole)
    (root / "out.json").write_text("{}", encoding="utf-8")
    assert main(command) == 2
    require_told_before(root, command)
    require_one_build_each(root, command)
    print(first.replace("\n", " "))
