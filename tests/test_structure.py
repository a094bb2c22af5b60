"""The import rules of the house, read from the source itself, and what an `import edge` really loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = {"edge", "training", "export", "benchmarks", "model_weights"}

# What each room may take from outside the standard library, and from the rest of the house.
DEVICE = {"numpy", "cv2", "tqdm", "tomli"}
ENGINE_PACKAGES = {
    "onnxruntime": {"onnxruntime"},
    "onnxruntime_arena": {"onnxruntime"},
    "onnxruntime_gpu": {"onnxruntime"},
    "openvino": {"openvino"},
    "tensorrt": {"tensorrt"},
    "triton": {"tritonclient"},
}
CUDA_PACKAGES = {"pycuda", "cuda"}
GALLERY_PACKAGES = {"cipher.py": {"cryptography"}, "milvus_client.py": {"pymilvus", "milvus_lite", "grpc"}}
LIVE_PACKAGES = {
    "metrics.py": {"prometheus_client"},
    **{name: {"aiohttp"} for name in ("connections.py", "guard.py", "routes.py", "server.py")},
}
SINK_PACKAGES = {"mqtt.py": {"paho"}, "nats.py": {"nats"}}
INDEXING_PACKAGES = {"ray_engine.py": {"ray"}}
LEARNING = {"torch", "safetensors", "matplotlib", "numpy", "cv2", "tqdm"}
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "edge": (DEVICE, {"edge"}),
    "training": (LEARNING, {"training", "edge"}),
    "export": (LEARNING | {"onnx", "onnxscript", "google"}, {"export", "training", "edge"}),
}
EXPORT_MAY_TAKE_OF_TRAINING = (
    "training.mobilefacenet",
    "training.checkpoint",
    "training.detector.network",
    "training.landmarker.network",
)


def _imports(path: Path) -> Iterator[str]:
    """Absolute module names imported anywhere in a file, also inside functions, but not under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; the house imports by full name"
            yield node.module or ""


def _files(repository: Path, room: str) -> list[Path]:
    files = sorted((repository / room).rglob("*.py"))
    assert files, f"{room}/ holds no code"
    return files


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_it_may(repository: Path, room: str) -> None:
    outside, inside = ROOMS[room]
    offences = []
    for path in _files(repository, room):
        allowed = outside | _extras_of(path.relative_to(repository))
        for module in _imports(path):
            top = module.partition(".")[0]
            if top in HOUSE:
                if top not in inside:
                    offences.append(f"{path.relative_to(repository)} imports {module}")
            elif top not in sys.stdlib_module_names and top not in allowed:
                offences.append(f"{path.relative_to(repository)} imports {module}")
    assert not offences, "\n".join(offences)


def _extras_of(path: Path) -> set[str]:
    """An engine's file may import that engine's package, and nobody else's."""
    if path.parts[:2] == ("edge", "engines"):
        return ENGINE_PACKAGES.get(path.parts[2].removesuffix(".py"), set())
    if path.parts[:2] == ("edge", "cuda"):
        return CUDA_PACKAGES
    if path.parts == ("edge", "signing.py"):
        return {"cryptography"}
    if path.parts == ("training", "detector", "mesh.py"):
        return {"openvino"}  # reads a TFLite file by its path, which is no model that an engine of edge/ is to run
    if path.parts[:2] == ("edge", "gallery"):
        return GALLERY_PACKAGES.get(path.name, set())
    if path.parts[:2] == ("edge", "live"):
        return LIVE_PACKAGES.get(path.name, set())
    if path.parts[:2] == ("edge", "sinks"):
        return SINK_PACKAGES.get(path.name, set())
    if path.parts[:2] == ("edge", "indexing"):
        return INDEXING_PACKAGES.get(path.name, set())
    return set()


def test_export_takes_only_networks_of_training(repository: Path) -> None:
    offences = [
        f"{path.relative_to(repository)} imports {module}"
        for path in _files(repository, "export")
        for module in _imports(path)
        if module.split(".")[0] == "training" and not module.startswith(EXPORT_MAY_TAKE_OF_TRAINING)
    ]
    assert not offences, "\n".join(offences)


def test_importing_the_runtime_loads_no_training_or_export_package() -> None:
    code = (
        "import sys, edge, edge.analyze, edge.cli.main\n"
        "edge.cli.main.build_parser(edge.cli.main.find_verbs()).format_help()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'onnx', 'scipy', 'matplotlib'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_tracked_file_names_a_machine(repository: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    roots = tuple(f"/{name}/" for name in ("work", "root"))
    for name in filter(None, listed.stdout.split("\0")):
        path = repository / name
        if path.suffix in {".safetensors", ".png", ".onnx"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8")
        assert not any(f" {root}" in text or f'"{root}' in text for root in roots), (
            f"{name} names a path of one machine"
        )
