"""Our TensorRT code uses no name that a supported version lacks on the path it takes there."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from api_walk import walk

from edge.cuda.driver import missing_driver

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
        ("class M(trt.IProgressMonitor):\n    pass", {"8.5.3.1", "8.6.0"}),
        ("builder.build_engine_faster()", {"8.5.3.1", "8.6.0", "10.3.0", "11.4.0.106"}),
        ("config.builder_optimization_level = 3", {"8.5.3.1"}),
    ],
)
def test_the_walk_finds_what_is_planted(source: str, lacking: set[str]) -> None:
    versions = ("8.5.3.1", "8.6.0", "10.3.0", "11.4.0.106")
    assert {version for version in versions if walk(source, names_of(version)).missing} == lacking


def test_the_table_spans_what_is_supported() -> None:
    assert VERSIONS[0].startswith("8.5")
    assert VERSIONS[-1].startswith("11.4")
    assert len(TABLE["names"]) > 500


def test_the_package_is_imported_in_one_place_behind_the_driver_check(repository: Path) -> None:
    """TensorRT 8.6 ends the process where a runtime is made without a driver: whoever holds the package has one."""
    found = [
        (path.relative_to(repository).as_posix(), statement.lineno)
        for package in ("edge", "export", "training", "benchmarks")
        for path in sorted((repository / package).rglob("*.py"))
        for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if "tensorrt" in imported(statement)
    ]
    ((path, line),) = found
    assert path == "edge/engines/tensorrt/api.py"
    tree = ast.parse((repository / path).read_text(encoding="utf-8"))
    load = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "load")
    check = load.body[1]  # behind the docstring
    assert ast.unparse(check) == "if (missing := missing_driver()):\n    raise EngineError(missing)"
    assert check.lineno < line < (load.end_lineno or 0)


def imported(statement: ast.AST) -> list[str]:
    """Top-level packages that a statement imports by name."""
    if isinstance(statement, ast.Import):
        return [entry.name.split(".")[0] for entry in statement.names]
    if isinstance(statement, ast.ImportFrom) and statement.level == 0:
        return [(statement.module or "").split(".")[0]]
    return []


@pytest.mark.skipif(missing_driver() is None, reason="there is a GPU")
def test_without_a_driver_nobody_touches_the_package(repository: Path, tmp_path: Path) -> None:
    """A package that ends the process when it is imported, as TensorRT's may when it is used: nobody gets that far."""
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").write_text("import os\nos._exit(66)\n", encoding="ascii")
    code = (
        "import sys\nfrom edge.doctor import examine\nfrom edge.engines import ENGINES, get_engine, open_session\n"
        "from edge.errors import EngineError\nfrom edge.engines.tensorrt import TensorRtEngine\n"
        "print(len(examine()))\n"
        "for name in ENGINES: get_engine(name).available()\n"
        "for act in (lambda: open_session(b'', 'tensorrt'), lambda: TensorRtEngine().load(b''),\n"
        "            lambda: TensorRtEngine().version()):\n"
        "    try: act()\n"
        "    except EngineError as error: print(error)\n"
        "print('tensorrt' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{repository}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[1:]
    assert said == [missing_driver()] * 3 + ["False"]
