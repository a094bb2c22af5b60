"""The CUDA kernels agree with the CPU's code. Here they run thread by thread in the emulator; on a GPU, for real."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from kernel_source import constants, kernels_of

from edge.cuda import kernels
from edge.cuda.driver import missing_driver
from edge.errors import EngineError

HERE = Path(__file__).parent
CHECKS = sorted(re.findall(r"^def check_(\w+)", (HERE / "kernel_checks.py").read_text(encoding="utf-8"), re.MULTILINE))
REGISTERS = 65_536
"""Of a block, on every GPU that the kernels are compiled for. Each thread has eight or a multiple of them."""
USAGE = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'.*?Used (\d+) registers", re.DOTALL)
RESOURCE_USAGE = {**os.environ, "NVCC_APPEND_FLAGS": "--resource-usage"}
"""For a build that says how many registers each kernel takes."""


@pytest.mark.parametrize("check", CHECKS)
def test_kernels_agree_with_the_cpu(on_emulator: Callable[..., str], check: str) -> None:
    assert on_emulator("kernel_checks.py", check).split() == [check, "agrees"]


def test_kernels_agree_where_products_and_sums_are_fused(
    on_emulator: Callable[..., str], backend: str, fusing_driver: Path
) -> None:
    """A GPU rounds once where a CPU rounds twice: what is equal or within a grey level has to be so there too."""
    if backend == "pycuda":
        pytest.skip("one backend is enough: kernels are the same")
    said = on_emulator("kernel_checks.py", driver=fusing_driver).splitlines()
    assert sorted(said) == [f"{check} agrees" for check in CHECKS]


ON_A_DEVICE = """
import runpy, sys
_, backend, repository, script, *checks = sys.argv
sys.modules["pytest"] = None  # so that nobody can import it
sys.path[:] = [folder for folder in sys.path if folder != repository]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
sys.argv[:] = [script, backend, *checks]
runpy.run_path(script, run_name="__main__")
print(sys.modules["edge"].__file__)
"""


def test_the_checks_run_without_pytest_and_from_any_folder(
    on_emulator: Callable[..., str], repository: Path, tmp_path: Path
) -> None:
    """As the sanitizer starts them on a device: there is no pytest, and this checkout need not be installed."""
    child, checks = tmp_path / "child.py", ("memory", "version", "refusals")
    child.write_text(ON_A_DEVICE, encoding="ascii")
    *said, edge = on_emulator(str(child), str(repository), str(HERE / "kernel_checks.py"), *checks).splitlines()
    assert said == [f"{check} agrees" for check in checks]
    assert Path(edge) == repository / "edge" / "__init__.py"


WITH_PYTHONS_LOCK = """
import ctypes, threading, time
keeping, giving = ctypes.PyDLL("libcuda.so.1"), ctypes.CDLL("libcuda.so.1")
made, began = ctypes.c_void_p(), threading.Event()

@ctypes.CFUNCTYPE(None, ctypes.c_long)
def work(_):
    began.set()
    time.sleep(0.3)

def queue():
    assert giving.cuCtxSetCurrent(1) == 0
    assert giving.emulated_work(None, work, 0) == 0

worker = threading.Thread(target=queue)
worker.start()
assert began.wait(10)
assert keeping.cuCtxSetCurrent(1) == keeping.cuMemAlloc_v2(ctypes.byref(made), ctypes.c_size_t(8)) == 0
worker.join()
print("went on")
"""


def test_the_emulator_does_not_wait_for_python_while_python_waits_for_it(
    on_emulator: Callable[..., str], tmp_path: Path
) -> None:
    """pycuda starts kernels with Python's lock in its hand; what stands in for TensorRT needs that lock to work."""
    child = tmp_path / "child.py"
    child.write_text(f"import faulthandler\nfaulthandler.dump_traceback_later(60, exit=True)\n{WITH_PYTHONS_LOCK}")
    assert on_emulator(str(child)).strip() == "went on"


@pytest.mark.gpu
@pytest.mark.skipif(missing_driver() is not None, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("backend", ["pycuda", "cuda-python"])
def test_kernels_agree_with_the_cpu_on_a_gpu(check: str, backend: str) -> None:
    if find_spec({"pycuda": "pycuda", "cuda-python": "cuda"}[backend]) is None:
        pytest.skip(f"{backend} is not installed")
    script = HERE / "kernel_checks.py"
    subprocess.run([sys.executable, str(script), backend, check], check=True)


def test_signatures_are_those_of_the_source(repository: Path) -> None:
    """The runtime passes arguments by position and size: a wrong letter would be a wild address on the device."""
    assert {name: kernel.signature for name, kernel in kernels_of(repository).items()} == kernels.SIGNATURES


def test_sizes_are_those_of_the_source(repository: Path) -> None:
    found = constants(repository)
    wanted = {
        "kFields": kernels.FIELDS,
        "kCandidates": kernels.CANDIDATES,
        "kVoters": kernels._VOTERS,
        "kSummers": kernels._SUMMERS,
        "kMostCrop": kernels._MOST_CROP,
        "kTop": kernels.TOP,
        "kProbes": kernels.PROBES,
        "kMaxDimensions": kernels.MAX_DIMENSIONS,
    }
    assert {name: found[name] for name in wanted} == wanted


@pytest.fixture
def with_one_kernel(repository: Path, tmp_path: Path) -> Path:
    """The repository's build of a kernel that compiles in no time, for what the build does with whatever kernels."""
    folder = tmp_path / "one"
    (folder / "kernels").mkdir(parents=True)
    for name in ("CMakeLists.txt", "CMakePresets.json"):
        shutil.copy(repository / name, folder)
    (folder / "kernels" / "kernels.cu").write_text('extern "C" __global__ void nothing() {}\n', encoding="ascii")
    return folder


@pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("cmake")), reason="needs nvcc and cmake")
def test_a_warning_ends_the_build_and_what_it_made_is_installed(with_one_kernel: Path, tmp_path: Path) -> None:
    """An architecture that every CUDA from 11.4 on has, and one that none has and that is left out."""
    build = tmp_path / "build"
    configure = ["cmake", "-S", str(with_one_kernel), "-B", str(build), "-DARCEDGE_ARCHITECTURES=87;999"]
    said = subprocess.run([*configure], check=True, capture_output=True, text=True).stdout
    assert "this CUDA has no 999" in said
    built_with_usage(build)
    subprocess.run(["cmake", "--install", str(build), "--prefix", str(tmp_path / "there")], check=True)
    image = (tmp_path / "there" / "edge" / "cuda" / kernels.FAT_BINARY).read_bytes()
    assert fat_entries(image) == [("ptx", 87), ("elf", 87)]
    (with_one_kernel / "kernels" / "kernels.cu").write_text("static void nobody() { int unused; }\n", encoding="ascii")
    done = subprocess.run(["cmake", "--build", str(build)], check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "unused" in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("cmake")), reason="needs nvcc and cmake")
@pytest.mark.parametrize("preset", ["desktop", "jetson"])
def test_the_fat_binary_holds_what_its_preset_promises(
    repository: Path, with_one_kernel: Path, tmp_path: Path, preset: str
) -> None:
    """Machine code for each architecture this nvcc has, and PTX of the newest alone, for GPUs that come later.

    The desktop's are all: our kernels are compiled for these, and every architecture of a Jetson is among them.
    """
    presets = json.loads((repository / "CMakePresets.json").read_text(encoding="utf-8"))["configurePresets"]
    named = next(entry for entry in presets if entry["name"] == preset).get("cacheVariables", {})
    default = re.search(
        r'ARCEDGE_ARCHITECTURES "([\d;]+)"', (repository / "CMakeLists.txt").read_text(encoding="utf-8")
    )
    assert default is not None
    asked = [int(each) for each in named.get("ARCEDGE_ARCHITECTURES", default.group(1)).split(";")]
    nvcc = subprocess.run(["nvcc", "--list-gpu-code"], check=True, capture_output=True, text=True).stdout
    known = {int(each) for each in re.findall(r"sm_(\d+)", nvcc)}
    assert asked == ([72, 75, 80, 86, 87, 89, 90, 100, 110, 120] if preset == "desktop" else [72, 87, 110])
    source, build = repository if preset == "desktop" else with_one_kernel, tmp_path / "build"
    subprocess.run(["cmake", "--preset", preset, "-S", str(source), "-B", str(build)], cwd=source, check=True)
    said = built_with_usage(build)
    if preset == "desktop":
        require_registers(repository, said, [f"sm_{each}" for each in asked if each in known])
    held = fat_entries((build / kernels.FAT_BINARY).read_bytes())
    there = [each for each in asked if each in known]
    assert [(kind, arch) for kind, arch in held if kind == "elf"] == [("elf", each) for each in there]
    assert [arch for kind, arch in held if kind == "ptx"] == [there[-1]]


def built_with_usage(folder: Path) -> str:
    """Builds what was configured there; what nvcc says of each kernel."""
    done = subprocess.run(
        ["cmake", "--build", str(folder)], env=RESOURCE_USAGE, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def require_registers(repository: Path, said: str, architectures: list[str]) -> None:
    """A block of as many threads as a kernel is started with has its registers; else the driver refuses each launch."""
    found = {(name, architecture): int(registers) for name, architecture, registers in USAGE.findall(said)}
    threads = {name: kernel.threads for name, kernel in kernels_of(repository).items()}
    assert set(found) == {(name, architecture) for name in threads for architecture in architectures}
    for (name, architecture), registers in found.items():
        assert threads[name], f"{name} does not say how many threads a block has"
        warps, eights = -(-threads[name] // 32), -(-registers // 8)
        assert 32 * warps * 8 * eights <= REGISTERS, f"{name} takes {registers} registers a thread on {architecture}"


def fat_entries(image: bytes) -> list[tuple[str, int]]:
    """Kind and architecture of each part of a fat binary: a header, then entries with headers of their own."""
    magic, _, header, size = struct.unpack_from("<IHHQ", image)
    assert magic == 0xBA55ED50
    assert header + size == len(image)
    found, at = [], header
    while at < len(image):
        kind, _, length, payload = struct.unpack_from("<HHIQ", image, at)
        found.append(({1: "ptx", 2: "elf"}[kind], struct.unpack_from("<I", image, at + 28)[0]))
        at += length + payload
    return found


def test_missing_kernels_say_how_to_build_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.ENVIRONMENT, str(tmp_path / "absent.fatbin"))
    with pytest.raises(EngineError, match="cmake --preset desktop"):
        kernels.read_fat_binary()


@pytest.mark.skipif(missing_driver() is None, reason="there is a GPU")
def test_without_a_driver_nothing_is_imported_and_one_line_says_so() -> None:
    code = (
        "import sys\nfrom edge.cuda import open_device\nfrom edge.errors import EngineError\n"
        "try: open_device()\nexcept EngineError as error: print(error)\n"
        "print(sorted({'pycuda', 'cuda.bindings', 'tensorrt'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, loaded = done.stdout.splitlines()
    assert message.startswith("no NVIDIA driver")
    assert loaded == "[]"
