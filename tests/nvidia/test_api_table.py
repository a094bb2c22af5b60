"""Our TensorRT code uses no name that a supported version lacks on the path it takes there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from api_walk import walk

TABLE = json.loads((Path(__file__).parent / "tensorrt_api.json").read_text(encoding="utf-8"))
VERSIONS: list[str] = TABLE["versions"]


def names_of(version: str) -> frozenset[str]:
    place = VERSIONS.index(version)
    return frozenset(name for name, has in TABLE["names"].items() if has[place] == "1")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_there_in_every_version(repository: Path, version: str) -> None:
    used: set[str] = set()
    for path in sorted((repository / "edge" / "engines" / "tensorrt").glob("*.py")):
        walked = walk(path.read_text(encoding="utf-8"), names_of(version))
        used |= walked.used
        assert not walked.missing, f"{path.name}: TensorRT {version} has no {walked.missing}"
    # A walk that finds nothing proves nothing: these are what building and running cannot do without.
    assert used >= {
        "Builder.build_serialized_network",
        "IBuilderConfig.set_memory_pool_limit",
        "OnnxParser.parse",
        "ICudaEngine.num_io_tensors",
        "IExecutionContext.execute_async_v3",
        "Runtime.deserialize_cuda_engine",
    }
    strongly = "STRONGLY_TYPED" in {name.split(".")[-1] for name in used if name.startswith("NetworkDef")}
    assert strongly == (not version.startswith("8."))
    assert ("BuilderFlag.INT8" in used) == version.startswith("8.")


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ("context.execute_async_v2(1, 2)", {"10.3.0", "11.4.0.106"}),
        ("config.set_flag(trt.BuilderFlag.FP16)", {"11.4.0.106"}),
        ("if hasattr(trt.BuilderFlag, 'FP16'):\n    config.set_flag(trt.BuilderFlag.FP16)", set()),
        ("if not hasattr(trt.BuilderFlag, 'FP16'):\n    config.set_flag(trt.BuilderFlag.FP16)", {"11.4.0.106"}),
        ("def f():\n    if hasattr(trt, 'IProgressMonitor'):\n        return\n    engine.num_bindings", set()),
        ("self._engine.num_bindings", {"10.3.0", "11.4.0.106"}),
        ("for i in range(3):\n    plan.engine.device_memory_size", {"11.4.0.106"}),
        ("x = builder.platform_has_fast_int8 if y else 0", {"11.4.0.106"}),
        ("class M(trt.IProgressMonitor):\n    pass", {"8.5.3.1"}),
        ("builder.build_engine_faster()", {"8.5.3.1", "10.3.0", "11.4.0.106"}),
    ],
)
def test_the_walk_finds_what_is_planted(source: str, lacking: set[str]) -> None:
    versions = ("8.5.3.1", "10.3.0", "11.4.0.106")
    assert {version for version in versions if walk(source, names_of(version)).missing} == lacking


def test_the_table_spans_what_is_supported() -> None:
    assert VERSIONS[0].startswith("8.5")
    assert VERSIONS[-1].startswith("11.4")
    assert len(TABLE["names"]) > 500
